//! Whole rollouts as text: what is said to a rollout, what it asks for, what it ends with.

mod after;
mod baked;
mod capacity;
mod compared;
mod gates;
mod guards;
mod looks;
mod notices;
mod quiet;
mod reached;
mod steering;
mod tied;
mod watched;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use shipway_analysis::{
    Analysis, Metric, Observation, ReleaseSample, Sample, ThresholdLimit, threshold::MetricBound,
};

mod strategies;

use super::{
    plan::{PlanAction, TrafficSplit},
    strategy::{
        BlueGreen, Canary, CanaryStep, HoldPolicy, ObservedState, OnInconclusive, Recreate, Rolling,
    },
    *,
};
use crate::{
    access::Principal,
    aggregate::fold,
    config::{
        self, ArtifactSource, EnvironmentConfig, InstanceCount, RunConfig, ServiceConfig, Strategy,
    },
    gate::{ApprovalRule, SeenSubject},
    ids::{Digest, ReleaseNumber},
    release::{Commit, Release},
    weight::Weight,
};

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn environment(strategy: Strategy, instances: u32) -> EnvironmentConfig {
    EnvironmentConfig {
        name: "production".parse().unwrap(),
        target: Default::default(),
        router: Default::default(),
        instances,
        strategy,
        hosts: Vec::new(),
        path: None,
        strip_prefix: true,
        port: None,
        sticky: config::StickyKey::default(),
        sticky_to: config::StickyScope::default(),
        approvals: None,
        rules: Default::default(),
        smoke: Vec::new(),
        tests: None,
        analysis: Analysis::new(vec![
            ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(0.02)).unwrap(),
        ]),
        analysis_source: Default::default(),
        sources: Vec::new(),
        env: Default::default(),
        when_busy: Default::default(),
        rollback_window: None,
        promote_with: Vec::new(),
        notify: vec![config::NotificationTarget::Webhook(
            "http://127.0.0.1:9/".into(),
        )],
        progress_deadline: Duration::from_secs(600),
        drain: Duration::from_secs(30),
        watch: config::WatchDuration::For(Duration::ZERO),
        unready_grace: None,
        timeouts: Default::default(),
    }
}

fn release(number: u32, environment: &EnvironmentConfig) -> Arc<Release> {
    let run = RunConfig {
        command: "./shop".into(),
        env: Default::default(),
        health: Default::default(),
        limits: Default::default(),
        grace: Duration::from_secs(10),
        stop_signal: Default::default(),
    };
    let config = ServiceConfig {
        service: "shop".parse().unwrap(),
        branch: "main".into(),
        repository: None,
        workflows: Vec::new(),
        artifact: ArtifactSource::Run { name: None },
        run,
        reports: Default::default(),
        paths: Vec::new(),
        environments: vec![environment.clone()],
    };
    Arc::new(Release {
        by: None,
        service: "shop".parse().unwrap(),
        number: ReleaseNumber(number),
        sequence: number.into(),
        commit: Commit {
            id: format!("{number:040}").parse().unwrap(),
            subject: "a change".into(),
            author: "ada".into(),
            committer: None,
            at: start(),
        },
        branch: None,
        artifact: Digest::compute(&[number as u8]),
        run: None,
        config,
        tests: Vec::new(),
        created_at: start(),
    })
}

fn canary() -> Strategy {
    let step = |percent: f64| CanaryStep {
        weight: Weight::from_percent(percent).unwrap(),
        hold: Some(Duration::from_secs(60)),
        smoke: false,
        ask: false,
        scale: None,
    };
    Strategy::Canary(Canary {
        steps: vec![step(10.0), step(50.0)],
        ..Canary::default()
    })
}

fn spec(strategy: Strategy, instances: u32, stable: Option<u32>) -> RolloutSpec {
    let environment = environment(strategy, instances);
    let observed = stable.map_or_else(ObservedState::default, |stable| {
        let stable = ReleaseNumber(stable);
        ObservedState {
            counts: [(stable, instances)].into(),
            split: TrafficSplit::all_to(stable),
            promoted: Some(stable),
        }
    });
    RolloutSpec {
        by: None,
        id: "shop/ro7".parse().unwrap(),
        kind: RolloutKind::Deploy,
        pace: RolloutPace::ByStrategy,
        retry_of: None,
        subject: RolloutSubject::Release {
            release: release(4, &environment),
            stable: stable.map(|stable| StableRelease {
                release: release(stable, &environment),
                instances,
            }),
        },
        environment,
        observed,
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: "run r12 succeeded".into(),
        peers: Vec::new(),
    }
}

/// A rollout with a clock: inputs in, a story out.
#[derive(Clone)]
struct RolloutHarness {
    state: RolloutState,
    now: Timestamp,
    story: Vec<String>,
    log: Vec<Event<RolloutEvent>>,
    /// Whether the row of its approval is live.
    has_live_approval: bool,
}

