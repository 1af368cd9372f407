//! Deliveries as text: what comes in, what a service orders, who waits for whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use shipway_syntax::SourceFile;
use shipway_workflow::job::Conclusion;

use super::*;
use crate::{
    access::Principal,
    aggregate::fold,
    config,
    ids::{Digest, EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber},
    release::{Commit, WorkflowFile},
    rollout::{
        RollbackCause, RolloutEnd, RolloutOutcome, plan::TrafficSplit, strategy::ObservedState,
    },
};

mod addresses;
mod deletion;
mod health;
mod holds;
mod monorepo;
mod rejected;
mod together;
mod window;
mod withdrawal;

const FILE: &str = "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: { tests: e2e.yml }\n  production: {}\n";

struct Stage {
    state: ServiceState,
    log: Vec<Event<ServiceEvent>>,
    /// The rows of the service and its environments, by kind and key.
    rows: BTreeMap<(String, String), ViewRow>,
    now: Timestamp,
}

impl Stage {
    fn new() -> Self {
        Self {
            state: ServiceState::default(),
            log: Vec::new(),
            rows: BTreeMap::new(),
            now: "2026-11-21T09:00:00Z".parse().unwrap(),
        }
    }

    fn say(&mut self, input: ServiceInput) -> Vec<String> {
        self.try_say(input).unwrap()
    }

    fn try_say(&mut self, input: ServiceInput) -> Result<Vec<String>, ServiceRejection> {
        let events = ServiceAggregate::decide(
            &self.state,
            input,
            Principal::person("ada").actor(),
            self.now,
        )?;
        fold::<ServiceAggregate>(&mut self.state, &events);
        self.log.extend(events.iter().cloned());
        self.update_rows(&events);
        self.assert_blobs_are_retained();
        Ok(events.iter().map(|event| word(&event.body)).collect())
    }

    /// Every digest that the state holds anywhere is retained, also one in a field that was added later.
    fn assert_blobs_are_retained(&self) {
        let state = serde_json::to_value(&self.state).unwrap();
        let mut held = BTreeSet::new();
        collect_digests(&state, &mut held);
        let retained = self.state.referred_blobs().map(ToString::to_string);
        let retained: BTreeSet<String> = retained.collect();
        assert_eq!(held.difference(&retained).next(), None);
    }

    /// Updates the rows as the store does. The rows of environments must be those that the row of the service has.
    fn update_rows(&mut self, events: &[Event<ServiceEvent>]) {
        if events.is_empty() {
            return;
        }
        for row in ServiceAggregate::rows(&self.state, events) {
            let key = (row.kind.clone(), row.key.clone());
            match row.doc.is_null() {
                true => drop(self.rows.remove(&key)),
                false => drop(self.rows.insert(key, row)),
            }
        }
        let service = self.rows.values().find(|row| row.kind == "service");
        let expected = service.map_or_else(Vec::new, |row| {
            row.doc["environments"].as_array().unwrap().clone()
        });
        assert_eq!(self.listed_environments(), expected, "{:?}", events.last());
    }

    /// The views in the rows of environments, in the order of promotion.
    fn listed_environments(&self) -> Vec<serde_json::Value> {
        let rows = self
            .rows
            .values()
            .filter(|row| row.kind == EnvironmentRow::KIND);
        let mut rows: Vec<_> = rows.map(|row| row.doc.clone()).collect();
        rows.sort_by_key(|row| row["position"].as_u64());
        rows.iter_mut()
            .map(|row| row["environment"].take())
            .collect()
    }

    fn push(&mut self, number: u32, file: &str, workflows: usize) -> Vec<String> {
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", file)).unwrap();
        let push = Push {
            reference: "refs/heads/main".into(),
            before: None,
            commit: Commit {
                id: format!("{number:040}").parse().unwrap(),
                subject: "a change".into(),
                author: "ada".into(),
                committer: None,
                at: "2026-11-21T08:00:00Z".parse().unwrap(),
            },
            config: Some(Box::new(config)),
            unconfigured: None,
            tests: vec![WorkflowFile::new("e2e.yml".into(), String::new())],
            source: Some(Digest::compute(b"tree")),
            location: None,
            commits: Vec::new(),
            commits_omitted: 0,
        };
        let file = |index| WorkflowFile::new(format!("{index}.yml"), String::new());
        self.say(ServiceInput::Pushed {
            service: "shop".parse().unwrap(),
            push: Box::new(push),
            workflows: (0..workflows).map(file).collect(),
            standing: None,
        })
    }

