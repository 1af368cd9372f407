//! Error rates, looked at after every single event: the worst that peeking can do.
//!
//! Whole seconds would hide events within them, so the simulation steps from one event (an error on either side) to the next: so many
//! good ones before it, spread over the sides by their shares. The shares are those of users who stay where they are, the weight
//! rises during the rollout, the base rate swings as the load does. The judge is the real one, with a look after each event.
//!
//! ```
//! assert_eq!(shipway_sim::null::events::count_false_rollbacks(20, 1, 0.001, 1), 0);
//! ```

use jiff::SignedDuration;
use shipway_analysis::{
    Judge, Metric, Observation, ReleaseSample, Sample, SequentialComparison, evidence::Alpha,
    sequential::SequentialState,
};

use super::share_after;
use crate::{compare::each_seed, random::SeededRandom, reading::beginning};

/// The weights, and how many events each is held for.
const STEPS: [(f64, u32); 4] = [(0.01, 20), (0.1, 40), (0.3, 20), (0.5, 30)];

/// How many of `runs` rollouts of a release that is no worse are rolled back by a comparison of error rates with this `alpha`.
#[must_use]
pub fn count_false_rollbacks(runs: u64, seed: u64, alpha: f64, threads: usize) -> u64 {
    let beta = Alpha::new(SequentialComparison::BETA).expect("a default");
    let alpha = Alpha::new(alpha).expect("asked for as a probability");
    let judge = SequentialComparison::new(
        Metric::ErrorRate,
        alpha,
        beta,
        1.0,
        SequentialComparison::TOLERANCE,
    )
    .expect("errors are counted");
    let wrong = each_seed(seed, runs, threads, |seed| {
        u64::from(is_rolled_back(&judge, seed))
    });
    wrong.into_iter().sum()
}

/// One rollout.
fn is_rolled_back(judge: &SequentialComparison, seed: u64) -> bool {
    let mut random = SeededRandom::for_purpose(&[seed, 61]);
    let base = [0.0005, 0.005, 0.05, 0.3][(seed % 4) as usize];
    let (mut state, mut counts, mut looks) =
        (SequentialState::default(), [(0_u64, 0_u64); 2], 0_i64);
    let mut share = 0.0;
    let mut weight_before = 0.0;
    for (weight, events) in STEPS {
        share = share_after(share, weight_before, weight, &mut random);
        weight_before = weight;
        SequentialComparison::start_hold(&mut state);
        for event in 0..events {
            // The load swings, and the errors with it; on both sides alike.
            let swing = 1.0 + 0.9 * libm::sin(f64::from(event) / 9.0 + seed as f64);
            let good = random.geometric((base * swing).clamp(1e-6, 0.9));
            let on_canary = random.binomial(good, share);
            let hits_canary = random.share() < share;
            counts[0].0 += on_canary + u64::from(hits_canary);
            counts[1].0 += good - on_canary + u64::from(!hits_canary);
            counts[0].1 += u64::from(hits_canary);
            counts[1].1 += u64::from(!hits_canary);
            looks += 1;
            if judge
                .observe(&mut state, &seen(looks, counts))
                .verdict
                .is_fail()
            {
                return true;
            }
        }
    }
    false
}

fn seen(looks: i64, counts: [(u64, u64); 2]) -> Observation {
    let side = |release: &str, (requests, errors)| ReleaseSample {
        release: release.to_owned(),
        sample: Some(Sample {
            requests,
            errors,
            ..Sample::default()
        }),
    };
    Observation {
        at: beginning() + SignedDuration::from_millis(looks),
        canary: side("#2", counts[0]),
        stable: Some(side("#1", counts[1])),
    }
}
