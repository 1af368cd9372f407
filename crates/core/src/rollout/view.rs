//! A rollout as lists and pages show it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_analysis::Judgement;

use super::{
    canary_match::TrafficMatch,
    event::{PlanDirection, RolloutEvent},
    outcome::{RolloutKind, RolloutPace},
    plan::{HoldReason, PlanAction, TrafficSplit},
    state::{Rollout, RolloutPause, TimelineNote},
    status::RolloutStatus,
    strategy::OnInconclusive,
};
use crate::{
    aggregate::{Event, ViewRow},
    check::SmokeReport,
    gate::{BrokenGlass, GateState, RuleTally},
    ids::{EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, ServiceName},
};

/// The read model of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutView {
    /// `shop/ro7`.
    pub id: RolloutId,
    pub environment: EnvironmentName,
    pub release: ReleaseNumber,
    /// The commit, in short.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    pub stable: Option<ReleaseNumber>,
    pub kind: RolloutKind,
    /// By its strategy, or at once.
    pub pace: RolloutPace,
    /// The ended rollout whose release it rolls out once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RolloutNumber>,
    /// `canary`, `recreate`, …
    pub strategy: String,
    pub status: RolloutStatus,
    pub direction: PlanDirection,
    pub by: String,
    pub why: String,
    /// The plan in execution, line by line.
    pub plan: Vec<PlanLine>,
    /// Traffic split, in basis points.
    pub split: TrafficSplit,
    /// Requests that reach the new release in addition to its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<TrafficMatch>,
    /// Services whose rollouts are promoted together with this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<ServiceName>,
    /// The gate that it waits at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateState>,
    /// The rules of the gate with the approvals that count, and the number of missing ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<RuleTally>,
    /// All gates were opened in an emergency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_glass: Option<BrokenGlass>,
    /// Fewer instances of the new release are ready than its weight needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortage: Option<super::CapacityShortage>,
    /// What users of the promoted release suffer from, where the release stays because the fault is not shown to be its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattributed_fault: Option<String>,
    /// Failed attempts of the rollback, and when the next one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_retry: Option<super::RollbackRetry>,
    pub paused: Option<RolloutPause>,
    /// When the hold at the cursor ends.
    pub hold_until: Option<Timestamp>,
    /// Until when a promoted release is judged: a failure rolls it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded_until: Option<Timestamp>,
    /// Until when it lasts at most, as long as the evidence is inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<OnInconclusive>,
    pub judgement: Option<Judgement>,
    /// The last reading of the metrics since the exposure was last changed.
    pub seen: Option<shipway_analysis::Observation>,
    /// The last smoke tests.
    pub smoke: Option<SmokeReport>,
    /// Whether the new release ever got traffic.
    pub served: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
    pub notes: Vec<TimelineNote>,
    pub opened_at: Timestamp,
    pub rollback_start: Option<super::RollbackStart>,
    /// When all traffic was on stable again.
    pub rolled_back_at: Option<Timestamp>,
    pub ended: Option<super::RolloutEnd>,
    /// Whether it counts as a change failure (DORA).
    pub change_failure: bool,
}

/// One action of a plan with where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanLine {
    pub text: String,
    pub progress: RolloutProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutProgress {
    Done,
    Now,
    /// Did not succeed, or was cut short by the end.
    Stopped,
    Todo,
}

