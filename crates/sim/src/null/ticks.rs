//! Everything that is compared with stable, looked at at every tick: errors, slow answers, quantiles of latency, CPU, memory,
//! saturation, provider values and business events, alone and five together within one `alpha`.
//!
//! Metrics with a margin are exactly at the margin: the worst release that is not a regression.
//!
//! ```
//! use shipway_sim::null::ticks::{NullSimulation, count_false_rollbacks};
//! let counted = count_false_rollbacks(&NullSimulation { runs: 4, seed: 1, alpha: 0.001, stretch: 0.1, threads: 1 });
//! assert!(counted.iter().all(|(_, wrong)| *wrong == 0));
//! ```

use std::time::Duration;

use jiff::SignedDuration;
use shipway_analysis::{
    Analysis, AnalysisRule, AnalysisState, BusinessEventCount, Histogram, Metric, MetricName,
    Observation, ProviderAnswer, ReleaseSample, Sample, SequentialComparison, SlowCount,
    evidence::Alpha, sequential::WorseDirection,
};

use super::{
    share_after,
    values::{SideValues, ValueProcesses},
};
use crate::{
    compare::each_seed,
    random::SeededRandom,
    reading::{answers, beginning},
    world::SideSecond,
};

/// The weights, and for how many ticks each is held.
const STEPS: [(f64, f64); 4] = [(0.01, 120.0), (0.1, 180.0), (0.25, 180.0), (0.5, 240.0)];
/// Requests a second of both sides together, one for each rollout.
const TRAFFIC: [f64; 4] = [20.0, 200.0, 2_000.0, 600.0];
/// An answer beyond this bucket is slow: over a quarter of a second.
const SLOW_BUCKET: usize = 111;
const SLOW_MICROS: u64 = Histogram::upper_micros(SLOW_BUCKET);
/// Of so many requests one fails, one is an order, one is complained about.
const FAILS: f64 = 0.01;
const ORDERS: f64 = 0.03;
const COMPLAINS: f64 = 0.005;

/// Parameters of the simulation.
#[derive(Clone, Copy, Debug)]
pub struct NullSimulation {
    /// Rollouts.
    pub runs: u64,
    /// From which all chance comes.
    pub seed: u64,
    /// Of each metric alone, and of all five of the combination together.
    pub alpha: f64,
    /// How long holds are; 1 is 12 minutes in all.
    pub stretch: f64,
    /// Rollouts at once.
    pub threads: usize,
}

/// For each metric, and for five of them together: its name, and how many rollouts it rolled back.
#[must_use]
pub fn count_false_rollbacks(play: &NullSimulation) -> Vec<(String, u64)> {
    let cases = cases(play.alpha);
    let wrong = each_seed(play.seed, play.runs, play.threads, |seed| {
        rolled_back_by(&cases, seed, play.stretch)
    });
    let count = |place: usize| wrong.iter().filter(|by| by[place]).count() as u64;
    let names = cases.into_iter().map(|(name, _)| name).enumerate();
    names.map(|(place, name)| (name, count(place))).collect()
}

fn named(name: &str) -> MetricName {
    name.parse().expect("a name of ours is one")
}

fn compared(metric: Metric, direction: WorseDirection, alpha: Alpha) -> AnalysisRule {
    let beta = Alpha::new(SequentialComparison::BETA).expect("a default");
    let (margin, tolerance) = (
        SequentialComparison::default_margin(metric),
        SequentialComparison::default_tolerance(metric),
    );
    let comparison = SequentialComparison::new(metric, alpha, beta, margin, tolerance);
    AnalysisRule::from(SequentialComparison {
        direction,
        // A value at every tick: more looks than a rollout would have.
        interval: Duration::from_secs(1),
        ..comparison.expect("it can be compared")
    })
}

/// The tested analyses: each metric alone, and five together.
fn cases(alpha: f64) -> Vec<(String, Analysis)> {
    use WorseDirection::{Decrease, Increase};
    let alpha = Alpha::new(alpha).expect("asked for as a probability");
    let (worth, conversion) = (
        Metric::Value(named("worth")),
        Metric::Value(named("conversion")),
    );
    let slow = Metric::SlowRate {
        over_micros: SLOW_MICROS,
    };
    let orders = Metric::Event(named("orders"));
    let alone = [
        ("error-rate", Metric::ErrorRate, Increase),
        ("slow-rate", slow, Increase),
        ("latency-p50", Metric::LatencyP50, Increase),
        ("latency-p90", Metric::LatencyP90, Increase),
        ("latency-p99", Metric::LatencyP99, Increase),
        ("cpu", Metric::Cpu, Increase),
        ("memory", Metric::Memory, Increase),
        ("saturation", Metric::Saturation, Increase),
        ("a provider's value, more is worse", worth, Increase),
        ("a provider's value, less is worse", worth, Decrease),
        ("a provider's quotient, more is worse", conversion, Increase),
        ("a provider's quotient, less is worse", conversion, Decrease),
        (
            "complaints, more is worse",
            Metric::Event(named("complaints")),
            Increase,
        ),
        ("orders, less is worse", orders, Decrease),
    ];
    let mut cases: Vec<(String, Analysis)> = alone
        .into_iter()
        .map(|(name, metric, direction)| {
            (
                name.to_owned(),
                Analysis::new(vec![compared(metric, direction, alpha)]),
            )
        })
        .collect();
    let five = [
        (Metric::ErrorRate, Increase),
        (slow, Increase),
        (Metric::LatencyP90, Increase),
        (Metric::Cpu, Increase),
        (orders, Decrease),
    ];
    let together = five.map(|(metric, direction)| compared(metric, direction, alpha.split(5)));
    cases.push((
        "error-rate, slow-rate, latency-p90, cpu and orders together".to_owned(),
        Analysis::new(together.to_vec()),
    ));
    cases
}

