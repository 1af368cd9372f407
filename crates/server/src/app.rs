//! The server as one object: the four engines, and everything their drivers and the HTTP handlers share.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use shipway_core::{
    aggregate::{Actor, Aggregate, Row},
    concurrency::Groups,
    config::Notify,
    ids::{ReleaseNumber, RolloutId, RunId, ServiceName},
    release::Release,
    rollout::{self, Rollouts},
    run::{self, Runs},
    service::{self, RunOrder, Services},
    target::Place,
};
use shipway_drivers::{
    data_plane::{DataPlane, meter::Meter},
    git::Repos,
    jobs::JobRunner,
    notify::{Destination, Notifier},
    target::Target,
};
use shipway_engine::{Blobs, Clock, Engine, EngineError, Store};
use shipway_workflow::job::ActionSource;

use crate::{
    api::KeyedRequestRunner,
    routes::{Lane, default_path},
    secrets::Secrets,
    testing::Reports,
    traffic::Traffic,
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
    pub services: Engine<Services>,
    /// Runs.
    pub runs: Engine<Runs>,
    /// Concurrency groups.
    pub groups: Engine<Groups>,
    /// Rollouts.
    pub rollouts: Engine<Rollouts>,
    /// Requests that carry an `Idempotency-Key`.
    pub(crate) keyed_requests: KeyedRequestRunner,
    /// Instances.
    pub target: Arc<dyn Target>,
    /// The proxy.
    pub plane: Arc<DataPlane>,
    /// Who gets which traffic.
    pub traffic: Arc<Traffic>,
    /// What the traffic showed.
    pub meter: Meter,
    /// Git repositories.
    pub repos: Arc<Repos>,
    /// Worker processes.
    pub jobs: JobRunner,
    /// Reports of tests that were read last.
    pub reports: Reports,
    /// News.
    pub notifier: Notifier,
    /// Providers of metrics.
    pub providers: shipway_drivers::metrics::Reader,
    /// Business events that were reported.
    pub happened: crate::happened::Ledger,
    /// The evidence of rollouts with all looks in it.
    pub live: crate::drive::live::LiveEvidence,
    /// What serves now did lately.
    pub lately: crate::drive::lately::Lately,
    /// Secrets and variables.
    pub secrets: Secrets,
    /// Where actions of repositories come from.
    pub actions: ActionSource,
    /// Where the API is, as people and workers reach it.
    pub url: String,
    /// Where the proxy is, as people reach it.
    pub proxy_url: String,
    /// Where the API is, as workers and hooks on this machine reach it.
    pub loopback_url: String,
    /// The `shipway` binary.
    pub exe: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// What clients must present; none: loopback only, no token asked.
    pub token: Option<String>,
    /// What git hooks and workers of this server present.
    pub internal_token: String,
}

impl App {
    /// Now, as the engines see it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Says something to a service.
    pub async fn tell_service(
        &self,
        service: &ServiceName,
        input: service::Input,
        by: Actor,
    ) -> Result<shipway_engine::Outcome<Services>, EngineError<service::Rejection>> {
        self.services
            .send(&service_stream(service), input, by)
            .await
    }

    /// Opens the stream of a run that was ordered.
    pub async fn open_run(
        &self,
        id: &RunId,
        order: RunOrder,
    ) -> Result<(), EngineError<run::Rejection>> {
        let shipway = || Actor::Shipway(format!("{} of {}", order.event, order.reference));
        let by = order.by.clone().unwrap_or_else(shipway);
        let spec = run::RunSpec::from_order(id.clone(), order);
        self.runs
            .send(&id.stream(), run::Input::Open(Box::new(spec)), by)
            .await
            .map(|_| ())
    }

    /// The state of a rollout.
    pub async fn rollout(&self, id: &RolloutId) -> Option<Arc<rollout::State>> {
        self.rollouts.state(&id.stream()).await.ok().flatten()
    }

    /// A release, from the log.
    pub async fn release(
        &self,
        service: &ServiceName,
        number: ReleaseNumber,
    ) -> Option<Arc<Release>> {
        let row: Row = self
            .store
            .row("release", &format!("{service}/{}", number.0))
            .await
            .ok()??;
        serde_json::from_value(row.doc).ok().map(Arc::new)
    }

    /// Where a notification goes, with its secrets filled in.
    pub fn destination(&self, to: &Notify) -> Result<Destination, String> {
        Ok(match to {
            Notify::Slack(url) => {
                Destination::slack(&self.secrets.expand(url)?).map_err(|error| error.to_string())?
            }
            Notify::Webhook(url) => Destination::webhook(&self.secrets.expand(url)?, None)
                .map_err(|error| error.to_string())?,
        })
    }

    /// Where a place is reached through the proxy.
    #[must_use]
    pub fn address(&self, place: &Place, is_last: bool) -> String {
        self.traffic.lane(place).map_or_else(
            || format!("{}{}", self.proxy_url, default_path(place, is_last)),
            |lane| lane.address(&self.proxy_url),
        )
    }

    /// Resumes what was under way when the last server ended.
    pub async fn resume(&self) -> Result<(), shipway_engine::StoreError> {
        self.services.resume().await?;
        self.rollouts.resume().await?;
        self.groups.resume().await?;
        self.runs.resume().await
    }
}

/// The stream of a service.
#[must_use]
pub fn service_stream(service: &ServiceName) -> String {
    format!("{}/{service}", Services::KIND)
}

/// The lanes as the log tells them: the shares that the last rollout of each place left or is at. Wakes no stream: a rollout that
/// goes on would shift traffic in lanes that aren't there yet.
pub async fn lanes(
    store: &dyn Store,
    services: &Engine<Services>,
    rollouts: &Engine<Rollouts>,
) -> Result<BTreeMap<Place, Lane>, shipway_engine::StoreError> {
    let mut lanes = BTreeMap::new();
    for row in store.all_rows("service").await? {
        let Some(state) = services
            .read(&format!("{}/{}", Services::KIND, row.key))
            .await?
        else {
            continue;
        };
        let Some(name) = state.name.clone() else {
            continue;
        };
        for (environment, current) in &state.environments {
            let place = Place {
                service: name.clone(),
                environment: environment.clone(),
            };
            let (mut split, mut salt, mut configured) =
                (current.observed.split.clone(), String::new(), None);
            if let Some(active) = &current.active {
                configured = Some(active.spec.environment.clone());
                split = active.spec.observed.split.clone();
                if let Some(rollout) = rollouts
                    .read(&active.spec.id.stream())
                    .await?
                    .and_then(|state| state.0)
                {
                    split = rollout.observed.split.clone();
                    // Limits that were measured are in the rollout's own log alone.
                    configured = Some(rollout.spec.environment.clone());
                    salt = active.spec.id.to_string();
                }
            }
            let configured = configured.or_else(|| {
                current
                    .stable
                    .as_ref()
                    .and_then(|stable| stable.environment(environment).cloned())
            });
            let Some(configured) = configured else {
                continue;
            };
            let mut lane = Lane::new(&place, &configured, is_last(&state, environment));
            lane.split = split;
            lane.salt = salt;
            lanes.insert(place, lane);
        }
    }
    Ok(lanes)
}

fn is_last(state: &service::State, environment: &shipway_core::ids::EnvironmentName) -> bool {
    state
        .config
        .as_ref()
        .and_then(|config| config.environments.last())
        .is_some_and(|last| last.name == *environment)
}
