//! What the facts of a rollout add up to.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_analysis::Observation;

use super::{
    capacity::Shortage,
    event::{Body, Direction, Notice, Spec, Tone},
    evidence::Evidence,
    outcome::{Cause, Exposed, Outcome, Pace},
    plan::{Action, HoldReason, Plan, Span},
    strategy::{AddressChange, Brief, Observed},
};
use crate::{
    aggregate::{Actor, Event},
    check::SmokeReport,
    ids::ReleaseNumber,
};

/// How long past a deadline the answer of who waits for it is waited for: it says more than that time is over.
const ANSWER: Duration = Duration::from_secs(2);

/// The state of a rollout; `None` inside before it is opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State(pub Option<Box<Rollout>>);

/// A rollout that has been opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollout {
    /// What it is about.
    pub spec: Arc<Spec>,
    /// Who asked for it.
    pub by: Actor,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Which way it goes.
    pub direction: Direction,
    /// The plan in execution.
    pub plan: Plan,
    /// Its number: 1 for the first, 2 for the way back.
    pub plan_number: u32,
    /// Why it goes back, when it does.
    pub turned_back: Option<Turn>,
    /// The action under way.
    pub cursor: usize,
    /// When that action began, or was resumed.
    pub action_since: Timestamp,
    /// How much of the hold under the cursor was over before the last pause.
    pub hold_spent: Duration,
    /// Notes of what was done, in order, with the time.
    pub notes: Vec<Note>,
    /// What runs and who gets traffic.
    pub observed: Observed,
    /// The number of shifts so far; the evidence belongs to the last.
    pub exposure: u32,
    /// Whether the new release ever got traffic.
    pub served: bool,
    /// When it first did.
    #[serde(default)]
    pub served_at: Option<Timestamp>,
    /// When all traffic was on stable again.
    pub back_at: Option<Timestamp>,
    /// The evidence since the last shift, as far as it is recorded.
    pub evidence: Evidence,
    /// Readings of the metrics that were recorded.
    pub looks: u32,
    /// When traffic was last shifted.
    #[serde(default)]
    pub exposed_at: Option<Timestamp>,
    /// When what the judges remember was last recorded, since then.
    #[serde(default)]
    pub checkpointed_at: Option<Timestamp>,
    /// The last smoke tests.
    pub smoke: Option<SmokeReport>,
    /// Who has said yes to the gate under the cursor.
    pub approvals: Vec<String>,
    /// Since when fewer instances of the new release are ready than its weight needs.
    pub shortage: Option<Shortage>,
    /// Whether comparisons with the past no longer count: a reverse canary has shown, or can't show, whose fault it is.
    pub past_is_settled: bool,
    /// Attempts of the rollback that failed, and when the next one begins.
    pub rollback_retry: Option<RollbackRetry>,
    /// Since when and why it stands still.
    pub paused: Option<Pause>,
    /// Whether holds are skipped.
    pub hurried: bool,
    /// Whether the previous instances are no longer kept warm, because another release waits.
    #[serde(default)]
    pub keep_ended: bool,
    /// How it ended, when, and why.
    pub ended: Option<End>,
    /// Whether the service knows.
    pub told: bool,
    /// What people want to hear of.
    pub notices: Vec<Notice>,
    /// How many of the notices are settled for each destination in `notify` of the environment: a destination gets them in order,
    /// and none waits for another destination.
    pub notices_settled: Vec<usize>,
}

/// The moment a rollout turned back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// When.
    pub at: Timestamp,
    /// What made it leave its release.
    pub cause: Cause,
    /// Who or what asked for it.
    pub by: Actor,
    /// Why, in words.
    pub why: String,
}

/// A rollback whose last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRetry {
    /// Attempts that failed.
    pub attempt: u32,
    /// When the next attempt begins; `None` while it is under way.
    pub until: Option<Timestamp>,
}

/// Why a rollout stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
    /// Who paused it.
    pub by: String,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What made it leave its release; none when it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Who or what caused it.
    pub by: Actor,
    /// What they said, or what was seen.
    pub reason: String,
    /// Why, in words, and what serves now.
    pub why: String,
}

/// One line of a rollout's story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// Who or what.
    pub by: String,
    /// What.
    pub text: String,
}

