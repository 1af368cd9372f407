//! The optional measurements that an analysis needs. Histograms and user counts are costly to measure and to log, so the driver
//! takes only those that a rule reads.
//!
//! ```
//! use shipway_analysis::{Analysis, RequiredMetrics, Metric, ThresholdLimit, threshold::MetricBound};
//!
//! let slow = Metric::SlowRate { over_micros: 300_000 };
//! let required = RequiredMetrics::for_analysis(&Analysis::new(vec![ThresholdLimit::new(slow, MetricBound::Max(0.05))?]));
//! assert_eq!(required, RequiredMetrics { slow: vec![300_000], ..RequiredMetrics::default() });
//! # Ok::<(), shipway_analysis::threshold::InvalidThreshold>(())
//! ```

use crate::{Analysis, AnalysisRule, Metric, MetricKind};

/// Measurements that are only taken if a rule reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredMetrics {
    /// Whether quantiles of the latency are looked at.
    pub latency: bool,
    /// Whether they are compared with stable's: that needs whole distributions.
    pub histogram: bool,
    /// The limits from which on an answer is slow, in microseconds; ascending, each once.
    pub slow: Vec<u64>,
    /// Whether business events are judged.
    pub events: bool,
    /// Whether users are counted who meet an error or wait too long, where they are known again.
    pub users: bool,
}

impl RequiredMetrics {
    /// What these rules look at.
    #[must_use]
    pub fn for_analysis(analysis: &Analysis) -> Self {
        let metrics = || analysis.rules().iter().flat_map(AnalysisRule::metrics);
        let is_quantile = |metric: Metric| matches!(metric.kind(), MetricKind::Quantile(_));
        let mut slow: Vec<u64> = metrics()
            .filter_map(|metric| match metric {
                // Nothing can be counted by a limit that isn't known yet.
                Metric::SLOW_RATE_AUTO => None,
                Metric::SlowRate { over_micros } => Some(over_micros),
                _ => None,
            })
            .chain(analysis.rules().iter().filter_map(limit_of_latency))
            .collect();
        slow.sort_unstable();
        slow.dedup();
        let comparing = analysis.rules().iter().filter(|rule| rule.compares());
        Self {
            latency: metrics().any(is_quantile),
            histogram: comparing.flat_map(AnalysisRule::metrics).any(is_quantile),
            slow,
            events: metrics().any(|metric| matches!(metric, Metric::Event(_))),
            users: analysis.rules().iter().any(is_by_user),
        }
    }
}

/// The limit on a quantile of the latency, in microseconds: requests beyond it are known before they have an answer.
fn limit_of_latency(rule: &AnalysisRule) -> Option<u64> {
    match rule {
        AnalysisRule::Threshold(threshold) => threshold.limit_micros(),
        AnalysisRule::Sequential { .. }
        | AnalysisRule::MannWhitney { .. }
        | AnalysisRule::Expression { .. } => None,
    }
}

fn is_by_user(rule: &AnalysisRule) -> bool {
    matches!(rule, AnalysisRule::Sequential { sequential } if sequential.is_by_user())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SequentialComparison, ThresholdLimit, evidence::Alpha, threshold::MetricBound};

    fn limit(metric: Metric) -> AnalysisRule {
        ThresholdLimit::new(metric, MetricBound::Max(0.5))
            .unwrap()
            .into()
    }

    fn comparison(metric: Metric) -> AnalysisRule {
        let share = |value| Alpha::new(value).unwrap();
        SequentialComparison::new(metric, share(0.01), share(0.05), 1.1, 2.0)
            .unwrap()
            .into()
    }

    #[test]
    fn what_nobody_looks_at_is_not_asked_for() {
        let plain = Analysis::new(vec![limit(Metric::ErrorRate), comparison(Metric::Cpu)]);
        assert_eq!(
            RequiredMetrics::for_analysis(&plain),
            RequiredMetrics::default()
        );
    }

    #[test]
    fn each_is_asked_for_by_who_needs_it() {
        let slow = |over_micros| limit(Metric::SlowRate { over_micros });
        let limits = Analysis::new(vec![slow(900), slow(300), slow(900)]);
        assert_eq!(RequiredMetrics::for_analysis(&limits).slow, [300, 900]);

        let limited =
            RequiredMetrics::for_analysis(&Analysis::new(vec![limit(Metric::LatencyP99)]));
        assert!(limited.latency && !limited.histogram, "{limited:?}");
        assert_eq!(limited.slow, [500], "half a millisecond");
        let compared =
            RequiredMetrics::for_analysis(&Analysis::new(vec![comparison(Metric::LatencyP99)]));
        assert!(compared.latency && compared.histogram, "{compared:?}");

        assert!(
            RequiredMetrics::for_analysis(&Analysis::new(vec![comparison(Metric::ErrorRate)]))
                .users
        );

        let orders = Metric::Event("orders".parse().unwrap());
        assert!(RequiredMetrics::for_analysis(&Analysis::new(vec![limit(orders)])).events);
    }
}
