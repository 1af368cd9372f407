//! The world of one rollout: its requests, failures and latencies. The same seed gives the same world.
//!
//! ```
//! use shipway_sim::{traffic::SimulatedTraffic, world::{SimulatedScenario, SimulatedWorld}};
//! let scenario = SimulatedScenario { traffic: SimulatedTraffic::default(), ..SimulatedScenario::default() };
//! let (one, same) = (SimulatedWorld::new(&scenario, 3), SimulatedWorld::new(&scenario, 3));
//! assert_eq!(one.second(17, 0.1), same.second(17, 0.1));
//! ```

use crate::{
    random::SeededRandom,
    regression::{AffectedSides, Regression},
    traffic::SimulatedTraffic,
};

/// Steps of the share that users are spread over.
const CELLS: usize = 200;

/// What all rollouts of a simulation have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedScenario {
    /// How many requests come.
    pub traffic: SimulatedTraffic,
    /// Their baseline error rate, 0 to 1.
    pub base: f64,
    /// The regression of the new release; `None`: it is as good as stable.
    pub regression: Option<Regression>,
    /// How many requests in a row fail for a user for whom one fails, on average; 1: each by itself.
    pub burst: f64,
    /// The end of the simulation, until which harmed requests are counted, in seconds.
    pub horizon: u32,
}

impl Default for SimulatedScenario {
    fn default() -> Self {
        Self {
            traffic: SimulatedTraffic::default(),
            base: 0.001,
            regression: None,
            burst: 1.0,
            horizon: 3_600,
        }
    }
}

impl SimulatedScenario {
    /// The same with a release that is as good as stable.
    #[must_use]
    pub fn healthy(&self) -> Self {
        let both = self.regression.filter(|it| it.side == AffectedSides::Both);
        Self {
            regression: both,
            ..self.clone()
        }
    }
}

/// The world of one rollout.
pub struct SimulatedWorld<'s> {
    scenario: &'s SimulatedScenario,
    seed: u64,
    users: Option<SimulatedUsers>,
}

/// One second of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideSecond {
    /// Requests.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Those of them that failed or were slow because of the regression.
    pub harmed: u64,
    /// The share of the requests that took longer because of the regression,
    pub slow_share: f64,
    /// and how much longer, in milliseconds.
    pub slower_ms: f64,
}

/// One second of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SimulatedSecond {
    /// On the new release.
    pub canary: SideSecond,
    /// On the stable one.
    pub stable: SideSecond,
}

/// Users who stay on their side: cumulated activity by the point on the split's scale where they are. Raising the weight only
/// ever adds users.
struct SimulatedUsers {
    /// Of those whom the regression touches, when it touches some.
    touched: Vec<f64>,
    others: Vec<f64>,
}

impl SimulatedUsers {
    /// Users whose activity varies as that of people: many with little, few with much.
    fn draw(seed: u64, count: u32, touched: f64) -> Self {
        let path = |part: f64, purpose: u64| {
            let mut random = SeededRandom::for_purpose(&[seed, purpose]);
            let each = f64::from(count) * part / CELLS as f64;
            let mut sum = 0.0;
            let mut path = vec![0.0];
            for _ in 0..CELLS {
                sum += if each > 0.0 { random.gamma(each) } else { 0.0 };
                path.push(sum);
            }
            path
        };
        Self {
            touched: path(touched, 21),
            others: path(1.0 - touched, 22),
        }
    }

    fn at(path: &[f64], weight: f64) -> f64 {
        let place = weight.clamp(0.0, 1.0) * CELLS as f64;
        let cell = (place as usize).min(CELLS - 1);
        path[cell] + (path[cell + 1] - path[cell]) * (place - cell as f64)
    }

    /// The canary's share of the requests, and the share of the affected users' requests among them.
    fn shares(&self, weight: f64) -> (f64, f64) {
        let (touched, others) = (
            Self::at(&self.touched, weight),
            Self::at(&self.others, weight),
        );
        let all = self.touched[CELLS] + self.others[CELLS];
        let canary = touched + others;
        (
            canary / all.max(f64::MIN_POSITIVE),
            touched / canary.max(f64::MIN_POSITIVE),
        )
    }
}

impl<'s> SimulatedWorld<'s> {
    /// The world of the rollout with this seed.
    #[must_use]
    pub fn new(scenario: &'s SimulatedScenario, seed: u64) -> Self {
        let touched = scenario
            .regression
            .filter(|it| it.by_user)
            .map_or(0.0, |it| it.affected);
        let users = (scenario.traffic.users > 0)
            .then(|| SimulatedUsers::draw(seed, scenario.traffic.users, touched));
        Self {
            scenario,
            seed,
            users,
        }
    }

    /// Second `at`, counted from 1, at this weight of the new release.
    #[must_use]
    pub fn second(&self, at: u32, weight: f64) -> SimulatedSecond {
        let mut random = SeededRandom::for_purpose(&[self.seed, u64::from(at), 31]);
        let requests = random.poisson(self.scenario.traffic.expected(self.seed, at));
        let (share, touched) = self.shares(weight);
        let of_canary = random.binomial(requests, share);
        let regression = self.scenario.regression.as_ref();
        let canary = self.half(&mut random, of_canary, at, regression, touched);
        let both = regression.filter(|it| it.side == AffectedSides::Both);
        let stable = self.half(
            &mut random,
            requests - of_canary,
            at,
            both,
            both.map_or(0.0, |it| it.affected),
        );
        SimulatedSecond { canary, stable }
    }

