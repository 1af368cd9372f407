//! What runs where: sets of instances, how one is launched, and what a target reports about it. Data only; targets are drivers.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    check::Health,
    ids::{Digest, EnvironmentName, ReleaseNumber, ServiceName},
};

/// A service in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The service.
    pub service: ServiceName,
    /// The environment.
    pub environment: EnvironmentName,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.service, self.environment)
    }
}

/// All instances of one release in one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetKey {
    /// Where they run.
    pub place: Place,
    /// What they run.
    pub release: ReleaseNumber,
}

/// How one instance of a release is launched; part of the release's configuration digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The artifact (a tar of a directory) that becomes its working directory.
    pub artifact: Digest,
    /// A shell command; `$PORT` is given in its environment.
    pub command: String,
    /// Environment variables. Values may name secrets as `$NAME`; the target resolves them, the log never sees them.
    pub env: BTreeMap<String, String>,
    /// How it is known to be ready and alive.
    pub health: Health,
    /// What it may use.
    pub limits: Limits,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// What an instance may use; enforced by cgroups where the machine has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes, with their threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

/// One running copy of a release: the number of the slot within its set, from 1. A restart keeps the slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InstanceId {
    /// The set it belongs to.
    pub set: SetKey,
    /// Its slot.
    pub slot: u32,
}

impl std::fmt::Display for InstanceId {
    /// `shop.production.3.1`: service, environment, release, slot. No part may hold a dot, so it reads back.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SetKey { place, release } = &self.set;
        write!(
            f,
            "{}.{}.{}.{}",
            place.service,
            place.environment,
            release.plain(),
            self.slot
        )
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

/// What is no instance's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no instance: shop.production.3.1 is (service, environment, release, slot)")]
pub struct NoInstanceId(String);

impl std::str::FromStr for InstanceId {
    type Err = NoInstanceId;

    fn from_str(text: &str) -> Result<Self, NoInstanceId> {
        let no_id = || NoInstanceId(text.to_owned());
        let parts: Vec<&str> = text.split('.').collect();
        let [service, environment, release, slot] = parts[..] else {
            return Err(no_id());
        };
        let place = Place {
            service: service.parse().map_err(|_| no_id())?,
            environment: environment.parse().map_err(|_| no_id())?,
        };
        let release = ReleaseNumber::from_plain(release).ok_or_else(no_id)?;
        let slot = slot.parse().map_err(|_| no_id())?;
        let set = SetKey { place, release };
        Ok(Self { set, slot })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NoInstanceId;

    fn try_from(text: String) -> Result<Self, NoInstanceId> {
        text.parse()
    }
}

/// Where an instance is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Spawned, not ready yet; with what the last probe said.
    Starting {
        /// The last answer of the readiness probe.
        why: String,
    },
    /// Answers its readiness probe.
    Ready,
    /// Was ready, is not now; gets no traffic.
    Unready {
        /// What the probe said; dependencies by name where the endpoint reports them.
        why: String,
    },
    /// Exited and waits for its next start.
    Backoff {
        /// How it ended: `exit code 1: Address already in use`.
        why: String,
        /// When it is started again.
        until: Timestamp,
    },
    /// Was told to stop.
    Stopping,
}

/// What a target reports about one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Which one.
    pub id: InstanceId,
    /// Where it is in its life.
    #[serde(flatten)]
    pub phase: Phase,
    /// `host:port` it listens on.
    pub address: String,
    /// The process, when it runs.
    pub pid: Option<u32>,
    /// Unplanned restarts since the set was started.
    pub restarts: u32,
    /// When the present process was started.
    pub since: Timestamp,
    /// What it uses, when it could be read.
    pub usage: Option<Usage>,
}

impl InstanceStatus {
    /// Whether it may get traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }
}

/// What an instance uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since it was started, in seconds, of the whole process group.
    pub cpu_seconds: f64,
    /// Resident bytes, of the whole process group.
    pub memory_bytes: u64,
}
