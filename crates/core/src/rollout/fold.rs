//! How each fact changes the state of a rollout.

use std::time::Duration;

use jiff::Timestamp;
use shipway_analysis::{AnalysisCheckpoint, Judgement, Observation};

use super::{
    FailureBasis,
    event::{NoticeTone, PlanDirection, RolloutEvent, RolloutNotice, describe_warm_set_end},
    outcome::{RollbackCause, RolloutEnd, RolloutOutcome},
    plan::{PlanAction, RolloutPlan},
    readiness::CapacityShortage,
    state::{RollbackRetry, RollbackStart, Rollout, RolloutPause, RolloutState, TimelineNote},
};
use crate::{
    aggregate::{Actor, Event},
    check::SmokeReport,
    duration_text::DurationText,
    gate::{
        ApprovingPerson, BrokenGlass, GateDecision, GateSpec, GateState, GateVerdict, GlassReview,
    },
};

impl Rollout {
    /// A note that names the person who caused it.
    fn note_of_person(&mut self, event: &Event<RolloutEvent>, text: String) {
        match &event.by {
            Actor::Person { name, .. } => self.note(event, format!("{text} (by {name})")),
            Actor::Push { .. } | Actor::Workload { .. } | Actor::Shipway(_) => {
                self.note(event, text)
            }
        }
    }

    fn note(&mut self, event: &Event<RolloutEvent>, text: impl Into<String>) {
        self.notes.push(TimelineNote {
            at: event.at,
            by: event.by.to_string(),
            text: text.into(),
        });
    }

    fn notice(
        &mut self,
        event: &Event<RolloutEvent>,
        tone: NoticeTone,
        title: String,
        text: impl Into<String>,
    ) {
        if !self.spec.environment.notify.is_empty() {
            self.notices.push(RolloutNotice {
                tone,
                title,
                text: text.into(),
                at: event.at,
            });
        }
    }

