//! Notifications, and the kinds of destinations that deliver them: one file for each, and one line in [`destinations`].
//!
//! # Invariants
//!
//! - URLs and keys of destinations are secrets: only the host is printed, logged or put into an error.
//! - Titles and texts contain foreign text (commit messages, reasons): each destination escapes them for its format.

mod slack;
mod webhook;
mod webhook_client;

use std::sync::Arc;

pub use webhook_client::WebhookClient;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use shipway_core::{
    ids::{EnvironmentName, ReleaseNumber, RolloutNumber, ServiceName},
    outbox::{AttemptFailure, OutboxMessage},
};

use crate::{
    network_guard::NetworkGuard,
    outbox::{OutboxDestination, permanent_failure},
};

/// Every kind of destination that delivers notifications.
#[must_use]
pub fn destinations(guard: &NetworkGuard) -> Vec<Arc<dyn OutboxDestination>> {
    let client = WebhookClient::new(guard.clone());
    vec![
        Arc::new(slack::SlackDestination(client.clone())),
        Arc::new(webhook::WebhookDestination(client)),
    ]
}

/// A notification, for a reader without other context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Unique per notification, the same for each attempt: receivers deduplicate by it.
    pub id: String,
    /// One line: "shop 1.2 was rolled back in production".
    pub title: String,
    /// The observation and the reaction, in plain text.
    pub text: String,
    /// How important it is.
    pub severity: NotificationSeverity,
    /// The service concerned.
    pub service: Option<ServiceName>,
    /// The environment concerned.
    pub environment: Option<EnvironmentName>,
    /// The release concerned.
    pub release: Option<ReleaseNumber>,
    /// The rollout concerned.
    pub rollout: Option<RolloutNumber>,
    /// The page with details.
    pub url: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// The measurements as a one-line plot, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plot: Option<String>,
    /// Further details, name and value, in display order.
    pub facts: Vec<(String, String)>,
}

/// Importance of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationSeverity {
    /// For information.
    Info,
    /// Something succeeded or recovered.
    Good,
    /// Something failed; a person should look.
    Bad,
}

impl Notification {
    /// The message that carries it through the outbox.
    #[must_use]
    pub fn to_message(&self) -> OutboxMessage {
        OutboxMessage {
            id: self.id.clone(),
            title: self.title.clone(),
            payload: serde_json::to_value(self).expect("strings and numbers always serialise"),
        }
    }
}

/// The notification in a message.
fn read_notification(message: &OutboxMessage) -> Result<Notification, AttemptFailure> {
    serde_json::from_value(message.payload.clone())
        .map_err(|error| permanent_failure(format!("the message is not a notification: {error}")))
}

/// The settings of an address. The error doesn't repeat them.
fn read_settings<S: DeserializeOwned>(settings: &Value) -> Result<S, AttemptFailure> {
    serde_json::from_value(settings.clone())
        .map_err(|_| permanent_failure("the settings of this destination can't be read"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with everything in it.
    pub(crate) fn rolled_back() -> Notification {
        Notification {
            id: "rollout/shop/7#notify-1".to_owned(),
            title: "shop #3 was rolled back in production".to_owned(),
            text: "error-rate was 5.2% <of 10%>, at most 1% is allowed & wanted.".to_owned(),
            severity: NotificationSeverity::Bad,
            service: "shop".parse().ok(),
            environment: "production".parse().ok(),
            release: Some(ReleaseNumber(3)),
            rollout: Some(RolloutNumber(7)),
            url: Some("http://127.0.0.1:7878/rollouts/shop/ro7".to_owned()),
            at: "2026-03-04T05:06:07Z".parse().unwrap(),
            plot: Some("error-rate: ▁▃▆█ 5.2% on #3, ▁▁▁▁ 0.1% on #2, limit 1%".to_owned()),
            facts: vec![
                ("back on".to_owned(), "#2".to_owned()),
                ("took".to_owned(), "84 ms".to_owned()),
            ],
        }
    }
}
