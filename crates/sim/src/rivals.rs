//! Models of other controllers, faithful in everything that determines when they decide: the windows, the intervals, the counts and
//! the consequences.
//!
//! - [`ArgoModel`]: Argo Rollouts' background analysis. A measurement each `interval` over the last `interval`; beyond the limit it
//!   has failed; `failed > failureLimit` aborts, holds never end early. Source: argo-rollouts `analysis/analysis.go`
//!   (`assessMetricStatus`) and `docs/features/analysis.md`.
//! - [`FlaggerModel`]: Flagger's scheduler. Each `interval` a tick: first `failedChecks >= threshold` rolls back, then the success rate of
//!   the last `interval` is checked: below the limit `failedChecks` grows and the weight stays, otherwise it rises by `stepWeight`, or
//!   at `maxWeight` the release is promoted. Source: flagger `pkg/controller/scheduler.go` (`advanceCanary`, `runCanary`).
//! - [`KayentaModel`]: Spinnaker's canary stage. A point each `step` for both sides; each `interval` all points so far are judged: the
//!   metric is `High` when the confidence interval of the Mann-Whitney location shift lies above a quarter of the estimate; with one
//!   metric the score is 100 or 0, and 0 is below `marginal`: the canary fails at once. Source: kayenta `MannWhitneyClassifier.scala`,
//!   `NetflixACAJudge.scala` (98%, 0.25). The interval is the normal approximation without correction for ties.
//! - [`KnownRateModel`]: Shipway's own evidence when stable's rate is known from its history, Wald's situation.
//!
//! Kindness to all of them: no scrape delay, no evaluation delay, no missing data; a window without requests is left out.

use shipway_analysis::evidence::{
    Alpha,
    ratio::{EventCounts, RatioEvidence, RatioTest},
};

use crate::{
    contest::{PlayedRollout, RolloutContender, RolloutEnd, play},
    policy::{HoldStep, SimulatedPolicy},
    summary::percent,
    world::{SideSecond, SimulatedSecond, SimulatedWorld},
};

/// A model of another controller with its setting, or Shipway's evidence under another assumption.
#[derive(Clone, Debug, PartialEq)]
pub enum RivalJudge {
    /// Argo Rollouts.
    Argo(WindowSetting),
    /// Flagger.
    Flagger(WeightClimb, WindowSetting),
    /// Spinnaker.
    Kayenta(KayentaSetting),
    /// Shipway's evidence against a known rate.
    Known {
        /// The weight, which stays.
        weight: f64,
        /// What stable always had.
        rate: f64,
    },
}

impl RivalJudge {
    /// Argo Rollouts as analyses are usually written: windows of a minute that must be below 1%.
    pub const ARGO: Self = Self::Argo(WindowSetting {
        interval: 60,
        max: 0.01,
        forgiven: 0,
    });
    /// The same forgiving five windows.
    pub const ARGO_FORGIVING: Self = Self::Argo(WindowSetting {
        interval: 60,
        max: 0.01,
        forgiven: 5,
    });
    /// Argo Rollouts' own example: 95% success, looked at every five minutes, three failures forgiven.
    pub const ARGO_EXAMPLE: Self = Self::Argo(WindowSetting {
        interval: 300,
        max: 0.05,
        forgiven: 3,
    });
    /// Flagger's own example: 99% success, looked at each minute, the fifth failure goes back; 10% more each minute, up to 50%.
    pub const FLAGGER: Self = Self::Flagger(
        WeightClimb {
            step: 0.1,
            top: Some(0.5),
        },
        WindowSetting {
            interval: 60,
            max: 0.01,
            forgiven: 4,
        },
    );
    /// Spinnaker with Kayenta's defaults, judged every ten minutes on a point each minute.
    pub const KAYENTA: Self = Self::Kayenta(KayentaSetting {
        interval: 600,
        step: 60,
        reach: 2.326,
    });

    /// Lets it decide one rollout over the policy's steps.
    pub(crate) fn play(
        &self,
        policy: &SimulatedPolicy,
        world: &SimulatedWorld<'_>,
        until: u32,
    ) -> PlayedRollout {
        let steps = || policy.steps();
        match self {
            Self::Argo(setting) => play(world, until, &mut ArgoModel::new(&steps(), *setting)),
            Self::Flagger(climb, setting) => {
                play(world, until, &mut FlaggerModel::new(*climb, *setting))
            }
            Self::Kayenta(judged) => play(world, until, &mut KayentaModel::new(&steps(), *judged)),
            Self::Known { weight, rate } => {
                let alpha = Alpha::new(policy.alpha()).expect("a policy's alpha is a probability");
                play(
                    world,
                    until,
                    &mut KnownRateModel::new(*weight, *rate, alpha),
                )
            }
        }
    }

