//! `sequential`: the canary against stable, looked at all the time, as early as the evidence allows and never earlier.
//!
//! It **fails** when the evidence that the canary is worse is beyond what chance gives once in `1/alpha` rollouts: a release
//! that is no worse is ever failed with probability `alpha` at most, however long and however often one looks.
//!
//! It **passes for good** when the evidence of this hold shows that the canary is no worse than `tolerance` times stable:
//! then the hold may end early. Each hold shows it anew: a release that does well at 1% may not at 50%.
//!
//! In between it passes as things stand once there was enough to look at, and has *no data* before. Odds of more than
//! [`ODDS_INCONCLUSIVE`] to 1 against the release are no pass, however few requests they are from: then it is inconclusive.
//!
//! Where nothing can be compared (a side can't be read, a provider has no answer), it is inconclusive. Without stable, or with one
//! that had no requests, errors and slow answers are held against `max_without_stable`, where that is given.
//!
//! # Method
//!
//! - [`counted`]: something that happens (errors, slow answers, orders), by the rate ratio. Its evidence is collected over
//!   the whole rollout. Of errors and slow answers users are counted, each once, where they are known again ([`users`]).
//! - [`quantile`]: latency, by bounds on both distributions. What it needs is much more: a limit on latency
//!   ([`Metric::SlowRate`]) is decided by a thousandth of the requests.
//! - [`value`]: CPU, memory, what a provider says, by the mean of the differences between values of the same instants.
//!
//! The last two begin anew with each hold: a service is faster at night, and the canary had no part of the night before it
//! had traffic. So the `n`-th hold has `alpha / n(n + 1)` of what may be wrong, which adds up to `alpha`.

mod counted;
mod quantile;
mod users;
mod value;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Judge, Judgement, Metric, Observation, Sample, Verdict,
    counter_window::CounterWindow,
    evidence::{
        Alpha, ConfidenceInterval, EstimatorVersion,
        ratio::{EventCounts, InvalidTest, RatioEvidence, RatioTest},
    },
    metric::{MetricKind, grouped},
    verdict::{self, RequestSource},
    warm_up,
};

/// Odds against the release from which on it doesn't pass, though they are not enough for a fail.
pub const ODDS_INCONCLUSIVE: f64 = 10.0;

/// Which way is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorseDirection {
    /// More is worse: errors.
    #[default]
    Increase,
    /// Less is worse: orders.
    Decrease,
}

impl WorseDirection {
    const fn is_increase(&self) -> bool {
        matches!(self, Self::Increase)
    }

    /// The two values in the order (must not be larger, reference).
    fn order<T>(self, canary: T, stable: T) -> (T, T) {
        match self {
            Self::Increase => (canary, stable),
            Self::Decrease => (stable, canary),
        }
    }
}

/// The unit of errors and slow answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountingUnit {
    /// Users who met one, each once, where users are known again; otherwise requests.
    #[default]
    Users,
    /// Requests, regardless of the user.
    Requests,
}

impl CountingUnit {
    const fn is_users(&self) -> bool {
        matches!(self, Self::Users)
    }
}

/// A comparison with stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequentialComparison {
    /// The compared metric.
    pub metric: Metric,
    /// How probable it may be that a release that is no worse is failed; the metric's share of the rollout's.
    pub alpha: Alpha,
    /// How probable it may be that a hold ends early with a release that is worse than the tolerance.
    pub beta: Alpha,
    /// The tested ratios.
    pub test: RatioTest,
    /// Requests of the canary before "nothing against it" counts for something.
    pub min_requests: u64,
    /// Which way is worse.
    #[serde(default, skip_serializing_if = "WorseDirection::is_increase")]
    pub direction: WorseDirection,
    /// The unit of errors and slow answers; other metrics ignore it.
    #[serde(default, skip_serializing_if = "CountingUnit::is_users")]
    pub unit: CountingUnit,
    /// How long after a hold began nothing is counted: a warm-up.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub skip: Duration,
    /// Sampling interval of CPU, memory, saturation and provider values; other metrics ignore it.
    #[serde(default = "interval", skip_serializing_if = "is_interval")]
    pub interval: Duration,
    /// Version of the estimators.
    pub estimator: EstimatorVersion,
    /// The limit where there is no stable release, or it had no requests: of errors and slow answers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_without_stable: Option<f64>,
    /// Whether too little traffic keeps a hold from ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