impl From<&Rollout> for RolloutView {
    fn from(rollout: &Rollout) -> Self {
        let spec = &rollout.spec;
        let judgement = rollout.evidence.judgement();
        let is_extended = rollout.paused.is_none()
            && rollout.is_judged()
            && judgement.is_none_or(|it| !it.verdict.is_accepted_at_end())
            && matches!(rollout.action(), Some(PlanAction::Hold { why, .. }) if *why == HoldReason::Evidence);
        Self {
            id: spec.id.clone(),
            environment: spec.environment.name.clone(),
            release: rollout.candidate(),
            commit: spec.release().commit.id.short().to_owned(),
            subject: spec.release().commit.subject.clone(),
            stable: rollout.stable(),
            kind: spec.kind,
            pace: spec.pace,
            retry_of: spec.retry_of,
            strategy: spec.environment.strategy.keyword().to_owned(),
            status: rollout.status(),
            direction: rollout.direction,
            by: rollout.by.to_string(),
            why: spec.why.clone(),
            plan: plan_lines(rollout),
            // Not merged with other fields, so that readers always find a list of weights.
            split: TrafficSplit {
                reach: None,
                ..rollout.observed.split.clone()
            },
            reach: rollout.observed.split.reach.clone(),
            peers: spec.peers.clone(),
            gate: rollout.gate.clone(),
            approvals: (rollout.gate.as_ref()).map_or_else(Vec::new, GateState::tallies),
            broken_glass: rollout.broken_glass.clone(),
            shortage: rollout.shortage.clone(),
            unattributed_fault: rollout.unattributed_fault.clone(),
            rollback_retry: rollout.rollback_retry,
            paused: rollout.paused.clone(),
            hold_until: rollout.hold_due().filter(|_| rollout.paused.is_none()),
            guarded_until: rollout.guarded_until(),
            hold_deadline: rollout.hold_deadline().filter(|_| is_extended),
            on_inconclusive: is_extended
                .then_some(spec.environment.strategy.holds().on_inconclusive),
            judgement: judgement.cloned(),
            seen: rollout.evidence.last().cloned(),
            smoke: rollout.smoke.clone(),
            served: rollout.served,
            served_at: rollout.served_at,
            notes: rollout.notes.clone(),
            opened_at: rollout.opened_at,
            rollback_start: rollout.rollback_start.clone(),
            rolled_back_at: rollout.rolled_back_at,
            ended: rollout.ended.clone(),
            change_failure: rollout.is_change_failure(),
        }
    }
}

fn plan_lines(rollout: &Rollout) -> Vec<PlanLine> {
    let line = |(index, action): (usize, &PlanAction)| PlanLine {
        text: action.to_string(),
        progress: match index.cmp(&rollout.cursor) {
            std::cmp::Ordering::Less => RolloutProgress::Done,
            std::cmp::Ordering::Equal if rollout.ended.is_some() => RolloutProgress::Stopped,
            std::cmp::Ordering::Equal => RolloutProgress::Now,
            std::cmp::Ordering::Greater => RolloutProgress::Todo,
        },
    };
    rollout.plan.actions.iter().enumerate().map(line).collect()
}

/// The kind of the rows of rollouts that have waited for people, live as long as they wait for approval or for the review of a
/// break-glass.
pub const ROLLOUT_APPROVAL_ROWS: &str = "rollout-approval";

/// The row of the rollout, and that of its approval if it waits for people, or waited before these events.
pub(super) fn rows(rollout: &Rollout, events: &[Event<RolloutEvent>]) -> Vec<ViewRow> {
    let row = row(rollout);
    let mut rows = Vec::from([row.clone()]);
    if !rollout.spec.environment.needs_approvals() && rollout.broken_glass.is_none() {
        return rows;
    }
    let may_end_approval = events.iter().any(|event| {
        matches!(
            event.body,
            RolloutEvent::Planned { .. }
                | RolloutEvent::ActionDone { .. }
                | RolloutEvent::Paused { .. }
                | RolloutEvent::GlassBroken { .. }
                | RolloutEvent::GlassReviewed { .. }
                | RolloutEvent::Ended { .. }
        )
    });
    let is_waiting = rollout.needs_people();
    if is_waiting || may_end_approval {
        rows.push(ViewRow {
            kind: ROLLOUT_APPROVAL_ROWS.to_owned(),
            live: is_waiting,
            doc: match is_waiting {
                true => row.doc.clone(),
                false => serde_json::Value::Null,
            },
            ..row
        });
    }
    rows
}

/// The row of a rollout.
fn row(rollout: &Rollout) -> ViewRow {
    let id = &rollout.spec.id;
    ViewRow {
        kind: "rollout".to_owned(),
        key: format!("{}/{}", id.service, id.number.0),
        service: id.service.to_string(),
        live: rollout.ended.is_none() && rollout.guarded_until().is_none(),
        doc: serde_json::to_value(RolloutView::from(rollout)).expect("a view is plain data"),
    }
}