impl Rollout {
    fn open(spec: &Spec, event: &Event<Body>) -> Self {
        Self {
            spec: Arc::new(spec.clone()),
            by: event.by.clone(),
            opened_at: event.at,
            direction: Direction::Forward,
            plan: Plan::default(),
            plan_number: 0,
            turned_back: None,
            cursor: 0,
            action_since: event.at,
            hold_spent: Duration::ZERO,
            notes: Vec::new(),
            observed: spec.observed.clone(),
            exposure: 0,
            served: false,
            served_at: None,
            back_at: None,
            evidence: Evidence::default(),
            looks: 0,
            exposed_at: None,
            checkpointed_at: None,
            smoke: None,
            approvals: Vec::new(),
            shortage: None,
            past_is_settled: false,
            rollback_retry: None,
            paused: None,
            hurried: false,
            keep_ended: false,
            ended: None,
            told: false,
            notices: Vec::new(),
            notices_settled: vec![0; spec.environment.notify.len()],
        }
    }

    /// The release that goes in.
    #[must_use]
    pub fn candidate(&self) -> ReleaseNumber {
        self.spec.release.number
    }

    /// The release it would go back to.
    #[must_use]
    pub fn stable(&self) -> Option<ReleaseNumber> {
        self.spec
            .stable
            .as_ref()
            .map(|stable| stable.release.number)
            .filter(|stable| *stable != self.candidate())
    }

    /// Whether the release that goes in is the stable one.
    #[must_use]
    pub fn is_stable_already(&self) -> bool {
        let stable = self.spec.stable.as_ref();
        stable.is_some_and(|stable| stable.release.number == self.candidate())
    }

    /// The action under the cursor; `None` at the end of the plan.
    #[must_use]
    pub fn action(&self) -> Option<&Action> {
        self.plan.actions.get(self.cursor)
    }

    /// What a strategy needs to know of this rollout.
    #[must_use]
    pub fn brief(spec: &Spec) -> Brief {
        let stable = spec.stable.as_ref().map(|stable| stable.release.number);
        Brief {
            release: spec.release.number,
            stable,
            stable_count: stable.map_or(0, |stable| spec.observed.count(stable)),
            instances: spec.environment.instances,
            has_smoke: !spec.environment.smoke.is_empty(),
            is_judged: !spec.environment.analysis.is_empty(),
            min_requests: spec.environment.analysis.min_requests(),
            needs_slow_limit: spec.is_slow_limit_measured,
            stable_traffic: spec.stable_traffic,
            drain: spec.environment.drain,
            approvals: spec.environment.approvals.clone(),
            leftovers: spec
                .observed
                .counts
                .keys()
                .copied()
                .filter(|it| *it != spec.release.number && Some(*it) != stable)
                .collect(),
            tied: spec.tied.clone(),
            address_change: AddressChange::from_spec(spec),
            watch: spec.environment.watch.duration(),
        }
    }

