//! Changes of secrets, variables and forge connections.

use super::{AuditArea, DescribedChange};
use crate::{
    forge::ForgeEvent,
    ids::EnvironmentName,
    secret::{SecretEvent, SecretName},
};

/// A change of secrets or variables, without any value.
pub(super) fn describe_secret(event: &SecretEvent) -> Option<DescribedChange> {
    let (environment, change) = match event {
        SecretEvent::SecretsSet {
            environment,
            secrets,
        } => {
            let set = secrets.iter();
            let set = set.map(|secret| format!("{} (version {})", secret.name, secret.version));
            let set = set.collect::<Vec<_>>().join(", ");
            (environment, format!("set secret {set}"))
        }
        SecretEvent::SecretsResealed {
            environment,
            secrets,
        } => {
            let count = secrets.len();
            let change = format!("encrypted {count} secrets with a new key");
            (environment, change)
        }
        SecretEvent::SecretRemoved { environment, name } => {
            (environment, format!("removed secret {name}"))
        }
        SecretEvent::VariablesSet {
            environment,
            variables,
        } => {
            let names: Vec<&str> = variables.keys().map(SecretName::as_str).collect();
            (environment, format!("set variable {}", names.join(", ")))
        }
        SecretEvent::VariableRemoved { environment, name } => {
            (environment, format!("removed variable {name}"))
        }
        SecretEvent::AllRemoved => (&None, "removed all secrets and variables".to_owned()),
        SecretEvent::SecretsUsed { .. } => return None,
    };
    let environment_text = |it: &EnvironmentName| format!("{change} of {it}");
    let text = environment
        .as_ref()
        .map_or_else(|| change.clone(), environment_text);
    let described = DescribedChange::new(AuditArea::Secrets, text);
    Some(match environment {
        Some(environment) => described.in_environment(environment),
        None => described,
    })
}

/// A change of a connection to a forge.
pub(super) fn describe_forge(event: &ForgeEvent) -> Option<DescribedChange> {
    let change = match event {
        ForgeEvent::Connected { connection, .. } => format!(
            "connected the repository to {} of {}",
            connection.project,
            connection.forge.title()
        ),
        ForgeEvent::Disconnected => "disconnected the repository from its forge".to_owned(),
        ForgeEvent::DeliveryAccepted { .. }
        | ForgeEvent::DeliveryHandled { .. }
        | ForgeEvent::ReportsQueued { .. }
        | ForgeEvent::ReportSent { .. }
        | ForgeEvent::ReportFailed { .. } => return None,
    };
    Some(DescribedChange::new(AuditArea::Forges, change))
}
