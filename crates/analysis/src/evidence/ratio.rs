//! Sequential evidence on the rate ratio `r`: how much more often an event happens per request on the canary than on stable.
//!
//! # Method
//! Events are errors, slow requests or orders. Each event of one observation is the canary's with probability
//! `θ(r) = ρr / (ρr + 1 − ρ)`, where `ρ` is the canary's share of the requests in that observation. The total number of events
//! carries no information about `r` and is conditioned on, so changes of the traffic don't matter. The log likelihood of `r`
//! relative to `r = 1` is kept on a fixed grid of `ln r`; it is a sum over observations, so their order doesn't matter and
//! observations without events cost nothing. Source: Lindon & Malek (2020), with a mixture over the grid as prior.
//!
//! # Why the served share, not the weight
//! `ρ` is the share of requests that was really served: a few heavy users on one side don't look like a regression, and the
//! weight may change at any moment. (Requests of one observation are exchangeable if the releases are equally good; drawing events
//! without replacement has less variance than the assumed binomial, so the test is conservative.) If users are identified, each
//! failing user counts once and `ρ` is the configured weight: a hash assigns users, so that share is exact
//! ([`RatioEvidence::record_users_in_all`]).
//!
//! # Results
//!
//! - [`RatioEvidence::log_worse`] against `r ≤ margin`: the mixture of all `r` above, relative to `margin`. Each ratio of
//!   likelihoods is a supermartingale for every `r` below `margin`, since the likelihood ratio is monotone.
//! - [`RatioEvidence::log_no_worse`] against `r ≥ tolerance`, likewise from below: it ends a hold early.
//! - [`RatioEvidence::range`]: all `r` that the mixture of the whole grid doesn't reject, and it only shrinks.
//!
//! ```
//! use shipway_analysis::evidence::{Alpha, ratio::{EventCounts, RatioTest}};
//! let test = RatioTest::new(1.0, 2.0)?;
//! let mut evidence = test.start();
//! for _ in 0..40 {
//!     // Each second: 100 requests on the canary, 5 of them bad; 900 on stable, one of them bad.
//!     evidence.record(&test, EventCounts { events: 5, of: 100 }, EventCounts { events: 1, of: 900 });
//!     evidence.narrow(Alpha::new(0.05)?);
//! }
//! assert!(evidence.log_worse(&test) > Alpha::new(0.01)?.log_limit());
//! assert!(evidence.range().low > 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{f64::consts::LN_2, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::{Alpha, ConfidenceInterval, numeric::log_sum_exp};

/// Points of the grid to a doubling of `r`.
const PER_DOUBLING: i32 = 6;
/// The grid's first point: a sixty-fourth.
const FIRST: i32 = -6 * PER_DOUBLING;
/// The grid's last point: a thousandfold.
const LAST: i32 = 10 * PER_DOUBLING;
/// How many points there are.
const POINTS: usize = (LAST - FIRST + 1) as usize;
/// The largest rate that a likelihood is taken of: at exactly 1 the first good request would be impossible.
const ALL: f64 = 1.0 - 1e-9;

/// A point of the grid.
#[derive(Clone, Copy)]
struct GridPoint {
    ratio: f64,
    /// `ln ratio`
    log: f64,
}

/// The grid, worked out once.
static GRID: LazyLock<[GridPoint; POINTS]> = LazyLock::new(|| {
    std::array::from_fn(|place| {
        let log = f64::from(FIRST + place as i32) * LN_2 / f64::from(PER_DOUBLING);
        GridPoint {
            ratio: libm::exp(log),
            log,
        }
    })
});

/// How often something happened in how many requests, or to how many users, on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// How often.
    pub events: u64,
    /// Among how many.
    pub of: u64,
}

impl EventCounts {
    /// How often per request; 0 without any.
    #[must_use]
    pub fn rate(self) -> f64 {
        if self.of == 0 {
            0.0
        } else {
            self.events as f64 / self.of as f64
        }
    }

    fn add(&mut self, more: Self) {
        self.events = self.events.saturating_add(more.events);
        self.of = self.of.saturating_add(more.of);
    }
}

