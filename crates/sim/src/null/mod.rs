//! Rollouts of a release that is no worse: how often they are rolled back all the same.
//!
//! - [`events`]: error rates, looked at after every single event, the worst that peeking can do.
//! - [`ticks`]: everything that is compared, looked at at every tick, as rollouts do.
//!
//! In all of them the weight rises during the rollout, the load swings, and users stay on their side, so that the share of
//! the new release is never quite its weight.

pub mod events;
pub mod ticks;
pub mod values;

use crate::{random::SeededRandom, summary::percent};

/// Users, some of them busy.
const USERS: f64 = 500.0;

/// The share of the traffic that the new release has when its weight rises from `weight_before`, at which it was `share`: those who
/// are on it stay; some of the others join, some busy, some not.
fn share_after(share: f64, weight_before: f64, weight: f64, random: &mut SeededRandom) -> f64 {
    let (joins, stays) = ((weight - weight_before) * USERS, (1.0 - weight) * USERS);
    share + (1.0 - share) * random.beta(joins, stays)
}

/// `12 of 10,000 (0.12%, with 95% confidence below 0.2%)`
#[must_use]
pub fn describe_false_rollbacks(wrong: u64, runs: u64) -> String {
    let limit = crate::summary::upper_limit(wrong, runs);
    format!(
        "{wrong} of {} ({}, with 95% confidence below {})",
        crate::chart::number(runs as f64),
        percent(wrong as f64 / runs as f64),
        percent(limit)
    )
}
