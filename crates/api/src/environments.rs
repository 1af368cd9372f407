//! Environments of services, as they are now.

use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    rollout::{RolloutStatus, RolloutView, plan::TrafficSplit},
    service::{
        EndedRollout, EnvironmentDegradation, EnvironmentHold, ReleaseView, RequestedDeletion,
    },
    target::InstanceStatus,
};
use utoipa::{IntoParams, ToSchema};

/// Which environments to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EnvironmentListQuery {
    /// Only of this service.
    pub service: Option<String>,
    /// How many entries; 50 by default, at most 200.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<u64>,
}

/// One environment of one service, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentStatus {
    #[schema(value_type = String)]
    pub service: ServiceName,
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
    /// Its position in the order of promotion, from 0.
    pub position: u32,
    /// Its address at the proxy.
    pub url: String,
    /// The same without a host name to resolve, where its address is the default host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_url: Option<String>,
    /// Why the proxy can't listen at its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_problem: Option<String>,
    /// The stable release.
    #[schema(value_type = Option<Object>)]
    pub stable: Option<ReleaseView>,
    /// The rollout in progress.
    #[schema(value_type = Option<Object>)]
    pub rollout: Option<RolloutView>,
    /// Releases that wait for a rollout in progress to end.
    #[schema(value_type = Vec<u32>)]
    pub queue: Vec<ReleaseNumber>,
    /// Set while automatic promotion into the environment is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub hold: Option<EnvironmentHold>,
    /// Set while its stable release has too few ready instances and no rollout guards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub degradation: Option<EnvironmentDegradation>,
    /// The last rollout that has ended here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub last_rollout: Option<EndedRollout>,
    /// Set while the environment is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub deletion: Option<RequestedDeletion>,
    /// The weight of each release in basis points: pairs of a release and its weight.
    #[schema(value_type = Vec<Vec<u32>>)]
    pub split: TrafficSplit,
    /// Instances of all releases.
    #[schema(value_type = Vec<Object>)]
    pub instances: Vec<InstanceStatus>,
    /// Counters of the proxy, by release.
    pub traffic: Vec<ReleaseTraffic>,
}

impl EnvironmentStatus {
    /// The rollout whose result is the newest of this environment; none while a promoted rollout is watched, which is newer.
    #[must_use]
    pub fn last_result(&self) -> Option<&EndedRollout> {
        let active = self.rollout.as_ref().map(|rollout| rollout.status);
        let ended = self.last_rollout.as_ref();
        ended.filter(|_| active != Some(RolloutStatus::Promoted))
    }
}

/// Counters of one release's traffic, since it first served in the environment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseTraffic {
    /// The release; with a mark where it is its baseline, or what copies of requests showed of it: see `name`.
    #[schema(value_type = u32)]
    pub release: ReleaseNumber,
    /// As people read it: `#3`, `#3 baseline`, `#4 mirrored`.
    pub name: String,
    /// Requests that got an answer.
    pub requests: u64,
    /// Answers with a 5xx status.
    pub errors: u64,
    /// Requests that failed in the proxy itself.
    pub proxy_errors: u64,
    /// Requests that their clients gave up without an answer; not among `requests`.
    pub abandoned: u64,
    /// Answers without an error, but later than `answer_within`.
    pub late: u64,
    /// Requests that are open and have had no answer for longer than `answer_within`; not among `requests`.
    pub overdue: u64,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the latency in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Why something is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeletionRequest {
    pub reason: Option<String>,
}

/// A deletion that was recorded: from now on instances stop and addresses are freed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AcceptedDeletion {
    #[schema(value_type = String)]
    pub service: ServiceName,
    #[schema(value_type = Vec<String>)]
    pub environments: Vec<EnvironmentName>,
}

/// Why a hold ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeEnvironmentRequest {
    pub reason: Option<String>,
}

/// What the end of a hold led to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResumedEnvironment {
    #[schema(value_type = String)]
    pub service: ServiceName,
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
    /// The hold that ended; `null` if there was none.
    #[schema(value_type = Option<Object>)]
    pub hold: Option<EnvironmentHold>,
    /// Rollouts of waiting releases that have started.
    pub rollouts: Vec<String>,
}
