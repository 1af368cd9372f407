//! A row of measurements of one metric, counted as Argo Rollouts counts: what limits and conditions have in common.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;

use super::{
    State, limit_micros,
    state::{Outcome, OutcomeKind},
    words,
};
use crate::{
    Counting, Judgement, Latency, Metric, Observation, Sample, Verdict,
    counting::{is_over, least_of},
    metric::Kind,
    track::{Counts, Track},
    warm_up,
};

/// How long a window of availability is: instances that are down for a moment in it are not down for a whole one.
pub(crate) const AVAILABILITY_WINDOW: Duration = Duration::from_secs(60);

/// How a value is looked at: by a limit, or by conditions.
pub(crate) trait Assess {
    /// How a measurement of `value` ends, where stable has `stable`.
    fn assess(&self, value: f64, stable: Option<f64>) -> OutcomeKind;

    /// The upper limit, where there is one.
    fn max(&self) -> Option<f64> {
        None
    }

    /// Whether so many events are too many already, whatever else comes until there are `min_requests`.
    fn is_lost(&self, events: u64, min_requests: u64) -> bool;

    /// How the value relates to the bound.
    fn relation(&self, metric: Metric, value: f64) -> BoundRelation;
}

/// How a value relates to a bound, as parts of a sentence.
pub(crate) struct BoundRelation {
    /// ` is over the limit`; empty where a condition decides.
    pub(crate) relation: &'static str,
    /// `limit 2%`
    pub(crate) bound: String,
}

/// What is measured, and how it is counted and looked at.
pub(crate) struct Series<'a> {
    pub(crate) metric: Metric,
    pub(crate) counting: &'a Counting,
    pub(crate) assess: &'a dyn Assess,
}

/// What a look at the canary gave.
enum Reading {
    /// Nothing yet: not enough requests, or no time has passed.
    NotYet,
    /// A value within or beyond the bound, NaN and infinite included.
    Value(f64),
    /// No value, and why.
    NoData(Cow<'static, str>),
}

impl Series<'_> {
    /// What a sample counts for it: of a quantile with an upper limit, the requests that take longer.
    pub(super) fn counts(&self, sample: &Sample) -> Option<Counts> {
        let limit = limit_micros(self.metric, self.assess.max());
        let slow = limit.and_then(|over_micros| sample.counts(Metric::SlowRate { over_micros }));
        slow.or_else(|| sample.counts(self.metric))
    }

    pub(crate) fn observe(&self, state: &mut State, seen: &Observation) -> Judgement {
        if let Some(settled) = &state.settled {
            return settled.clone();
        }
        if !state.is_stale(seen.at) {
            if let Some(left) = warm_up::left(self.counting.skip, &mut state.began, seen.at) {
                state.pass_over(self, seen);
                return Judgement::open(warm_up::verdict(self.metric, seen, left));
            }
            state.begin(self, seen);
            if self.is_due(state, seen) {
                self.measure(state, seen);
            }
        }
        state
            .settled
            .clone()
            .unwrap_or_else(|| Judgement::open(self.standing(state, seen)))
    }

    /// What providers say is measured when they say it: they are asked once in the interval.
    fn is_due(&self, state: &State, seen: &Observation) -> bool {
        if let (Metric::Value(name), Some(sample)) = (self.metric, &seen.canary.sample) {
            return sample
                .answer(name)
                .is_some_and(|answer| state.answered_at.is_none_or(|at| answer.at > at));
        }
        let sample = seen.canary.sample.as_ref();
        let is_readable = sample.is_some_and(|sample| sample.counts(self.metric).is_some());
        if self.metric == Metric::Availability && is_readable {
            return state.canary.at().is_none_or(|at| at < seen.at);
        }
        state
            .measured_at()
            .is_none_or(|last| is_over(self.counting.interval, last, seen.at))
    }

    /// Takes a measurement if there is something to measure.
    fn measure(&self, state: &mut State, seen: &Observation) {
        let outcome = match self.read(state, seen) {
            Reading::NotYet => return,
            Reading::NoData(why) => Outcome {
                kind: OutcomeKind::Error,
                why: words::no_data(self, seen, &why),
                is_idle: false,
            },
            Reading::Value(value) if !value.is_finite() => Outcome {
                kind: OutcomeKind::Inconclusive,
                why: words::not_a_number(self, state, seen),
                is_idle: words::is_idle(self, state, seen),
            },
            Reading::Value(value) => {
                let stable = words::value_of_stable(self, state, seen);
                Outcome {
                    kind: self.assess.assess(value, stable),
                    why: words::measured(self, state, seen, value),
                    is_idle: false,
                }
            }
        };
        state.record(self, seen, outcome);
        state.settled = self.settle(state, seen);
    }

