//! The state of the router. The wiring builds it (`start.rs`). A handler takes single capabilities out of it, so its signature lists all
//! that it can read and do. Everything below the handlers takes capabilities or groups of them ([`crate::capabilities`]).

use std::sync::Arc;

use axum::extract::FromRef;
use shipway_drivers::{
    git::{GitRepositories, http::HookTarget},
    jobs::JobExecutor,
};
use shipway_engine::{Blobs, Clock, Store};

use crate::{
    accounts::{OpenIdLogin, UserAccounts},
    capabilities::{
        AuthenticationSources, ClientTokens, DataFolder, DeployPlanning, JobInputs, JobLogs,
        ReleaseObservations, RunFiles, SecretEditing, ServerAddresses, ServiceRequests,
        ShellSources, Workloads,
    },
    delivery_engines::DeliveryEngines,
    delivery_matrix::MatrixFeed,
    environment_status::StatusSources,
    file_storage::FileStorage,
    forges::ForgeConnections,
    job_logs::JobLogReader,
    keyed_requests::KeyedRequestRunner,
    push::PushReceiver,
    retention::FilePruner,
    run_page::RunPageSources,
    test_reports::TestReports,
};

/// Everything that requests may be about.
pub struct App {
    /// The log.
    pub(crate) store: Arc<dyn Store>,
    /// Artifacts.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engines: Arc<DeliveryEngines>,
    /// Requests that carry an `Idempotency-Key`.
    pub(crate) keyed_requests: Arc<KeyedRequestRunner>,
    pub(crate) workloads: Workloads,
    /// Git repositories.
    pub(crate) repos: Arc<GitRepositories>,
    pub(crate) pushes: PushReceiver,
    /// Connections to forges.
    pub(crate) forges: ForgeConnections,
    /// Removes old files.
    pub(crate) pruner: FilePruner,
    /// Where the hooks of the repositories report pushes.
    pub(crate) hook: HookTarget,
    /// Where jobs run.
    pub(crate) job_executor: Arc<dyn JobExecutor>,
    /// Windows of the logs of jobs.
    pub(crate) job_log_reader: JobLogReader,
    pub(crate) job_inputs: JobInputs,
    /// Artifacts and reports on their way into the blobs.
    pub(crate) storing: Arc<FileStorage>,
    pub(crate) test_reports: TestReports,
    pub(crate) observations: ReleaseObservations,
    /// The overview.
    pub(crate) matrix: MatrixFeed,
    pub(crate) server_addresses: ServerAddresses,
    pub(crate) data: DataFolder,
    pub(crate) client_tokens: Arc<ClientTokens>,
    /// Users, their tokens and their sessions.
    pub(crate) accounts: Arc<UserAccounts>,
    /// Logins with a provider, if one is configured.
    pub(crate) openid: Option<Arc<OpenIdLogin>>,
}

impl App {
    /// Where the API is, as people and workers reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server_addresses.url
    }

    /// The address at which the first admin is made, once, within an hour; none when there are users.
    pub async fn setup_url(&self) -> Option<String> {
        if self.accounts.has_users().await.unwrap_or(true) {
            return None;
        }
        let link = self.accounts.issue_setup_link().ok()?;
        Some(format!("{}/setup?link={}", self.url(), link.as_str()))
    }

    /// Where the proxy is, as people reach it.
    #[must_use]
    pub fn proxy_url(&self) -> &str {
        &self.server_addresses.proxy_url
    }
}

/// The router's handle of the application. No handler takes it whole.
#[derive(Clone)]
pub(crate) struct AppState(pub(crate) Arc<App>);

/// Fields of the application that handlers take.
macro_rules! capabilities {
    ($($field:ident: $capability:ty),* $(,)?) => {
        $(impl FromRef<AppState> for $capability {
            fn from_ref(AppState(app): &AppState) -> Self {
                app.$field.clone()
            }
        })*
    };
}

capabilities! {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    clock: Arc<dyn Clock>,
    engines: Arc<DeliveryEngines>,
    keyed_requests: Arc<KeyedRequestRunner>,
    workloads: Workloads,
    repos: Arc<GitRepositories>,
    pushes: PushReceiver,
    forges: ForgeConnections,
    pruner: FilePruner,
    hook: HookTarget,
    job_executor: Arc<dyn JobExecutor>,
    job_log_reader: JobLogReader,
    storing: Arc<FileStorage>,
    test_reports: TestReports,
    observations: ReleaseObservations,
    matrix: MatrixFeed,
    server_addresses: ServerAddresses,
    data: DataFolder,
    client_tokens: Arc<ClientTokens>,
    accounts: Arc<UserAccounts>,
    openid: Option<Arc<OpenIdLogin>>,
}

impl FromRef<AppState> for ServiceRequests {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            store: app.store.clone(),
            blobs: app.blobs.clone(),
            engines: app.engines.clone(),
        }
    }
}

impl FromRef<AppState> for JobLogs {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            store: app.store.clone(),
            job_executor: app.job_executor.clone(),
            retention: app.pruner.policy,
            clock: app.clock.clone(),
        }
    }
}

impl FromRef<AppState> for RunPageSources {
    fn from_ref(state: &AppState) -> Self {
        Self {
            logs: JobLogs::from_ref(state),
            reader: state.0.job_log_reader.clone(),
            engines: state.0.engines.clone(),
            test_reports: state.0.test_reports.clone(),
        }
    }
}

impl FromRef<AppState> for RunFiles {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            repositories: app.repos.clone(),
            blobs: app.blobs.clone(),
            job_executor: app.job_executor.clone(),
        }
    }
}

impl FromRef<AppState> for StatusSources {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            log: app.store.clone(),
            engines: app.engines.clone(),
            workloads: app.workloads.clone(),
            live_evidence: app.observations.live_evidence.clone(),
            proxy_address: app.server_addresses.proxy_address,
        }
    }
}

impl FromRef<AppState> for AuthenticationSources {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            client_tokens: app.client_tokens.clone(),
            accounts: app.accounts.clone(),
            job_tokens: app.job_inputs.tokens.clone(),
            engines: app.engines.clone(),
            data: app.data.clone(),
        }
    }
}

impl FromRef<AppState> for DeployPlanning {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            engines: app.engines.clone(),
            targets: app.workloads.targets.clone(),
            baseline_history: app.observations.baseline_history.clone(),
            server_addresses: app.server_addresses.clone(),
        }
    }
}

impl FromRef<AppState> for SecretEditing {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            engines: app.engines.clone(),
            secrets: app.job_inputs.secrets.clone(),
        }
    }
}

impl FromRef<AppState> for ShellSources {
    fn from_ref(AppState(app): &AppState) -> Self {
        Self {
            job_executor: app.job_executor.clone(),
            job_inputs: app.job_inputs.clone(),
            traffic: app.workloads.traffic.clone(),
            server_addresses: app.server_addresses.clone(),
        }
    }
}
