//! What a driver would have measured: counters that only ever grow, and quantiles of the last answers.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use shipway_analysis::{
    Histogram, InstanceTime, LatencyQuantiles, Observation, ReleaseSample, RequiredMetrics, Sample,
    SlowCount,
};

use crate::{
    random::SeededRandom,
    world::{SideSecond, SimulatedSecond},
};

/// The median answer of a release that is well, in milliseconds.
const MEDIAN_MS: f64 = 40.0;
/// How widely answers spread around it: the 99th percentile is about 260 ms.
const SPREAD: f64 = 0.8;
/// How many seconds of answers quantiles are taken of.
const WINDOW: usize = 5;
/// Resident bytes of an instance: nothing that is simulated changes them.
const MEMORY_BYTES: f64 = 64.0 * 1_048_576.0;

/// The 99th percentile of the answers of a release that is well, in milliseconds.
pub(crate) fn usual_p99_ms() -> f64 {
    slowness(0.99, &SideSecond::default())
}

/// When simulated rollouts begin.
#[must_use]
pub fn beginning() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("in range")
}

/// The moment after so many seconds.
#[must_use]
pub fn moment(at: u32) -> Timestamp {
    beginning() + SignedDuration::from_secs(i64::from(at))
}

/// The counters of both sides.
#[derive(Default)]
pub struct SimulatedCounters {
    canary: SideCounter,
    stable: SideCounter,
    seed: u64,
    seconds: u64,
    asked: RequiredMetrics,
}

#[derive(Default)]
struct SideCounter {
    requests: u64,
    errors: u64,
    slow: Vec<SlowCount>,
    histogram: Histogram,
    recent: VecDeque<SideSecond>,
}

impl SimulatedCounters {
    /// Counters at zero.
    #[must_use]
    pub fn new(seed: u64, asked: RequiredMetrics) -> Self {
        Self {
            seed,
            asked,
            ..Self::default()
        }
    }

    /// Counts a second in.
    pub fn count(&mut self, seen: &SimulatedSecond) {
        self.seconds += 1;
        let sides = [
            (&mut self.canary, &seen.canary),
            (&mut self.stable, &seen.stable),
        ];
        for (purpose, (counter, half)) in sides.into_iter().enumerate() {
            let mut random =
                SeededRandom::for_purpose(&[self.seed, self.seconds, 53 + purpose as u64]);
            counter.count(half, &self.asked, &mut random);
        }
    }

    /// What a driver reads at `at`.
    #[must_use]
    pub fn observe(&self, at: u32) -> Observation {
        let side = |release: &str, counter: &SideCounter, purpose| ReleaseSample {
            release: release.to_owned(),
            sample: Some(Sample {
                requests: counter.requests,
                errors: counter.errors,
                latency: self.asked.latency.then(|| {
                    counter.latency(&mut SeededRandom::for_purpose(&[
                        self.seed,
                        u64::from(at),
                        purpose,
                    ]))
                }),
                cpu: Some(0.1),
                memory_bytes: Some(MEMORY_BYTES),
                restarts: Some(0),
                // Nothing that is simulated brings an instance down.
                instance_time: Some(InstanceTime {
                    observed_ms: self.seconds * 1_000,
                    unavailable_ms: 0,
                }),
                histogram: self.asked.histogram.then(|| counter.histogram.clone()),
                slow: counter.slow.clone(),
                saturation: Some(1.0),
                ..Sample::default()
            }),
        };
        Observation {
            at: moment(at),
            canary: side("#2", &self.canary, 51),
            stable: Some(side("#1", &self.stable, 52)),
        }
    }
}

impl SideCounter {
    fn count(&mut self, half: &SideSecond, asked: &RequiredMetrics, random: &mut SeededRandom) {
        self.requests += half.requests;
        self.errors += half.errors;
        let earlier = std::mem::take(&mut self.slow);
        let sums = asked.slow.iter().enumerate().map(|(place, &over_micros)| {
            let before = earlier.get(place).map_or(0, |slow| slow.count);
            let beyond = 1.0 - within(over_micros as f64 / 1_000.0, half);
            let count = before + random.binomial(half.requests, beyond);
            SlowCount { over_micros, count }
        });
        self.slow = sums.collect();
        if asked.histogram {
            let drawn = answers(half.requests, half, 1.0, random);
            self.histogram = self.histogram.merged(&drawn.into_iter().collect());
        }
        self.recent.push_back(*half);
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
    }