const fn interval() -> Duration {
    SequentialComparison::INTERVAL
}

fn is_interval(interval: &Duration) -> bool {
    *interval == SequentialComparison::INTERVAL
}

/// Why a comparison can't be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSequential {
    /// A count alone.
    #[error(
        "{0} can't be compared with stable, which has a different share of the traffic; set `max` or `min`"
    )]
    Metric(Metric),
    /// Not ratios.
    #[error(transparent)]
    RatioTest(#[from] InvalidTest),
}

impl SequentialComparison {
    /// A wrongly failed release in a hundred rollouts, all metrics together.
    pub const ALPHA: f64 = 0.01;
    /// A hold ended early in twenty with a release that is just as bad as is tolerated.
    pub const BETA: f64 = 0.05;
    /// Twice stable's rate: what a hold that ends early has excluded.
    pub const TOLERANCE: f64 = 2.0;
    /// As the threshold judge's.
    pub const MIN_REQUESTS: u64 = 100;
    /// Seldom enough for a value to be another than the one before.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    /// A comparison with the defaults. `alpha` is this metric's share.
    ///
    /// # Errors
    /// When the metric can't be compared, or the ratios can't be tested.
    pub fn new(
        metric: Metric,
        alpha: Alpha,
        beta: Alpha,
        margin: f64,
        tolerance: f64,
    ) -> Result<Self, InvalidSequential> {
        if metric.kind() == MetricKind::Total {
            return Err(InvalidSequential::Metric(metric));
        }
        Ok(Self {
            metric,
            alpha,
            beta,
            test: RatioTest::new(margin, tolerance)?,
            min_requests: Self::MIN_REQUESTS,
            direction: WorseDirection::Increase,
            unit: CountingUnit::Users,
            skip: Duration::ZERO,
            interval: Self::INTERVAL,
            estimator: EstimatorVersion::LATEST,
            max_without_stable: None,
            required: false,
        })
    }

    /// Whether users are counted where they are known again.
    pub(crate) const fn is_by_user(&self) -> bool {
        self.unit.is_users()
            && self.direction.is_increase()
            && matches!(self.metric, Metric::ErrorRate | Metric::SlowRate { .. })
    }

    /// The default margin: more than this many times stable's value is worse. 1 for counted events; 1.1 for CPU and memory, which
    /// differ slightly between any two processes.
    #[must_use]
    pub const fn default_margin(metric: Metric) -> f64 {
        match metric {
            Metric::Cpu | Metric::Memory | Metric::Saturation => 1.1,
            _ => 1.0,
        }
    }

    /// The default tolerance: a hold ends early when a ratio this large is excluded. Twice as many errors are still few; users notice
    /// latency that is 1.5 times as high.
    #[must_use]
    pub fn default_tolerance(metric: Metric) -> f64 {
        match metric.kind() {
            MetricKind::Events | MetricKind::Total => Self::TOLERANCE,
            MetricKind::Quantile(_) | MetricKind::Value => 1.5,
        }
    }

    /// The share of `alpha` that this hold has, where each begins anew.
    fn hold_alpha(&self, holds: u32) -> Alpha {
        let holds = holds as usize + 1;
        self.alpha.split(holds * (holds + 1))
    }
}

/// State of one comparison; `Default` is the state when a rollout begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SequentialState {
    canary: CounterWindow,
    stable: CounterWindow,
    /// Of the whole rollout.
    rollout: RatioEvidence,
    /// Of this hold.
    hold: RatioEvidence,
    failed: Option<Judgement>,
    /// Number of finished holds.
    holds: u32,
    /// When this hold was first looked at, where its beginning is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "users::FailedUserState::is_new")]
    users: users::FailedUserState,
    #[serde(default, skip_serializing_if = "quantile::QuantileState::is_new")]
    quantile: quantile::QuantileState,
    #[serde(default, skip_serializing_if = "value::ValueState::is_new")]
    value: value::ValueState,
}

