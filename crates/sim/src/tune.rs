//! Other judges at their best: settings chosen on healthy rollouts of the same traffic, so that they roll back no more of them than
//! Shipway does, and of those settings the one that finds this very regression soonest.
//!
//! That is more than anybody can do in production, where neither the traffic nor the regression is known beforehand.

use crate::{
    compare::{Comparison, Judge, each_seed, play_all, row},
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
/// Kayenta sorts all that was seen each time; for the few reaches there are to choose from, so many rollouts are enough.
const KAYENTA_RUNS: u64 = 1_000;
/// How far Kayenta's interval reaches, in deviations.
const REACHES: [f64; 8] = [2.326, 2.576, 2.807, 3.09, 3.291, 3.719, 4.265, 5.0];

/// Settings of Argo Rollouts, Flagger and Kayenta that go back by mistake no more often than Shipway does on the same rollouts.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// Which share of healthy releases Shipway rolls back.
    pub false_alarms: f64,
    rivals: [Vec<Judge>; 3],
}

impl Tuned {
    /// Tried on as many rollouts as the comparison has.
    #[must_use]
    pub fn on(comparison: &Comparison, climb: Climb) -> Self {
        let trial = other_rollouts(comparison);
        let false_alarms = wrong(&trial, &Judge::Direct);
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
    pub fn best(&self, comparison: &Comparison) -> Vec<Judge> {
        let trial = other_rollouts(comparison);
        let best = self.rivals.iter().filter_map(|of| least_harm(&trial, of));
        best.cloned().collect()
    }
}

/// Other rollouts than those that rivals are measured on.
fn other_rollouts(comparison: &Comparison) -> Comparison {
    Comparison {
        seed: comparison.seed.wrapping_add(77),
        ..comparison.clone()
    }
}

/// Which share of healthy releases a judge rolls back.
fn wrong(trial: &Comparison, judge: &Judge) -> f64 {
    let ended = play_all(trial, judge, &trial.scenario.healthy(), &|_| ());
    row(judge, &ended, &[]).false_rollbacks as f64 / trial.runs as f64
}

fn least_harm<'a>(trial: &Comparison, settings: &'a [Judge]) -> Option<&'a Judge> {
    let harm = |judge: &Judge| {
        let ended = play_all(trial, judge, &trial.scenario, &|_| ());
        row(judge, &[], &ended).harmed_mean
    };
    let tried = settings.iter().map(|judge| (harm(judge), judge));
    tried
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, judge)| judge)
}

/// Argo Rollouts, at each interval.
fn argo(trial: &Comparison, target: f64) -> Vec<Judge> {
    let steps = trial.policy.steps();
    windows(trial, target, Judge::Argo, |setting, world| {
        let mut recorder = Windows::new(&steps, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
}

/// Flagger, at each interval.
fn flagger(trial: &Comparison, climb: Climb, target: f64) -> Vec<Judge> {
    let judge = |setting| Judge::Flagger(climb, setting);
    windows(trial, target, judge, |setting, world| {
        let mut recorder = Ticks::new(climb, setting);
        play(world, trial.scenario.horizon, &mut recorder);
        recorder.measured
    })
}

/// The lowest limit for each interval by which healthy rollouts are rolled back no more often than `target`.
fn windows(
    trial: &Comparison,
    target: f64,
    judge: impl Fn(Setting) -> Judge,
    record: impl Fn(Setting, &World<'_>) -> Vec<f64> + Sync,
) -> Vec<Judge> {
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
            worst.sort_by(|one, other| other.total_cmp(one));
            let allowed = (target * trial.runs as f64).round() as usize;
            // Those who wait after a failure, as Flagger does, look more often than they do without a limit.
            let tried = (0..=allowed).rev().filter_map(|place| worst.get(place));
            let mut judges = tried.map(|max| {
                judge(Setting {
                    interval,
                    max: *max,
                    forgiven,
                })
            });
            settings.extend(judges.find(|judge| wrong(trial, judge) <= target));
        }
    }
    settings
}

/// Kayenta, at each pace: the narrowest interval that is not wrong too often.
fn kayenta(trial: &Comparison, target: f64) -> Vec<Judge> {
    let trial = Comparison {
        runs: trial.runs.min(KAYENTA_RUNS),
        ..trial.clone()
    };
    let at_pace = |interval: u32| {
        let judges = REACHES.map(|reach| {
            Judge::Kayenta(Judged {
                interval,
                step: interval.min(60),
                reach,
            })
        });
        judges
            .into_iter()
            .find(|judge| wrong(&trial, judge) <= target)
    };
    JUDGEMENTS.into_iter().filter_map(at_pace).collect()
}
