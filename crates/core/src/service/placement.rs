//! Pushes of a service: their repository, red runs, and the delivered commit.

use super::{
    ServiceDecider,
    event::{RunArtifact, ServiceEvent, ServiceInput},
    rejection::ServiceRejection,
    schedules::ScheduledWorkflow,
    state::ServiceState,
};
use crate::{
    ids::{CommitId, RunNumber, ServiceName},
    release::Commit,
    repository::{DeliveredPush, ServiceLocation},
};

impl ServiceDecider {
    /// Handles a push, or a reference that has moved without a change of the service.
    pub(super) fn handle_push(&mut self, input: ServiceInput) -> Result<(), ServiceRejection> {
        match input {
            ServiceInput::Pushed {
                service,
                push,
                workflows,
                standing,
            } => {
                self.require_repository_of(&service, push.location.as_ref())?;
                self.pushed(push, workflows, standing);
            }
            ServiceInput::ReferenceMoved {
                service,
                location,
                reference,
                commit,
                standing,
            } => {
                self.state.require_repository(&service, &location)?;
                self.reference_moved(location, reference, commit, standing);
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses a push from another repository than the service's; without a location it is the one of the service's name.
    fn require_repository_of(
        &self,
        service: &ServiceName,
        location: Option<&ServiceLocation>,
    ) -> Result<(), ServiceRejection> {
        let root = || ServiceLocation::root(service.clone());
        let location = location.cloned().unwrap_or_else(root);
        self.state.require_repository(service, &location)
    }

    /// Records that a reference has moved and changed nothing of the service. Repeated, it changes nothing.
    fn reference_moved(
        &mut self,
        location: ServiceLocation,
        reference: String,
        commit: Commit,
        standing: Option<Vec<ScheduledWorkflow>>,
    ) {
        if self.state.references.get(&reference) == Some(&commit.id) {
            return;
        }
        self.emit(ServiceEvent::ReferenceMoved {
            reference: reference.clone(),
            commit: commit.id.clone(),
            location: Some(location).filter(|location| !location.is_root()),
        });
        if let Some(workflows) = standing {
            self.set_timetable(&reference, &commit, workflows);
        }
    }
}

impl ServiceState {
    /// Whether anything was pushed from this repository to this service, or the service has none yet.
    ///
    /// # Errors
    /// When the service is in another repository.
    pub fn require_repository(
        &self,
        service: &ServiceName,
        location: &ServiceLocation,
    ) -> Result<(), ServiceRejection> {
        let is_new = self.references.is_empty() && self.name.is_none();
        let root = || ServiceLocation::root(service.clone());
        let owner = self.location.clone().unwrap_or_else(root);
        match is_new || owner.repository == location.repository {
            true => Ok(()),
            false => Err(ServiceRejection::OtherRepository {
                service: service.clone(),
                owner,
            }),
        }
    }

    /// The newest commit of the released branch that is released, or whose runs are in progress and not red so far.
    #[must_use]
    pub fn delivered_commit(&self) -> Option<&CommitId> {
        let open = self.open_pushes.iter().rev();
        let mut open = open.filter(|(_, push)| push.push.is_released() && push.red.is_empty());
        let open = open
            .next()
            .map(|(sequence, push)| (*sequence, &push.push.commit.id));
        let delivered = self.delivered.as_ref();
        let delivered = delivered.map(|push| (push.sequence, &push.commit));
        let newest = open.into_iter().chain(delivered);
        newest
            .max_by_key(|(sequence, _)| *sequence)
            .map(|(_, commit)| commit)
    }

    /// The push that isn't released yet as this run of it was red.
    #[must_use]
    pub fn red_push(&self, number: RunNumber) -> Option<u64> {
        let mut pushes = self.open_pushes.iter().chain(&self.red_pushes);
        let found = pushes.find(|(_, push)| push.red.contains(&number));
        found.map(|(sequence, _)| *sequence)
    }

    /// A red run was run again, and succeeded.
    pub(super) fn run_again_green(&mut self, number: RunNumber, artifacts: &[RunArtifact]) {
        self.red_tests.remove(&number);
        let Some(sequence) = self.red_push(number) else {
            return;
        };
        if let Some(push) = self.red_pushes.remove(&sequence) {
            self.open_pushes.insert(sequence, push);
        }
        if let Some(push) = self.open_pushes.get_mut(&sequence) {
            push.red.remove(&number);
            push.artifacts.retain(|(of, _)| *of != number);
            push.artifacts
                .extend(artifacts.iter().map(|artifact| (number, artifact.clone())));
        }
    }

    pub(super) fn push_delivered(&mut self, sequence: u64, commit: &CommitId) {
        let newest = self.delivered.as_ref().map(|push| push.sequence);
        if newest.is_none_or(|newest| newest < sequence) {
            let commit = commit.clone();
            self.delivered = Some(DeliveredPush { sequence, commit });
        }
    }
}