    fn run_ends(&mut self, number: u32, green: bool, artifacts: &[&str]) -> Vec<String> {
        let artifact = |name: &&str| RunArtifact {
            name: (*name).to_owned(),
            digest: Digest::compute(name.as_bytes()),
        };
        self.say(ServiceInput::RunEnded {
            number: RunNumber(number),
            conclusion: if green {
                Conclusion::Success
            } else {
                Conclusion::Failure
            },
            artifacts: artifacts.iter().map(artifact).collect(),
        })
    }

    fn promoted(&mut self, rollout: u32, release: u32) -> Vec<String> {
        self.say(ServiceInput::Promoted {
            rollout: RolloutNumber(rollout),
            release: ReleaseNumber(release),
        })
    }

    fn ends(&mut self, rollout: u32, outcome: RolloutOutcome, serves: u32) -> Vec<String> {
        let by = match outcome {
            RolloutOutcome::Aborted | RolloutOutcome::Rejected => Principal::person("ann").actor(),
            RolloutOutcome::Promoted
            | RolloutOutcome::RolledBack
            | RolloutOutcome::Superseded
            | RolloutOutcome::Failed => Actor::Shipway("evidence".into()),
        };
        self.ends_by(by, rollout, outcome, serves)
    }

    fn ends_by(
        &mut self,
        by: Actor,
        rollout: u32,
        outcome: RolloutOutcome,
        serves: u32,
    ) -> Vec<String> {
        let serves = ReleaseNumber(serves);
        let cause = match outcome {
            RolloutOutcome::Promoted => None,
            RolloutOutcome::RolledBack => Some(RollbackCause::Evidence),
            RolloutOutcome::Aborted => Some(RollbackCause::Person),
            RolloutOutcome::Rejected => Some(RollbackCause::Rejected),
            RolloutOutcome::Superseded => Some(RollbackCause::Superseded),
            RolloutOutcome::Failed => Some(RollbackCause::FailedAction),
        };
        self.say(ServiceInput::RolloutEnded {
            number: RolloutNumber(rollout),
            end: RolloutEnd {
                at: self.now,
                outcome,
                cause,
                by,
                reason: "customers call".into(),
                why: "because".into(),
            },
            observed: ObservedState {
                counts: [(serves, 1)].into(),
                split: TrafficSplit::all_to(serves),
                promoted: Some(serves),
            },
        })
    }

    /// Through staging with its tests, into production, to the end.
    fn deliver(&mut self, run: u32, release: u32, rollout: u32) {
        self.run_ends(run, true, &["shop"]);
        self.promoted(rollout, release);
        self.ends(rollout, RolloutOutcome::Promoted, release);
        self.run_ends(run + 1, true, &[]);
        self.promoted(rollout + 1, release);
        self.ends(rollout + 1, RolloutOutcome::Promoted, release);
    }

    fn place(&self, name: &str) -> &EnvironmentState {
        &self.state.environments[&name.parse::<EnvironmentName>().unwrap()]
    }
}

fn collect_digests(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::String(text) if text.starts_with("sha256:") => {
            found.insert(text.clone());
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| collect_digests(item, found));
        }
        serde_json::Value::Object(fields) => {
            fields
                .values()
                .for_each(|field| collect_digests(field, found));
        }
        _ => {}
    }
}