    fn read(&self, state: &State, seen: &Observation) -> Reading {
        let Some(sample) = &seen.canary.sample else {
            return Reading::NoData("the source could not be read".into());
        };
        let Some(counts) = self.counts(sample) else {
            let why = match self.metric {
                Metric::Restarts => "the target reports no restarts",
                Metric::Availability => "the target doesn't report when its instances were ready",
                _ => "it isn't counted",
            };
            return Reading::NoData(why.into());
        };
        let window = state.canary.window(counts);
        match (self.metric, self.metric.kind()) {
            (_, Kind::Events) => self.read_events(self.unusual(window, state, seen)),
            (Metric::LatencyP50, _) => self.read_latency(window, sample, |it| it.p50_ms),
            (Metric::LatencyP90, _) => self.read_latency(window, sample, |it| it.p90_ms),
            (Metric::LatencyP99, _) => self.read_latency(window, sample, |it| it.p99_ms),
            (Metric::Requests, _) => self.read_throughput(state, window, seen.at),
            (Metric::Restarts, _) => {
                Reading::Value(state.rollout.canary.window(counts).restarts as f64)
            }
            (Metric::Availability, _) => self.read_availability(state, counts, seen),
            (metric, Kind::Value | Kind::Quantile(_) | Kind::Total) => match sample.value(metric) {
                Ok(value) => Reading::Value(value),
                Err(why) => Reading::NoData(why.to_owned().into()),
            },
        }
    }

    /// Counts without the requests that had no answer in time, where that is usual: long polling, reports. It is when stable's
    /// share of them is at least half as large.
    pub(super) fn unusual(&self, counts: Counts, state: &State, seen: &Observation) -> Counts {
        let stable = seen.stable.as_ref().and_then(|side| side.sample.as_ref());
        let stable = stable.and_then(|sample| self.counts(sample));
        let share = |of: Counts| of.unanswered as f64 / of.requests as f64;
        let usual = stable.map_or(0.0, |counts| share(state.stable.whole(counts)));
        if usual > 0.0 && share(counts) <= 2.0 * usual {
            Counts {
                events: counts.events.saturating_sub(counts.unanswered),
                unanswered: 0,
                ..counts
            }
        } else {
            counts
        }
    }

    fn read_events(&self, window: Counts) -> Reading {
        let lost = self
            .assess
            .is_lost(window.events, self.counting.min_requests);
        if window.requests >= self.counting.min_requests || lost {
            Reading::Value(words::rate(self.metric, window))
        } else {
            Reading::NotYet
        }
    }

