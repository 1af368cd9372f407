//! What every judge is: a fold over observations that can be interrupted anywhere.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Judgement, Observation};

/// Judges one metric of a rollout during one hold.
///
/// A judge is configuration; all memory is in its state, which the log keeps. For any judge: observing, storing the
/// state, reading it back and going on gives what uninterrupted observing gives.
pub trait Judge {
    /// What is remembered between observations; `Default` is the state when a hold begins.
    type State: Clone + Default + PartialEq + Serialize + DeserializeOwned;

    /// Takes one observation into account and says how things stand. An observation that isn't due, or is older than
    /// one already taken, leaves the state as it is, so that a caller stores it only when it changed.
    fn observe(&self, state: &mut Self::State, seen: &Observation) -> Judgement;
}
