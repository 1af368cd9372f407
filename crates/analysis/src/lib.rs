//! Judges: how measurements become verdicts. Pure: no clock, no files, no randomness, no async.
//!
//! A driver samples the releases of a rollout ([`Observation`]); a [`Judge`] folds observations into its state and says
//! each time how things stand ([`Judgement`]). Everything counted is counted since the hold began, so a lost, late or
//! repeated observation changes nothing that a later one doesn't repair, and a state read back from the log goes on
//! exactly where it was.
//!
//! What a judge must never do: pass without evidence, or fail because evidence is missing. Evidence that can't be used is
//! [`Verdict::Inconclusive`], too little traffic is [`Verdict::NoData`]; what follows from either is the executor's decision.
//!
//! Judges: [`sequential`] (against stable, as early as the evidence allows), [`threshold`] (limits, with Argo Rollouts'
//! words), [`expression`] (conditions), [`mann_whitney`] (Kayenta's).
//!
//! ```
//! use shipway_analysis::{Analysis, Metric, Observation, Sample, Side, Threshold, Verdict, threshold::Bound};
//!
//! let analysis = Analysis::new(vec![Threshold::new(Metric::ErrorRate, Bound::Max(0.02))?]);
//! let mut state = analysis.begin();
//! let seen = |seconds, requests, errors| Observation {
//!     at: jiff::Timestamp::from_second(seconds).expect("in range"),
//!     canary: Side { release: "#3".into(), sample: Some(Sample { requests, errors, ..Sample::default() }) },
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
mod asked;
mod counting;
pub mod evidence;
pub mod expression;
mod histogram;
mod judge;
pub mod mann_whitney;
mod metric;
mod name;
pub mod plot;
mod sample;
pub mod sequential;
pub mod threshold;
mod track;
mod verdict;
mod warm_up;

pub use analysis::{Analysis, AnalysisCheckpoint, AnalysisState, MetricJudgement, Rule};
pub use asked::Asked;
pub use counting::{Counting, least_of};
pub use expression::Expression;
pub use histogram::Histogram;
pub use judge::Judge;
pub use mann_whitney::MannWhitney;
pub use metric::{Kind, Metric, ParseMetricError, ParseValueError};
pub use name::{Name, ParseNameError};
pub use sample::{
    Answer, Before, Happened, InstanceTime, Latency, Observation, Said, Sample, Side, Slow, Users,
};
pub use sequential::{Direction, Sequential, Unit};
pub use threshold::Threshold;
pub use verdict::{Finality, Judgement, Verdict};
