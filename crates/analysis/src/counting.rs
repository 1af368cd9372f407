//! How measurements of one metric are counted, in Argo Rollouts' words: what limits and conditions have in common.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How often is looked, and how often what is forgiven. In the log these stand among the keys of the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counting {
    /// At least this long from one measurement to the next.
    pub interval: Duration,
    /// Measurements after which it is over; `None`: until the hold ends.
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

impl Counting {
    /// How often is looked when nobody says: often enough to catch an outage before people call, seldom enough for an
    /// interval to hold some requests.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Argo Rollouts' default.
    pub const CONSECUTIVE_ERROR_LIMIT: u32 = 4;
    /// At a limit of 2% and 0.1% errors as usual, 100 requests are over the limit by chance 1 time in 6,600.
    pub const MIN_REQUESTS: u64 = 100;
}

impl Counting {
    /// Whether it matters how many measurements ended how.
    pub(crate) const fn counts_outcomes(&self) -> bool {
        self.count.is_some() || self.failure_limit > 0 || self.inconclusive_limit.is_some()
    }
}

/// How early a look may be: readings come some milliseconds sooner or later than planned, and waiting for the next one would make
/// each interval longer by it, an interval of one second twice as long.
const EARLY_MAX: Duration = Duration::from_millis(100);

/// How long after a look the next one counts, where a look in each `interval` is asked for: a little less, so that it doesn't
/// wait for one reading more.
#[must_use]
pub fn least_of(interval: Duration) -> Duration {
    interval - (interval / 10).min(EARLY_MAX)
}

/// Whether an interval that began at `last` is over.
pub(crate) fn is_over(interval: Duration, last: Timestamp, now: Timestamp) -> bool {
    let least = SignedDuration::try_from(least_of(interval)).unwrap_or(SignedDuration::MAX);
    now.duration_since(last) >= least
}

impl Default for Counting {
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
