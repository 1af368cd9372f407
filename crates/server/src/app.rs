//! The server as one object: the engines, and everything that their drivers and the HTTP handlers share.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use shipway_core::{
    address::{EnvironmentAddresses, claims},
    aggregate::{Actor, Aggregate, ViewRow},
    config::NotificationTarget,
    ids::{EnvironmentName, ReleaseNumber, RolloutId, RunId, ServiceName},
    release::Release,
    rollout::{self, RolloutAggregate, plan::TrafficSplit},
    run,
    service::{self, RunOrder, ServiceAggregate},
    target::ServiceEnvironment,
};
use shipway_drivers::{
    git::GitRepositories,
    jobs::{JobExecutor, JobRunner},
    notify::{InvalidWebhookAddress, NotificationSender, WebhookDestination},
    secret_expansion::SecretNotSet,
};
use shipway_engine::{Blobs, Clock, Engine, EngineError, Store};
use shipway_targets::router::TrafficRoute;
use shipway_workflow::job::ActionSource;

use crate::{
    api::KeyedRequestRunner,
    capabilities::{
        ClientTokens, DeliveryEngines, MeasurementSources, MetricProviders, ReleaseObservations,
        ServerAddresses, Workloads,
    },
    file_storage::FileStorage,
    secrets::SecretStore,
    served_addresses::served_at,
    test_reports::TestReportCache,
};

/// Everything a running server has.
pub struct App {
    /// The log.
    pub(crate) store: Arc<dyn Store>,
    /// Artifacts.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engines: DeliveryEngines,
    /// Requests that carry an `Idempotency-Key`.
    pub(crate) keyed_requests: KeyedRequestRunner,
    pub(crate) workloads: Workloads,
    /// Git repositories.
    pub(crate) repos: Arc<GitRepositories>,
    /// Where jobs run.
    pub(crate) job_executor: Arc<dyn JobExecutor>,
    /// Files of jobs that ran on this machine, for readers of logs and workspaces.
    pub(crate) jobs: JobRunner,
    /// Artifacts and reports on their way into the blobs.
    pub(crate) storing: FileStorage,
    /// Reports of tests that were read last.
    pub(crate) reports: TestReportCache,
    /// Delivers notifications.
    pub(crate) notifier: NotificationSender,
    /// Providers of metrics.
    pub(crate) providers: MetricProviders,
    pub(crate) observations: ReleaseObservations,
    /// Secrets and variables of jobs and instances.
    pub(crate) secrets: SecretStore,
    /// Where actions of repositories come from.
    pub(crate) actions: ActionSource,
    pub(crate) server_addresses: ServerAddresses,
    /// The `shipway` binary.
    pub(crate) exe: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    pub(crate) client_tokens: ClientTokens,
}

impl App {
    /// Where the API is, as people and workers reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server_addresses.url
    }

    /// Where the proxy is, as people reach it.
    #[must_use]
    pub fn proxy_url(&self) -> &str {
        &self.server_addresses.proxy_url
    }

    /// The sources that releases are measured by.
    pub(crate) const fn measurement_sources(&self) -> MeasurementSources<'_> {
        MeasurementSources {
            workloads: &self.workloads,
            observations: &self.observations,
            providers: &self.providers,
        }
    }

    /// Now, as the engines see it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Says something to a service.
    pub async fn send_to_service(
        &self,
        service: &ServiceName,
        input: service::ServiceInput,
        by: Actor,
    ) -> Result<shipway_engine::Outcome<ServiceAggregate>, EngineError<service::ServiceRejection>>
    {
        self.engines
            .services
            .send(&service_stream(service), input, by)
            .await
    }

    /// Opens the stream of a run that was ordered.
    pub async fn open_run(
        &self,
        id: &RunId,
        order: RunOrder,
    ) -> Result<(), EngineError<run::RunRejection>> {
        let shipway = || Actor::Shipway(format!("{} of {}", order.event, order.reference));
        let by = order.by.clone().unwrap_or_else(shipway);
        // A run that is already open keeps its uid.
        let uid = uuid::Uuid::now_v7().to_string();
        let uid = uid.parse().expect("a UUID is a valid uid");
        let spec = run::RunSpec::from_order(id.clone(), uid, order);
        let opened = self
            .engines
            .runs
            .send(&id.stream(), run::RunInput::Open(Box::new(spec)), by)
            .await?;
        if let Some(run) = opened.state.0.as_deref()
            && let Err(error) = self.claim_run_folder(&run.spec).await
        {
            // Claimed again before its first job; that fails with the reason.
            tracing::warn!(%error, run = %id, "the folder of a run can't be prepared");
        }
        Ok(())
    }

    /// Moves aside what another run of the same number has left.
    pub(crate) async fn claim_run_folder(&self, run: &run::RunSpec) -> std::io::Result<()> {
        let Some(uid) = &run.uid else {
            return Ok(());
        };
        if let Some(moved) = self.job_executor.claim_run(&run.id, uid).await? {
            tracing::warn!(run = %run.id, to = %moved.display(), "files of a run that is not in the log were moved aside; has the event log lost its last events?");
        }
        Ok(())
    }

    /// The state of a rollout.
    pub async fn rollout(&self, id: &RolloutId) -> Option<Arc<rollout::RolloutState>> {
        self.engines
            .rollouts
            .state(&id.stream())
            .await
            .ok()
            .flatten()
    }

    /// A release, from the log.
    pub async fn release(
        &self,
        service: &ServiceName,
        number: ReleaseNumber,
    ) -> Option<Arc<Release>> {
        let row: ViewRow = self
            .store
            .row("release", &format!("{service}/{}", number.0))
            .await
            .ok()??;
        serde_json::from_value(row.doc).ok().map(Arc::new)
    }

    /// Where a notification goes, with its secrets filled in.
    pub fn destination(
        &self,
        to: &NotificationTarget,
    ) -> Result<WebhookDestination, DestinationError> {
        Ok(match to {
            NotificationTarget::Slack(url) => {
                WebhookDestination::slack(&self.secrets.expand(url)?)?
            }
            NotificationTarget::Webhook(url) => {
                WebhookDestination::webhook(&self.secrets.expand(url)?, None)?
            }
        })
    }

    /// Where a place is reached through the proxy: by what serves there, or else by the newest configuration.
    pub async fn addresses_of(&self, place: &ServiceEnvironment) -> EnvironmentAddresses {
        if let Some(route) = self.workloads.traffic.route(place) {
            let mut addresses = route.addresses;
            if route.is_transferable {
                let claims = self.address_claims().await.unwrap_or_default();
                addresses.retain(|address| claims.is_owned_by(address, place));
            }
            return addresses;
        }
        let state = self
            .engines
            .services
            .state(&service_stream(&place.service))
            .await;
        let Some(state) = state.ok().flatten() else {
            return EnvironmentAddresses::default();
        };
        let configured = || {
            let environments = &state.config.as_ref()?.environments;
            let environment = environments
                .iter()
                .find(|it| it.name == place.environment)?;
            Some(EnvironmentAddresses::new(place, environment))
        };
        let served = state.served_addresses(&place.environment);
        served.or_else(configured).unwrap_or_default()
    }

    /// Resumes the work that was in progress when the last server ended.
    pub async fn resume(&self) -> Result<(), shipway_engine::StoreError> {
        self.engines.addresses.resume().await?;
        self.engines.services.resume().await?;
        self.engines.rollouts.resume().await?;
        self.engines.groups.resume().await?;
        self.engines.runs.resume().await
    }
}

