//! Records when an instance should have been ready and when it was. Pure: time is passed in.
//!
//! The record is written at each change with its time. The next server continues from it, so time without a server counts too.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::target::SetAvailability;

/// File name of the record in the instance's folder.
pub(super) const AVAILABILITY: &str = "availability.json";

/// Readiness of one slot over all its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct AvailabilityRecord {
    /// Totals up to the last change.
    counted: SetAvailability,
    state: ReadinessState,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadinessState {
    /// Not ready yet, or stopped on purpose.
    #[default]
    NotExpected,
    Ready {
        since: Timestamp,
    },
    Unready {
        since: Timestamp,
    },
}

impl AvailabilityRecord {
    /// Loads the record of an earlier server, or an empty one.
    pub(super) fn load(folder: &Path) -> Self {
        std::fs::read(folder.join(AVAILABILITY))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// The readiness probe succeeded.
    pub(super) fn record_ready(&mut self, now: Timestamp) {
        self.set_state(now, ReadinessState::Ready { since: now });
    }

    /// The instance exited, or its readiness probe failed often enough.
    pub(super) fn record_unready(&mut self, now: Timestamp) {
        if self.state != ReadinessState::NotExpected {
            self.set_state(now, ReadinessState::Unready { since: now });
        }
    }

    /// The instance exited unexpectedly, or was restarted because it no longer answered.
    pub(super) fn record_exited(&mut self, at: Timestamp) {
        self.counted.restarts = self.counted.restarts.saturating_add(1);
        self.record_unready(self.not_before_last_change(at));
    }

    /// The instance is being stopped on purpose.
    pub(super) fn record_stopped(&mut self, now: Timestamp) {
        self.set_state(now, ReadinessState::NotExpected);
    }

    fn set_state(&mut self, now: Timestamp, state: ReadinessState) {
        self.counted = self.totals(now);
        self.state = state;
    }

    /// An exit that is noticed late may be older than the last change; it then counts from that change.
    fn not_before_last_change(&self, at: Timestamp) -> Timestamp {
        match self.state {
            ReadinessState::NotExpected => at,
            ReadinessState::Ready { since } | ReadinessState::Unready { since } => at.max(since),
        }
    }

    /// The totals until `now`.
    pub(super) fn totals(&self, now: Timestamp) -> SetAvailability {
        let elapsed = |since: Timestamp| {
            // A clock that was set back adds nothing.
            u64::try_from(now.duration_since(since).as_millis()).unwrap_or(0)
        };
        let (observed_ms, unavailable_ms) = match self.state {
            ReadinessState::NotExpected => (0, 0),
            ReadinessState::Ready { since } => (elapsed(since), 0),
            ReadinessState::Unready { since } => (elapsed(since), elapsed(since)),
        };
        self.counted
            + SetAvailability {
                observed_ms,
                unavailable_ms,
                restarts: 0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn counted(record: &AvailabilityRecord, second: i64) -> (u64, u64, u64) {
        let totals = record.totals(at(second));
        (totals.observed_ms, totals.unavailable_ms, totals.restarts)
    }

    #[test]
    fn starting_counts_neither_way_and_downtime_counts_until_the_instance_is_ready_again() {
        let mut record = AvailabilityRecord::default();
        record.record_unready(at(0));
        assert_eq!(counted(&record, 5), (0, 0, 0), "it was never ready");
        record.record_exited(at(6));
        assert_eq!(counted(&record, 9), (0, 0, 1));
        record.record_ready(at(10));
        assert_eq!(counted(&record, 14), (4_000, 0, 1));
        record.record_exited(at(15));
        assert_eq!(counted(&record, 16), (6_000, 1_000, 2));
        record.record_unready(at(17));
        record.record_ready(at(18));
        assert_eq!(counted(&record, 20), (10_000, 3_000, 2));
        record.record_stopped(at(20));
        assert_eq!(counted(&record, 99), (10_000, 3_000, 2));
    }

    #[test]
    fn a_record_that_is_read_again_includes_the_time_between() {
        let mut record = AvailabilityRecord::default();
        record.record_ready(at(0));
        let folder = tempfile::tempdir().unwrap();
        super::super::shim::write_json(folder.path(), AVAILABILITY, &record).unwrap();
        let mut read = AvailabilityRecord::load(folder.path());
        assert_eq!(read, record);
        // The server comes back at 30 and finds that the instance exited at 10.
        read.record_exited(at(10));
        assert_eq!(counted(&read, 30), (30_000, 20_000, 1));
        assert_eq!(
            AvailabilityRecord::load(&folder.path().join("none")),
            AvailabilityRecord::default()
        );
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_away() {
        let mut record = AvailabilityRecord::default();
        record.record_ready(at(10));
        record.record_exited(at(5));
        assert_eq!(counted(&record, 7), (0, 0, 1));
        assert_eq!(counted(&record, 12), (2_000, 2_000, 1));
    }
}
