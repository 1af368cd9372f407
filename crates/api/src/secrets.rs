//! Secrets and variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Where a secret or a variable is visible.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SecretScopeQuery {
    /// One service; all services by default.
    pub service: Option<String>,
    /// One environment; all environments by default.
    pub environment: Option<String>,
}

/// Which secrets or variables to list: those of a service, or those of all services.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SecretListQuery {
    /// The values of this service; by default those that all services see.
    pub service: Option<String>,
}

/// The new value of a secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecretRequest {
    /// At most 48 KiB. It can't be read again.
    pub value: String,
}

/// Several secrets, which are set together or not at all.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportSecretsRequest {
    /// Values by name; at most 1,000.
    pub secrets: BTreeMap<String, String>,
}

/// The new value of a variable.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVariableRequest {
    /// At most 48 KiB.
    pub value: String,
}

/// The removal of a secret or a variable. It has no fields.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveValueRequest {}

/// A change of the key that encrypts secrets. It has no fields.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSecretKeyRequest {}

/// The secrets that were encrypted with a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedSecrets {
    pub secrets: usize,
}
