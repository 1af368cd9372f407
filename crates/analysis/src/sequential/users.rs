//! Failed users, each counted once: the unit of error and slow-rate comparisons if users are identified.
//!
//! # Why
//! A hash assigns each user to a side independently. So the first failure of a user is the canary's with probability equal to its
//! weight, however often the user comes, retries or fails. Requests don't have that property: a robot that requests a broken page
//! every second may be on the canary by chance, and by request that is a regression beyond doubt.
//!
//! # Invariants
//! A user who failed on either side is never counted again on the other, so a rising weight doesn't turn users who always fail into
//! new failures.
//!
//! # Failure modes
//! Few users carry little information. If the canary looks worse by request and most of its failures come from users counted
//! before, the comparison is inconclusive ([`FailedUserState::is_caused_by_few_users`]).

use serde::{Deserialize, Serialize};

use super::{ObservedPair, SequentialComparison};
use crate::evidence::ratio::{NewlyFailedUsers, RatioEvidence};

/// Counts of failed users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct FailedUserState {
    /// Counts of the previous observation; `None` if it had no user counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<UserCounts>,
    /// Users of the canary and of stable that were counted over the whole rollout.
    all: (u64, u64),
    /// Those of this hold.
    hold: (u64, u64),
}

/// Failed users of both sides, from any fixed point in time on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UserCounts {
    /// The canary's share of the users of both sides.
    share: f64,
    canary: u64,
    stable: u64,
}

impl UserCounts {
    /// The user counts of an observation; `None` without them, or if all users are on one side.
    pub(super) fn from_pair(judge: &SequentialComparison, seen: &ObservedPair<'_>) -> Option<Self> {
        if !judge.is_by_user() {
            return None;
        }
        let (canary, stable) = (seen.canary.users.as_ref()?, seen.stable.users.as_ref()?);
        let weights = f64::from(canary.weight) + f64::from(stable.weight);
        let share = f64::from(canary.weight) / weights;
        (share > 0.0 && share < 1.0).then_some(Self {
            share,
            canary: canary.failed(judge.metric)?,
            stable: stable.failed(judge.metric)?,
        })
    }
}

