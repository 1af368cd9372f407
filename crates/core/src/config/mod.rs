//! `shipway.yaml`: how a service is built, run, checked and rolled out. These types are what the rest of Shipway knows of
//! it; they travel in events, so they only ever grow.

use std::{collections::BTreeMap, fmt, time::Duration};

mod checks;
pub(crate) mod decode;
mod environments;
mod guard;
mod metrics;
mod reports;
mod rollback;
mod schema;
#[cfg(test)]
mod tests;
mod ties;
mod timeouts;

pub use crate::rollout::strategy::Strategy;
pub use decode::parse;
pub use guard::Watch;
pub(crate) use metrics::defaults::SLOW_WITHOUT_STABLE;
pub use metrics::{Query, Source};
pub use reports::Reports;
pub use rollback::RollbackWindow;
pub use schema::schema;
use serde::{Deserialize, Serialize};
use shipway_analysis::Analysis;
pub use ties::check_ties;
pub use timeouts::RequestTimeouts;

use crate::{
    check::{Health, SmokeTest},
    exposure::Weight,
    ids::{Digest, EnvironmentName, ServiceName},
    target::{Limits, StopSignal},
};

/// A whole `shipway.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The service's name.
    pub service: ServiceName,
    /// Whose green commits are released; default `main`.
    pub branch: String,
    /// The workflows that a push runs; none named: all in `.github/workflows` that match the push.
    #[serde(default)]
    pub workflows: Vec<String>,
    /// What a release is made of.
    pub artifact: ArtifactSource,
    /// How an instance starts.
    pub run: RunConfig,
    /// Where tests report, and what is asked of them.
    #[serde(default, skip_serializing_if = "Reports::is_default")]
    pub reports: Reports,
    /// In order of promotion; never empty.
    pub environments: Vec<Environment>,
}

impl Config {
    /// The digest of all that shapes a release; two releases with equal commit, artifact and configuration are the same.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("a configuration is plain data"))
    }
}

/// What a release is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactSource {
    /// What a run uploaded.
    Run {
        /// The artifact's name; none: the run's only one.
        name: Option<String>,
    },
    /// The commit's own tree.
    Source,
    /// A container image.
    Image {
        /// `registry/name`
        name: String,
    },
}

/// How an instance starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// A shell command; `$PORT` is the port to listen on.
    pub command: String,
    /// Environment variables; values may name secrets as `$NAME`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How an instance is known to be ready and alive.
    pub health: Health,
    /// What an instance may use.
    #[serde(default)]
    pub limits: Limits,
    /// From the stop signal to SIGKILL; default 10 s.
    pub grace: Duration,
    /// What asks an instance to stop; default SIGTERM.
    #[serde(default, skip_serializing_if = "StopSignal::is_default")]
    pub stop_signal: StopSignal,
}

/// Where releases go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// How many instances; default 1.
    pub instances: u32,
    /// How a release goes in; default `rolling`.
    pub strategy: Strategy,
    /// Hosts that lead to it. Without `hosts`, `path` and `port` it has the default host of [`crate::address`].
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The path that leads to it: below its hosts, or below any host where it has none.
    pub path: Option<String>,
    /// Whether `path` is taken off before an instance gets the request.
    pub strip_prefix: bool,
    /// A port of its own on the proxy.
    pub port: Option<u16>,
    /// By what a user is known again; default a cookie.
    #[serde(default)]
    pub sticky: Sticky,
    /// Who must say yes before a rollout begins; none: continuous deployment.
    pub approvals: Option<Approvals>,
    /// Put to the new instances before they get traffic.
    #[serde(default)]
    pub smoke: Vec<SmokeTest>,
    /// A workflow that tests the environment after a promotion; green before the release goes on.
    pub tests: Option<String>,
    /// What is judged while the exposure grows.
    #[serde(default)]
    pub analysis: Analysis,
    /// Who chose that.
    #[serde(default)]
    pub analysis_source: AnalysisSource,
    /// Where its metrics come from that Shipway doesn't measure itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Environment variables on top of those of `run`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What happens to a release that comes during a rollout.
    #[serde(default)]
    pub when_busy: WhenBusy,
    /// How far a rollback skips steps and analysis; none: to all releases that are remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_window: Option<RollbackWindow>,
    /// Services whose rollouts into it are promoted together with this one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<ServiceName>,
    /// Who hears of it.
    #[serde(default)]
    pub notify: Vec<Notify>,
    /// Without progress for this long an action fails; default 10 min.
    pub progress_deadline: Duration,
    /// How long open requests may take to finish before their instances stop; default 30 s.
    pub drain: Duration,
    /// How long a release is judged after its promotion; default 30 min.
    pub watch: Watch,
    /// How long fewer instances than needed may be ready before a rollout is rolled back; `None`: as long as it takes to
    /// notice that an instance is not ready.
    pub unready_grace: Option<Duration>,
    /// How long the data plane waits for its instances.
    #[serde(default)]
    pub timeouts: RequestTimeouts,
}

/// Where the rules of an environment come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnalysisSource {
    /// `shipway.yaml` says nothing: the default rules.
    Default,
    /// `analysis: none`: nothing is judged.
    None,
    /// The rules of `shipway.yaml`.
    #[default]
    File,
}

impl Environment {
    /// The host that probes and smoke tests ask for: the first of `hosts` that names one.
    #[must_use]
    pub fn request_host(&self) -> Option<&str> {
        let mut hosts = self.hosts.iter();
        hosts
            .find(|host| !host.starts_with('*'))
            .map(String::as_str)
    }
}

/// A number, or a percentage of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// So many.
    Number(u32),
    /// This share of the whole.
    Percent(Weight),
}

impl Count {
    /// Of `whole`, rounded up, as Kubernetes rounds a surge.
    #[must_use]
    pub fn round_up(self, whole: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Percent(share) => share.share_of(whole),
        }
    }

    /// Of `whole`, rounded down, as Kubernetes rounds what may be unavailable.
    #[must_use]
    pub fn round_down(self, whole: u32) -> u32 {
        match self {
            Self::Number(number) => number.min(whole),
            Self::Percent(share) => whole - share.rest().share_of(whole),
        }
    }
}

/// By what a user is known again, so that they stay on one side of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// A cookie, set by the proxy where it is missing.
    Cookie(String),
    /// A request header.
    Header(String),
    /// The client's address.
    Address,
    /// Nothing: each request is decided anew.
    None,
}

impl Default for Sticky {
    fn default() -> Self {
        Self::Cookie("shipway".to_owned())
    }
}

/// Who must say yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// How many different people; default 1.
    pub count: u32,
    /// Who may: names, or groups as `@name`; nobody named: anyone.
    #[serde(default)]
    pub from: Vec<String>,
}

impl Approvals {
    /// One person, whoever it is.
    #[must_use]
    pub const fn anyone() -> Self {
        Self {
            count: 1,
            from: Vec::new(),
        }
    }
}

impl fmt::Display for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} approval{}",
            self.count,
            if self.count == 1 { "" } else { "s" }
        )?;
        if !self.from.is_empty() {
            write!(f, " from {}", self.from.join(", "))?;
        }
        Ok(())
    }
}

/// What happens to a release that comes during a rollout.
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

/// Who hears of a rollout. Addresses may name secrets as `$NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notify {
    /// A Slack-compatible incoming webhook.
    Slack(String),
    /// A generic webhook.
    Webhook(String),
}
