//! What runs where: sets of instances, their workload, and what a target reports about them. Data only; targets are in the crate
//! `targets`.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

mod kinds;

use jiff::Timestamp;
pub use kinds::{
    AvailableTargets, RouterKind, RouterMissing, TargetKind, TargetMissing, TargetsOwner,
};
use serde::{Deserialize, Serialize};

use crate::{
    check::HealthCheck,
    ids::{Digest, EnvironmentName, ReleaseNumber, ServiceName},
};

/// A service in an environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceEnvironment {
    pub service: ServiceName,
    pub environment: EnvironmentName,
}

impl fmt::Display for ServiceEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.service, self.environment)
    }
}

/// All instances of one release in one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaSetKey {
    pub place: ServiceEnvironment,
    pub release: ReleaseNumber,
}

/// What a target starts for one instance of a release. It names no path: a target may run it on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    #[serde(flatten)]
    pub program: WorkloadProgram,
    /// Environment variables. Values may name secrets as `$NAME`; the target resolves them, the log never sees them.
    pub env: BTreeMap<String, String>,
    /// How it is known to be ready and alive.
    pub health: HealthCheck,
    pub limits: ResourceLimits,
    /// Time from the stop signal to SIGKILL.
    pub grace: Duration,
    #[serde(default, skip_serializing_if = "StopSignal::is_default")]
    pub stop_signal: StopSignal,
    /// The host that the environment is reached by, where it names one: probes and smoke tests ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The URL of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The program of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WorkloadProgram {
    /// A command in the folder of an unpacked artifact.
    Command(WorkloadCommand),
    /// A container image.
    Image {
        image: ImageReference,
        /// A shell command instead of the image's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
}

impl fmt::Display for WorkloadProgram {
    /// The command, or the image.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(WorkloadCommand { command, .. }) => f.write_str(command),
            Self::Image { image, .. } => write!(f, "{image}"),
        }
    }
}

/// A command in the folder of an unpacked artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadCommand {
    /// The artifact (a tar of a directory) that becomes its working directory.
    pub artifact: Digest,
    /// A shell command; `$PORT` is given in its environment.
    pub command: String,
}

/// A container image by its digest: `registry.example.com/shop@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ImageReference {
    /// Registry and name, without a tag.
    pub name: String,
    pub digest: Digest,
}

/// The text names no image by its digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no image by its digest, such as registry.example.com/shop@sha256:…")]
pub struct ParseImageError(String);

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest)
    }
}

impl FromStr for ImageReference {
    type Err = ParseImageError;

    fn from_str(text: &str) -> Result<Self, ParseImageError> {
        let parts = text.split_once('@').filter(|(name, _)| !name.is_empty());
        let image = parts.and_then(|(name, digest)| {
            Some(Self {
                name: name.to_owned(),
                digest: digest.parse().ok()?,
            })
        });
        image.ok_or_else(|| ParseImageError(text.to_owned()))
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ParseImageError;

    fn try_from(text: String) -> Result<Self, ParseImageError> {
        text.parse()
    }
}

impl From<ImageReference> for String {
    fn from(image: ImageReference) -> Self {
        image.to_string()
    }
}

/// A signal that asks a server to finish its open requests and exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are POSIX's")]
pub enum StopSignal {
    #[default]
    SigTerm,
    SigInt,
    SigQuit,
    SigHup,
    SigUsr1,
    SigUsr2,
    SigWinch,
}

impl StopSignal {
    /// All that can be configured.
    pub const ALL: [Self; 7] = [
        Self::SigTerm,
        Self::SigInt,
        Self::SigQuit,
        Self::SigHup,
        Self::SigUsr1,
        Self::SigUsr2,
        Self::SigWinch,
    ];

    /// `SIGTERM`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SigTerm => "SIGTERM",
            Self::SigInt => "SIGINT",
            Self::SigQuit => "SIGQUIT",
            Self::SigHup => "SIGHUP",
            Self::SigUsr1 => "SIGUSR1",
            Self::SigUsr2 => "SIGUSR2",
            Self::SigWinch => "SIGWINCH",
        }
    }

    /// From its name, with or without `SIG`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let is_named = |signal: &Self| signal.name() == name || signal.name()[3..] == name;
        Self::ALL.into_iter().find(is_named)
    }

    /// Whether it is SIGTERM.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an instance may use; enforced by cgroups where the machine has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
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
    pub set: ReplicaSetKey,
    pub slot: u32,
}

impl fmt::Display for InstanceId {
    /// `shop.production.3.1`: service, environment, release, slot. No part may hold a dot, so it reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplicaSetKey { place, release } = &self.set;
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

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an instance; an instance is named like shop.production.3.1 (service, environment, release, slot)"
)]
pub struct NoInstanceId(String);

impl FromStr for InstanceId {
    type Err = NoInstanceId;

