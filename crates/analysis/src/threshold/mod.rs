//! `threshold`: absolute limits, in the words of Argo Rollouts' analysis, counted as Argo Rollouts counts.
//!
//! A *measurement* is taken every `interval`, the first one as soon as it can be, and ends in one of four ways:
//!
//! | outcome | when | counts towards |
//! |---|---|---|
//! | successful | the value is within the bound; a value on the bound is within | `count` |
//! | failed | the value is beyond the bound | `count`, `failure_limit` |
//! | inconclusive | the value is NaN or infinite; without `min_requests` also when there were no requests (0/0) | `count`, `inconclusive_limit` |
//! | error | there is no value: the source could not be read, or has no data | `consecutive_error_limit` |
//!
//! `failed > failure_limit` fails, `inconclusive > inconclusive_limit` and `consecutive errors >
//! consecutive_error_limit` are inconclusive, each at once and for good; any other outcome ends a row of errors. When
//! `count` measurements (errors not among them) were taken it ends; without `count` it continues until the hold
//! ends. Source: Argo Rollouts, "Analysis & Progressive Delivery" (`docs/features/analysis.md`), and the counting of
//! `assessMetricFailureInconclusiveOrError` in its `analysis/analysis.go`.
//!
//! Where Shipway differs, and why:
//!
//! - **Missing evidence never fails and never passes.** Argo's phase `Error` aborts a rollout; here it is inconclusive.
//!   A pass needs a successful measurement, even where all the others were within the limits.
//! - **`inconclusive_limit` is unlimited unless set** (Argo: 0). Argo's analysis has no end of its own to wait for; a hold
//!   has a deadline, so a quiet minute at night need not stop a rollout.
//! - **`min_requests`**: a rate or quantile of a handful of requests is noise. A measurement of traffic is taken once that
//!   many requests came since the one before, so every request is counted in exactly one. Until then the last outcome
//!   stands, and before the first measurement the verdict is inconclusive.
//! - **As early as the rule allows**: when the errors are so many already that `min_requests` could not be reached without
//!   exceeding `max` (even if all further requests were good), the measurement has failed now.
//! - **`restarts` and `availability` are of instances, not of requests.** Restarts are counted over the whole rollout. Availability is
//!   looked at each time within windows of a minute: it fails as soon as the instances were down for longer than the
//!   bound allows in a whole window, and an outage in a window that has just begun is held against a whole one.
//! - **Unanswered requests count**: a request that is open for longer than the limit of a quantile takes longer than it, and is
//!   counted then; `min_requests` are not waited for when those make it certain that the quantile is beyond the limit.
//! - **Failing is decided per interval, passing over the whole hold too.** Per interval, because a regression that starts
//!   late would drown in the good minutes before it. Over the whole hold, because `failure_limit` forgives intervals, and
//!   what they forgave may together still be over the limit: then it isn't a pass but inconclusive. Both follow from
//!   counts; quantiles can't be added up, so `latency-*` is judged per interval alone.

pub(crate) mod explanation;
pub(crate) mod measurement_series;
mod measurement_state;
mod series_judgement;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::measurement_series::OutcomeKind;
use self::measurement_series::{BoundRelation, MeasurementCheck, MeasurementSeries};
pub use self::measurement_state::{MeasurementState, OutcomeTally};
use crate::{Judge, Judgement, MeasurementPolicy, Metric, MetricKind, Observation};

/// A limit on one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdLimit {
    /// The measured metric.
    pub metric: Metric,
    /// Where it must stay, in the metric's base unit.
    pub bound: MetricBound,
    /// How measurements are counted.
    #[serde(flatten)]
    pub counting: MeasurementPolicy,
    /// Whether a value beyond the bound is accepted if stable's value is about as bad, so that a problem of both releases isn't blamed
    /// on the new one. Only for restarts and availability.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worse_than_stable: bool,
}

/// A value beyond the bound is stable's fault too unless it is this many times as bad as stable's.
const TIMES_STABLE: f64 = 2.0;

impl ThresholdLimit {
    /// A limit with the defaults: looked at every 5 s until the hold ends, no failure forgiven.
    ///
    /// # Errors
    /// When the bound can't hold: not finite, negative, or its minimum above its maximum.
    pub fn new(metric: Metric, bound: MetricBound) -> Result<Self, InvalidThreshold> {
        bound.check(metric)?;
        Ok(Self {
            metric,
            bound,
            counting: MeasurementPolicy::default(),
            worse_than_stable: false,
        })
    }

    /// Whether stable's value is about as bad as this one.
    fn is_as_bad_on_stable(&self, value: f64, stable: Option<f64>) -> bool {
        let Some(stable) = stable.filter(|_| self.worse_than_stable) else {
            return false;
        };
        match self.metric {
            Metric::Availability => 1.0 - value <= TIMES_STABLE * (1.0 - stable),
            _ => value <= TIMES_STABLE * stable,
        }
    }
}

impl MeasurementCheck for ThresholdLimit {
    fn max(&self) -> Option<f64> {
        self.bound.ends().1
    }

