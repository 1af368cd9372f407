//! What stable answered in the hour before a rollout: from when on an answer of the new release is slow (`over: auto`), and how
//! much traffic its steps can expect. Measured once, by the driver that opens the rollout, and fixed in its log.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shipway_analysis::Analysis;

use crate::duration_text::DurationText;

/// Of fewer answers the 99th percentile says little.
const ANSWERS_MIN: u64 = 300;
/// Lower bound for the slow-request limit: a service that answers in 2 ms isn't slow at 6 ms.
const SLOW_LIMIT_MIN: Duration = Duration::from_millis(50);

/// Where nothing is known of stable, an answer is slow from here on.
pub(crate) const SLOW_WITHOUT_STABLE: Duration = Duration::from_secs(1);

/// What stable answered in the last hour, as far back as it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StableTraffic {
    pub requests: u64,
    /// The time that they came in.
    pub counted_for: Duration,
    /// 99 of 100 answers took at most this long, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_micros: Option<u64>,
}

impl StableTraffic {
    /// From when on an answer is slow, in microseconds: stable's 99th percentile, but no less than 50 ms; 1 s where stable answered
    /// too little to know.
    #[must_use]
    pub fn slow_limit_micros(&self) -> u64 {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        match self.p99_micros {
            Some(p99) if self.requests >= ANSWERS_MIN => {
                rounded_up(p99).max(micros(SLOW_LIMIT_MIN))
            }
            _ => micros(SLOW_WITHOUT_STABLE),
        }
    }

    /// The rules with their limits.
    #[must_use]
    pub fn resolve(&self, analysis: Analysis) -> Analysis {
        analysis.with_slow_limit(self.slow_limit_micros())
    }

    /// `slow-rate: answers are slow from 270 ms on: the 99th percentile of the 72,000 answers of the last 60 min`
    #[must_use]
    pub fn describe_slow_limit(&self) -> String {
        let limit = DurationText(Duration::from_micros(self.slow_limit_micros()));
        let last = DurationText(self.counted_for);
        match self.p99_micros {
            Some(p99) if self.requests >= ANSWERS_MIN => {
                let p99 = DurationText(Duration::from_micros(p99));
                let of = if self.counted_for.is_zero() {
                    String::new()
                } else {
                    format!(" of the last {last}")
                };
                format!(
                    "slow-rate: responses over {limit} count as slow; 99% of stable's {} responses{of} took {p99} or less",
                    self.requests
                )
            }
            _ => {
                let had = match self.requests {
                    0 => "no requests".to_owned(),
                    1 => "only 1 request".to_owned(),
                    requests => format!("only {requests} requests"),
                };
                format!(
                    "slow-rate: responses over {limit} count as slow, because stable had {had} to measure"
                )
            }
        }
    }
}

/// Up to two digits: 263,000 is 270,000.
fn rounded_up(micros: u64) -> u64 {
    let mut unit = 1;
    while micros / unit >= 100 {
        unit *= 10;
    }
    micros.div_ceil(unit) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u64, p99_ms: u64) -> u64 {
        let traffic = StableTraffic {
            requests,
            counted_for: Duration::from_secs(3_600),
            p99_micros: Some(p99_ms * 1_000),
        };
        traffic.slow_limit_micros() / 1_000
    }

    #[test]
    fn the_limit_is_stables_own_p99_with_a_floor_and_one_second_where_it_is_unknown() {
        assert_eq!(limit(72_000, 263), 270);
        assert_eq!(limit(72_000, 3), 50);
        assert_eq!(limit(72_000, 45_000), 45_000);
        assert_eq!(limit(299, 263), 1_000);
        assert_eq!(StableTraffic::default().slow_limit_micros(), 1_000_000);
    }
}
