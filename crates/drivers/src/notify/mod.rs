//! Notifications: telling people and programs outside what happened, by webhook.
//!
//! [`NotificationSender::send`] delivers once and says whether another attempt makes sense; the outbox (order, repetition, dead letters) is
//! the caller's, with [`RetryPolicy`] as its timetable. A delivery may be repeated; receivers recognise it by its id.
//!
//! Addresses of webhooks are secrets: they are never printed, logged or put into an error; only the host is.
//!
//! ```no_run
//! # async fn example(notification: shipway_drivers::notify::Notification) -> Result<(), Box<dyn std::error::Error>> {
//! use shipway_drivers::notify::{Destination, Notifier};
//! let to = Destination::slack("https://hooks.slack.com/services/T0/B0/x")?;
//! if let Err(error) = Notifier::new().send(&to, &notification).await {
//!     println!("{error}; {}", if error.is_retryable() { "trying again later" } else { "giving up" });
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

/// What happened, for a reader who has seen nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The same for each attempt, different for each notification: receivers drop repeats by it.
    pub id: String,
    /// One line: "shop 1.2 was rolled back in production".
    pub title: String,
    /// A sentence or two: what was seen and what was done. Plain text.
    pub text: String,
    /// How it is to be taken.
    pub severity: NotificationSeverity,
    /// The service concerned.
    pub service: Option<ServiceName>,
    /// The environment concerned.
    pub environment: Option<EnvironmentName>,
    /// The release concerned.
    pub release: Option<ReleaseNumber>,
    /// The rollout concerned.
    pub rollout: Option<RolloutNumber>,
    /// The page that shows more.
    pub url: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// What was measured until then, drawn in one line of text; where nothing was, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plot: Option<String>,
    /// Further details, name and value, in the order to be shown.
    pub facts: Vec<(String, String)>,
}

/// How a notification is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationSeverity {
    /// For the record.
    Info,
    /// Something succeeded or recovered.
    Good,
    /// Something failed; a person should look.
    Bad,
}

/// Where a notification goes.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookDestination {
    address: Uri,
    format: WebhookFormat,
}

/// What the receiver understands.
#[derive(Clone, PartialEq, Eq)]
enum WebhookFormat {
    /// Our JSON; with a key to sign it.
    Webhook { secret: Option<String> },
    /// Slack's incoming webhooks, which Mattermost, Rocket.Chat and Discord (`/slack`) take too.
    Slack,
}

/// Why a text is no destination. Does not repeat the text, which is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook needs an address such as https://example.com/hook (http and https only)")]
pub struct InvalidWebhookAddress;

impl WebhookDestination {
    /// A receiver of the generic JSON; with a `secret`, each body is signed with HMAC-SHA256 in `X-Shipway-Signature`.
    ///
    /// # Errors
    /// When `address` isn't one of http or https.
    pub fn webhook(address: &str, secret: Option<String>) -> Result<Self, InvalidWebhookAddress> {
        Ok(Self {
            address: parse_address(address)?,
            format: WebhookFormat::Webhook { secret },
        })
    }

    /// A receiver of Slack's incoming webhooks.
    ///
    /// # Errors
    /// When `address` isn't one of http or https.
    pub fn slack(address: &str) -> Result<Self, InvalidWebhookAddress> {
        Ok(Self {
            address: parse_address(address)?,
            format: WebhookFormat::Slack,
        })
    }

    /// Host and port, which are no secret.
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