/// Users for whom something happened for the first time since the look before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewlyFailedUsers {
    /// Those of the canary.
    pub canary: u64,
    /// Those of stable.
    pub stable: u64,
    /// The share of all users of both that were given to the canary, by chance alone.
    pub share: f64,
}

/// The ratios of the two tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioTest {
    margin: f64,
    tolerance: f64,
}

/// Ratios that can't be tested.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "a margin of {margin} and a tolerance of {tolerance} can't be distinguished: both must lie between 0.1 and 100, with the tolerance above the margin and above 1"
)]
pub struct InvalidTest {
    margin: f64,
    tolerance: f64,
}

impl RatioTest {
    /// Worse is more than `margin` times as often as on stable; no worse is less than `tolerance` times as often.
    ///
    /// # Errors
    /// When one isn't between 0.1 and 100, or the tolerance isn't above both the margin and 1.
    pub fn new(margin: f64, tolerance: f64) -> Result<Self, InvalidTest> {
        let known = 0.1..=100.0;
        if known.contains(&margin)
            && known.contains(&tolerance)
            && tolerance > margin
            && tolerance > 1.0
        {
            Ok(Self { margin, tolerance })
        } else {
            Err(InvalidTest { margin, tolerance })
        }
    }

    /// More often than this on the canary is worse.
    #[must_use]
    pub const fn margin(&self) -> f64 {
        self.margin
    }

    /// Less often than this on the canary is no worse.
    #[must_use]
    pub const fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// No evidence yet.
    #[must_use]
    pub fn start(&self) -> RatioEvidence {
        RatioEvidence::default()
    }
}

/// The evidence so far; `Default` has seen no events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioEvidence {
    canary: EventCounts,
    stable: EventCounts,
    /// For each point of the grid `ln L(r) − ln L(1)`; empty before the first event.
    likelihood: Vec<f64>,
    /// The same where the test asks.
    at_margin: f64,
    at_tolerance: f64,
    range: ConfidenceInterval,
}

impl Default for RatioEvidence {
    fn default() -> Self {
        Self {
            canary: EventCounts::default(),
            stable: EventCounts::default(),
            likelihood: Vec::new(),
            at_margin: 0.0,
            at_tolerance: 0.0,
            range: ConfidenceInterval {
                low: 0.0,
                high: f64::MAX,
            },
        }
    }
}

impl RatioEvidence {
    /// Records the counts of both sides since the previous observation. If one side has no requests, they are counted but are no
    /// evidence.
    pub fn record(&mut self, test: &RatioTest, canary: EventCounts, stable: EventCounts) {
        self.canary.add(canary);
        self.stable.add(stable);
        self.compare(test, canary, stable);
    }

    /// Takes the same look in on several: what it says is worked out once.
    pub fn record_in_all(
        all: [&mut Self; 2],
        test: &RatioTest,
        canary: EventCounts,
        stable: EventCounts,
    ) {
        let gain = compared(test, canary, stable);
        for evidence in all {
            evidence.canary.add(canary);
            evidence.stable.add(stable);
            if let Some(gain) = &gain {
                evidence.absorb(gain);
            }
        }
    }

    /// The same with users as the unit, each counted once: counts of requests are kept for display and are no evidence.
    pub fn record_users_in_all(
        all: [&mut Self; 2],
        test: &RatioTest,
        canary: EventCounts,
        stable: EventCounts,
        users: NewlyFailedUsers,
    ) {
        let gain = fallen(test, users.canary, users.stable, users.share);
        for evidence in all {
            evidence.canary.add(canary);
            evidence.stable.add(stable);
            if let Some(gain) = &gain {
                evidence.absorb(gain);
            }
        }
    }

    /// The same where happening less often is worse: the ratio is then how much more often it happens on stable.
    pub fn record_swapped(&mut self, test: &RatioTest, canary: EventCounts, stable: EventCounts) {
        self.canary.add(canary);
        self.stable.add(stable);
        self.compare(test, stable, canary);
    }

