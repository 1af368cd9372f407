//! Posts one message to a webhook over HTTP or HTTPS, one attempt per call.

use std::{io, time::Duration};

use http::Uri;
use jiff::Timestamp;
use shipway_core::outbox::AttemptFailure;
use ureq::unversioned::{resolver::DefaultResolver, transport::DefaultConnector};

use crate::{
    http_client::http_client_config,
    network_guard::{GuardedResolver, NetworkGuard, REFUSED_ADDRESS},
};

/// Timeout of a delivery, until the last byte of the answer that is read.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an error response that are kept: a word such as Slack's `invalid_payload`.
const EXCERPT_BYTES_MAX: u64 = 200;

/// Posts to webhooks. Cheap to clone; connections are reused.
#[derive(Clone, Debug)]
pub struct WebhookClient {
    agent: ureq::Agent,
}

/// A message for a webhook.
pub(super) struct WebhookRequest {
    /// What errors call the receiver: `the Slack webhook at hooks.slack.com`.
    pub(super) name: String,
    pub(super) address: Uri,
    /// `X-Shipway-Delivery`: the id of the message.
    pub(super) delivery: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// JSON.
    pub(super) body: Vec<u8>,
}

/// The URL is not a valid destination. Does not repeat the URL, which is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook needs a URL such as https://example.com/hook (http and https only)")]
pub(super) struct InvalidWebhookAddress;

/// The URL of a webhook.
pub(super) fn parse_address(address: &str) -> Result<Uri, InvalidWebhookAddress> {
    let uri: Uri = address.trim().parse().map_err(|_| InvalidWebhookAddress)?;
    let fine = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty());
    if fine {
        Ok(uri)
    } else {
        Err(InvalidWebhookAddress)
    }
}

/// Host and port of a URL, which are not secret.
pub(super) fn host(address: &Uri) -> &str {
    let authority = address.authority().map_or("", http::uri::Authority::as_str);
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// Why a notification was not delivered. Contains the host, never the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotifyError {
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
    /// Nothing may be sent to its address.
    #[error("{to} is not contacted: {REFUSED_ADDRESS}")]
    Forbidden {
        /// The destination.
        to: String,
    },
}

impl From<NotifyError> for AttemptFailure {
    fn from(error: NotifyError) -> Self {
        let (is_retryable, retry_after) = match &error {
            NotifyError::Unreachable { .. } => (true, None),
            NotifyError::Busy { retry_after, .. } => (true, *retry_after),
            NotifyError::Refused { .. } | NotifyError::Forbidden { .. } => (false, None),
        };
        Self {
            why: error.to_string(),
            is_retryable,
            retry_after,
        }
    }
}

impl WebhookClient {
    /// A client that trusts the system's certificates, and connects where `guard` allows it.
    #[must_use]
    pub fn new(guard: NetworkGuard) -> Self {
        let config = http_client_config().timeout_global(Some(DEADLINE)).build();
        let resolver = GuardedResolver {
            guard,
            names: DefaultResolver::default(),
        };
        let connector = DefaultConnector::default();
        Self {
            agent: ureq::Agent::with_parts(config, connector, resolver),
        }
    }

    /// Tries once; returns the status of the answer. A cancelled attempt may still be delivered.
    pub(super) async fn post(&self, request: WebhookRequest) -> Result<String, NotifyError> {
        let mut post = self
            .agent
            .post(&request.address)
            .header("Content-Type", "application/json")
            .header("X-Shipway-Delivery", header_safe(&request.delivery));
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        let secrets = address_secrets(&request.address);
        let attempt = tokio::task::spawn_blocking(move || match post.send(&request.body) {
            Ok(response) => check_response(request.name, response, &secrets),
            Err(error) => Err(unreachable_error(request.name, &error)),
        });
        attempt
            .await
            .expect("sending does not panic and is not aborted")
    }
}

/// The id as a header can have it.
pub(super) fn header_safe(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '-' })
        .collect()
}

/// Parts of the URL that a receiver might repeat in its response.
fn address_secrets(address: &Uri) -> Vec<String> {
    let path = address
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
) -> Result<String, NotifyError> {
    let status = response.status();
    if status.is_success() {
        return Ok(status.to_string());
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
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return NotifyError::Forbidden { to };
        }
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
