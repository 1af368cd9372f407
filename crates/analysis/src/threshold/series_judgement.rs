//! Measures one metric whenever a measurement is due, and judges the outcomes as Argo Rollouts does.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{
    MeasurementState, explanation,
    measurement_series::{AVAILABILITY_WINDOW, MeasurementSeries, OutcomeKind, availability},
    measurement_state::MeasurementOutcome,
};
use crate::{
    Judgement, LatencyQuantiles, Metric, Observation, Sample, Verdict,
    counter_window::WindowCounts,
    measurement_policy::{is_over, shortest_interval},
    metric::MetricKind,
    warm_up,
};

/// What a look at the canary gave.
enum MeasurementReading {
    /// Nothing yet: not enough requests, or no time has passed.
    NotYet,
    /// A value within or beyond the bound, NaN and infinite included.
    Value(f64),
    /// No value, and why.
    NoData(Cow<'static, str>),
}

impl MeasurementSeries<'_> {
    pub(crate) fn observe(&self, state: &mut MeasurementState, seen: &Observation) -> Judgement {
        if let Some(settled) = &state.settled {
            return settled.clone();
        }
        if !state.is_stale(seen.at) {
            if let Some(left) = warm_up::remaining(self.counting.skip, &mut state.began, seen.at) {
                state.skip_to(self, seen);
                return Judgement::new_open(warm_up::verdict(self.metric, seen, left));
            }
            state.start(self, seen);
            if self.is_due(state, seen) {
                self.measure(state, seen);
            }
        }
        state
            .settled
            .clone()
            .unwrap_or_else(|| Judgement::new_open(self.current_verdict(state, seen)))
    }

