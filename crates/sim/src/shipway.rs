//! Shipway itself as a contender: the real rollout, and the same judges without the log around them.
//!
//! [`RealRollout`] is the rollout aggregate with its plan, its holds and its way back; only time, instances and traffic are simulated.
//! [`DirectRollout`] walks the same holds by itself, for sweeps of many thousand rollouts; a test shows that both always decide alike.

use std::time::Duration;

use jiff::Timestamp;
use shipway_analysis::{AnalysisState, Judgement, Observation, RequiredMetrics};
use shipway_core::{
    access::Principal,
    aggregate::{Actor, Aggregate, Event, fold},
    gate::{GateSpec, SeenSubject},
    rollout::{
        PlanDirection, Rollout, RolloutAggregate, RolloutEffect, RolloutEvent, RolloutEvidence,
        RolloutInput, RolloutOutcome, RolloutState, plan::PlanAction, strategy::OnInconclusive,
    },
};

use crate::{
    contest::{RolloutContender, RolloutEnd},
    policy::{CANDIDATE, HoldStep, SimulatedPolicy},
    reading::{SimulatedCounters, moment},
    world::SimulatedSecond,
};

/// All people and groups that a gate names, as the groups of one person.
fn every_group(gate: &GateSpec) -> Vec<String> {
    let policies = gate.approvals().into_iter();
    let entries = policies.flat_map(|policy| policy.rules.iter().flat_map(|rule| &rule.from));
    entries.cloned().collect()
}

/// Inputs that one moment may take: far more than a plan has actions.
const INPUTS_MAX: usize = 1_000;

/// The real rollout.
pub struct RealRollout {
    state: RolloutState,
    counters: SimulatedCounters,
    /// The evidence with all looks in it, and the exposure it is of.
    live: (u32, RolloutEvidence),
    /// Of the shift whose counts were read last.
    exposure: Option<u32>,
    /// Its log, when asked for.
    log: Option<Vec<Event<RolloutEvent>>>,
}

impl RealRollout {
    /// A rollout of this policy, opened and carried out up to its first hold.
    #[must_use]
    pub fn open(policy: &SimulatedPolicy, seed: u64) -> Self {
        Self::start(policy, seed, None)
    }

    /// The same, remembering its log.
    #[must_use]
    pub fn with_log(policy: &SimulatedPolicy, seed: u64) -> Self {
        Self::start(policy, seed, Some(Vec::new()))
    }

    fn start(policy: &SimulatedPolicy, seed: u64, log: Option<Vec<Event<RolloutEvent>>>) -> Self {
        let counters =
            SimulatedCounters::new(seed, RequiredMetrics::for_analysis(policy.analysis()));
        let mut real = Self {
            state: RolloutState::default(),
            counters,
            live: (0, RolloutEvidence::default()),
            exposure: None,
            log,
        };
        real.decide(RolloutInput::Open(Box::new(policy.spec())), moment(0));
        real.carry_out_effects(0);
        real
    }

    /// Its state.
    #[must_use]
    pub fn rollout(&self) -> &Rollout {
        self.state.0.as_deref().expect("it was opened")
    }

    /// Its log so far; empty without [`Self::with_log`].
    #[must_use]
    pub fn log(&self) -> &[Event<RolloutEvent>] {
        self.log.as_deref().unwrap_or_default()
    }

    fn decide(&mut self, input: RolloutInput, now: Timestamp) -> bool {
        self.decide_as(Actor::Shipway("a simulation".to_owned()), input, now)
    }

    fn decide_as(&mut self, by: Actor, input: RolloutInput, now: Timestamp) -> bool {
        // A rejected input has no effect, as in production.
        let events = RolloutAggregate::decide(&self.state, input, by, now).unwrap_or_default();
        fold::<RolloutAggregate>(&mut self.state, &events);
        let changed = !events.is_empty();
        if let Some(log) = &mut self.log {
            log.extend(events);
        }
        changed
    }

    /// Completes all pending effects immediately: instances start, drains end, approvals are given.
    fn carry_out_effects(&mut self, at: u32) {
        let now = moment(at);
        for _ in 0..INPUTS_MAX {
            if !self.step(at, now) {
                return;
            }
        }
    }

    fn step(&mut self, at: u32, now: Timestamp) -> bool {
        let pending = RolloutAggregate::pending(&self.state, now);
        for (_, effect) in pending.effects {
            match effect {
                RolloutEffect::ExecuteAction { plan, index, .. } => {
                    return self.decide(
                        RolloutInput::Done {
                            plan,
                            index,
                            note: None,
                            smoke: None,
                        },
                        now,
                    );
                }
                RolloutEffect::Measure { exposure, .. } if self.exposure != Some(exposure) => {
                    // Both sides are read as soon as traffic has shifted.
                    self.exposure = Some(exposure);
                    return self.measure(at) || self.step(at, now);
                }
                RolloutEffect::NotifyService { .. } => {
                    return self.decide(RolloutInput::ServiceNotified, now);
                }
                RolloutEffect::Measure { .. }
                | RolloutEffect::WatchInstances { .. }
                | RolloutEffect::WatchPeers { .. }
                | RolloutEffect::Notify { .. } => {}
            }
        }
        let asked = self.rollout().action().cloned();
        if let Some(PlanAction::Ask { gate }) = asked
            && gate.approvals().is_some()
        {
            let approvals = (self.rollout().gate.as_ref()).map_or(0, |it| it.decisions.len());
            let by = Principal::person(&format!("person {}", approvals + 1)).actor();
            return self.decide_as(
                by,
                RolloutInput::Approve {
                    groups: every_group(&gate),
                    seen: SeenSubject::Unspecified,
                    comment: None,
                },
                now,
            );
        }
        pending.wake_at.is_some_and(|wake_at| wake_at <= now)
            && self.decide(RolloutInput::TimerFired, now)
    }

