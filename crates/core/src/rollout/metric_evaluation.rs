//! One evaluation of the metrics of a rollout.

use shipway_analysis::{AnalysisCheckpoint, Judgement, Observation};

use super::FailureBasis;

/// A reading and its judgement.
#[derive(Clone, Debug)]
pub struct MetricEvaluation {
    pub seen: Box<Observation>,
    /// What all looks so far add up to.
    pub judgement: Judgement,
    /// State of the judges that can't be derived from the counts.
    pub checkpoint: AnalysisCheckpoint,
    /// What a failed judgement rests on.
    pub basis: Option<FailureBasis>,
}
