//! `mann-whitney`: windows of both sides, classified and scored as Kayenta's judge does, for teams that move over.
//!
//! Each window gives each metric one value on each side. After each window a metric is `pass`, `high` or `low`
//! ([`classify()`]); a group's score is the share of its metrics that pass, the sum of the groups by weight is the score
//! (0 to 100), and a critical metric that doesn't pass makes it zero. A score below `marginal` fails, from `pass` on it
//! passes, between them it is inconclusive.
//!
//! Source: `NetflixACAJudge`, `MannWhitneyClassifier`, `WeightedSumScorer` and `IQRDetector` of spinnaker/kayenta, with their
//! confidence (98%) and tolerance (a quarter of the estimated shift).
//!
//! Where Shipway differs, and why:
//!
//! - **Missing evidence never fails**: a critical metric without data is inconclusive, not zero.
//! - **[`WINDOWS_MIN`] windows first**: of one window each the classifier calls any difference high.
//! - **No correction for repeated testing.** Each test at 98% may be wrong, and the errors add up. [`sequential`](crate::sequential)
//!   doesn't have that problem; this one is for comparison and for moving over.

mod classify;
mod value_shift;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::classify::{
    DeviationDirection, EffectSize, MetricClass, MetricClassification, MissingValues, classify,
};
use crate::{
    Judge, Judgement, Metric, Observation, Sample, Verdict, counter_window::CounterWindow,
    measurement_policy::is_over, metric::MetricKind, warm_up,
};

/// Windows before the first score.
pub const WINDOWS_MIN: usize = 10;
/// Windows that are looked at, at most: the latest. Two hours at the usual pace, a millisecond's work.
pub const WINDOWS_MAX: usize = 720;

/// Metrics that are judged together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MannWhitney {
    /// The compared metrics; never empty.
    pub compared: Vec<ScoredMetric>,
    /// Weights of groups, in percent; groups without a weight share the rest.
    pub groups: Vec<(String, f64)>,
    /// From this score on it passes.
    pub pass: f64,
    /// Below this score it fails.
    pub marginal: f64,
    /// How long a window is.
    pub window: Duration,
    /// How long after the hold began nothing is counted: a warm-up.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub skip: Duration,
    /// Whether too little traffic keeps a hold from ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

/// One metric of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredMetric {
    /// The measured metric.
    pub metric: Metric,
    /// Which way is worse.
    pub direction: DeviationDirection,
    /// What a window without a value is.
    pub missing: MissingValues,
    /// Whether the score is zero when it doesn't pass.
    pub critical: bool,
    /// How large a difference must be to count.
    pub effect: EffectSize,
    /// Its group; metrics without one are a group of their own.
    pub group: String,
}

impl ScoredMetric {
    /// A metric with Kayenta's defaults.
    #[must_use]
    pub fn new(metric: Metric) -> Self {
        Self {
            metric,
            direction: DeviationDirection::Either,
            missing: MissingValues::Remove,
            critical: false,
            effect: EffectSize::default(),
            group: String::new(),
        }
    }
}

/// Why metrics can't be judged together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidMannWhitney {
    /// No metric.
    #[error("there is no metric to compare")]
    Empty,
    /// Scores in the wrong order or out of their range.
    #[error("scores are from 0 to 100, and `marginal` ({marginal}) is not above `pass` ({pass})")]
    Scores {
        /// From this on it passes.
        pass: f64,
        /// Below this it fails.
        marginal: f64,
    },
    /// Weights that don't add up.
    #[error(
        "the weights of the groups add up to {0}%; they must not exceed 100%, and must reach it if every group has one"
    )]
    Weights(f64),
    /// A group without metrics.
    #[error("the group `{0}` has a weight and no metric")]
    NoSuchGroup(String),
}

impl MannWhitney {
    /// Kayenta's usual score to pass.
    pub const PASS: f64 = 95.0;
    /// Kayenta's usual score below which it fails.
    pub const MARGINAL: f64 = 75.0;
    /// A window holds some requests, and a hold some windows.
    pub const WINDOW: Duration = Duration::from_secs(10);