    fn shares(&self, weight: f64) -> (f64, f64) {
        let affected = self.scenario.regression.map_or(0.0, |it| it.affected);
        match &self.users {
            None => (weight, affected),
            Some(users) => {
                let (share, touched) = users.shares(weight);
                let by_user = self.scenario.regression.is_some_and(|it| it.by_user);
                (share, if by_user { touched } else { affected })
            }
        }
    }

    fn half(
        &self,
        random: &mut SeededRandom,
        requests: u64,
        at: u32,
        regression: Option<&Regression>,
        touched: f64,
    ) -> SideSecond {
        let base = self.scenario.base;
        let usual = self.failed(random, requests, base);
        let Some(regression) = regression else {
            return SideSecond {
                requests,
                errors: usual,
                ..SideSecond::default()
            };
        };
        let failing = regression.failing(base, at) * touched;
        let more = self.failed(random, requests - usual, failing);
        let slower_ms = regression.slower(at);
        let slow = if slower_ms > 0.0 {
            random.binomial(requests, touched)
        } else {
            0
        };
        SideSecond {
            requests,
            errors: usual + more,
            harmed: more + slow,
            slow_share: touched,
            slower_ms,
        }
    }

    /// How many fail: one by one, or for some users several in a row.
    fn failed(&self, random: &mut SeededRandom, requests: u64, rate: f64) -> u64 {
        let burst = self.scenario.burst.max(1.0);
        if burst <= 1.0 {
            return random.binomial(requests, rate);
        }
        let users = random.binomial(requests, rate / burst);
        let more: u64 = (0..users).map(|_| random.geometric(1.0 / burst)).sum();
        (users + more).min(requests)
    }

    /// How many are harmed from second `from` on until the horizon, at this weight: one draw, since the contender has finished.
    #[must_use]
    pub fn harmed_after(&self, from: u32, weight: f64) -> u64 {
        let Some(regression) = self.scenario.regression.as_ref() else {
            return 0;
        };
        let (share, touched) = self.shares(weight);
        let expected = |at: u32| {
            let hurt = if regression.slower(at) > 0.0 {
                1.0
            } else {
                regression.failing(self.scenario.base, at)
            };
            self.scenario.traffic.expected(self.seed, at) * share * touched * hurt
        };
        let sum = (from + 1..=self.scenario.horizon).map(expected).sum();
        SeededRandom::for_purpose(&[self.seed, 41]).poisson(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(scenario: &SimulatedScenario, weight: f64) -> (f64, f64, f64) {
        let (mut canary, mut errors, mut all) = (0, 0, 0);
        for seed in 0..40 {
            let world = SimulatedWorld::new(scenario, seed);
            for at in 1..=100 {
                let second = world.second(at, weight);
                canary += second.canary.requests;
                errors += second.canary.errors;
                all += second.canary.requests + second.stable.requests;
            }
        }
        (
            all as f64 / 4_000.0,
            canary as f64 / all as f64,
            errors as f64 / canary as f64,
        )
    }

    #[test]
    fn shares_and_rates_are_what_was_asked_for() {
        let mut scenario = SimulatedScenario {
            regression: Some(Regression::error_rate(0.02)),
            ..SimulatedScenario::default()
        };
        for (users, burst) in [(0, 1.0), (20_000, 1.0), (20_000, 3.0)] {
            scenario.traffic.users = users;
            scenario.burst = burst;
            let (all, share, rate) = sums(&scenario, 0.1);
            assert!((all - 100.0).abs() < 1.0, "{all}");
            assert!((share - 0.1).abs() < 0.003, "{share}");
            assert!(
                (rate - 0.02).abs() < 0.002,
                "{rate} with {users} users, {burst} in a row"
            );
        }
    }

    #[test]
    fn raising_the_weight_only_ever_adds_users() {
        let users = SimulatedUsers::draw(5, 300, 0.1);
        let mut last = 0.0;
        for weight in 0..=100 {
            let (share, touched) = users.shares(f64::from(weight) / 100.0);
            assert!(share >= last && (0.0..=1.0).contains(&touched));
            last = share;
        }
        assert!((last - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_hits_both_sides_hits_them_alike_and_a_healthy_release_keeps_it() {
        let regression = Some("error-rate=10%@both".parse().unwrap());
        let scenario = SimulatedScenario {
            regression,
            ..SimulatedScenario::default()
        };
        let world = SimulatedWorld::new(&scenario, 1);
        let (mut canary, mut stable) = (0, 0);
        for at in 1..=200 {
            let second = world.second(at, 0.5);
            canary += second.canary.errors;
            stable += second.stable.errors;
        }
        assert!(
            canary > 800 && stable > 800 && canary.abs_diff(stable) < 250,
            "{canary} {stable}"
        );
        assert_eq!(scenario.healthy(), scenario);
    }

    #[test]
    fn what_is_drawn_at_once_is_what_would_have_come_second_by_second() {
        let scenario = SimulatedScenario {
            regression: Some(Regression::error_rate(0.05)),
            horizon: 1_000,
            ..SimulatedScenario::default()
        };
        let (mut at_once, mut by_second) = (0, 0);
        for seed in 0..30 {
            let world = SimulatedWorld::new(&scenario, seed);
            at_once += world.harmed_after(400, 1.0);
            by_second += (401..=1_000)
                .map(|at| world.second(at, 1.0).canary.harmed)
                .sum::<u64>();
        }
        assert!(
            (at_once as f64 / by_second as f64 - 1.0).abs() < 0.02,
            "{at_once} {by_second}"
        );
    }
}