    /// Whether the new release gets traffic and is judged: on the way forward, also while paused or kept warm.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.ended.is_none()
            && self.direction == Direction::Forward
            && match self.spec.pace {
                Pace::ByStrategy => true,
                Pace::Direct => false,
            }
            && !self.spec.environment.analysis.is_empty()
            && !self.is_stable_already()
            && self.observed.split.shows(self.candidate())
    }

    /// Whose counters the new release's are compared with: those of fresh instances of stable where they have their share.
    #[must_use]
    pub fn compared_with(&self) -> Option<ReleaseNumber> {
        let stable = self.stable()?;
        let baseline = stable.baseline();
        let is_baseline = !self.observed.split.weight_of(baseline).is_zero();
        Some(if is_baseline { baseline } else { stable })
    }

    /// Whether stable has no traffic any more, so that the new release is compared with what stable was before the switch.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        let weight = self.observed.split.weight_of(self.candidate());
        weight == crate::exposure::Weight::FULL && self.stable().is_some()
    }

    /// A reading with stable's side as it was before the switch, where stable has no traffic any more.
    #[must_use]
    pub fn against_before(&self, seen: Observation) -> Observation {
        if self.stands_alone() {
            self.evidence.against_before(seen)
        } else {
            seen
        }
    }

    /// When the hold under the cursor is over, if nothing pauses it.
    #[must_use]
    pub fn hold_due(&self) -> Option<Timestamp> {
        match self.action() {
            Some(Action::Hold { duration, .. }) => {
                Some(self.action_since + duration.saturating_sub(self.hold_spent))
            }
            _ => None,
        }
    }

    /// Whether the previous release was brought back to be compared with.
    #[must_use]
    pub fn is_reverse_canary(&self) -> bool {
        let mut actions = self.plan.actions.iter();
        self.direction == Direction::Forward
            && actions.any(|it| it.holds_for(HoldReason::ReverseCanary))
    }

    /// Until when the promoted release is judged; `None` before its promotion and when the guard is over.
    #[must_use]
    pub fn guarded_until(&self) -> Option<Timestamp> {
        match self.action() {
            Some(Action::Hold {
                why: HoldReason::KeepWarm | HoldReason::Watch,
                ..
            }) if self.ended.is_none() => self.hold_due(),
            _ => None,
        }
    }

    /// When the hold under the cursor may end because the evidence is enough.
    #[must_use]
    pub fn hold_earliest(&self) -> Option<Timestamp> {
        match self.action() {
            Some(Action::Hold { duration, .. }) => {
                let least = self.spec.environment.strategy.holds().min.min(*duration);
                Some(self.action_since + least.saturating_sub(self.hold_spent))
            }
            _ => None,
        }
    }

    /// Until when a hold whose evidence is inconclusive may last: as long again, at least a minute more.
    #[must_use]
    pub fn hold_deadline(&self) -> Option<Timestamp> {
        match self.action() {
            Some(Action::Hold { duration, .. }) => {
                Some(self.hold_due()? + (*duration).max(Duration::from_secs(60)))
            }
            _ => None,
        }
    }

    /// When the action under the cursor has made no progress for too long. Waiting for people or for time has no such deadline.
    #[must_use]
    pub fn progress_deadline(&self) -> Option<Timestamp> {
        let allowed = self.spec.environment.progress_deadline;
        match self.action()? {
            Action::Hold { .. } | Action::Ask { .. } | Action::Meet { .. } => None,
            Action::Drain { grace, .. } => Some(self.action_since + *grace + allowed),
            // Who waits has the same time, and says at its end what each instance lacks: it is heard first.
            Action::Await { .. } => Some(self.action_since + allowed + ANSWER),
            Action::ClaimAddresses { .. }
            | Action::Start { .. }
            | Action::Smoke { .. }
            | Action::Shift { .. }
            | Action::Stop { .. }
            | Action::Promote { .. } => Some(self.action_since + allowed),
        }
    }

    /// Whether a pause keeps the action under the cursor from being carried out. What is being brought up comes up.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.paused.is_some()
            && !matches!(
                self.action(),
                Some(Action::Start { .. } | Action::Await { .. } | Action::Smoke { .. })
            )
            && self.direction == Direction::Forward
    }

    /// One word for lists.
    #[must_use]
    pub fn status(&self) -> Status {
        match (&self.ended, self.direction, self.action()) {
            (Some(end), ..) => Status::from(end.outcome),
            (None, Direction::Back, _) => Status::GoingBack,
            _ if self.paused.is_some() => Status::Paused,
            (None, _, Some(Action::Ask { .. })) => Status::Waiting,
            (None, _, Some(Action::Meet { .. })) => Status::Meeting,
            (
                None,
                _,
                Some(Action::Hold {
                    why: HoldReason::Evidence | HoldReason::Time | HoldReason::ReverseCanary,
                    ..
                }),
            ) => Status::Holding,
            (
                None,
                _,
                Some(Action::Hold {
                    why: HoldReason::KeepWarm,
                    ..
                }),
            ) => Status::KeptWarm,
            (
                None,
                _,
                Some(Action::Hold {
                    why: HoldReason::Watch,
                    ..
                }),
            ) => Status::Promoted,
            (None, ..) => Status::Moving,
        }
    }

    /// A note that names the person who caused it.
    fn note_of_person(&mut self, event: &Event<Body>, text: String) {
        match &event.by {
            Actor::Person(name) => self.note(event, format!("{text} (by {name})")),
            Actor::Push(_) | Actor::Shipway(_) => self.note(event, text),
        }
    }

    fn note(&mut self, event: &Event<Body>, text: impl Into<String>) {
        self.notes.push(Note {
            at: event.at,
            by: event.by.to_string(),
            text: text.into(),
        });
    }

    fn notice(&mut self, event: &Event<Body>, tone: Tone, title: String, text: impl Into<String>) {
        if !self.spec.environment.notify.is_empty() {
            self.notices.push(Notice {
                tone,
                title,
                text: text.into(),
                at: event.at,
            });
        }
    }

    fn notice_settled(
        &mut self,
        event: &Event<Body>,
        index: usize,
        destination: usize,
        failed: Option<&str>,
    ) {
        if let Some(settled) = self.notices_settled.get_mut(destination) {
            *settled = (*settled).max(index + 1);
        }
        if let Some(why) = failed {
            let title = self.notices.get(index).map_or("", |it| it.title.as_str());
            let text = format!("notification \"{title}\" was not delivered: {why}");
            self.note(event, text);
        }
    }

    fn begin_action(&mut self, event: &Event<Body>, cursor: usize) {
        self.cursor = cursor;
        self.action_since = event.at;
        self.hold_spent = Duration::ZERO;
        self.approvals.clear();
        if let Some(Action::Ask { gate }) = self.action() {
            let (title, text) = (
                format!("{} waits for approval", self.headline()),
                format!("{gate}; shipway approve {}", self.spec.id),
            );
            self.notice(event, Tone::Asking, title, text);
        }
    }

    /// `shop #4 → production`.
    #[must_use]
    pub fn headline(&self) -> String {
        format!(
            "{} {} → {}",
            self.spec.id.service,
            self.candidate(),
            self.spec.environment.name
        )
    }

    fn fold(&mut self, event: &Event<Body>) {
        match &event.body {
            Body::Opened { .. } => {}
            Body::Planned {
                direction,
                plan,
                cause,
                why,
            } => self.planned(event, *direction, plan, *cause, why),
            Body::ActionDone { index, note, smoke } => {
                self.action_done(event, *index, note.as_deref(), smoke.as_ref())
            }
            Body::ActionFailed { index, why, smoke } => {
                let what = self
                    .plan
                    .actions
                    .get(*index)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                self.note(event, format!("failed: {what}: {why}"));
                if smoke.is_some() {
                    self.smoke.clone_from(smoke);
                }
            }
            Body::Measured {
                seen,
                judgement,
                checkpoint,
                basis,
            } => {
                self.looks = self.looks.saturating_add(1);
                self.evidence.observe(&self.spec.environment.analysis, seen);
                self.evidence.restore(checkpoint);
                if !checkpoint.is_empty() {
                    self.checkpointed_at = Some(seen.at);
                }
                // The verdict in the log is the one that was acted on, whatever today's judge would say of the same readings.
                self.evidence.record(judgement.clone(), *basis);
                if judgement.verdict.is_fail() {
                    self.note(event, judgement.verdict.to_string());
                }
            }
            Body::CapacityLost { .. }
            | Body::CapacityRestored { .. }
            | Body::RollbackBlocked { .. } => self.capacity_changed(event),
            Body::FaultNotAttributed { why } => {
                self.past_is_settled = true;
                self.note(event, why.clone());
                let title = format!("{} is degraded, but not rolled back", self.headline());
                self.notice(event, Tone::Bad, title, why.clone());
            }
            Body::RollbackDelayed { attempt, until } => {
                self.rollback_delayed(event, *attempt, *until);
            }
            Body::Approved { comment } => {
                self.approvals.push(event.by.to_string());
                let comment = comment
                    .as_ref()
                    .map(|comment| format!(": {comment}"))
                    .unwrap_or_default();
                self.note_of_person(event, format!("approved{comment}"));
            }
            Body::Rejected { reason } => self.note(event, format!("rejected: {reason}")),
            Body::Paused { reason } => self.pause(event, reason),
            Body::Resumed => {
                self.paused = None;
                self.action_since = event.at;
                self.note_of_person(event, "resumed".to_owned());
            }
            Body::Hurried { reason } => {
                self.hurried = true;
                self.note_of_person(event, format!("remaining holds are skipped: {reason}"));
            }
            Body::KeepEnded { next } => {
                self.keep_ended = true;
                self.note(event, format!("no longer kept warm: {next} is waiting"));
            }
            Body::Ended {
                outcome,
                cause,
                why,
            } => self.end(event, *outcome, *cause, why),
            Body::ServiceTold => self.told = true,
            Body::NoticeSettled {
                index,
                destination,
                failed,
            } => self.notice_settled(event, *index, *destination, failed.as_deref()),
        }
    }

    fn planned(
        &mut self,
        event: &Event<Body>,
        direction: Direction,
        plan: &Plan,
        cause: Option<Cause>,
        why: &str,
    ) {
        self.direction = direction;
        self.plan = plan.clone();
        self.plan_number += 1;
        self.paused = None;
        self.hurried = false;
        self.shortage = None;
        if let Some(retry) = &mut self.rollback_retry {
            retry.until = None;
        } else if let (Direction::Back, Some(cause)) = (direction, cause) {
            self.turned_back = Some(Turn {
                at: event.at,
                cause,
                by: event.by.clone(),
                why: why.to_owned(),
            });
            self.note_of_person(event, format!("going back: {why}"));
            let (title, tone) = (
                format!("{} {}", self.headline(), being_ended(cause.outcome())),
                tone_of(cause.outcome()),
            );
            self.notice(event, tone, title, why);
        }
        for note in &plan.notes {
            self.note(event, note.clone());
        }
        self.begin_action(event, 0);
    }

    fn action_done(
        &mut self,
        event: &Event<Body>,
        index: usize,
        note: Option<&str>,
        smoke: Option<&SmokeReport>,
    ) {
        let Some(action) = self.plan.actions.get(index).cloned() else {
            return;
        };
        self.observed.done(&action);
        if let Action::Shift { split } = &action {
            self.exposure += 1;
            self.exposed_at = Some(event.at);
            self.checkpointed_at = None;
            let evidence = std::mem::take(&mut self.evidence);
            // Evidence against the past doesn't count while both releases serve side by side.
            if !self.is_reverse_canary() {
                self.evidence = evidence.after_shift();
            }
            if split.serves(self.candidate()) {
                self.served = true;
                self.served_at.get_or_insert(event.at);
            }
            if self.direction == Direction::Back {
                self.back_at = Some(event.at);
            }
        }
        if smoke.is_some() {
            self.smoke = smoke.cloned();
        }
        self.note(
            event,
            note.map_or_else(|| action.to_string(), |note| format!("{action}: {note}")),
        );
        self.begin_action(event, index + 1);
    }

    fn capacity_changed(&mut self, event: &Event<Body>) {
        match &event.body {
            Body::CapacityLost {
                release,
                ready,
                needed,
                problem,
            } => {
                self.shortage = Some(Shortage {
                    since: event.at,
                    ready: *ready,
                    needed: *needed,
                    is_reported: false,
                });
                let problem = problem.as_ref().map(|it| format!(": {it}"));
                let problem = problem.unwrap_or_default();
                let text = format!("{ready} of {needed} instances of {release} ready{problem}");
                self.note(event, text);
            }
            Body::CapacityRestored { release, ready } => {
                self.shortage = None;
                self.note(event, format!("{ready} instances of {release} ready again"));
            }
            Body::RollbackBlocked { why } => {
                if let Some(shortage) = &mut self.shortage {
                    shortage.is_reported = true;
                }
                let text = format!("{why}; no other release is healthy, so traffic stays");
                self.note(event, text.clone());
                let title = format!("{} is degraded", self.headline());
                self.notice(event, Tone::Bad, title, text);
            }
            _ => {}
        }
    }

    fn rollback_delayed(&mut self, event: &Event<Body>, attempt: u32, until: Timestamp) {
        self.rollback_retry = Some(RollbackRetry {
            attempt,
            until: Some(until),
        });
        let wait = Duration::try_from(until.duration_since(event.at)).unwrap_or_default();
        let text = format!(
            "rollback attempt {attempt} failed; next attempt in {}",
            Span(wait)
        );
        self.note(event, text);
        // People are called at the first failure; later ones are in the timeline.
        if attempt == 1 {
            let title = format!("{}: the rollback fails", self.headline());
            let last = self.notes.iter().rev().nth(1).map(|note| note.text.clone());
            let text = format!(
                "{}; it is retried until it succeeds; stop retrying: shipway abort {}",
                last.unwrap_or_default(),
                self.spec.id
            );
            self.notice(event, Tone::Bad, title, text);
        }
    }

    fn pause(&mut self, event: &Event<Body>, reason: &str) {
        let since_action = event.at.duration_since(self.action_since);
        if matches!(self.action(), Some(Action::Hold { .. })) {
            self.hold_spent += Duration::try_from(since_action).unwrap_or_default();
        }
        self.paused = Some(Pause {
            since: event.at,
            reason: reason.to_owned(),
            by: event.by.to_string(),
        });
        self.note_of_person(event, format!("paused: {reason}"));
        if matches!(event.by, Actor::Shipway(_)) {
            let (title, text) = (
                format!("{} is paused", self.headline()),
                format!("{reason}; shipway resume|promote|abort {}", self.spec.id),
            );
            self.notice(event, Tone::Asking, title, text);
        }
    }

    fn end(&mut self, event: &Event<Body>, outcome: Outcome, cause: Option<Cause>, why: &str) {
        let (by, reason) = match &self.turned_back {
            Some(turn) => (turn.by.clone(), turn.why.clone()),
            None => (event.by.clone(), why.to_owned()),
        };
        self.ended = Some(End {
            at: event.at,
            outcome,
            cause,
            by,
            reason,
            why: why.to_owned(),
        });
        self.paused = None;
        self.note(event, why);
        let took =
            Span(Duration::try_from(event.at.duration_since(self.opened_at)).unwrap_or_default());
        let title = format!("{} {}", self.headline(), has_ended(outcome));
        self.notice(
            event,
            tone_of(outcome),
            title,
            format!("{why}; took {took}"),
        );
    }

    /// Whether it counts as a change failure (DORA).
    #[must_use]
    pub fn is_change_failure(&self) -> bool {
        let exposed = if self.served {
            Exposed::Yes
        } else {
            Exposed::Never
        };
        (self.ended.as_ref()).is_some_and(|end| end.outcome.is_change_failure(exposed))
    }
}

