//! Default metrics, for a `shipway.yaml` without `analysis`: user errors, latency, and instances that crash.
//!
//! Each of them is compared with stable; the absolute limits apply when there is no stable release, as in a first deployment.

use shipway_analysis::{
    Analysis, AnalysisRule, Metric, SequentialComparison, ThresholdLimit, evidence::Alpha,
    threshold::MetricBound,
};

/// The share of errors that a release without a stable one to compare with may have.
const ERRORS_MAX: f64 = 0.05;
/// The share of slow answers that it may have.
const SLOW_MAX: f64 = 0.1;
/// Unplanned restarts of all instances that are tolerated in a rollout, in addition to those that stable has too.
const RESTARTS_MAX: f64 = 0.0;
/// The share of a minute in which the instances must be ready.
const AVAILABILITY_MIN: f64 = 0.95;

pub(in crate::config) fn rules() -> Analysis {
    let alpha = Alpha::new(SequentialComparison::ALPHA).expect("a probability");
    let beta = Alpha::new(SequentialComparison::BETA).expect("a probability");
    let compared = |metric, max| {
        let comparison = SequentialComparison::new(
            metric,
            alpha.split(2),
            beta,
            SequentialComparison::default_margin(metric),
            SequentialComparison::default_tolerance(metric),
        );
        AnalysisRule::from(SequentialComparison {
            max_without_stable: Some(max),
            ..comparison.expect("errors and slow answers are counted")
        })
    };
    let limited = |metric, bound| {
        let limit = ThresholdLimit::new(metric, bound).expect("the bounds are numbers");
        AnalysisRule::from(ThresholdLimit {
            worse_than_stable: true,
            ..limit
        })
    };
    Analysis::new(vec![
        compared(Metric::ErrorRate, ERRORS_MAX),
        compared(Metric::SLOW_RATE_AUTO, SLOW_MAX),
        limited(Metric::Restarts, MetricBound::Max(RESTARTS_MAX)),
        limited(Metric::Availability, MetricBound::Min(AVAILABILITY_MIN)),
    ])
}
