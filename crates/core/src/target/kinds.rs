//! The kinds of targets and routers that an environment can name, and those that a server has.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// A technology that runs instances; `target` of an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Processes of this machine.
    #[default]
    Process,
    /// Containers of a Docker-compatible engine.
    Docker,
    /// Deployments of a Kubernetes cluster.
    Kubernetes,
}

impl TargetKind {
    /// All that `shipway.yaml` can name.
    pub const ALL: [Self; 3] = [Self::Process, Self::Docker, Self::Kubernetes];

    /// The name in `shipway.yaml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Whether it runs container images.
    #[must_use]
    pub const fn runs_images(self) -> bool {
        match self {
            Self::Process => false,
            Self::Docker | Self::Kubernetes => true,
        }
    }

    /// Whether it is the one that an environment has unless it names another.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A technology that splits traffic between releases; `router` of an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterKind {
    /// Shipway's proxy.
    #[default]
    Proxy,
    /// The selector of a Kubernetes Service.
    Service,
    /// An Istio VirtualService.
    Istio,
    /// An HTTPRoute of Gateway API.
    GatewayApi,
    /// The number of replicas of each release, where there is no mesh.
    ReplicaRatio,
}

impl RouterKind {
    /// All that `shipway.yaml` can name.
    pub const ALL: [Self; 5] = [
        Self::Proxy,
        Self::Service,
        Self::Istio,
        Self::GatewayApi,
        Self::ReplicaRatio,
    ];

    /// The name in `shipway.yaml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Service => "service",
            Self::Istio => "istio",
            Self::GatewayApi => "gateway-api",
            Self::ReplicaRatio => "replica-ratio",
        }
    }

    /// Whether it is the one that an environment has unless it names another.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for RouterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The targets and routers that exist in one place: those that a server was started with, or those of this version of Shipway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableTargets {
    pub owner: TargetsOwner,
    pub targets: BTreeSet<TargetKind>,
    pub routers: BTreeSet<RouterKind>,
}

impl AvailableTargets {
    /// Checks that there is such a target.
    ///
    /// # Errors
    /// [`TargetMissing`] lists those there are.
    pub fn require_target(&self, kind: TargetKind) -> Result<(), TargetMissing> {
        if self.targets.contains(&kind) {
            return Ok(());
        }
        Err(TargetMissing {
            owner: self.owner,
            kind,
            available: self.targets.iter().copied().collect(),
        })
    }

    /// Checks that there is such a router.
    ///
    /// # Errors
    /// [`RouterMissing`] lists those there are.
    pub fn require_router(&self, kind: RouterKind) -> Result<(), RouterMissing> {
        if self.routers.contains(&kind) {
            return Ok(());
        }
        Err(RouterMissing {
            owner: self.owner,
            kind,
            available: self.routers.iter().copied().collect(),
        })
    }
}

/// What targets and routers belong to, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetsOwner {
    /// The server that a release is deployed by.
    Server,
    /// This version of Shipway, where no server is known.
    Version,
}

impl fmt::Display for TargetsOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "this server",
            Self::Version => "this version of Shipway",
        })
    }
}

/// An environment names a target that is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner} has no target `{kind}`; it has {}", list_names(available))]
pub struct TargetMissing {
    pub owner: TargetsOwner,
    pub kind: TargetKind,
    pub available: Vec<TargetKind>,
}

/// An environment names a router that is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner} has no router `{kind}`; it has {}", list_names(available))]
pub struct RouterMissing {
    pub owner: TargetsOwner,
    pub kind: RouterKind,
    pub available: Vec<RouterKind>,
}

fn list_names<T: ToString>(kinds: &[T]) -> String {
    if kinds.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name_in_the_log_and_in_the_file() {
        for kind in TargetKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for kind in RouterKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn a_missing_target_or_router_is_refused_with_those_there_are() {
        let server = AvailableTargets {
            owner: TargetsOwner::Server,
            targets: [TargetKind::Process, TargetKind::Kubernetes].into(),
            routers: BTreeSet::new(),
        };
        assert_eq!(server.require_target(TargetKind::Kubernetes), Ok(()));
        let missing = server.require_target(TargetKind::Docker).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "this server has no target `docker`; it has process, kubernetes"
        );
        let missing = server.require_router(RouterKind::Istio).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "this server has no router `istio`; it has none"
        );
    }
}