    /// A comparison with the usual scores.
    ///
    /// # Errors
    /// When there is nothing to compare, or the weights don't add up.
    pub fn new(
        compared: Vec<ScoredMetric>,
        groups: Vec<(String, f64)>,
        pass: f64,
        marginal: f64,
    ) -> Result<Self, InvalidMannWhitney> {
        if compared.is_empty() {
            return Err(InvalidMannWhitney::Empty);
        }
        if !(0.0 <= marginal && marginal <= pass && pass <= 100.0) {
            return Err(InvalidMannWhitney::Scores { pass, marginal });
        }
        let sum: f64 = groups.iter().map(|(_, weight)| weight).sum();
        let has_rest = compared
            .iter()
            .any(|it| groups.iter().all(|(name, _)| *name != it.group));
        let reaches = (sum - 100.0).abs() < 1e-9;
        let is_negative = groups.iter().any(|(_, weight)| *weight < 0.0);
        if sum.is_nan()
            || is_negative
            || (!groups.is_empty() && !has_rest && !reaches)
            || sum > 100.0 + 1e-9
        {
            return Err(InvalidMannWhitney::Weights(sum));
        }
        let unknown = groups
            .iter()
            .find(|(name, _)| compared.iter().all(|it| it.group != *name));
        if let Some((name, _)) = unknown {
            return Err(InvalidMannWhitney::NoSuchGroup(name.clone()));
        }
        Ok(Self {
            compared,
            groups,
            pass,
            marginal,
            window: Self::WINDOW,
            skip: Duration::ZERO,
            required: false,
        })
    }

    /// The score of classified metrics, in the order of [`Self::compared`]; `None` when none has data.
    #[must_use]
    pub fn score(&self, classes: &[MetricClass]) -> Option<f64> {
        let all = || self.compared.iter().zip(classes);
        if all()
            .any(|(it, class)| it.critical && matches!(class, MetricClass::High | MetricClass::Low))
        {
            return Some(0.0);
        }
        let mut names: Vec<&str> = self.compared.iter().map(|it| it.group.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let weight_of = |name: &str| self.groups.iter().find(|(it, _)| it == name).map(|it| it.1);
        let given: f64 = self.groups.iter().map(|(_, weight)| weight).sum();
        let without = names
            .iter()
            .filter(|name| weight_of(name).is_none())
            .count();
        let rest = (100.0 - given) / without.max(1) as f64;
        let mut score = None;
        for name in names {
            let of_group = || {
                all()
                    .filter(|(it, _)| it.group == name)
                    .map(|(_, class)| *class)
            };
            let with_data = of_group()
                .filter(|class| *class != MetricClass::NoData)
                .count();
            if with_data > 0 {
                let passed = of_group()
                    .filter(|class| *class == MetricClass::Pass)
                    .count();
                let share = passed as f64 / with_data as f64;
                *score.get_or_insert(0.0) += share * weight_of(name).unwrap_or(rest);
            }
        }
        score
    }
}

/// State of one hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MannWhitneyState {
    rows: Vec<MetricWindows>,
    /// When the last window ended.
    at: Option<Timestamp>,
    began: Option<Timestamp>,
    judged: Option<Judgement>,
}

/// The windows of one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct MetricWindows {
    canary: WindowValues,
    stable: WindowValues,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct WindowValues {
    track: CounterWindow,
    values: Vec<Option<f64>>,
}

impl WindowValues {
    fn close(&mut self, metric: Metric, sample: &Sample, at: Timestamp) {
        self.values.push(
            self.value(metric, sample, at)
                .filter(|value| value.is_finite()),
        );
        let too_many = self.values.len().saturating_sub(WINDOWS_MAX);
        self.values.drain(..too_many);
        self.start(metric, sample, at);
    }

    fn start(&mut self, metric: Metric, sample: &Sample, at: Timestamp) {
        if let Some(counts) = sample.counts(metric) {
            self.track.skip_to(counts, at);
        }
    }

    fn value(&self, metric: Metric, sample: &Sample, at: Timestamp) -> Option<f64> {
        let window = self.track.window(sample.counts(metric)?);
        match (metric, metric.kind()) {
            (Metric::Event(_), _) => Some(window.rate()),
            (_, MetricKind::Events) => Some(window.share()),
            (Metric::LatencyP50, _) => sample.latency?.p50_ms,
            (Metric::LatencyP90, _) => sample.latency?.p90_ms,
            (Metric::LatencyP99, _) => sample.latency?.p99_ms,
            (Metric::Requests, _) => Some(window.requests as f64 / self.track.seconds_since(at)),
            (Metric::Restarts, _) => Some(window.restarts as f64),
            (Metric::Availability, _) => Some(1.0 - window.share()),
            (metric, MetricKind::Value | MetricKind::Quantile(_) | MetricKind::Total) => {
                sample.value(metric).ok()
            }
        }
    }
}

