//! Who changed what: the changes that people made to users, secrets, forges, deliveries and gates, read from the log.
//!
//! An entry is made for each event that a person caused and that changes rights, values or deliveries. Pushes and logins are
//! not: the log has them, and lists of runs and of tokens show them.

mod access_changes;
mod delivery_changes;
#[cfg(test)]
mod tests;
mod value_changes;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    aggregate::{Actor, Aggregate, Event, ViewRow},
    forge::ForgeAggregate,
    ids::{AccessTokenId, EnvironmentName, ServiceName},
    principal_id::PrincipalId,
    projection::LogProjection,
    rollout::RolloutAggregate,
    run::RunAggregate,
    secret::SecretAggregate,
    service::ServiceAggregate,
    user_directory::UserDirectory,
};

/// Characters of a description at most: reasons are texts of users.
const CHANGE_CHARS_MAX: usize = 500;

/// A change that a person made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number in the order of the log, from 1.
    pub number: u64,
    pub at: Timestamp,
    /// The name of the person at that moment.
    pub by: String,
    pub principal: PrincipalId,
    /// The access token that the person's program presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<AccessTokenId>,
    pub area: AuditArea,
    /// The stream of the event: `rollout/shop/7`.
    pub stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// What they did, for readers: `added user bob (deployer:shop)`.
    pub change: String,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditArea {
    /// Users, groups, roles and tokens.
    Access,
    /// Secrets and variables.
    Secrets,
    /// Connections to forges.
    Forges,
    /// Deploys, rollbacks, holds, releases, runs and deletions.
    Delivery,
    /// Decisions at gates.
    Gates,
}

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DescribedChange {
    area: AuditArea,
    environment: Option<EnvironmentName>,
    change: String,
}

impl DescribedChange {
    fn new(area: AuditArea, change: impl Into<String>) -> Self {
        Self {
            area,
            environment: None,
            change: change.into(),
        }
    }

    fn in_environment(self, environment: &EnvironmentName) -> Self {
        Self {
            environment: Some(environment.clone()),
            ..self
        }
    }
}

/// The projection behind [`AuditEntry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLog {
    /// Entries so far.
    entries: u64,
}

/// An event without what it says.
#[derive(Deserialize)]
struct EventHead {
    at: Timestamp,
    by: Actor,
}

impl LogProjection for AuditLog {
    const NAME: &'static str = "audit";
    const VERSION: u32 = 1;

    fn fold(&mut self, stream: &str, event: &str) -> Result<Vec<ViewRow>, serde_json::Error> {
        let (kind, rest) = stream.split_once('/').unwrap_or((stream, ""));
        let describe: fn(&str) -> Result<Option<DescribedChange>, serde_json::Error> = match kind {
            UserDirectory::KIND => {
                |it| describe_event::<UserDirectory>(it, access_changes::describe)
            }
            SecretAggregate::KIND => {
                |it| describe_event::<SecretAggregate>(it, value_changes::describe_secret)
            }
            ForgeAggregate::KIND => {
                |it| describe_event::<ForgeAggregate>(it, value_changes::describe_forge)
            }
            ServiceAggregate::KIND => {
                |it| describe_event::<ServiceAggregate>(it, delivery_changes::describe_service)
            }
            RolloutAggregate::KIND => {
                |it| describe_event::<RolloutAggregate>(it, delivery_changes::describe_rollout)
            }
            RunAggregate::KIND => {
                |it| describe_event::<RunAggregate>(it, delivery_changes::describe_run)
            }
            _ => return Ok(Vec::new()),
        };
        let head: EventHead = serde_json::from_str(event)?;
        let Actor::Person {
            principal,
            name,
            token,
        } = head.by
        else {
            return Ok(Vec::new());
        };
        let Some(described) = describe(event)? else {
            return Ok(Vec::new());
        };
        self.entries += 1;
        let entry = AuditEntry {
            number: self.entries,
            at: head.at,
            by: name,
            principal,
            token,
            area: described.area,
            stream: stream.to_owned(),
            // The stream of users has the name of no service.
            service: match described.area {
                AuditArea::Access => None,
                _ => rest.split('/').next().and_then(|name| name.parse().ok()),
            },
            environment: described.environment,
            change: described.change.chars().take(CHANGE_CHARS_MAX).collect(),
        };
        Ok(vec![entry.to_row()])
    }
}

impl AuditEntry {
    fn to_row(&self) -> ViewRow {
        ViewRow {
            kind: AuditLog::NAME.to_owned(),
            // Rows of one save are ordered by their keys.
            key: format!("{:016}", self.number),
            service: self
                .service
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            live: false,
            doc: serde_json::to_value(self).expect("an entry is plain data"),
        }
    }
}

fn describe_event<A: Aggregate>(
    event: &str,
    describe: fn(&A::Body) -> Option<DescribedChange>,
) -> Result<Option<DescribedChange>, serde_json::Error>
where
    A::Body: DeserializeOwned,
{
    let event: Event<A::Body> = serde_json::from_str(event)?;
    Ok(describe(&event.body))
}

/// A change with the reason that the person gave.
fn with_reason(change: String, reason: Option<&str>) -> String {
    match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("{change}: {reason}"),
        None => change,
    }
}
