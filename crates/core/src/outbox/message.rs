//! Messages, and where they go.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, EnvironmentName, ServiceName};

/// Characters of a channel's id at most.
const ID_CHARS_MAX: usize = 160;
/// Hexadecimal digits that tell the channels of an environment apart.
const DIGEST_CHARS: usize = 16;

/// Names a channel: one receiver with its queue. `shop.production.0123456789abcdef`, or the name of a destination of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(String);

/// A text is not the id of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a destination's id has 1 to {ID_CHARS_MAX} letters, digits, dots, hyphens and underscores: see `shipway notify list`"
)]
pub struct ParseChannelIdError;

impl ChannelId {
    /// The channel of an address that a configuration contains. The same address has the same channel.
    #[must_use]
    pub fn for_address(address: &OutboxAddress) -> Self {
        match address {
            OutboxAddress::Configured {
                kind,
                settings,
                service,
                environment,
                ..
            } => {
                let digest = Digest::compute(format!("{kind} {settings}").as_bytes());
                let environment = environment.as_ref().map_or("", |it| it.as_str());
                let digest = &digest.hex()[..DIGEST_CHARS];
                Self(format!("{service}.{environment}.{digest}"))
            }
            OutboxAddress::Named { name } => Self(name.clone()),
        }
    }

    /// The stream of its queue.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("outbox/{}", self.0)
    }

    /// The channel of a stream.
    #[must_use]
    pub fn from_stream(stream: &str) -> Option<Self> {
        stream.strip_prefix("outbox/")?.parse().ok()
    }

    /// The service of a configured address, and its environment; none for a destination of the settings.
    #[must_use]
    pub fn owner(&self) -> Option<(ServiceName, Option<EnvironmentName>)> {
        let mut parts = self.0.split('.');
        let (service, environment) = (parts.next()?, parts.next()?);
        Some((service.parse().ok()?, environment.parse().ok()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChannelId {
    type Err = ParseChannelIdError;

    fn from_str(text: &str) -> Result<Self, ParseChannelIdError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let fine = !text.is_empty() && text.len() <= ID_CHARS_MAX && text.chars().all(is_allowed);
        if fine {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseChannelIdError)
        }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the messages of a channel go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxAddress {
    /// From the configuration of a service.
    Configured {
        /// The kind of destination that delivers: `slack`.
        kind: String,
        /// Its text for readers; without secrets.
        label: String,
        /// What the destination needs; its strings may name secrets of the service as `$NAME`.
        settings: serde_json::Value,
        service: ServiceName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentName>,
    },
    /// A destination of the server's settings, which may change while messages wait.
    Named { name: String },
}

/// A message for one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxMessage {
    /// The same at each attempt; a channel accepts it once.
    pub id: String,
    /// One line for lists of messages.
    pub title: String,
    /// What the destination sends. Contains no secret.
    pub payload: serde_json::Value,
}
