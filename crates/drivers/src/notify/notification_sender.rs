//! Delivers a notification over HTTP or HTTPS, one attempt per call.

use std::{io, time::Duration};

use jiff::Timestamp;

use super::{Notification, WebhookDestination, WebhookFormat, slack, webhook};
use crate::http_client::http_client_config;

/// Timeout of a delivery; a slow receiver must not delay the next ones in the outbox.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an error response that are kept: a word such as Slack's `invalid_payload`.
const EXCERPT_BYTES_MAX: u64 = 200;

/// Sends notifications. Cheap to clone; connections are reused.
#[derive(Clone, Debug)]
pub struct NotificationSender {
    agent: ureq::Agent,
}

/// Why a notification was not delivered. Contains the host, never the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The receiver could not be reached or did not answer. It may have received the notification.
    #[error("{to} could not be reached: {why}")]
    Unreachable {
        /// The destination.
        to: String,
        /// The cause.
        why: String,
    },
    /// The receiver is temporarily unavailable.
    #[error("{to} responded with {answer}")]
    Busy {
        /// The destination.
        to: String,
        /// Status, and the first words of the response.
        answer: String,
        /// The requested pause.
        retry_after: Option<Duration>,
    },
    /// The receiver rejects it permanently: wrong URL or format, or a redirect.
    #[error("{to} refused it: {answer}")]
    Refused {
        /// The destination.
        to: String,
        /// Status, and the first words of its answer.
        answer: String,
    },
}

impl NotifyError {
    /// Whether a retry may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } => true,
            Self::Refused { .. } => false,
        }
    }

    /// The requested pause, for [`super::RetryPolicy::wait`].
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Refused { .. } => None,
        }
    }
}

impl Default for NotificationSender {
    fn default() -> Self {
        Self::new()
    }
}

impl NotificationSender {
    /// A sender that trusts the system's certificates.
    #[must_use]
    pub fn new() -> Self {
        let agent = http_client_config()
            .timeout_global(Some(DEADLINE))
            .build()
            .new_agent();
        Self { agent }
    }

    /// Tries once. A cancelled attempt may still be delivered.
    ///
    /// # Errors
    /// When the receiver can't be reached or doesn't answer with success.
    pub async fn send(
        &self,
        to: &WebhookDestination,
        notification: &Notification,
    ) -> Result<(), NotifyError> {
        let (body, signature) = match &to.format {
            WebhookFormat::Webhook { secret } => {
                let body = webhook::webhook_body(notification);
                let signature = secret
                    .as_ref()
                    .map(|secret| webhook::sign_body(secret, &body));
                (body, signature)
            }
            WebhookFormat::Slack => (slack::slack_message(notification), None),
        };
        let mut request = self
            .agent
            .post(&to.address)
            .header("Content-Type", "application/json");
        request = request.header("X-Shipway-Delivery", header_safe(&notification.id));
        if let Some(signature) = signature {
            request = request.header(webhook::SIGNATURE, signature);
        }
        let name = to.to_string();
        let secrets = address_secrets(to);
        let attempt = tokio::task::spawn_blocking(move || match request.send(&body) {
            Ok(response) => check_response(name, response, &secrets),
            Err(error) => Err(unreachable_error(name, &error)),
        });
        attempt
            .await
            .expect("sending does not panic and is not aborted")
    }
}

fn header_safe(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '-' })
        .collect()
}

/// Parts of the URL that a receiver might repeat in its response.
fn address_secrets(to: &WebhookDestination) -> Vec<String> {
    let path = to
        .address
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    let parts = path.split(['/', '?', '&', '=']);
    parts
        .filter(|part| part.len() >= 4)
        .map(str::to_owned)
        .collect()
}

fn check_response(
    to: String,
    response: ureq::http::Response<ureq::Body>,
    secrets: &[String],
) -> Result<(), NotifyError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| parse_retry_after(value.to_str().ok()?));
    let words = excerpt(response.into_body(), secrets);
    let answer = format!("{status} {words}").trim_end().to_owned();
    // 425 Too Early, 429 Too Many Requests.
    if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        Err(NotifyError::Busy {
            to,
            answer,
            retry_after,
        })
    } else {
        Err(NotifyError::Refused { to, answer })
    }
}

/// `Retry-After`: seconds, or a date.
fn parse_retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    until.duration_since(Timestamp::now()).try_into().ok()
}

/// The first words of a response on one line; empty if they repeat a part of the URL.
fn excerpt(body: ureq::Body, secrets: &[String]) -> String {
    let mut bytes = Vec::new();
    // An incomplete response is good enough.
    let _ = io::Read::read_to_end(
        &mut io::Read::take(body.into_reader(), EXCERPT_BYTES_MAX),
        &mut bytes,
    );
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    if secrets.iter().any(|secret| line.contains(secret)) {
        String::new()
    } else {
        line
    }
}

/// Only texts of our own and of the operating system: ureq's messages may contain the URL.
fn unreachable_error(to: String, error: &ureq::Error) -> NotifyError {
    let why = match error {
        ureq::Error::Timeout(_) => format!("no response within {} s", DEADLINE.as_secs()),
        ureq::Error::HostNotFound => "unknown host".to_owned(),
        ureq::Error::ConnectionFailed => "it refused the connection".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Tls(why) => format!("TLS failed: {why}"),
        ureq::Error::Rustls(error) => format!("TLS failed: {error}"),
        ureq::Error::Protocol(_) => "its response is not HTTP".to_owned(),
        _ => "the connection failed".to_owned(),
    };
    NotifyError::Unreachable { to, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(parse_retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("soon"), None);
        assert_eq!(
            parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            None,
            "long past"
        );
        let later = (Timestamp::now() + Duration::from_secs(100)).to_zoned(jiff::tz::TimeZone::UTC);
        let date = jiff::fmt::rfc2822::to_string(&later).unwrap();
        assert!(
            parse_retry_after(&date).unwrap() > Duration::from_secs(50),
            "{date}"
        );
    }
}
