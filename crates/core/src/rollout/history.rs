//! The course of a rollout, read from its log for its page: the forward plan also after a rollback, the traffic over time, and each
//! rule of the analysis with its judgement and its odds over time.
//!
//! A pure read model, like [`super::series`]: it stores nothing and causes nothing. The judges see the recorded readings in order, and
//! the newest one after them, so each rule has the judgement that the decision is made from.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_analysis::{
    Analysis, AnalysisCheckpoint, AnalysisRule, AnalysisState, ComparisonOdds, Judgement, Metric,
    Observation,
};

use super::{
    event::{PlanDirection, RolloutEvent},
    plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit},
    strategy::ObservedState,
    view::{PlanLine, RolloutProgress},
};
use crate::aggregate::Event;

/// Moments of the odds of one rule that are read: more than a drawing has room for.
const ODDS_MAX: usize = 240;

/// The course of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutHistory {
    /// The forward plan with the step at which it ended; empty unless the rollout went back.
    pub forward_plan: Vec<PlanLine>,
    /// The split of traffic from each moment on.
    pub traffic: Vec<TrafficPoint>,
    /// The rules in the order of the configuration.
    pub rules: Vec<RuleHistory>,
}

/// The split of traffic from a moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficPoint {
    pub at: Timestamp,
    pub split: TrafficSplit,
    pub direction: PlanDirection,
}

/// One rule of the analysis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleHistory {
    pub metric: Metric,
    pub criterion: RuleCriterion,
    /// The time from one measurement to the next; none where each reading counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Requests that it needs before it passes.
    pub min_requests: u64,
    pub is_required: bool,
    /// The last one; none before the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// Requests of the new release that it has counted since the weight was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// For comparisons of counted metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub odds: Vec<OddsPoint>,
}

/// What a rule compares a metric with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleCriterion {
    /// Limits in the unit of the metric.
    Limits { min: Option<f64>, max: Option<f64> },
    /// Stable: it fails once the odds against the release reach this many to 1.
    Stable { odds: f64 },
    /// Stable's windows: it passes from the first score on, and fails below the second.
    Score { pass: f64, marginal: f64 },
    /// The conditions of an expression.
    Conditions {
        pass: Option<String>,
        fail: Option<String>,
    },
}

/// The odds against the release at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OddsPoint {
    pub at: Timestamp,
    #[serde(flatten)]
    pub odds: ComparisonOdds,
}

impl RolloutHistory {
    /// Reads the history. `newest` is the last reading, recorded or not.
    #[must_use]
    pub fn read(events: &[Event<RolloutEvent>], newest: Option<&Observation>) -> Self {
        let mut reader = HistoryReader::default();
        for event in events {
            reader.add_event(event);
        }
        if let Some(newest) = newest.filter(|newest| reader.is_newer(newest)) {
            reader.observe(newest, &AnalysisCheckpoint::default());
        }
        reader.history
    }
}

#[derive(Default)]
struct HistoryReader {
    history: RolloutHistory,
    analysis: Analysis,
    state: AnalysisState,
    observed: ObservedState,
    plan: RolloutPlan,
    /// The index of the action that is carried out.
    cursor: usize,
    direction: Option<PlanDirection>,
    /// Requests of the new release when the weight was last changed.
    requests_before: Option<u64>,
    last_reading: Option<Timestamp>,
}

impl HistoryReader {
    fn add_event(&mut self, event: &Event<RolloutEvent>) {
        match &event.body {
            RolloutEvent::Opened { spec } => {
                self.analysis = spec.environment.analysis.clone();
                self.state = self.analysis.initial_state();
                self.observed = spec.observed.clone();
                self.history.rules = self.analysis.rules().iter().map(describe_rule).collect();
                self.add_traffic(event.at, PlanDirection::Forward);
            }
            RolloutEvent::Planned {
                direction, plan, ..
            } => {
                let goes_back = *direction == PlanDirection::Back;
                if goes_back && self.direction == Some(PlanDirection::Forward) {
                    self.history.forward_plan = describe_ended_plan(&self.plan, self.cursor);
                }
                self.direction = Some(*direction);
                self.plan = plan.clone();
                self.cursor = 0;
            }
            RolloutEvent::ActionDone { index, .. } => self.action_done(*index, event.at),
            RolloutEvent::Measured {
                seen, checkpoint, ..
            } => self.observe(seen, checkpoint),
            RolloutEvent::ActionFailed { .. }
            | RolloutEvent::CapacityLost { .. }
            | RolloutEvent::CapacityRestored { .. }
            | RolloutEvent::RollbackBlocked { .. }
            | RolloutEvent::FaultNotAttributed { .. }
            | RolloutEvent::RollbackDelayed { .. }
            | RolloutEvent::Approved { .. }
            | RolloutEvent::Rejected { .. }
            | RolloutEvent::GlassBroken { .. }
            | RolloutEvent::GlassReviewed { .. }
            | RolloutEvent::Paused { .. }
            | RolloutEvent::Resumed
            | RolloutEvent::HoldsSkipped { .. }
            | RolloutEvent::KeepEnded { .. }
            | RolloutEvent::SuccessorWaiting { .. }
            | RolloutEvent::Ended { .. }
            | RolloutEvent::ServiceNotified
            | RolloutEvent::NotificationFinished { .. } => {}
        }
    }

