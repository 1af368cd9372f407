//! Which changes of secrets and variables are accepted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    SealedSecret, SecretAggregate, SecretEvent, SecretName, SecretState, SecretUser, UsedSecret,
    VALUES_MAX, ValueSet,
};
use crate::{
    aggregate::{Actor, Decider, Event},
    ids::EnvironmentName,
    sealed_value::SealedValue,
};

/// A use by the same user is recorded again after this time: a metric provider is queried every few seconds.
const USE_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// A change or a use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretInput {
    /// Sets all of them or none.
    SetSecrets {
        environment: Option<EnvironmentName>,
        secrets: BTreeMap<SecretName, SealedValue>,
        /// The version that the caller has seen of each; none: any. 0 is a secret that doesn't exist.
        expected_version: Option<u32>,
    },
    /// The same values under a newer key. A secret that has changed meanwhile is left out.
    ResealSecrets {
        environment: Option<EnvironmentName>,
        secrets: Vec<SealedSecret>,
    },
    RemoveSecret {
        environment: Option<EnvironmentName>,
        name: SecretName,
    },
    SetVariables {
        environment: Option<EnvironmentName>,
        variables: BTreeMap<SecretName, String>,
    },
    RemoveVariable {
        environment: Option<EnvironmentName>,
        name: SecretName,
    },
    /// Removes all values: the service is deleted, and its name may later belong to others.
    RemoveAll,
    RecordUse {
        user: SecretUser,
        secrets: Vec<UsedSecret>,
    },
    TimerFired,
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRejection {
    #[error(
        "at most {VALUES_MAX} secrets and {VALUES_MAX} variables can be set in one place: remove some first"
    )]
    TooMany,
    #[error("there is no secret {name}: see `shipway secret list`")]
    NoSecret { name: SecretName },
    #[error("there is no variable {name}: see `shipway env list`")]
    NoVariable { name: SecretName },
    #[error(
        "the secret {name} has version {current}, not {expected}: it was changed meanwhile; read it again before changing it"
    )]
    OtherVersion {
        name: SecretName,
        current: u32,
        expected: u32,
    },
}

pub(super) fn decide(
    state: &SecretState,
    input: SecretInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<SecretEvent>>, SecretRejection> {
    let mut decider = Decider::<SecretAggregate>::new(state, by, now);
    let event = match input {
        SecretInput::SetSecrets {
            environment,
            secrets,
            expected_version,
        } => {
            let values = state.values(environment.as_ref());
            Some(set_secrets(
                values,
                environment.clone(),
                secrets,
                expected_version,
            )?)
        }
        SecretInput::ResealSecrets {
            environment,
            secrets,
        } => reseal_secrets(state, environment, secrets),
        SecretInput::RemoveSecret { environment, name } => {
            let values = state.values(environment.as_ref());
            if values.and_then(|it| it.secret(&name)).is_none() {
                return Err(SecretRejection::NoSecret { name });
            }
            Some(SecretEvent::SecretRemoved { environment, name })
        }
        SecretInput::SetVariables {
            environment,
            variables,
        } => set_variables(state, environment, variables)?,
        SecretInput::RemoveVariable { environment, name } => {
            let values = state.values(environment.as_ref());
            if !values.is_some_and(|it| it.variables.contains_key(&name)) {
                return Err(SecretRejection::NoVariable { name });
            }
            Some(SecretEvent::VariableRemoved { environment, name })
        }
        SecretInput::RemoveAll => (!state.is_empty()).then_some(SecretEvent::AllRemoved),
        SecretInput::RecordUse { user, secrets } => record_use(state, user, secrets, now),
        SecretInput::TimerFired => None,
    };
    if let Some(event) = event {
        decider.emit(event);
    }
    Ok(decider.decided())
}

fn set_secrets(
    values: Option<&ValueSet>,
    environment: Option<EnvironmentName>,
    secrets: BTreeMap<SecretName, SealedValue>,
    expected: Option<u32>,
) -> Result<SecretEvent, SecretRejection> {
    let stored = |name: &SecretName| values.and_then(|it| it.secrets.get(name));
    let known = values.map_or(0, |it| it.secrets.len());
    let new = secrets.keys().filter(|name| stored(name).is_none()).count();
    if known + new > VALUES_MAX {
        return Err(SecretRejection::TooMany);
    }
    let mut sealed = Vec::new();
    for (name, value) in secrets {
        let before = stored(&name);
        let current = before.filter(|it| it.value.is_some());
        let current = current.map_or(0, |it| it.version);
        if let Some(expected) = expected
            && expected != current
        {
            return Err(SecretRejection::OtherVersion {
                name,
                current,
                expected,
            });
        }
        let version = before.map_or(1, |it| it.version + 1);
        sealed.push(SealedSecret {
            name,
            version,
            value,
        });
    }
    Ok(SecretEvent::SecretsSet {
        environment,
        secrets: sealed,
    })
}

fn reseal_secrets(
    state: &SecretState,
    environment: Option<EnvironmentName>,
    mut secrets: Vec<SealedSecret>,
) -> Option<SecretEvent> {
    let values = state.values(environment.as_ref())?;
    secrets.retain(|secret| {
        let current = values.secret(&secret.name);
        current.is_some_and(|(version, value)| version == secret.version && *value != secret.value)
    });
    (!secrets.is_empty()).then_some(SecretEvent::SecretsResealed {
        environment,
        secrets,
    })
}

/// Variables that have their value already are left out.
fn set_variables(
    state: &SecretState,
    environment: Option<EnvironmentName>,
    mut variables: BTreeMap<SecretName, String>,
) -> Result<Option<SecretEvent>, SecretRejection> {
    if let Some(values) = state.values(environment.as_ref()) {
        let has_value = |name: &SecretName, value: &String| {
            (values.variables.get(name)).is_some_and(|it| it.value == *value)
        };
        variables.retain(|name, value| !has_value(name, value));
        let is_new = |name: &&SecretName| !values.variables.contains_key(*name);
        let new = variables.keys().filter(is_new).count();
        if values.variables.len() + new > VALUES_MAX {
            return Err(SecretRejection::TooMany);
        }
    } else if variables.len() > VALUES_MAX {
        return Err(SecretRejection::TooMany);
    }
    let event = SecretEvent::VariablesSet {
        environment,
        variables: variables.clone(),
    };
    Ok((!variables.is_empty()).then_some(event))
}

/// No event while the same user has used the same versions a short time ago.
fn record_use(
    state: &SecretState,
    user: SecretUser,
    mut secrets: Vec<UsedSecret>,
    now: Timestamp,
) -> Option<SecretEvent> {
    secrets.retain(|used| {
        let values = state.values(used.environment.as_ref());
        let Some(secret) = values.and_then(|it| it.secrets.get(&used.name)) else {
            return false;
        };
        let is_recent = |at: &Timestamp| now.duration_since(*at) < USE_INTERVAL;
        let is_known = (secret.uses.iter())
            .any(|(known, at)| *known == user && is_recent(at) && secret.version == used.version);
        !is_known
    });
    (!secrets.is_empty()).then_some(SecretEvent::SecretsUsed { user, secrets })
}