    fn assess(&self, value: f64, stable: Option<f64>) -> OutcomeKind {
        match self.bound.assess(value, stable) {
            OutcomeKind::Failed if self.is_as_bad_on_stable(value, stable) => {
                OutcomeKind::Successful
            }
            outcome => outcome,
        }
    }

    fn is_lost(&self, events: u64, min_requests: u64) -> bool {
        self.bound.is_lost(events, min_requests)
    }

    fn relation(&self, metric: Metric, value: f64) -> BoundRelation {
        self.bound.relation(metric, value)
    }
}

impl ThresholdLimit {
    /// The upper limit of a quantile of the latency, in microseconds.
    pub(crate) fn limit_micros(&self) -> Option<u64> {
        limit_micros(self.metric, self.bound.ends().1)
    }
}

/// An upper limit of a quantile of the latency, in microseconds.
pub(crate) fn limit_micros(metric: Metric, max: Option<f64>) -> Option<u64> {
    let is_quantile = matches!(metric.kind(), MetricKind::Quantile(_));
    max.filter(|_| is_quantile)
        .map(|millis| (millis * 1_000.0) as u64)
}

/// Where a value must stay. A value on the bound is within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricBound {
    /// Not above.
    Max(f64),
    /// Not below.
    Min(f64),
    /// Neither above nor below.
    Between {
        /// Not below.
        min: f64,
        /// Not above.
        max: f64,
    },
}

impl MetricBound {
    /// The bound of an optional `min` and `max`; `None` if both are missing.
    #[must_use]
    pub const fn from_limits(min: Option<f64>, max: Option<f64>) -> Option<Self> {
        match (min, max) {
            (None, None) => None,
            (None, Some(max)) => Some(Self::Max(max)),
            (Some(min), None) => Some(Self::Min(min)),
            (Some(min), Some(max)) => Some(Self::Between { min, max }),
        }
    }

    /// The lower and the upper end.
    #[must_use]
    pub const fn ends(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::Max(max) => (None, Some(max)),
            Self::Min(min) => (Some(min), None),
            Self::Between { min, max } => (Some(min), Some(max)),
        }
    }

    fn admits(self, value: f64) -> bool {
        let (min, max) = self.ends();
        min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)
    }

    fn check(self, metric: Metric) -> Result<(), InvalidThreshold> {
        let (min, max) = self.ends();
        for value in [min, max].into_iter().flatten() {
            let least = if matches!(metric, Metric::Value(_)) {
                f64::MIN
            } else {
                0.0
            };
            if !(value.is_finite() && value >= least) {
                return Err(InvalidThreshold::NoValue { metric });
            }
        }
        match (min, max) {
            (Some(min), Some(max)) if min > max => Err(InvalidThreshold::Crossed {
                metric,
                min: metric.show(min),
                max: metric.show(max),
            }),
            _ => Ok(()),
        }
    }
}

/// Why a limit can't hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThreshold {
    /// Not finite, or negative.
    #[error("the limit of {metric} must be a number from 0 up: {}", .metric.unit())]
    NoValue {
        /// Whose limit.
        metric: Metric,
    },
    /// The minimum is above the maximum.
    #[error("the limits of {metric} leave nothing between them: min {min} is above max {max}")]
    Crossed {
        /// Whose limits.
        metric: Metric,
        /// The minimum, as people read it.
        min: String,
        /// The maximum, as people read it.
        max: String,
    },
}

impl MeasurementCheck for MetricBound {
    fn assess(&self, value: f64, _: Option<f64>) -> OutcomeKind {
        if self.admits(value) {
            OutcomeKind::Successful
        } else {
            OutcomeKind::Failed
        }
    }

    fn max(&self) -> Option<f64> {
        self.ends().1
    }

    fn is_lost(&self, events: u64, min_requests: u64) -> bool {
        let (_, max) = self.ends();
        max.is_some_and(|max| events as f64 > max * min_requests as f64)
    }

    fn relation(&self, metric: Metric, value: f64) -> BoundRelation {
        let limit = |max| format!("limit {}", metric.show(max));
        let minimum = |min| format!("minimum {}", metric.show(min));
        let (relation, bound) = match *self {
            Self::Max(max) | Self::Between { max, .. } if value > max => {
                (" is over the limit", limit(max))
            }
            Self::Min(min) | Self::Between { min, .. } if value < min => {
                (" is below the minimum", minimum(min))
            }
            Self::Max(max) => (" is within the limit", limit(max)),
            Self::Min(min) => (" is above the minimum", minimum(min)),
            Self::Between { min, max } => (
                " is within the limits",
                format!("{}, {}", minimum(min), limit(max)),
            ),
        };
        BoundRelation { relation, bound }
    }
}

impl Judge for ThresholdLimit {
    type State = MeasurementState;

    fn metrics(&self) -> Vec<Metric> {
        vec![self.metric]
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.counting.interval)
    }

    fn is_required(&self) -> bool {
        self.counting.required
    }

    fn start_hold(state: &mut MeasurementState) {
        state.start_hold();
    }

    fn observe(&self, state: &mut MeasurementState, seen: &Observation) -> Judgement {
        let series = MeasurementSeries {
            metric: self.metric,
            counting: &self.counting,
            assess: self,
        };
        series.observe(state, seen)
    }
}
