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
//! `count` measurements (errors not among them) were taken it is over; without `count` measuring goes on until the hold
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
//! - **Failing is decided per interval, passing over the whole hold too.** Per interval, because a regression that starts
//!   late would drown in the good minutes before it. Over the whole hold, because `failure_limit` forgives intervals, and
//!   what they forgave may together still be over the limit: then it isn't a pass but inconclusive. Both follow from
//!   counts; quantiles can't be added up, so `latency-*` is judged per interval alone.

mod state;
mod words;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::state::{Outcome, OutcomeKind};
pub use self::state::{State, Tally};
use crate::{Judge, Judgement, Latency, Metric, Observation, Sample, Verdict, track::Counts};

/// A limit on one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// What is measured.
    pub metric: Metric,
    /// Where it must stay, in the metric's base unit.
    pub bound: Bound,
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
}

impl Threshold {
    /// How often is looked when nobody says: often enough to catch an outage before people call, seldom enough for an
    /// interval to hold some requests.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Argo Rollouts' default.
    pub const CONSECUTIVE_ERROR_LIMIT: u32 = 4;
    /// At a limit of 2 % and 0.1 % errors as usual, 100 requests are over the limit by chance 1 time in 6,600.
    pub const MIN_REQUESTS: u64 = 100;

    /// A limit with the defaults: looked at every 5 s until the hold ends, no failure forgiven.
    ///
    /// # Errors
    /// When the bound can't hold: not finite, negative, or its minimum above its maximum.
    pub fn new(metric: Metric, bound: Bound) -> Result<Self, InvalidThreshold> {
        bound.check(metric)?;
        Ok(Self {
            metric,
            bound,
            interval: Self::INTERVAL,
            count: None,
            failure_limit: 0,
            consecutive_error_limit: Self::CONSECUTIVE_ERROR_LIMIT,
            inconclusive_limit: None,
            min_requests: Self::MIN_REQUESTS,
        })
    }
}

/// Where a value must stay. A value on the bound is within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
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

