//! Many rollouts of each contender, healthy ones and bad ones, as the rows of a table.
//!
//! ```
//! use shipway_sim::{compare::{ComparisonSetup, ComparedJudge, compare}, policy::SimulatedPolicy, regression::Regression, world::SimulatedScenario};
//! let bad = SimulatedScenario { regression: Some(Regression::error_rate(0.3)), ..SimulatedScenario::default() };
//! let comparison = ComparisonSetup { policy: SimulatedPolicy::default(), scenario: bad, runs: 4, seed: 1, threads: 1 };
//! let row = compare(&comparison, &ComparedJudge::Shipway, &|_| ());
//! assert_eq!((row.false_rollbacks, row.caught), (0, 4));
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

#[cfg(feature = "rivals")]
use crate::rivals::RivalJudge;
use crate::{
    contest::{PlayedRollout, RolloutEnd, play},
    policy::SimulatedPolicy,
    shipway::{DirectRollout, RealRollout},
    summary::{mean, quantile, upper_limit},
    world::{SimulatedScenario, SimulatedWorld},
};

/// The setup of a comparison.
#[derive(Clone, Debug)]
pub struct ComparisonSetup {
    /// The policy that is tried; the others take its steps, where they have steps.
    pub policy: SimulatedPolicy,
    /// The world, with the regression of the new release.
    pub scenario: SimulatedScenario,
    /// Number of simulated rollouts of a healthy release, and of a bad one.
    pub runs: u64,
    /// From which all chance comes.
    pub seed: u64,
    /// Rollouts at once; it changes how long it takes, and nothing else.
    pub threads: usize,
}

/// The judge that decides a rollout.
#[derive(Clone, Debug, PartialEq)]
pub enum ComparedJudge {
    /// The real rollout.
    Shipway,
    /// The same judges and holds without the log around them.
    Direct,
    /// Another judge.
    #[cfg(feature = "rivals")]
    Rival(RivalJudge),
}

impl ComparedJudge {
    /// Lets it decide one rollout.
    #[must_use]
    pub fn play(
        &self,
        policy: &SimulatedPolicy,
        scenario: &SimulatedScenario,
        seed: u64,
    ) -> PlayedRollout {
        let (world, until) = (SimulatedWorld::new(scenario, seed), scenario.horizon);
        match self {
            Self::Shipway => play(&world, until, &mut RealRollout::open(policy, seed)),
            Self::Direct => play(&world, until, &mut DirectRollout::open(policy, seed)),
            #[cfg(feature = "rivals")]
            Self::Rival(rival) => rival.play(policy, &world, until),
        }
    }

    /// Its name in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Shipway | Self::Direct => "shipway",
            #[cfg(feature = "rivals")]
            Self::Rival(rival) => rival.name(),
        }
    }

    /// Its settings in a few words.
    #[must_use]
    pub fn setting(&self) -> String {
        match self {
            Self::Shipway | Self::Direct => "this policy".to_owned(),
            #[cfg(feature = "rivals")]
            Self::Rival(rival) => rival.setting(),
        }
    }
}

/// What became of one contender's rollouts. Times are seconds from the first user on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// Name of the judge.
    pub judge: String,
    /// Settings of the judge.
    pub setting: String,
    /// Whether the setting was chosen for this traffic, so that it rolls back no more healthy releases than Shipway.
    pub tuned: bool,
    /// How many rollouts there were of each kind.
    pub runs: u64,
    /// Healthy releases that were rolled back,
    pub false_rollbacks: u64,
    /// and the share that the truth is below, with 95% confidence.
    pub false_rollback_limit: f64,
    /// Healthy releases that were left standing for a person.
    pub healthy_paused: u64,
    /// Half of the healthy releases were promoted within this time; none when less than half were.
    pub promote_median_s: Option<f64>,
    /// Bad releases that were rolled back.
    pub caught: u64,
    /// Half of the bad releases were rolled back within this time; none when less than half were.
    pub detect_median_s: Option<f64>,
    /// Nine tenths were.
    pub detect_p90_s: Option<f64>,
    /// The mean over the bad releases that were rolled back.
    pub detect_mean_s: Option<f64>,
    /// Requests of the new release until its rollback: the mean over the rolled-back releases.
    pub detect_requests: Option<f64>,
    /// Requests per bad release that failed or were slow because of it, on average.
    pub harmed_mean: f64,
    /// The same, in the middle.
    pub harmed_median: f64,
}

