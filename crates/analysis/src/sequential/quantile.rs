//! A quantile of the time that answers take, compared by bounds that hold at all times and for all quantiles at once
//! ([`double_stitching`]): the canary is slower when its quantile, taken as low as it may be, is above stable's, taken as
//! high as it may be.
//!
//! The 99th percentile needs about 5,000 requests on each side for a first result, the median some hundreds. (A bound
//! on whole distributions, [`CdfBand`](crate::evidence::cdf::CdfBand), needs about 75,000 for the 99th percentile.)

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ComparisonResult, ObservedPair, SequentialComparison, confidence, describe_comparison, doubt,
};
use crate::{
    Histogram, Sample,
    evidence::{
        Alpha,
        cdf::{BucketCounts, double_stitching},
    },
    metric::pluralized,
    verdict::RequestSource,
};

/// Where the bound is tightest, in requests: about as many as a median needs.
const TIGHTEST_AT: f64 = 1_000.0;

/// Both distributions since the hold began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct QuantileState {
    canary: SideLatencies,
    stable: SideLatencies,
    at: Option<Timestamp>,
}

/// Histograms of one side: the counters at the start, and the increase since the hold began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SideLatencies {
    mark: Histogram,
    seen: Histogram,
    /// Where the source stood with requests that ended without an answer.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    unfinished_mark: Histogram,
    /// How old requests were that ended without an answer since the hold began: at least as long would it have taken.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    unfinished: Histogram,
    /// The same of requests that are open.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    open: Histogram,
}

impl SideLatencies {
    fn take_in(&mut self, answered: &Histogram, now: &Sample) {
        self.seen = self.seen.merged(&answered.since(&self.mark));
        let unfinished = now.unfinished.since(&self.unfinished_mark);
        self.unfinished = self.unfinished.merged(&unfinished);
        self.skip_to(answered, now);
    }

    fn skip_to(&mut self, answered: &Histogram, now: &Sample) {
        self.mark.clone_from(answered);
        self.unfinished_mark.clone_from(&now.unfinished);
        self.open.clone_from(&now.open_ages);
    }

    /// All requests, those without an answer as if it had come when last seen.
    fn at_least(&self) -> Histogram {
        self.seen.merged(&self.unfinished).merged(&self.open)
    }

    /// All requests, those without an answer as if it never came.
    fn at_most(&self) -> Histogram {
        let never = (Histogram::BUCKETS - 1) as u16;
        let unanswered = self.unfinished.total().saturating_add(self.open.total());
        self.seen
            .merged(&[(never, unanswered)].into_iter().collect())
    }
}

/// The range that a quantile lies in, in microseconds.
struct QuantileRange {
    low: u64,
    high: u64,
}

impl QuantileState {
    pub(super) fn is_new(&self) -> bool {
        self.at.is_none()
    }

    pub(super) fn skip_to(&mut self, seen: &ObservedPair<'_>) {
        if let (Some(canary), Some(stable)) = (&seen.canary.histogram, &seen.stable.histogram) {
            self.canary.skip_to(canary, seen.canary);
            self.stable.skip_to(stable, seen.stable);
            self.at = Some(seen.at);
        }
    }

    /// Records the histograms of both sides, unless those of this moment were recorded before.
    fn record(&mut self, canary: &Histogram, stable: &Histogram, seen: &ObservedPair<'_>) {
        match self.at {
            None => self.skip_to(seen),
            Some(at) if at < seen.at => {
                self.canary.take_in(canary, seen.canary);
                self.stable.take_in(stable, seen.stable);
                self.at = Some(seen.at);
            }
            Some(_) => {}
        }
    }
}