/// What a notification says of a rollout whose rollback will end it like this.
const fn being_ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Promoted => "is being promoted",
        Outcome::RolledBack | Outcome::Failed => "is rolled back",
        Outcome::Aborted => "is being aborted",
        Outcome::Rejected => "was rejected",
        Outcome::Superseded => "is being superseded",
    }
}

/// What a notification says of a rollout that ended like this.
const fn has_ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Promoted => "is live",
        Outcome::RolledBack => "was rolled back",
        Outcome::Aborted => "was aborted",
        Outcome::Rejected => "was rejected",
        Outcome::Superseded => "was superseded",
        Outcome::Failed => "failed: a person must look",
    }
}

/// What a person decided, and what made room for another release, is no bad news.
const fn tone_of(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Promoted => Tone::Good,
        Outcome::Aborted | Outcome::Rejected | Outcome::Superseded => Tone::Neutral,
        Outcome::RolledBack | Outcome::Failed => Tone::Bad,
    }
}

/// One word for where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for people.
    Waiting,
    /// Waits for the rollouts of tied services.
    Meeting,
    /// Actions are carried out.
    Moving,
    /// The exposure is held for evidence.
    Holding,
    /// Promoted; the previous set is kept warm.
    KeptWarm,
    /// Stands still until somebody resumes it.
    Paused,
    /// On its way back to stable.
    GoingBack,
    /// The release is stable; it is watched for a while before the rollout ends.
    Promoted,
    /// Ended: evidence or a failed action took the release out.
    RolledBack,
    /// Ended: a person took the release out.
    Aborted,
    /// Ended: a person answered no at a gate.
    Rejected,
    /// Ended: stopped in favour of another release.
    Superseded,
    /// Ended: a person must look.
    Failed,
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Promoted => Self::Promoted,
            Outcome::RolledBack => Self::RolledBack,
            Outcome::Aborted => Self::Aborted,
            Outcome::Rejected => Self::Rejected,
            Outcome::Superseded => Self::Superseded,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Meeting => "meeting",
            Self::Moving => "moving",
            Self::Holding => "holding",
            Self::KeptWarm => "kept warm",
            Self::Paused => "paused",
            Self::GoingBack => "going back",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
        })
    }
}

/// Folds one fact.
pub(super) fn apply(state: &mut State, event: &Event<Body>) {
    match (&mut state.0, &event.body) {
        (None, Body::Opened { spec }) => state.0 = Some(Box::new(Rollout::open(spec, event))),
        (Some(rollout), _) => rollout.fold(event),
        // Facts of a rollout that was never opened can't be in a log that `decide` wrote.
        (None, _) => {}
    }
}
