//! Sends a request to a provider and parses the response as JSON.

use std::{collections::BTreeMap, io::Read as _, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::Semaphore;
use ureq::http::{Request, StatusCode};

use super::MetricUnavailable;
use crate::http_client::http_client_config;

/// Upper bound for a response.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// Characters of an error response that are quoted.
const QUOTED_CHARS: usize = 200;
/// Concurrent requests of all rollouts; each blocks a thread.
const AT_ONCE: usize = 32;

/// HTTP client for metric providers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct MetricHttpClient {
    agent: ureq::Agent,
    room: Arc<Semaphore>,
}

/// A request to a provider.
pub(super) struct MetricRequest<'a> {
    /// The provider's name in messages.
    pub(super) who: &'static str,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) parameters: &'a [(&'a str, String)],
    pub(super) headers: &'a BTreeMap<String, String>,
    pub(super) body: Option<&'a str>,
}

impl MetricHttpClient {
    pub(super) fn new() -> Self {
        Self {
            agent: http_client_config().build().new_agent(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Returns the status, which is below 500, and the JSON body.
    pub(super) async fn fetch_json(
        &self,
        asked: &MetricRequest<'_>,
        timeout: Duration,
    ) -> Result<(u16, Value), MetricUnavailable> {
        let who = asked.who;
        let request = asked.to_http_request()?;
        let _room = self.room.acquire().await;
        let agent = self.agent.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let request = agent
                .configure_request(request)
                .timeout_global(Some(timeout))
                .build();
            let answer = agent.run(request)?;
            let status = answer.status();
            let mut body = Vec::new();
            answer
                .into_body()
                .into_reader()
                .take(BODY_BYTES_MAX + 1)
                .read_to_end(&mut body)?;
            Ok::<_, ureq::Error>((status, body))
        });
        let (status, body) = asking
            .await
            .map_err(|_| MetricUnavailable::for_now(format!("{who} could not be queried")))?
            .map_err(|error| MetricUnavailable::for_now(describe_error(who, &error, timeout)))?;
        parse_answer(who, status, &body)
    }
}

impl MetricRequest<'_> {
    fn to_http_request(&self) -> Result<Request<String>, MetricUnavailable> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(with_parameters(self.url, self.parameters));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if self.body.is_some()
            && !self
                .headers
                .keys()
                .any(|name| name.eq_ignore_ascii_case("content-type"))
        {
            request = request.header("content-type", "application/json");
        }
        // The URL may contain a secret, so it isn't quoted.
        request
            .body(self.body.unwrap_or_default().to_owned())
            .map_err(|_| {
                MetricUnavailable::for_good(format!(
                    "the address, method or headers for {} are not valid",
                    self.who
                ))
            })
    }
}

/// Returns the status and the JSON body of a response that is usable.
fn parse_answer(
    who: &str,
    status: StatusCode,
    body: &[u8],
) -> Result<(u16, Value), MetricUnavailable> {
    let quoted = || quote_body(body);
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(MetricUnavailable::for_now(format!(
            "{who} responded with {status}{}",
            quoted()
        )));
    }
    if body.len() as u64 > BODY_BYTES_MAX {
        return Err(MetricUnavailable::for_good(format!(
            "{who} sent more than {} KiB",
            BODY_BYTES_MAX >> 10
        )));
    }
    match serde_json::from_slice(body) {
        Ok(json) => Ok((status.as_u16(), json)),
        Err(_) if status.is_success() => Err(MetricUnavailable::for_good(format!(
            "{who} did not return JSON{}",
            quoted()
        ))),
        Err(_) => Err(MetricUnavailable::for_good(format!(
            "{who} responded with {status}{}",
            quoted()
        ))),
    }
}

/// Appends query parameters to `url`.
fn with_parameters(url: &str, parameters: &[(&str, String)]) -> String {
    let mut url = url.to_owned();
    for (index, (name, value)) in parameters.iter().enumerate() {
        url.push(if index == 0 && !url.contains('?') {
            '?'
        } else {
            '&'
        });
        url.push_str(name);
        url.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    url
}

fn describe_error(who: &str, error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => {
            format!("{who} did not respond within {} ms", timeout.as_millis())
        }
        ureq::Error::Io(error) => format!("{who} could not be reached: {error}"),
        ureq::Error::HostNotFound => format!("{who} could not be reached: unknown host"),
        ureq::Error::ConnectionFailed => format!("{who} could not be reached: no connection"),
        _ => format!("{who} could not be queried, or did not respond with HTTP"),
    }
}

/// `: ` and the first words of the body, or nothing.
fn quote_body(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(QUOTED_CHARS)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}
