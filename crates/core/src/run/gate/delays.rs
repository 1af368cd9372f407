//! Delays of a job at its environment: a wait, and the end of a freeze. Break-glass opens all gates of the job.
//!
//! # Invariants
//!
//! - The wait is counted from the moment when the job reached its environment, so that it passes while people approve.
//! - A freeze is looked at when everything else is open, and again at its end: a job starts at most once after that.
//! - A job that has begun is never stopped by a wait or a freeze.

use jiff::Timestamp;
use shipway_workflow::{graph::MatrixCell, job::JobKey};

use super::{approval_passed, environment_rules};
use crate::{
    gate::{ApprovingPerson, BrokenGlass, DeploymentRules, UnacceptedDecider},
    run::{RunDecider, event::RunRejection, gate_event::GateFact, job_lookup::is_over, state::Run},
};

/// The wait and the freezes of the environment that a job goes to, as long as they keep it from starting.
fn delaying_rules<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a DeploymentRules> {
    let rules = &environment_rules(run, cell)?.rules;
    let gate = run.gates.jobs.get(&cell.key);
    let is_open = gate.is_some_and(|gate| gate.is_opened || gate.broken_glass.is_some());
    let has_started = (run.jobs.get(&cell.key)).is_some_and(|record| record.started_at.is_some());
    let has_delays = rules.wait.is_some() || !rules.freeze.is_empty();
    (has_delays && !is_open && !has_started).then_some(rules)
}

/// Whether neither a wait nor a freeze keeps a job from starting.
pub(super) fn is_undelayed(run: &Run, cell: &MatrixCell) -> bool {
    delaying_rules(run, cell).is_none()
}

/// When the next wait or freeze of a job ends.
pub(super) fn wakes_at(run: &Run, cell: &MatrixCell, now: Timestamp) -> Option<Timestamp> {
    let rules = delaying_rules(run, cell).filter(|_| approval_passed(run, cell))?;
    let gate = run.gates.jobs.get(&cell.key)?;
    gate.reached_at?;
    match gate.wait_ends_at.filter(|end| *end > now) {
        Some(end) => Some(end),
        None => rules.freeze.next_opening(now),
    }
}

/// The wait or the freeze that keeps a job from starting, as last recorded.
pub(super) fn describe(run: &Run, cell: &MatrixCell) -> Option<String> {
    delaying_rules(run, cell).filter(|_| approval_passed(run, cell))?;
    let gate = run.gates.jobs.get(&cell.key)?;
    gate.reached_at?;
    let environment = cell.gate.environment.as_deref().unwrap_or_default();
    match (&gate.freeze, gate.wait_ends_at) {
        (Some(freeze), _) => Some(format!("{environment} is {freeze}")),
        (None, Some(end)) => Some(format!(
            "waits until {end:.0} before it goes to {environment}"
        )),
        (None, None) => None,
    }
}

impl RunDecider {
    /// Records that a job has reached its environment, where that delays it.
    pub(super) fn reach_environment(&mut self, cell: &MatrixCell) {
        let Some(run) = self.run() else { return };
        let Some(rules) = delaying_rules(run, cell) else {
            return;
        };
        let gate = run.gates.jobs.get(&cell.key);
        if gate.is_some_and(|gate| gate.reached_at.is_some()) {
            return;
        }
        let wait_ends_at = rules.wait.and_then(|wait| self.now.checked_add(wait).ok());
        self.fact(GateFact::EnvironmentReached {
            key: cell.key.clone(),
            environment: cell.gate.environment.clone().unwrap_or_default(),
            wait_ends_at,
        });
    }

    /// Opens the environment to a job after its wait, unless a freeze is in force.
    pub(super) fn end_delays(&mut self, cell: &MatrixCell) {
        let Some(run) = self.run() else { return };
        let rules = delaying_rules(run, cell).filter(|_| approval_passed(run, cell));
        let (Some(rules), Some(gate)) = (rules, run.gates.jobs.get(&cell.key)) else {
            return;
        };
        if gate.wait_ends_at.is_some_and(|end| end > self.now) {
            return;
        }
        let key = cell.key.clone();
        match rules.freeze.active(self.now) {
            None => self.fact(GateFact::EnvironmentOpened { key }),
            Some(freeze) if gate.freeze.as_ref() == Some(&freeze) => {}
            Some(freeze) => self.fact(GateFact::EnvironmentFrozen { key, freeze }),
        }
    }

    /// Opens all gates of a job in an emergency. Idempotent: the first person's reason stays.
    pub(super) fn break_glass_of_job(
        &mut self,
        run: &Run,
        key: JobKey,
        groups: &[String],
        reason: String,
    ) -> Result<(), RunRejection> {
        let id = || run.spec.id.clone();
        let cell = run.cell(&key).map(|(_, cell)| cell);
        let is_broken = broken_glass(run, &key).is_some();
        let is_waiting = cell.is_some_and(|cell| {
            cell.stopping.is_none() && (!approval_passed(run, cell) || !is_undelayed(run, cell))
        });
        if is_over(run, &key)? || !(is_waiting || is_broken) {
            return Err(RunRejection::NothingToOpen { run: id(), key });
        }
        let rules = cell.and_then(|cell| environment_rules(run, cell));
        let named = rules.map_or(&[][..], |it| &it.rules.break_glass);
        let who = ApprovingPerson::new(&self.by, groups);
        if !named.iter().any(|entry| who.is_named_by(entry)) {
            return Err(RunRejection::NoBreakGlass {
                run: id(),
                key,
                decider: Box::new(UnacceptedDecider {
                    who: who.name,
                    accepted: named.join(", "),
                    excluded_as: None,
                }),
            });
        }
        if reason.trim().is_empty() {
            return Err(RunRejection::NoBreakGlassReason { run: id(), key });
        }
        if !is_broken {
            self.fact(GateFact::GlassBroken { key, reason });
        }
        Ok(())
    }

    /// Confirms that a second person has looked at a break-glass.
    pub(super) fn review_glass_of_job(
        &mut self,
        run: &Run,
        key: JobKey,
        comment: Option<String>,
    ) -> Result<(), RunRejection> {
        let id = || run.spec.id.clone();
        let gate = run.gates.jobs.get(&key);
        let Some(glass) = gate.and_then(|gate| gate.broken_glass.as_ref()) else {
            return Err(RunRejection::NoGlassBroken { run: id(), key });
        };
        let who = ApprovingPerson::new(&self.by, &[]);
        if glass.by.is_same_person(&who) {
            let who = who.name;
            return Err(RunRejection::OwnReview {
                run: id(),
                key,
                who,
            });
        }
        if glass.review.is_none() {
            self.fact(GateFact::GlassReviewed { key, comment });
        }
        Ok(())
    }
}

/// The break-glass of a job.
pub(in crate::run) fn broken_glass<'a>(run: &'a Run, key: &JobKey) -> Option<&'a BrokenGlass> {
    run.gates.jobs.get(key)?.broken_glass.as_ref()
}
