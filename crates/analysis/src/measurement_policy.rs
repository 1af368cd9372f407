//! How measurements of one metric are counted, in Argo Rollouts' words: what limits and conditions have in common.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The interval and the limits of measurements. In the log these are keys of the judge's object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasurementPolicy {
    /// At least this long from one measurement to the next.
    pub interval: Duration,
    /// Number of measurements; `None`: until the hold ends.
    pub count: Option<u32>,
    /// Failed measurements that are forgiven.
    pub failure_limit: u32,
    /// Measurements without a value, in a row, that are forgiven.
    pub consecutive_error_limit: u32,
    /// Inconclusive measurements that are forgiven; `None`: all.
    pub inconclusive_limit: Option<u32>,
    /// Requests that a measurement of traffic needs. Other metrics don't look at it.
    pub min_requests: u64,
    /// How long after the hold began nothing is counted: a warm-up.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub skip: Duration,
    /// Whether too little traffic keeps a hold from ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

impl MeasurementPolicy {
    /// Default interval: short enough to catch an outage before users report it, long enough for some requests in each
    /// interval.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Argo Rollouts' default.
    pub const CONSECUTIVE_ERROR_LIMIT: u32 = 4;
    /// At a limit of 2% and 0.1% errors as usual, 100 requests are over the limit by chance 1 time in 6,600.
    pub const MIN_REQUESTS: u64 = 100;
}

impl MeasurementPolicy {
    /// Whether it matters how many measurements ended how.
    pub(crate) const fn counts_outcomes(&self) -> bool {
        self.count.is_some() || self.failure_limit > 0 || self.inconclusive_limit.is_some()
    }
}

/// How early a look may be: readings come some milliseconds sooner or later than planned, and waiting for the next one would make
/// each interval longer by it, an interval of one second twice as long.
const EARLY_MAX: Duration = Duration::from_millis(100);

/// The shortest time between two measurements with this interval: slightly less than the interval, so that jitter of the readings
/// doesn't skip one.
#[must_use]
pub fn shortest_interval(interval: Duration) -> Duration {
    interval - (interval / 10).min(EARLY_MAX)
}

/// Whether an interval that started at `last` has elapsed.
pub(crate) fn is_over(interval: Duration, last: Timestamp, now: Timestamp) -> bool {
    let least =
        SignedDuration::try_from(shortest_interval(interval)).unwrap_or(SignedDuration::MAX);
    now.duration_since(last) >= least
}

impl Default for MeasurementPolicy {
    /// Looked at every 5 s until the hold ends, no failure forgiven.
    fn default() -> Self {
        Self {
            interval: Self::INTERVAL,
            count: None,
            failure_limit: 0,
            consecutive_error_limit: Self::CONSECUTIVE_ERROR_LIMIT,
            inconclusive_limit: None,
            min_requests: Self::MIN_REQUESTS,
            skip: Duration::ZERO,
            required: false,
        }
    }
}
