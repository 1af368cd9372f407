//! Deletes environments and whole services at a user's request: instances stop and addresses are freed; the log stays.
//!
//! # Invariants
//!
//! - The deletion is refused while a rollout or run is in progress. A promoted rollout in its watch is preempted.
//! - While an environment is being deleted nothing is requested there, and it has no address.
//! - A deletion ends after any crash: its effect is derived from the state until the deletion is recorded as done.
//! - Numbers of pushes, runs, releases and rollouts continue when the service is pushed again.

use super::{
    ServiceDecider,
    event::{Preemption, ServiceEffect, ServiceEvent, ServiceInput},
    rejection::ServiceRejection,
    requested_deletion::{DeletionScope, RepositoryRemoval, RequestedDeletion},
    state::{EnvironmentState, ServiceState},
};
use crate::{
    aggregate::EffectKey,
    ids::{EnvironmentName, RunId},
};

impl ServiceDecider {
    /// Requests a deletion. Requested again, it changes nothing.
    pub(super) fn request_deletion(
        &mut self,
        scope: DeletionScope,
        reason: Option<String>,
    ) -> Result<(), ServiceRejection> {
        let Some(service) = self.state.name.clone() else {
            return Err(ServiceRejection::NoService);
        };
        match scope {
            DeletionScope::Environment(environment) => {
                let Some(place) = self.state.environments.get(&environment) else {
                    return Err(self.unknown_environment(&environment));
                };
                if place.deletion.is_some() {
                    return Ok(());
                }
                self.refuse_deletion_of_active(&environment)?;
                self.emit(ServiceEvent::EnvironmentDeletionRequested {
                    environment: environment.clone(),
                    reason,
                });
                self.end_activity(&environment);
            }
            DeletionScope::Service if self.state.deletion.is_some() => {}
            DeletionScope::Service => {
                if let Some(number) = self.state.open_runs.keys().next().copied() {
                    return Err(ServiceRejection::RunInProgress(RunId { service, number }));
                }
                let environments: Vec<_> = self.state.environments.keys().cloned().collect();
                for environment in &environments {
                    self.refuse_deletion_of_active(environment)?;
                }
                self.emit(ServiceEvent::DeletionRequested { reason });
                for environment in &environments {
                    self.end_activity(environment);
                }
            }
        }
        Ok(())
    }

    fn refuse_deletion_of_active(
        &self,
        environment: &EnvironmentName,
    ) -> Result<(), ServiceRejection> {
        let place = self.state.environments.get(environment);
        let active = place.and_then(|place| place.active.as_ref());
        match active.filter(|active| !active.is_finished_by_next()) {
            Some(active) => Err(ServiceRejection::RolloutInProgress(active.spec.id.clone())),
            None => Ok(()),
        }
    }

    /// Drops the queued requests of an environment, and preempts a promoted rollout in its watch.
    fn end_activity(&mut self, environment: &EnvironmentName) {
        let Some(place) = self.state.environments.get(environment) else {
            return;
        };
        let active = place.active.as_ref().map(|active| active.spec.id.number);
        let queued: Vec<_> = place.queue.iter().cloned().collect();
        for request in queued {
            self.drop_request(&request, None, format!("{environment} is being deleted"));
        }
        if let Some(number) = active {
            let preemption = Preemption::Finish { next: None };
            self.emit(ServiceEvent::PreemptionRequested { number, preemption });
        }
    }

    /// Refuses inputs that would start something in a service or environment that is being deleted.
    pub(super) fn refuse_while_deleted(
        &self,
        input: &ServiceInput,
    ) -> Result<(), ServiceRejection> {
        match input {
            ServiceInput::Pushed { .. } | ServiceInput::Dispatch { .. } => {
                self.refuse_deleted_service()
            }
            ServiceInput::Deploy {
                release,
                environment,
                ..
            } => {
                let first = release.config.environments.first().map(|first| &first.name);
                match environment.as_ref().or(first) {
                    Some(environment) => self.refuse_deleted(environment),
                    None => self.refuse_deleted_service(),
                }
            }
            ServiceInput::Rollback { environment, .. }
            | ServiceInput::ResumeEnvironment { environment, .. } => {
                self.refuse_deleted(environment)
            }
            ServiceInput::Retry(request) => self.refuse_deleted(&request.environment),
            // Steps and automation are answered by a dropped request; reports start nothing.
            _ => Ok(()),
        }
    }