impl Bound {
    /// The bound of a `min` and a `max` as they stand in a file; `None` when there is neither.
    #[must_use]
    pub const fn of(min: Option<f64>, max: Option<f64>) -> Option<Self> {
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
            if !(value.is_finite() && value >= 0.0) {
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

/// What a look at the canary gave.
enum Reading {
    /// Nothing yet: not enough requests, or no time has passed.
    NotYet,
    /// A value within or beyond the bound, NaN and infinite included.
    Value(f64),
    /// No value, and why.
    NoData(&'static str),
}

impl Judge for Threshold {
    type State = State;

    fn observe(&self, state: &mut State, seen: &Observation) -> Judgement {
        if let Some(settled) = &state.settled {
            return settled.clone();
        }
        if !state.is_stale(seen.at) {
            state.begin(seen);
            if self.is_due(state, seen.at) {
                self.measure(state, seen);
            }
        }
        state
            .settled
            .clone()
            .unwrap_or_else(|| Judgement::open(self.standing(state, seen)))
    }
}

impl Threshold {
    fn is_due(&self, state: &State, at: Timestamp) -> bool {
        let interval = SignedDuration::try_from(self.interval).unwrap_or(SignedDuration::MAX);
        state
            .measured_at()
            .is_none_or(|last| at.duration_since(last) >= interval)
    }

    /// Takes a measurement if there is something to measure.
    fn measure(&self, state: &mut State, seen: &Observation) {
        let outcome = match self.read(state, seen) {
            Reading::NotYet => return,
            Reading::NoData(why) => Outcome {
                kind: OutcomeKind::Error,
                why: words::no_data(self, seen, why),
            },
            Reading::Value(value) if !value.is_finite() => Outcome {
                kind: OutcomeKind::Inconclusive,
                why: words::not_a_number(self, state, seen),
            },
            Reading::Value(value) => {
                let kind = if self.bound.admits(value) {
                    OutcomeKind::Successful
                } else {
                    OutcomeKind::Failed
                };
                Outcome {
                    kind,
                    why: words::measured(self, state, seen, value),
                }
            }
        };
        state.record(seen, outcome);
        state.settled = self.settle(state, seen);
    }

    fn read(&self, state: &State, seen: &Observation) -> Reading {
        let Some(sample) = &seen.canary.sample else {
            return Reading::NoData("the source could not be read");
        };
        let window = state.canary.window(sample);
        match self.metric {
            Metric::ErrorRate => self.read_error_rate(window),
            Metric::LatencyP50 => self.read_latency(window, sample, |latency| latency.p50_ms),
            Metric::LatencyP90 => self.read_latency(window, sample, |latency| latency.p90_ms),
            Metric::LatencyP99 => self.read_latency(window, sample, |latency| latency.p99_ms),
            Metric::Requests => self.read_throughput(state, window, seen.at),
            Metric::Cpu => sample.cpu.map_or(
                Reading::NoData("the target reports no CPU use"),
                Reading::Value,
            ),
            Metric::Memory => sample.memory_bytes.map_or(
                Reading::NoData("the target reports no memory"),
                Reading::Value,
            ),
            Metric::Restarts => match sample.restarts {
                Some(_) => Reading::Value(state.canary.whole(sample).restarts as f64),
                None => Reading::NoData("the target reports no restarts"),
            },
        }
    }

    fn read_error_rate(&self, window: Counts) -> Reading {
        let (_, max) = self.bound.ends();
        let lost = max.is_some_and(|max| window.errors as f64 > max * self.min_requests as f64);
        if window.requests >= self.min_requests || lost {
            Reading::Value(window.error_rate())
        } else {
            Reading::NotYet
        }
    }

    fn read_latency(
        &self,
        window: Counts,
        sample: &Sample,
        quantile: impl Fn(&Latency) -> Option<f64>,
    ) -> Reading {
        if window.requests < self.min_requests {
            return Reading::NotYet;
        }
        if window.requests == 0 {
            return Reading::Value(f64::NAN);
        }
        match sample.latency.as_ref().and_then(quantile) {
            Some(value) => Reading::Value(value),
            None => Reading::NoData("there were requests, but no latencies"),
        }
    }

    /// A rate needs time to have passed: at least an interval since the counts were last taken.
    fn read_throughput(&self, state: &State, window: Counts, at: Timestamp) -> Reading {
        let seconds = state.canary.seconds_since(at);
        if seconds > 0.0 && seconds >= self.interval.as_secs_f64() {
            Reading::Value(window.requests as f64 / seconds)
        } else {
            Reading::NotYet
        }
    }

    /// What no further measurement can change, if anything.
    fn settle(&self, state: &State, seen: &Observation) -> Option<Judgement> {
        let tally = &state.tally;
        let latest = || {
            state
                .latest
                .as_ref()
                .map_or("", |outcome| outcome.why.as_str())
        };
        let verdict = if tally.failed > self.failure_limit {
            Verdict::Fail {
                why: words::times(latest(), "failed", tally.failed, self.failure_limit),
            }
        } else if self
            .inconclusive_limit
            .is_some_and(|limit| tally.inconclusive > limit)
        {
            let limit = self.inconclusive_limit.unwrap_or_default();
            Verdict::Inconclusive {
                why: words::times(latest(), "inconclusive", tally.inconclusive, limit),
            }
        } else if tally.consecutive_error > self.consecutive_error_limit {
            let limit = self.consecutive_error_limit;
            Verdict::Inconclusive {
                why: words::times(latest(), "no data in a row", tally.consecutive_error, limit),
            }
        } else if self.count.is_some_and(|count| tally.count >= count) {
            self.at_best(state, seen)
        } else {
            return None;
        };
        Some(Judgement::settled(verdict))
    }

    /// How things stand when more measurements may come: what the last one said, unless it said nothing.
    fn standing(&self, state: &State, seen: &Observation) -> Verdict {
        match &state.latest {
            None => Verdict::Inconclusive {
                why: words::waiting(self, state, seen),
            },
            Some(Outcome {
                kind: OutcomeKind::Inconclusive | OutcomeKind::Error,
                why,
            }) => Verdict::Inconclusive { why: why.clone() },
            Some(Outcome {
                kind: OutcomeKind::Successful | OutcomeKind::Failed,
                ..
            }) => self.at_best(state, seen),
        }
    }

    /// A pass, if the measurements allow it: one at least was successful, and the hold as a whole is within the bound.
    fn at_best(&self, state: &State, seen: &Observation) -> Verdict {
        let latest = state
            .latest
            .as_ref()
            .map_or("", |outcome| outcome.why.as_str());
        if state.tally.successful == 0 {
            return Verdict::Inconclusive {
                why: format!("{latest}; no measurement was successful yet"),
            };
        }
        if self.metric != Metric::ErrorRate {
            return Verdict::Pass {
                why: latest.to_owned(),
            };
        }
        let whole = state.whole_of_canary(seen);
        let why = words::over_the_hold(self, state, seen, whole);
        if self.bound.admits(whole.error_rate()) {
            Verdict::Pass { why }
        } else {
            Verdict::Inconclusive { why }
        }
    }
}
