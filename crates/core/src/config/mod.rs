//! `shipway.yaml`: how a service is built, run, checked and rolled out. These types are what the rest of Shipway knows of
//! it; they travel in events, so they only ever grow.

use std::{collections::BTreeMap, time::Duration};

mod addresses;
mod approvals;
mod checks;
mod decode;
mod deployment_rules;
mod environments;
mod guard;
mod metrics;
#[cfg(test)]
mod page_tests;
mod paths;
mod promotion_groups;
mod reports;
mod rollback;
mod schema;
mod targets;
#[cfg(test)]
mod tests;
mod timeouts;

pub use crate::{field_values::InstanceCount, strategy::Strategy};
pub use addresses::addresses_by_environment;
pub use decode::{parse, parse_for, parse_service_name};
pub use guard::WatchDuration;
pub use metrics::{MetricSource, ProviderQuery};
pub use promotion_groups::{PromotionGroupError, check_promotion_groups};
pub use reports::ReportsConfig;
pub use rollback::RollbackWindow;
pub use schema::schema;
use serde::{Deserialize, Serialize};
use shipway_analysis::Analysis;
use shipway_workflow::model::FilterPattern;
pub use timeouts::RequestTimeouts;

use crate::{
    check::{HealthCheck, SmokeTest},
    gate::{ApprovalPolicy, DeploymentRules},
    ids::{Digest, EnvironmentName, ServiceName},
    source_repository::SourceRepository,
    target::{ResourceLimits, RouterKind, StopSignal, TargetKind},
};

/// A whole `shipway.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceConfig {
    pub service: ServiceName,
    /// Commits on this branch are released when their runs succeed; default `main`.
    pub branch: String,
    /// The repository on a forge that the commits come from: `github.repository` of its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<SourceRepository>,
    /// The workflows that a push runs; none named: all in `.github/workflows` that match the push.
    pub workflows: Vec<String>,
    pub artifact: ArtifactSource,
    pub run: RunConfig,
    /// Paths of test reports and the requirements on them.
    #[serde(default, skip_serializing_if = "ReportsConfig::is_default")]
    pub reports: ReportsConfig,
    /// Patterns of further paths whose changes are released, see [`crate::repository::ServicePaths`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<FilterPattern>,
    /// In order of promotion; never empty.
    pub environments: Vec<EnvironmentConfig>,
}

