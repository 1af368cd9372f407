//! Removes the routes and instances of a deleted environment, and the repository of a deleted service. Every step is idempotent, so a
//! deletion ends after any crash.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shipway_core::{
    ids::{EnvironmentName, ServiceName},
    repository::ServiceLocation,
    service::{RepositoryRemoval, ServiceInput, ServiceState},
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_drivers::git::GitRepositories;
use shipway_engine::Store;
use shipway_targets::{
    target::TargetError, traffic_control::ServedAt, traffic_control::TrafficError,
};

use crate::{capabilities::Workloads, read_models::services_in_repository};

/// Why an environment could not be removed; the removal is retried.
#[derive(Debug, thiserror::Error)]
enum RemovalError {
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Removes the routes of an environment, and stops its instances once their requests have ended.
pub(super) async fn remove_environment(
    workloads: &Workloads,
    state: &ServiceState,
    service: ServiceName,
    environment: EnvironmentName,
) -> ServiceInput {
    let place = ServiceEnvironment {
        service,
        environment,
    };
    match stop_all_instances(workloads, state, &place).await {
        Ok(()) => ServiceInput::EnvironmentRemoved(place.environment),
        Err(error) => {
            tracing::warn!(%error, %place, "an environment can't be removed yet");
            ServiceInput::TimerFired
        }
    }
}

async fn stop_all_instances(
    workloads: &Workloads,
    state: &ServiceState,
    place: &ServiceEnvironment,
) -> Result<(), RemovalError> {
    let unrouted = ServedAt {
        place: place.clone(),
        addresses: None,
        is_transferable: false,
        reserved_port: None,
    };
    workloads.traffic.move_addresses(vec![unrouted]).await?;
    let current = state.environments.get(&place.environment);
    let stable = current.and_then(|current| current.stable.as_deref());
    let configured = stable.and_then(|stable| stable.environment(&place.environment));
    let drain = configured.map_or(Duration::ZERO, |configured| configured.drain);
    let instances = workloads.targets.instances().into_iter();
    let here = instances.filter(|status| status.id.set.place == *place);
    let sets: BTreeSet<ReplicaSetKey> = here.map(|status| status.id.set).collect();
    for set in sets {
        for (_, router) in workloads.targets.routers() {
            router.wait_until_drained(&set, 0, drain).await;
        }
        if let Some(target) = workloads.targets.target_of_set(&set) {
            target.stop(&set, 0).await?;
        }
    }
    Ok(())
}

/// Removes the repository of a service, unless other services are in it.
pub(super) async fn remove_service(
    log: &dyn Store,
    repositories: Arc<GitRepositories>,
    service: ServiceName,
    location: Option<&ServiceLocation>,
) -> ServiceInput {
    if location.is_some_and(|location| location.repository != service) {
        return ServiceInput::ServiceRemoved(RepositoryRemoval::OtherName);
    }
    match services_in_repository(log, &service).await {
        Ok(services) if services.iter().any(|view| view.name != service) => {
            return ServiceInput::ServiceRemoved(RepositoryRemoval::Shared);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, %service, "the services of a repository can't be read");
            return ServiceInput::TimerFired;
        }
    }
    let name = service.clone();
    let removed = tokio::task::spawn_blocking(move || repositories.remove(&name)).await;
    match removed {
        Ok(Ok(())) => ServiceInput::ServiceRemoved(RepositoryRemoval::Removed),
        Ok(Err(error)) => {
            tracing::warn!(%error, %service, "the repository of a deleted service can't be removed yet");
            ServiceInput::TimerFired
        }
        Err(error) => {
            tracing::error!(%error, %service, "removing the repository of a deleted service has panicked");
            ServiceInput::TimerFired
        }
    }
}
