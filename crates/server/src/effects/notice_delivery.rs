//! Hands notices of services and rollouts to the outbox, for the destinations that their configuration names.

use serde_json::json;
use shipway_core::{
    config::NotificationTarget,
    ids::{EnvironmentName, ServiceName},
    outbox::{OutboxAddress, OutboxRejection},
};
use shipway_drivers::notify::Notification;
use shipway_engine::EngineError;

use crate::delivery_engines::DeliveryEngines;

/// Hands notices to the outbox.
#[derive(Clone)]
pub(crate) struct NoticeDelivery {
    /// Where pages are, for links.
    pub(crate) pages_url: String,
}

/// Why a notice is not in the outbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoticeError {
    /// The configuration has fewer destinations.
    #[error("`notify` has no entry {0}")]
    NoEntry(usize),
    /// The log can't be written now.
    #[error(transparent)]
    Engine(#[from] EngineError<OutboxRejection>),
}

impl NoticeError {
    /// Whether a later attempt may succeed.
    pub(super) const fn is_temporary(&self) -> bool {
        match self {
            Self::NoEntry(_) => false,
            Self::Engine(_) => true,
        }
    }
}

impl NoticeDelivery {
    /// Queues a notification for the destination `to`, the entry `index` of `notify`. It is durable when this returns.
    pub(super) async fn enqueue(
        &self,
        engines: &DeliveryEngines,
        to: Option<&NotificationTarget>,
        index: usize,
        notification: &Notification,
    ) -> Result<(), NoticeError> {
        let service = notification.service.as_ref();
        let (to, service) = to.zip(service).ok_or(NoticeError::NoEntry(index + 1))?;
        let address = configured_address(to, service, notification.environment.as_ref());
        Ok(engines.enqueue(address, notification.to_message()).await?)
    }
}

/// The address of an entry of `notify`.
fn configured_address(
    to: &NotificationTarget,
    service: &ServiceName,
    environment: Option<&EnvironmentName>,
) -> OutboxAddress {
    let (kind, url) = match to {
        NotificationTarget::Slack(url) => ("slack", url),
        NotificationTarget::Webhook(url) => ("webhook", url),
    };
    OutboxAddress::Configured {
        kind: kind.to_owned(),
        label: to.label(),
        settings: json!({ "url": url }),
        service: service.clone(),
        environment: environment.cloned(),
    }
}
