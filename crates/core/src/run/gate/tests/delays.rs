//! Jobs that wait for a time: a wait, a freeze; and emergencies.

use super::*;
use crate::gate::{DeploymentRules, FreezeCalendar, FreezeWindow, WindowStarts};

const DEPLOY: &str = "on: push
jobs:
  deploy: { runs-on: x, environment: production, steps: [{ run: a }] }
";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn deploy() -> JobKey {
    "deploy".parse().unwrap()
}

/// Production waits for half an hour, and is frozen each day from 09:00 to 11:00.
fn delayed(approvals: bool) -> RunSpec {
    let mut spec = spec(12, DEPLOY);
    let environment = &mut spec.environments[0];
    if !approvals {
        environment.approvals = None;
    }
    environment.rules = DeploymentRules {
        wait: Some(std::time::Duration::from_secs(1800)),
        freeze: FreezeCalendar {
            windows: vec![FreezeWindow {
                starts: WindowStarts::Cron("0 9 * * *".to_owned()),
                lasts: std::time::Duration::from_secs(7200),
                zone: None,
                reason: Some("inventory".to_owned()),
            }],
        },
        break_glass: vec!["ada".to_owned()],
        ..DeploymentRules::default()
    };
    spec
}

impl Log {
    fn opened_at(spec: RunSpec, now: &str) -> Self {
        let mut log = Self::default();
        let open = RunInput::Open(Box::new(spec));
        log.say_at("ada", open, at(now)).unwrap();
        log
    }

    /// What happens until then, each time the run wakes.
    fn pass_time(&mut self, until: &str) {
        let mut now = self.events.last().unwrap().at;
        while let Some(wake) = RunAggregate::pending(&self.state, now).wake_at {
            assert!(wake > now, "it wakes later than now");
            if wake > at(until) {
                return;
            }
            now = wake;
            self.say_at("shipway", RunInput::TimerFired, now).unwrap();
        }
    }

    fn waits_for(&self) -> String {
        self.view().jobs[0].waits_for.clone().unwrap_or_default()
    }
}

#[test]
fn a_job_waits_for_its_time_and_then_for_the_end_of_a_freeze() {
    let mut log = Log::opened_at(delayed(false), "2026-11-21T08:45:00Z");
    assert_eq!(log.owed(), [""; 0]);
    let wait = "waits until 2026-11-21T09:15:00Z before it goes to production";
    assert_eq!(log.waits_for(), wait);
    log.pass_time("2026-11-21T10:59:59Z");
    assert_eq!(log.owed(), [""; 0]);
    let frozen = "production is frozen until 2026-11-21 11:00 UTC (inventory)";
    assert_eq!(log.waits_for(), frozen);
    log.pass_time("2026-11-21T11:00:00Z");
    assert_eq!(log.owed(), ["run deploy"]);
    assert_eq!(log.waits_for(), "");
    // The next freeze does not stop a job that was let through.
    log.pass_time("2026-11-22T09:30:00Z");
    assert_eq!(log.owed(), ["run deploy"]);
}

#[test]
fn the_wait_of_a_job_passes_while_people_approve() {
    let mut log = Log::opened_at(delayed(true), "2026-11-21T12:00:00Z");
    let subject = log.view().jobs[0].approval.clone().unwrap().subject;
    let approve = |seen| {
        RunInput::Gate(GateInput::Approve {
            key: deploy(),
            groups: Vec::new(),
            comment: None,
            seen,
        })
    };
    let other = crate::ids::Digest::compute(b"something else");
    let refused = log.say_at("alice", approve(Some(other)), at("2026-11-21T12:10:00Z"));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("is not what you saw")
    );
    log.say_at("alice", approve(subject), at("2026-11-21T12:40:00Z"))
        .unwrap();
    assert_eq!(log.owed(), ["run deploy"], "the half hour is over");
}

#[test]
fn break_glass_opens_all_gates_of_a_job_and_stays_until_another_person_has_reviewed_it() {
    let mut log = Log::opened_at(delayed(true), "2026-11-21T09:30:00Z");
    let now = at("2026-11-21T09:31:00Z");
    let glass = |reason: &str| {
        RunInput::Gate(GateInput::BreakGlass {
            key: deploy(),
            groups: Vec::new(),
            reason: reason.to_owned(),
        })
    };
    let review = || {
        RunInput::Gate(GateInput::ReviewBreakGlass {
            key: deploy(),
            comment: None,
        })
    };
    let refused = |result: Result<(), RunRejection>| result.unwrap_err().to_string();
    let other = refused(log.say_at("alice", glass("down"), now));
    assert!(
        other.contains("its environment allows it to ada"),
        "{other}"
    );
    assert!(refused(log.say_at("ada", glass(" "), now)).contains("needs a reason"));
    assert!(refused(log.say_at("bob", review(), now)).contains("nothing to review"));
    log.say_at("ada", glass("the shop is down"), now).unwrap();
    assert_eq!(log.owed(), ["run deploy"]);
    log.say_at("ada", glass("again"), now).unwrap();
    assert!(
        log.approvals.values().any(|live| *live),
        "it waits for its review"
    );
    assert!(refused(log.say_at("ada", review(), now)).contains("another person"));
    log.say_at("bob", review(), now).unwrap();
    assert!(!log.approvals.values().any(|live| *live));
    let view = log.view().jobs[0].broken_glass.clone().unwrap();
    assert_eq!(view.reason, "the shop is down");
    assert_eq!(view.review.unwrap().by, "bob");
}
