//! Runs and jobs that wait: for their turn in groups, for people; with servers that die in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shipway_workflow::job::{Conclusion, JobKey};

use super::*;
use crate::{
    access::Principal,
    aggregate::{Actor, Aggregate, Event, fold},
    concurrency::{self, ConcurrencyGroups, GroupMemberId, SlotChange, SlotRequest},
    gate::{ApprovalRule, EnvironmentRules},
    run::{
        GateInput, JOB_APPROVAL_ROWS, RunAggregate, RunEffect, RunEvent, RunInput, RunRejection,
        RunSpec, RunState, RunStatus, RunView,
    },
};

fn spec(number: u32, text: &str) -> RunSpec {
    RunSpec {
        id: format!("shop/r{number}").parse().unwrap(),
        uid: None,
        environments: vec![EnvironmentRules {
            rules: Default::default(),
            environment: "production".to_owned(),
            approvals: Some(
                ApprovalRule {
                    count: 1,
                    from: vec!["alice".to_owned(), "@platform".to_owned()],
                    not: Vec::new(),
                }
                .into(),
            ),
        }],
        ..crate::run::tests::spec(text)
    }
}

/// A run in memory.
#[derive(Default)]
struct Log {
    state: RunState,
    events: Vec<Event<RunEvent>>,
    /// Whether the row of each approval is live.
    approvals: BTreeMap<String, bool>,
}

impl Log {
    fn open(text: &str) -> Self {
        let mut log = Self::default();
        log.say("ada", RunInput::Open(Box::new(spec(12, text))))
            .unwrap();
        log
    }

    fn say(&mut self, by: &str, input: RunInput) -> Result<(), RunRejection> {
        self.say_at(by, input, Timestamp::UNIX_EPOCH)
    }

    fn say_at(&mut self, by: &str, input: RunInput, now: Timestamp) -> Result<(), RunRejection> {
        let by = Principal::person(by).actor();
        let events = RunAggregate::decide(&self.state, input, by, now)?;
        fold::<RunAggregate>(&mut self.state, &events);
        if !events.is_empty() {
            self.check_approval_rows(&events);
        }
        self.events.extend(events);
        Ok(())
    }

    /// The live rows of approvals are those of the jobs that wait for approval.
    fn check_approval_rows(&mut self, events: &[Event<RunEvent>]) {
        let rows = RunAggregate::rows(&self.state, events).into_iter();
        let approvals = rows.filter(|row| row.kind == JOB_APPROVAL_ROWS);
        self.approvals
            .extend(approvals.map(|row| (row.key, row.live)));
        let live = self.approvals.iter().filter(|(_, live)| **live);
        let live: Vec<String> = live.map(|(key, _)| key.clone()).collect();
        let view = RunView::from(self.state.0.as_deref().unwrap());
        let waiting = view.jobs.iter().filter(|job| {
            let glass = job.broken_glass.as_ref();
            job.approval.is_some() || glass.is_some_and(|glass| glass.review.is_none())
        });
        let id = format!("{}/{}", view.id.service, view.id.number.0);
        let mut waiting: Vec<String> = waiting.map(|job| format!("{id}/{}", job.key)).collect();
        waiting.sort();
        assert_eq!(live, waiting);
    }

    fn gate(&mut self, input: GateInput) -> Result<(), RunRejection> {
        self.say("shipway", RunInput::Gate(input))
    }

    fn owed(&self) -> Vec<String> {
        let effects = RunAggregate::pending(&self.state, Timestamp::UNIX_EPOCH).effects;
        let name = |job: &Option<JobKey>| {
            job.as_ref()
                .map_or_else(|| "run".to_owned(), ToString::to_string)
        };
        effects
            .into_iter()
            .map(|(_, effect)| match effect {
                RunEffect::RunJob {
                    key, stop: None, ..
                } => format!("run {key}"),
                RunEffect::RunJob {
                    key, stop: Some(_), ..
                } => format!("stop {key}"),
                RunEffect::Gate(GateEffect::RequestSlot { job, group, .. }) => {
                    format!("{} asks {}", name(&job), group.name)
                }
                RunEffect::Gate(GateEffect::ReleaseSlot { job, group, .. }) => {
                    format!("{} leaves {group}", name(&job))
                }
                RunEffect::NotifyService { conclusion, .. } => format!("tell {conclusion}"),
            })
            .collect()
    }

    fn answer(&mut self, job: Option<&str>, ticket: u32, position: SlotPosition) {
        let job = job.map(|job| job.parse().unwrap());
        self.gate(GateInput::SlotRequestAnswered {
            job,
            ticket,
            position,
        })
        .unwrap();
    }

