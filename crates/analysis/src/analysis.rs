//! All limits of an environment together: one state, one verdict, the worst winning.

use serde::{Deserialize, Serialize};

use crate::{Judge, Judgement, Metric, Observation, Threshold, threshold};

/// What is judged during a hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Analysis {
    limits: Vec<Threshold>,
}

/// Memory of one hold, one entry for each limit. Belongs into the log with what was decided from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnalysisState {
    limits: Vec<threshold::State>,
}

/// How one limit stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricJudgement {
    /// What was measured.
    pub metric: Metric,
    /// How it stands.
    #[serde(flatten)]
    pub judgement: Judgement,
}

impl Analysis {
    /// Judges by all of `limits`; the same metric may be among them more than once.
    #[must_use]
    pub const fn new(limits: Vec<Threshold>) -> Self {
        Self { limits }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &[Threshold] {
        &self.limits
    }

    /// Whether there is nothing to judge. Then every observation is inconclusive: who wants to go on without evidence
    /// says so by not asking.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The state when a hold begins.
    #[must_use]
    pub fn begin(&self) -> AnalysisState {
        AnalysisState {
            limits: vec![threshold::State::default(); self.limits.len()],
        }
    }

    /// Takes one observation into account and says how each limit stands, in their order.
    pub fn observe_each(
        &self,
        state: &mut AnalysisState,
        seen: &Observation,
    ) -> Vec<MetricJudgement> {
        // A state of another length is of an older configuration; what it knows of limits that are still there stays.
        state
            .limits
            .resize_with(self.limits.len(), threshold::State::default);
        let judged = self.limits.iter().zip(&mut state.limits);
        judged
            .map(|(limit, state)| MetricJudgement {
                metric: limit.metric,
                judgement: limit.observe(state, seen),
            })
            .collect()
    }

    /// Takes one observation into account and says how all stand together: any fail fails, else any inconclusive is
    /// inconclusive, else it passes.
    pub fn observe(&self, state: &mut AnalysisState, seen: &Observation) -> Judgement {
        let each = self.observe_each(state, seen);
        Judgement::worst(each.iter().map(|judged| &judged.judgement))
    }
}

impl AnalysisState {
    /// The state of each limit, in their order.
    #[must_use]
    pub fn limits(&self) -> &[threshold::State] {
        &self.limits
    }
}
