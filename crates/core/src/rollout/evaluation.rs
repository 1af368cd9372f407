//! Evaluations of the metrics: one a second, few of them recorded.
//!
//! # Why
//!
//! The evidence is judged every second, so that a bad release is rolled back at once. An event for each evaluation would be 1
//! KB a second per rollout without adding information: counts are cumulative, so the next reading includes a skipped one.
//!
//! # Invariants
//!
//! - A fail is recorded at once, and so is the last evaluation of a hold.
//! - A rollout of any length records at most [`LOOKS_MAX`] evaluations, plus the first and the last of each hold.
//! - After a crash the evidence is folded again from the recorded events. Cumulative counts continue from there; other state of
//!   the judges (values, windows, how often a limit failed) is recorded as a checkpoint each time the age of the weight has
//!   doubled.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shipway_analysis::{AnalysisCheckpoint, Judgement, Observation};

use super::{
    FailureBasis, RolloutEvidence, event::RolloutEvent, metric_evaluation::MetricEvaluation,
    state::Rollout,
};

/// Looks of a rollout that are recorded one after the other, before they thin out.
const LOOKS_DENSE: u32 = 10;
/// From then on the time from one to the next is at least this part of the rollout's age: some seventy in a day.
const AGE_PARTS: u32 = 6;
/// The same where a look is long, because quantiles are compared or there are checkpoints.
const AGE_PARTS_OF_LONG: u32 = 3;
/// Changes of the verdict are recorded as long as there are fewer looks than this: one that swings to and fro says little.
const LOOKS_OF_CHANGES_MAX: u32 = 130;
/// Recorded evaluations of one rollout, not counting the first and the last of each hold and a fail.
pub const LOOKS_MAX: u32 = 150;
/// How old the last recorded look may be when a hold ends: a little more than from one look to the next.
const FRESH: Duration = Duration::from_millis(1_200);

impl From<MetricEvaluation> for RolloutEvent {
    fn from(evaluation: MetricEvaluation) -> Self {
        Self::Measured {
            seen: evaluation.seen,
            judgement: evaluation.judgement,
            checkpoint: evaluation.checkpoint,
            basis: evaluation.basis,
        }
    }
}

impl Rollout {
    /// Takes a reading into account. `live` is the evidence of this exposure with all looks in it, recorded or not; it begins as
    /// [`Rollout::evidence`]. The look is returned if it must be recorded.
    #[must_use]
    pub fn observe(
        &self,
        live: &mut RolloutEvidence,
        seen: Observation,
    ) -> Option<MetricEvaluation> {
        let seen = if self.has_all_traffic() {
            live.against_before(seen)
        } else {
            seen
        };
        let analysis = &self.spec.environment.analysis;
        let judgement = live.observe(analysis, &seen);
        let basis = live.failure_basis();
        if !self.is_recorded(&judgement, basis, &seen) {
            return None;
        }
        let checkpoint = if self.is_checkpoint_due(seen.at) {
            live.checkpoint(analysis)
        } else {
            AnalysisCheckpoint::default()
        };
        Some(MetricEvaluation {
            basis,
            seen: Box::new(seen),
            judgement,
            checkpoint,
        })
    }

    /// Whether the exposure has become twice as old since the last checkpoint: those are long.
    fn is_checkpoint_due(&self, now: Timestamp) -> bool {
        let (Some(exposed_at), Some(last)) = (self.exposed_at, self.checkpointed_at) else {
            return true;
        };
        now.duration_since(last) >= last.duration_since(exposed_at)
    }

    fn is_recorded(
        &self,
        judgement: &Judgement,
        basis: Option<FailureBasis>,
        seen: &Observation,
    ) -> bool {
        let recorded = (self.evidence.last(), self.evidence.judgement());
        let (Some(last), Some(known)) = recorded else {
            return true;
        };
        let is_like =
            judgement.verdict.is_like(&known.verdict) && judgement.finality == known.finality;
        if judgement.verdict.is_fail() {
            return !is_like || basis != self.evidence.failure_basis();
        }
        let since = |earlier: Timestamp| seen.at.duration_since(earlier);
        if since(last.at) <= SignedDuration::ZERO {
            return false;
        }
        if self.is_stale_at_the_end(last.at, seen.at) {
            return true;
        }
        if !is_like && self.looks < LOOKS_OF_CHANGES_MAX {
            return true;
        }
        let analysis = &self.spec.environment.analysis;
        let sample = seen.canary.sample.as_ref();
        let is_long = sample.is_some_and(|it| it.histogram.is_some()) || analysis.has_memory();
        let parts = if is_long {
            AGE_PARTS_OF_LONG
        } else {
            AGE_PARTS
        };
        let gap = since(self.opened_at).as_secs_f64() / f64::from(parts);
        let is_due = self.looks < LOOKS_DENSE || since(last.at).as_secs_f64() >= gap;
        is_due && self.looks < LOOKS_MAX
    }

    /// Whether the hold ends or its deadline has passed, and the last recorded evaluation is older than that.
    fn is_stale_at_the_end(&self, last: Timestamp, now: Timestamp) -> bool {
        let ends = [self.hold_due(), self.hold_deadline()];
        let mut ends = ends.into_iter().flatten().map(|end| end - FRESH);
        ends.any(|fresh| last < fresh && fresh <= now)
    }
}