    /// Order statistics of so many answers: as far down the distribution as the k-th of n even draws, each above the one before.
    fn latency(&self, random: &mut SeededRandom) -> LatencyQuantiles {
        let answers: u64 = self.recent.iter().map(|half| half.requests).sum();
        let Some(last) = self.recent.back().filter(|_| answers > 0) else {
            return LatencyQuantiles::default();
        };
        let mut below = (0, 0.0);
        let mut quantile = |q: f64| {
            let place = ((answers as f64 * q).ceil() as u64).clamp(1, answers);
            let (above, of) = (place - below.0, answers + 1 - place);
            if above > 0 {
                below = (
                    place,
                    below.1 + (1.0 - below.1) * random.beta(above as f64, of as f64),
                );
            }
            Some(slowness(below.1, last))
        };
        LatencyQuantiles {
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
        }
    }
}

/// One second's latencies in buckets, scaled by `times`: a binomial draw for each bucket from the requests that are left.
pub(crate) fn answers(
    requests: u64,
    half: &SideSecond,
    times: f64,
    random: &mut SeededRandom,
) -> Vec<(u16, u64)> {
    let (mut left, mut below) = (requests, 0.0);
    let buckets = (0..Histogram::BUCKETS).map_while(|bucket| {
        (left > 0).then(|| {
            let upper_ms = Histogram::upper_micros(bucket) as f64 / 1_000.0;
            let upper = within(upper_ms / times, half);
            let share = (upper - below) / (1.0 - below).max(f64::MIN_POSITIVE);
            let is_last = bucket + 1 == Histogram::BUCKETS;
            let count = if is_last {
                left
            } else {
                random.binomial(left, share)
            };
            left -= count;
            below = upper;
            (bucket as u16, count)
        })
    });
    buckets.collect()
}

/// The share of the answers that come within a time.
fn within(millis: f64, half: &SideSecond) -> f64 {
    let usual = |millis: f64| {
        if millis <= 0.0 {
            0.0
        } else {
            normal(libm::log(millis / MEDIAN_MS) / SPREAD)
        }
    };
    (1.0 - half.slow_share) * usual(millis) + half.slow_share * usual(millis - half.slower_ms)
}

/// The time within which this share of the answers came.
fn slowness(share: f64, half: &SideSecond) -> f64 {
    let (mut low, mut high) = (0.0, MEDIAN_MS * 1e3 + half.slower_ms);
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        if within(middle, half) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The standard normal distribution.
pub(crate) fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(slow_share: f64, slower_ms: f64, asked: RequiredMetrics) -> Sample {
        let mut counters = SimulatedCounters::new(9, asked);
        let canary = SideSecond {
            requests: 20_000,
            slow_share,
            slower_ms,
            ..SideSecond::default()
        };
        let stable = SideSecond::default();
        counters.count(&SimulatedSecond { canary, stable });
        counters.observe(1).canary.sample.unwrap()
    }

    fn latency() -> RequiredMetrics {
        RequiredMetrics {
            latency: true,
            ..RequiredMetrics::default()
        }
    }

    #[test]
    fn quantiles_are_those_of_the_distribution_and_move_with_it() {
        let usual = read(0.0, 0.0, latency()).latency.unwrap();
        assert!((usual.p50_ms.unwrap() - 40.0).abs() < 2.0, "{usual:?}");
        assert!((usual.p99_ms.unwrap() - 257.0).abs() < 25.0, "{usual:?}");
        let slower = read(1.0, 200.0, latency()).latency.unwrap();
        assert!((slower.p50_ms.unwrap() - 240.0).abs() < 3.0, "{slower:?}");
        let some = read(0.05, 2_000.0, latency()).latency.unwrap();
        assert!(
            (some.p50_ms.unwrap() - 42.0).abs() < 3.0 && some.p99_ms.unwrap() > 2_000.0,
            "{some:?}"
        );
    }

    #[test]
    fn slow_answers_and_buckets_are_those_of_the_same_distribution() {
        let asked = RequiredMetrics {
            histogram: true,
            slow: vec![100_000],
            ..RequiredMetrics::default()
        };
        let usual = read(0.0, 0.0, asked.clone());
        let histogram = usual.histogram.unwrap();
        assert_eq!(histogram.total(), 20_000);
        // 100 ms are 1.145 deviations above the median.
        assert!(
            (usual.slow[0].count as f64 / 20_000.0 - 0.126).abs() < 0.01,
            "{:?}",
            usual.slow
        );
        let slower = read(0.3, 1_000.0, asked);
        assert!(
            (slower.slow[0].count as f64 / 20_000.0 - 0.388).abs() < 0.015,
            "{:?}",
            slower.slow
        );
    }

    #[test]
    fn nobody_asked_is_no_latency() {
        assert_eq!(
            SimulatedCounters::new(1, latency())
                .observe(1)
                .canary
                .sample
                .unwrap()
                .latency,
            Some(LatencyQuantiles::default())
        );
    }
}
