//! The evidence of one exposure: the measurements since the last traffic shift, and their judgement.

use serde::{Deserialize, Serialize};
use shipway_analysis::{
    Analysis, AnalysisCheckpoint, AnalysisState, BaselineSample, BusinessEventCount, Judgement,
    Metric, Observation, Sample, SlowCount, Verdict,
};

/// Begins anew at each shift, so that both sides are counted from the same moment; what speaks against the release in a
/// comparison with stable is kept over the whole rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutEvidence {
    state: AnalysisState,
    judgement: Option<Judgement>,
    last: Option<Observation>,
    /// The first observation of this exposure.
    first: Option<Observation>,
    /// What a failed judgement rests on.
    basis: Option<FailureBasis>,
    recent: RecentRequests,
    recent_of_stable: RecentRequests,
}

/// What a failed judgement rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureBasis {
    /// A limit, or nearly all requests fail: it needs no other release to be seen.
    Limit,
    /// Comparisons with stable alone.
    Comparison,
}

/// From this share of failed requests on, nearly all of them fail.
const NEARLY_ALL: f64 = 0.9;
/// Requests that such a share needs, so that a few unlucky ones are not nearly all.
const NEARLY_ALL_REQUESTS_MIN: u64 = 20;
/// The recent requests are those of one to two such windows.
const RECENT_WINDOW: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// The candidate's requests of the last seconds: its counters at two moments, the older first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RecentRequests {
    checkpoints: Vec<EvidenceCheckpoint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct EvidenceCheckpoint {
    at: jiff::Timestamp,
    /// Answered, given up by their client, or open for too long.
    requests: u64,
    /// Those of them without a good answer in time.
    errors: u64,
}

impl RecentRequests {
    /// Takes the counters into account; whether nearly all recent requests failed.
    fn nearly_all_fail(&mut self, sample: Option<&Sample>, at: jiff::Timestamp) -> bool {
        let Some(sample) = sample else {
            return false;
        };
        let requests = sample.judged_requests();
        let unanswered = requests.saturating_sub(sample.requests);
        let now = EvidenceCheckpoint {
            at,
            requests,
            errors: sample.errors + sample.late + unanswered,
        };
        let is_reset = |last: &EvidenceCheckpoint| last.requests > now.requests;
        if self.checkpoints.last().is_some_and(is_reset) {
            self.checkpoints.clear();
        }
        let is_due = |last: &EvidenceCheckpoint| now.at.duration_since(last.at) >= RECENT_WINDOW;
        if self.checkpoints.last().is_none_or(is_due) {
            self.checkpoints.push(now);
        }
        if self.checkpoints.len() > 2 {
            self.checkpoints.remove(0);
        }
        let Some(begin) = self.checkpoints.first() else {
            return false;
        };
        let requests = now.requests.saturating_sub(begin.requests);
        let errors = now.errors.saturating_sub(begin.errors);
        requests >= NEARLY_ALL_REQUESTS_MIN && errors as f64 >= NEARLY_ALL * requests as f64
    }
}

/// Whether errors without an answer count against the release.
fn compares_errors(analysis: &Analysis) -> bool {
    let mut rules = analysis.rules().iter();
    rules.any(|rule| rule.compares() && rule.metrics().contains(&Metric::ErrorRate))
}

/// A release whose requests nearly all fail is down, however few users that are: their number protects only a release that
/// works for others.
fn judgement_of_outage(judgement: Judgement, release: &str) -> Judgement {
    if judgement.verdict.is_fail() {
        return judgement;
    }
    let why = format!("nearly all recent requests to {release} failed");
    Judgement {
        metric: Some(Metric::ErrorRate),
        ..Judgement::new_final(Verdict::Fail { why })
    }
}

