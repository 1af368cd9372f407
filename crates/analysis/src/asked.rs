//! What an analysis looks at. Some of a sample is long, costly to measure, and goes into the log each time: it is measured
//! for who looks at it, and for nobody else.
//!
//! ```
//! use shipway_analysis::{Analysis, Asked, Metric, Threshold, threshold::Bound};
//!
//! let slow = Metric::SlowRate { over_micros: 300_000 };
//! let asked = Asked::of(&Analysis::new(vec![Threshold::new(slow, Bound::Max(0.05))?]));
//! assert_eq!(asked, Asked { slow: vec![300_000], ..Asked::default() });
//! # Ok::<(), shipway_analysis::threshold::InvalidThreshold>(())
//! ```

use crate::{Analysis, Kind, Metric, Rule};

/// What isn't measured unless somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
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

impl Asked {
    /// What these rules look at.
    #[must_use]
    pub fn of(analysis: &Analysis) -> Self {
        let metrics = || analysis.rules().iter().flat_map(Rule::metrics);
        let is_quantile = |metric: Metric| matches!(metric.kind(), Kind::Quantile(_));
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
            histogram: comparing.flat_map(Rule::metrics).any(is_quantile),
            slow,
            events: metrics().any(|metric| matches!(metric, Metric::Event(_))),
            users: analysis.rules().iter().any(is_by_user),
        }
    }
}

/// The limit on a quantile of the latency, in microseconds: requests beyond it are known before they have an answer.
fn limit_of_latency(rule: &Rule) -> Option<u64> {
    match rule {
        Rule::Threshold(threshold) => threshold.limit_micros(),
        Rule::Sequential { .. } | Rule::MannWhitney { .. } | Rule::Expression { .. } => None,
    }
}

fn is_by_user(rule: &Rule) -> bool {
    matches!(rule, Rule::Sequential { sequential } if sequential.is_by_user())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sequential, Threshold, evidence::Alpha, threshold::Bound};

    fn limit(metric: Metric) -> Rule {
        Threshold::new(metric, Bound::Max(0.5)).unwrap().into()
    }

    fn comparison(metric: Metric) -> Rule {
        let share = |value| Alpha::new(value).unwrap();
        Sequential::new(metric, share(0.01), share(0.05), 1.1, 2.0)
            .unwrap()
            .into()
    }

    #[test]
    fn what_nobody_looks_at_is_not_asked_for() {
        let plain = Analysis::new(vec![limit(Metric::ErrorRate), comparison(Metric::Cpu)]);
        assert_eq!(Asked::of(&plain), Asked::default());
    }

    #[test]
    fn each_is_asked_for_by_who_needs_it() {
        let slow = |over_micros| limit(Metric::SlowRate { over_micros });
        let limits = Analysis::new(vec![slow(900), slow(300), slow(900)]);
        assert_eq!(Asked::of(&limits).slow, [300, 900]);

        let limited = Asked::of(&Analysis::new(vec![limit(Metric::LatencyP99)]));
        assert!(limited.latency && !limited.histogram, "{limited:?}");
        assert_eq!(limited.slow, [500], "half a millisecond");
        let compared = Asked::of(&Analysis::new(vec![comparison(Metric::LatencyP99)]));
        assert!(compared.latency && compared.histogram, "{compared:?}");

        assert!(Asked::of(&Analysis::new(vec![comparison(Metric::ErrorRate)])).users);

        let orders = Metric::Event("orders".parse().unwrap());
        assert!(Asked::of(&Analysis::new(vec![limit(orders)])).events);
    }
}
