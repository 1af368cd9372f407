//! A row of measurements of one metric, counted as Argo Rollouts counts: what limits and conditions have in common.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::limit_micros;
use crate::{
    MeasurementPolicy, Metric, Sample,
    counter_window::{CounterWindow, WindowCounts},
};

/// How long a window of availability is: instances that are down for a moment in it are not down for a whole one.
pub(crate) const AVAILABILITY_WINDOW: Duration = Duration::from_secs(60);

/// How a value is looked at: by a limit, or by conditions.
pub(crate) trait MeasurementCheck {
    /// How a measurement of `value` ends, where stable has `stable`.
    fn assess(&self, value: f64, stable: Option<f64>) -> OutcomeKind;

    /// The upper limit, where there is one.
    fn max(&self) -> Option<f64> {
        None
    }

    /// Whether so many events are too many already, whatever else comes until there are `min_requests`.
    fn is_lost(&self, events: u64, min_requests: u64) -> bool;

    /// How the value relates to the bound.
    fn relation(&self, metric: Metric, value: f64) -> BoundRelation;
}

/// How a value relates to a bound, as parts of a sentence.
pub(crate) struct BoundRelation {
    /// ` is over the limit`; empty where a condition decides.
    pub(crate) relation: &'static str,
    /// `limit 2%`
    pub(crate) bound: String,
}

/// A metric with its measurement policy and its bound or conditions.
pub(crate) struct MeasurementSeries<'a> {
    pub(crate) metric: Metric,
    pub(crate) counting: &'a MeasurementPolicy,
    pub(crate) assess: &'a dyn MeasurementCheck,
}

/// How a measurement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeKind {
    Successful,
    Failed,
    Inconclusive,
    Error,
}

impl MeasurementSeries<'_> {
    /// What a sample counts for it: of a quantile with an upper limit, the requests that take longer.
    pub(super) fn counts(&self, sample: &Sample) -> Option<WindowCounts> {
        let limit = limit_micros(self.metric, self.assess.max());
        let slow = limit.and_then(|over_micros| sample.counts(Metric::SlowRate { over_micros }));
        slow.or_else(|| sample.counts(self.metric))
    }
}

/// The share of the instances' time in which they were ready, since the window of `track` began. A window that has just begun counts
/// as a whole one whose rest is good. `None` before any instance should have been ready.
pub(super) fn availability(
    track: &CounterWindow,
    counts: WindowCounts,
    at: Timestamp,
) -> Option<f64> {
    let window = track.window(counts);
    (window.requests > 0).then(|| {
        let elapsed = track.seconds_since(at) / AVAILABILITY_WINDOW.as_secs_f64();
        1.0 - window.share() * elapsed.min(1.0)
    })
}