impl Judge for MannWhitney {
    type State = MannWhitneyState;

    fn metrics(&self) -> Vec<Metric> {
        self.compared.iter().map(|it| it.metric).collect()
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.window)
    }

    fn is_required(&self) -> bool {
        self.required
    }

    fn start_hold(state: &mut MannWhitneyState) {
        *state = MannWhitneyState::default();
    }

    fn observe(&self, state: &mut MannWhitneyState, seen: &Observation) -> Judgement {
        let unknown = |why: String| Judgement::new_open(Verdict::Inconclusive { why });
        if let Some(judged) = state.judged.clone().filter(Judgement::is_final) {
            return judged;
        }
        let Some(stable) = &seen.stable else {
            return unknown("there is no stable release to compare with".to_owned());
        };
        let (Some(of_canary), Some(of_stable)) = (&seen.canary.sample, &stable.sample) else {
            return unknown(format!(
                "{} can't be judged: the source could not be read",
                seen.canary.release
            ));
        };
        state
            .rows
            .resize(self.compared.len(), MetricWindows::default());
        let left = warm_up::remaining(self.skip, &mut state.began, seen.at);
        if left.is_some() || state.at.is_none() {
            for (it, row) in self.compared.iter().zip(&mut state.rows) {
                row.canary.start(it.metric, of_canary, seen.at);
                row.stable.start(it.metric, of_stable, seen.at);
            }
            state.at = Some(seen.at);
            if let (Some(left), Some(first)) = (left, self.compared.first()) {
                return Judgement::new_open(warm_up::verdict(first.metric, seen, left));
            }
        }
        if state.at.is_some_and(|at| is_over(self.window, at, seen.at)) {
            for (it, row) in self.compared.iter().zip(&mut state.rows) {
                row.canary.close(it.metric, of_canary, seen.at);
                row.stable.close(it.metric, of_stable, seen.at);
            }
            state.at = Some(seen.at);
            state.judged = self.judge(state, seen, &stable.release);
        }
        let windows = state.rows.first().map_or(0, |row| row.canary.values.len());
        state.judged.clone().unwrap_or_else(|| {
            unknown(format!(
                "{} is not judged yet: {windows} of the {WINDOWS_MIN} windows needed",
                seen.canary.release
            ))
        })
    }
}

impl MannWhitney {
    pub(crate) fn metrics_mut(&mut self) -> Vec<&mut Metric> {
        self.compared.iter_mut().map(|it| &mut it.metric).collect()
    }

    /// The verdict of the windows so far; `None` while there are too few.
    fn judge(
        &self,
        state: &MannWhitneyState,
        seen: &Observation,
        stable: &str,
    ) -> Option<Judgement> {
        let windows = state.rows.first().map_or(0, |row| row.canary.values.len());
        if windows < WINDOWS_MIN {
            return None;
        }
        let classified: Vec<MetricClassification> = self
            .compared
            .iter()
            .zip(&state.rows)
            .map(|(it, row)| {
                classify(
                    &row.canary.values,
                    &row.stable.values,
                    it.direction,
                    it.missing,
                    it.effect,
                )
            })
            .collect();
        let classes: Vec<MetricClass> = classified.iter().map(|it| it.class).collect();
        let of = &seen.canary.release;
        let mut without = self.compared.iter().zip(&classes);
        if let Some((it, _)) =
            without.find(|(it, class)| it.critical && **class == MetricClass::NoData)
        {
            let title = it.metric.title();
            let why =
                format!("the critical metric {title} of {of} has no data in {windows} windows");
            let verdict = without_data(std::iter::once(&it.metric), why);
            return Some(Judgement::new_open(verdict));
        }
        let Some(score) = self.score(&classes) else {
            let why = format!("no metric of {of} has data in {windows} windows");
            let verdict = without_data(self.compared.iter().map(|it| &it.metric), why);
            return Some(Judgement::new_open(verdict));
        };
        let result =
            format!("score of {of} vs {stable} is {score:.0} of 100 after {windows} windows");
        Some(self.judge_score(score, &result, &self.explain(&classified)))
    }

