//! Windows over monotonic counters: the increase since the last measurement, and since the hold began.
//!
//! # Failure modes
//! A counter that is smaller than before was restarted; its whole value counts as new, as in Prometheus' `increase`.

use std::ops::Add;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The counts of one side: those of closed windows, and where the open window began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CounterWindow {
    pub(crate) closed: WindowCounts,
    mark: Option<CounterMark>,
}

/// The source's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct CounterMark {
    at: Timestamp,
    #[serde(flatten)]
    counts: WindowCounts,
}

/// Increases of the counters of one release, or their values since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowCounts {
    pub(crate) requests: u64,
    /// Events of the metric: errors, slow answers, business events, or milliseconds without readiness.
    #[serde(rename = "errors")]
    pub(crate) events: u64,
    pub(crate) restarts: u64,
    /// Events that are requests given up by their clients.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) abandoned: u64,
    /// Events that are requests without an answer in time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) unanswered: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl WindowCounts {
    /// How often for each request; NaN when there were none.
    pub(crate) fn rate(self) -> f64 {
        self.events as f64 / self.requests as f64
    }

    /// The same where each request counts once at most: never above 1, since the two counters may be read a moment apart.
    pub(crate) fn share(self) -> f64 {
        let rate = self.rate();
        if rate > 1.0 { 1.0 } else { rate }
    }
}

impl Add for WindowCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            events: self.events.saturating_add(other.events),
            restarts: self.restarts.saturating_add(other.restarts),
            abandoned: self.abandoned.saturating_add(other.abandoned),
            unanswered: self.unanswered.saturating_add(other.unanswered),
        }
    }
}

impl CounterWindow {
    /// When it was last closed.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.mark.map(|mark| mark.at)
    }

    /// Starts the first window; later calls have no effect.
    pub(crate) fn start(&mut self, counts: WindowCounts, at: Timestamp) {
        self.mark.get_or_insert(CounterMark { at, counts });
    }

    /// Starts a window here and drops the current one.
    pub(crate) fn skip_to(&mut self, counts: WindowCounts, at: Timestamp) {
        self.mark = Some(CounterMark { at, counts });
    }

    /// Ends the window and begins the next.
    pub(crate) fn close(&mut self, counts: WindowCounts, at: Timestamp) {
        self.closed = self.closed + self.window(counts);
        self.mark = Some(CounterMark { at, counts });
    }

    /// The increase since the last measurement.
    pub(crate) fn window(&self, now: WindowCounts) -> WindowCounts {
        let Some(CounterMark { counts: mark, .. }) = self.mark else {
            return WindowCounts::default();
        };
        // The counters belong together: when the requests were restarted, so were the errors. Restarts are the target's.
        let (requests, events) = if now.requests < mark.requests {
            (now.requests, now.events)
        } else {
            let events = now.events.checked_sub(mark.events);
            (now.requests - mark.requests, events.unwrap_or(now.events))
        };
        WindowCounts {
            requests,
            events,
            restarts: now
                .restarts
                .checked_sub(mark.restarts)
                .unwrap_or(now.restarts),
            abandoned: now.abandoned.saturating_sub(mark.abandoned),
            // One of these becomes another event when it ends: the count may fall.
            unanswered: now.unanswered.saturating_sub(mark.unanswered),
        }
    }

    /// The increase since the hold began.
    pub(crate) fn whole(&self, now: WindowCounts) -> WindowCounts {
        self.closed + self.window(now)
    }

    /// How long the open window has lasted.
    pub(crate) fn seconds_since(&self, at: Timestamp) -> f64 {
        self.mark
            .map_or(0.0, |mark| at.duration_since(mark.at).as_secs_f64())
    }

    /// Whether the open window is the first, and so is all there is.
    pub(crate) fn is_first_window(&self) -> bool {
        self.closed == WindowCounts::default()
    }
}