    /// Takes in where the events of one look fell.
    fn compare(&mut self, test: &RatioTest, canary: EventCounts, stable: EventCounts) {
        if let Some(gain) = compared(test, canary, stable) {
            self.absorb(&gain);
        }
    }

    /// Records counts of the canary against a known rate of stable, as in Wald's sequential test. A rate of
    /// more than all requests is taken to be all of them.
    pub fn record_against_rate(&mut self, test: &RatioTest, canary: EventCounts, stable_rate: f64) {
        self.canary.add(canary);
        if canary.of == 0 || !(stable_rate > 0.0 && stable_rate < 1.0) {
            return;
        }
        let (events, others) = (
            canary.events as f64,
            canary.of.saturating_sub(canary.events) as f64,
        );
        let base = libm::log1p(-stable_rate);
        self.add(test, |_, ratio| {
            let rate = (ratio * stable_rate).min(ALL);
            events * libm::log(rate / stable_rate) + others * (libm::log1p(-rate) - base)
        });
    }

    fn add(&mut self, test: &RatioTest, gain: impl Fn(f64, f64) -> f64) {
        self.absorb(&LikelihoodGain::from_log_gain(test, gain));
    }

    fn absorb(&mut self, gain: &LikelihoodGain) {
        self.likelihood.resize(POINTS, 0.0);
        for (gain, likelihood) in gain.points.iter().zip(&mut self.likelihood) {
            *likelihood += gain;
        }
        self.at_margin += gain.at_margin;
        self.at_tolerance += gain.at_tolerance;
    }

    /// Counts of the canary.
    #[must_use]
    pub const fn canary(&self) -> EventCounts {
        self.canary
    }

    /// Counts of stable.
    #[must_use]
    pub const fn stable(&self) -> EventCounts {
        self.stable
    }

    /// The logarithm of the evidence that the canary's rate is more than `margin` times stable's.
    #[must_use]
    pub fn log_worse(&self, test: &RatioTest) -> f64 {
        let margin = libm::log(test.margin);
        self.mixture(self.at_margin, |log_ratio| log_ratio > margin)
    }

    /// The logarithm of the evidence that the canary's rate is less than `tolerance` times stable's.
    #[must_use]
    pub fn log_no_worse(&self, test: &RatioTest) -> f64 {
        let tolerance = libm::log(test.tolerance);
        // Where most healthy releases are; how much better one is than stable is not asked.
        let least = -2.0 * LN_2;
        self.mixture(self.at_tolerance, |log_ratio| {
            least <= log_ratio && log_ratio < tolerance
        })
    }

    /// The even mixture of the points that `takes`, relative to the likelihood `null`.
    fn mixture(&self, null: f64, takes: impl Fn(f64) -> bool + Copy) -> f64 {
        if self.likelihood.is_empty() {
            return 0.0;
        }
        let taken = GRID
            .iter()
            .zip(&self.likelihood)
            .filter(move |(point, _)| takes(point.log))
            .map(|(_, likelihood)| *likelihood);
        let count = taken.clone().count() as f64;
        log_sum_exp(taken) - libm::log(count) - null
    }

    /// Intersects the confidence sequence of the ratio with the current one. Skipping a call only leaves it wider.
    pub fn narrow(&mut self, alpha: Alpha) {
        if self.likelihood.is_empty() {
            return;
        }
        let rejects_below = self.mixture(0.0, |_| true) - alpha.log_limit();
        let is_held = |point: usize| self.likelihood[point] > rejects_below;
        // The likelihood is unimodal, so the accepted points are contiguous; widen both ends by one grid point.
        let (Some(first), Some(last)) = (
            (0..POINTS).find(|&point| is_held(point)),
            (0..POINTS).rev().find(|&point| is_held(point)),
        ) else {
            return;
        };
        let low = if first == 0 {
            0.0
        } else {
            GRID[first - 1].ratio
        };
        let high = if last + 1 == POINTS {
            f64::MAX
        } else {
            GRID[last + 1].ratio
        };
        self.range = ConfidenceInterval { low, high }.within(self.range);
    }

