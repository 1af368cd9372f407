//! The evidence of one exposure: what was measured since traffic was last shifted, and what it adds up to.

use serde::{Deserialize, Serialize};
use shipway_analysis::{Analysis, AnalysisState, Judgement, Observation};

/// Begins anew at each shift, so that both sides are counted from the same moment; what speaks against the release in a
/// comparison with stable is kept over the whole rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    state: AnalysisState,
    judgement: Option<Judgement>,
    last: Option<Observation>,
}

impl Evidence {
    /// Takes one observation into account and says how all limits stand together.
    pub fn observe(&mut self, limits: &Analysis, seen: &Observation) -> Judgement {
        let judgement = limits.observe(&mut self.state, seen);
        self.judgement = Some(judgement.clone());
        self.last = Some(seen.clone());
        judgement
    }

    /// What the next exposure begins with.
    #[must_use]
    pub(super) fn after_shift(mut self) -> Self {
        self.state.begin_hold();
        Self {
            state: self.state,
            ..Self::default()
        }
    }

    /// Puts the judgement of the log in the place of a recomputed one.
    pub(super) fn record(&mut self, judgement: Judgement) {
        self.judgement = Some(judgement);
    }

    /// How things stand; `None` before the first observation.
    #[must_use]
    pub const fn judgement(&self) -> Option<&Judgement> {
        self.judgement.as_ref()
    }

    /// The last observation.
    #[must_use]
    pub const fn last(&self) -> Option<&Observation> {
        self.last.as_ref()
    }
}