impl RolloutHarness {
    fn open(spec: RolloutSpec) -> Self {
        let mut stage = Self {
            state: RolloutState::default(),
            now: start(),
            story: Vec::new(),
            log: Vec::new(),
            has_live_approval: false,
        };
        stage.say(RolloutInput::Open(Box::new(spec))).unwrap();
        stage
    }

    /// The row of the approval is live as long as the rollout waits for people.
    fn check_approval_row(&mut self, events: &[Event<RolloutEvent>]) {
        if events.is_empty() {
            return;
        }
        let rows = RolloutAggregate::rows(&self.state, events);
        if let Some(row) = rows.iter().find(|row| row.kind == ROLLOUT_APPROVAL_ROWS) {
            self.has_live_approval = row.live;
        }
        assert_eq!(self.has_live_approval, self.rollout().needs_people());
    }

    fn say(&mut self, input: RolloutInput) -> Result<usize, RolloutRejection> {
        let events = RolloutAggregate::decide(
            &self.state,
            input,
            Principal::person("ada").actor(),
            self.now,
        )?;
        fold::<RolloutAggregate>(&mut self.state, &events);
        self.check_approval_row(&events);
        for event in &events {
            self.story.push(match &event.body {
                RolloutEvent::ActionDone { index, .. } => format!("done {index}"),
                RolloutEvent::ActionFailed { why, .. } => format!("action failed: {why}"),
                RolloutEvent::Planned {
                    direction, plan, ..
                } => format!(
                    "{direction:?}: {}",
                    plan.actions
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" | ")
                ),
                RolloutEvent::Ended { outcome, why, .. } => format!("{outcome:?}: {why}"),
                RolloutEvent::Measured { judgement, .. } => judgement.verdict.to_string(),
                other => format!("{other:?}")
                    .split([' ', '{'])
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        self.log.extend(events.iter().cloned());
        Ok(events.len())
    }

    fn rollout(&self) -> &Rollout {
        self.state.0.as_deref().unwrap()
    }

    /// Carries out what is pending until only time or people can go on.
    fn carry(&mut self) {
        while let Some((plan, index)) = self.carried() {
            self.say(RolloutInput::Done {
                plan,
                index,
                note: None,
                smoke: None,
            })
            .unwrap();
        }
    }

    fn carried(&self) -> Option<(u32, usize)> {
        RolloutAggregate::pending(&self.state, self.now)
            .effects
            .iter()
            .find_map(|(_, effect)| match effect {
                RolloutEffect::ExecuteAction { plan, index, .. } => Some((*plan, *index)),
                _ => None,
            })
    }

    fn pass_time(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
        let wake_at = RolloutAggregate::pending(&self.state, self.now).wake_at;
        // As the engine does it: a rollout whose time has not come is not woken.
        if wake_at.is_some_and(|at| at <= self.now) {
            self.say(RolloutInput::TimerFired).unwrap();
        }
    }

    fn measure(&mut self, requests: u64, errors: u64) {
        let sample = |requests, errors| {
            Some(Sample {
                requests,
                errors,
                ..Sample::default()
            })
        };
        let seen = Observation {
            at: self.now,
            canary: ReleaseSample {
                release: "#4".into(),
                sample: sample(requests, errors),
            },
            stable: Some(ReleaseSample {
                release: "#3".into(),
                sample: sample(requests * 9, 0),
            }),
        };
        let exposure = self.rollout().exposure;
        self.say(RolloutInput::Measured {
            exposure,
            seen: Box::new(seen),
        })
        .unwrap();
    }

    /// Good evidence, then the end of the hold.
    fn good_hold(&mut self) {
        self.measure(0, 0);
        self.pass_time(30);
        self.measure(1_000, 1);
        self.pass_time(31);
        self.measure(2_000, 2);
    }
}

#[test]
fn a_good_canary_grows_step_by_step_and_is_promoted() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    assert_eq!(
        stage.rollout().observed.split.to_string(),
        "10% to #4, 90% to #3"
    );
    stage.good_hold();
    stage.carry();
    assert_eq!(
        stage.rollout().observed.split.to_string(),
        "50% to #4, 50% to #3"
    );
    stage.good_hold();
    stage.carry();
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Promoted,
        "{:#?}",
        stage.story
    );
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(4), 3)].into()
    );
    assert_eq!(stage.story.first().unwrap(), "Opened");
}

#[test]
fn a_bad_canary_goes_back_at_once_and_stable_was_never_touched() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage.measure(0, 0);
    stage.pass_time(5);
    stage.measure(1_000, 60);
    assert_eq!(
        stage.rollout().direction,
        PlanDirection::Back,
        "{:#?}",
        stage.story
    );
    assert_eq!(
        stage.rollout().action(),
        Some(&PlanAction::Shift {
            split: TrafficSplit::all_to(ReleaseNumber(3))
        }),
        "the first thing is the traffic"
    );
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert!(stage.rollout().rolled_back_at.is_some() && stage.rollout().served);
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(3), 3)].into()
    );
    assert!(
        stage
            .rollout()
            .notices
            .iter()
            .any(|notice| notice.tone == NoticeTone::Bad)
    );
}

