//! Roles, and where they hold.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{EnvironmentName, ServiceName};

/// A set of permissions that a principal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalRole {
    /// Reads.
    Viewer,
    /// Pushes, deploys and steers rollouts and runs; reads.
    Deployer,
    /// Approves and rejects; reads.
    Approver,
    /// Does everything.
    Admin,
}

impl PrincipalRole {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Deployer, Self::Approver, Self::Admin];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Whether it has all permissions of another role.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Admin, _)
                | (_, Self::Viewer)
                | (Self::Deployer, Self::Deployer)
                | (Self::Approver, Self::Approver)
        )
    }
}

impl fmt::Display for PrincipalRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A role with the service and the environment where it holds. Its text is `deployer`, `deployer:shop`, `deployer:shop/staging` or
/// `approver:*/production`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleBinding {
    pub role: PrincipalRole,
    /// None for all services.
    pub service: Option<ServiceName>,
    /// None for all environments.
    pub environment: Option<EnvironmentName>,
}

impl RoleBinding {
    /// A role for all services and environments.
    #[must_use]
    pub const fn everywhere(role: PrincipalRole) -> Self {
        Self {
            role,
            service: None,
            environment: None,
        }
    }

    /// Whether it holds for a service, in at least one environment.
    #[must_use]
    pub fn concerns_service(&self, service: &ServiceName) -> bool {
        self.service.as_ref().is_none_or(|own| own == service)
    }

    /// Whether it holds for an environment of a service.
    #[must_use]
    pub fn covers_environment(&self, service: &ServiceName, environment: &EnvironmentName) -> bool {
        let own = self.environment.as_ref();
        self.concerns_service(service) && own.is_none_or(|own| own == environment)
    }

    /// Whether it holds for all environments of a service.
    #[must_use]
    pub fn covers_service(&self, service: &ServiceName) -> bool {
        self.concerns_service(service) && self.environment.is_none()
    }

    /// Whether it allows everything that another binding allows.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let has_service = self.service.is_none() || self.service == other.service;
        let has_environment = self.environment.is_none() || self.environment == other.environment;
        self.role.includes(other.role) && has_service && has_environment
    }

    /// Whether it holds for all services and environments.
    #[must_use]
    pub const fn covers_everything(&self) -> bool {
        self.service.is_none() && self.environment.is_none()
    }
}

impl fmt::Display for RoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, &self.environment) {
            (None, None) => write!(f, "{}", self.role),
            (Some(service), None) => write!(f, "{}:{service}", self.role),
            (None, Some(environment)) => write!(f, "{}:*/{environment}", self.role),
            (Some(service), Some(environment)) => {
                write!(f, "{}:{service}/{environment}", self.role)
            }
        }
    }
}

/// A text that is no role with its service and environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a role: write ROLE, ROLE:SERVICE or ROLE:SERVICE/ENVIRONMENT, where ROLE is viewer, deployer, approver or admin, and `*` stands for all services (`approver:*/production`)"
)]
pub struct ParseRoleBindingError(String);

impl FromStr for RoleBinding {
    type Err = ParseRoleBindingError;

    fn from_str(text: &str) -> Result<Self, ParseRoleBindingError> {
        let error = || ParseRoleBindingError(text.chars().take(80).collect());
        let (role, scope) = match text.split_once(':') {
            Some((role, scope)) => (role, Some(scope)),
            None => (text, None),
        };
        let role = (PrincipalRole::ALL.into_iter()).find(|known| known.as_str() == role);
        let role = role.ok_or_else(error)?;
        let Some(scope) = scope else {
            return Ok(Self::everywhere(role));
        };
        let (service, environment) = scope.split_once('/').unwrap_or((scope, "*"));
        Ok(Self {
            role,
            service: match service {
                "*" => None,
                name => Some(name.parse().map_err(|_| error())?),
            },
            environment: match environment {
                "*" => None,
                name => Some(name.parse().map_err(|_| error())?),
            },
        })
    }
}

impl TryFrom<String> for RoleBinding {
    type Error = ParseRoleBindingError;

    fn try_from(text: String) -> Result<Self, ParseRoleBindingError> {
        text.parse()
    }
}

impl From<RoleBinding> for String {
    fn from(binding: RoleBinding) -> Self {
        binding.to_string()
    }
}

/// The services that a principal may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisibleServices {
    All,
    Only(BTreeSet<ServiceName>),
}

impl VisibleServices {
    /// Those for which roles hold.
    #[must_use]
    pub fn from_roles(roles: &[RoleBinding]) -> Self {
        let services = roles.iter().map(|binding| binding.service.clone());
        match services.collect::<Option<BTreeSet<_>>>() {
            Some(services) => Self::Only(services),
            None => Self::All,
        }
    }

    /// Those that both have.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, other) => other,
            (own, Self::All) => own,
            (Self::Only(own), Self::Only(other)) => {
                Self::Only(own.intersection(&other).cloned().collect())
            }
        }
    }

    #[must_use]
    pub fn contains(&self, service: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Only(services) => services.contains(service),
        }
    }

    /// The names, where they are not all.
    #[must_use]
    pub const fn names(&self) -> Option<&BTreeSet<ServiceName>> {
        match self {
            Self::All => None,
            Self::Only(services) => Some(services),
        }
    }
}
