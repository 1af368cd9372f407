//! What the API and pages show of secrets: never a value.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SecretName, SecretState};
use crate::ids::{EnvironmentName, ServiceName};

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    pub name: SecretName,
    /// None for all services.
    pub service: Option<ServiceName>,
    /// None for all environments.
    pub environment: Option<EnvironmentName>,
    /// From 1; each change has a new one.
    pub version: u32,
    pub changed_at: Timestamp,
    pub changed_by: String,
    /// The last use of each kind of user, of this version.
    pub uses: Vec<SecretUseView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUseView {
    /// `deploy of shop/r7, attempt 1`.
    pub user: String,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableView {
    pub name: SecretName,
    /// None for all services.
    pub service: Option<ServiceName>,
    /// None for all environments.
    pub environment: Option<EnvironmentName>,
    pub value: String,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

/// The secrets of a stream that are set.
#[must_use]
pub fn secret_views(service: Option<&ServiceName>, state: &SecretState) -> Vec<SecretView> {
    let mut views = Vec::new();
    for (environment, values) in state.all_values() {
        let set = (values.secrets.iter()).filter(|(_, secret)| secret.value.is_some());
        views.extend(set.map(|(name, secret)| {
            SecretView {
                name: name.clone(),
                service: service.cloned(),
                environment: environment.cloned(),
                version: secret.version,
                changed_at: secret.changed.at,
                changed_by: secret.changed.by.clone(),
                uses: (secret.uses.iter())
                    .map(|(user, at)| SecretUseView {
                        user: user.to_string(),
                        at: *at,
                    })
                    .collect(),
            }
        }));
    }
    views
}

/// The variables of a stream.
#[must_use]
pub fn variable_views(service: Option<&ServiceName>, state: &SecretState) -> Vec<VariableView> {
    let mut views = Vec::new();
    for (environment, values) in state.all_values() {
        views.extend(
            values
                .variables
                .iter()
                .map(|(name, variable)| VariableView {
                    name: name.clone(),
                    service: service.cloned(),
                    environment: environment.cloned(),
                    value: variable.value.clone(),
                    changed_at: variable.changed.at,
                    changed_by: variable.changed.by.clone(),
                }),
        );
    }
    views
}
