//! Counters of a source that only ever grow, read in windows: what happened since the last look, and in all.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Sample;

/// The counts of one side: those of closed windows, and where the open window began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    pub(crate) closed: Counts,
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
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) restarts: u64,
}

impl Counts {
    /// NaN when there were no requests. Never above 1: the two counters may be read a moment apart.
    pub(crate) fn error_rate(self) -> f64 {
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
    /// When it was last closed.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.mark.map(|mark| mark.at)
    }

    /// Begins to count, unless it has.
    pub(crate) fn begin(&mut self, sample: &Sample, at: Timestamp) {
        self.mark.get_or_insert_with(|| Mark::of(sample, at, 0));
    }

    /// Ends the window and begins the next.
    pub(crate) fn close(&mut self, sample: &Sample, at: Timestamp) {
        let window = self.window(sample);
        let restarts = self.mark.map_or(0, |mark| mark.restarts);
        self.closed = self.closed.plus(window);
        self.mark = Some(Mark::of(sample, at, restarts));
    }

    /// What happened since the last measurement.
    pub(crate) fn window(&self, sample: &Sample) -> Counts {
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
    pub(crate) fn whole(&self, sample: &Sample) -> Counts {
        self.closed.plus(self.window(sample))
    }

    /// How long the open window has lasted.
    pub(crate) fn seconds_since(&self, at: Timestamp) -> f64 {
        self.mark
            .map_or(0.0, |mark| at.duration_since(mark.at).as_secs_f64())
    }

    /// Whether the open window is the first, and so is all there is.
    pub(crate) fn is_first_window(&self) -> bool {
        self.closed == Counts::default()
    }
}
