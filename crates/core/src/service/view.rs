//! A service and its releases as lists and pages show them.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::{RunPurpose, ServiceEvent},
    health::EnvironmentDegradation,
    hold::EnvironmentHold,
    rejected_release::RejectedRelease,
    requested_deletion::RequestedDeletion,
    state::{EndedRollout, EnvironmentState, ServiceState},
};
use crate::{
    aggregate::{Event, ViewRow},
    ids::{EnvironmentName, ReleaseNumber, RolloutId, RunNumber, ServiceName},
    release::{Commit, Release},
    repository::ServiceLocation,
};

/// The read model of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceView {
    pub name: ServiceName,
    /// Where it is, if not at the root of the repository of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<ServiceLocation>,
    /// The branch that is released.
    pub branch: String,
    /// Its environments, in order of promotion.
    pub environments: Vec<EnvironmentView>,
    /// Runs that are not over.
    pub running: Vec<RunNumber>,
    /// Releases that no environment accepts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected_releases: BTreeMap<ReleaseNumber, RejectedRelease>,
}

impl ServiceView {
    /// Where its `shipway.yaml` is.
    #[must_use]
    pub fn location(&self) -> ServiceLocation {
        let root = || ServiceLocation::root(self.name.clone());
        self.location.clone().unwrap_or_else(root)
    }
}

/// One environment of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnvironmentView {
    pub name: EnvironmentName,
    pub stable: Option<ReleaseView>,
    pub since: Option<Timestamp>,
    pub rollout: Option<RolloutId>,
    pub coming: Option<ReleaseNumber>,
    /// Releases that wait for their turn.
    pub queue: Vec<ReleaseNumber>,
    /// The release that a rollback without a target goes to.
    pub before: Option<ReleaseNumber>,
    /// Set while automatic promotion into it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<EnvironmentHold>,
    /// Set while its stable release lacks ready instances and no rollout guards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degradation: Option<EnvironmentDegradation>,
    /// The last rollout that has ended here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollout: Option<EndedRollout>,
    /// Set while it is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<RequestedDeletion>,
}

/// The row of an environment in the list of all environments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnvironmentRow {
    pub service: ServiceName,
    /// Its position in the order of promotion, from 0.
    pub position: u32,
    pub environment: EnvironmentView,
}

impl EnvironmentRow {
    /// The kind of these rows; their keys are `service/environment`.
    pub const KIND: &str = "environment";
}

/// A release, as lists show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseView {
    pub number: ReleaseNumber,
    pub commit: Commit,
    /// The run that built it.
    pub run: Option<RunNumber>,
    /// The digest of its bytes.
    pub artifact: crate::ids::Digest,
    /// Set by the server if the artifact is gone, so that the release can't be deployed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_artifact_removed: bool,
    pub created_at: Timestamp,
    /// Set by the server if it was rejected: no environment accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedRelease>,
}

impl From<&Release> for ReleaseView {
    fn from(release: &Release) -> Self {
        Self {
            number: release.number,
            commit: release.commit.clone(),
            run: release.run,
            artifact: release.artifact.clone(),
            is_artifact_removed: false,
            created_at: release.created_at,
            rejected: None,
        }
    }
}

impl EnvironmentView {
    fn new(name: &EnvironmentName, place: &EnvironmentState) -> Self {
        Self {
            name: name.clone(),
            stable: place.stable.as_deref().map(ReleaseView::from),
            since: place.stable_since,
            rollout: place.active.as_ref().map(|active| active.spec.id.clone()),
            coming: place
                .active
                .as_ref()
                .map(|active| active.spec.release().number),
            queue: place
                .queue
                .iter()
                .map(|request| request.release.number)
                .collect(),
            before: place.release_before().map(|release| release.number),
            hold: place.hold.clone(),
            degradation: place.degradation.clone(),
            last_rollout: place.last_ended.clone(),
            deletion: place.deletion.clone(),
        }
    }
}

/// The rows that changed: the service with its environments, and each release that was made (whole: a later deploy of it needs all of it).
pub(super) fn rows(state: &ServiceState, events: &[Event<ServiceEvent>]) -> Vec<ViewRow> {
    let Some(name) = &state.name else {
        return events.iter().flat_map(rows_of_deleted).collect();
    };
    let service = ServiceView {
        name: name.clone(),
        location: state.location.clone(),
        branch: state
            .config
            .as_ref()
            .map(|config| config.branch.clone())
            .unwrap_or_default(),
        environments: state
            .in_order()
            .into_iter()
            .filter(|(name, _)| state.is_released_to(name))
            .map(|(name, place)| EnvironmentView::new(name, place))
            .collect(),
        running: state.open_runs.keys().copied().collect(),
        rejected_releases: state.rejected_releases.clone(),
    };
    let row = |kind: &str, key: String, live: bool, doc: serde_json::Value| ViewRow {
        kind: kind.to_owned(),
        key,
        service: name.to_string(),
        live,
        doc,
    };
    let live = !service.running.is_empty()
        || service
            .environments
            .iter()
            .any(|environment| environment.rollout.is_some());
    let mut rows = vec![row(
        "service",
        name.to_string(),
        live,
        serde_json::to_value(&service).expect("a view is plain data"),
    )];
    if events.iter().any(changes_environments) {
        rows.extend(environment_rows(state, &service, events));
    }
    rows.extend(events.iter().filter_map(|event| match &event.body {
        ServiceEvent::ReleaseCreated { release, .. } => Some(release_row(release, &row)),
        _ => None,
    }));
    rows.extend(tests_row(state, events, &row));
    rows
}