impl SequentialState {
    /// The confidence sequence of the rate ratio; unbounded before the first event and for values and quantiles.
    #[must_use]
    pub const fn ratio(&self) -> ConfidenceInterval {
        self.rollout.range()
    }

    /// Counts of the canary and of stable over the whole rollout; zero for values and quantiles.
    #[must_use]
    pub const fn counted(&self) -> (EventCounts, EventCounts) {
        (self.rollout.canary(), self.rollout.stable())
    }
}

/// The odds against a release in a comparison, as natural logarithms: it fails once they reach the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonOdds {
    /// Of the evidence of the whole rollout.
    pub log_odds: f64,
    /// `1/alpha`.
    pub log_threshold: f64,
}

impl SequentialComparison {
    /// The odds that the verdict of a counted metric rests on; `None` for values and quantiles, which have bounds instead, and
    /// without a request of both sides.
    #[must_use]
    pub fn odds(&self, state: &SequentialState) -> Option<ComparisonOdds> {
        let (canary, stable) = state.counted();
        let is_counted = matches!(self.metric.kind(), MetricKind::Events | MetricKind::Total);
        (is_counted && canary.of > 0 && stable.of > 0).then(|| ComparisonOdds {
            log_odds: state.rollout.log_worse(&self.test),
            log_threshold: self.alpha.log_limit(),
        })
    }
}

/// Result of one comparison, before it becomes a verdict.
enum ComparisonResult {
    /// The comparison is impossible; the reason.
    Unknown(String),
    /// Too little traffic: the requests seen, the requests needed, and of which releases.
    NoData(u64, u64, RequestSource),
    /// Evidence against the release that isn't enough for a fail.
    Against(String),
    /// Worse with the required certainty.
    Worse(String),
    /// Not worse than tolerated with the required certainty.
    NoWorse(String),
    /// Neither.
    Open(String),
}

impl Judge for SequentialComparison {
    type State = SequentialState;

    fn metrics(&self) -> Vec<Metric> {
        vec![self.metric]
    }

    /// Only values have an interval; counts are judged at every observation.
    fn interval(&self) -> Option<Duration> {
        (self.metric.kind() == MetricKind::Value).then_some(self.interval)
    }

    fn compares(&self) -> bool {
        true
    }

    fn is_required(&self) -> bool {
        self.required
    }

    fn start_hold(state: &mut SequentialState) {
        state.hold = RatioEvidence::default();
        state.holds = state.holds.saturating_add(1);
        state.began = None;
        state.users.start_hold();
        state.quantile = quantile::QuantileState::default();
        state.value = value::ValueState::default();
    }

    fn observe(&self, state: &mut SequentialState, seen: &Observation) -> Judgement {
        if let Some(failed) = &state.failed {
            return failed.clone();
        }
        let unknown = |why: &str| {
            let why = verdict::not_judged(self.metric, &seen.canary.release, why);
            Judgement::new_open(Verdict::Inconclusive { why })
        };
        let Some(stable) = &seen.stable else {
            return match (&seen.canary.sample, self.max_without_stable) {
                (None, _) => unknown("the source could not be read"),
                (Some(_), None) => unknown("there is no stable release to compare with"),
                (Some(sample), Some(limit)) => self.judge_alone(state, seen, sample, limit),
            };
        };
        let (Some(of_canary), Some(of_stable)) = (&seen.canary.sample, &stable.sample) else {
            return unknown("the source could not be read");
        };
        let looked = ObservedPair {
            at: seen.at,
            canary: of_canary,
            stable: of_stable,
            names: (&seen.canary.release, &stable.release),
        };
        if let Some(left) = warm_up::remaining(self.skip, &mut state.began, seen.at) {
            self.skip_to(state, &looked);
            return Judgement::new_open(warm_up::verdict(self.metric, seen, left));
        }
        let standing = match self.metric.kind() {
            MetricKind::Quantile(quantile) => quantile::judge(self, state, &looked, quantile),
            MetricKind::Value => value::judge(self, state, &looked),
            MetricKind::Events | MetricKind::Total => counted::judge(self, state, &looked),
        };
        self.judgement(state, seen, standing)
    }
}

