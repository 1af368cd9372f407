//! The server as one object: the four engines, and everything their drivers and the HTTP handlers share.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use shipway_core::{
    address::{
        EnvironmentAddresses,
        claims::{self, AddressClaims},
    },
    aggregate::{Actor, Aggregate, ViewRow},
    concurrency::ConcurrencyGroups,
    config::NotificationTarget,
    ids::{EnvironmentName, ReleaseNumber, RolloutId, RunId, ServiceName},
    release::Release,
    rollout::{self, RolloutAggregate, plan::TrafficSplit},
    run::{self, RunAggregate},
    service::{self, RunOrder, ServiceAggregate},
    target::ServiceEnvironment,
};
use shipway_drivers::{
    git::GitRepositories,
    jobs::JobRunner,
    notify::{InvalidWebhookAddress, NotificationSender, WebhookDestination},
    secret_expansion::SecretNotSet,
};
use shipway_engine::{Blobs, Clock, Engine, EngineError, Store};
use shipway_targets::{
    TargetRegistry,
    router::{Router, TrafficRoute},
    traffic_control::TrafficControl,
};
use shipway_workflow::job::ActionSource;

use crate::{
    api::KeyedRequestRunner,
    effects::{FileStorage, served_at},
    job_token::JobTokens,
    secrets::SecretStore,
    test_reports::TestReportCache,
};

/// Everything a running server has.
pub struct App {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Artifacts.
    pub blobs: Arc<dyn Blobs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Services.
    pub services: Engine<ServiceAggregate>,
    /// Runs.
    pub runs: Engine<RunAggregate>,
    /// Concurrency groups.
    pub groups: Engine<ConcurrencyGroups>,
    /// Rollouts.
    pub rollouts: Engine<RolloutAggregate>,
    /// Requests that carry an `Idempotency-Key`.
    pub(crate) keyed_requests: KeyedRequestRunner,
    /// Claims of addresses.
    pub addresses: Engine<AddressClaims>,
    /// What runs instances, by kind.
    pub targets: Arc<TargetRegistry>,
    /// Splits and counts the traffic.
    pub router: Arc<dyn Router>,
    /// Shares of traffic and the instances that get them.
    pub traffic: Arc<TrafficControl>,
    /// Git repositories.
    pub repos: Arc<GitRepositories>,
    /// Worker processes.
    pub jobs: JobRunner,
    /// Artifacts and reports on their way into the blobs.
    pub storing: FileStorage,
    /// Reports of tests that were read last.
    pub reports: TestReportCache,
    /// News.
    pub notifier: NotificationSender,
    /// Providers of metrics.
    pub providers: shipway_drivers::metrics::MetricReader,
    /// Business events that were reported.
    pub business_events: crate::business_events::BusinessEventStore,
    /// The evidence of rollouts with all looks in it.
    pub live: crate::effects::live_evidence::LiveEvidence,
    /// Load and latencies of releases with traffic in the last hour.
    pub baseline_history: crate::effects::baseline_history::BaselineHistory,
    /// SecretStore and variables.
    pub secrets: SecretStore,
    /// Where actions of repositories come from.
    pub actions: ActionSource,
    /// Where the API is, as people and workers reach it.
    pub url: String,
    /// Where the proxy is, as people reach it.
    pub proxy_url: String,
    /// Where the proxy listens.
    pub proxy_address: SocketAddr,
    /// The port of the API.
    pub api_port: u16,
    /// Where the API is, as workers and hooks on this machine reach it.
    pub local_url: String,
    /// The `shipway` binary.
    pub exe: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// What clients must present; none: loopback only, no token asked.
    pub token: Option<String>,
    /// What git hooks of this server present at `/internal`; it opens nothing else.
    pub internal_token: String,
    /// Tokens of jobs.
    pub job_tokens: JobTokens,
    /// What jobs must not see: the data directory, files with secrets.
    pub hidden: Vec<PathBuf>,
}

impl App {
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
        self.services
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
        if let Some(moved) = self.jobs.claim_folder(&run.id, uid).await? {
            tracing::warn!(run = %run.id, to = %moved.display(), "files of a run that is not in the log were moved aside; has the event log lost its last events?");
        }
        Ok(())
    }

    /// The state of a rollout.
    pub async fn rollout(&self, id: &RolloutId) -> Option<Arc<rollout::RolloutState>> {
        self.rollouts.state(&id.stream()).await.ok().flatten()
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
        if let Some(route) = self.traffic.route(place) {
            let mut addresses = route.addresses;
            if route.is_transferable {
                let claims = self.address_claims().await.unwrap_or_default();
                addresses.retain(|address| claims.is_owned_by(address, place));
            }
            return addresses;
        }
        let state = self.services.state(&service_stream(&place.service)).await;
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
        self.addresses.resume().await?;
        self.services.resume().await?;
        self.rollouts.resume().await?;
        self.groups.resume().await?;
        self.runs.resume().await
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
