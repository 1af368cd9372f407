//! What delivers the messages of the outbox (`shipway_core::outbox`).
//!
//! A kind of destination implements [`OutboxDestination`] in a file of its own, and is registered by one line where the server builds its
//! [`DestinationRegistry`]. It sends one message once; order, retries and dead letters belong to the outbox.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use shipway_core::outbox::{AttemptFailure, OutboxMessage};

use crate::secret_expansion::{SecretNotSet, expand_secrets};

/// A kind of destination.
#[async_trait]
pub trait OutboxDestination: Send + Sync {
    /// The word of addresses of this kind: `slack`.
    fn kind(&self) -> &'static str;

    /// Sends a message once. `settings` are those of the address, with the secrets filled in. Returns what the receiver answered.
    ///
    /// A cancelled attempt may still be delivered, and so may a failed one.
    ///
    /// # Errors
    /// When the receiver doesn't accept it; the reason contains no secret.
    async fn deliver(
        &self,
        settings: &Value,
        message: &OutboxMessage,
    ) -> Result<String, AttemptFailure>;
}

/// The kinds of destinations of a server.
#[derive(Clone, Default)]
pub struct DestinationRegistry(Vec<Arc<dyn OutboxDestination>>);

impl DestinationRegistry {
    /// With these kinds.
    #[must_use]
    pub fn new(destinations: Vec<Arc<dyn OutboxDestination>>) -> Self {
        Self(destinations)
    }

    /// The destination that delivers to addresses of a kind.
    #[must_use]
    pub fn find(&self, kind: &str) -> Option<&dyn OutboxDestination> {
        let mut destinations = self.0.iter();
        let found = destinations.find(|it| it.kind() == kind)?;
        Some(&**found)
    }
}

/// The settings of an address with the secrets that their strings name.
///
/// # Errors
/// When a secret is unknown.
pub fn expand_settings(
    settings: &Value,
    secrets: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, SecretNotSet> {
    Ok(match settings {
        Value::String(text) => Value::String(expand_secrets(text, secrets)?),
        Value::Array(items) => {
            let items = items.iter().map(|it| expand_settings(it, secrets));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, it)| Ok((name.clone(), expand_settings(it, secrets)?)));
            Value::Object(fields.collect::<Result<_, SecretNotSet>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => settings.clone(),
    })
}

/// A failure that no later attempt repairs.
#[must_use]
pub fn permanent_failure(why: impl ToString) -> AttemptFailure {
    AttemptFailure {
        why: why.to_string(),
        is_retryable: false,
        retry_after: None,
    }
}

/// A failure after which another attempt may succeed.
#[must_use]
pub fn temporary_failure(why: impl ToString) -> AttemptFailure {
    AttemptFailure {
        why: why.to_string(),
        is_retryable: true,
        retry_after: None,
    }
}
