//! The evidence of rollouts with every evaluation in it; only a few of them are recorded in the log.
//!
//! It is lost with the server, and then folded again from the recorded evaluations.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use shipway_analysis::Observation;
use shipway_core::{
    ids::RolloutId,
    rollout::{MetricEvaluation, Rollout, RolloutEvidence, RolloutView},
};

/// The evidence of all rollouts that are being judged.
#[derive(Default)]
pub struct LiveEvidence(Mutex<BTreeMap<RolloutId, (u32, RolloutEvidence)>>);

impl LiveEvidence {
    /// Takes a reading into account; the look is returned if it must be recorded. A reading of another exposure counts for nothing.
    pub(crate) fn record_observation(
        &self,
        rollout: &Rollout,
        exposure: u32,
        seen: Observation,
    ) -> Option<MetricEvaluation> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rollout.ended.is_some() {
            all.remove(&rollout.spec.id);
            return None;
        }
        if rollout.exposure != exposure || !rollout.is_judged() {
            return None;
        }
        let known = all.remove(&rollout.spec.id);
        let mut live = at_exposure(rollout, known).unwrap_or_else(|| rollout.evidence.clone());
        let look = rollout.observe(&mut live, seen);
        all.insert(rollout.spec.id.clone(), (exposure, live));
        look
    }

    /// Forgets a rollout that is no longer judged.
    pub(crate) fn forget(&self, id: &RolloutId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(id);
    }

    /// Replaces the last recorded look in a view by the newest one.
    pub(crate) fn show(&self, view: &mut RolloutView) {
        if view.judgement.is_none() || view.ended.is_some() {
            return;
        }
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, live)) = all.get(&view.id) else {
            return;
        };
        let (Some(seen), Some(judgement)) = (live.last(), live.judgement()) else {
            return;
        };
        let is_newer = view.seen.as_ref().is_none_or(|known| known.at < seen.at);
        if is_newer
            && !view
                .judgement
                .as_ref()
                .is_some_and(|it| it.verdict.is_fail())
        {
            view.seen = Some(seen.clone());
            view.judgement = Some(judgement.clone());
        }
    }
}

/// The evidence that the rollout's exposure begins, or continues, with.
fn at_exposure(
    rollout: &Rollout,
    known: Option<(u32, RolloutEvidence)>,
) -> Option<RolloutEvidence> {
    let (before, mut live) = known?;
    for _ in before..rollout.exposure {
        live = rollout.evidence_after_shift(live);
    }
    (before <= rollout.exposure).then_some(live)
}
