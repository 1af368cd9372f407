//! A release that was rejected as such: no environment accepts it, until a person takes the rejection back.
//!
//! # Invariants
//!
//! - Nothing overrides a rejection: neither `--force`, nor a retry, nor a rollback to the release.
//! - What already serves stays: a rejection moves no traffic except that of rollouts in progress. A rollback from another release still
//!   returns to a stable release that was rejected.

use std::sync::Arc;

use super::{
    ServiceDecider,
    event::{Preemption, ServiceEvent},
    rejected_release::RejectedRelease,
    rejection::ServiceRejection,
    state::ServiceState,
};
use crate::{
    aggregate::Event,
    ids::{EnvironmentName, ReleaseNumber},
    release::Release,
};

impl ServiceState {
    /// Folds a rejection in, or its end.
    pub(super) fn apply_release_rejection(&mut self, event: &Event<ServiceEvent>) {
        if let ServiceEvent::ReleaseRejected { release, reason } = &event.body {
            let rejected = RejectedRelease::new(event.at, &event.by, reason);
            self.rejected_releases.insert(*release, rejected);
        }
        if let ServiceEvent::ReleaseRejectionUndone { release, .. } = &event.body {
            self.rejected_releases.remove(release);
        }
    }
}

impl ServiceDecider {
    /// Rejects a release: its queued requests are dropped and its rollouts in progress are rolled back. Idempotent: the first reason stays.
    pub(super) fn reject_release(
        &mut self,
        release: &Arc<Release>,
        reason: String,
    ) -> Result<(), ServiceRejection> {
        let number = release.number;
        if reason.trim().is_empty() {
            return Err(ServiceRejection::NoRejectionReason(number));
        }
        if !self.state.rejected_releases.contains_key(&number) {
            let reason = reason.clone();
            self.emit(ServiceEvent::ReleaseRejected {
                release: number,
                reason,
            });
        }
        let environments: Vec<EnvironmentName> = self.state.environments.keys().cloned().collect();
        for environment in environments {
            let why = format!("{number} was rejected");
            self.drop_requests(&environment, &why, |it| it.release.number == number);
            self.leave_rejected_release(&environment, number, &reason);
        }
        Ok(())
    }

    /// Rolls the running rollout back, if it is one of this release and can go anywhere.
    fn leave_rejected_release(
        &mut self,
        environment: &EnvironmentName,
        number: ReleaseNumber,
        reason: &str,
    ) {
        let place = self.state.environments.get(environment);
        let active = place.and_then(|place| place.active.as_ref());
        let Some(active) = active.filter(|active| active.spec.release().number == number) else {
            return;
        };
        let is_leaving = matches!(active.preemption, Some(Preemption::RollBack { .. }));
        let is_possible = !active.promoted || active.spec.stable().is_some();
        if is_leaving || !is_possible {
            return;
        }
        let preemption = Preemption::RollBack {
            by: self.by.clone(),
            reason: format!("{number} was rejected by {}: {reason}", self.by),
        };
        let number = active.spec.id.number;
        self.emit(ServiceEvent::PreemptionRequested { number, preemption });
    }

    /// Takes a rejection back. Where there is none, nothing changes.
    pub(super) fn undo_release_rejection(
        &mut self,
        release: ReleaseNumber,
        reason: Option<String>,
    ) {
        if self.state.rejected_releases.contains_key(&release) {
            self.emit(ServiceEvent::ReleaseRejectionUndone { release, reason });
        }
    }

    /// Refuses a release that was rejected.
    pub(super) fn refuse_rejected(&self, release: &Release) -> Result<(), ServiceRejection> {
        let number = release.number;
        match self.state.rejected_releases.get(&number) {
            None => Ok(()),
            Some(rejected) => Err(ServiceRejection::ReleaseRejected {
                service: release.service.clone(),
                release: number,
                rejected: Box::new(rejected.clone()),
            }),
        }
    }
}