    /// Within the bound it is measured when the window is over, beyond it at once.
    fn read_availability(&self, state: &State, counts: Counts, seen: &Observation) -> Reading {
        let Some(value) = availability(&state.canary, counts, seen.at) else {
            return Reading::NotYet;
        };
        let stable = words::value_of_stable(self, state, seen);
        let is_over = state.canary.seconds_since(seen.at) >= AVAILABILITY_WINDOW.as_secs_f64();
        if is_over || self.assess.assess(value, stable) == OutcomeKind::Failed {
            Reading::Value(value)
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
        if window.requests < self.counting.min_requests && !self.is_beyond(window) {
            return Reading::NotYet;
        }
        if window.requests == 0 {
            return Reading::Value(f64::NAN);
        }
        match sample.latency.as_ref().and_then(quantile) {
            Some(value) => Reading::Value(value),
            None => Reading::NoData("there were requests, but no latencies were measured".into()),
        }
    }

    /// Whether a quantile is beyond its limit already, whatever else comes until there are `min_requests`.
    fn is_beyond(&self, window: Counts) -> bool {
        match self.metric.kind() {
            Kind::Quantile(quantile) if self.assess.max().is_some() => {
                window.events as f64 > (1.0 - quantile) * self.counting.min_requests as f64
            }
            _ => false,
        }
    }

    /// A rate needs time to have passed: at least an interval since the counts were last taken.
    fn read_throughput(&self, state: &State, window: Counts, at: Timestamp) -> Reading {
        let seconds = state.canary.seconds_since(at);
        if seconds > 0.0 && seconds >= least_of(self.counting.interval).as_secs_f64() {
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
        let verdict = if tally.failed > self.counting.failure_limit {
            Verdict::Fail {
                why: words::times(
                    latest(),
                    "failed measurements",
                    tally.failed,
                    self.counting.failure_limit,
                ),
            }
        } else if self
            .counting
            .inconclusive_limit
            .is_some_and(|limit| tally.inconclusive > limit)
        {
            let limit = self.counting.inconclusive_limit.unwrap_or_default();
            Verdict::Inconclusive {
                why: words::times(
                    latest(),
                    "inconclusive measurements",
                    tally.inconclusive,
                    limit,
                ),
            }
        } else if tally.consecutive_error > self.counting.consecutive_error_limit {
            let limit = self.counting.consecutive_error_limit;
            Verdict::Inconclusive {
                why: words::times(
                    latest(),
                    "measurements without data in a row",
                    tally.consecutive_error,
                    limit,
                ),
            }
        } else if self
            .counting
            .count
            .is_some_and(|count| tally.count >= count)
        {
            self.at_best(state, seen)
        } else {
            return None;
        };
        Some(Judgement::settled(verdict))
    }

    /// How things stand when more measurements may come: what the last one said, unless it said nothing.
    fn standing(&self, state: &State, seen: &Observation) -> Verdict {
        match &state.latest {
            None => self.before_the_first(state, seen),
            Some(Outcome {
                kind: OutcomeKind::Inconclusive,
                why,
                is_idle: true,
            }) => Verdict::NoData {
                why: why.clone(),
                seen: state.whole_of_canary(self, seen).requests,
                needed: self.counting.min_requests.max(1),
                required: false,
            },
            Some(Outcome {
                kind: OutcomeKind::Inconclusive | OutcomeKind::Error,
                why,
                ..
            }) => Verdict::Inconclusive { why: why.clone() },
            Some(Outcome {
                kind: OutcomeKind::Successful | OutcomeKind::Failed,
                ..
            }) => self.at_best(state, seen),
        }
    }

    /// How things stand before anything was measured.
    fn before_the_first(&self, state: &State, seen: &Observation) -> Verdict {
        let sample = seen.canary.sample.as_ref();
        let counts = sample.and_then(|sample| self.counts(sample));
        match (self.metric, counts) {
            (Metric::Availability, Some(counts)) => {
                let value = availability(&state.canary, counts, seen.at);
                let value = value.unwrap_or(1.0);
                Verdict::Pass {
                    why: words::measured(self, state, seen, value),
                }
            }
            (metric, Some(_)) if metric.is_of_traffic() => Verdict::NoData {
                why: words::too_little_traffic(self, state, seen),
                seen: state.whole_of_canary(self, seen).requests,
                needed: self.counting.min_requests.max(1),
                required: false,
            },
            _ => Verdict::Inconclusive {
                why: words::no_data(self, seen, "not measured yet"),
            },
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
                why: format!("{latest}; no successful measurement yet"),
            };
        }
        if self.metric.kind() != Kind::Events {
            return Verdict::Pass {
                why: latest.to_owned(),
            };
        }
        let whole = self.unusual(state.whole_of_canary(self, seen), state, seen);
        let why = words::over_the_hold(self, state, seen, whole);
        let value = words::rate(self.metric, whole);
        let stable = words::value_of_stable(self, state, seen);
        if self.assess.assess(value, stable) == OutcomeKind::Successful {
            Verdict::Pass { why }
        } else {
            Verdict::Inconclusive { why }
        }
    }
}

/// The share of the instances' time in which they were ready, since the window of `track` began. A window that has just begun counts
/// as a whole one whose rest is good. `None` before any instance should have been ready.
pub(super) fn availability(track: &Track, counts: Counts, at: Timestamp) -> Option<f64> {
    let window = track.window(counts);
    (window.requests > 0).then(|| {
        let elapsed = track.seconds_since(at) / AVAILABILITY_WINDOW.as_secs_f64();
        1.0 - window.share() * elapsed.min(1.0)
    })
}