/// One rollout, judged by each; which of them roll it back.
fn rolled_back_by(cases: &[(String, Analysis)], seed: u64, stretch: f64) -> Vec<bool> {
    let mut judges: Vec<(&Analysis, AnalysisState, bool)> = cases
        .iter()
        .map(|(_, analysis)| (analysis, analysis.initial_state(), false))
        .collect();
    let mut world = NullWorld::new(seed);
    let (mut share, mut weight_before) = (0.0, 0.0);
    for (step, (weight, ticks)) in STEPS.into_iter().enumerate() {
        share = share_after(share, weight_before, weight, &mut world.random);
        weight_before = weight;
        if step > 0 {
            judges
                .iter_mut()
                .for_each(|(_, state, _)| state.start_hold());
        }
        let ticks = (ticks * stretch).ceil() as u32;
        // Both sides are read as soon as traffic has shifted.
        for tick in 0..=ticks {
            if tick > 0 {
                world.second(share);
            }
            let seen = world.observe();
            for (analysis, state, is_back) in judges.iter_mut().filter(|(_, _, is_back)| !is_back) {
                *is_back = analysis.observe(state, &seen).verdict.is_fail();
            }
        }
    }
    judges.into_iter().map(|(_, _, is_back)| is_back).collect()
}

/// Two equally good sides, second by second.
struct NullWorld {
    random: SeededRandom,
    seed: u64,
    at: u32,
    per_second: f64,
    values: ValueProcesses,
    /// Of the new release, and of stable.
    sides: [NullCounter; 2],
    now: [SideValues; 2],
}

#[derive(Default)]
struct NullCounter {
    requests: u64,
    errors: u64,
    slow: u64,
    histogram: Histogram,
    orders: u64,
    complaints: u64,
}

impl NullWorld {
    fn new(seed: u64) -> Self {
        Self {
            random: SeededRandom::for_purpose(&[seed, 67]),
            seed,
            at: 0,
            per_second: TRAFFIC[(seed % 4) as usize],
            values: ValueProcesses::new(seed),
            sides: Default::default(),
            now: Default::default(),
        }
    }

    fn second(&mut self, share: f64) {
        self.at += 1;
        // The load swings, there are bursts, and what fails and how long answers take swings with it; on both sides alike.
        let wave = libm::sin(f64::from(self.at) / 17.0 + self.seed as f64);
        let burst = if self.random.share() < 0.05 { 3.0 } else { 1.0 };
        let load = (1.0 + 0.8 * wave) * burst;
        let requests = self.random.poisson(self.per_second * load);
        let of_canary = self.random.binomial(requests, share);
        let of = [of_canary, requests - of_canary];
        for (side, requests) in self.sides.iter_mut().zip(of) {
            side.count(requests, 1.0 + 0.8 * wave, load, &mut self.random);
        }
        let margin = SequentialComparison::default_margin(Metric::Cpu);
        self.now = self.values.next(&mut self.random, load, of, [margin, 1.0]);
    }

    fn observe(&self) -> Observation {
        let at = beginning() + SignedDuration::from_secs(i64::from(self.at));
        let side = |release: &str, place: usize| {
            let (counter, now) = (&self.sides[place], &self.now[place]);
            let happened = |event, count| BusinessEventCount {
                event: named(event),
                count,
            };
            ReleaseSample {
                release: release.to_owned(),
                sample: Some(Sample {
                    requests: counter.requests,
                    errors: counter.errors,
                    cpu: Some(now.cpu),
                    memory_bytes: Some(now.memory),
                    saturation: Some(now.saturation),
                    histogram: Some(counter.histogram.clone()),
                    slow: vec![SlowCount {
                        over_micros: SLOW_MICROS,
                        count: counter.slow,
                    }],
                    events: vec![
                        happened("complaints", counter.complaints),
                        happened("orders", counter.orders),
                    ],
                    answers: vec![
                        ProviderAnswer::value(named("conversion"), at, now.conversion),
                        ProviderAnswer::value(named("worth"), at, now.worth),
                    ],
                    ..Sample::default()
                }),
            }
        };
        Observation {
            at,
            canary: side("#2", 0),
            stable: Some(side("#1", 1)),
        }
    }
}

impl NullCounter {
    fn count(&mut self, requests: u64, swing: f64, load: f64, random: &mut SeededRandom) {
        self.requests += requests;
        self.errors += random.binomial(requests, FAILS * swing);
        self.orders += random.poisson(requests as f64 * ORDERS * swing);
        self.complaints += random.poisson(requests as f64 * COMPLAINS * swing);
        let answers = answers(requests, &SideSecond::default(), 0.6 + 0.2 * load, random);
        self.slow += answers
            .iter()
            .filter(|(bucket, _)| usize::from(*bucket) > SLOW_BUCKET)
            .map(|(_, count)| count)
            .sum::<u64>();
        self.histogram = self.histogram.merged(&answers.into_iter().collect());
    }
}