impl FailedUserState {
    pub(super) fn is_new(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn start_hold(&mut self) {
        self.hold = (0, 0);
    }

    /// Users who failed since the previous observation. If the weight changed in between, the weight at the time of a failure is
    /// unknown, so these users are left out on both sides.
    pub(super) fn take_in(&mut self, now: UserCounts) -> NewlyFailedUsers {
        let before = self.last.replace(now);
        let (canary, stable) = match before {
            Some(before) if before.share.to_bits() == now.share.to_bits() => (
                // The proxy was restarted: its whole count is new.
                now.canary.checked_sub(before.canary).unwrap_or(now.canary),
                now.stable.checked_sub(before.stable).unwrap_or(now.stable),
            ),
            Some(_) | None => (0, 0),
        };
        for sum in [&mut self.all, &mut self.hold] {
            sum.0 = sum.0.saturating_add(canary);
            sum.1 = sum.1.saturating_add(stable);
        }
        NewlyFailedUsers {
            canary,
            stable,
            share: now.share,
        }
    }

    /// Sets the baseline for the next observation without counting; `None` if users aren't counted.
    pub(super) fn skip_to(&mut self, now: Option<UserCounts>) {
        self.last = now;
    }

    /// How many users failed on the canary over the whole rollout; `None` where users aren't counted.
    pub(super) fn canary_users(&self) -> Option<u64> {
        self.last.map(|_| self.all.0)
    }

    /// Whether the canary looks worse by request in this hold while most of its failures come from users counted before.
    pub(super) fn is_caused_by_few_users(
        &self,
        judge: &SequentialComparison,
        hold: &RatioEvidence,
        all: &RatioEvidence,
    ) -> bool {
        // Stable may have no requests any more.
        let (canary, stable) = (hold.canary(), all.stable());
        let are_repeats = canary.events > self.hold.0.saturating_mul(2);
        self.last.is_some() && are_repeats && {
            let mut by_request = judge.test.start();
            by_request.record(&judge.test, canary, stable);
            by_request.log_worse(&judge.test) >= judge.alpha.log_limit()
        }
    }

    /// Whether the request counts agree that the canary is no worse than tolerated.
    pub(super) fn agrees_with_requests(
        &self,
        judge: &SequentialComparison,
        hold: &RatioEvidence,
    ) -> bool {
        let (canary, stable) = (hold.canary().rate(), hold.stable().rate());
        self.last.is_none() || canary <= judge.test.tolerance() * stable
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        CountingUnit, FailedUsers, Judge, Judgement, Metric, Observation, ReleaseSample, Sample,
        Verdict, evidence::Alpha, sequential,
    };

    fn judge(alpha: f64) -> SequentialComparison {
        let (alpha, beta) = (Alpha::new(alpha).unwrap(), Alpha::new(0.05).unwrap());
        SequentialComparison::new(Metric::ErrorRate, alpha, beta, 1.0, 2.0).unwrap()
    }

    /// Requests, errors and users of one side, from the beginning.
    #[derive(Clone, Copy, Default)]
    struct Sums {
        requests: u64,
        errors: u64,
        users: u64,
    }

    fn seen(second: i64, weight: u32, [canary, stable]: [Sums; 2]) -> Observation {
        let side = |release: &str, weight, sums: Sums| ReleaseSample {
            release: release.to_owned(),
            sample: Some(Sample {
                requests: sums.requests,
                errors: sums.errors,
                users: Some(FailedUsers {
                    weight,
                    errors: sums.users,
                    ..FailedUsers::default()
                }),
                ..Sample::default()
            }),
        };
        Observation {
            at: Timestamp::from_second(second).unwrap(),
            canary: side("#3", weight, canary),
            stable: Some(side("#2", 10_000 - weight, stable)),
        }
    }

    fn sums(requests: u64, errors: u64, users: u64) -> Sums {
        Sums {
            requests,
            errors,
            users,
        }
    }

    /// One of a service's users: where the hash puts them, how often they come and how often they fail, whatever the release.
    struct User {
        bucket: u32,
        comes: f64,
        fails: f64,
        has_failed: bool,
    }

    /// A release as good as stable, for users who differ: a few come all the time, and some of those always fail. Whether it is
    /// failed, judged by user and by request.
    fn wrongly_failed(random: &mut Rng, alpha: f64) -> [bool; 2] {
        let mut users: Vec<User> = (0..300)
            .map(|user| User {
                bucket: random.u32(0..10_000),
                comes: if user % 10 == 0 { 0.9 } else { 0.05 },
                fails: if user % 30 == 0 { 1.0 } else { 0.01 },
                has_failed: false,
            })
            .collect();
        let judges =
            [CountingUnit::Users, CountingUnit::Requests].map(|unit| SequentialComparison {
                unit,
                ..judge(alpha)
            });
        let mut states = [
            sequential::SequentialState::default(),
            sequential::SequentialState::default(),
        ];
        let (mut sides, mut is_failed) = ([Sums::default(); 2], [false; 2]);
        for second in 0..90 {
            let weight = [100, 1_000, 5_000][second / 30];
            for user in &mut users {
                let side = &mut sides[usize::from(user.bucket >= weight)];
                let requests = u64::from(random.f64() < user.comes);
                let errors = u64::from(random.f64() < user.fails) * requests;
                side.requests += requests;
                side.errors += errors;
                if errors > 0 && !std::mem::replace(&mut user.has_failed, true) {
                    side.users += 1;
                }
            }
            let observation = seen(second as i64, weight, sides);
            for (place, judge) in judges.iter().enumerate() {
                if second % 30 == 0 {
                    SequentialComparison::start_hold(&mut states[place]);
                }
                let judged = judge.observe(&mut states[place], &observation);
                is_failed[place] |= judged.verdict.is_fail();
            }
        }
        is_failed
    }

    #[test]
    fn users_who_always_fail_are_no_regression_by_user_though_they_are_by_request() {
        let (mut random, rollouts, alpha) = (Rng::with_seed(7), 400, 0.05);
        let mut wrong = [0; 2];
        for _ in 0..rollouts {
            for (sum, failed) in wrong.iter_mut().zip(wrongly_failed(&mut random, alpha)) {
                *sum += u32::from(failed);
            }
        }
        let most = alpha * f64::from(rollouts);
        assert!(f64::from(wrong[0]) <= most, "by user: {}", wrong[0]);
        assert!(f64::from(wrong[1]) > 2.0 * most, "by request: {}", wrong[1]);
    }

    fn told(judged: &Judgement) -> &str {
        judged.verdict.why()
    }

    #[test]
    fn a_regression_that_many_users_meet_fails_and_says_how_many() {
        let mut state = sequential::SequentialState::default();
        let begun = [sums(0, 0, 0), sums(0, 0, 0)];
        judge(0.01).observe(&mut state, &seen(0, 1_000, begun));
        let bad = [sums(600, 60, 12), sums(5_400, 9, 3)];
        let judged = judge(0.01).observe(&mut state, &seen(10, 1_000, bad));
        assert!(judged.verdict.is_fail(), "{judged:?}");
        assert!(
            told(&judged).starts_with(
                "error rate of #3 is worse than #2: 10% vs 0.17% (60 of 600 requests, 12 users); odds "
            ),
            "{}",
            told(&judged)
        );
    }

    #[test]
    fn one_users_burst_neither_fails_nor_passes() {
        let mut state = sequential::SequentialState::default();
        let begun = [sums(0, 0, 0), sums(0, 0, 0)];
        judge(0.01).observe(&mut state, &seen(0, 1_000, begun));
        let burst = [sums(600, 400, 1), sums(5_400, 9, 3)];
        let judged = judge(0.01).observe(&mut state, &seen(10, 1_000, burst));
        assert!(
            matches!(judged.verdict, Verdict::Inconclusive { .. }),
            "{judged:?}"
        );
        assert_eq!(
            told(&judged),
            "error rate of #3 may be worse than #2: 66.7% vs 0.17% (400 of 600 requests, 1 user); too few users to tell whether the release or a single user is the cause"
        );
    }

    #[test]
    fn traffic_of_one_user_alone_is_nothing_to_compare() {
        let mut state = sequential::SequentialState::default();
        for second in 0..60 {
            let alone = [sums(100 * second, 100 * second, 1), sums(0, 0, 0)];
            let judged = judge(0.01).observe(&mut state, &seen(second as i64, 1_000, alone));
            let is_doubted = matches!(judged.verdict, Verdict::Inconclusive { .. });
            assert!(is_doubted || second == 0, "{judged:?}");
        }
    }

    #[test]
    fn between_two_weights_and_after_a_restart_of_the_proxy_users_are_counted_as_far_as_is_known() {
        let mut state = FailedUserState::default();
        let told = |share, canary, stable| UserCounts {
            share,
            canary,
            stable,
        };
        let mut firsts = |now| {
            let firsts = state.take_in(now);
            (firsts.canary, firsts.stable)
        };
        assert_eq!(firsts(told(0.1, 5, 50)), (0, 0), "the first look begins");
        assert_eq!(firsts(told(0.1, 6, 52)), (1, 2));
        assert_eq!(firsts(told(0.5, 9, 60)), (0, 0), "which weight was it?");
        assert_eq!(firsts(told(0.5, 3, 4)), (3, 4), "a new proxy");
        assert_eq!(state.all, (4, 6));
        state.start_hold();
        assert_eq!((state.hold, state.all), ((0, 0), (4, 6)));
    }

    #[test]
    fn where_all_users_have_one_side_or_somebody_asks_for_requests_it_is_not_by_user() {
        let sides = [sums(100, 1, 1), sums(100, 1, 1)];
        let by_user = |judge: &SequentialComparison, weight| {
            let observation = seen(0, weight, sides);
            let (canary, stable) = (&observation.canary, observation.stable.as_ref().unwrap());
            let looked = ObservedPair {
                at: observation.at,
                canary: canary.sample.as_ref().unwrap(),
                stable: stable.sample.as_ref().unwrap(),
                names: ("#3", "#2"),
            };
            UserCounts::from_pair(judge, &looked).is_some()
        };
        assert!(by_user(&judge(0.01), 1));
        assert!(!by_user(&judge(0.01), 0) && !by_user(&judge(0.01), 10_000));
        let mut other = judge(0.01);
        other.unit = CountingUnit::Requests;
        assert!(!by_user(&other, 1_000));
        other.unit = CountingUnit::Users;
        other.metric = Metric::SLOW_RATE;
        assert!(!by_user(&other, 1_000), "no slow users were counted");
    }
}