    /// Refuses a request into an environment that is being deleted.
    pub(super) fn refuse_deleted(
        &self,
        environment: &EnvironmentName,
    ) -> Result<(), ServiceRejection> {
        let place = self.state.environments.get(environment);
        match place.is_some_and(|place| place.deletion.is_some()) {
            true => Err(ServiceRejection::EnvironmentDeleted(environment.clone())),
            false => self.refuse_deleted_service(),
        }
    }

    /// Refuses everything while the service is being deleted.
    fn refuse_deleted_service(&self) -> Result<(), ServiceRejection> {
        match self.state.deletion.is_some() {
            true => Err(ServiceRejection::ServiceDeleted),
            false => Ok(()),
        }
    }

    /// The instances and routes of an environment are gone.
    pub(super) fn environment_removed(&mut self, environment: EnvironmentName) {
        let place = self.state.environments.get(&environment);
        if place.is_some_and(EnvironmentState::is_removable) {
            self.emit(ServiceEvent::EnvironmentDeleted { environment });
        }
    }

    /// The service is out of its repository.
    pub(super) fn service_removed(&mut self, repository: RepositoryRemoval) {
        let name = self.state.name.clone();
        let Some(service) = name.filter(|_| self.state.is_removable()) else {
            return;
        };
        let location = self.state.location.clone();
        let references = self.state.references.clone();
        self.emit(ServiceEvent::Deleted { service });
        match repository {
            RepositoryRemoval::Removed | RepositoryRemoval::OtherName => {}
            // Else the next start would take every reference for a missed push, and create the service again.
            RepositoryRemoval::Shared => {
                for (reference, commit) in references {
                    self.emit(ServiceEvent::ReferenceMoved {
                        reference,
                        commit,
                        location: location.clone().filter(|location| !location.is_root()),
                    });
                }
            }
        }
    }
}

impl EnvironmentState {
    /// Whether its instances and routes can be removed now.
    fn is_removable(&self) -> bool {
        self.deletion.is_some() && self.active.is_none()
    }
}

impl ServiceState {
    /// Whether all its environments are gone, and others know it.
    fn is_removable(&self) -> bool {
        self.deletion.is_some()
            && self.environments.is_empty()
            && self.address_report().is_none()
            && self.pending_peer_notification().is_none()
    }

    /// The removals that are due.
    pub(super) fn removal_effects(&self) -> impl Iterator<Item = (EffectKey, ServiceEffect)> {
        let removable = self.environments.iter();
        let removable = removable.filter(|(_, place)| place.is_removable());
        let environments = removable.map(|(name, _)| {
            (
                format!("remove-{name}").into(),
                ServiceEffect::RemoveEnvironment(name.clone()),
            )
        });
        let service = self.is_removable();
        environments.chain(service.then(|| ("remove".into(), ServiceEffect::RemoveService)))
    }

    /// Folds in that the deletion of the service was requested: nothing starts by itself any more.
    pub(super) fn deletion_requested(&mut self, deletion: RequestedDeletion) {
        for environment in self.environments.values_mut() {
            environment.deletion.get_or_insert(deletion.clone());
        }
        self.deletion = Some(deletion);
        self.config = None;
        self.schedules = Default::default();
    }

    /// Folds in that an environment is gone.
    pub(super) fn environment_deleted(&mut self, name: &EnvironmentName) {
        self.environments.remove(name);
        self.in_tests.retain(|_, (tested, _)| tested != name);
        self.red_tests.retain(|_, (tested, _)| tested != name);
        self.health_notices
            .retain(|notice| notice.environment != *name);
    }

    /// Folds in that the service is gone: its last numbers and the reports of other services stay.
    pub(super) fn deleted(&mut self) {
        let before = std::mem::take(self);
        *self = Self {
            pushes: before.pushes,
            last_run: before.last_run,
            last_release: before.last_release,
            last_rollout: before.last_rollout,
            last_health_notice: before.last_health_notice,
            promotion_groups: before.promotion_groups,
            notified_groups: before.notified_groups,
            reported_addresses: before.reported_addresses,
            ..Self::default()
        };
    }
}