    /// The confidence sequence of the ratio as of the last [`Self::narrow`].
    #[must_use]
    pub const fn range(&self) -> ConfidenceInterval {
        self.range
    }
}

/// What one look adds to the logarithms of the likelihood.
struct LikelihoodGain {
    points: [f64; POINTS],
    at_margin: f64,
    at_tolerance: f64,
}

impl LikelihoodGain {
    /// `gain` of a ratio's logarithm and the ratio.
    fn from_log_gain(test: &RatioTest, gain: impl Fn(f64, f64) -> f64) -> Self {
        let grid = &*GRID;
        Self {
            points: std::array::from_fn(|place| gain(grid[place].log, grid[place].ratio)),
            at_margin: gain(libm::log(test.margin), test.margin),
            at_tolerance: gain(libm::log(test.tolerance), test.tolerance),
        }
    }
}

/// Where the events of one look fell, by the share of the requests; nothing when there were none, or nothing to compare.
fn compared(test: &RatioTest, canary: EventCounts, stable: EventCounts) -> Option<LikelihoodGain> {
    if canary.of == 0 || stable.of == 0 {
        return None;
    }
    let share = canary.of as f64 / (canary.of as f64 + stable.of as f64);
    fallen(test, canary.events, stable.events, share)
}

/// Where events fell, each of which would have been the canary's with probability `share`.
fn fallen(test: &RatioTest, canary: u64, stable: u64, share: f64) -> Option<LikelihoodGain> {
    let events = canary.saturating_add(stable);
    if events == 0 || share <= 0.0 || share >= 1.0 {
        return None;
    }
    let (of_canary, events) = (canary as f64, events as f64);
    Some(LikelihoodGain::from_log_gain(test, |log_ratio, ratio| {
        of_canary * log_ratio - events * libm::log1p(share * (ratio - 1.0))
    }))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn test() -> RatioTest {
        RatioTest::new(1.0, 2.0).unwrap()
    }

    fn counted(events: u64, of: u64) -> EventCounts {
        EventCounts { events, of }
    }

    /// How many of `of` happen, each with probability `rate`.
    fn drawn(random: &mut Rng, of: u64, rate: f64) -> EventCounts {
        // Sample geometric gaps between events: O(events), not O(requests).
        let (mut events, mut at) = (0, 0.0);
        loop {
            at += 1.0 + (random.f64().ln() / (-rate).ln_1p()).floor();
            if at > of as f64 {
                return counted(events, of);
            }
            events += 1;
        }
    }

    #[test]
    fn the_order_of_looks_does_not_matter_and_neither_does_where_they_are_cut() {
        let mut random = Rng::with_seed(1);
        let mut looks: Vec<(EventCounts, EventCounts)> = (0..200)
            .map(|_| {
                let canary = random.u64(1..200);
                (
                    drawn(&mut random, canary, 0.05),
                    drawn(&mut random, 1000, 0.04),
                )
            })
            .collect();
        let after = |looks: &[(EventCounts, EventCounts)]| {
            let mut evidence = test().start();
            for (canary, stable) in looks {
                evidence.record(&test(), *canary, *stable);
            }
            (evidence.log_worse(&test()), evidence.log_no_worse(&test()))
        };
        let before = after(&looks);
        random.shuffle(&mut looks);
        let shuffled = after(&looks);
        assert!((before.0 - shuffled.0).abs() < 1e-9 && (before.1 - shuffled.1).abs() < 1e-9);
    }

    #[test]
    fn it_comes_back_from_the_log_to_the_last_digit() {
        let mut evidence = test().start();
        let mut random = Rng::with_seed(2);
        for _ in 0..50 {
            evidence = serde_json::from_str(&serde_json::to_string(&evidence).unwrap()).unwrap();
            let mut unbroken = evidence.clone();
            let (canary, stable) = (drawn(&mut random, 100, 0.02), drawn(&mut random, 900, 0.01));
            for it in [&mut evidence, &mut unbroken] {
                it.record(&test(), canary, stable);
                it.narrow(Alpha::new(0.05).unwrap());
            }
            assert_eq!(evidence, unbroken);
        }
    }

    #[test]
    fn without_events_or_without_requests_on_both_sides_nothing_is_known() {
        let mut evidence = test().start();
        for (canary, stable) in [
            (counted(0, 1000), counted(0, 1000)),
            (counted(10, 10), counted(0, 0)),
            (counted(0, 0), counted(10, 1000)),
        ] {
            evidence.record(&test(), canary, stable);
        }
        assert_eq!(
            (evidence.log_worse(&test()), evidence.log_no_worse(&test())),
            (0.0, 0.0)
        );
        assert!(evidence.range().holds(1000.0));
        assert_eq!(evidence.canary(), counted(10, 1010));
    }

    #[test]
    fn a_likelihood_is_what_the_formula_says() {
        let mut evidence = test().start();
        evidence.record(&test(), counted(3, 100), counted(2, 300));
        let theta = |r: f64| 0.25 * r / (0.25 * r + 0.75);
        let expected = 3.0 * (theta(2.0) / 0.25).ln() + 2.0 * ((1.0 - theta(2.0)) / 0.75).ln();
        let two = (PER_DOUBLING - FIRST) as usize;
        assert!((evidence.likelihood[two] - expected).abs() < 1e-12);
        assert!((evidence.at_tolerance - expected).abs() < 1e-12);
        assert_eq!(evidence.likelihood[-FIRST as usize], 0.0);
    }

    /// One rollout of equal sides: the weight rises, the traffic swings by the hour, users are sticky and some are busy.
    /// Whether evidence ever rejects, looked at after every second with traffic.
    fn is_wrongly_rejected(random: &mut Rng, limit: f64) -> bool {
        let mut evidence = test().start();
        let rate = [0.001, 0.01, 0.1][random.usize(0..3)];
        for (step, weight) in [0.01, 0.1, 0.5].into_iter().enumerate() {
            for second in 0..40 {
                let swing = 1.0 + 0.8 * (f64::from(second) / 7.0 + step as f64).sin();
                let requests = 300.0 * swing;
                // A user's requests all fall on the user's side.
                let busy = if random.f64() < weight { 30 } else { 0 };
                let canary = drawn(random, requests as u64, weight).events + busy;
                let stable = (requests as u64).saturating_sub(canary - busy) + (30 - busy);
                let looked = (drawn(random, canary, rate), drawn(random, stable, rate));
                evidence.record(&test(), looked.0, looked.1);
                if evidence.log_worse(&test()) >= limit {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn equal_sides_are_rejected_no_more_often_than_alpha_says() {
        let alpha = Alpha::new(0.05).unwrap();
        let mut random = Rng::with_seed(3);
        let rollouts = 2_000;
        let wrong = (0..rollouts)
            .filter(|_| is_wrongly_rejected(&mut random, alpha.log_limit()))
            .count();
        assert!(
            wrong as f64 <= alpha.get() * f64::from(rollouts),
            "{wrong} of {rollouts}"
        );
    }

    #[test]
    fn a_regression_is_found_and_a_healthy_release_is_cleared() {
        let (mut random, mut seconds, mut cleared) = (Rng::with_seed(4), Vec::new(), 0);
        for _ in 0..40 {
            let (mut bad, mut good) = (test().start(), test().start());
            let mut found = None;
            for second in 1..2000 {
                let stable = drawn(&mut random, 90, 0.001);
                if found.is_none() {
                    bad.record(&test(), drawn(&mut random, 10, 0.02), stable);
                    found = (bad.log_worse(&test()) >= 100_f64.ln()).then_some(second);
                }
                good.record(
                    &test(),
                    drawn(&mut random, 1000, 0.01),
                    drawn(&mut random, 1000, 0.01),
                );
                if good.log_no_worse(&test()) >= 20_f64.ln() {
                    cleared += 1;
                    break;
                }
            }
            seconds.extend(found);
        }
        assert_eq!(cleared, 40);
        assert!(seconds.len() <= 40);
    }
}
