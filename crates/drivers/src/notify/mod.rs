//! Notifications by webhook.
//!
//! [`NotificationSender::send`] delivers once and tells whether a retry makes sense; the outbox (order, retries, dead letters)
//! belongs to the caller, with [`RetryPolicy`] as its schedule. Deliveries may be repeated; receivers deduplicate by id.
//!
//! # Invariants
//!
//! URLs of webhooks are secrets: only the host is printed, logged or put into an error.
//!
//! ```no_run
//! # async fn example(notification: shipway_drivers::notify::Notification) -> Result<(), Box<dyn std::error::Error>> {
//! use shipway_drivers::notify::{NotificationSender, WebhookDestination};
//! let to = WebhookDestination::slack("https://hooks.slack.com/services/T0/B0/x")?;
//! if let Err(error) = NotificationSender::new().send(&to, &notification).await {
//! println!("{error}; {}", if error.is_retryable() { "trying again later" } else { "giving up" });
//! }
//! # Ok(()) }
//! ```

mod notification_sender;
mod retry;
mod slack;
mod webhook;

pub use notification_sender::{NotificationSender, NotifyError};
pub use retry::RetryPolicy;

use std::fmt;

use http::Uri;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::ids::{EnvironmentName, ReleaseNumber, RolloutNumber, ServiceName};

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

/// The receiver of notifications.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookDestination {
    address: Uri,
    format: WebhookFormat,
}

/// The format that the receiver understands.
#[derive(Clone, PartialEq, Eq)]
enum WebhookFormat {
    /// Shipway's JSON, with a key to sign it.
    Webhook { secret: Option<String> },
    /// Slack's incoming webhooks, also accepted by Mattermost, Rocket.Chat and Discord (`/slack`).
    Slack,
}

/// The URL is not a valid destination. Does not repeat the URL, which is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook needs a URL such as https://example.com/hook (http and https only)")]
pub struct InvalidWebhookAddress;

impl WebhookDestination {
    /// A receiver of Shipway's JSON; with a `secret`, each body is signed with HMAC-SHA256 in `X-Shipway-Signature`.
    ///
    /// # Errors
    /// When `address` isn't an http or https URL.
    pub fn webhook(address: &str, secret: Option<String>) -> Result<Self, InvalidWebhookAddress> {
        Ok(Self {
            address: parse_address(address)?,
            format: WebhookFormat::Webhook { secret },
        })
    }

    /// A receiver of Slack's incoming webhooks.
    ///
    /// # Errors
    /// When `address` isn't an http or https URL.
    pub fn slack(address: &str) -> Result<Self, InvalidWebhookAddress> {
        Ok(Self {
            address: parse_address(address)?,
            format: WebhookFormat::Slack,
        })
    }

    /// Host and port, which are not secret.
    #[must_use]
    pub fn host(&self) -> &str {
        let authority = self
            .address
            .authority()
            .map_or("", http::uri::Authority::as_str);
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    }
}

fn parse_address(address: &str) -> Result<Uri, InvalidWebhookAddress> {
    let uri: Uri = address.trim().parse().map_err(|_| InvalidWebhookAddress)?;
    let fine = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty());
    if fine {
        Ok(uri)
    } else {
        Err(InvalidWebhookAddress)
    }
}

impl fmt::Display for WebhookDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            WebhookFormat::Webhook { .. } => write!(f, "the webhook at {}", self.host()),
            WebhookFormat::Slack => write!(f, "the Slack webhook at {}", self.host()),
        }
    }
}

impl fmt::Debug for WebhookDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({self})")
    }
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

    #[test]
    fn what_is_no_web_address_is_refused_without_being_repeated() {
        for bad in [
            "",
            "hooks.example.com/secret",
            "ftp://example.com/secret",
            "https://",
            "file:///secret",
        ] {
            let error = WebhookDestination::slack(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{bad:?}");
        }
    }

    #[test]
    fn a_destination_shows_its_host_and_nothing_else() {
        let to = WebhookDestination::webhook(
            "https://me:pass@example.com:8443/secret?token=t",
            Some("key".to_owned()),
        )
        .unwrap();
        assert_eq!(
            format!("{to} {to:?}"),
            "the webhook at example.com:8443 Destination(the webhook at example.com:8443)"
        );
    }
}
