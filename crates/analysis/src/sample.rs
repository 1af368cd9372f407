//! What drivers measure and judges look at: both sides of a rollout at one moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Both sides of a rollout as seen at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was taken.
    pub at: Timestamp,
    /// The release being judged.
    pub canary: Side,
    /// The release it would replace; absent at a first deployment.
    pub stable: Option<Side>,
}

/// One release within an observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// How people call it: `#3`.
    pub release: String,
    /// What was measured; `None` when the source could not be read.
    pub sample: Option<Sample>,
}

/// What was measured of one release. Counts only ever grow; where a counter was restarted and is smaller than before,
/// all it says is counted as new, as Prometheus' `increase` does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Requests answered, from any fixed point in time on.
    pub requests: u64,
    /// Those of them that were answered with 5xx or not at all.
    pub errors: u64,
    /// How long answers took. Quantiles can't be subtracted as counts can, so the sampler says what the recent ones
    /// are: those since the last measurement ([`crate::threshold::State::measured_at`]) where it can tell, otherwise
    /// those of about the last `interval`.
    pub latency: Option<Latency>,
    /// Share of one core that the busiest instance used lately: 1.0 is one core.
    pub cpu: Option<f64>,
    /// Resident bytes of the largest instance.
    pub memory_bytes: Option<f64>,
    /// Unplanned restarts of all instances, from any fixed point in time on.
    pub restarts: Option<u64>,
}

/// Quantiles of the time an answer took, in milliseconds. `None` or NaN where there was nothing to take them of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Half of the answers were at least this fast.
    pub p50_ms: Option<f64>,
    /// Nine tenths of the answers were at least this fast.
    pub p90_ms: Option<f64>,
    /// 99 of 100 answers were at least this fast.
    pub p99_ms: Option<f64>,
}
