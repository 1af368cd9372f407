//! The facts about secrets and variables.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::SecretName;
use crate::{
    ids::{EnvironmentName, ReleaseNumber, RunId},
    sealed_value::SealedValue,
};

/// Without an environment: of all environments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretEvent {
    SecretsSet {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        secrets: Vec<SealedSecret>,
    },
    /// The same values, encrypted with a newer key.
    SecretsResealed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        secrets: Vec<SealedSecret>,
    },
    SecretRemoved {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        name: SecretName,
    },
    VariablesSet {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        variables: BTreeMap<SecretName, String>,
    },
    VariableRemoved {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
        name: SecretName,
    },
    /// Nothing is set any more: the service was deleted.
    AllRemoved,
    /// Values were given to a user of secrets.
    SecretsUsed {
        user: SecretUser,
        secrets: Vec<UsedSecret>,
    },
}

/// One version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecret {
    pub name: SecretName,
    /// From 1.
    pub version: u32,
    pub value: SealedValue,
}

/// A version of a secret that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedSecret {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    pub name: SecretName,
    pub version: u32,
}

/// What received the values of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretUser {
    /// A job of a workflow, from its start.
    Job {
        run: RunId,
        job: String,
        attempt: u32,
    },
    /// A person's shell in the workspace of a job.
    Shell { run: RunId, job: String },
    /// The instances of a release, in the environment of the secret or any.
    Instances {
        environment: EnvironmentName,
        release: ReleaseNumber,
    },
    /// Queries of a metric provider.
    MetricProvider { environment: EnvironmentName },
    /// The address of a notification.
    Notification,
    /// Webhooks of a forge, and its API.
    Forge,
}

impl fmt::Display for SecretUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job { run, job, attempt } => write!(f, "{job} of {run}, attempt {attempt}"),
            Self::Shell { run, job } => write!(f, "a shell in {job} of {run}"),
            Self::Instances {
                environment,
                release,
            } => write!(f, "instances of {release} in {environment}"),
            Self::MetricProvider { environment } => {
                write!(f, "a metric provider of {environment}")
            }
            Self::Notification => f.write_str("a notification"),
            Self::Forge => f.write_str("a forge"),
        }
    }
}