    fn finish_notice(
        &mut self,
        event: &Event<RolloutEvent>,
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

    fn start_action(&mut self, event: &Event<RolloutEvent>, cursor: usize) {
        self.cursor = cursor;
        self.action_since = event.at;
        self.hold_spent = Duration::ZERO;
        self.gate = None;
        if let Some(PlanAction::Ask { gate }) = self.action() {
            let state = GateState::new(gate.clone(), self.opened_at, event.at)
                .bound_to(self.approval_binding())
                .for_change_of(self.spec.change_people());
            self.notice_gate(event, &state);
            self.gate = Some(state);
        }
    }

    fn fold(&mut self, event: &Event<RolloutEvent>) {
        match &event.body {
            RolloutEvent::Opened { .. } => {}
            RolloutEvent::Planned {
                direction,
                plan,
                cause,
                why,
            } => self.planned(event, *direction, plan, *cause, why),
            RolloutEvent::ActionDone { index, note, smoke } => {
                self.action_done(event, *index, note.as_deref(), smoke.as_ref())
            }
            RolloutEvent::ActionFailed { index, why, smoke } => {
                self.action_failed(event, *index, why, smoke.as_ref());
            }
            RolloutEvent::Measured {
                seen,
                judgement,
                checkpoint,
                basis,
            } => {
                self.measured(seen, checkpoint);
                self.judged(event, judgement, *basis);
            }
            RolloutEvent::CapacityLost { .. }
            | RolloutEvent::CapacityRestored { .. }
            | RolloutEvent::RollbackBlocked { .. } => self.capacity_changed(event),
            RolloutEvent::FaultNotAttributed { why } => self.fault_not_attributed(event, why),
            RolloutEvent::RollbackDelayed { attempt, until } => {
                self.rollback_delayed(event, *attempt, *until);
            }
            RolloutEvent::Approved {
                comment, groups, ..
            } => self.approved(event, groups, comment.as_deref()),
            RolloutEvent::Rejected { reason } => self.rejected(event, reason),
            RolloutEvent::GlassBroken { reason, .. } => self.glass_broken(event, reason),
            RolloutEvent::GlassReviewed { comment } => self.glass_reviewed(event, comment.as_ref()),
            RolloutEvent::Paused { reason, .. } => self.pause(event, reason),
            RolloutEvent::Resumed => self.resumed(event),
            RolloutEvent::HoldsSkipped { reason } => self.holds_skipped(event, reason),
            RolloutEvent::KeepEnded { next } => {
                self.keep_ended = true;
                let text = format!("no longer kept warm: {}", describe_warm_set_end(*next));
                self.note(event, text);
            }
            RolloutEvent::SuccessorWaiting { why } => self.successor_waiting(event, why),
            RolloutEvent::Ended {
                outcome,
                cause,
                why,
            } => self.end(event, *outcome, *cause, why),
            RolloutEvent::ServiceNotified => self.service_notified = true,
            RolloutEvent::NotificationFinished {
                index,
                destination,
                failed,
            } => self.finish_notice(event, *index, *destination, failed.as_deref()),
        }
    }

    fn judged(
        &mut self,
        event: &Event<RolloutEvent>,
        judgement: &Judgement,
        basis: Option<FailureBasis>,
    ) {
        // The rollout acted on the recorded verdict; the current judges might decide differently on the same readings.
        self.evidence.record(judgement.clone(), basis);
        if judgement.verdict.is_fail() {
            self.note(event, judgement.verdict.to_string());
        }
    }

    fn holds_skipped(&mut self, event: &Event<RolloutEvent>, reason: &str) {
        self.holds_skipped = true;
        self.note_of_person(event, format!("remaining holds skipped: {reason}"));
    }

    fn action_failed(
        &mut self,
        event: &Event<RolloutEvent>,
        index: usize,
        why: &str,
        smoke: Option<&SmokeReport>,
    ) {
        let action = self.plan.actions.get(index);
        let action = action.map(ToString::to_string).unwrap_or_default();
        self.note(event, format!("failed: {action}: {why}"));
        if smoke.is_some() {
            self.smoke = smoke.cloned();
        }
    }

    fn successor_waiting(&mut self, event: &Event<RolloutEvent>, why: &str) {
        self.successor = Some(why.to_owned());
        let note = format!("if the rollback fails, it is not retried: {why}");
        self.note(event, note);
    }

    fn resumed(&mut self, event: &Event<RolloutEvent>) {
        self.paused = None;
        self.action_since = event.at;
        self.note_of_person(event, "resumed".to_owned());
    }

    fn measured(&mut self, seen: &Observation, checkpoint: &AnalysisCheckpoint) {
        self.looks = self.looks.saturating_add(1);
        self.evidence.observe(&self.spec.environment.analysis, seen);
        self.evidence.restore(checkpoint);
        if !checkpoint.is_empty() {
            self.checkpointed_at = Some(seen.at);
        }
    }

    fn fault_not_attributed(&mut self, event: &Event<RolloutEvent>, why: &str) {
        self.unattributed_fault = Some(why.to_owned());
        self.note(event, why);
        let title = format!("{} is degraded, but not rolled back", self.headline());
        self.notice(event, NoticeTone::Bad, title, why);
    }

    fn decide_gate(
        &mut self,
        event: &Event<RolloutEvent>,
        groups: &[String],
        verdict: GateVerdict,
        reason: Option<&str>,
    ) {
        if let Some(gate) = &mut self.gate {
            let person = ApprovingPerson::new(&event.by, groups);
            let decision = GateDecision::new(person, event.at, verdict);
            gate.record_decision(decision.with_reason(reason.map(ToOwned::to_owned)));
        }
    }

    /// Notifies people of the gate: the release, its plan, the rules and the command to paste.
    fn notice_gate(&mut self, event: &Event<RolloutEvent>, gate: &GateState) {
        if self.broken_glass.is_some() || gate.verdict(event.at) == GateVerdict::Pass {
            return;
        }
        let headline = self.headline();
        let (tone, title, text) = match &gate.spec {
            GateSpec::Approval(policy) => {
                let release = self.spec.release();
                let (id, digest) = (&self.spec.id, self.plan.digest());
                let steps = self.plan.actions.iter();
                let steps = steps.filter(|it| !matches!(it, PlanAction::Ask { .. }));
                let steps: Vec<String> = steps.map(ToString::to_string).collect();
                let text = format!(
                    "{policy}; {} {} by {}; the plan: {}; shipway approve {id} --plan-digest {digest}",
                    release.commit.id.short(),
                    release.commit.subject,
                    release.commit.author,
                    steps.join(", "),
                );
                (
                    NoticeTone::Asking,
                    format!("{headline} is waiting for approval"),
                    text,
                )
            }
            GateSpec::Wait(_) => return,
            GateSpec::Freeze(_) => {
                let freeze = gate.describe_time(event.at).unwrap_or_default();
                let title = format!("{headline} waits for the end of a freeze");
                (NoticeTone::Neutral, title, freeze)
            }
        };
        self.notice(event, tone, title, text);
    }

    fn glass_broken(&mut self, event: &Event<RolloutEvent>, reason: &str) {
        self.broken_glass = Some(BrokenGlass {
            by: ApprovingPerson::new(&event.by, &[]),
            at: event.at,
            reason: reason.to_owned(),
            review: None,
        });
        self.note_of_person(event, format!("BREAK-GLASS, all gates opened: {reason}"));
        let title = format!("{}: break-glass by {}", self.headline(), event.by);
        let text = format!(
            "{reason}; all gates were opened; another person must review it: shipway review {}",
            self.spec.id
        );
        self.notice(event, NoticeTone::Bad, title, text);
    }

    fn glass_reviewed(&mut self, event: &Event<RolloutEvent>, comment: Option<&String>) {
        if let Some(glass) = &mut self.broken_glass {
            glass.review = Some(GlassReview {
                by: event.by.to_string(),
                at: event.at,
                comment: comment.cloned(),
            });
        }
        let comment = comment.map(|it| format!(": {it}")).unwrap_or_default();
        self.note_of_person(event, format!("break-glass reviewed{comment}"));
    }

    fn rejected(&mut self, event: &Event<RolloutEvent>, reason: &str) {
        self.decide_gate(event, &[], GateVerdict::Fail, Some(reason));
        self.note(event, format!("rejected: {reason}"));
    }

    fn approved(&mut self, event: &Event<RolloutEvent>, groups: &[String], comment: Option<&str>) {
        self.decide_gate(event, groups, GateVerdict::Pass, comment);
        let comment = comment.map(|comment| format!(": {comment}"));
        self.note_of_person(event, format!("approved{}", comment.unwrap_or_default()));
    }

    fn planned(
        &mut self,
        event: &Event<RolloutEvent>,
        direction: PlanDirection,
        plan: &RolloutPlan,
        cause: Option<RollbackCause>,
        why: &str,
    ) {
        self.direction = direction;
        self.plan = plan.clone();
        self.plan_number += 1;
        self.paused = None;
        self.holds_skipped = false;
        self.shortage = None;
        if let Some(retry) = &mut self.rollback_retry {
            retry.until = None;
        } else if let (PlanDirection::Back, Some(cause)) = (direction, cause) {
            self.rollback_start = Some(RollbackStart {
                at: event.at,
                cause,
                by: event.by.clone(),
                why: why.to_owned(),
            });
            self.note_of_person(event, format!("rolling back: {why}"));
            let (title, tone) = (
                format!("{} {}", self.headline(), being_ended(cause.outcome())),
                tone_of(cause.outcome()),
            );
            self.notice(event, tone, title, why);
        } else if self.is_reverse_canary() {
            self.note(event, why);
            let title = format!("{} is degraded, determining the cause", self.headline());
            self.notice(event, NoticeTone::Bad, title, why);
        }
        for note in &plan.notes {
            self.note(event, note.clone());
        }
        self.start_action(event, 0);
    }

    fn action_done(
        &mut self,
        event: &Event<RolloutEvent>,
        index: usize,
        note: Option<&str>,
        smoke: Option<&SmokeReport>,
    ) {
        let Some(action) = self.plan.actions.get(index).cloned() else {
            return;
        };
        self.observed.done(&action);
        if let PlanAction::Shift { split } = &action {
            self.exposure += 1;
            self.exposed_at = Some(event.at);
            self.checkpointed_at = None;
            let evidence = std::mem::take(&mut self.evidence);
            self.evidence = self.evidence_after_shift(evidence);
            if split.serves(self.spec.subject.candidate()) {
                self.served = true;
                self.served_at.get_or_insert(event.at);
            }
            if self.direction == PlanDirection::Back {
                self.rolled_back_at = Some(event.at);
            }
        }
        if smoke.is_some() {
            self.smoke = smoke.cloned();
        }
        self.note(
            event,
            note.map_or_else(|| action.to_string(), |note| format!("{action}: {note}")),
        );
        self.start_action(event, index + 1);
    }

    fn capacity_changed(&mut self, event: &Event<RolloutEvent>) {
        match &event.body {
            RolloutEvent::CapacityLost {
                release,
                ready,
                needed,
                problem,
            } => {
                self.shortage = Some(CapacityShortage {
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
            RolloutEvent::CapacityRestored { release, ready } => {
                self.shortage = None;
                self.note(event, format!("{ready} instances of {release} ready again"));
            }
            RolloutEvent::RollbackBlocked { why } => {
                if let Some(shortage) = &mut self.shortage {
                    shortage.is_reported = true;
                }
                let text = format!("{why}; no other release is healthy, so traffic stays");
                self.note(event, text.clone());
                let title = format!("{} is degraded", self.headline());
                self.notice(event, NoticeTone::Bad, title, text);
            }
            _ => {}
        }
    }

    fn rollback_delayed(&mut self, event: &Event<RolloutEvent>, attempt: u32, until: Timestamp) {
        self.rollback_retry = Some(RollbackRetry {
            attempt,
            until: Some(until),
        });
        let wait = Duration::try_from(until.duration_since(event.at)).unwrap_or_default();
        let text = format!(
            "rollback attempt {attempt} failed; next attempt in {}",
            DurationText(wait)
        );
        self.note(event, text);
        // People are called at the first failure; later ones are in the timeline.
        if attempt == 1 {
            let title = format!("{}: the rollback failed", self.headline());
            let last = self.notes.iter().rev().nth(1).map(|note| note.text.clone());
            let text = format!(
                "{}; retrying until it succeeds or a newer release is pushed; stop retrying: shipway abort {}",
                last.unwrap_or_default(),
                self.spec.id
            );
            self.notice(event, NoticeTone::Bad, title, text);
        }
    }

    fn pause(&mut self, event: &Event<RolloutEvent>, reason: &str) {
        let since_action = event.at.duration_since(self.action_since);
        if matches!(self.action(), Some(PlanAction::Hold { .. })) {
            self.hold_spent += Duration::try_from(since_action).unwrap_or_default();
        }
        self.paused = Some(RolloutPause {
            since: event.at,
            reason: reason.to_owned(),
            by: event.by.to_string(),
        });
        self.note_of_person(event, format!("paused: {reason}"));
        self.notice_pause(event, reason);
    }

    fn notice_pause(&mut self, event: &Event<RolloutEvent>, reason: &str) {
        let always = matches!(event.body, RolloutEvent::Paused { notifies: true, .. });
        if !always && !matches!(event.by, Actor::Shipway(_) | Actor::Workload { .. }) {
            return;
        }
        let title = match &event.by {
            Actor::Person { name, .. } => format!("{} is paused by {name}", self.headline()),
            Actor::Push { .. } | Actor::Workload { .. } | Actor::Shipway(_) => {
                format!("{} is paused", self.headline())
            }
        };
        let text = format!("{reason}; {}", RolloutPause::commands(&self.spec.id));
        self.notice(event, NoticeTone::Asking, title, text);
    }

    fn end(
        &mut self,
        event: &Event<RolloutEvent>,
        outcome: RolloutOutcome,
        cause: Option<RollbackCause>,
        why: &str,
    ) {
        let (by, reason) = match &self.rollback_start {
            Some(turn) => (turn.by.clone(), turn.why.clone()),
            None => (event.by.clone(), why.to_owned()),
        };
        self.ended = Some(RolloutEnd {
            at: event.at,
            outcome,
            cause,
            by,
            reason,
            why: why.to_owned(),
        });
        self.paused = None;
        self.note(event, why);
        let took = DurationText(
            Duration::try_from(event.at.duration_since(self.opened_at)).unwrap_or_default(),
        );
        let title = format!("{} {}", self.headline(), has_ended(outcome));
        self.notice(
            event,
            tone_of(outcome),
            title,
            format!("{why}; took {took}"),
        );
    }
}

/// What a notification says of a rollout whose rollback will end it like this.
const fn being_ended(outcome: RolloutOutcome) -> &'static str {
    match outcome {
        RolloutOutcome::Promoted => "is being promoted",
        RolloutOutcome::RolledBack | RolloutOutcome::Failed => "is rolled back",
        RolloutOutcome::Aborted => "is being aborted",
        RolloutOutcome::Rejected => "was rejected",
        RolloutOutcome::Superseded => "is being superseded",
    }
}

/// What a notification says of a rollout that ended like this.
const fn has_ended(outcome: RolloutOutcome) -> &'static str {
    match outcome {
        RolloutOutcome::Promoted => "was promoted",
        RolloutOutcome::RolledBack => "was rolled back",
        RolloutOutcome::Aborted => "was aborted",
        RolloutOutcome::Rejected => "was rejected",
        RolloutOutcome::Superseded => "was superseded",
        RolloutOutcome::Failed => "failed: manual intervention required",
    }
}

/// What a person decided, and what made room for another release, is no bad news.
const fn tone_of(outcome: RolloutOutcome) -> NoticeTone {
    match outcome {
        RolloutOutcome::Promoted => NoticeTone::Good,
        RolloutOutcome::Aborted | RolloutOutcome::Rejected | RolloutOutcome::Superseded => {
            NoticeTone::Neutral
        }
        RolloutOutcome::RolledBack | RolloutOutcome::Failed => NoticeTone::Bad,
    }
}

pub(super) fn apply(state: &mut RolloutState, event: &Event<RolloutEvent>) {
    match (&mut state.0, &event.body) {
        (None, RolloutEvent::Opened { spec }) => {
            state.0 = Some(Box::new(Rollout::open(spec, event)))
        }
        (Some(rollout), _) => rollout.fold(event),
        // Facts of a rollout that was never opened can't be in a log that `decide` wrote.
        (None, _) => {}
    }
}