impl SequentialComparison {
    /// Judges a release that has no stable release to compare with.
    fn judge_alone(
        &self,
        state: &mut SequentialState,
        seen: &Observation,
        sample: &Sample,
        limit: f64,
    ) -> Judgement {
        if let Some(left) = warm_up::remaining(self.skip, &mut state.began, seen.at) {
            if let Some(counts) = sample.counts(self.metric) {
                state.canary.skip_to(counts, seen.at);
            }
            return Judgement::new_open(warm_up::verdict(self.metric, seen, left));
        }
        let standing = counted::judge_alone(self, state, seen, sample, limit);
        self.judgement(state, seen, standing)
    }

    fn judgement(
        &self,
        state: &mut SequentialState,
        seen: &Observation,
        standing: ComparisonResult,
    ) -> Judgement {
        let of = &seen.canary.release;
        match standing {
            ComparisonResult::Unknown(why) => {
                let why = verdict::not_judged(self.metric, of, &why);
                Judgement::new_open(Verdict::Inconclusive { why })
            }
            ComparisonResult::NoData(seen, needed, source) => {
                Judgement::new_open(Verdict::NoData {
                    why: verdict::too_little_traffic(self.metric, of, seen, needed, source),
                    seen,
                    needed,
                    required: false,
                })
            }
            ComparisonResult::Against(why) => Judgement::new_open(Verdict::Inconclusive { why }),
            ComparisonResult::Worse(why) => {
                let failed = Judgement::new_final(Verdict::Fail { why });
                state.failed = Some(failed.clone());
                failed
            }
            ComparisonResult::NoWorse(why) => Judgement::new_final(Verdict::Pass { why }),
            ComparisonResult::Open(why) => Judgement::new_open(Verdict::Pass { why }),
        }
    }

    /// Moves all windows to this observation without counting it.
    fn skip_to(&self, state: &mut SequentialState, seen: &ObservedPair<'_>) {
        match self.metric.kind() {
            MetricKind::Quantile(_) => state.quantile.skip_to(seen),
            MetricKind::Value => state.value.skip_to(self, seen),
            MetricKind::Events | MetricKind::Total => counted::skip_to(self, state, seen),
        }
    }
}

/// Both sides of an observation that has both.
struct ObservedPair<'a> {
    at: Timestamp,
    canary: &'a Sample,
    stable: &'a Sample,
    /// How people call the canary and stable.
    names: (&'a str, &'a str),
}

/// How sure odds of [`ODDS_INCONCLUSIVE`] are.
fn doubt() -> Alpha {
    Alpha::new(1.0 / ODDS_INCONCLUSIVE).expect("odds above 1 are a probability")
}

/// The sentence of a comparison: metric, relation, the values of both sides, and the number of observations.
fn describe_comparison(
    judge: &SequentialComparison,
    seen: &ObservedPair<'_>,
    relation: &str,
    (canary, stable): &(String, String),
    observed: &str,
) -> String {
    let (candidate, other) = (seen.names.0, seen.names.1);
    let metric = judge.metric.title();
    format!("{metric} of {candidate} {relation} {other}: {canary} vs {stable} ({observed})")
}

/// `60 of the 100 values needed`
fn values_needed(count: u64, needed: u64) -> String {
    let (count, needed) = (grouped(&count.to_string()), grouped(&needed.to_string()));
    format!("{count} of the {needed} values needed")
}