    /// Answers of providers are measured when they arrive: the driver queries them once per interval.
    fn is_due(&self, state: &MeasurementState, seen: &Observation) -> bool {
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
    fn measure(&self, state: &mut MeasurementState, seen: &Observation) {
        let outcome = match self.read(state, seen) {
            MeasurementReading::NotYet => return,
            MeasurementReading::NoData(why) => MeasurementOutcome {
                kind: OutcomeKind::Error,
                why: explanation::no_data(self, seen, &why),
                is_idle: false,
            },
            MeasurementReading::Value(value) if !value.is_finite() => MeasurementOutcome {
                kind: OutcomeKind::Inconclusive,
                why: explanation::not_a_number(self, state, seen),
                is_idle: explanation::is_idle(self, state, seen),
            },
            MeasurementReading::Value(value) => {
                let stable = explanation::value_of_stable(self, state, seen);
                MeasurementOutcome {
                    kind: self.assess.assess(value, stable),
                    why: explanation::measured(self, state, seen, value),
                    is_idle: false,
                }
            }
        };
        state.record(self, seen, outcome);
        state.settled = self.final_judgement(state, seen);
    }

    fn read(&self, state: &MeasurementState, seen: &Observation) -> MeasurementReading {
        let Some(sample) = &seen.canary.sample else {
            return MeasurementReading::NoData("the source could not be read".into());
        };
        let Some(counts) = self.counts(sample) else {
            let why = match self.metric {
                Metric::Restarts => "the target reports no restarts",
                Metric::Availability => "the target doesn't report when its instances were ready",
                _ => "it isn't counted",
            };
            return MeasurementReading::NoData(why.into());
        };
        let window = state.canary.window(counts);
        match (self.metric, self.metric.kind()) {
            (_, MetricKind::Events) => {
                self.read_events(state.without_usual_timeouts(self, window, seen))
            }
            (Metric::LatencyP50, _) => self.read_latency(window, sample, |it| it.p50_ms),
            (Metric::LatencyP90, _) => self.read_latency(window, sample, |it| it.p90_ms),
            (Metric::LatencyP99, _) => self.read_latency(window, sample, |it| it.p99_ms),
            (Metric::Requests, _) => self.read_throughput(state, window, seen.at),
            (Metric::Restarts, _) => {
                MeasurementReading::Value(state.rollout.canary.window(counts).restarts as f64)
            }
            (Metric::Availability, _) => self.read_availability(state, counts, seen),
            (metric, MetricKind::Value | MetricKind::Quantile(_) | MetricKind::Total) => {
                match sample.value(metric) {
                    Ok(value) => MeasurementReading::Value(value),
                    Err(why) => MeasurementReading::NoData(why.to_owned().into()),
                }
            }
        }
    }

    fn read_events(&self, window: WindowCounts) -> MeasurementReading {
        let lost = self
            .assess
            .is_lost(window.events, self.counting.min_requests);
        if window.requests >= self.counting.min_requests || lost {
            MeasurementReading::Value(explanation::rate(self.metric, window))
        } else {
            MeasurementReading::NotYet
        }
    }

    /// A value within the bound is measured at the end of the window, a value beyond it immediately.
    fn read_availability(
        &self,
        state: &MeasurementState,
        counts: WindowCounts,
        seen: &Observation,
    ) -> MeasurementReading {
        let Some(value) = availability(&state.canary, counts, seen.at) else {
            return MeasurementReading::NotYet;
        };
        let stable = explanation::value_of_stable(self, state, seen);
        let is_over = state.canary.seconds_since(seen.at) >= AVAILABILITY_WINDOW.as_secs_f64();
        if is_over || self.assess.assess(value, stable) == OutcomeKind::Failed {
            MeasurementReading::Value(value)
        } else {
            MeasurementReading::NotYet
        }
    }

    fn read_latency(
        &self,
        window: WindowCounts,
        sample: &Sample,
        quantile: impl Fn(&LatencyQuantiles) -> Option<f64>,
    ) -> MeasurementReading {
        if window.requests < self.counting.min_requests && !self.is_beyond(window) {
            return MeasurementReading::NotYet;
        }
        if window.requests == 0 {
            return MeasurementReading::Value(f64::NAN);
        }
        match sample.latency.as_ref().and_then(quantile) {
            Some(value) => MeasurementReading::Value(value),
            None => MeasurementReading::NoData(
                "there were requests, but no latencies were measured".into(),
            ),
        }
    }

    /// Whether a quantile is beyond its limit already, whatever else comes until there are `min_requests`.
    fn is_beyond(&self, window: WindowCounts) -> bool {
        match self.metric.kind() {
            MetricKind::Quantile(quantile) if self.assess.max().is_some() => {
                window.events as f64 > (1.0 - quantile) * self.counting.min_requests as f64
            }
            _ => false,
        }
    }

    /// A rate needs time to have passed: at least an interval since the counts were last taken.
    fn read_throughput(
        &self,
        state: &MeasurementState,
        window: WindowCounts,
        at: Timestamp,
    ) -> MeasurementReading {
        let seconds = state.canary.seconds_since(at);
        if seconds > 0.0 && seconds >= shortest_interval(self.counting.interval).as_secs_f64() {
            MeasurementReading::Value(window.requests as f64 / seconds)
        } else {
            MeasurementReading::NotYet
        }
    }

    /// The final judgement, if no further measurement can change it.
    fn final_judgement(&self, state: &MeasurementState, seen: &Observation) -> Option<Judgement> {
        let tally = &state.tally;
        let latest = || {
            state
                .latest
                .as_ref()
                .map_or("", |outcome| outcome.why.as_str())
        };
        let verdict = if tally.failed > self.counting.failure_limit {
            Verdict::Fail {
                why: explanation::times(
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
                why: explanation::times(
                    latest(),
                    "inconclusive measurements",
                    tally.inconclusive,
                    limit,
                ),
            }
        } else if tally.consecutive_error > self.counting.consecutive_error_limit {
            let limit = self.counting.consecutive_error_limit;
            Verdict::Inconclusive {
                why: explanation::times(
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
            self.passing_verdict(state, seen)
        } else {
            return None;
        };
        Some(Judgement::new_final(verdict))
    }

    /// The verdict while more measurements may follow: that of the last measurement.
    fn current_verdict(&self, state: &MeasurementState, seen: &Observation) -> Verdict {
        match &state.latest {
            None => self.verdict_before_measuring(state, seen),
            Some(MeasurementOutcome {
                kind: OutcomeKind::Inconclusive,
                why,
                is_idle: true,
            }) => Verdict::NoData {
                why: why.clone(),
                seen: state.whole_of_canary(self, seen).requests,
                needed: self.counting.min_requests.max(1),
                required: false,
            },
            Some(MeasurementOutcome {
                kind: OutcomeKind::Inconclusive | OutcomeKind::Error,
                why,
                ..
            }) => Verdict::Inconclusive { why: why.clone() },
            Some(MeasurementOutcome {
                kind: OutcomeKind::Successful | OutcomeKind::Failed,
                ..
            }) => self.passing_verdict(state, seen),
        }
    }

    /// The verdict before the first measurement.
    fn verdict_before_measuring(&self, state: &MeasurementState, seen: &Observation) -> Verdict {
        let sample = seen.canary.sample.as_ref();
        let counts = sample.and_then(|sample| self.counts(sample));
        match (self.metric, counts) {
            (Metric::Availability, Some(counts)) => {
                let value = availability(&state.canary, counts, seen.at);
                let value = value.unwrap_or(1.0);
                Verdict::Pass {
                    why: explanation::measured(self, state, seen, value),
                }
            }
            (metric, Some(_)) if metric.is_traffic_metric() => Verdict::NoData {
                why: explanation::too_little_traffic(self, state, seen),
                seen: state.whole_of_canary(self, seen).requests,
                needed: self.counting.min_requests.max(1),
                required: false,
            },
            _ => Verdict::Inconclusive {
                why: explanation::no_data(self, seen, "not measured yet"),
            },
        }
    }

    /// A pass, if the measurements allow it: one at least was successful, and the hold as a whole is within the bound.
    fn passing_verdict(&self, state: &MeasurementState, seen: &Observation) -> Verdict {
        let latest = state
            .latest
            .as_ref()
            .map_or("", |outcome| outcome.why.as_str());
        if state.tally.successful == 0 {
            return Verdict::Inconclusive {
                why: format!("{latest}; no successful measurement yet"),
            };
        }
        if self.metric.kind() != MetricKind::Events {
            return Verdict::Pass {
                why: latest.to_owned(),
            };
        }
        let whole = state.without_usual_timeouts(self, state.whole_of_canary(self, seen), seen);
        let why = explanation::over_the_hold(self, state, seen, whole);
        let value = explanation::rate(self.metric, whole);
        let stable = explanation::value_of_stable(self, state, seen);
        if self.assess.assess(value, stable) == OutcomeKind::Successful {
            Verdict::Pass { why }
        } else {
            Verdict::Inconclusive { why }
        }
    }
}