    /// Its name in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Argo(_) => "Argo Rollouts",
            Self::Flagger(..) => "Flagger",
            Self::Kayenta(_) => "Kayenta",
            Self::Known { .. } => "shipway, stable's rate known",
        }
    }

    /// Its settings in a few words.
    #[must_use]
    pub fn setting(&self) -> String {
        let limit = |setting: &WindowSetting, what: &str| {
            let max = percent(setting.max);
            format!("{} s windows over {max}, {what}", setting.interval)
        };
        match self {
            Self::Argo(setting) => limit(setting, &format!("failureLimit {}", setting.forgiven)),
            Self::Flagger(_, setting) => {
                limit(setting, &format!("threshold {}", setting.forgiven + 1))
            }
            Self::Kayenta(judged) => format!(
                "every {} s, points of {} s, z {:.2}",
                judged.interval, judged.step, judged.reach
            ),
            Self::Known { rate, .. } => format!("{} from history", percent(*rate)),
        }
    }
}

/// Requests and errors of the open window.
#[derive(Clone, Copy, Debug, Default)]
struct RateWindow {
    requests: u64,
    errors: u64,
}

impl RateWindow {
    fn count(&mut self, half: &SideSecond) {
        self.requests += half.requests;
        self.errors += half.errors;
    }

    /// The error rate, and the next window begins; `None` without requests.
    fn close(&mut self) -> Option<f64> {
        let closed = std::mem::take(self);
        (closed.requests > 0).then(|| closed.errors as f64 / closed.requests as f64)
    }
}

/// Steps with fixed holds.
#[derive(Clone, Debug)]
struct HoldSchedule(Vec<HoldStep>);

impl HoldSchedule {
    /// The weight in the second that follows `at`; `None` after the last hold.
    fn weight(&self, at: u32) -> Option<f64> {
        let mut ends = 0.0;
        let mut steps = self.0.iter();
        let step = steps.find(|step| {
            ends += step.hold.as_secs_f64();
            f64::from(at) < ends
        });
        step.map(|step| step.weight)
    }
}

/// How a judge of windows is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowSetting {
    /// From one measurement to the next, and how long it looks back, in seconds.
    pub interval: u32,
    /// The error rate that is not to be exceeded.
    pub max: f64,
    /// Measurements that may fail.
    pub forgiven: u32,
}

/// Argo Rollouts' threshold analysis.
pub struct ArgoModel {
    schedule: HoldSchedule,
    setting: WindowSetting,
    at: u32,
    window: RateWindow,
    failed: u32,
    /// Measurements, in order.
    pub measured: Vec<f64>,
}

impl ArgoModel {
    /// Over these steps.
    #[must_use]
    pub fn new(steps: &[HoldStep], setting: WindowSetting) -> Self {
        Self {
            schedule: HoldSchedule(steps.to_vec()),
            setting,
            at: 0,
            window: RateWindow::default(),
            failed: 0,
            measured: Vec::new(),
        }
    }
}

impl RolloutContender for ArgoModel {
    fn weight(&self) -> f64 {
        self.schedule.weight(self.at).unwrap_or(1.0)
    }

    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        self.at = at;
        self.window.count(&seen.canary);
        if at.is_multiple_of(self.setting.interval)
            && let Some(rate) = self.window.close()
        {
            self.measured.push(rate);
            self.failed += u32::from(rate > self.setting.max);
            if self.failed > self.setting.forgiven {
                return Some(RolloutEnd::RolledBack);
            }
        }
        self.schedule
            .weight(at)
            .is_none()
            .then_some(RolloutEnd::Promoted)
    }
}

/// How far and how fast Flagger goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightClimb {
    /// By how much the weight rises each tick; 0 to 1.
    pub step: f64,
    /// The weight at which it promotes; `None`: it stays at the first weight.
    pub top: Option<f64>,
}

/// Flagger's ticks. `forgiven + 1` is its `threshold`.
pub struct FlaggerModel {
    climb: WeightClimb,
    setting: WindowSetting,
    weight: f64,
    window: RateWindow,
    failed: u32,
    /// Measurements, in order.
    pub measured: Vec<f64>,
}

