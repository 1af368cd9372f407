//! Judges: how measurements become verdicts. Pure: no clock, no files, no randomness, no async.
//!
//! A driver samples the releases of a rollout ([`Observation`]); a [`Judge`] folds observations into its state and says
//! each time how things stand ([`Judgement`]). Everything counted is counted since the hold began, so a lost, late or
//! repeated observation changes nothing that a later one doesn't repair, and a state read back from the log resumes
//! exactly where it was.
//!
//! What a judge must never do: pass without evidence, or fail because evidence is missing. Evidence that can't be used is
//! [`Verdict::Inconclusive`], too little traffic is [`Verdict::NoData`]; the executor decides the consequence of either.
//!
//! Judges: [`sequential`] (against stable, as early as the evidence allows), [`threshold`] (limits, with Argo Rollouts'
//! words), [`expression`] (conditions), [`mann_whitney`] (Kayenta's).
//!
//! ```
//! use shipway_analysis::{Analysis, Metric, Observation, Sample, ReleaseSample, ThresholdLimit, Verdict, threshold::MetricBound};
//!
//! let analysis = Analysis::new(vec![ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(0.02))?]);
//! let mut state = analysis.initial_state();
//! let seen = |seconds, requests, errors| Observation {
//!     at: jiff::Timestamp::from_second(seconds).expect("in range"),
//!     canary: ReleaseSample { release: "#3".into(), sample: Some(Sample { requests, errors, ..Sample::default() }) },
//!     stable: None,
//! };
//!
//! analysis.observe(&mut state, &seen(0, 0, 0));
//! let judgement = analysis.observe(&mut state, &seen(4, 1240, 64));
//! assert_eq!(
//!     judgement.verdict,
//!     Verdict::Fail { why: "error rate of #3 is over the limit: 5.2% (64 of 1,240 requests), limit 2%".into() }
//! );
//! # Ok::<(), shipway_analysis::threshold::InvalidThreshold>(())
//! ```

mod analysis;
mod counter_window;
pub mod evidence;
pub mod expression;
mod histogram;
mod judge;
pub mod mann_whitney;
mod measurement_policy;
mod metric;
mod metric_name;
pub mod plot;
mod required_metrics;
mod sample;
pub mod sequential;
pub mod threshold;
mod verdict;
mod warm_up;

pub use analysis::{Analysis, AnalysisCheckpoint, AnalysisRule, AnalysisState, MetricJudgement};
pub use expression::ConditionRule;
pub use histogram::Histogram;
pub use judge::Judge;
pub use mann_whitney::MannWhitney;
pub use measurement_policy::{MeasurementPolicy, shortest_interval};
pub use metric::{Metric, MetricKind, ParseMetricError, ParseValueError};
pub use metric_name::{MetricName, ParseNameError};
pub use required_metrics::RequiredMetrics;
pub use sample::{
    BaselineSample, BusinessEventCount, FailedUsers, InstanceTime, LatencyQuantiles, Observation,
    ProviderAnswer, ProviderReply, ReleaseSample, Sample, SlowCount,
};
pub use sequential::{ComparisonOdds, CountingUnit, SequentialComparison, WorseDirection};
pub use threshold::ThresholdLimit;
pub use verdict::{Finality, Judgement, Verdict};
