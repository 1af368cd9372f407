//! Ready instances of a rollout's releases: how many a weight needs, and how a shortage is handled.
//!
//! # Why
//!
//! Requests that find no ready instance fail, or fall back to stable and succeed there. Request counts alone would therefore
//! promote a release that is unreachable.
//!
//! # Invariants
//!
//! - No shift raises a weight, and nothing is promoted, while [`Rollout::instances_needed`] is not met (the executor checks it at
//!   the moment of the shift).
//! - Only crossings of the need are recorded. A rollback follows from a *fresh* report, never from a recorded one alone: a
//!   server that was down for a while must not act on outdated readiness.
//!
//! # Failure modes
//!
//! - Stable has no ready instance either: the candidate keeps its traffic, people are notified once for each shortage.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    event::{PlanDirection, RolloutEvent},
    plan::TrafficSplit,
    readiness::SetReadiness,
    state::Rollout,
};
use crate::{
    check::HealthCheck,
    config::EnvironmentConfig,
    duration_text::DurationText,
    ids::ReleaseNumber,
    target::{InstancePhase, InstanceStatus, ServiceEnvironment},
};

/// A release without any ready instance is out of service: its users can't wait out a long grace period.
const GRACE_WITHOUT_INSTANCE: Duration = Duration::from_secs(1);

/// The reaction to a readiness report.
#[derive(Debug, PartialEq)]
pub(super) enum CapacityStep {
    /// A fact to record.
    Record(RolloutEvent),
    /// The rollout is rolled back.
    RollBack(String),
}

impl Rollout {
    /// Ready instances that `release` needs for its share of `split`: its share of the instances that carry all traffic,
    /// at least one. Never more than the rollout has started.
    #[must_use]
    pub fn instances_needed(&self, split: &TrafficSplit, release: ReleaseNumber) -> u32 {
        let weight = split.weight_of(release);
        if weight.is_zero() {
            return u32::from(split.shows(release));
        }
        let started = self.observed.count(release).max(1);
        let for_all_traffic = match self.spec.stable() {
            Some(stable) if stable.release.number == release => stable.instances,
            _ if release == self.candidate() => self.spec.environment.instances,
            _ => started,
        };
        weight.share_of(for_all_traffic).clamp(1, started)
    }

    /// Releases whose weight or match rules grow with a shift to `split`, with the ready instances that each needs then.
    #[must_use]
    pub fn instances_needed_to_grow(&self, split: &TrafficSplit) -> Vec<(ReleaseNumber, u32)> {
        let now = &self.observed.split;
        let releases = split.releases().map(|(release, _)| release);
        let matched = split.reach.as_ref().map(|reach| reach.release);
        let mut growing: Vec<(ReleaseNumber, u32)> = releases
            .chain(matched)
            .filter(|release| {
                split.weight_of(*release) > now.weight_of(*release)
                    || split.shows(*release) && !now.shows(*release)
            })
            .map(|release| (release, self.instances_needed(split, release)))
            .collect();
        growing.dedup();
        growing
    }

    /// How long fewer instances than needed may be ready before the rollout is rolled back.
    #[must_use]
    pub fn unready_grace(&self, ready: u32) -> Duration {
        let health = &self.spec.release().config.run.health;
        unready_grace(&self.spec.environment, health, ready)
    }
}

/// How long fewer instances than needed may be ready in `environment` before that is a failure.
#[must_use]
pub fn unready_grace(
    environment: &EnvironmentConfig,
    health: &HealthCheck,
    ready: u32,
) -> Duration {
    let by_health_checks = || {
        let grace = health.interval * health.unhealthy_after;
        if ready == 0 {
            grace.min(GRACE_WITHOUT_INSTANCE)
        } else {
            grace
        }
    };
    environment.unready_grace.unwrap_or_else(by_health_checks)
}

/// Assesses a report of the target, in the order in which the steps take effect.
pub(super) fn assess(
    rollout: &Rollout,
    report: &[SetReadiness],
    now: Timestamp,
) -> Vec<CapacityStep> {
    let candidate = rollout.candidate();
    let split = &rollout.observed.split;
    let needed = rollout.instances_needed(split, candidate);
    if rollout.direction != PlanDirection::Forward || needed == 0 {
        return Vec::new();
    }
    let find = |release| report.iter().find(|set| set.release == release);
    // A set that the target does not list has no instances.
    let ready = find(candidate).map_or(0, |set| set.ready);
    let Some(shortage) = &rollout.shortage else {
        return if ready < needed {
            let problem = find(candidate).and_then(|set| set.problem.clone());
            vec![CapacityStep::Record(RolloutEvent::CapacityLost {
                release: candidate,
                ready,
                needed,
                problem,
            })]
        } else {
            Vec::new()
        };
    };
    if ready >= needed {
        return vec![CapacityStep::Record(RolloutEvent::CapacityRestored {
            release: candidate,
            ready,
        })];
    }
    let short_for = Duration::try_from(now.duration_since(shortage.since)).unwrap_or_default();
    if short_for < rollout.unready_grace(ready) {
        return Vec::new();
    }
    let why = format!(
        "{ready} of {needed} instances of {candidate} ready for {}{}",
        DurationText(short_for),
        problem_suffix(find(candidate)),
    );
    if can_take_over(rollout, ready, find) {
        return vec![CapacityStep::RollBack(why)];
    }
    if shortage.is_reported {
        return Vec::new();
    }
    vec![CapacityStep::Record(RolloutEvent::RollbackBlocked { why })]
}

fn problem_suffix(set: Option<&SetReadiness>) -> String {
    set.and_then(|set| set.problem.as_ref())
        .map(|problem| format!(" ({problem})"))
        .unwrap_or_default()
}

/// Whether stable can serve the candidate's users: it is healthy, or, once it was stopped, the candidate has nothing to
/// lose.
fn can_take_over<'a>(
    rollout: &Rollout,
    candidate_ready: u32,
    find: impl Fn(ReleaseNumber) -> Option<&'a SetReadiness>,
) -> bool {
    let Some(stable) = rollout.stable() else {
        return false;
    };
    if rollout.observed.count(stable) == 0 {
        return candidate_ready == 0;
    }
    let ready = find(stable).map_or(0, |set| set.ready);
    let needed = rollout
        .instances_needed(&rollout.observed.split, stable)
        .max(1);
    ready >= needed || candidate_ready == 0 && ready > 0
}
/// Ready instances by release, and whether all instances are ready.
#[must_use]
pub fn summarize_readiness(
    instances: &[InstanceStatus],
    place: &ServiceEnvironment,
    releases: &[ReleaseNumber],
) -> (Vec<SetReadiness>, bool) {
    let mut sets: BTreeMap<ReleaseNumber, SetReadiness> = BTreeMap::new();
    let mut is_complete = true;
    for status in instances {
        let set = &status.id.set;
        if set.place != *place || !releases.contains(&set.release) {
            continue;
        }
        let entry = sets.entry(set.release).or_insert_with(|| SetReadiness {
            release: set.release,
            ready: 0,
            problem: None,
        });
        match &status.phase {
            InstancePhase::Ready => entry.ready += 1,
            InstancePhase::Stopping => is_complete = false,
            InstancePhase::Starting { why }
            | InstancePhase::Unready { why }
            | InstancePhase::Backoff { why, .. } => {
                is_complete = false;
                let problem = || format!("instance {}: {why}", status.id.slot);
                entry.problem.get_or_insert_with(problem);
            }
        }
    }
    (sets.into_values().collect(), is_complete)
}
