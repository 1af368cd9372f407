//! When ends are a crash loop. A rollout doesn't wait for its metrics then: what can't stay up will not get better.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Ends before it has ever been ready that make a crash loop.
const BEFORE_READY: u32 = 3;
/// Ends within [`LATELY`] that make a crash loop of what has been ready.
const AFTER_READY: usize = 5;
const LATELY: Duration = Duration::from_secs(60);

/// Before the first restart; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest time before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An instance that ran this long begins with the shortest backoff again.
const SETTLED: Duration = Duration::from_secs(60);

/// The unplanned ends of one slot.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    ends: VecDeque<Instant>,
    before_ready: u32,
    ever_ready: bool,
    last: String,
}

impl Crashes {
    /// It has ended; `why` is for people.
    pub(super) fn add(&mut self, why: String, now: Instant) {
        self.ends.push_back(now);
        if self.ends.len() > AFTER_READY {
            self.ends.pop_front();
        }
        self.before_ready = self.before_ready.saturating_add(1);
        self.last = why;
    }

    /// It has become ready: what was before is forgiven.
    pub(super) fn ready(&mut self) {
        if !self.ever_ready {
            self.ever_ready = true;
            self.ends.clear();
        }
    }

    /// Whether it is in a crash loop, in words.
    pub(super) fn sentence(&self, now: Instant) -> Option<String> {
        let last = &self.last;
        if !self.ever_ready {
            let times = self.before_ready;
            let looping = times >= BEFORE_READY;
            return looping
                .then(|| format!("ended {times} times before it was ready, last: {last}"));
        }
        let lately = self
            .ends
            .iter()
            .filter(|end| now.duration_since(**end) < LATELY)
            .count();
        let looping = lately >= AFTER_READY;
        looping.then(|| format!("ended {lately} times within a minute, last: {last}"))
    }
}

/// The time until the next start.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_FIRST)
    }
}

impl Backoff {
    /// How long to wait after a life that took `lived`.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
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
    fn three_ends_before_ready_are_a_loop_until_it_is_ready() {
        let now = Instant::now();
        let mut crashes = Crashes::default();
        for _ in 0..2 {
            crashes.add("exit code 1".into(), now);
            assert_eq!(crashes.sentence(now), None);
        }
        crashes.add("exit code 2".into(), now);
        assert_eq!(
            crashes.sentence(now).unwrap(),
            "ended 3 times before it was ready, last: exit code 2"
        );
        crashes.ready();
        assert_eq!(crashes.sentence(now), None);
    }

    #[test]
    fn after_ready_five_within_a_minute_are_a_loop_and_it_passes() {
        let start = Instant::now();
        let mut crashes = Crashes::default();
        crashes.ready();
        for second in [0, 50, 52, 54, 58] {
            assert_eq!(crashes.sentence(start), None);
            crashes.add("killed".into(), start + Duration::from_secs(second));
        }
        let at = |second| crashes.sentence(start + Duration::from_secs(second));
        assert_eq!(
            at(59).unwrap(),
            "ended 5 times within a minute, last: killed"
        );
        assert_eq!(at(61), None);
    }

    #[test]
    fn backoff_doubles_up_to_its_limit_and_begins_again_after_a_quiet_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|_| backoff.after(Duration::ZERO).as_millis() as u64)
            .collect();
        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
        assert_eq!(backoff.after(Duration::from_secs(61)).as_millis(), 500);
    }
}
