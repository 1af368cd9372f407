//! Which users have failed already: each is counted once, by the release on which they first did.
//!
//! Retries and a burst of one user's errors say little about a release, since they depend on each other; and a user who always
//! fails, such as a robot asking for what never worked, would speak against the side it happens to be on again and again. First
//! failures of users don't: who is on which side is drawn by a hash, so each is the canary's with the probability of its weight,
//! whatever users do. What one side knows the other must know too: the set is the route's, not the release's.
//!
//! What it must never do: cost anything while all goes well. Nothing is looked up before an answer is an error or slow, and the
//! table is made at the first.

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

use crate::counters::{Answered, ReleaseCounters};

/// Places of the table; half of them may be taken. Beyond it nobody is counted, on neither side: 65,536 users who failed have said
/// what there is to say.
const SLOTS: usize = 1 << 17;

/// The users of a route during one rollout.
#[derive(Debug)]
pub(crate) struct Users {
    salt: String,
    /// Those who were answered with an error.
    errors: Seen,
    /// Those who waited longer than this.
    slow: Vec<(Duration, Seen)>,
}

impl Users {
    /// Nobody yet. `salt` is what users are hashed with: another one draws anew, and then everybody is new.
    pub(crate) fn new(salt: &str, slow_over_micros: &[u64]) -> Self {
        Self {
            salt: salt.to_owned(),
            errors: Seen::default(),
            slow: slow_over_micros
                .iter()
                .map(|micros| (Duration::from_micros(*micros), Seen::default()))
                .collect(),
        }
    }

    /// Whether this counts what is asked for.
    pub(crate) fn fits(&self, salt: &str, slow_over_micros: &[u64]) -> bool {
        let limits = slow_over_micros.iter().copied().map(Duration::from_micros);
        self.salt == salt && limits.eq(self.slow.iter().map(|(limit, _)| *limit))
    }

    /// An answer to this user is over.
    pub(crate) fn answered(&self, user: u32, answer: &Answered, counters: &ReleaseCounters) {
        self.met(user, answer.is_failure(), answer.took, counters);
    }

    /// A request of this user has waited for so long, or had waited for so long when the user gave up.
    pub(crate) fn met(
        &self,
        user: u32,
        is_failure: bool,
        waited: Duration,
        counters: &ReleaseCounters,
    ) {
        if is_failure && self.errors.is_first(user) {
            counters.first_error();
        }
        for (limit, seen) in &self.slow {
            if waited > *limit && seen.is_first(user) {
                counters.first_slow(*limit);
            }
        }
    }
}

/// A set that only grows: hashes of users in an open table. Two users of one hash are one: of 65,536 users, about one is.
#[derive(Debug, Default)]
struct Seen {
    slots: OnceLock<Box<[AtomicU32]>>,
    taken: AtomicUsize,
}

impl Seen {
    /// Puts a user in; whether it wasn't there. A full set takes nobody.
    fn is_first(&self, user: u32) -> bool {
        let slots = self
            .slots
            .get_or_init(|| (0..SLOTS).map(|_| AtomicU32::new(0)).collect());
        // 0 is a free place.
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
                // Another worker was faster: with this very user, or else the next place is tried.
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

    fn answer(status: u16, millis: u64) -> Answered {
        Answered {
            status,
            took: Duration::from_millis(millis),
            is_late: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[test]
    fn each_user_is_counted_once_whatever_side_comes_next() {
        let users = Users::new("shop/7", &[500_000]);
        let (canary, stable) = (
            ReleaseCounters::counting(&[500_000]),
            ReleaseCounters::counting(&[500_000]),
        );
        for _ in 0..100 {
            users.answered(7, &answer(503, 1), &canary);
            users.answered(7, &answer(503, 1), &stable);
            users.answered(7, &answer(200, 501), &stable);
            users.answered(8, &answer(200, 500), &stable);
        }
        users.answered(0, &answer(500, 1), &stable);
        let told = |counters: &ReleaseCounters| counters.users().unwrap();
        assert_eq!((told(&canary).errors, told(&stable).errors), (1, 1));
        assert_eq!(told(&canary).slow[&500_000], 0);
        assert_eq!(told(&stable).slow[&500_000], 1);
    }

    #[test]
    fn another_rollout_draws_anew_and_another_limit_counts_anew() {
        let users = Users::new("shop/7", &[500_000]);
        assert!(users.fits("shop/7", &[500_000]));
        assert!(!users.fits("shop/8", &[500_000]));
        assert!(!users.fits("shop/7", &[]));
    }

    #[test]
    fn workers_that_race_count_nobody_twice_and_nobody_too_little() {
        let seen = Arc::new(Seen::default());
        let worker = |seen: Arc<Seen>| move || (1..=20_000).filter(|it| seen.is_first(*it)).count();
        let workers: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(worker(seen.clone())))
            .collect();
        let counted: usize = workers.into_iter().map(|it| it.join().unwrap()).sum();
        assert_eq!(counted, 20_000);
    }

    #[test]
    fn a_full_set_takes_nobody_and_still_ends() {
        let seen = Seen::default();
        let users = SLOTS as u32;
        let counted = (1..=users).filter(|it| seen.is_first(*it)).count();
        assert_eq!(counted, SLOTS / 2);
    }
}
