//! Requests to the API of a forge, one attempt per call.

use std::{io::Read as _, time::Duration};

use serde_json::Value;
use shipway_core::forge::{ForgeConnection, ForgeKind};
use ureq::http::{Method, Request, Response};

use crate::http_client::http_client_config;

/// Timeout of a request.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of a response at most: a page of comments.
const RESPONSE_BYTES_MAX: u64 = 8 << 20;
/// Characters of an error message that are kept.
const EXCERPT_CHARS_MAX: usize = 200;

/// Sends requests to forges. Cheap to clone; connections are reused.
#[derive(Clone, Debug)]
pub struct ForgeClient {
    agent: ureq::Agent,
}

/// Why a report was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeApiError {
    /// The forge doesn't answer.
    #[error("{host} could not be reached: {why}")]
    Unreachable {
        /// The host of the API.
        host: String,
        /// The cause.
        why: String,
    },
    /// The forge is overloaded or down, or refuses the token: both may pass.
    #[error("{host} responded with {answer}")]
    Busy {
        /// The host of the API.
        host: String,
        /// The status and the forge's message.
        answer: String,
        /// The requested pause.
        retry_after: Option<Duration>,
    },
    /// The forge refuses it: a retry would be refused, too.
    #[error("{host} refused it: {answer}")]
    Refused {
        /// The host of the API.
        host: String,
        /// The status and the forge's message.
        answer: String,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
}

impl ForgeApiError {
    /// Whether a retry may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Stopped => true,
            Self::Refused { .. } => false,
        }
    }

    /// The requested pause.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Stopped => None,
        }
    }
}

impl Default for ForgeClient {
    fn default() -> Self {
        let config = http_client_config().timeout_global(Some(DEADLINE)).build();
        Self {
            agent: config.new_agent(),
        }
    }
}

/// The API of one repository.
pub(super) struct ForgeApi {
    client: ForgeClient,
    pub(super) forge: ForgeKind,
    pub(super) project: String,
    url: String,
    token: String,
}

impl ForgeApi {
    pub(super) fn new(client: ForgeClient, connection: &ForgeConnection, token: &str) -> Self {
        Self {
            client,
            forge: connection.forge,
            project: connection.project.clone(),
            url: connection.api_url(),
            token: token.to_owned(),
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, ForgeApiError> {
        self.request(Method::GET, path, &Value::Null)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, ForgeApiError> {
        self.request(Method::POST, path, body)
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, ForgeApiError> {
        let (name, value) = match self.forge {
            ForgeKind::Github => ("Authorization", format!("Bearer {}", self.token)),
            ForgeKind::Gitea => ("Authorization", format!("token {}", self.token)),
            ForgeKind::Gitlab => ("PRIVATE-TOKEN", self.token.clone()),
        };
        let accepted = match self.forge {
            ForgeKind::Github => "application/vnd.github+json",
            ForgeKind::Gitea | ForgeKind::Gitlab => "application/json",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(name, value)
            .header("Accept", accepted)
            .header("Content-Type", "application/json");
        if self.forge == ForgeKind::Github {
            request = request.header("X-GitHub-Api-Version", "2022-11-28");
        }
        let bytes = match body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(body).expect("a JSON value always serialises"),
        };
        let request = request.body(bytes).map_err(|_| ForgeApiError::Refused {
            host: self.host(),
            answer: "the address or the token has characters that a request can't have".to_owned(),
        })?;
        match self.client.agent.run(request) {
            Ok(response) => self.read_response(response),
            Err(error) => Err(ForgeApiError::Unreachable {
                host: self.host(),
                why: describe(&error),
            }),
        }
    }

    fn host(&self) -> String {
        let rest = self
            .url
            .split_once("://")
            .map_or(self.url.as_str(), |it| it.1);
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    fn read_response(&self, response: Response<ureq::Body>) -> Result<Value, ForgeApiError> {
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            value.trim().parse::<u64>().ok()
        };
        let retry_after = header("retry-after").map(Duration::from_secs);
        let mut bytes = Vec::new();
        let reader = response.into_body().into_reader();
        let read = reader.take(RESPONSE_BYTES_MAX).read_to_end(&mut bytes);
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            read.map_err(|error| ForgeApiError::Unreachable {
                host: self.host(),
                why: error.to_string(),
            })?;
            return Ok(body);
        }
        let host = self.host();
        let answer = self.excerpt(status.as_u16(), &body);
        // A token that is refused may be replaced, and GitHub limits rates by 403.
        let may_pass = matches!(status.as_u16(), 401 | 403 | 408 | 409 | 425 | 429);
        if status.is_server_error() || may_pass {
            return Err(ForgeApiError::Busy {
                host,
                answer,
                retry_after,
            });
        }
        Err(ForgeApiError::Refused { host, answer })
    }

    /// The status and the message of an error, unless it repeats the token.
    fn excerpt(&self, status: u16, body: &Value) -> String {
        let message = match body.get("message").or_else(|| body.get("error")) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let message: String = message
            .chars()
            .filter(|c| !c.is_control())
            .take(EXCERPT_CHARS_MAX)
            .collect();
        let message = message.replace(&self.token, "***");
        format!("{status} {message}").trim_end().to_owned()
    }
}

/// Only texts that have no address.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no response within {} s", DEADLINE.as_secs()),
        ureq::Error::HostNotFound => "unknown host".to_owned(),
        ureq::Error::ConnectionFailed => "it refused the connection".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Tls(why) => format!("TLS failed: {why}"),
        ureq::Error::Rustls(error) => format!("TLS failed: {error}"),
        _ => "the connection failed".to_owned(),
    }
}