impl FlaggerModel {
    /// From the first tick on, which gives the release its first weight.
    #[must_use]
    pub fn new(climb: WeightClimb, setting: WindowSetting) -> Self {
        Self {
            climb,
            setting,
            weight: climb.step,
            window: RateWindow::default(),
            failed: 0,
            measured: Vec::new(),
        }
    }
}

impl RolloutContender for FlaggerModel {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        self.window.count(&seen.canary);
        if !at.is_multiple_of(self.setting.interval) {
            return None;
        }
        if self.failed > self.setting.forgiven {
            return Some(RolloutEnd::RolledBack);
        }
        let rate = self.window.close()?;
        self.measured.push(rate);
        if rate > self.setting.max {
            self.failed += 1;
            return None;
        }
        match self.climb.top {
            Some(top) if self.weight >= top - 1e-9 => Some(RolloutEnd::Promoted),
            Some(top) => {
                self.weight = (self.weight + self.climb.step).min(top);
                None
            }
            None => None,
        }
    }
}

/// How Kayenta is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KayentaSetting {
    /// From one judgement to the next, in seconds.
    pub interval: u32,
    /// From one point of the series to the next, in seconds.
    pub step: u32,
    /// How many standard deviations the confidence interval reaches; 2.326 is 98%.
    pub reach: f64,
}

/// Kayenta's judge.
pub struct KayentaModel {
    schedule: HoldSchedule,
    judged: KayentaSetting,
    at: u32,
    windows: (RateWindow, RateWindow),
    canary: Vec<f64>,
    stable: Vec<f64>,
}

/// The share of the estimated shift that must be exceeded.
const FRACTION: f64 = 0.25;

impl KayentaModel {
    /// Over these steps.
    #[must_use]
    pub fn new(steps: &[HoldStep], judged: KayentaSetting) -> Self {
        Self {
            schedule: HoldSchedule(steps.to_vec()),
            judged,
            at: 0,
            windows: Default::default(),
            canary: Vec::new(),
            stable: Vec::new(),
        }
    }

    fn is_high(&self) -> bool {
        let (n, m) = (self.canary.len(), self.stable.len());
        let pairs = (n * m) as f64;
        let spread = libm::sqrt(pairs * (n + m + 1) as f64 / 12.0);
        // The interval's lower end is this difference in order; below the first there is none.
        let place = (pairs / 2.0 - 0.5 - self.judged.reach * spread).floor();
        if place < 1.0 {
            return false;
        }
        let mut shifts: Vec<f64> = self
            .canary
            .iter()
            .flat_map(|c| self.stable.iter().map(move |s| c - s))
            .collect();
        let (_, low, _) = shifts.select_nth_unstable_by(place as usize - 1, f64::total_cmp);
        let low = *low;
        let (_, estimate, _) = shifts.select_nth_unstable_by(n * m / 2, f64::total_cmp);
        low > FRACTION * estimate.abs()
    }
}

impl RolloutContender for KayentaModel {
    fn weight(&self) -> f64 {
        self.schedule.weight(self.at).unwrap_or(1.0)
    }

    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        self.at = at;
        self.windows.0.count(&seen.canary);
        self.windows.1.count(&seen.stable);
        if at.is_multiple_of(self.judged.step) {
            self.canary.extend(self.windows.0.close());
            self.stable.extend(self.windows.1.close());
        }
        if at.is_multiple_of(self.judged.interval) && self.is_high() {
            return Some(RolloutEnd::RolledBack);
        }
        self.schedule
            .weight(at)
            .is_none()
            .then_some(RolloutEnd::Promoted)
    }
}

/// Evidence against a rate that is known.
pub struct KnownRateModel {
    weight: f64,
    rate: f64,
    test: RatioTest,
    limit: f64,
    evidence: RatioEvidence,
}

impl KnownRateModel {
    /// At a weight that stays; `rate` is what stable always had.
    #[must_use]
    pub fn new(weight: f64, rate: f64, alpha: Alpha) -> Self {
        let test = RatioTest::new(1.0, 2.0).expect("the defaults can be told apart");
        Self {
            weight,
            rate,
            test,
            limit: alpha.log_limit(),
            evidence: test.start(),
        }
    }
}