    fn judge_score(&self, score: f64, result: &str, details: &str) -> Judgement {
        if score < self.marginal {
            let why = format!("{result}, fails below {}{details}", self.marginal);
            Judgement::new_final(Verdict::Fail { why })
        } else if score < self.pass {
            let why = format!("{result}, passes from {}{details}", self.pass);
            Judgement::new_open(Verdict::Inconclusive { why })
        } else {
            let why = format!("{result}{details}");
            Judgement::new_open(Verdict::Pass { why })
        }
    }

    /// `: CPU use high (1.80 times, critical), error rate without data`; empty when all metrics pass.
    fn explain(&self, classified: &[MetricClassification]) -> String {
        let explained: Vec<String> = self
            .compared
            .iter()
            .zip(classified)
            .filter_map(|(it, found)| {
                let title = it.metric.title();
                let level = match found.class {
                    MetricClass::High => "high",
                    MetricClass::Low => "low",
                    MetricClass::NoData => return Some(format!("{title} without data")),
                    MetricClass::Pass => return None,
                };
                let critical = if it.critical { ", critical" } else { "" };
                Some(format!(
                    "{title} {level} ({:.2} times{critical})",
                    found.ratio
                ))
            })
            .collect();
        if explained.is_empty() {
            String::new()
        } else {
            format!(": {}", explained.join(", "))
        }
    }
}

/// The verdict on windows without a value: without traffic there is no data, otherwise the source failed.
fn without_data<'m>(mut metrics: impl Iterator<Item = &'m Metric>, why: String) -> Verdict {
    if metrics.all(|metric| metric.is_traffic_metric()) {
        Verdict::NoData {
            why,
            seen: 0,
            needed: WINDOWS_MIN as u64,
            required: false,
        }
    } else {
        Verdict::Inconclusive { why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metric: Metric, group: &str) -> ScoredMetric {
        ScoredMetric {
            group: group.to_owned(),
            ..ScoredMetric::new(metric)
        }
    }

    fn judge(groups: &[(&str, f64)]) -> MannWhitney {
        let compared = vec![
            of(Metric::ErrorRate, "errors"),
            of(Metric::LatencyP50, "latency"),
            of(Metric::LatencyP99, "latency"),
            of(Metric::Cpu, "system"),
        ];
        let groups = groups
            .iter()
            .map(|(name, weight)| ((*name).to_owned(), *weight))
            .collect();
        MannWhitney::new(compared, groups, 95.0, 75.0).unwrap()
    }

    #[test]
    fn scores_are_weighted_as_kayentas_are() {
        use MetricClass::{High, Low, NoData, Pass};
        let weighted = judge(&[("errors", 50.0), ("latency", 30.0), ("system", 20.0)]);
        assert_eq!(weighted.score(&[Pass; 4]), Some(100.0));
        assert_eq!(weighted.score(&[Pass, High, Pass, Pass]), Some(85.0));
        assert_eq!(weighted.score(&[High, Pass, Pass, Low]), Some(30.0));
        assert_eq!(weighted.score(&[Pass, NoData, High, Pass]), Some(70.0));
        // As Kayenta: a group without data adds nothing.
        assert_eq!(weighted.score(&[Pass, Pass, Pass, NoData]), Some(80.0));
        assert_eq!(weighted.score(&[NoData; 4]), None);
        let partly = judge(&[("errors", 50.0)]);
        assert_eq!(partly.score(&[Pass, Pass, High, Pass]), Some(87.5));
        let mut critical = judge(&[]);
        critical.compared[3].critical = true;
        assert_eq!(critical.score(&[Pass, Pass, Pass, High]), Some(0.0));
    }

    #[test]
    fn what_can_not_be_scored_is_refused() {
        let one = || vec![of(Metric::Cpu, "a")];
        let group = |name: &str, weight| vec![(name.to_owned(), weight)];
        let new = MannWhitney::new;
        assert_eq!(
            new(vec![], vec![], 95.0, 75.0),
            Err(InvalidMannWhitney::Empty)
        );
        assert!(new(one(), vec![], 75.0, 95.0).is_err());
        assert!(new(one(), vec![], 101.0, 95.0).is_err());
        assert_eq!(
            new(one(), group("a", 60.0), 95.0, 75.0),
            Err(InvalidMannWhitney::Weights(60.0))
        );
        assert!(new(one(), group("a", 160.0), 95.0, 75.0).is_err());
        assert_eq!(
            new(one(), group("b", 50.0), 95.0, 75.0),
            Err(InvalidMannWhitney::NoSuchGroup("b".into()))
        );
    }
}
