//! The capabilities of the server in groups: a part takes the groups that it needs instead of the whole [`crate::app::App`].
//!
//! A group names the modules that it is made of, so those modules can't take a group of this file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use shipway_core::{address::claims::PortUse, retention::RetentionPolicy};
use shipway_drivers::{git::GitRepositories, jobs::JobExecutor, metrics::MetricReader};
use shipway_engine::{Blobs, Clock, Store};
use shipway_targets::{target_registry::TargetRegistry, traffic_registry::TrafficRegistry};
use shipway_workflow::job::ActionSource;

use crate::{
    accounts::UserAccounts, baseline_history::BaselineHistory, business_events::BusinessEventStore,
    delivery_engines::DeliveryEngines, file_storage::FileStorage, job_token::JobTokens,
    live_evidence::LiveEvidence, secrets::SecretStore,
};

/// Instances and their traffic.
#[derive(Clone)]
pub(crate) struct Workloads {
    /// What runs instances, by kind.
    pub(crate) targets: Arc<TargetRegistry>,
    /// Shares of traffic and the instances that get them, at the router that each environment names.
    pub(crate) traffic: Arc<TrafficRegistry>,
}

/// Where jobs run, and where the files that they leave are stored.
#[derive(Clone)]
pub(crate) struct JobPlatform {
    pub(crate) executor: Arc<dyn JobExecutor>,
    /// Artifacts and reports on their way into the blobs.
    pub(crate) storage: Arc<FileStorage>,
    pub(crate) blobs: Arc<dyn Blobs>,
}

/// Secrets, actions and tokens that the server gives to jobs.
#[derive(Clone)]
pub(crate) struct JobInputs {
    pub(crate) secrets: SecretStore,
    pub(crate) actions: ActionSource,
    pub(crate) tokens: Arc<JobTokens>,
}

/// Where workflows and actions of other repositories are fetched from, and to.
#[derive(Clone)]
pub(crate) struct WorkflowSources {
    pub(crate) actions: ActionSource,
    /// A folder for fetched repositories.
    pub(crate) scratch: PathBuf,
}

/// Providers of metrics, and what their queries need.
#[derive(Clone)]
pub(crate) struct MetricProviders {
    pub(crate) reader: MetricReader,
    pub(crate) secrets: SecretStore,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Everything that releases are measured by.
#[derive(Clone, Copy)]
pub(crate) struct MeasurementSources<'a> {
    pub(crate) workloads: &'a Workloads,
    pub(crate) observations: &'a ReleaseObservations,
    pub(crate) providers: &'a MetricProviders,
}

/// Observations of releases that are not in the log.
#[derive(Clone)]
pub(crate) struct ReleaseObservations {
    /// Business events that were reported.
    pub(crate) business_events: Arc<BusinessEventStore>,
    /// The evidence of rollouts with all looks in it.
    pub(crate) live_evidence: Arc<LiveEvidence>,
    /// Load and latencies of releases with traffic in the last hour.
    pub(crate) baseline_history: Arc<BaselineHistory>,
}

/// The addresses of the server and its proxy.
#[derive(Clone)]
pub(crate) struct ServerAddresses {
    /// Where the API is, as people and workers reach it.
    pub(crate) url: String,
    /// Where the proxy is, as people reach it.
    pub(crate) proxy_url: String,
    /// Where the proxy listens.
    pub(crate) proxy_address: SocketAddr,
    /// The port of the API.
    pub(crate) api_port: u16,
    /// Where the API is, as workers and hooks on this machine reach it.
    pub(crate) local_url: String,
}

impl ServerAddresses {
    /// Ports of this server that no environment can have.
    pub(crate) fn reserved_ports(&self) -> BTreeMap<u16, PortUse> {
        BTreeMap::from([
            (self.api_port, PortUse::Api),
            (self.proxy_address.port(), PortUse::Proxy),
        ])
    }
}

/// Where principals of requests are found: tokens, runs, and the processes of this machine.
#[derive(Clone)]
pub(crate) struct AuthenticationSources {
    pub(crate) client_tokens: Arc<ClientTokens>,
    pub(crate) accounts: Arc<UserAccounts>,
    pub(crate) job_tokens: Arc<JobTokens>,
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) data: DataFolder,
}

/// Sends requests for deploys, rollbacks and retries to services, and reads the rollouts that they start.
#[derive(Clone)]
pub(crate) struct ServiceRequests {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) engines: Arc<DeliveryEngines>,
}

/// Logs of jobs, and for how long they are kept.
#[derive(Clone)]
pub(crate) struct JobLogs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) job_executor: Arc<dyn JobExecutor>,
    pub(crate) retention: RetentionPolicy,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The files that a re-run needs: commits, artifacts and the workspaces of jobs.
#[derive(Clone)]
pub(crate) struct RunFiles {
    pub(crate) repositories: Arc<GitRepositories>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) job_executor: Arc<dyn JobExecutor>,
}

/// What the plan of a deploy follows from, apart from its release.
#[derive(Clone)]
pub(crate) struct DeployPlanning {
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) targets: Arc<TargetRegistry>,
    pub(crate) baseline_history: Arc<BaselineHistory>,
    pub(crate) server_addresses: ServerAddresses,
}

/// What the spec of a job for a shell is made from, and where it is written.
#[derive(Clone)]
pub(crate) struct ShellSources {
    pub(crate) job_executor: Arc<dyn JobExecutor>,
    pub(crate) job_inputs: JobInputs,
    pub(crate) traffic: Arc<TrafficRegistry>,
    pub(crate) server_addresses: ServerAddresses,
}

/// Changes of secrets and variables.
#[derive(Clone)]
pub(crate) struct SecretEditing {
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) secrets: SecretStore,
}

/// The data directory.
#[derive(Clone)]
pub(crate) struct DataFolder(pub(crate) Arc<Path>);

/// The tokens that clients present, apart from those of jobs.
pub(crate) struct ClientTokens {
    /// The server's token; none: loopback only, no token asked.
    pub(crate) server_token: Option<String>,
    /// The token of this server's git hooks at `/internal`; it opens nothing else.
    pub(crate) internal_token: String,
}
