//! Detects crash loops. A rollout does not wait for metrics then: a release that keeps exiting will not recover.
//!
//! # Trip conditions
//! - One instance exited [`EXITS_BEFORE_READY`] times without ever having been ready.
//! - The instances of the set together exited [`EXITS_AFTER_READY`] times within [`WINDOW`] after having been ready, however
//!   long each run was.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Exits of one instance before it was ever ready.
const EXITS_BEFORE_READY: u32 = 3;
/// Exits of the set's instances after they were ready.
const EXITS_AFTER_READY: usize = 3;
/// Longer than the longest backoff, so that an instance that exits after each start cannot hide behind it.
const WINDOW: Duration = Duration::from_secs(120);

/// Pause before the first restart; doubled with each one.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An instance that ran this long resets its backoff.
const SETTLED: Duration = Duration::from_secs(60);

/// The unplanned exits of one set.
#[derive(Debug, Default)]
pub(super) struct SetCrashes {
    slots: BTreeMap<u32, SlotCrashes>,
    /// Exits of instances that had been ready, the oldest first.
    exits: VecDeque<UnplannedExit>,
}

#[derive(Debug, Default)]
struct SlotCrashes {
    before_ready: u32,
    ever_ready: bool,
    last_reason: String,
}

#[derive(Debug)]
struct UnplannedExit {
    at: Instant,
    slot: u32,
    reason: String,
}

impl SetCrashes {
    /// Records an exit of the instance in this slot; `reason` is shown to users.
    pub(super) fn add_exit(&mut self, slot: u32, reason: String, now: Instant) {
        let crashes = self.slots.entry(slot).or_default();
        if !crashes.ever_ready {
            crashes.before_ready = crashes.before_ready.saturating_add(1);
            crashes.last_reason = reason;
            return;
        }
        if self.exits.len() == EXITS_AFTER_READY {
            self.exits.pop_front();
        }
        self.exits.push_back(UnplannedExit {
            at: now,
            slot,
            reason,
        });
    }

    /// Records that the instance in this slot became ready: earlier exits were part of its start.
    pub(super) fn set_ready(&mut self, slot: u32) {
        self.slots.entry(slot).or_default().ever_ready = true;
    }

    /// Removes a stopped instance; returns whether others are left.
    pub(super) fn remove_slot(&mut self, slot: u32) -> bool {
        self.slots.remove(&slot);
        !self.slots.is_empty()
    }

    /// The reason, if the set is in a crash loop.
    pub(super) fn crash_loop(&self, now: Instant) -> Option<String> {
        let starting = self.slots.iter().find_map(|(slot, crashes)| {
            let times = crashes.before_ready;
            let is_loop = !crashes.ever_ready && times >= EXITS_BEFORE_READY;
            is_loop.then(|| {
                let last = &crashes.last_reason;
                format!("instance {slot} exited {times} times before becoming ready (last: {last})")
            })
        });
        starting.or_else(|| self.loop_after_ready(now))
    }

    fn loop_after_ready(&self, now: Instant) -> Option<String> {
        let is_recent = |exit: &&UnplannedExit| now.duration_since(exit.at) < WINDOW;
        let times = self.exits.iter().filter(is_recent).count();
        let last = self.exits.back()?;
        (times >= EXITS_AFTER_READY).then(|| {
            let minutes = WINDOW.as_secs() / 60;
            format!(
                "{times} unplanned exits within {minutes} min, last: instance {}, {}",
                last.slot, last.reason
            )
        })
    }
}

/// The pause before the next start.
#[derive(Debug)]
pub(super) struct RestartBackoff(Duration);

impl Default for RestartBackoff {
    fn default() -> Self {
        Self(BACKOFF_FIRST)
    }
}

impl RestartBackoff {
    /// The pause after a run that lasted `lived`.
    pub(super) fn next_wait(&mut self, lived: Duration) -> Duration {
        if lived > SETTLED {
            self.0 = BACKOFF_FIRST;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(BACKOFF_MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_exits_before_ready_are_a_loop_until_it_is_ready() {
        let now = Instant::now();
        let mut crashes = SetCrashes::default();
        for slot in [1, 2, 1, 2] {
            crashes.add_exit(slot, "exit code 1".into(), now);
            assert_eq!(crashes.crash_loop(now), None, "two exits each");
        }
        crashes.add_exit(2, "exit code 2".into(), now);
        assert_eq!(
            crashes.crash_loop(now).unwrap(),
            "instance 2 exited 3 times before becoming ready (last: exit code 2)"
        );
        crashes.set_ready(2);
        assert_eq!(crashes.crash_loop(now), None);
    }

    #[test]
    fn lives_longer_than_the_backoff_are_a_loop_too() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut crashes = SetCrashes::default();
        crashes.set_ready(1);
        // Each life takes 30 s, each backoff is shorter.
        for second in [30, 61, 92] {
            assert_eq!(crashes.crash_loop(at(second)), None);
            crashes.add_exit(1, "killed".into(), at(second));
        }
        assert_eq!(
            crashes.crash_loop(at(93)).unwrap(),
            "3 unplanned exits within 2 min, last: instance 1, killed"
        );
        assert_eq!(crashes.crash_loop(at(150)), None, "the first is too old");
    }

    #[test]
    fn exits_of_several_instances_are_counted_together_and_rare_ones_are_no_loop() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut crashes = SetCrashes::default();
        for slot in 1..=3 {
            crashes.set_ready(slot);
        }
        for second in (0..1_000).step_by(61) {
            crashes.add_exit(1, "killed".into(), at(second));
            assert_eq!(crashes.crash_loop(at(second)), None);
        }
        for slot in 1..=3 {
            crashes.add_exit(slot, "exit code 1".into(), at(2_000));
        }
        assert!(crashes.crash_loop(at(2_000)).is_some());
        assert!(crashes.remove_slot(1));
        assert!(crashes.remove_slot(2));
        assert!(!crashes.remove_slot(3));
    }

    #[test]
    fn backoff_doubles_up_to_its_limit_and_begins_again_after_a_quiet_minute() {
        let mut backoff = RestartBackoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|_| backoff.next_wait(Duration::ZERO).as_millis() as u64)
            .collect();
        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
        assert_eq!(backoff.next_wait(Duration::from_secs(61)).as_millis(), 500);
    }
}
