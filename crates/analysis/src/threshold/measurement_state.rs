//! What the threshold judge remembers: where the counts stood, how many measurements ended how, and the last outcome.
//! Integers and sentences only: NaN does not survive JSON, and this is kept in the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::measurement_series::{MeasurementSeries, OutcomeKind};
use crate::{
    Judgement, Metric, Observation,
    counter_window::{CounterWindow, WindowCounts},
};

/// Memory of one hold. `Default` is the state when the hold begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasurementState {
    pub(super) canary: CounterWindow,
    pub(super) stable: CounterWindow,
    measured_at: Option<Timestamp>,
    pub(super) tally: OutcomeTally,
    pub(super) latest: Option<MeasurementOutcome>,
    pub(super) settled: Option<Judgement>,
    /// The moment that a provider's last answer was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answered_at: Option<Timestamp>,
    /// When the hold was first looked at, where its beginning is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began: Option<Timestamp>,
    /// Counters over the whole rollout, across holds.
    #[serde(default, skip_serializing_if = "RolloutCounts::is_new")]
    pub(super) rollout: RolloutCounts,
}

/// The counters of both sides when the rollout was first looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RolloutCounts {
    pub(super) canary: CounterWindow,
    pub(super) stable: CounterWindow,
}

impl RolloutCounts {
    fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// How many measurements ended how. The names are Argo Rollouts'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeTally {
    /// All but errors.
    pub count: u32,
    /// Within the bound.
    pub successful: u32,
    /// Beyond the bound.
    pub failed: u32,
    /// NaN, infinite or without traffic.
    pub inconclusive: u32,
    /// Without a value.
    pub error: u32,
    /// Without a value, since the last that had one.
    pub consecutive_error: u32,
}

/// How the last measurement ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MeasurementOutcome {
    pub(super) kind: OutcomeKind,
    pub(super) why: String,
    /// Whether nothing was measured because there were no requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_idle: bool,
}

impl MeasurementState {
    /// When the last measurement was taken; `None` before the first.
    #[must_use]
    pub const fn measured_at(&self) -> Option<Timestamp> {
        self.measured_at
    }

    /// The counts so far.
    #[must_use]
    pub const fn tally(&self) -> OutcomeTally {
        self.tally
    }

    /// Whether an observation at `at` is older than one already recorded.
    pub(super) fn is_stale(&self, at: Timestamp) -> bool {
        [self.canary.at(), self.stable.at(), self.measured_at]
            .into_iter()
            .flatten()
            .any(|known| at < known)
    }

    /// Resets the state of the hold; counters over the whole rollout stay.
    pub(crate) fn start_hold(&mut self) {
        *self = Self {
            rollout: std::mem::take(&mut self.rollout),
            ..Self::default()
        };
    }

    /// Remembers where the counts of each side stood when it was first seen.
    pub(super) fn start(&mut self, series: &MeasurementSeries<'_>, seen: &Observation) {
        let (canary, stable) = counts(series, seen);
        if series.metric == Metric::Restarts {
            if let Some(counts) = canary {
                self.rollout.canary.start(counts, seen.at);
            }
            if let Some(counts) = stable {
                self.rollout.stable.start(counts, seen.at);
            }
        }
        if let Some(counts) = canary {
            self.canary.start(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.start(counts, seen.at);
        }
    }

    /// Begins to count here: a warm-up is left out.
    pub(super) fn skip_to(&mut self, series: &MeasurementSeries<'_>, seen: &Observation) {
        let (canary, stable) = counts(series, seen);
        if let Some(counts) = canary {
            self.canary.skip_to(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.skip_to(counts, seen.at);
        }
        self.remember_answer(series, seen);
    }

    /// Marks the provider's current answer as measured.
    fn remember_answer(&mut self, series: &MeasurementSeries<'_>, seen: &Observation) {
        if let (Metric::Value(name), Some(sample)) = (series.metric, &seen.canary.sample) {
            self.answered_at = sample.answer(name).map(|answer| answer.at);
        }
    }

    /// Counts a measurement and closes its window on both sides.
    pub(super) fn record(
        &mut self,
        series: &MeasurementSeries<'_>,
        seen: &Observation,
        outcome: MeasurementOutcome,
    ) {
        self.tally.record(outcome.kind);
        self.measured_at = Some(seen.at);
        self.latest = Some(outcome);
        self.remember_answer(series, seen);
        let (canary, stable) = counts(series, seen);
        if let Some(counts) = canary {
            self.canary.close(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.close(counts, seen.at);
        }
    }

    /// What the canary did since the hold began, the open window included unless the observation is late.
    pub(super) fn whole_of_canary(
        &self,
        series: &MeasurementSeries<'_>,
        seen: &Observation,
    ) -> WindowCounts {
        match counts(series, seen).0 {
            Some(counts) if !self.is_stale(seen.at) => self.canary.whole(counts),
            _ => self.canary.closed,
        }
    }

    /// Counts without the requests that had no response in time, where that is usual: long polling, reports. It is when stable's
    /// share of them is at least half as large.
    pub(super) fn without_usual_timeouts(
        &self,
        series: &MeasurementSeries<'_>,
        counts: WindowCounts,
        seen: &Observation,
    ) -> WindowCounts {
        let stable = seen.stable.as_ref().and_then(|side| side.sample.as_ref());
        let stable = stable.and_then(|sample| series.counts(sample));
        let share = |of: WindowCounts| of.unanswered as f64 / of.requests as f64;
        let usual = stable.map_or(0.0, |counts| share(self.stable.whole(counts)));
        if usual > 0.0 && share(counts) <= 2.0 * usual {
            WindowCounts {
                events: counts.events.saturating_sub(counts.unanswered),
                unanswered: 0,
                ..counts
            }
        } else {
            counts
        }
    }
}

/// What both sides have counted.
fn counts(
    series: &MeasurementSeries<'_>,
    seen: &Observation,
) -> (Option<WindowCounts>, Option<WindowCounts>) {
    let of = |sample: &Option<crate::Sample>| series.counts(sample.as_ref()?);
    (
        of(&seen.canary.sample),
        seen.stable.as_ref().and_then(|side| of(&side.sample)),
    )
}

impl OutcomeTally {
    fn record(&mut self, kind: OutcomeKind) {
        let counter = match kind {
            OutcomeKind::Successful => &mut self.successful,
            OutcomeKind::Failed => &mut self.failed,
            OutcomeKind::Inconclusive => &mut self.inconclusive,
            OutcomeKind::Error => {
                self.error = self.error.saturating_add(1);
                self.consecutive_error = self.consecutive_error.saturating_add(1);
                return;
            }
        };
        *counter = counter.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.consecutive_error = 0;
    }
}
