//! The secrets and variables of one stream.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SealedSecret, SecretEvent, SecretName, SecretUser, UsedSecret};
use crate::{
    aggregate::{Actor, Event},
    ids::EnvironmentName,
    sealed_value::SealedValue,
};

/// The values of one service, or those of all services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretState {
    /// Events so far: of two copies of a state the one with more is newer.
    pub events: u64,
    /// Values of all environments.
    pub shared: ValueSet,
    pub environments: BTreeMap<EnvironmentName, ValueSet>,
}

/// Secrets and variables of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueSet {
    pub secrets: BTreeMap<SecretName, StoredSecret>,
    pub variables: BTreeMap<SecretName, StoredVariable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret {
    /// From 1.
    pub version: u32,
    /// None after it was removed.
    pub value: Option<SealedValue>,
    pub changed: SecretChange,
    /// The last use of each kind of user; none of this version yet when it is empty.
    pub uses: Vec<(SecretUser, Timestamp)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVariable {
    pub value: String,
    pub changed: SecretChange,
}

/// When a value was changed, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretChange {
    pub at: Timestamp,
    pub by: String,
}

impl SecretState {
    /// The values of an environment; none: those of all environments.
    #[must_use]
    pub fn values(&self, environment: Option<&EnvironmentName>) -> Option<&ValueSet> {
        match environment {
            None => Some(&self.shared),
            Some(name) => self.environments.get(name),
        }
    }

    /// All sets of values with their environments, the shared ones first.
    pub fn all_values(&self) -> impl Iterator<Item = (Option<&EnvironmentName>, &ValueSet)> {
        let environments = (self.environments.iter()).map(|(name, set)| (Some(name), set));
        [(None, &self.shared)].into_iter().chain(environments)
    }

    /// Whether no secret and no variable is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all_values().all(|(_, values)| values.is_empty())
    }

    fn values_mut(&mut self, environment: Option<&EnvironmentName>) -> &mut ValueSet {
        match environment {
            None => &mut self.shared,
            Some(name) => self.environments.entry(name.clone()).or_default(),
        }
    }

    pub(super) fn apply(&mut self, event: &Event<SecretEvent>) {
        self.events += 1;
        let changed = SecretChange {
            at: event.at,
            by: change_author(&event.by),
        };
        match &event.body {
            SecretEvent::SecretsSet {
                environment,
                secrets,
            } => {
                let values = self.values_mut(environment.as_ref());
                for secret in secrets {
                    values.set_secret(secret, changed.clone());
                }
            }
            SecretEvent::SecretsResealed {
                environment,
                secrets,
            } => {
                let values = self.values_mut(environment.as_ref());
                for secret in secrets {
                    values.reseal(secret);
                }
            }
            SecretEvent::SecretRemoved { environment, name } => {
                let values = self.values_mut(environment.as_ref());
                values.remove_secret(name, changed);
            }
            SecretEvent::VariablesSet {
                environment,
                variables,
            } => {
                let values = self.values_mut(environment.as_ref());
                for (name, value) in variables {
                    let variable = StoredVariable {
                        value: value.clone(),
                        changed: changed.clone(),
                    };
                    values.variables.insert(name.clone(), variable);
                }
            }
            SecretEvent::VariableRemoved { environment, name } => {
                (self.values_mut(environment.as_ref()).variables).remove(name);
            }
            SecretEvent::AllRemoved => {
                self.shared.remove_all(&changed);
                let environments = self.environments.values_mut();
                environments.for_each(|values| values.remove_all(&changed));
            }
            SecretEvent::SecretsUsed { user, secrets } => {
                for used in secrets {
                    self.record_use(used, user, event.at);
                }
            }
        }
    }

    fn record_use(&mut self, used: &UsedSecret, user: &SecretUser, at: Timestamp) {
        let values = self.values_mut(used.environment.as_ref());
        if let Some(secret) = values.secrets.get_mut(&used.name) {
            let is_same_kind =
                |known: &SecretUser| std::mem::discriminant(known) == std::mem::discriminant(user);
            secret.uses.retain(|(known, _)| !is_same_kind(known));
            secret.uses.push((user.clone(), at));
        }
    }
}

impl ValueSet {
    /// A secret that is set.
    #[must_use]
    pub fn secret(&self, name: &SecretName) -> Option<(u32, &SealedValue)> {
        let secret = self.secrets.get(name)?;
        Some((secret.version, secret.value.as_ref()?))
    }

    fn set_secret(&mut self, secret: &SealedSecret, changed: SecretChange) {
        let stored = StoredSecret {
            version: secret.version,
            value: Some(secret.value.clone()),
            changed,
            uses: Vec::new(),
        };
        self.secrets.insert(secret.name.clone(), stored);
    }

    fn remove_secret(&mut self, name: &SecretName, changed: SecretChange) {
        if let Some(secret) = self.secrets.get_mut(name) {
            secret.value = None;
            secret.changed = changed;
        }
    }

    fn remove_all(&mut self, changed: &SecretChange) {
        self.variables.clear();
        for secret in self.secrets.values_mut() {
            if secret.value.take().is_some() {
                secret.changed = changed.clone();
            }
        }
    }

    fn is_empty(&self) -> bool {
        let is_set = |secret: &StoredSecret| secret.value.is_some();
        self.variables.is_empty() && !self.secrets.values().any(is_set)
    }

    fn reseal(&mut self, secret: &SealedSecret) {
        if let Some(stored) = self.secrets.get_mut(&secret.name)
            && stored.version == secret.version
        {
            stored.value = Some(secret.value.clone());
        }
    }
}

fn change_author(by: &Actor) -> String {
    by.to_string()
}
