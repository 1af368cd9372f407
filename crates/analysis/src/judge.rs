//! What every judge is: a fold over observations that can be interrupted anywhere.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Judgement, Metric, Observation};

/// Judges one metric of a rollout, or several together.
///
/// A judge is configuration only; its state is logged.
///
/// # Invariants
/// Serializing the state, reading it back and resuming gives the same judgements as an uninterrupted run.
pub trait Judge {
    /// State between observations; `Default` is the state when a rollout begins.
    type State: Clone + Default + PartialEq + Serialize + DeserializeOwned;

    /// The metrics that it reads; never empty.
    fn metrics(&self) -> Vec<Metric>;

    /// At least this long from one measurement to the next; `None`: every look counts.
    fn interval(&self) -> Option<Duration>;

    /// Whether it compares with stable: a pass of it that is settled can end a hold early.
    fn compares(&self) -> bool {
        false
    }

    /// Whether too little traffic keeps a hold from ending.
    fn is_required(&self) -> bool;

    /// The next hold begins.
    fn start_hold(state: &mut Self::State);

    /// Takes one observation into account and says how things stand. An observation that isn't due, or is older than
    /// one already taken, leaves the state as it is, so that a caller stores it only when it changed.
    fn observe(&self, state: &mut Self::State, seen: &Observation) -> Judgement;
}