fn word(body: &ServiceEvent) -> String {
    match body {
        ServiceEvent::RunOrdered { order } => {
            format!("run {} {}", order.number, order.workflow.path)
        }
        ServiceEvent::ReleaseCreated { release, .. } => format!("release {}", release.number),
        ServiceEvent::RolloutRequested { request, .. } => {
            format!("{} wants {}", request.release.number, request.environment)
        }
        ServiceEvent::RolloutOrdered { spec, .. } => {
            format!(
                "rollout {} {}→{}",
                spec.id.number,
                spec.release().number,
                spec.environment.name
            )
        }
        ServiceEvent::PreemptionRequested { number, preemption } => match preemption {
            Preemption::Supersede { by } => format!("preemption {number} supersede by {by}"),
            Preemption::RollBack { by, reason } => {
                format!("preemption {number} back: {reason} ({by})")
            }
            Preemption::Withdraw {
                release,
                environment,
            } => {
                format!("preemption {number} withdraw: {release} was rolled back in {environment}")
            }
            Preemption::Finish { next: Some(next) } => {
                format!("preemption {number} finish for {next}")
            }
            Preemption::Finish { next: None } => format!("preemption {number} finish"),
        },
        ServiceEvent::RequestDropped { release, why, .. } => format!("dropped {release}: {why}"),
        ServiceEvent::PushNotReleased { why, .. } => format!("settled: {why}"),
        ServiceEvent::PromotionBlocked { why, .. } => format!("held: {why}"),
        ServiceEvent::EnvironmentHeld {
            environment,
            reason,
        } => format!("{environment} is held: {reason}"),
        ServiceEvent::EnvironmentResumed { environment, .. } => format!("{environment} is resumed"),
        other => format!("{other:?}")
            .split([' ', '{'])
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

#[test]
fn a_green_push_goes_through_staging_and_its_tests_to_production() {
    let mut stage = Stage::new();
    assert_eq!(stage.push(1, FILE, 1), ["Pushed", "run r1 0.yml"]);
    assert_eq!(
        stage.run_ends(1, true, &["shop"]),
        [
            "RunEnded",
            "release #1",
            "#1 wants staging",
            "rollout ro1 #1→staging"
        ]
    );
    assert_eq!(stage.promoted(1, 1), ["Promoted", "run r2 e2e.yml"]);
    assert_eq!(stage.promoted(1, 1), Vec::<String>::new(), "said once");
    assert_eq!(
        stage.run_ends(2, true, &[]),
        [
            "RunEnded",
            "TestsPassed",
            "#1 wants production",
            "rollout ro2 #1→production"
        ]
    );
    stage.promoted(2, 1);
    assert_eq!(
        stage.place("production").stable.as_ref().unwrap().number,
        ReleaseNumber(1)
    );
}

#[test]
fn a_push_that_is_told_twice_is_one_push_until_its_branch_is_deleted() {
    let mut stage = Stage::new();
    assert_eq!(stage.push(1, FILE, 1), ["Pushed", "run r1 0.yml"]);
    assert_eq!(stage.push(1, FILE, 1), [""; 0]);
    let deleted = || ServiceInput::Deleted {
        reference: "refs/heads/main".into(),
    };
    assert_eq!(stage.say(deleted()), ["ReferenceDeleted"]);
    assert_eq!(stage.say(deleted()), [""; 0]);
    assert_eq!(stage.push(1, FILE, 1), ["Pushed", "run r2 0.yml"]);
}

#[test]
fn what_was_red_and_is_green_when_it_runs_again_is_released_once() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 2);
    stage.run_ends(1, false, &["shop"]);
    stage.run_ends(2, false, &[]);
    assert_eq!(stage.run_ends(1, false, &["shop"]), [""; 0], "red again");
    assert_eq!(
        stage.run_ends(2, true, &[]),
        ["RunEnded", "settled: not successful: r1"]
    );
    assert_eq!(
        stage.run_ends(1, true, &["shop"]),
        [
            "RunEnded",
            "release #1",
            "#1 wants staging",
            "rollout ro1 #1→staging"
        ]
    );
    assert_eq!(stage.run_ends(1, true, &["shop"]), [""; 0], "released once");
    assert_eq!(stage.promoted(1, 1), ["Promoted", "run r3 e2e.yml"]);
    stage.run_ends(3, false, &[]);
    assert_eq!(
        stage.run_ends(3, true, &[]),
        [
            "RunEnded",
            "TestsPassed",
            "#1 wants production",
            "rollout ro2 #1→production"
        ]
    );
    assert_eq!(stage.run_ends(3, true, &[]), [""; 0]);
}

