//! Schedules in zones, and what starts by itself.

use proptest::prelude::*;
use shipway_workflow::job::Conclusion;

use super::*;
use crate::{
    aggregate::{Actor, Aggregate, Event, fold},
    ids::RunNumber,
    service::{Push, ServiceAggregate, ServiceEvent, ServiceInput, ServiceState},
};

fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = ScheduleTrigger {
        cron: cron.to_owned(),
        timezone: Some(zone.to_owned()),
    };
    let mut at: Timestamp = after.parse().unwrap();
    let times = (0..count).map(|_| {
        at = next(&schedule, at).unwrap();
        at.to_string()
    });
    times.collect()
}

#[test]
fn a_day_of_twenty_three_hours_and_one_of_twenty_five_leave_nothing_out_and_repeat_nothing() {
    let berlin = "Europe/Berlin";
    assert_eq!(
        times("30 2 * * *", berlin, "2026-03-28T00:00:00Z", 3),
        [
            "2026-03-28T01:30:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-30T00:30:00Z"
        ]
    );
    assert_eq!(
        times("30 2 * * *", berlin, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // In every hour: in both of those that the day has twice.
    assert_eq!(
        times("30 * * * *", berlin, "2026-10-24T23:45:00Z", 3),
        [
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:30:00Z"
        ]
    );
    assert_eq!(
        times("*/30 * * * *", berlin, "2026-03-29T00:15:00Z", 3),
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z"
        ]
    );
}

#[test]
fn zones_are_those_of_the_file_and_utc_else() {
    assert_eq!(
        times("0 9 * * 1", "America/New_York", "2026-07-01T00:00:00Z", 2),
        ["2026-07-06T13:00:00Z", "2026-07-13T13:00:00Z"]
    );
    let schedule = ScheduleTrigger {
        cron: "0 9 * * *".to_owned(),
        timezone: None,
    };
    let next = next(&schedule, "2026-07-01T09:00:00Z".parse().unwrap());
    assert_eq!(next, Some("2026-07-02T09:00:00Z".parse().unwrap()));
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn standing(path: &str, cron: Option<&str>, after: Option<&str>) -> ScheduledWorkflow {
    ScheduledWorkflow {
        workflow: WorkflowFile::new(
            path.to_owned(),
            format!(
                "name: {path}\non: push\njobs: {{ a: {{ runs-on: x, steps: [{{ run: a }}] }} }}\n"
            ),
        ),
        schedules: Vec::from_iter(cron.map(|cron| ScheduleTrigger {
            cron: cron.to_owned(),
            timezone: None,
        })),
        after: after.map(|name| OtherEvent {
            name: "workflow_run".to_owned(),
            types: vec!["completed".to_owned()],
            branches: None,
            paths: None,
            workflows: vec![name.to_owned()],
        }),
    }
}

struct Log(ServiceState, Vec<Event<ServiceEvent>>);

impl Log {
    fn of(standing: Vec<ScheduledWorkflow>) -> Self {
        let mut log = Self(ServiceState::default(), Vec::new());
        let commit = Commit {
            id: "a".repeat(40).parse().unwrap(),
            subject: "Sell more".to_owned(),
            author: "Ada <ada@example.com>".to_owned(),
            committer: None,
            at: at(0),
        };
        let push = Push {
            reference: "refs/heads/main".to_owned(),
            before: None,
            commit,
            config: None,
            unconfigured: None,
            tests: Vec::new(),
            source: None,
            location: None,
            commits: Vec::new(),
            commits_omitted: 0,
        };
        let input = ServiceInput::Pushed {
            service: "shop".parse().unwrap(),
            push: Box::new(push),
            workflows: vec![standing[0].workflow.clone()],
            standing: Some(standing),
        };
        log.say(input, at(0));
        log
    }

    fn say(&mut self, input: ServiceInput, now: Timestamp) {
        let by = Actor::Shipway("test".to_owned());
        let events = ServiceAggregate::decide(&self.0, input, by, now).unwrap();
        fold::<ServiceAggregate>(&mut self.0, &events);
        self.1.extend(events);
    }

    /// The events that ordered runs, and their workflows.
    fn orders(&self) -> Vec<String> {
        let orders = self.1.iter().filter_map(|event| match &event.body {
            ServiceEvent::RunOrdered { order } => {
                Some(format!("{} {}", order.event, order.workflow.path))
            }
            _ => None,
        });
        orders.collect()
    }

    fn end(&mut self, run: u32) {
        let input = ServiceInput::RunEnded {
            number: RunNumber(run),
            conclusion: Conclusion::Success,
            artifacts: Vec::new(),
        };
        self.say(input, at(1));
    }
}

#[test]
fn what_follows_itself_ends() {
    let mut log = Log::of(vec![
        standing("a.yml", None, Some("b.yml")),
        standing("b.yml", None, Some("a.yml")),
    ]);
    for run in 1..20 {
        log.end(run);
    }
    assert_eq!(
        log.orders(),
        [
            "push a.yml",
            "workflow_run b.yml",
            "workflow_run a.yml",
            "workflow_run b.yml"
        ]
    );
}

#[test]
fn what_was_missed_is_made_up_for_once_unless_it_is_too_long_ago() {
    let mut log = Log::of(vec![standing("a.yml", Some("0 * * * *"), None)]);
    assert!(ServiceAggregate::pending(&log.0, at(0)).live);
    log.say(ServiceInput::TimerFired, at(10 * 3600));
    assert_eq!(log.orders(), ["push a.yml", "schedule a.yml"]);
    log.say(ServiceInput::TimerFired, at(10 * 3600 + 60));
    assert_eq!(log.orders().len(), 2);
    let mut log = Log::of(vec![standing("a.yml", Some("0 0 1 1 *"), None)]);
    log.say(ServiceInput::TimerFired, at(600 * 24 * 3600));
    assert_eq!(log.orders(), ["push a.yml"]);
    assert!(ServiceAggregate::pending(&log.0, at(0)).wake_at > Some(at(600 * 24 * 3600)));
    // A branch that is gone starts nothing any more.
    let reference = "refs/heads/main".to_owned();
    log.say(ServiceInput::Deleted { reference }, at(0));
    assert_eq!(ServiceAggregate::pending(&log.0, at(0)).wake_at, None);
}

proptest! {
    #[test]
    fn whatever_the_clock_does_no_time_comes_twice(moves in prop::collection::vec((-4_000..8_000i64, any::<bool>()), 1..40)) {
        let mut log = Log::of(vec![standing("a.yml", Some("*/10 * * * *"), None)]);
        let mut second = 0;
        for (by, restart) in moves {
            second += by;
            log.say(ServiceInput::TimerFired, at(second));
            if restart {
                let mut state = ServiceState::default();
                fold::<ServiceAggregate>(&mut state, &log.1);
                log.0 = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            }
        }
        let came: Vec<Timestamp> = log.1.iter().filter_map(|event| match &event.body {
            ServiceEvent::ScheduleFired { at, .. } => Some(*at),
            _ => None,
        }).collect();
        prop_assert!(came.windows(2).all(|two| two[0] < two[1]), "{came:?}");
        prop_assert!(came.iter().all(|at| at.as_second() % 600 == 0));
        prop_assert_eq!(log.orders().len(), 1 + came.len());
    }
}