/// Plays all rollouts of one contender. `done` receives the number of newly finished rollouts.
pub fn compare(
    comparison: &ComparisonSetup,
    judge: &ComparedJudge,
    done: &(dyn Fn(u64) + Sync),
) -> ComparisonRow {
    let healthy = play_all(comparison, judge, &comparison.scenario.healthy(), done);
    let bad = play_all(comparison, judge, &comparison.scenario, done);
    row(judge, &healthy, &bad)
}

/// Plays rollouts of one contender in one scenario; in the order of their seeds, independent of the threads.
pub fn play_all(
    comparison: &ComparisonSetup,
    judge: &ComparedJudge,
    scenario: &SimulatedScenario,
    done: &(dyn Fn(u64) + Sync),
) -> Vec<PlayedRollout> {
    each_seed(
        comparison.seed,
        comparison.runs,
        comparison.threads,
        |seed| {
            let ended = judge.play(&comparison.policy, scenario, seed);
            done(1);
            ended
        },
    )
}

/// What `play` says of each seed, in their order, several at once.
pub fn each_seed<T: Send>(
    seed: u64,
    runs: u64,
    threads: usize,
    play: impl Fn(u64) -> T + Sync,
) -> Vec<T> {
    /// Rollouts that a thread takes at once.
    const TAKE: usize = 8;
    let (next, runs) = (AtomicUsize::new(0), runs as usize);
    let worker = || {
        let mut played = Vec::new();
        loop {
            let from = next.fetch_add(TAKE, Ordering::Relaxed);
            if from >= runs {
                return played;
            }
            for index in from..(from + TAKE).min(runs) {
                played.push((
                    index,
                    play(seed.wrapping_mul(1_000_003).wrapping_add(index as u64)),
                ));
            }
        }
    };
    let mut played: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a simulation doesn't panic"))
            .collect()
    });
    played.sort_by_key(|(index, _)| *index);
    played.into_iter().map(|(_, it)| it).collect()
}

/// Sums rollouts up.
#[must_use]
pub fn row(
    judge: &ComparedJudge,
    healthy: &[PlayedRollout],
    bad: &[PlayedRollout],
) -> ComparisonRow {
    let count =
        |ended: &[PlayedRollout], how| ended.iter().filter(|it| it.how == Some(how)).count() as u64;
    let runs = healthy.len() as u64;
    let false_rollbacks = count(healthy, RolloutEnd::RolledBack);
    let found: Vec<&PlayedRollout> = bad
        .iter()
        .filter(|it| it.how == Some(RolloutEnd::RolledBack))
        .collect();
    let mut harmed: Vec<f64> = bad.iter().map(|it| it.harmed as f64).collect();
    harmed.sort_by(f64::total_cmp);
    ComparisonRow {
        judge: judge.name().to_owned(),
        setting: judge.setting(),
        tuned: false,
        runs,
        false_rollbacks,
        false_rollback_limit: upper_limit(false_rollbacks, runs.max(1)),
        healthy_paused: count(healthy, RolloutEnd::Paused),
        promote_median_s: time_of(healthy, RolloutEnd::Promoted, 0.5),
        caught: found.len() as u64,
        detect_median_s: time_of(bad, RolloutEnd::RolledBack, 0.5),
        detect_p90_s: time_of(bad, RolloutEnd::RolledBack, 0.9),
        detect_mean_s: mean(&found.iter().map(|it| f64::from(it.at)).collect::<Vec<_>>()),
        detect_requests: mean(&found.iter().map(|it| it.served as f64).collect::<Vec<_>>()),
        harmed_mean: mean(&harmed).unwrap_or(0.0),
        harmed_median: quantile(&harmed, 0.5).unwrap_or(0.0),
    }
}

/// Within which time this share of all ended so; none when fewer did.
fn time_of(ended: &[PlayedRollout], how: RolloutEnd, share: f64) -> Option<f64> {
    let time = |it: &PlayedRollout| {
        if it.how == Some(how) {
            f64::from(it.at)
        } else {
            f64::INFINITY
        }
    };
    let mut times: Vec<f64> = ended.iter().map(time).collect();
    times.sort_by(f64::total_cmp);
    quantile(&times, share).filter(|time| time.is_finite())
}