/// Why notifications have no destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The address names a secret that the server does not have.
    #[error(transparent)]
    Secret(#[from] SecretNotSet),
    /// The address, with its secrets filled in, is not a URL of a webhook.
    #[error(transparent)]
    Address(#[from] InvalidWebhookAddress),
}

/// The stream of a service.
#[must_use]
pub fn service_stream(service: &ServiceName) -> String {
    format!("{}/{service}", ServiceAggregate::KIND)
}

/// The routes of all environments by the log, and the ports that rollouts have claimed: the split of the last or current rollout, at
/// the addresses of the stable release. Streams are read without waking them: a resumed rollout would shift traffic of routes that
/// don't exist yet.
pub async fn routes(
    store: &dyn Store,
    services: &Engine<ServiceAggregate>,
    rollouts: &Engine<RolloutAggregate>,
    claims: &claims::ClaimsState,
) -> Result<
    (
        BTreeMap<ServiceEnvironment, TrafficRoute>,
        BTreeMap<ServiceEnvironment, u16>,
    ),
    shipway_engine::StoreError,
> {
    let (mut routes, mut reserved_ports) = (BTreeMap::new(), BTreeMap::new());
    for row in store.all_rows("service").await? {
        let Some(state) = services
            .read(&format!("{}/{}", ServiceAggregate::KIND, row.key))
            .await?
        else {
            continue;
        };
        for at in served_at(&state, claims) {
            if let Some(port) = at.reserved_port {
                reserved_ports.insert(at.place.clone(), port);
            }
            let environment = &at.place.environment;
            let (Some(addresses), Some(current)) =
                (at.addresses, state.environments.get(environment))
            else {
                continue;
            };
            let Some(mut route) = route_of(rollouts, current, environment, addresses).await? else {
                continue;
            };
            route.is_transferable = at.is_transferable;
            routes.insert(at.place, route);
        }
    }
    Ok((routes, reserved_ports))
}

/// The route of one environment: how users are known is what the rollout under way says, or else the stable release.
async fn route_of(
    rollouts: &Engine<RolloutAggregate>,
    current: &service::EnvironmentState,
    environment: &EnvironmentName,
    addresses: EnvironmentAddresses,
) -> Result<Option<TrafficRoute>, shipway_engine::StoreError> {
    let Some(active) = &current.active else {
        let stable = current.stable.as_ref();
        let configured = stable.and_then(|stable| stable.environment(environment));
        return Ok(configured.map(|configured| TrafficRoute {
            split: current.observed.split.clone(),
            ..TrafficRoute::new(configured, addresses)
        }));
    };
    let mut route = TrafficRoute::new(&active.spec.environment, addresses);
    route.split = active.spec.observed.split.clone();
    let rollout = rollouts.read(&active.spec.id.stream()).await?;
    if let Some(rollout) = rollout.and_then(|state| state.0) {
        // Limits that were measured are in the rollout's own log alone.
        route.configure(&rollout.spec.environment);
        route.split = rollout.observed.split.clone();
        route.salt = active.spec.id.to_string();
    }
    // Until the first release of an environment is ready there is no route: its address may be below another service's.
    let has_served = current.stable.is_some() || route.split != TrafficSplit::default();
    Ok(has_served.then_some(route))
}
