//! `expression`: conditions over a value, in the meaning of Argo Rollouts' `successCondition` and `failureCondition`, counted
//! as limits are ([`threshold`](crate::threshold)).
//!
//! `pass` alone: what doesn't pass has failed. `fail` alone: what doesn't fail has passed. Both: what does neither is
//! inconclusive. So is a condition over what isn't known, such as `stable` at a first deployment.
//!
//! ```
//! use shipway_analysis::{ConditionRule, Metric};
//! let metric = Metric::Value("conversion".parse()?);
//! let judge = ConditionRule::new(metric, Some("value >= 0.95 * stable".parse()?), None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod condition;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::condition::{InvalidCondition, ValueCondition};
use crate::{
    Judge, Judgement, MeasurementPolicy, Metric, Observation,
    threshold::{
        MeasurementState, OutcomeKind,
        measurement_series::{BoundRelation, MeasurementCheck, MeasurementSeries},
    },
};

/// Conditions on one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionRule {
    /// The measured metric.
    pub metric: Metric,
    /// When a measurement is good.
    pub pass: Option<ValueCondition>,
    /// When a measurement is bad.
    pub fail: Option<ValueCondition>,
    /// How measurements are counted.
    #[serde(flatten)]
    pub counting: MeasurementPolicy,
}

/// Nothing that could be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an expression without `pass` and without `fail` would judge nothing")]
pub struct NoCondition;

impl ConditionRule {
    /// Conditions with the defaults of limits.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(
        metric: Metric,
        pass: Option<ValueCondition>,
        fail: Option<ValueCondition>,
    ) -> Result<Self, NoCondition> {
        if pass.is_none() && fail.is_none() {
            return Err(NoCondition);
        }
        Ok(Self {
            metric,
            pass,
            fail,
            counting: MeasurementPolicy::default(),
        })
    }
}

impl MeasurementCheck for ConditionRule {
    fn assess(&self, value: f64, stable: Option<f64>) -> OutcomeKind {
        let holds = |condition: &Option<ValueCondition>| {
            condition
                .as_ref()
                .map(|condition| condition.holds(value, stable))
        };
        match (holds(&self.pass), holds(&self.fail)) {
            (_, Some(Some(true))) | (Some(Some(false)), None) => OutcomeKind::Failed,
            (Some(Some(true)), None | Some(Some(false))) | (None, Some(Some(false))) => {
                OutcomeKind::Successful
            }
            _ => OutcomeKind::Inconclusive,
        }
    }

    /// A condition may accept more events, so no count decides early.
    fn is_lost(&self, _: u64, _: u64) -> bool {
        false
    }

    fn relation(&self, _: Metric, _: f64) -> BoundRelation {
        let explain = |outcome: &str, condition: &Option<ValueCondition>| {
            let condition = condition.as_ref()?;
            Some(format!("{outcome} if `{condition}`"))
        };
        let conditions = [explain("passes", &self.pass), explain("fails", &self.fail)];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        BoundRelation {
            relation: "",
            bound: conditions.join(", "),
        }
    }
}

impl Judge for ConditionRule {
    type State = MeasurementState;

    fn metrics(&self) -> Vec<Metric> {
        vec![self.metric]
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.counting.interval)
    }

    fn is_required(&self) -> bool {
        self.counting.required
    }

    fn start_hold(state: &mut MeasurementState) {
        state.start_hold();
    }

    fn observe(&self, state: &mut MeasurementState, seen: &Observation) -> Judgement {
        let series = MeasurementSeries {
            metric: self.metric,
            counting: &self.counting,
            assess: self,
        };
        series.observe(state, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assess(pass: &str, fail: &str, value: f64, stable: Option<f64>) -> OutcomeKind {
        let condition = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let judge = ConditionRule::new(Metric::Cpu, condition(pass), condition(fail)).unwrap();
        judge.assess(value, stable)
    }

    #[test]
    fn conditions_stand_in_sentences_as_they_are_written() {
        let condition = |text: &str| Some(text.parse().unwrap());
        let judge = ConditionRule::new(Metric::Cpu, condition("value < 1"), condition("value > 2"));
        assert_eq!(
            judge.unwrap().relation(Metric::Cpu, 3.0).bound,
            "passes if `value < 1`, fails if `value > 2`"
        );
    }

    #[test]
    fn pass_and_fail_mean_what_argos_conditions_mean() {
        use OutcomeKind::{Failed, Inconclusive, Successful};
        assert_eq!(assess("value < 1", "", 0.5, None), Successful);
        assert_eq!(assess("value < 1", "", 1.5, None), Failed);
        assert_eq!(assess("", "value > 1", 0.5, None), Successful);
        assert_eq!(assess("", "value > 1", 1.5, None), Failed);
        assert_eq!(assess("value < 1", "value > 2", 1.5, None), Inconclusive);
        assert_eq!(assess("value < 3", "value > 2", 2.5, None), Failed);
        assert_eq!(assess("value > stable", "", 2.5, None), Inconclusive);
        assert_eq!(
            assess("value < 1", "value > stable", 0.5, None),
            Inconclusive
        );
        assert_eq!(
            ConditionRule::new(Metric::Cpu, None, None),
            Err(NoCondition)
        );
    }
}