/// The rows of all environments of a service; those that it no longer has are deleted. The first environment comes last, so that a list
/// with the newest first has those of one push in the order of promotion.
fn environment_rows(
    state: &ServiceState,
    service: &ServiceView,
    events: &[Event<ServiceEvent>],
) -> Vec<ViewRow> {
    let key = |environment: &EnvironmentName| format!("{}/{environment}", service.name);
    let deleted = events.iter().filter_map(|event| match &event.body {
        ServiceEvent::EnvironmentDeleted { environment } => Some(environment),
        _ => None,
    });
    let is_listed = |name: &EnvironmentName| service.environments.iter().any(|it| it.name == *name);
    let gone = deleted
        .chain(state.environments.keys())
        .filter(|name| !is_listed(name))
        .map(|name| ViewRow::deleted(EnvironmentRow::KIND, &key(name)));
    let listed = (0..).zip(&service.environments).map(|(position, view)| {
        let row = EnvironmentRow {
            service: service.name.clone(),
            position,
            environment: view.clone(),
        };
        ViewRow {
            kind: EnvironmentRow::KIND.to_owned(),
            key: key(&view.name),
            service: service.name.to_string(),
            live: view.rollout.is_some(),
            doc: serde_json::to_value(row).expect("a view is plain data"),
        }
    });
    let mut rows: Vec<ViewRow> = gone.collect();
    let mut listed: Vec<ViewRow> = listed.collect();
    listed.reverse();
    rows.extend(listed);
    rows
}

/// Whether the view of an environment can change with this fact.
fn changes_environments(event: &Event<ServiceEvent>) -> bool {
    match &event.body {
        ServiceEvent::Pushed { .. }
        | ServiceEvent::RolloutRequested { .. }
        | ServiceEvent::RequestDropped { .. }
        | ServiceEvent::RolloutOrdered { .. }
        | ServiceEvent::Promoted { .. }
        | ServiceEvent::EnvironmentHeld { .. }
        | ServiceEvent::EnvironmentResumed { .. }
        | ServiceEvent::EnvironmentDegraded { .. }
        | ServiceEvent::EnvironmentRecovered { .. }
        | ServiceEvent::DeletionRequested { .. }
        | ServiceEvent::EnvironmentDeletionRequested { .. }
        | ServiceEvent::EnvironmentDeleted { .. }
        | ServiceEvent::RolloutEnded { .. } => true,
        // Tests run in an environment, which is created if it was deleted meanwhile.
        ServiceEvent::RunOrdered { order } => matches!(order.purpose, RunPurpose::Tests { .. }),
        ServiceEvent::ReferenceMoved { .. }
        | ServiceEvent::ReferenceDeleted { .. }
        | ServiceEvent::SchedulesSet { .. }
        | ServiceEvent::ScheduleFired { .. }
        | ServiceEvent::RunOpened { .. }
        | ServiceEvent::RunEnded { .. }
        | ServiceEvent::PushNotReleased { .. }
        | ServiceEvent::ReleaseCreated { .. }
        | ServiceEvent::ReleaseRejected { .. }
        | ServiceEvent::ReleaseRejectionUndone { .. }
        | ServiceEvent::RolloutOpened { .. }
        | ServiceEvent::PreemptionRequested { .. }
        | ServiceEvent::PreemptionDelivered { .. }
        | ServiceEvent::TestsPassed { .. }
        | ServiceEvent::PromotionBlocked { .. }
        | ServiceEvent::HealthNotificationFinished { .. }
        | ServiceEvent::PromotionGroupChanged { .. }
        | ServiceEvent::PeersNotified { .. }
        | ServiceEvent::AddressesReported { .. }
        | ServiceEvent::Tests(_)
        | ServiceEvent::Deleted { .. } => false,
    }
}

/// The rows that a deleted service no longer has; those of its environments went with them.
fn rows_of_deleted(event: &Event<ServiceEvent>) -> Vec<ViewRow> {
    match &event.body {
        ServiceEvent::Deleted { service } => ["service", "tests"]
            .map(|kind| ViewRow::deleted(kind, service.as_str()))
            .into(),
        _ => Vec::new(),
    }
}

/// The row of test results, if they have changed.
fn tests_row(
    state: &ServiceState,
    events: &[Event<ServiceEvent>],
    row: &impl Fn(&str, String, bool, serde_json::Value) -> ViewRow,
) -> Option<ViewRow> {
    let changed = events
        .iter()
        .any(|event| matches!(event.body, ServiceEvent::Tests(_)));
    let name = state.name.as_ref().filter(|_| changed)?;
    let doc = serde_json::to_value(&state.testing).expect("what is remembered is plain data");
    let live = !state.testing.quarantine.is_empty();
    Some(row("tests", name.to_string(), live, doc))
}

fn release_row(
    release: &Arc<Release>,
    row: &impl Fn(&str, String, bool, serde_json::Value) -> ViewRow,
) -> ViewRow {
    let doc = serde_json::to_value(&**release).expect("a release is plain data");
    row(
        "release",
        format!("{}/{}", release.service, release.number.0),
        false,
        doc,
    )
}