    fn end(&mut self, key: &str, conclusion: Conclusion) {
        self.say(
            "shipway",
            RunInput::JobEnded {
                key: key.parse().unwrap(),
                conclusion,
                outputs: Vec::new(),
                why: None,
            },
        )
        .unwrap();
    }

    fn view(&self) -> RunView {
        RunView::from(self.state.0.as_deref().unwrap())
    }
}

const GROUPED: &str = "on: push
concurrency: { group: 'CI-${{ github.ref_name }}', cancel-in-progress: \"${{ github.ref_name != 'main' }}\" }
jobs:
  a: { runs-on: x, steps: [{ run: a }] }
  b: { runs-on: x, needs: a, if: always(), steps: [{ run: b }] }
";

#[test]
fn a_run_asks_its_group_before_its_first_job_and_leaves_when_it_is_over() {
    let mut log = Log::open(GROUPED);
    assert_eq!(log.owed(), ["run asks CI-main"]);
    let held_by = "r11".to_owned();
    log.answer(None, 1, SlotPosition::Waiting { held_by });
    assert_eq!(log.owed(), [""; 0]);
    assert_eq!(log.view().status, RunStatus::Waiting);
    assert_eq!(
        log.view().waits_for.as_deref(),
        Some("waiting for the concurrency group `CI-main`, held by r11")
    );
    let change = SlotChange::Stands(SlotPosition::Entered);
    log.gate(GateInput::SlotPositionChanged {
        job: None,
        ticket: 1,
        change,
    })
    .unwrap();
    assert_eq!(
        (log.view().waits_for, log.owed()),
        (None, vec!["run a".to_owned()])
    );
    log.end("a", Conclusion::Success);
    log.end("b", Conclusion::Success);
    assert_eq!(log.owed(), ["run leaves CI-main", "tell success"]);
    log.say("shipway", RunInput::ServiceNotified).unwrap();
    assert_eq!(log.owed(), ["run leaves CI-main"]);
    assert!(RunAggregate::pending(&log.state, Timestamp::UNIX_EPOCH).live);
    log.gate(GateInput::SlotReleased {
        job: None,
        ticket: 1,
    })
    .unwrap();
    assert!(!RunAggregate::pending(&log.state, Timestamp::UNIX_EPOCH).live);
}

#[test]
fn a_run_that_loses_its_place_runs_nothing_not_even_what_always_runs() {
    let mut log = Log::open(GROUPED);
    let why = "r13 is newer".to_owned();
    log.answer(None, 1, SlotPosition::Dropped { why });
    let view = log.view();
    assert_eq!(view.conclusion, Some(Conclusion::Cancelled));
    assert!(view.why.unwrap().contains("r13 is newer"));
    assert!(
        view.jobs
            .iter()
            .all(|job| job.status == RunStatus::Cancelled)
    );
    assert_eq!(log.owed(), ["run leaves CI-main", "tell cancelled"]);
}

#[test]
fn a_run_that_is_cancelled_while_it_asks_hears_the_answer_and_leaves() {
    let mut log = Log::open(GROUPED);
    let reason = "enough".to_owned();
    log.say("ada", RunInput::Cancel { reason }).unwrap();
    assert_eq!(log.owed(), ["run asks CI-main", "tell cancelled"]);
    log.answer(None, 1, SlotPosition::Entered);
    assert_eq!(log.owed(), ["run leaves CI-main", "tell cancelled"]);
}

const GATED: &str = "on: push
jobs:
  build: { runs-on: x, steps: [{ run: a }] }
  deploy:
    needs: build
    runs-on: x
    concurrency: { group: \"deploy-${{ matrix.to }}\", queue: max }
    environment: { name: '${{ matrix.to }}', url: 'https://x' }
    strategy: { fail-fast: false, matrix: { to: [Production, staging] } }
    steps: [{ run: b }]
";

#[test]
fn a_job_waits_for_its_turn_and_then_for_people() {
    let mut log = Log::open(GATED);
    log.end("build", Conclusion::Success);
    assert_eq!(
        log.owed(),
        [
            "deploy.1 asks deploy-Production",
            "deploy.2 asks deploy-staging"
        ]
    );
    log.answer(Some("deploy.1"), 1, SlotPosition::Entered);
    log.answer(Some("deploy.2"), 2, SlotPosition::Entered);
    // The environment staging is not known, and has no gates.
    assert_eq!(log.owed(), ["run deploy.2"]);
    let waits = log.view().jobs[1].waits_for.clone().unwrap();
    assert_eq!(
        waits,
        "waiting for approval by alice or @platform to deploy to Production: shipway approve r12"
    );
    let key: JobKey = "deploy.1".parse().unwrap();
    let yes = |key: &JobKey, groups: &[&str]| {
        RunInput::Gate(GateInput::Approve {
            key: key.clone(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            comment: None,
            seen: None,
        })
    };
    let refused = log.say("mallory", yes(&key, &[])).unwrap_err();
    assert!(refused.to_string().contains("alice"), "{refused}");
    let other = "deploy.2".parse().unwrap();
    let refused = log.say("alice", yes(&other, &[])).unwrap_err();
    assert!(
        refused.to_string().contains("these do: deploy.1"),
        "{refused}"
    );
    log.say("bob", yes(&key, &["@platform"])).unwrap();
    assert_eq!(log.owed(), ["run deploy.1", "run deploy.2"]);
    log.end("deploy.1", Conclusion::Success);
    assert_eq!(
        log.owed(),
        ["deploy.1 leaves deploy-Production", "run deploy.2"]
    );
}

#[test]
fn a_job_that_is_rejected_fails_with_the_reason_and_never_starts() {
    let mut log = Log::open(GATED);
    log.end("build", Conclusion::Success);
    log.answer(Some("deploy.1"), 1, SlotPosition::Entered);
    log.answer(Some("deploy.2"), 2, SlotPosition::Entered);
    log.say(
        "alice",
        RunInput::Gate(GateInput::Reject {
            key: "deploy.1".parse().unwrap(),
            groups: Vec::new(),
            reason: "not on a Friday".to_owned(),
            seen: None,
        }),
    )
    .unwrap();
    log.end("deploy.2", Conclusion::Success);
    let view = log.view();
    assert_eq!(view.conclusion, Some(Conclusion::Failure));
    assert_eq!(
        view.jobs[1].why.as_deref(),
        Some("rejected by alice: not on a Friday")
    );
    assert!(!log.events.iter().any(
        |event| matches!(&event.body, RunEvent::JobStarted { key } if key.as_str() == "deploy.1")
    ));
}

#[test]
fn what_nobody_approves_within_thirty_days_fails() {
    let mut log = Log::open(GATED);
    log.end("build", Conclusion::Success);
    log.answer(Some("deploy.1"), 1, SlotPosition::Entered);
    log.answer(Some("deploy.2"), 2, SlotPosition::Entered);
    log.end("deploy.2", Conclusion::Success);
    let wake = RunAggregate::pending(&log.state, Timestamp::UNIX_EPOCH).wake_at;
    assert_eq!(wake, Some("1970-01-31T00:00:00Z".parse().unwrap()));
    log.say_at("shipway", RunInput::TimerFired, wake.unwrap())
        .unwrap();
    assert_eq!(log.view().conclusion, Some(Conclusion::Failure));
}

#[test]
fn a_run_cancelled_at_its_gates_starts_nothing() {
    let mut log = Log::open(GATED);
    log.end("build", Conclusion::Success);
    log.answer(Some("deploy.1"), 1, SlotPosition::Entered);
    let reason = "enough".to_owned();
    log.say("ada", RunInput::Cancel { reason }).unwrap();
    assert_eq!(
        log.owed(),
        [
            "deploy.2 asks deploy-staging",
            "stop deploy.1",
            "stop deploy.2"
        ]
    );
}

/// Runs and groups together, with messages that are late, lost and said twice.
#[derive(Default)]
struct World {
    runs: BTreeMap<u32, Log>,
    groups: BTreeMap<String, concurrency::GroupState>,
}

impl World {
    fn group(&mut self, name: &str, input: concurrency::GroupInput) {
        let state = self.groups.entry(name.to_lowercase()).or_default();
        let by = Actor::Shipway("test".to_owned());
        let events = ConcurrencyGroups::decide(state, input, by, Timestamp::UNIX_EPOCH).unwrap();
        fold::<ConcurrencyGroups>(state, &events);
    }

    /// Carries out one of the effects that are owed; when it is `lost`, the answer isn't heard and the effect comes out again.
    fn step(&mut self, choice: usize, lost: bool) -> bool {
        let mut owed: Vec<(Option<u32>, usize)> = Vec::new();
        for (number, log) in &self.runs {
            let count = RunAggregate::pending(&log.state, Timestamp::UNIX_EPOCH)
                .effects
                .len();
            owed.extend((0..count).map(|at| (Some(*number), at)));
        }
        let mut notices: Vec<(String, concurrency::GroupEffect)> = Vec::new();
        for (name, state) in &self.groups {
            let effects = ConcurrencyGroups::pending(state, Timestamp::UNIX_EPOCH).effects;
            notices.extend(
                effects
                    .into_iter()
                    .map(|(_, effect)| (name.clone(), effect)),
            );
        }
        owed.extend((0..notices.len()).map(|at| (None, at)));
        if owed.is_empty() {
            return false;
        }
        match owed[choice % owed.len()] {
            (None, at) => {
                let (name, effect) = notices.swap_remove(at);
                let notice = effect.notice;
                let input = RunInput::Gate(GateInput::SlotPositionChanged {
                    job: notice.holder.job,
                    ticket: notice.ticket,
                    change: notice.change,
                });
                let run = notice.holder.run.number.0;
                self.say(run, input);
                if !lost {
                    self.group(
                        &name,
                        concurrency::GroupInput::NoticeDelivered(effect.number),
                    );
                }
            }
            (Some(number), at) => self.carry_out(number, at, lost),
        }
        true
    }

    fn carry_out(&mut self, number: u32, at: usize, lost: bool) {
        let effects =
            RunAggregate::pending(&self.runs[&number].state, Timestamp::UNIX_EPOCH).effects;
        let holder = |job| GroupMemberId {
            run: format!("shop/r{number}").parse().unwrap(),
            job,
        };
        let answer = match effects[at].1.clone() {
            RunEffect::Gate(GateEffect::RequestSlot {
                job,
                ticket,
                group,
                again,
            }) => {
                let ask = SlotRequest {
                    holder: holder(job.clone()),
                    ticket,
                    cancel_in_progress: group.cancel_in_progress,
                    queue: group.queue,
                    again,
                };
                self.group(&group.name, concurrency::GroupInput::RequestSlot(ask));
                let position =
                    self.groups[&group.name.to_lowercase()].position_of(&holder(job.clone()));
                RunInput::Gate(GateInput::SlotRequestAnswered {
                    job,
                    ticket,
                    position,
                })
            }
            RunEffect::Gate(GateEffect::ReleaseSlot { job, ticket, group }) => {
                self.group(
                    &group,
                    concurrency::GroupInput::ReleaseSlot(holder(job.clone())),
                );
                RunInput::Gate(GateInput::SlotReleased { job, ticket })
            }
            RunEffect::RunJob { key, stop, .. } => {
                self.say(number, RunInput::JobStarted { key: key.clone() });
                let conclusion = match stop {
                    Some(_) => Conclusion::Cancelled,
                    None => Conclusion::Success,
                };
                RunInput::JobEnded {
                    key,
                    conclusion,
                    outputs: Vec::new(),
                    why: None,
                }
            }
            RunEffect::NotifyService { .. } => RunInput::ServiceNotified,
        };
        if !lost {
            self.say(number, answer);
        }
    }

    fn say(&mut self, run: u32, input: RunInput) {
        let log = self.runs.get_mut(&run).unwrap();
        log.say("shipway", input).unwrap();
        // What a server reads from the log after it was killed is what it knew.
        let mut state = RunState::default();
        fold::<RunAggregate>(&mut state, &log.events);
        let text = serde_json::to_string(&state).unwrap();
        let read: RunState = serde_json::from_str(&text).unwrap();
        let owed = |state: &RunState| RunAggregate::pending(state, Timestamp::UNIX_EPOCH).effects;
        assert_eq!(owed(&read), owed(&log.state));
    }

    /// How many have begun and not ended, of those that share a group.
    fn inside(&self) -> usize {
        let begun = |log: &&Log| {
            let run = log.state.0.as_deref().unwrap();
            run.started_at.is_some() && run.ended.is_none()
        };
        self.runs.values().filter(begun).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn runs_of_one_group_never_overlap_and_all_of_them_end(
        cancel in any::<bool>(), all in any::<bool>(),
        steps in prop::collection::vec((any::<usize>(), prop::bool::weighted(0.3)), 0..150),
    ) {
        let text = format!("on: push
concurrency: {{ group: one, cancel-in-progress: {}, queue: {} }}
jobs:
  a: {{ runs-on: x, steps: [{{ run: a }}] }}
  b: {{ needs: a, runs-on: x, concurrency: two, steps: [{{ run: a }}] }}
", cancel && !all, if all { "max" } else { "single" });
        let mut world = World::default();
        for number in 1..=5 {
            world.runs.insert(number, Log::default());
            world.say(number, RunInput::Open(Box::new(spec(number, &text))));
        }
        let mut rounds = 0;
        let mut steps = steps.into_iter();
        while let (choice, lost) = steps.next().unwrap_or((rounds, false)) && world.step(choice, lost) {
            prop_assert!(world.inside() <= 1);
            rounds += 1;
            prop_assert!(rounds < 2_000, "it does not end");
        }
        let ends: Vec<Conclusion> = world.runs.values().map(|log| log.state.0.as_deref().unwrap().ended.clone().unwrap().conclusion).collect();
        if all {
            prop_assert_eq!(&ends, &[Conclusion::Success; 5]);
        }
        // The newest goes through, whatever the order in which they asked.
        prop_assert_eq!(ends.last(), Some(&Conclusion::Success));
        for (name, state) in &world.groups {
            prop_assert!(state.members.is_empty() && state.notices.is_empty(), "{name}: {state:?}");
        }
    }
}

mod delays;
