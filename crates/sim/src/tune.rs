//! Other judges at their best: settings chosen on healthy rollouts of the same traffic, so that they roll back no more of them than
//! Shipway does, and of those settings the one that finds this very regression soonest.
//!
//! This is impossible in production, where neither the traffic nor the regression is known beforehand.

use crate::{
    compare::{ComparedJudge, ComparisonSetup, each_seed, play_all, row},
    contest::play,
    rivals::{ArgoModel, FlaggerModel, KayentaSetting, RivalJudge, WeightClimb, WindowSetting},
    world::SimulatedWorld,
};

/// Windows that are tried, in seconds. Shorter ones than a scrape of Prometheus can't be had; the usual is one each 15 s or minute.
const INTERVALS: [u32; 5] = [10, 30, 60, 120, 300];
/// Failed windows that are forgiven.
const FORGIVEN: [u32; 2] = [0, 1];
/// Between Kayenta's judgements.
const JUDGEMENTS: [u32; 2] = [60, 300];
/// Kayenta sorts all that was seen each time; for the few reaches there are to choose from, so many rollouts are enough.
const KAYENTA_RUNS: u64 = 1_000;
/// How far Kayenta's interval reaches, in deviations.
const REACHES: [f64; 8] = [2.326, 2.576, 2.807, 3.09, 3.291, 3.719, 4.265, 5.0];

/// Settings of Argo Rollouts, Flagger and Kayenta that go back by mistake no more often than Shipway does on the same rollouts.
#[derive(Clone, Debug)]
pub struct TunedRivals {
    /// Which share of healthy releases Shipway rolls back.
    pub false_alarms: f64,
    rivals: [Vec<ComparedJudge>; 3],
}

impl TunedRivals {
    /// Tried on as many rollouts as the comparison has.
    #[must_use]
    pub fn tune(comparison: &ComparisonSetup, climb: WeightClimb) -> Self {
        let trial = other_rollouts(comparison);
        let false_alarms = false_alarm_share(&trial, &ComparedJudge::Direct);
        let rivals = [
            argo(&trial, false_alarms),
            flagger(&trial, climb, false_alarms),
            kayenta(&trial, false_alarms),
        ];
        Self {
            false_alarms,
            rivals,
        }
    }

    /// Of each rival's settings, the one that harms fewest when this goes wrong.
    #[must_use]
    pub fn best(&self, comparison: &ComparisonSetup) -> Vec<ComparedJudge> {
        let trial = other_rollouts(comparison);
        let best = self.rivals.iter().filter_map(|of| least_harm(&trial, of));
        best.cloned().collect()
    }
}

/// Other rollouts than those that rivals are measured on.
fn other_rollouts(comparison: &ComparisonSetup) -> ComparisonSetup {
    ComparisonSetup {
        seed: comparison.seed.wrapping_add(77),
        ..comparison.clone()
    }
}

/// Which share of healthy releases a judge rolls back.
fn false_alarm_share(trial: &ComparisonSetup, judge: &ComparedJudge) -> f64 {
    let ended = play_all(trial, judge, &trial.scenario.healthy(), &|_| ());
    row(judge, &ended, &[]).false_rollbacks as f64 / trial.runs as f64
}

fn least_harm<'a>(
    trial: &ComparisonSetup,
    settings: &'a [ComparedJudge],
) -> Option<&'a ComparedJudge> {
    let harm = |judge: &ComparedJudge| {
        let ended = play_all(trial, judge, &trial.scenario, &|_| ());
        row(judge, &[], &ended).harmed_mean
    };
    let tried = settings.iter().map(|judge| (harm(judge), judge));
    tried
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, judge)| judge)
}

/// Argo Rollouts, at each interval.
fn argo(trial: &ComparisonSetup, target: f64) -> Vec<ComparedJudge> {
    let steps = trial.policy.steps();
    let judge = |setting| ComparedJudge::Rival(RivalJudge::Argo(setting));
    windows(trial, target, judge, |setting, world| {
        let mut recorder = ArgoModel::new(&steps, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
}

/// Flagger, at each interval.
fn flagger(trial: &ComparisonSetup, climb: WeightClimb, target: f64) -> Vec<ComparedJudge> {
    let judge = |setting| ComparedJudge::Rival(RivalJudge::Flagger(climb, setting));
    windows(trial, target, judge, |setting, world| {
        let mut recorder = FlaggerModel::new(climb, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
}

/// The lowest limit for each interval by which healthy rollouts are rolled back no more often than `target`.
fn windows(
    trial: &ComparisonSetup,
    target: f64,
    judge: impl Fn(WindowSetting) -> ComparedJudge,
    record: impl Fn(WindowSetting, &SimulatedWorld<'_>) -> Vec<f64> + Sync,
) -> Vec<ComparedJudge> {
    let healthy = trial.scenario.healthy();
    let mut settings = Vec::new();
    for interval in INTERVALS {
        let without_limit = WindowSetting {
            interval,
            max: f64::INFINITY,
            forgiven: 0,
        };
        let measured = each_seed(trial.seed, trial.runs, trial.threads, |seed| {
            let mut measured = record(without_limit, &SimulatedWorld::new(&healthy, seed));
            measured.sort_by(|one, other| other.total_cmp(one));
            measured
        });
        for forgiven in FORGIVEN {
            // A rollout is rolled back when the largest but `forgiven` is above the limit.
            let mut worst: Vec<f64> = measured
                .iter()
                .filter_map(|it| it.get(forgiven as usize).copied())
                .collect();
            worst.sort_by(|one, other| other.total_cmp(one));
            let allowed = (target * trial.runs as f64).round() as usize;
            // Judges that wait after a failure, as Flagger does, measure more often than without a limit.
            let tried = (0..=allowed).rev().filter_map(|place| worst.get(place));
            let mut judges = tried.map(|max| {
                judge(WindowSetting {
                    interval,
                    max: *max,
                    forgiven,
                })
            });
            settings.extend(judges.find(|judge| false_alarm_share(trial, judge) <= target));
        }
    }
    settings
}

/// Kayenta, at each pace: the narrowest interval that is not wrong too often.
fn kayenta(trial: &ComparisonSetup, target: f64) -> Vec<ComparedJudge> {
    let trial = ComparisonSetup {
        runs: trial.runs.min(KAYENTA_RUNS),
        ..trial.clone()
    };
    let at_pace = |interval: u32| {
        let judges = REACHES.map(|reach| {
            ComparedJudge::Rival(RivalJudge::Kayenta(KayentaSetting {
                interval,
                step: interval.min(60),
                reach,
            }))
        });
        judges
            .into_iter()
            .find(|judge| false_alarm_share(&trial, judge) <= target)
    };
    JUDGEMENTS.into_iter().filter_map(at_pace).collect()
}