/// `99%`, `99.75%`: how sure one is that is wrong with this probability.
fn confidence(alpha: Alpha) -> String {
    let percent = format!("{:.4}", 100.0 * (1.0 - alpha.get()));
    format!("{}%", percent.trim_end_matches('0').trim_end_matches('.'))
}
#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{ReleaseSample, Sample};

    fn judge() -> SequentialComparison {
        let (alpha, beta) = (Alpha::new(0.01).unwrap(), Alpha::new(0.05).unwrap());
        SequentialComparison::new(Metric::ErrorRate, alpha, beta, 1.0, 2.0).unwrap()
    }

    fn seen(second: i64, canary: (u64, u64), stable: (u64, u64)) -> Observation {
        let side = |release: &str, (requests, errors)| ReleaseSample {
            release: release.to_owned(),
            sample: Some(Sample {
                requests,
                errors,
                ..Sample::default()
            }),
        };
        Observation {
            at: Timestamp::from_second(second).unwrap(),
            canary: side("#3", canary),
            stable: Some(side("#2", stable)),
        }
    }

    #[test]
    fn a_regression_fails_with_a_sentence_and_for_good() {
        let mut state = SequentialState::default();
        judge().observe(&mut state, &seen(0, (50, 50), (9_000, 900)));
        let judged = judge().observe(&mut state, &seen(10, (350, 65), (11_700, 903)));
        assert_eq!(
            judged.verdict.why(),
            "error rate of #3 is worse than #2: 5% vs 0.11% (15 of 300 requests); odds over 1,000,000:1, threshold 100:1"
        );
        assert!(judged.verdict.is_fail() && judged.is_final());
        let later = judge().observe(&mut state, &seen(20, (99_350, 65), (11_700, 903)));
        assert_eq!(later, judged, "what has failed stays so");
    }

    #[test]
    fn a_good_release_passes_as_it_stands_and_ends_the_hold_once_it_is_shown_to_be_no_worse() {
        let mut state = SequentialState::default();
        judge().observe(&mut state, &seen(0, (0, 0), (0, 0)));
        let few = judge().observe(&mut state, &seen(1, (60, 0), (540, 1)));
        assert_eq!(
            few.verdict,
            Verdict::NoData {
                why: "too little traffic to judge the error rate of #3: 60 of the 100 requests needed".to_owned(),
                seen: 60,
                needed: 100,
                required: false,
            }
        );
        let open = judge().observe(&mut state, &seen(2, (200, 2), (1_800, 18)));
        assert!(open.verdict.is_pass() && !open.is_final(), "{open:?}");
        let clear = judge().observe(&mut state, &seen(60, (10_000, 95), (90_000, 900)));
        assert!(clear.verdict.is_pass() && clear.is_final(), "{clear:?}");
        assert_eq!(
            clear.verdict.why(),
            "error rate of #3 is no worse than #2: 0.95% vs 1% (95 of 10,000 requests), within 2 times #2"
        );
        assert!(state.ratio().holds(1.0) && state.ratio().high < 3.0);
        SequentialComparison::start_hold(&mut state);
        let next = judge().observe(&mut state, &seen(61, (10_100, 96), (90_900, 909)));
        assert!(!next.is_final(), "each hold shows it anew");
    }

    #[test]
    fn without_traffic_without_stable_or_without_a_source_nothing_passes() {
        let mut state = SequentialState::default();
        for second in 0..100 {
            let judged = judge().observe(&mut state, &seen(second, (7, 7), (7, 0)));
            assert!(matches!(judged.verdict, Verdict::NoData { seen: 0, .. }));
        }
        let mut alone = seen(200, (500, 0), (500, 0));
        alone.stable = None;
        let mut dark = seen(200, (500, 0), (500, 0));
        dark.canary.sample = None;
        for observation in [alone, dark] {
            let judged = judge().observe(&mut SequentialState::default(), &observation);
            assert!(
                matches!(judged.verdict, Verdict::Inconclusive { .. }),
                "{judged:?}"
            );
        }
    }

    #[test]
    fn a_restarted_counter_and_a_late_look_count_once() {
        let mut state = SequentialState::default();
        judge().observe(&mut state, &seen(0, (1_000, 10), (1_000, 10)));
        judge().observe(&mut state, &seen(2, (1_100, 11), (1_100, 11)));
        judge().observe(&mut state, &seen(1, (1_050, 10), (1_050, 10)));
        judge().observe(&mut state, &seen(3, (40, 1), (1_200, 12)));
        assert_eq!(state.rollout.canary(), EventCounts { events: 2, of: 140 });
        assert_eq!(state.rollout.stable(), EventCounts { events: 2, of: 200 });
    }

    #[test]
    fn what_is_only_a_count_has_nothing_to_be_compared_by() {
        let alpha = Alpha::new(0.01).unwrap();
        let refused =
            SequentialComparison::new(Metric::Restarts, alpha, alpha, 1.0, 2.0).unwrap_err();
        assert!(refused.to_string().contains("`max` or `min`"), "{refused}");
        assert!(SequentialComparison::new(Metric::ErrorRate, alpha, alpha, 2.0, 1.5).is_err());
    }
}
