//! A clock that never goes back. The wall clock may be set; timers must neither stall nor fire twice.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

/// The source of time.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The current time; never earlier than a previous result.
    fn now(&self) -> Timestamp;

    /// Waits until `at`.
    async fn sleep_until(&self, at: Timestamp);
}

/// The last event may be this far ahead of the wall clock. Beyond that the log's clock was wrong, and following it would date
/// all events in the future.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

/// The machine's clock, combined with the monotonic clock: it follows a wall clock that is set forward, and keeps its own time
/// when the wall clock is set back.
#[derive(Debug)]
pub struct RealClock {
    base: Mutex<(Timestamp, Instant)>,
}

impl Default for RealClock {
    fn default() -> Self {
        Self {
            base: Mutex::new((Timestamp::now(), Instant::now())),
        }
    }
}

impl RealClock {
    /// A clock that continues from the last event of the log, in case the wall clock was set back while no server ran.
    #[must_use]
    pub fn after(last: Option<Timestamp>) -> Self {
        let clock = Self::default();
        if let Some(last) = last {
            let ahead = last.duration_since(Timestamp::now());
            if ahead > AHEAD_MAX {
                tracing::error!(
                    "the last event is dated {last}, more than a day ahead of this machine's clock: check the clock; timers are delayed until then"
                );
            } else if ahead.is_positive() {
                tracing::warn!(
                    "the clock was set back: time continues from the last event, {last}"
                );
                clock.at(last, Instant::now());
            }
        }
        clock
    }

    fn at(&self, wall: Timestamp, monotonic: Instant) -> Timestamp {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = SignedDuration::try_from(monotonic.saturating_duration_since(base.1))
            .unwrap_or_default();
        let expected = base.0.saturating_add(elapsed).unwrap_or(base.0);
        let now = expected.max(wall);
        *base = (now, monotonic.max(base.1));
        now
    }
}

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        self.at(Timestamp::now(), Instant::now())
    }

    async fn sleep_until(&self, at: Timestamp) {
        loop {
            match std::time::Duration::try_from(at.duration_since(self.now())) {
                Ok(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }
}

/// A clock that is moved by tests. Sleepers are woken in the order of their times, then of their calls, so that a
/// single-threaded simulation is deterministic.
#[derive(Debug)]
pub struct ManualClock(Mutex<SleeperQueue>);

#[derive(Debug)]
struct SleeperQueue {
    now: Timestamp,
    asleep: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    /// Distinguishes sleepers with the same time.
    count: u64,
}

impl ManualClock {
    /// Creates a clock at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(SleeperQueue {
            now,
            asleep: BTreeMap::new(),
            count: 0,
        }))
    }

    /// Moves the clock to `at`; earlier times are ignored.
    pub fn set(&self, at: Timestamp) {
        let mut sleepers = self.lock();
        sleepers.now = at.max(sleepers.now);
        while let Some(next) = sleepers.asleep.first_entry() {
            if next.key().0 > at {
                break;
            }
            // The sleeper may have been dropped.
            let _ = next.remove().send(());
        }
        sleepers.asleep.retain(|_, sleeper| !sleeper.is_closed());
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: SignedDuration) {
        let now = self.lock().now;
        self.set(now.saturating_add(by).unwrap_or(now));
    }

    fn lock(&self) -> MutexGuard<'_, SleeperQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    async fn sleep_until(&self, at: Timestamp) {
        let timer_fired = {
            let mut sleepers = self.lock();
            if at <= sleepers.now {
                return;
            }
            let (sleeper, timer_fired) = oneshot::channel();
            sleepers.count += 1;
            let key = (at, sleepers.count);
            sleepers.asleep.insert(key, sleeper);
            timer_fired
        };
        // The sender is owned by `self`: it isn't dropped.
        let _ = timer_fired.await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wall_clock_set_back_does_not_stop_the_time() {
        let clock = RealClock::default();
        let (start, tick) = *clock.base.lock().unwrap();
        let hour = SignedDuration::from_hours(1);
        let back = clock.at(start - hour, tick + Duration::from_secs(5));
        assert_eq!(back, start + SignedDuration::from_secs(5));
        let forward = clock.at(start + hour, tick + Duration::from_secs(6));
        assert_eq!(forward, start + hour, "a clock set forward is followed");
        assert_eq!(
            clock.at(start, tick + Duration::from_secs(8)),
            forward + SignedDuration::from_secs(2)
        );
    }
}
