//! Workflows that start automatically: by `schedule`, and after other runs (`workflow_run`). They are those of the released
//! branch and run on its head.
//!
//! # Invariants
//!
//! - A time of a schedule fires once, whatever the clock does: it is recorded, and only later times are awaited.
//! - Times missed while no server ran are caught up by one run, for the last of them, unless it is more than a day ago.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::json;
use shipway_workflow::job::Conclusion;

use super::{
    ServiceDecider,
    event::{RunOrder, RunPurpose, ServiceEvent},
    schedules::{ScheduledWorkflow, next},
};
use crate::{aggregate::Actor, release::Commit};

/// Missed times older than this are skipped.
const MISSED_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Runs that follow one another by `workflow_run`, at most; GitHub's. Else two that follow each other would never end.
const CHAIN_MAX: u8 = 3;

impl ServiceDecider {
    /// What starts by itself from now on.
    pub(super) fn set_timetable(
        &mut self,
        reference: &str,
        commit: &Commit,
        workflows: Vec<ScheduledWorkflow>,
    ) {
        if workflows.is_empty() && self.state.schedules.workflows.is_empty() {
            return;
        }
        let head = Some((reference.to_owned(), commit.clone()));
        self.emit(ServiceEvent::SchedulesSet { head, workflows });
    }

    /// A branch that is gone starts nothing any more.
    pub(super) fn clear_timetable(&mut self, reference: &str) {
        let head = self.state.schedules.head.as_ref();
        if head.is_some_and(|(of, _)| of == reference) {
            self.emit(ServiceEvent::SchedulesSet {
                head: None,
                workflows: Vec::new(),
            });
        }
    }

    /// Fires the schedules that are due.
    pub(super) fn fire_schedules(&mut self) {
        let schedules = self.state.schedules.clone();
        for (key, standing, schedule) in schedules.schedules() {
            let Some(last) = schedules.last.get(&key).copied() else {
                continue;
            };
            if next(schedule, last).is_none_or(|due| due > self.now) {
                continue;
            }
            let oldest = self.now.checked_sub(MISSED_MAX).unwrap_or(last);
            let mut due = None;
            let mut at = last.max(oldest);
            while let Some(later) = next(schedule, at).filter(|later| *later <= self.now) {
                (due, at) = (Some(later), later);
            }
            self.emit(ServiceEvent::ScheduleFired {
                schedule: key,
                at: due.unwrap_or(self.now),
            });
            if due.is_some() {
                let zone = schedule.timezone.as_deref().unwrap_or("UTC");
                let by = Actor::Shipway(format!("the schedule `{}` ({zone})", schedule.cron));
                let event_payload = json!({ "schedule": schedule.cron, "timezone": zone });
                self.start_scheduled(standing, "schedule", by, event_payload, 0);
            }
        }
    }

    /// Starts the workflows that `workflow_run` triggers after a run.
    pub(super) fn follow_run(&mut self, order: &RunOrder, conclusion: Conclusion) {
        let schedules = self.state.schedules.clone();
        let after = |standing: &ScheduledWorkflow| standing.after.is_some();
        if order.chain >= CHAIN_MAX || !schedules.workflows.iter().any(after) {
            return;
        }
        let path = &order.workflow.path;
        let source = shipway_syntax::SourceFile::new(path.as_str(), order.workflow.text.as_str());
        let name = (shipway_workflow::parse(&source).workflow)
            .and_then(|workflow| workflow.name)
            .unwrap_or_else(|| path.clone());
        let branch = order.reference.trim_start_matches("refs/heads/");
        for standing in &schedules.workflows {
            let Some(trigger) = &standing.after else {
                continue;
            };
            let wanted = trigger.workflows.contains(&name)
                && (trigger.types.is_empty() || trigger.types.iter().any(|it| it == "completed"))
                && (trigger.branches.as_ref()).is_none_or(|branches| branches.takes(branch));
            if !wanted {
                continue;
            }
            let event_payload = json!({
                "action": "completed",
                "workflow": { "name": name, "path": path },
                "workflow_run": {
                    "id": order.number.0, "run_number": order.number.0, "name": name, "path": path, "status": "completed",
                    "conclusion": conclusion.as_str(), "event": order.event, "head_branch": branch,
                    "head_sha": order.commit.id.as_str(), "head_commit": { "id": order.commit.id.as_str(), "message": order.commit.subject },
                },
            });
            let shipway = || Actor::Shipway(format!("run {} is over", order.number));
            let by = order.by.clone().unwrap_or_else(shipway);
            self.start_scheduled(standing, "workflow_run", by, event_payload, order.chain + 1);
        }
    }

    fn start_scheduled(
        &mut self,
        standing: &ScheduledWorkflow,
        event: &str,
        by: Actor,
        event_payload: serde_json::Value,
        chain: u8,
    ) {
        let Some((reference, commit)) = self.state.schedules.head.clone() else {
            return;
        };
        let config = self.state.config.as_ref();
        let order = RunOrder {
            number: self.state.last_run.next(),
            purpose: RunPurpose::ByItself,
            workflow: standing.workflow.clone(),
            commit,
            reference,
            before: None,
            event: event.to_owned(),
            by: Some(by),
            inputs: BTreeMap::new(),
            reports: config
                .map(|config| config.reports.clone())
                .unwrap_or_default(),
            environments: self.rules(None),
            event_payload: Some(event_payload),
            repository: config.and_then(|config| config.repository.clone()),
            default_branch: config.map(|config| config.branch.clone()),
            location: self.state.location.clone(),
            chain,
        };
        self.emit(ServiceEvent::RunOrdered {
            order: Box::new(order),
        });
    }
}
