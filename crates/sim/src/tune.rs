//! Other judges at their best: settings chosen on healthy rollouts of the same traffic, so that they roll back as few of them as
//! Shipway promises, and of those settings the one that finds this very regression soonest.
//!
//! That is more than anybody can do in production, where neither the traffic nor the regression is known beforehand.

use crate::{
    compare::{Comparison, Judge, Row, compare, each_seed, play_all, row},
    contest::play,
    rivals::{Climb, Judged, Setting, Ticks, Windows},
    world::World,
};

/// Windows that are tried, in seconds. Shorter ones than a scrape of Prometheus can't be had; the usual is one each 15 s or minute.
const INTERVALS: [u32; 5] = [10, 30, 60, 120, 300];
/// Failed windows that are forgiven.
const FORGIVEN: [u32; 2] = [0, 1];
/// Between Kayenta's judgements.
const JUDGEMENTS: [u32; 2] = [60, 300];
/// How far Kayenta's interval reaches, in deviations.
const REACHES: [f64; 8] = [2.326, 2.576, 2.807, 3.09, 3.291, 3.719, 4.265, 5.0];
/// Rollouts that settings are chosen on.
const RUNS_MAX: u64 = 600;

/// The best of each rival that may go back by mistake as often as `target`.
#[must_use]
pub fn rivals(
    comparison: &Comparison,
    climb: Climb,
    target: f64,
    done: &(dyn Fn(u64) + Sync),
) -> Vec<Row> {
    // Other rollouts than those that it is measured on.
    let trial = Comparison {
        runs: comparison.runs.min(RUNS_MAX),
        seed: comparison.seed.wrapping_add(77),
        ..comparison.clone()
    };
    let families = [
        argo(&trial, target),
        flagger(&trial, climb, target),
        kayenta(&trial, target),
    ];
    families
        .into_iter()
        .filter_map(|settings| soonest(&trial, settings))
        .map(|judge| Row {
            tuned: true,
            ..compare(comparison, &judge, done)
        })
        .collect()
}

/// Of these settings, the one that harms fewest.
#[must_use]
pub fn soonest(trial: &Comparison, settings: Vec<Judge>) -> Option<Judge> {
    let harm = |judge: &Judge| {
        row(
            judge,
            &[],
            &play_all(trial, judge, &trial.scenario, &|_| ()),
        )
        .harmed_mean
    };
    let tried = settings.into_iter().map(|judge| (harm(&judge), judge));
    tried
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, judge)| judge)
}

/// Argo Rollouts, at each interval.
#[must_use]
pub fn argo(trial: &Comparison, target: f64) -> Vec<Judge> {
    let steps = trial.policy.steps();
    windows(trial, target, |setting, world| {
        let mut recorder = Windows::new(&steps, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
    .into_iter()
    .map(Judge::Argo)
    .collect()
}

/// Flagger, at each interval.
#[must_use]
pub fn flagger(trial: &Comparison, climb: Climb, target: f64) -> Vec<Judge> {
    windows(trial, target, |setting, world| {
        let mut recorder = Ticks::new(climb, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
    .into_iter()
    .map(|setting| Judge::Flagger(climb, setting))
    .collect()
}

/// The lowest limit for each interval that healthy rollouts exceed no more often than `target`.
fn windows(
    trial: &Comparison,
    target: f64,
    record: impl Fn(Setting, &World<'_>) -> Vec<f64> + Sync,
) -> Vec<Setting> {
    let healthy = trial.scenario.healthy();
    let mut settings = Vec::new();
    for interval in INTERVALS {
        let without_limit = Setting {
            interval,
            max: f64::INFINITY,
            forgiven: 0,
        };
        let measured = each_seed(trial.seed, trial.runs, trial.threads, |seed| {
            let mut measured = record(without_limit, &World::new(&healthy, seed));
            measured.sort_by(|one, other| other.total_cmp(one));
            measured
        });
        for forgiven in FORGIVEN {
            // A rollout is rolled back when the largest but `forgiven` is above the limit.
            let mut worst: Vec<f64> = measured
                .iter()
                .filter_map(|it| it.get(forgiven as usize).copied())
                .collect();
            worst.sort_by(f64::total_cmp);
            let wrong = (target * trial.runs as f64) as usize;
            if let Some(max) = worst.len().checked_sub(wrong + 1).map(|place| worst[place]) {
                settings.push(Setting {
                    interval,
                    max,
                    forgiven,
                });
            }
        }
    }
    settings
}

/// Kayenta, at each pace: the narrowest interval that is not wrong too often.
#[must_use]
pub fn kayenta(trial: &Comparison, target: f64) -> Vec<Judge> {
    let healthy = trial.scenario.healthy();
    let wrong = |judge: &Judge| {
        let ended = play_all(trial, judge, &healthy, &|_| ());
        row(judge, &ended, &[]).false_rollbacks as f64 / trial.runs as f64
    };
    let at_pace = |interval: u32| {
        let judges = REACHES.map(|reach| {
            Judge::Kayenta(Judged {
                interval,
                step: interval.min(60),
                reach,
            })
        });
        judges.into_iter().find(|judge| wrong(judge) <= target)
    };
    JUDGEMENTS.into_iter().filter_map(at_pace).collect()
}
