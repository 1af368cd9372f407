//! The capabilities of the server in groups: a part takes the groups that it needs instead of the whole [`crate::app::App`].

use std::{net::SocketAddr, sync::Arc};

use shipway_core::{
    address::claims::AddressClaims, concurrency::ConcurrencyGroups, rollout::RolloutAggregate,
    run::RunAggregate, service::ServiceAggregate,
};
use shipway_drivers::metrics::MetricReader;
use shipway_engine::{Clock, Engine};
use shipway_targets::{
    router::Router, target_registry::TargetRegistry, traffic_control::TrafficControl,
};

use crate::{
    baseline_history::BaselineHistory, business_events::BusinessEventStore, job_token::JobTokens,
    live_evidence::LiveEvidence, secrets::SecretStore,
};

/// The engines of the aggregates that requests and effects are about.
pub(crate) struct DeliveryEngines {
    pub(crate) services: Engine<ServiceAggregate>,
    pub(crate) runs: Engine<RunAggregate>,
    /// Concurrency groups.
    pub(crate) groups: Engine<ConcurrencyGroups>,
    pub(crate) rollouts: Engine<RolloutAggregate>,
    /// Claims of addresses.
    pub(crate) addresses: Engine<AddressClaims>,
}

/// Instances and their traffic.
#[derive(Clone)]
pub(crate) struct Workloads {
    /// What runs instances, by kind.
    pub(crate) targets: Arc<TargetRegistry>,
    /// Splits and counts the traffic.
    pub(crate) router: Arc<dyn Router>,
    /// Shares of traffic and the instances that get them.
    pub(crate) traffic: Arc<TrafficControl>,
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
pub(crate) struct ReleaseObservations {
    /// Business events that were reported.
    pub(crate) business_events: BusinessEventStore,
    /// The evidence of rollouts with all looks in it.
    pub(crate) live_evidence: LiveEvidence,
    /// Load and latencies of releases with traffic in the last hour.
    pub(crate) baseline_history: Arc<BaselineHistory>,
}

/// The addresses of the server and its proxy.
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

/// The tokens that clients present.
pub(crate) struct ClientTokens {
    /// The server's token; none: loopback only, no token asked.
    pub(crate) server_token: Option<String>,
    /// The token of this server's git hooks at `/internal`; it opens nothing else.
    pub(crate) internal_token: String,
    pub(crate) job_tokens: JobTokens,
}
