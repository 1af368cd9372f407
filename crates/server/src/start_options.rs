//! How a server is started, and why it doesn't start.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use shipway_core::{
    identity_token::SignInPolicy, retention::RetentionPolicy, source_repository::SourceRepository,
    target::ResourceLimits,
};
use shipway_drivers::openid::{IssuerUrl, OpenIdClient};
use shipway_workflow::{job::ActionSource, runner::RunnerLabels};

use crate::secrets::SecretsError;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The data directory.
    pub data: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where the proxy listens.
    pub proxy_listen: SocketAddr,
    /// Worker threads of the proxy; 0: one per core.
    pub proxy_workers: usize,
    /// Proxies in front of it, whose word about clients is kept.
    pub trust_proxy: Vec<shipway_proxy::TrustedNetwork>,
    /// What clients must present.
    pub token: Option<String>,
    /// A file of `NAME=value` lines.
    pub secrets: Option<PathBuf>,
    /// Local repositories to follow.
    pub repos: Vec<PathBuf>,
    /// Where actions of repositories come from; kept in the data directory.
    pub actions: ActionSource,
    /// External URL of this server, if it differs from --listen.
    pub public_url: Option<String>,
    /// The `shipway` binary, for proxies, workers, instances and hooks.
    pub exe: PathBuf,
    /// Jobs of workflows at once; others are queued.
    pub jobs: usize,
    /// What each of them may use.
    pub job_limits: ResourceLimits,
    /// Whether jobs may see and touch all that the server's user may.
    pub unconfined_jobs: bool,
    /// Start workers in empty folders below this one, without mounts: as on another machine.
    pub empty_job_folders: Option<PathBuf>,
    /// How long artifacts and reports of jobs wait for space on the disk.
    pub storage_wait: std::time::Duration,
    /// The labels that this machine has for `runs-on`.
    pub runner_labels: RunnerLabels,
    /// The repository of services whose configuration names none.
    pub repository: Option<SourceRepository>,
    /// For tests of crashes, see [`shipway_store::SqliteOptions`].
    pub crash_after_events: Option<u64>,
    /// What to do when a used data directory has no event log.
    pub missing_log: MissingLog,
    /// How long files are retained.
    pub retention: RetentionPolicy,
    /// The provider that people may sign in with.
    pub openid: Option<OpenIdOptions>,
}

impl ServerOptions {
    /// Where actions come from, with a cache in the data directory.
    pub(crate) fn cached_actions(&self, data: &Path) -> ActionSource {
        ActionSource {
            cache: Some(data.join("actions")),
            ..self.actions.clone()
        }
    }
}

/// The OpenID Connect provider that people may sign in with.
#[derive(Clone, Debug)]
pub struct OpenIdOptions {
    /// The issuer of its tokens.
    pub issuer: IssuerUrl,
    /// This server as its client.
    pub client: OpenIdClient,
    /// The file that the client's secret was read from; jobs must not see it.
    pub secret_file: Option<PathBuf>,
    /// Its name on the login page; the host of the issuer by default.
    pub name: Option<String>,
    /// The scopes that are requested.
    pub scopes: Vec<String>,
    /// The rules of logins, and the mapping of groups.
    pub policy: SignInPolicy,
}

/// What to do when a used data directory has no event log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingLog {
    /// Don't start: the log may only have to be restored.
    #[default]
    Refuse,
    /// Move the other files aside, and start with an empty log.
    StartEmpty,
}

/// Why a server doesn't start, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] shipway_store::DataDirError),
    /// The log.
    #[error(transparent)]
    Log(#[from] shipway_store::OpenError),
    /// The log, while reading it.
    #[error(transparent)]
    Store(#[from] shipway_engine::StoreError),
    /// The secrets.
    #[error(transparent)]
    SecretStore(#[from] SecretsError),
    /// A listener.
    #[error(
        "can't listen on {address}: {source}; is another server running? Choose another address with --listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Listening beyond the machine without users and without a token.
    #[error(
        "listening on {0}, which other machines can reach, needs users or a token: start the server without --listen once and make the first admin with the setup link that it prints (or `shipway user add NAME --role admin`), or set SHIPWAY_TOKEN or --token"
    )]
    Open(SocketAddr),
    /// The accounts of users.
    #[error("the accounts of users can't be opened: {0}")]
    Accounts(String),
    /// The proxy.
    #[error("the proxy does not start: {0} (--proxy-listen names another address)")]
    Proxy(String),
    /// Anything of the file system.
    #[error("{what}: {source}")]
    Io {
        /// The operation that failed.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Git.
    #[error(transparent)]
    Git(#[from] shipway_drivers::git::GitError),
    /// The instances.
    #[error("the instances of the previous server can't be adopted: {0}")]
    Instances(String),
}

pub(crate) fn io_error(what: &str) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}
