//! Runs git against a forge: clean environment, login, retries of transient errors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use shipway_workflow::job::NETWORK;
use tokio::process::Command;

use super::{
    cache_paths::{cache_error, unique_name},
    forge_error::ForgeError,
    forge_login::ForgeLogin,
};

/// Backoff for network errors: about five seconds in total, so that an outage is reported soon.
const BACKOFF: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(1_200),
    Duration::from_millis(3_500),
];

/// Messages of git for errors that may be transient.
const TRANSIENT: [&str; 22] = [
    "Could not resolve host",
    "Couldn't resolve host",
    "Failed to connect",
    "Couldn't connect",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Operation timed out",
    "Operation too slow",
    "Empty reply from server",
    "returned error: 429",
    "returned error: 5",
    "early EOF",
    "unexpected disconnect",
    "hung up unexpectedly",
    "RPC failed",
    "transfer closed",
    "SSL_ERROR_SYSCALL",
    "TLS connection was non-properly terminated",
    "HTTP/2 stream",
    "Network is unreachable",
    "Temporary failure in name resolution",
];

/// Messages of git for a missing or refused login.
const LOGIN_REFUSED: [&str; 3] = [
    "could not read Username",
    "could not read Password",
    "Authentication failed",
];

pub(super) enum GitResult {
    Success(String),
    Failure(GitFailure),
}

pub(super) struct GitFailure {
    pub(super) text: String,
    /// Whether the error may be transient.
    pub(super) may_pass: bool,
}

impl GitResult {
    pub(super) fn into_stdout(self) -> Result<String, ForgeError> {
        match self {
            Self::Success(text) => Ok(text),
            Self::Failure(why) => Err(ForgeError::Git(why.text)),
        }
    }
}

pub(super) struct GitCommand {
    home: PathBuf,
    config: PathBuf,
    /// Configuration that is passed in the environment.
    settings: Vec<(String, String)>,
    /// The source of the login, for messages.
    login: Option<String>,
}

impl GitCommand {
    pub(super) fn new(
        address: &str,
        login: &ForgeLogin,
        scratch: &Path,
    ) -> Result<Self, ForgeError> {
        let config = scratch.join("gitconfig");
        // The repository may belong to another user; only files are read from it. This must be in a file: the git
        // process that serves a local folder gets no configuration from the environment.
        let text = "[safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n";
        if fs::read_to_string(&config).ok().as_deref() != Some(text) {
            let temp = scratch.join(unique_name());
            fs::create_dir_all(scratch)
                .and_then(|()| fs::write(&temp, text))
                .and_then(|()| fs::rename(&temp, &config))
                .map_err(cache_error(&config))?;
        }
        let of_web = address.starts_with("https://") || address.starts_with("http://");
        let header = if of_web {
            login.authorization_header()?
        } else {
            None
        };
        let settings = header.map(|header| {
            // The header is only sent to URLs with this prefix.
            let name = format!("http.{}/.extraHeader", address.trim_end_matches('/'));
            (name, format!("Authorization: {header}"))
        });
        Ok(Self {
            home: scratch.to_owned(),
            config,
            settings: settings.into_iter().collect(),
            login: login.describe_source(),
        })
    }

    /// Runs git with retries.
    pub(super) async fn run_with_retries(
        &self,
        at: &Path,
        arguments: &[&str],
    ) -> Result<GitResult, ForgeError> {
        let mut pauses = BACKOFF.iter();
        loop {
            match self.run_once(at, arguments).await? {
                GitResult::Failure(why) if why.may_pass => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => {
                        let text = format!("{} (tried {} times)", why.text, BACKOFF.len() + 1);
                        return Ok(GitResult::Failure(GitFailure {
                            text,
                            may_pass: true,
                        }));
                    }
                },
                said => return Ok(said),
            }
        }
    }

    pub(super) async fn run_once(
        &self,
        at: &Path,
        arguments: &[&str],
    ) -> Result<GitResult, ForgeError> {
        let network = NETWORK
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(at)
            .env_clear()
            .envs(network)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
            .env("GIT_HTTP_LOW_SPEED_TIME", "30")
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (index, (name, value)) in self.settings.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{index}"), name)
                .env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ForgeError::GitMissing)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(GitResult::Success(text(&output.stdout)));
        }
        Ok(GitResult::Failure(
            self.describe_failure(&text(&output.stderr)),
        ))
    }

    fn describe_failure(&self, stderr: &str) -> GitFailure {
        let may_pass = TRANSIENT.iter().any(|text| stderr.contains(text));
        let lines: Vec<&str> = stderr.lines().map(str::trim).take(3).collect();
        let mut text = lines.join(" ");
        if LOGIN_REFUSED.iter().any(|text| stderr.contains(text)) {
            text = match &self.login {
                Some(login) => format!("it refuses {login}"),
                None => "it requires a login: put a token into a file that only you can read, and pass it with --forge-token-file (SHIPWAY_FORGE_TOKEN_FILE)".to_owned(),
            };
        }
        GitFailure { text, may_pass }
    }
}
