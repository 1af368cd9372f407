//! The transport of the API's client: blocking HTTP, because a command does nothing else meanwhile.

use std::io::{BufRead, BufReader, Read};

use serde::{Serialize, de::DeserializeOwned};
use shipway_api::{ApiClient, DEFAULT_SERVER_URL, Problem};

use crate::credentials;

/// The heading in the help above the options that every command has.
pub const GLOBAL_OPTIONS: &str = "Global options";

/// The server's address and the caller's name.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerConnection {
    /// URL of the server
    #[arg(
        long,
        env = "SHIPWAY_URL",
        default_value = DEFAULT_SERVER_URL,
        global = true,
        help_heading = GLOBAL_OPTIONS,
        value_name = "URL"
    )]
    pub server: String,

    /// API token of the server, if it requires one
    #[arg(
        long,
        env = "SHIPWAY_TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = GLOBAL_OPTIONS,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,

    /// Your name in the audit log
    #[arg(
        long = "as",
        env = "SHIPWAY_USER",
        global = true,
        help_heading = GLOBAL_OPTIONS,
        value_name = "NAME"
    )]
    pub user: Option<String>,
}

/// Why a request to the server failed, with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server does not answer.
    #[error("no server answers at {url}: {why}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the system said.
        why: String,
    },
    /// The token is missing or wrong.
    #[error("{0}")]
    Unauthorized(String),
    /// This person may not.
    #[error("{0}")]
    Forbidden(String),
    /// The request is invalid; repeating it is useless.
    #[error("{0}")]
    Wrong(String),
    /// The server says why not.
    #[error("{0}")]
    Refused(String),
    /// The answer is not what this version understands.
    #[error("unexpected response from the server at {url}: {why}")]
    Strange {
        /// Where.
        url: String,
        /// What.
        why: String,
    },
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some(
                "start one with `shipway server`, or set the URL of another with --server or SHIPWAY_URL",
            ),
            Self::Unauthorized(_) => {
                Some("sign in with `shipway login`, set SHIPWAY_TOKEN or pass --token")
            }
            Self::Strange { .. } => {
                Some("check that the server and this command have the same version")
            }
            Self::Forbidden(_) | Self::Wrong(_) | Self::Refused(_) => None,
        }
    }

    /// 1 failed, 2 usage, 3 not allowed, 4 unreachable.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => 4,
            Self::Unauthorized(_) | Self::Forbidden(_) => 3,
            Self::Wrong(_) => 2,
            Self::Refused(_) | Self::Strange { .. } => 1,
        }
    }
}

impl ServerConnection {
    /// GETs a stream of lines of any length.
    pub fn lines(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>, ClientError> {
        Ok(BufReader::new(self.stream(path)?).lines())
    }

    /// The body of a response, as it arrives.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>, ClientError> {
        let answer = self.check(path, self.head(agent().get(self.url(path))).call())?;
        Ok(answer.into_body().into_reader())
    }

    /// The same as server-sent events, after the one with this id.
    pub fn events(
        &self,
        path: &str,
        after: &str,
    ) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>, ClientError> {
        let request = agent()
            .get(self.url(path))
            .header("accept", "text/event-stream")
            .header("last-event-id", after);
        let answer = self.check(path, self.head(request).call())?;
        Ok(BufReader::new(answer.into_body().into_reader()).lines())
    }

    /// Whether the server's address was given.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.server != DEFAULT_SERVER_URL || std::env::var_os("SHIPWAY_URL").is_some()
    }

    /// What a shell needs so that printed commands, which don't repeat `--server`, reach this server; `None` if they do already.
    #[must_use]
    pub fn export_line(&self) -> Option<String> {
        let default =
            std::env::var("SHIPWAY_URL").unwrap_or_else(|_| DEFAULT_SERVER_URL.to_owned());
        let server = &self.server;
        (*server != default)
            .then(|| format!("commands for this server: export SHIPWAY_URL={server}"))
    }

    /// The address of `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.trim_end_matches('/'))
    }

    fn head<B>(&self, mut request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let given = self.token.clone().filter(|token| !token.is_empty());
        if let Some(token) = given.or_else(|| credentials::read_token(&self.server)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let user = self
            .user
            .clone()
            .or_else(|| std::env::var("USER").ok())
            .unwrap_or_else(|| "someone".to_owned());
        request.header("x-shipway-user", user)
    }

    fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut answer = self.check(path, answer)?;
        if answer.status() == 204 {
            return serde_json::from_value(serde_json::Value::Null).map_err(|error| {
                ClientError::Strange {
                    url: self.url(path),
                    why: error.to_string(),
                }
            });
        }
        answer
            .body_mut()
            .read_json()
            .map_err(|error| ClientError::Strange {
                url: self.url(path),
                why: error.to_string(),
            })
    }

    fn check(
        &self,
        path: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
        let mut answer = answer.map_err(|error| ClientError::Unreachable {
            url: self.server.clone(),
            why: error.to_string(),
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let why = match serde_json::from_str::<Problem>(&text) {
            Ok(problem) if problem.detail.is_empty() => problem.title,
            Ok(problem) => problem.detail,
            Err(_) => format!(
                "{status} for {path}: {}",
                text.lines().next().unwrap_or_default()
            ),
        };
        Err(match status.as_u16() {
            400 | 422 => ClientError::Wrong(why),
            401 => ClientError::Unauthorized(why),
            403 => ClientError::Forbidden(why),
            _ => ClientError::Refused(why),
        })
    }
}

impl ApiClient for ServerConnection {
    type Error = ClientError;

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.head(agent().get(self.url(path)));
        self.read(path, request.call())
    }

    fn replace_version<T: DeserializeOwned>(
        &self,
        path: &str,
        version: u64,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.head(agent().put(self.url(path)));
        let request = request.header("if-match", format!("\"{version}\""));
        self.read(path, request.send_json(body))
    }

    fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.head(agent().delete(self.url(path)));
        self.read(path, request.force_send_body().send_json(body))
    }

    fn replace<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.head(agent().put(self.url(path)));
        self.read(path, request.send_json(body))
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.head(agent().post(self.url(path)));
        self.read(path, request.send_json(body))
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}