/// Records an observation and compares the quantile.
pub(super) fn judge(
    judge: &SequentialComparison,
    state: &mut super::SequentialState,
    seen: &ObservedPair<'_>,
    quantile: f64,
) -> ComparisonResult {
    let (Some(canary), Some(stable)) = (&seen.canary.histogram, &seen.stable.histogram) else {
        return ComparisonResult::Unknown("no latencies were measured".to_owned());
    };
    state.quantile.record(canary, stable, seen);
    let of = &state.quantile;
    let (of_canary, of_stable) = (of.canary.at_least(), of.stable.at_least());
    let requests = of_canary.total().min(of_stable.total());
    if requests < judge.min_requests {
        return ComparisonResult::NoData(requests, judge.min_requests, RequestSource::BothReleases);
    }
    let alpha = judge.hold_alpha(state.holds);
    let (canary, stable) = (
        LatencyDistribution::from_histograms(&of_canary, &of.canary.at_most()),
        LatencyDistribution::from_histograms(&of_stable, &of.stable.at_most()),
    );
    // Half of what may be wrong for each side.
    let ranges = |alpha: Alpha| {
        let alpha = alpha.split(2);
        (canary.range(quantile, alpha), stable.range(quantile, alpha))
    };
    // `latency p99 of #3 is worse than #2: 290 ms to 330 ms vs 110 ms to 140 ms (9,000 requests)`
    let explain = |(canary, stable): &(QuantileRange, QuantileRange), relation: &str| {
        let shown = (show(judge, canary), show(judge, stable));
        let requests = pluralized(of_canary.total(), "request");
        describe_comparison(judge, seen, relation, &shown, &requests)
    };
    let against = ranges(alpha);
    let (more, less) = judge.direction.order(&against.0, &against.1);
    if more.low as f64 >= judge.test.margin() * less.high as f64 {
        return ComparisonResult::Worse(format!(
            "{}; certainty {}",
            explain(&against, "is worse than"),
            confidence(alpha)
        ));
    }
    // With so few requests no latencies could have led to a fail.
    if more.low == 0 || less.high == u64::MAX {
        let needed = requests_needed(quantile, alpha.split(2)).max(requests + 1);
        return ComparisonResult::NoData(requests, needed, RequestSource::BothReleases);
    }
    let doubted = ranges(doubt());
    let (more, less) = judge.direction.order(&doubted.0, &doubted.1);
    if more.low as f64 > judge.test.margin() * less.high as f64 {
        return ComparisonResult::Against(format!(
            "{}; certainty {}, threshold {}",
            explain(&doubted, "may be worse than"),
            confidence(doubt()),
            confidence(alpha)
        ));
    }
    let cleared = ranges(judge.beta);
    let (more, less) = judge.direction.order(&cleared.0, &cleared.1);
    if more.high as f64 <= judge.test.tolerance() * less.low as f64 {
        let tolerance = judge.test.tolerance();
        return ComparisonResult::NoWorse(format!(
            "{}, within {tolerance} times {}",
            explain(&cleared, "is no worse than"),
            seen.names.1
        ));
    }
    ComparisonResult::Open(explain(&against, "is not shown to be worse than"))
}

/// How many requests it takes until a quantile has both a lower and an upper end; a limit on latency (`slow-rate`) needs far fewer.
fn requests_needed(quantile: f64, alpha: Alpha) -> u64 {
    let nearest = quantile.min(1.0 - quantile);
    let is_enough = |count: u64| {
        let count = count as f64;
        let bound = |quantile| double_stitching(quantile, count, alpha, TIGHTEST_AT) / count;
        bound(quantile).max(bound(1.0 - quantile)) < nearest
    };
    let Some(enough) = (0..40).map(|power| 1 << power).find(|it| is_enough(*it)) else {
        return u64::MAX;
    };
    let (mut few, mut enough) = (enough / 2, enough);
    // Two significant digits are enough for a number of requests.
    while enough - few > enough / 100 + 1 {
        let middle = few + (enough - few) / 2;
        if is_enough(middle) {
            enough = middle;
        } else {
            few = middle;
        }
    }
    enough
}

/// One side's answers, made ready for looking up more than one range.
struct LatencyDistribution {
    count: f64,
    /// Where each request is taken as short as it can be, and as long.
    at_least: BucketCounts,
    at_most: BucketCounts,
}

impl LatencyDistribution {
    fn from_histograms(at_least: &Histogram, at_most: &Histogram) -> Self {
        Self {
            count: at_least.total() as f64,
            at_least: at_least.buckets(),
            at_most: at_most.buckets(),
        }
    }

    /// The range of a quantile, by the bound that is wrong with probability `alpha`.
    fn range(&self, quantile: f64, alpha: Alpha) -> QuantileRange {
        // The bound above a quantile and the one below it differ; the wider one is taken for both.
        let bound =
            |quantile| double_stitching(quantile, self.count, alpha, TIGHTEST_AT) / self.count;
        let radius = bound(quantile).max(bound(1.0 - quantile));
        let low = self.at_least.first_with(quantile - radius).unwrap_or(0);
        QuantileRange {
            low: low.checked_sub(1).map_or(0, Histogram::upper_micros),
            // Beyond all that was seen anything is possible.
            high: (quantile + radius < 1.0)
                .then(|| self.at_most.first_with(quantile + radius))
                .flatten()
                .map_or(u64::MAX, Histogram::upper_micros),
        }
    }
}

/// `290 ms to 330 ms`, `over 290 ms`
fn show(judge: &SequentialComparison, range: &QuantileRange) -> String {
    let millis = |micros: u64| judge.metric.show(micros as f64 / 1000.0);
    if range.high == u64::MAX {
        format!("over {}", millis(range.low))
    } else {
        format!("{} to {}", millis(range.low), millis(range.high))
    }
}