    fn action_done(&mut self, index: usize, at: Timestamp) {
        let Some(action) = self.plan.actions.get(index) else {
            return;
        };
        self.cursor = index + 1;
        self.observed.done(action);
        if matches!(action, PlanAction::Shift { .. }) {
            match self.is_reverse_canary() {
                true => self.state = self.analysis.initial_state(),
                false => self.state.start_hold(),
            }
            self.requests_before = None;
            self.add_traffic(at, self.direction.unwrap_or(PlanDirection::Forward));
        }
    }

    /// Whether evidence begins anew, as in [`super::Rollout::evidence_after_shift`].
    fn is_reverse_canary(&self) -> bool {
        let mut actions = self.plan.actions.iter();
        self.direction == Some(PlanDirection::Forward)
            && actions.any(|it| it.holds_for(HoldReason::ReverseCanary))
    }

    fn add_traffic(&mut self, at: Timestamp, direction: PlanDirection) {
        self.history.traffic.push(TrafficPoint {
            at,
            split: self.observed.split.clone(),
            direction,
        });
    }

    fn is_newer(&self, reading: &Observation) -> bool {
        self.last_reading.is_none_or(|last| last < reading.at)
    }

    fn observe(&mut self, seen: &Observation, checkpoint: &AnalysisCheckpoint) {
        self.last_reading = Some(seen.at);
        let judged = self.analysis.observe_each(&mut self.state, seen);
        self.state.restore(checkpoint);
        let odds = self.analysis.odds_of_rules(&self.state);
        let requests = (seen.canary.sample.as_ref()).map(|sample| sample.judged_requests());
        let before = *self
            .requests_before
            .get_or_insert(requests.unwrap_or_default());
        let since = requests.map(|requests| requests.saturating_sub(before));
        let rules = self.history.rules.iter_mut().zip(judged).zip(odds);
        for ((rule, judged), odds) in rules {
            rule.judgement = Some(judged.judgement);
            rule.requests = since.filter(|_| rule.metric.is_traffic_metric());
            if let Some(odds) = odds {
                rule.odds.push(OddsPoint { at: seen.at, odds });
                if rule.odds.len() > ODDS_MAX {
                    rule.odds.remove(0);
                }
            }
        }
    }
}

fn describe_rule(rule: &AnalysisRule) -> RuleHistory {
    let criterion = match rule {
        AnalysisRule::Sequential { sequential } => RuleCriterion::Stable {
            odds: 1.0 / sequential.alpha.get(),
        },
        AnalysisRule::MannWhitney { mann_whitney } => RuleCriterion::Score {
            pass: mann_whitney.pass,
            marginal: mann_whitney.marginal,
        },
        AnalysisRule::Expression { expression } => RuleCriterion::Conditions {
            pass: expression.pass.as_ref().map(ToString::to_string),
            fail: expression.fail.as_ref().map(ToString::to_string),
        },
        AnalysisRule::Threshold(threshold) => {
            let (min, max) = threshold.bound.ends();
            RuleCriterion::Limits { min, max }
        }
    };
    RuleHistory {
        metric: rule.metric(),
        criterion,
        interval: rule.interval(),
        min_requests: rule.min_requests(),
        is_required: rule.is_required(),
        judgement: None,
        requests: None,
        odds: Vec::new(),
    }
}

/// The actions of a plan that ended before its last action.
fn describe_ended_plan(plan: &RolloutPlan, cursor: usize) -> Vec<PlanLine> {
    let line = |(index, action): (usize, &PlanAction)| PlanLine {
        text: action.to_string(),
        progress: match index.cmp(&cursor) {
            std::cmp::Ordering::Less => RolloutProgress::Done,
            std::cmp::Ordering::Equal => RolloutProgress::Stopped,
            std::cmp::Ordering::Greater => RolloutProgress::Todo,
        },
    };
    plan.actions.iter().enumerate().map(line).collect()
}
