//! The users who have failed: each is counted once, by the release on which it failed first.
//!
//! # Why
//!
//! Retries and bursts of errors of one user depend on each other and say little about a release; and a user who always fails,
//! such as a bot requesting what never worked, would count against its release again and again. First failures are independent:
//! which release a user gets is drawn by a hash, so a failing user is the canary's with the probability of its weight. The set
//! belongs to the route, because both releases must know the same users.
//!
//! # Invariants
//!
//! No cost while all requests succeed: nothing is looked up before a response is an error or slow, and the table is allocated at
//! the first.

use std::{
    sync::{
        OnceLock,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use crate::release_counters::{CompletedResponse, ReleaseCounters};

/// Slots of the table, filled to one half at most. Beyond that no user is counted on any release: 65,536 failed users are enough
/// evidence.
const SLOTS: usize = 1 << 17;

/// The failed users of a route during one rollout.
#[derive(Debug)]
pub(crate) struct FailedUsers {
    salt: String,
    /// Users who got an error.
    errors: UserSet,
    /// Users who waited longer than each limit.
    slow: Vec<(Duration, UserSet)>,
}

impl FailedUsers {
    /// An empty set. `salt` is the salt of the users' hashes: with another salt all users are new.
    pub(crate) fn new(salt: &str, slow_over_micros: &[u64]) -> Self {
        Self {
            salt: salt.to_owned(),
            errors: UserSet::default(),
            slow: slow_over_micros
                .iter()
                .map(|micros| (Duration::from_micros(*micros), UserSet::default()))
                .collect(),
        }
    }

    /// Whether this was made with the same settings.
    pub(crate) fn has_settings(&self, salt: &str, slow_over_micros: &[u64]) -> bool {
        let limits = slow_over_micros.iter().copied().map(Duration::from_micros);
        self.salt == salt && limits.eq(self.slow.iter().map(|(limit, _)| *limit))
    }

    /// Records a response to this user.
    pub(crate) fn record_response(
        &self,
        user: u32,
        answer: &CompletedResponse,
        counters: &ReleaseCounters,
    ) {
        if answer.is_failure() {
            self.record_failure(user, counters);
        }
        self.record_wait(user, answer.took, counters);
    }

    /// Records that a request of this user failed.
    pub(crate) fn record_failure(&self, user: u32, counters: &ReleaseCounters) {
        if self.errors.insert(user) {
            counters.record_first_error();
        }
    }

    /// Records that a request of this user has waited for this long.
    pub(crate) fn record_wait(&self, user: u32, waited: Duration, counters: &ReleaseCounters) {
        for (limit, seen) in &self.slow {
            if waited > *limit && seen.insert(user) {
                counters.record_first_slow(*limit);
            }
        }
    }
}

/// A grow-only set of user hashes in an open-addressing table. Users with equal hashes count as one: about one in 65,536.
#[derive(Debug, Default)]
struct UserSet {
    slots: OnceLock<Box<[AtomicU32]>>,
    taken: AtomicUsize,
}

impl UserSet {
    /// Inserts a user; returns whether it is new. A full set accepts none.
    fn insert(&self, user: u32) -> bool {
        let slots = self
            .slots
            .get_or_init(|| (0..SLOTS).map(|_| AtomicU32::new(0)).collect());
        // 0 marks an empty slot.
        let user = user.max(1);
        let begin = user as usize % SLOTS;
        for place in (begin..SLOTS).chain(0..begin) {
            match slots[place].load(Acquire) {
                0 => {}
                it if it == user => return false,
                _ => continue,
            }
            if self.taken.load(Relaxed) >= SLOTS / 2 {
                return false;
            }
            match slots[place].compare_exchange(0, user, AcqRel, Acquire) {
                Ok(_) => {
                    self.taken.fetch_add(1, Relaxed);
                    return true;
                }
                // Another worker took the slot: with the same user, or otherwise try the next slot.
                Err(it) if it == user => return false,
                Err(_) => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn answer(status: u16, millis: u64) -> CompletedResponse {
        CompletedResponse {
            status,
            took: Duration::from_millis(millis),
            is_late: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[test]
    fn each_user_is_counted_once_whatever_side_comes_next() {
        let users = FailedUsers::new("shop/7", &[500_000]);
        let (canary, stable) = (
            ReleaseCounters::with_user_counts(&[500_000]),
            ReleaseCounters::with_user_counts(&[500_000]),
        );
        for _ in 0..100 {
            users.record_response(7, &answer(503, 1), &canary);
            users.record_response(7, &answer(503, 1), &stable);
            users.record_response(7, &answer(200, 501), &stable);
            users.record_response(8, &answer(200, 500), &stable);
        }
        users.record_response(0, &answer(500, 1), &stable);
        let told = |counters: &ReleaseCounters| counters.user_counts().unwrap();
        assert_eq!((told(&canary).errors, told(&stable).errors), (1, 1));
        assert_eq!(told(&canary).slow[&500_000], 0);
        assert_eq!(told(&stable).slow[&500_000], 1);
    }

    #[test]
    fn another_rollout_draws_anew_and_another_limit_counts_anew() {
        let users = FailedUsers::new("shop/7", &[500_000]);
        assert!(users.has_settings("shop/7", &[500_000]));
        assert!(!users.has_settings("shop/8", &[500_000]));
        assert!(!users.has_settings("shop/7", &[]));
    }

    #[test]
    fn workers_that_race_count_nobody_twice_and_nobody_too_little() {
        let seen = Arc::new(UserSet::default());
        let worker =
            |seen: Arc<UserSet>| move || (1..=20_000).filter(|it| seen.insert(*it)).count();
        let workers: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(worker(seen.clone())))
            .collect();
        let counted: usize = workers.into_iter().map(|it| it.join().unwrap()).sum();
        assert_eq!(counted, 20_000);
    }

    #[test]
    fn a_full_set_takes_nobody_and_still_ends() {
        let seen = UserSet::default();
        let users = SLOTS as u32;
        let counted = (1..=users).filter(|it| seen.insert(*it)).count();
        assert_eq!(counted, SLOTS / 2);
    }
}
