//! Slows down guessing of passwords, by user name and by the address of the client.
//!
//! # Invariants
//!
//! - After some failures further logins are refused for a time that doubles with each failure, up to a minute: guesses of an attacker
//!   lock no user out for long.
//! - A refused login is not counted, and its password is not checked.
//! - The number of entries is bounded; the oldest is dropped.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// Failures without a wait, for a user name.
const USER_FAILURES: u32 = 5;
/// The same for an address, which several people may share.
const ADDRESS_FAILURES: u32 = 20;
/// The longest wait.
const WAIT_SECONDS_MAX: i64 = 60;
/// Failures are forgotten after this time without another one.
const MEMORY: SignedDuration = SignedDuration::from_mins(60);
/// Entries at most.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of a user name that are compared: an unknown name can be of any length.
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LimitedParty {
    User(String),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct LoginFailures {
    count: u32,
    last: Timestamp,
}

/// Failed logins of the last hour.
#[derive(Debug, Default)]
pub(super) struct LoginLimiter {
    failures: Mutex<BTreeMap<LimitedParty, LoginFailures>>,
}

impl LoginLimiter {
    /// The number of seconds to wait before the next login; none when it may be tried now.
    pub(super) fn wait_seconds(
        &self,
        user: Option<&str>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<i64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = parties(user, address)
            .into_iter()
            .filter_map(|(party, free)| {
                let known = failures.get(&party)?;
                let excess = known.count.checked_sub(free)?;
                let wait = 1i64.checked_shl(excess.min(16)).unwrap_or(WAIT_SECONDS_MAX);
                let end = known.last.as_second() + wait.min(WAIT_SECONDS_MAX);
                Some(end - now.as_second()).filter(|seconds| *seconds > 0)
            });
        waits.max()
    }

    pub(super) fn record_failure(
        &self,
        user: Option<&str>,
        address: Option<IpAddr>,
        now: Timestamp,
    ) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for (party, _) in parties(user, address) {
            let known = failures.get(&party).copied();
            let known = known.filter(|it| now.duration_since(it.last) < MEMORY);
            let count = known.map_or(0, |it| it.count).saturating_add(1);
            failures.insert(party, LoginFailures { count, last: now });
        }
        if failures.len() > ENTRIES_MAX {
            failures.retain(|_, it| now.duration_since(it.last) < MEMORY);
        }
        while failures.len() > ENTRIES_MAX {
            let oldest = failures.iter().min_by_key(|(_, it)| it.last);
            let Some(oldest) = oldest.map(|(party, _)| party.clone()) else {
                return;
            };
            failures.remove(&oldest);
        }
    }

    /// A login succeeded: the failures of its user are forgotten, those of the address are not.
    pub(super) fn record_success(&self, user: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&LimitedParty::User(shortened(user)));
    }
}

fn parties(user: Option<&str>, address: Option<IpAddr>) -> Vec<(LimitedParty, u32)> {
    let user = user.map(|it| (LimitedParty::User(shortened(it)), USER_FAILURES));
    let address = address.map(|it| (LimitedParty::Address(it), ADDRESS_FAILURES));
    user.into_iter().chain(address).collect()
}

fn shortened(user: &str) -> String {
    user.chars().take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_end_with_a_success() {
        let limiter = LoginLimiter::default();
        let mut now: Timestamp = "2026-11-30T09:00:00Z".parse().unwrap();
        let mut waits = Vec::new();
        for _ in 0..14 {
            limiter.record_failure(Some("ada"), None, now);
            let wait = limiter.wait_seconds(Some("ada"), None, now);
            waits.push(wait.unwrap_or(0));
            now += SignedDuration::from_secs(wait.unwrap_or(0));
            assert_eq!(limiter.wait_seconds(Some("ada"), None, now), None);
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        limiter.record_failure(Some("ada"), None, now);
        assert_eq!(limiter.wait_seconds(Some("bob"), None, now), None);
        limiter.record_success("ada");
        assert_eq!(limiter.wait_seconds(Some("ada"), None, now), None);
    }

    #[test]
    fn an_address_that_tries_many_names_waits_and_memory_is_bounded() {
        let limiter = LoginLimiter::default();
        let now: Timestamp = "2026-11-30T09:00:00Z".parse().unwrap();
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        for number in 0..ADDRESS_FAILURES {
            limiter.record_failure(Some(&format!("user{number}")), address, now);
        }
        assert!(
            limiter
                .wait_seconds(Some("someone"), address, now)
                .is_some()
        );
        assert_eq!(limiter.wait_seconds(Some("someone"), None, now), None);
        for number in 0..ENTRIES_MAX + 10 {
            let at = now + SignedDuration::from_millis(i64::try_from(number).unwrap());
            limiter.failures.lock().unwrap().insert(
                LimitedParty::User(format!("x{number}")),
                LoginFailures { count: 1, last: at },
            );
        }
        limiter.record_failure(Some(&"long".repeat(1 << 18)), None, now);
        assert!(limiter.failures.lock().unwrap().len() <= ENTRIES_MAX);
    }
}
