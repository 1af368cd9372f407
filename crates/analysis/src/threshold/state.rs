//! What the threshold judge remembers: where the counts stood, how many measurements ended how, and the last outcome.
//! Integers and sentences only: NaN does not survive JSON, and this is kept in the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Judgement, Observation, Sample};

/// Memory of one hold. `Default` is the state when the hold begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(super) canary: Track,
    pub(super) stable: Track,
    measured_at: Option<Timestamp>,
    pub(super) tally: Tally,
    pub(super) latest: Option<Outcome>,
    pub(super) settled: Option<Judgement>,
}

/// How many measurements ended how. The names are Argo Rollouts'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
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
pub(super) struct Outcome {
    pub(super) kind: OutcomeKind,
    pub(super) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutcomeKind {
    Successful,
    Failed,
    Inconclusive,
    Error,
}

impl State {
    /// When the last measurement was taken; `None` before the first.
    #[must_use]
    pub const fn measured_at(&self) -> Option<Timestamp> {
        self.measured_at
    }

    /// The counts so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether `at` lies before what was already taken into account.
    pub(super) fn is_stale(&self, at: Timestamp) -> bool {
        [self.canary.at(), self.stable.at(), self.measured_at]
            .into_iter()
            .flatten()
            .any(|known| at < known)
    }

    /// Remembers where the counts of each side stood when it was first seen.
    pub(super) fn begin(&mut self, seen: &Observation) {
        if let Some(sample) = &seen.canary.sample {
            self.canary.begin(sample, seen.at);
        }
        if let Some(sample) = seen.stable.as_ref().and_then(|side| side.sample.as_ref()) {
            self.stable.begin(sample, seen.at);
        }
    }

    /// Counts a measurement and closes its window on both sides.
    pub(super) fn record(&mut self, seen: &Observation, outcome: Outcome) {
        self.tally.record(outcome.kind);
        self.measured_at = Some(seen.at);
        self.latest = Some(outcome);
        if let Some(sample) = &seen.canary.sample {
            self.canary.close(sample, seen.at);
        }
        if let Some(sample) = seen.stable.as_ref().and_then(|side| side.sample.as_ref()) {
            self.stable.close(sample, seen.at);
        }
    }

    /// What the canary did since the hold began, the open window included unless the observation is late.
    pub(super) fn whole_of_canary(&self, seen: &Observation) -> Counts {
        match &seen.canary.sample {
            Some(sample) if !self.is_stale(seen.at) => self.canary.whole(sample),
            _ => self.canary.closed,
        }
    }
}

impl Tally {
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

/// The counts of one side: those of closed windows, and where the open window began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    pub(super) closed: Counts,
    mark: Option<Mark>,
}

/// The source's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    at: Timestamp,
    requests: u64,
    errors: u64,
    restarts: u64,
}

/// What happened within a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) restarts: u64,
}

impl Counts {
    /// NaN when there were no requests. Never above 1: the two counters may be read a moment apart.
    pub(super) fn error_rate(self) -> f64 {
        let rate = self.errors as f64 / self.requests as f64;
        if rate > 1.0 { 1.0 } else { rate }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            restarts: self.restarts.saturating_add(other.restarts),
        }
    }
}

impl Mark {
    fn of(sample: &Sample, at: Timestamp, restarts_before: u64) -> Self {
        Self {
            at,
            requests: sample.requests,
            errors: sample.errors,
            restarts: sample.restarts.unwrap_or(restarts_before),
        }
    }
}

impl Track {
    fn at(&self) -> Option<Timestamp> {
        self.mark.map(|mark| mark.at)
    }

    fn begin(&mut self, sample: &Sample, at: Timestamp) {
        self.mark.get_or_insert_with(|| Mark::of(sample, at, 0));
    }

    fn close(&mut self, sample: &Sample, at: Timestamp) {
        let window = self.window(sample);
        let restarts = self.mark.map_or(0, |mark| mark.restarts);
        self.closed = self.closed.plus(window);
        self.mark = Some(Mark::of(sample, at, restarts));
    }

    /// What happened since the last measurement.
    pub(super) fn window(&self, sample: &Sample) -> Counts {
        let Some(mark) = self.mark else {
            return Counts::default();
        };
        // The counters belong together: when the requests were restarted, so were the errors.
        let (requests, errors) = if sample.requests < mark.requests {
            (sample.requests, sample.errors)
        } else {
            (
                sample.requests - mark.requests,
                sample.errors.saturating_sub(mark.errors),
            )
        };
        let restarts = sample
            .restarts
            .map_or(0, |now| now.checked_sub(mark.restarts).unwrap_or(now));
        Counts {
            requests,
            errors,
            restarts,
        }
    }

    /// What happened since the hold began.
    pub(super) fn whole(&self, sample: &Sample) -> Counts {
        self.closed.plus(self.window(sample))
    }

    /// How long the open window has lasted.
    pub(super) fn seconds_since(&self, at: Timestamp) -> f64 {
        self.mark
            .map_or(0.0, |mark| at.duration_since(mark.at).as_secs_f64())
    }

    /// Whether the open window is the first, and so is all there is.
    pub(super) fn is_first_window(&self) -> bool {
        self.closed == Counts::default()
    }
}
