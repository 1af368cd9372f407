//! The evidence of one exposure: what was measured since traffic was last shifted, and what it adds up to.

use serde::{Deserialize, Serialize};
use shipway_analysis::{
    Analysis, AnalysisCheckpoint, AnalysisState, Before, Happened, Judgement, Observation, Sample,
    Slow,
};

/// Begins anew at each shift, so that both sides are counted from the same moment; what speaks against the release in a
/// comparison with stable is kept over the whole rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    state: AnalysisState,
    judgement: Option<Judgement>,
    last: Option<Observation>,
    /// The first observation of this exposure.
    #[serde(default)]
    first: Option<Observation>,
}

impl Evidence {
    /// Takes one observation into account and says how all limits stand together.
    pub fn observe(&mut self, limits: &Analysis, seen: &Observation) -> Judgement {
        let judgement = limits.observe(&mut self.state, seen);
        self.judgement = Some(judgement.clone());
        self.last = Some(seen.clone());
        let is_whole = seen.canary.sample.is_some()
            && seen.stable.as_ref().is_some_and(|it| it.sample.is_some());
        if is_whole {
            self.first.get_or_insert_with(|| seen.clone());
        }
        judgement
    }

    /// What must be recorded of the judges' memory beside the last observation.
    pub(super) fn checkpoint(&self, analysis: &Analysis) -> AnalysisCheckpoint {
        analysis.checkpoint(&self.state)
    }

    /// Puts what was recorded in the place of what is folded from the recorded observations alone.
    pub(super) fn restore(&mut self, checkpoint: &AnalysisCheckpoint) {
        self.state.restore(checkpoint);
    }

    /// The reading as if stable still had traffic: for each request of the canary since the switch, one more of stable at the rate
    /// of all its requests before. When those are used up nothing is added: no more is claimed than was seen. Evenly spaced
    /// events are weaker evidence than random ones of the same rate, so this errs towards staying (docs/adr/0012). Values that
    /// stable had (load, answers of providers) are passed on as those of before, from whichever reading had them.
    pub(super) fn against_before(&self, mut seen: Observation) -> Observation {
        let (Some(stable), Some(canary)) = (&mut seen.stable, &seen.canary.sample) else {
            return seen;
        };
        stable.release.push_str(" before the switch");
        let first = self.first.as_ref();
        let (before, begun) = match first.map(|it| (&it.stable, &it.canary.sample)) {
            Some((Some(before), Some(begun))) => (before.sample.clone(), begun.requests),
            // This is the first: stable as it was at the switch.
            _ => (stable.sample.clone(), canary.requests),
        };
        // Its instances may still run, kept warm: what brings them down too is not the new release's fault.
        let (restarts, instance_time) =
            (stable.sample.as_ref()).map_or((None, None), |now| (now.restarts, now.instance_time));
        let lately = self.lately(stable.sample.take());
        stable.sample = before.filter(|it| it.requests > 0).map(|before| {
            let more = canary.requests.saturating_sub(begun).min(before.requests);
            Sample {
                restarts: restarts.or(before.restarts),
                instance_time,
                ..at_the_rate_of(&before, lately, more)
            }
        });
        seen
    }

    /// What stable was lately: as this reading has it, or else as one before had it. A server that was started anew since the
    /// switch knows nothing of the time before.
    fn lately(&self, sample: Option<Sample>) -> Option<Before> {
        let mut now = sample.and_then(|sample| sample.before).unwrap_or_default();
        let last = self.last.as_ref().and_then(|last| last.stable.as_ref());
        let known = last.and_then(|side| side.sample.as_ref()?.before.as_ref());
        if let Some(known) = known {
            if now.took.is_empty() {
                now.took.clone_from(&known.took);
            }
            for (metric, values) in &known.values {
                if now.values.iter().all(|(of, _)| of != metric) {
                    now.values.push((*metric, values.clone()));
                }
            }
        }
        (now != Before::default()).then_some(now)
    }

    /// What the next exposure begins with.
    #[must_use]
    pub fn after_shift(mut self) -> Self {
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

/// `more` requests after those of `before`, as they were; how long answers took as they took lately, and not more of them than
/// there were. What isn't counted by request (load, answers of providers) isn't known of a release that nobody asks, but what it
/// was.
fn at_the_rate_of(before: &Sample, lately: Option<Before>, more: u64) -> Sample {
    let grown = |count: u64| {
        let share = u128::from(more) * u128::from(count) / u128::from(before.requests.max(1));
        count.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    };
    let took = lately.as_ref().map(|lately| &lately.took);
    let took = took.filter(|took| !took.is_empty()).map(|took| {
        let answers = took.total();
        took.plus(&took.portion(more.min(answers), answers))
    });
    Sample {
        requests: before.requests.saturating_add(more),
        errors: grown(before.errors),
        restarts: before.restarts,
        histogram: took,
        slow: (before.slow.iter())
            .map(|slow| Slow {
                count: grown(slow.count),
                ..*slow
            })
            .collect(),
        events: (before.events.iter())
            .map(|happened| Happened {
                count: grown(happened.count),
                ..*happened
            })
            .collect(),
        before: lately,
        ..Sample::default()
    }
}