    fn from_str(text: &str) -> Result<Self, NoInstanceId> {
        let no_id = || NoInstanceId(text.to_owned());
        let parts: Vec<&str> = text.split('.').collect();
        let [service, environment, release, slot] = parts[..] else {
            return Err(no_id());
        };
        let place = ServiceEnvironment {
            service: service.parse().map_err(|_| no_id())?,
            environment: environment.parse().map_err(|_| no_id())?,
        };
        let release = ReleaseNumber::from_plain(release).ok_or_else(no_id)?;
        let slot = slot.parse().map_err(|_| no_id())?;
        let set = ReplicaSetKey { place, release };
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
pub enum InstancePhase {
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
        until: Timestamp,
    },
    /// Has received the stop signal.
    Stopping,
}

/// What a target reports about one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub id: InstanceId,
    #[serde(flatten)]
    pub phase: InstancePhase,
    /// `host:port` it listens on.
    pub address: String,
    /// The process, when it runs.
    pub pid: Option<u32>,
    /// Unplanned restarts since the set was started.
    pub restarts: u32,
    /// When the present process was started.
    pub since: Timestamp,
    /// What it uses, when it could be read.
    pub usage: Option<ResourceUsage>,
}

impl InstanceStatus {
    /// Whether it may get traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, InstancePhase::Ready)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// CPU time since it was started, in seconds, of the whole process group.
    pub cpu_seconds: f64,
    /// Resident bytes, of the whole process group.
    pub memory_bytes: u64,
}

/// How the instances of a set have held up. All numbers are cumulative: two readings are compared by subtracting.
///
/// An instance is expected to be ready from the first time that it is until it is stopped on purpose. Its start before that counts
/// neither way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAvailability {
    /// Milliseconds in which instances were expected to be ready, summed over the instances.
    pub observed_ms: u64,
    /// Milliseconds of these in which an instance was not ready (exited, restarting or failing its probe), summed over the instances.
    pub unavailable_ms: u64,
    /// Unplanned exits, and restarts for a failed liveness probe, of all instances since the set was first started.
    pub restarts: u64,
}

impl SetAvailability {
    /// The difference from `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            observed_ms: self.observed_ms.saturating_sub(earlier.observed_ms),
            unavailable_ms: self.unavailable_ms.saturating_sub(earlier.unavailable_ms),
            restarts: self.restarts.saturating_sub(earlier.restarts),
        }
    }

    /// The share of the expected time in which instances were ready, from 0 to 1; `None` before anything was observed.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        (self.observed_ms > 0).then(|| {
            1.0 - self.unavailable_ms.min(self.observed_ms) as f64 / self.observed_ms as f64
        })
    }
}

impl std::ops::Add for SetAvailability {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            observed_ms: self.observed_ms.saturating_add(other.observed_ms),
            unavailable_ms: self.unavailable_ms.saturating_add(other.unavailable_ms),
            restarts: self.restarts.saturating_add(other.restarts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(program: WorkloadProgram) -> Workload {
        Workload {
            program,
            env: BTreeMap::new(),
            health: HealthCheck::default(),
            limits: ResourceLimits::default(),
            grace: Duration::from_secs(10),
            stop_signal: StopSignal::default(),
            host: None,
            url: None,
        }
    }

    #[test]
    fn a_workload_is_read_back_as_the_program_that_was_written() {
        let digest = Digest::compute(b"shop");
        let image = ImageReference {
            name: "registry.example.com:5000/shop".to_owned(),
            digest: digest.clone(),
        };
        let command = WorkloadCommand {
            artifact: digest.clone(),
            command: "./shop".to_owned(),
        };
        for program in [
            WorkloadProgram::Command(command),
            WorkloadProgram::Image {
                image: image.clone(),
                command: None,
            },
            WorkloadProgram::Image {
                image: image.clone(),
                command: Some("./shop".to_owned()),
            },
        ] {
            let written = serde_json::to_string(&workload(program.clone())).unwrap();
            let read: Workload = serde_json::from_str(&written).unwrap();
            assert_eq!(read, workload(program));
        }
        // A set that an earlier server has stored.
        let command = serde_json::json!({
            "artifact": digest, "command": "./shop", "env": {}, "health": HealthCheck::default(),
            "limits": ResourceLimits::default(), "grace": Duration::from_secs(10),
        });
        let read: Workload = serde_json::from_value(command).unwrap();
        assert_eq!(read.program.to_string(), "./shop");
        assert_eq!(image.to_string().parse(), Ok(image));
    }

    #[test]
    fn an_image_without_a_digest_is_no_image_reference() {
        for text in ["", "shop", "shop:1.2", "shop@sha256:12", "@sha256:12"] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
        let whole = Digest::compute(b"shop");
        assert!(format!("@{whole}").parse::<ImageReference>().is_err());
    }

    #[test]
    fn availability_is_the_ready_share_of_the_expected_time() {
        let earlier = SetAvailability {
            observed_ms: 1_000,
            unavailable_ms: 1_000,
            restarts: 2,
        };
        let later = SetAvailability {
            observed_ms: 3_000,
            unavailable_ms: 1_500,
            restarts: 3,
        };
        let between = later.since(earlier);
        assert_eq!((between.ratio(), between.restarts), (Some(0.75), 1));
        assert_eq!(earlier.ratio(), Some(0.0));
        assert_eq!(SetAvailability::default().ratio(), None);
        assert_eq!(earlier + between, later);
    }
}
