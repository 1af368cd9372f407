//! One simulated rollout: each second its contender sets the weight of the new release, observes the traffic, and may end the
//! rollout. All of them meet the same world.

use crate::world::{SimulatedSecond, SimulatedWorld};

/// Who decides a rollout: Shipway, or a model of another controller.
pub trait RolloutContender {
    /// The share of the new release in the second that comes; 0 to 1.
    fn weight(&self) -> f64;

    /// Observes second `at`, counted from 1; returns how the rollout ends, if it ends now.
    fn second(&mut self, at: u32, seen: &SimulatedSecond) -> Option<RolloutEnd>;
}

/// How a rollout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutEnd {
    /// The new release serves all traffic.
    Promoted,
    /// The stable release serves all traffic.
    RolledBack,
    /// It waits for a person.
    Paused,
}

/// How one rollout went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayedRollout {
    /// How; `None` when the horizon came first.
    pub how: Option<RolloutEnd>,
    /// After how many seconds.
    pub at: u32,
    /// Requests that failed or were slow because of the regression, until the horizon.
    pub harmed: u64,
    /// Requests that the new release answered until then.
    pub served: u64,
}

/// Lets a contender decide one rollout.
pub fn play(
    world: &SimulatedWorld<'_>,
    horizon: u32,
    contender: &mut impl RolloutContender,
) -> PlayedRollout {
    let (mut harmed, mut served) = (0, 0);
    for at in 1..=horizon {
        let seen = world.second(at, contender.weight());
        harmed += seen.canary.harmed;
        served += seen.canary.requests;
        if let Some(how) = contender.second(at, &seen) {
            let weight = match how {
                RolloutEnd::Promoted => 1.0,
                RolloutEnd::RolledBack => 0.0,
                RolloutEnd::Paused => contender.weight(),
            };
            harmed += world.harmed_after(at, weight);
            return PlayedRollout {
                how: Some(how),
                at,
                harmed,
                served,
            };
        }
    }
    PlayedRollout {
        how: None,
        at: horizon,
        harmed,
        served,
    }
}
