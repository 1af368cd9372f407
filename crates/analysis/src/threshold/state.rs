//! What the threshold judge remembers: where the counts stood, how many measurements ended how, and the last outcome.
//! Integers and sentences only: NaN does not survive JSON, and this is kept in the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::series::Series;
use crate::{
    Judgement, Metric, Observation,
    track::{Counts, Track},
};

/// Memory of one hold. `Default` is the state when the hold begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(super) canary: Track,
    pub(super) stable: Track,
    measured_at: Option<Timestamp>,
    pub(super) tally: Tally,
    pub(super) latest: Option<Outcome>,
    pub(super) settled: Option<Judgement>,
    /// The moment that a provider's last answer was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answered_at: Option<Timestamp>,
    /// When the hold was first looked at, where its beginning is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began: Option<Timestamp>,
    /// What is counted over the whole rollout, whatever hold it is in.
    #[serde(default, skip_serializing_if = "RolloutCounts::is_new")]
    pub(super) rollout: RolloutCounts,
}

/// The counters of both sides when the rollout was first looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RolloutCounts {
    pub(super) canary: Track,
    pub(super) stable: Track,
}

impl RolloutCounts {
    fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// How many measurements ended how. The names are Argo Rollouts'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All but errors.
    pub count: u32,
    /// Within the bound.
    pub successful: u32,
    /// Beyond the bound.
    pub failed: u32,
    /// NaN, infinite or without traffic.
    pub inconclusive: u32,
    /// Without a value.
    pub error: u32,
    /// Without a value, since the last that had one.
    pub consecutive_error: u32,
}

/// How the last measurement ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) kind: OutcomeKind,
    pub(super) why: String,
    /// Whether nothing was measured because there were no requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeKind {
    Successful,
    Failed,
    Inconclusive,
    Error,
}

impl State {
    /// When the last measurement was taken; `None` before the first.
    #[must_use]
    pub const fn measured_at(&self) -> Option<Timestamp> {
        self.measured_at
    }

    /// The counts so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether `at` lies before what was already taken into account.
    pub(super) fn is_stale(&self, at: Timestamp) -> bool {
        [self.canary.at(), self.stable.at(), self.measured_at]
            .into_iter()
            .flatten()
            .any(|known| at < known)
    }

    /// Forgets the hold; what is counted over the whole rollout stays.
    pub(crate) fn begin_hold(&mut self) {
        *self = Self {
            rollout: std::mem::take(&mut self.rollout),
            ..Self::default()
        };
    }

    /// Remembers where the counts of each side stood when it was first seen.
    pub(super) fn begin(&mut self, series: &Series<'_>, seen: &Observation) {
        let (canary, stable) = counts(series, seen);
        if series.metric == Metric::Restarts {
            if let Some(counts) = canary {
                self.rollout.canary.begin(counts, seen.at);
            }
            if let Some(counts) = stable {
                self.rollout.stable.begin(counts, seen.at);
            }
        }
        if let Some(counts) = canary {
            self.canary.begin(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.begin(counts, seen.at);
        }
    }

    /// Begins to count here: a warm-up is left out.
    pub(super) fn pass_over(&mut self, series: &Series<'_>, seen: &Observation) {
        let (canary, stable) = counts(series, seen);
        if let Some(counts) = canary {
            self.canary.pass_over(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.pass_over(counts, seen.at);
        }
        self.hear(series, seen);
    }

    /// What a provider has said now isn't asked about again.
    fn hear(&mut self, series: &Series<'_>, seen: &Observation) {
        if let (Metric::Value(name), Some(sample)) = (series.metric, &seen.canary.sample) {
            self.answered_at = sample.answer(name).map(|answer| answer.at);
        }
    }

    /// Counts a measurement and closes its window on both sides.
    pub(super) fn record(&mut self, series: &Series<'_>, seen: &Observation, outcome: Outcome) {
        self.tally.record(outcome.kind);
        self.measured_at = Some(seen.at);
        self.latest = Some(outcome);
        self.hear(series, seen);
        let (canary, stable) = counts(series, seen);
        if let Some(counts) = canary {
            self.canary.close(counts, seen.at);
        }
        if let Some(counts) = stable {
            self.stable.close(counts, seen.at);
        }
    }

    /// What the canary did since the hold began, the open window included unless the observation is late.
    pub(super) fn whole_of_canary(&self, series: &Series<'_>, seen: &Observation) -> Counts {
        match counts(series, seen).0 {
            Some(counts) if !self.is_stale(seen.at) => self.canary.whole(counts),
            _ => self.canary.closed,
        }
    }
}

/// What both sides have counted.
pub(super) fn counts(series: &Series<'_>, seen: &Observation) -> (Option<Counts>, Option<Counts>) {
    let of = |sample: &Option<crate::Sample>| series.counts(sample.as_ref()?);
    (
        of(&seen.canary.sample),
        seen.stable.as_ref().and_then(|side| of(&side.sample)),
    )
}

impl Tally {
    fn record(&mut self, kind: OutcomeKind) {
        let counter = match kind {
            OutcomeKind::Successful => &mut self.successful,
            OutcomeKind::Failed => &mut self.failed,
            OutcomeKind::Inconclusive => &mut self.inconclusive,
            OutcomeKind::Error => {
                self.error = self.error.saturating_add(1);
                self.consecutive_error = self.consecutive_error.saturating_add(1);
                return;
            }
        };
        *counter = counter.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.consecutive_error = 0;
    }
}