#[test]
fn red_runs_and_red_tests_stop_a_release() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 2);
    stage.run_ends(1, true, &["shop"]);
    assert_eq!(
        stage.run_ends(2, false, &[]),
        ["RunEnded", "settled: not successful: r2"]
    );
    stage.push(2, FILE, 1);
    stage.run_ends(3, true, &["shop"]);
    stage.promoted(1, 1);
    assert_eq!(
        stage.run_ends(4, false, &[]),
        ["RunEnded", "held: the tests of staging failed (run r4)"]
    );
}

#[test]
fn which_artifact_is_the_release_must_be_clear() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    let why = stage.run_ends(1, true, &["a", "b"]);
    assert!(
        why[1].contains("several artifacts could be the release (a, b)"),
        "{why:?}"
    );
    let named = FILE.replace("run:", "artifact: b\nrun:");
    stage.push(2, &named, 1);
    assert_eq!(stage.run_ends(2, true, &["a", "b"])[1], "release #1");
    let source = FILE.replace("run:", "artifact: { source: . }\nrun:");
    assert_eq!(stage.push(3, &source, 0)[1], "release #2");
}

#[test]
fn a_newer_release_supersedes_and_the_older_never_comes_after_it() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.push(2, FILE, 1);
    stage.run_ends(2, true, &["shop"]);
    let late = stage.run_ends(1, true, &["shop"]);
    assert_eq!(
        late[2],
        "dropped #2: a newer push has already been deployed there"
    );
    stage.push(3, FILE, 1);
    let superseding = stage.run_ends(3, true, &["shop"]);
    assert_eq!(
        superseding[2..],
        [
            "#3 wants staging".to_owned(),
            "preemption ro1 supersede by #3".to_owned()
        ]
    );
    let next = stage.ends(1, RolloutOutcome::Superseded, 1);
    assert_eq!(next, ["RolloutEnded", "rollout ro2 #3→staging"]);
    assert!(
        stage.place("staging").blocked_releases.is_empty(),
        "a superseded release was not found bad"
    );
}

#[test]
fn queue_keeps_the_order_and_refuse_says_so() {
    let queue = FILE.replace("tests: e2e.yml", "when_busy: queue");
    let mut stage = Stage::new();
    for number in 1..=3 {
        stage.push(number, &queue, 1);
        stage.run_ends(number, true, &["shop"]);
    }
    assert_eq!(
        stage.place("staging").queue.len(),
        2,
        "nothing is dropped, nobody is holds_skipped"
    );
    assert_eq!(
        stage.ends(1, RolloutOutcome::RolledBack, 1)[1],
        "rollout ro2 #2→staging"
    );

    let refuse = FILE.replace("tests: e2e.yml", "when_busy: refuse");
    let mut stage = Stage::new();
    stage.push(1, &refuse, 1);
    stage.run_ends(1, true, &["shop"]);
    let release = stage
        .log
        .iter()
        .find_map(|event| match &event.body {
            ServiceEvent::ReleaseCreated { release, .. } => Some(release.clone()),
            _ => None,
        })
        .unwrap();
    let again = ServiceInput::Deploy {
        release,
        environment: None,
        force: Override::No,
        why: "again".into(),
    };
    assert!(matches!(
        stage.try_say(again),
        Err(ServiceRejection::Busy { .. })
    ));
}

#[test]
fn what_was_rolled_back_is_not_offered_again_without_force() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    stage.push(2, FILE, 1);
    stage.run_ends(3, true, &["shop"]);
    stage.ends(3, RolloutOutcome::RolledBack, 1);
    let release = Arc::new(crate::release::Release {
        by: None,
        number: ReleaseNumber(2),
        ..(**stage.place("staging").stable.as_ref().unwrap()).clone()
    });
    let deploy = |force| ServiceInput::Deploy {
        release: release.clone(),
        environment: Some("staging".parse().unwrap()),
        force,
        why: "again".into(),
    };
    assert!(matches!(
        stage.try_say(deploy(Override::No)),
        Err(ServiceRejection::MarkedBad { .. })
    ));
    assert_eq!(
        stage.say(deploy(Override::Yes)),
        ["#2 wants staging", "rollout ro4 #2→staging"]
    );
}