    fn measure(&mut self, at: u32) -> bool {
        let Some(exposure) = self.exposure.filter(|_| self.rollout().is_judged()) else {
            return false;
        };
        let seen = self.counters.observe(at);
        let rollout = self.state.0.as_deref().expect("it was opened");
        if self.live.0 != exposure {
            let live = std::mem::take(&mut self.live.1);
            self.live = (exposure, rollout.evidence_after_shift(live));
        }
        match rollout.observe(&mut self.live.1, seen) {
            Some(evaluation) => {
                let evaluation = Box::new(evaluation);
                self.decide(
                    RolloutInput::Evaluated {
                        exposure,
                        evaluation,
                    },
                    moment(at),
                )
            }
            None => false,
        }
    }

    fn ended(&self) -> Option<RolloutEnd> {
        let rollout = self.rollout();
        match (&rollout.ended, rollout.direction) {
            (Some(end), _) => Some(match end.outcome {
                RolloutOutcome::Promoted => RolloutEnd::Promoted,
                RolloutOutcome::RolledBack
                | RolloutOutcome::Aborted
                | RolloutOutcome::Rejected
                | RolloutOutcome::Superseded
                | RolloutOutcome::Failed => RolloutEnd::RolledBack,
            }),
            (None, PlanDirection::Back) => Some(RolloutEnd::RolledBack),
            (None, PlanDirection::Forward) => rollout.paused.as_ref().map(|_| RolloutEnd::Paused),
        }
    }
}

impl RolloutContender for RealRollout {
    fn weight(&self) -> f64 {
        self.rollout().observed.split.weight_of(CANDIDATE).percent() / 100.0
    }

    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        self.counters.count(seen);
        if self.exposure == Some(self.rollout().exposure) {
            self.measure(at);
        }
        self.carry_out_effects(at);
        self.ended()
    }
}

/// The judges and the holds alone.
pub struct DirectRollout<'p> {
    policy: &'p SimulatedPolicy,
    steps: Vec<HoldStep>,
    step: usize,
    since: u32,
    state: AnalysisState,
    counters: SimulatedCounters,
}

impl<'p> DirectRollout<'p> {
    /// A rollout of this policy.
    #[must_use]
    pub fn open(policy: &'p SimulatedPolicy, seed: u64) -> Self {
        let counters =
            SimulatedCounters::new(seed, RequiredMetrics::for_analysis(policy.analysis()));
        let mut direct = Self {
            policy,
            steps: policy.steps(),
            step: 0,
            since: 0,
            state: policy.analysis().initial_state(),
            counters,
        };
        direct.observe(0);
        direct
    }

    fn observe(&mut self, at: u32) -> Judgement {
        let seen: Observation = self.counters.observe(at);
        self.policy.analysis().observe(&mut self.state, &seen)
    }

    /// Applies a judgement at `at`: the next step, or the end of the rollout.
    fn follow(&mut self, at: u32, judgement: &Judgement) -> Option<RolloutEnd> {
        let hold = self.steps[self.step].hold;
        let held = Duration::from_secs(u64::from(at - self.since));
        let (passes, is_accepted) = (
            judgement.verdict.is_pass(),
            judgement.verdict.is_accepted_at_end(),
        );
        if judgement.verdict.is_fail() {
            return Some(RolloutEnd::RolledBack);
        }
        let is_over = held >= hold && is_accepted
            || passes && judgement.is_final() && held >= self.policy.holds().min.min(hold);
        if is_over {
            return self.next(at);
        }
        if !is_accepted && held >= hold + hold.max(Duration::from_secs(60)) {
            return match self.policy.holds().on_inconclusive {
                OnInconclusive::Pause => Some(RolloutEnd::Paused),
                OnInconclusive::Rollback => Some(RolloutEnd::RolledBack),
                OnInconclusive::Promote => self.next(at),
            };
        }
        None
    }

    fn next(&mut self, at: u32) -> Option<RolloutEnd> {
        self.step += 1;
        self.since = at;
        self.state.start_hold();
        if self.step == self.steps.len() {
            return Some(RolloutEnd::Promoted);
        }
        let judgement = self.observe(at);
        self.follow(at, &judgement)
    }
}

impl RolloutContender for DirectRollout<'_> {
    fn weight(&self) -> f64 {
        self.steps.get(self.step).map_or(1.0, |step| step.weight)
    }

    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        self.counters.count(seen);
        let judgement = self.observe(at);
        self.follow(at, &judgement)
    }
}