impl RolloutContender for KnownRateModel {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn second(&mut self, _at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd> {
        let counted = EventCounts {
            events: seen.canary.errors,
            of: seen.canary.requests,
        };
        self.evidence
            .record_against_rate(&self.test, counted, self.rate);
        (self.evidence.log_worse(&self.test) >= self.limit).then_some(RolloutEnd::RolledBack)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn steps() -> Vec<HoldStep> {
        vec![HoldStep {
            weight: 0.1,
            hold: Duration::from_secs(3_600),
        }]
    }

    fn half(requests: u64, errors: u64) -> SideSecond {
        SideSecond {
            requests,
            errors,
            ..SideSecond::default()
        }
    }

    /// What it does when each second has these errors in ten requests.
    fn runs(
        contender: &mut impl RolloutContender,
        errors: impl Fn(u32) -> u64,
        seconds: u32,
    ) -> Option<(u32, RolloutEnd)> {
        (1..=seconds).find_map(|at| {
            let seen = SimulatedSecond {
                canary: half(10, errors(at)),
                stable: half(90, u64::from(at % 3 == 0)),
            };
            contender.second(at, &seen).map(|end| (at, end))
        })
    }

    #[test]
    fn argo_fails_with_the_measurement_that_is_one_too_many_and_promotes_when_all_holds_are_over() {
        let setting = WindowSetting {
            interval: 60,
            max: 0.01,
            forgiven: 0,
        };
        assert_eq!(
            runs(&mut ArgoModel::new(&steps(), setting), |_| 1, 4_000),
            Some((60, RolloutEnd::RolledBack))
        );
        let forgiving = WindowSetting {
            forgiven: 5,
            ..setting
        };
        assert_eq!(
            runs(&mut ArgoModel::new(&steps(), forgiving), |_| 1, 4_000),
            Some((360, RolloutEnd::RolledBack))
        );
        assert_eq!(
            runs(&mut ArgoModel::new(&steps(), setting), |_| 0, 4_000),
            Some((3_600, RolloutEnd::Promoted))
        );
        // Six errors in 600 requests are 1%: within.
        assert_eq!(
            runs(
                &mut ArgoModel::new(&steps(), setting),
                |at| u64::from(at <= 6),
                4_000
            ),
            Some((3_600, RolloutEnd::Promoted))
        );
    }

    #[test]
    fn flagger_rises_with_good_ticks_waits_with_bad_ones_and_goes_back_a_tick_after_the_last_it_forgives()
     {
        let setting = WindowSetting {
            interval: 60,
            max: 0.01,
            forgiven: 4,
        };
        let climb = WeightClimb {
            step: 0.1,
            top: Some(0.5),
        };
        assert_eq!(
            runs(&mut FlaggerModel::new(climb, setting), |_| 0, 4_000),
            Some((300, RolloutEnd::Promoted))
        );
        let mut bad = FlaggerModel::new(climb, setting);
        assert_eq!(
            runs(&mut bad, |_| 1, 4_000),
            Some((360, RolloutEnd::RolledBack))
        );
        assert_eq!(bad.weight(), 0.1);
        assert_eq!(
            runs(
                &mut FlaggerModel::new(
                    WeightClimb {
                        step: 0.1,
                        top: None
                    },
                    setting
                ),
                |_| 0,
                4_000
            ),
            None
        );
    }

    #[test]
    fn kayenta_needs_enough_points_and_a_clear_shift() {
        let judged = KayentaSetting {
            interval: 60,
            step: 60,
            reach: 2.326,
        };
        let (end, at) = match runs(&mut KayentaModel::new(&steps(), judged), |_| 1, 4_000) {
            Some((at, end)) => (end, at),
            None => panic!("it never ended"),
        };
        assert_eq!(end, RolloutEnd::RolledBack);
        assert!(
            (300..=480).contains(&at),
            "{at}: with 98% five points of each are the fewest"
        );
        assert_eq!(
            runs(
                &mut KayentaModel::new(&steps(), judged),
                |at| u64::from(at % 300 == 0),
                4_000
            ),
            Some((3_600, RolloutEnd::Promoted))
        );
    }

    #[test]
    fn against_a_known_rate_a_regression_is_found_without_stable() {
        let mut known = KnownRateModel::new(0.1, 0.001, Alpha::new(0.01).unwrap());
        let found = runs(&mut known, |at| u64::from(at % 10 == 0), 4_000);
        assert!(
            found.is_some_and(|(at, end)| at < 100 && end == RolloutEnd::RolledBack),
            "{found:?}"
        );
        let mut known = KnownRateModel::new(0.1, 0.001, Alpha::new(0.01).unwrap());
        assert_eq!(runs(&mut known, |at| u64::from(at % 100 == 0), 4_000), None);
    }
}