#[test]
fn a_rollback_goes_to_the_release_before_and_not_forth_again() {
    let mut stage = Stage::new();
    let back = || ServiceInput::Rollback {
        environment: "production".parse().unwrap(),
        to: None,
        force: Override::No,
        why: "customers call".into(),
    };
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    assert!(matches!(
        stage.try_say(back()),
        Err(ServiceRejection::NothingBefore { .. })
    ));
    stage.push(2, FILE, 1);
    stage.deliver(3, 2, 3);
    assert_eq!(
        stage.say(back()),
        [
            "production is held: customers call",
            "#1 wants production",
            "rollout ro5 #1→production"
        ]
    );
    stage.promoted(5, 1);
    stage.ends(5, RolloutOutcome::Promoted, 1);
    assert!(
        matches!(
            stage.try_say(back()),
            Err(ServiceRejection::NothingBefore { .. })
        ),
        "what was rolled back from is not gone back to"
    );
}

#[test]
fn a_rollback_during_a_rollout_turns_that_one_back() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    stage.push(2, FILE, 1);
    stage.run_ends(3, true, &["shop"]);
    let back = ServiceInput::Rollback {
        environment: "staging".parse().unwrap(),
        to: None,
        force: Override::No,
        why: "no".into(),
    };
    assert_eq!(
        stage.say(back),
        ["staging is held: no", "preemption ro3 back: no (ada)"]
    );
}

#[test]
fn a_log_cut_anywhere_asks_for_the_same_work_again() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    let now = Timestamp::UNIX_EPOCH;
    let (mut live, mut read) = (ServiceState::default(), ServiceState::default());
    for event in &stage.log {
        let text = serde_json::to_string(event).unwrap();
        state::apply(&mut live, event);
        state::apply(&mut read, &serde_json::from_str(&text).unwrap());
        assert_eq!(
            ServiceAggregate::pending(&live, now),
            ServiceAggregate::pending(&read, now),
            "after {text}"
        );
    }
}

/// A step of the first run deploys the artifact `shop`.
fn deploying(made: Vec<Arc<crate::release::Release>>) -> ServiceInput {
    ServiceInput::DeployStep {
        run: Box::new(DeployingRun {
            number: RunNumber(1),
            purpose: RunPurpose::Push { sequence: 1 },
            commit: Commit {
                id: format!("{:040}", 1).parse().unwrap(),
                subject: "a change".into(),
                author: "ada".into(),
                committer: None,
                at: "2026-11-21T08:00:00Z".parse().unwrap(),
            },
            made,
        }),
        artifact: RunArtifact {
            name: "shop".to_owned(),
            digest: Digest::compute(b"shop"),
        },
        environment: "staging".parse().unwrap(),
    }
}

#[test]
fn a_step_deploys_in_a_run_that_runs_again_what_it_deployed_before() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    let first = stage.say(deploying(Vec::new()));
    let made = stage.place("staging").active.as_ref().unwrap();
    let made = made.spec.release().clone();
    stage.promoted(1, 1);
    stage.ends(1, RolloutOutcome::Promoted, 1);
    // A later step of the run failed; the run is over, and red.
    stage.run_ends(1, false, &["shop"]);
    // Run again, it deploys the same release once more: no other one is made of the same artifact.
    let again = stage.say(deploying(Vec::new()));
    assert_eq!(again.len() + 1, first.len(), "{first:?} {again:?}");
    assert_eq!(stage.state.last_release, ReleaseNumber(1));
    let active = stage.place("staging").active.as_ref().unwrap();
    assert_eq!(active.spec.release().number, ReleaseNumber(1));
    // Of a push that was green nothing is remembered but its releases.
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.say(deploying(Vec::new()));
    stage.promoted(1, 1);
    stage.ends(1, RolloutOutcome::Promoted, 1);
    stage.run_ends(1, true, &["shop"]);
    stage.say(deploying(vec![made]));
    assert_eq!(stage.state.last_release, ReleaseNumber(1));
    let mut none = Stage::new();
    let refused = none.try_say(deploying(Vec::new())).unwrap_err();
    assert!(matches!(
        refused,
        ServiceRejection::UnknownRun(RunNumber(1))
    ));
}