impl RolloutEvidence {
    /// Takes one observation into account and says how all limits stand together.
    pub fn observe(&mut self, limits: &Analysis, seen: &Observation) -> Judgement {
        let each = limits.observe_each(&mut self.state, seen);
        let mut judgement = limits.combine(&each);
        let stable = seen.stable.as_ref().and_then(|side| side.sample.as_ref());
        let nearly_all_fail = self
            .recent
            .nearly_all_fail(seen.canary.sample.as_ref(), seen.at);
        let stable_fails_too = self.recent_of_stable.nearly_all_fail(stable, seen.at);
        if nearly_all_fail && !stable_fails_too && compares_errors(limits) {
            judgement = judgement_of_outage(judgement, &seen.canary.release);
        }
        self.basis = judgement.verdict.is_fail().then(|| {
            let limit_fails = (each.iter().zip(limits.rules()))
                .any(|(judged, rule)| !rule.compares() && judged.judgement.verdict.is_fail());
            if limit_fails || nearly_all_fail {
                FailureBasis::Limit
            } else {
                FailureBasis::Comparison
            }
        });
        self.judgement = Some(judgement.clone());
        self.last = Some(seen.clone());
        let is_whole = seen.canary.sample.is_some()
            && seen.stable.as_ref().is_some_and(|it| it.sample.is_some());
        if is_whole {
            self.first.get_or_insert_with(|| seen.clone());
        }
        judgement
    }

    /// The judges' state that must be recorded with the last observation.
    pub(super) fn checkpoint(&self, analysis: &Analysis) -> AnalysisCheckpoint {
        analysis.checkpoint(&self.state)
    }

    /// Replaces the state that was folded from the recorded observations by the recorded one.
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
            Some((Some(before), Some(begun))) => (before.sample.clone(), begun.judged_requests()),
            // This is the first: stable as it was at the switch.
            _ => (stable.sample.clone(), canary.judged_requests()),
        };
        // Its instances may still run, kept warm: what brings them down too is not the new release's fault.
        let (restarts, instance_time) =
            (stable.sample.as_ref()).map_or((None, None), |now| (now.restarts, now.instance_time));
        let lately = self.lately(stable.sample.take());
        stable.sample = before.filter(|it| it.requests > 0).map(|before| {
            let more = canary.judged_requests().saturating_sub(begun);
            let more = more.min(before.requests);
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
    fn lately(&self, sample: Option<Sample>) -> Option<BaselineSample> {
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
        (now != BaselineSample::default()).then_some(now)
    }

    /// What the next exposure begins with.
    #[must_use]
    pub(super) fn after_shift(mut self) -> Self {
        self.state.start_hold();
        Self {
            state: self.state,
            ..Self::default()
        }
    }

    /// Puts the judgement of the log in the place of a recomputed one.
    pub(super) fn record(&mut self, judgement: Judgement, basis: Option<FailureBasis>) {
        self.judgement = Some(judgement);
        self.basis = basis;
    }

    /// What the failed judgement rests on; `None` while nothing failed.
    #[must_use]
    pub const fn failure_basis(&self) -> Option<FailureBasis> {
        self.basis
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
/// there were. Values that are not counted per request (load, provider answers) are unknown for a release without traffic; its
/// last ones are used.
fn at_the_rate_of(before: &Sample, lately: Option<BaselineSample>, more: u64) -> Sample {
    let grown = |count: u64| {
        let share = u128::from(more) * u128::from(count) / u128::from(before.requests.max(1));
        count.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    };
    let took = lately.as_ref().map(|lately| &lately.took);
    let took = took.filter(|took| !took.is_empty()).map(|took| {
        let answers = took.total();
        took.merged(&took.portion(more.min(answers), answers))
    });
    Sample {
        requests: before.requests.saturating_add(more),
        errors: grown(before.errors),
        abandoned: grown(before.abandoned),
        late: grown(before.late),
        overdue: before.overdue,
        slow_unanswered: before.slow_unanswered.clone(),
        restarts: before.restarts,
        histogram: took,
        slow: (before.slow.iter())
            .map(|slow| SlowCount {
                count: grown(slow.count),
                ..*slow
            })
            .collect(),
        events: (before.events.iter())
            .map(|happened| BusinessEventCount {
                count: grown(happened.count),
                ..*happened
            })
            .collect(),
        before: lately,
        ..Sample::default()
    }
}