impl ServiceConfig {
    /// The digest of all that shapes a release; two releases with equal commit, artifact and configuration are the same.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::compute(&serde_json::to_vec(self).expect("a configuration is plain data"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactSource {
    Run {
        /// The artifact's name; none: the run's only one.
        name: Option<String>,
    },
    /// The commit's own tree.
    Source,
    Image {
        /// `registry/name`
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// A shell command; `$PORT` is the port to listen on.
    pub command: String,
    /// Environment variables; values may name secrets as `$NAME`.
    pub env: BTreeMap<String, String>,
    /// How an instance is known to be ready and alive.
    pub health: HealthCheck,
    pub limits: ResourceLimits,
    /// From the stop signal to SIGKILL; default 10 s.
    pub grace: Duration,
    /// What asks an instance to stop; default SIGTERM.
    #[serde(default, skip_serializing_if = "StopSignal::is_default")]
    pub stop_signal: StopSignal,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentConfig {
    pub name: EnvironmentName,
    /// What runs its instances; default processes of the server's machine.
    #[serde(default, skip_serializing_if = "TargetKind::is_default")]
    pub target: TargetKind,
    /// What splits its traffic; default Shipway's proxy.
    #[serde(default, skip_serializing_if = "RouterKind::is_default")]
    pub router: RouterKind,
    /// How many instances; default 1.
    pub instances: u32,
    /// How a release goes in; default `rolling`.
    pub strategy: Strategy,
    /// Hosts of the environment. Without `hosts`, `path` and `port` it has the default host of [`crate::address`].
    pub hosts: Vec<String>,
    /// The path that leads to it: below its hosts, or below any host where it has none.
    pub path: Option<String>,
    /// Whether `path` is taken off before an instance gets the request.
    pub strip_prefix: bool,
    /// A dedicated port on the proxy.
    pub port: Option<u16>,
    /// By what a user is known again; default a cookie.
    pub sticky: StickyKey,
    /// What a user is kept on; default the release.
    #[serde(default, skip_serializing_if = "StickyScope::is_default")]
    pub sticky_to: StickyScope,
    /// The approvals that a rollout needs before it begins; none: continuous deployment.
    pub approvals: Option<ApprovalPolicy>,
    /// Its requirements in addition to approvals.
    #[serde(default, skip_serializing_if = "DeploymentRules::is_default")]
    pub rules: DeploymentRules,
    /// Put to the new instances before they get traffic.
    pub smoke: Vec<SmokeTest>,
    /// Workflow that tests the environment after a promotion; only when it succeeds is the release promoted to the next
    /// environment.
    pub tests: Option<String>,
    /// Metrics that are judged while the weight grows.
    pub analysis: Analysis,
    pub analysis_source: AnalysisSource,
    /// Where its metrics come from that Shipway doesn't measure itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<MetricSource>,
    /// Environment variables on top of those of `run`.
    pub env: BTreeMap<String, String>,
    /// How a release that arrives during a rollout is treated.
    pub when_busy: WhenBusy,
    /// How far a rollback skips steps and analysis; none: to all releases that are remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_window: Option<RollbackWindow>,
    /// Services whose rollouts into it are promoted together with this one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promote_with: Vec<ServiceName>,
    pub notify: Vec<NotificationTarget>,
    /// Without progress for this long an action fails; default 10 min.
    pub progress_deadline: Duration,
    /// How long open requests may take to finish before their instances stop; default 30 s.
    pub drain: Duration,
    /// How long a release is judged after its promotion; default 30 min.
    pub watch: WatchDuration,
    /// How long fewer instances than needed may be ready before a rollout is rolled back; `None`: as long as it takes to
    /// notice that an instance is not ready.
    pub unready_grace: Option<Duration>,
    /// How long the data plane waits for its instances.
    pub timeouts: RequestTimeouts,
}

/// Where the rules of an environment come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnalysisSource {
    /// Not configured: the default rules.
    Default,
    /// `analysis: none`: nothing is judged.
    None,
    /// The rules of `shipway.yaml`.
    #[default]
    File,
}

impl EnvironmentConfig {
    /// Whether a rollout into it may wait for approval.
    #[must_use]
    pub fn needs_approvals(&self) -> bool {
        self.approvals.is_some() || self.strategy.needs_approvals()
    }

    /// The host that probes and smoke tests ask for: the first of `hosts` that names one.
    #[must_use]
    pub fn request_host(&self) -> Option<&str> {
        let mut hosts = self.hosts.iter();
        hosts
            .find(|host| !host.starts_with('*'))
            .map(String::as_str)
    }
}

/// By what a user is known again, so that they stay on one side of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickyKey {
    /// A cookie, set by the proxy where it is missing.
    Cookie(String),
    Header(String),
    Address,
    /// Nothing: each request is decided anew.
    None,
}

impl Default for StickyKey {
    fn default() -> Self {
        Self::Cookie("shipway".to_owned())
    }
}

/// What a user is kept on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickyScope {
    /// One side of a split; requests go to any instance of the release.
    #[default]
    Release,
    /// One instance of the release, for apps that keep sessions in memory.
    Instance,
}

impl StickyScope {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a release that arrives during a rollout is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// The running rollout goes back to stable, then the newest starts.
    #[default]
    Supersede,
    /// Strict order, nothing dropped.
    Queue,
    /// The new one is refused.
    Refuse,
}

/// A receiver of notifications about rollouts. Addresses may name secrets as `$NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationTarget {
    /// A Slack-compatible incoming webhook.
    Slack(String),
    Webhook(String),
}

impl NotificationTarget {
    /// Its text for readers: the host, or the names of the secrets.
    #[must_use]
    pub fn label(&self) -> String {
        let (kind, url) = match self {
            Self::Slack(url) => ("Slack webhook", url),
            Self::Webhook(url) => ("webhook", url),
        };
        format!("{kind} at {}", public_part(url))
    }
}

/// The part of a URL that is not secret: its host, or the secret's name that it starts with.
fn public_part(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme
        .split(['/', '?', '#'])
        .next()
        .unwrap_or_default();
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}