#[test]
fn no_traffic_never_passes_and_pauses_at_the_deadline() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage.pass_time(61);
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Holding,
        "the time alone is not enough"
    );
    let view = RolloutView::from(stage.rollout());
    let deadline = view.hold_until.map(|due| due + Duration::from_secs(60));
    assert_eq!(view.hold_deadline, deadline, "and until when it may last");
    assert_eq!(view.on_inconclusive, Some(OnInconclusive::Pause));
    stage.pass_time(60);
    assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
    stage.pass_time(100_000);
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Paused,
        "a pause eats no deadline"
    );
    stage
        .say(RolloutInput::Promote {
            reason: "looked at it".into(),
        })
        .unwrap();
    stage.carry();
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Promoted,
        "{:#?}",
        stage.story
    );
}

#[test]
fn a_pause_stops_the_hold_where_it_is() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage.pass_time(40);
    stage.measure(0, 0);
    stage
        .say(RolloutInput::Pause {
            reason: "lunch".into(),
        })
        .unwrap();
    assert_eq!(
        stage.say(RolloutInput::Pause {
            reason: "again".into()
        }),
        Ok(0),
        "idempotent"
    );
    let notice = stage.rollout().notices.last().unwrap();
    assert!(notice.title.ends_with("is paused by ada"), "{notice:?}");
    assert!(notice.text.starts_with("lunch; continue: shipway resume "));
    stage.pass_time(3_600);
    stage.say(RolloutInput::Resume).unwrap();
    assert_eq!(
        stage.rollout().hold_due().unwrap(),
        stage.now + Duration::from_secs(20)
    );
    assert!(stage.rollout().is_judged());
}

#[test]
fn a_failing_start_leaves_stable_alone() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    let (plan, index) = stage.carried().unwrap();
    stage
        .say(RolloutInput::Failed {
            plan,
            index,
            why: "exit code 1".into(),
            smoke: None,
        })
        .unwrap();
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert!(!stage.rollout().served, "users never saw it");
}

#[test]
fn no_progress_fails_an_action_at_its_deadline() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    assert_eq!(
        RolloutAggregate::pending(&stage.state, stage.now).wake_at,
        Some(start() + Duration::from_secs(600))
    );
    stage.pass_time(600);
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    assert!(
        stage
            .rollout()
            .rollback_start
            .as_ref()
            .unwrap()
            .why
            .contains("no progress"),
        "{:?}",
        stage.rollout().rollback_start
    );
}

#[test]
fn a_crash_loop_does_not_wait_for_the_metric() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage
        .say(RolloutInput::CrashLoop {
            why: "3 crashes in 5 s".into(),
        })
        .unwrap();
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
}

#[test]
fn a_first_deployment_that_fails_before_traffic_is_cleaned_up() {
    let mut stage = RolloutHarness::open(spec(canary(), 2, None));
    let (plan, index) = stage.carried().unwrap();
    stage
        .say(RolloutInput::Failed {
            plan,
            index,
            why: "exit code 1".into(),
            smoke: None,
        })
        .unwrap();
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert!(stage.rollout().observed.counts.is_empty());
}

#[test]
fn a_first_deployment_that_serves_has_nothing_to_go_back_to() {
    let mut stage = RolloutHarness::open(spec(canary(), 2, None));
    while !stage.rollout().served {
        let (plan, index) = stage.carried().unwrap();
        stage
            .say(RolloutInput::Done {
                plan,
                index,
                note: None,
                smoke: None,
            })
            .unwrap();
    }
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "no".into(),
        })
        .unwrap();
    assert_eq!(stage.rollout().status(), RolloutStatus::Failed);
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(4), 2)].into(),
        "the only copy stays"
    );
}

#[test]
fn late_answers_of_work_that_no_longer_counts_change_nothing() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    let (plan, index) = stage.carried().unwrap();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "stop".into(),
        })
        .unwrap();
    assert_eq!(
        stage.say(RolloutInput::Done {
            plan,
            index,
            note: None,
            smoke: None
        }),
        Ok(0)
    );
    assert_eq!(
        stage.say(RolloutInput::Failed {
            plan,
            index,
            why: "late".into(),
            smoke: None
        }),
        Ok(0)
    );
}

#[test]
fn a_log_cut_anywhere_asks_for_the_same_work_again() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage.measure(0, 0);
    stage.pass_time(5);
    stage.measure(1_000, 60);
    stage.carry();
    let text: Vec<String> = stage
        .log
        .iter()
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    let mut live = RolloutState::default();
    for (length, event) in stage.log.iter().enumerate() {
        let mut read = RolloutState::default();
        for line in &text[..length] {
            fold::apply(&mut read, &serde_json::from_str(line).unwrap());
        }
        assert_eq!(
            RolloutAggregate::pending(&read, stage.now),
            RolloutAggregate::pending(&live, stage.now),
            "after {length} events"
        );
        fold::apply(&mut live, event);
    }
}
