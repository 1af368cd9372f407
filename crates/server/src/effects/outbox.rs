//! Sends the messages of the outbox, each to the destination of its address.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use shipway_core::{
    outbox::{
        AttemptFailure, OutboxAddress, OutboxAggregate, OutboxEffect, OutboxInput, OutboxMessage,
    },
    secret::SecretUser,
};
use shipway_drivers::outbox::{
    DestinationRegistry, expand_settings, permanent_failure, temporary_failure,
};
use shipway_engine::{Driver, Work};

use crate::secrets::{SecretPlace, SecretStore};

/// Time of an attempt at most, whatever the destination does.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);

/// Sends messages.
#[derive(Clone)]
pub(crate) struct OutboxDriver {
    pub(crate) destinations: DestinationRegistry,
    /// Fills in the secrets of addresses.
    pub(crate) secrets: SecretStore,
}

#[async_trait]
impl Driver<OutboxAggregate> for OutboxDriver {
    async fn carry_out(&self, work: Work<OutboxAggregate>) -> OutboxInput {
        let OutboxEffect::Deliver { number, attempt } = work.effect;
        let (Some(first), Some(address)) = (work.state.first(number), &work.state.address) else {
            return OutboxInput::TimerFired;
        };
        let delivered = tokio::select! {
            delivered = self.deliver(address, &first.message) => delivered,
            () = work.cancelled.cancelled() => return OutboxInput::TimerFired,
        };
        match delivered {
            Ok(answer) => OutboxInput::Delivered { number, answer },
            Err(failure) => {
                let (error, stream) = (&failure.why, &work.stream);
                tracing::warn!(
                    error,
                    stream,
                    number,
                    attempt,
                    "a message was not delivered"
                );
                OutboxInput::Failed { number, failure }
            }
        }
    }
}

impl OutboxDriver {
    /// Sends a message once; returns what the receiver answered.
    pub(crate) async fn deliver(
        &self,
        address: &OutboxAddress,
        message: &OutboxMessage,
    ) -> Result<String, AttemptFailure> {
        let (kind, settings) = self.resolve(address)?;
        let destination = self.destinations.find(&kind);
        let destination = destination.ok_or_else(|| {
            permanent_failure(format!(
                "this server has no destination of the kind `{kind}`"
            ))
        })?;
        let attempt = destination.deliver(&settings, message);
        match tokio::time::timeout(ATTEMPT_MAX, attempt).await {
            Ok(delivered) => delivered,
            Err(_) => {
                let limit = ATTEMPT_MAX.as_secs();
                Err(temporary_failure(format!("no answer within {limit} s")))
            }
        }
    }

    /// The kind of an address, and its settings with the secrets filled in.
    fn resolve(&self, address: &OutboxAddress) -> Result<(String, Value), AttemptFailure> {
        match address {
            OutboxAddress::Configured {
                kind,
                settings,
                service,
                environment,
                ..
            } => {
                let place = SecretPlace {
                    service,
                    environment: environment.as_ref(),
                };
                let find = |name: &str| self.secrets.find(place, name, &SecretUser::Notification);
                // A secret may be set later: the message waits for it as for a receiver that is down.
                let settings = expand_settings(settings, &find).map_err(temporary_failure)?;
                Ok((kind.clone(), settings))
            }
            OutboxAddress::Named { name } => Err(permanent_failure(format!(
                "there is no destination {name} in the settings"
            ))),
        }
    }
}
