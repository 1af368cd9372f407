//! A server brought up: data directory, log, proxy, instances, engines, listener; in that order, so that nothing is promised
//! before it is there.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use futures_util::StreamExt as _;
use shipway_core::{
    address::{claims::STREAM, reachable},
    aggregate::Aggregate,
    delivery::DeliveryCounts,
    target::{ResourceLimits, RouterKind, TargetKind},
};
use shipway_drivers::{
    git::GitRepositories,
    jobs::{JobRunner, LocalSources, ProcessJobExecutor},
    metrics::MetricReader,
    notify::NotificationSender,
};
use shipway_engine::{
    BlobError, Blobs, Clock, Driver, Engine, Options as EngineOptions, RealClock, Store, StoreError,
};
use shipway_store::{DataDir, FileBlobs, SqliteOptions, SqliteStore};
use shipway_targets::{
    TargetRegistry,
    data_plane::{self, DataPlane, proxy_router::ProxyRouter},
    process::{self, ProcessTarget},
    router::Router,
    target::Target,
    traffic_control::TrafficControl,
};
use shipway_workflow::{job::ActionSource, runner::RunnerLabels};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    app::{self, App},
    baseline_history::{BaselineHistory, record_history},
    business_events::BusinessEventStore,
    capabilities::{
        ClientTokens, DeliveryEngines, MetricProviders, ReleaseObservations, ServerAddresses,
        Workloads,
    },
    effects::{self, AddressDriver, GroupDriver, RolloutDriver, RunDriver, ServiceDriver},
    file_storage::FileStorage,
    job_token::JobTokens,
    live_evidence::LiveEvidence,
    projections::follow_log,
    push,
    secrets::{SecretStore, SecretsError},
    workspaces,
};

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
    /// How people reach the API, when not by the address it listens on.
    pub public_url: Option<String>,
    /// The `shipway` binary, for proxies, workers, instances and hooks.
    pub exe: PathBuf,
    /// Jobs of workflows at once; others are queued.
    pub jobs: usize,
    /// What each of them may use.
    pub job_limits: ResourceLimits,
    /// Whether jobs may see and touch all that the server's user may.
    pub unconfined_jobs: bool,
    /// How long artifacts and reports of jobs wait for space on the disk.
    pub storage_wait: std::time::Duration,
    /// The labels that this machine has for `runs-on`.
    pub runner_labels: RunnerLabels,
    /// For tests of crashes, see [`SqliteOptions`].
    pub crash_after_events: Option<u64>,
    /// What to do when a used data directory has no event log.
    pub missing_log: MissingLog,
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
        "{address} can't be listened on: {source}; is another server running? Choose another address with --listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Listening beyond the machine without a token.
    #[error("listening on {0}, beyond this machine, needs a token: set SHIPWAY_TOKEN or --token")]
    Open(SocketAddr),
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
    #[error("the instances of the last server can't be taken over: {0}")]
    Instances(String),
}

/// A server that runs.
pub struct RunningServer {
    /// All of it.
    pub app: Arc<App>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    _data: DataDir,
}

/// Starts a server. It serves until [`RunningServer::stop`]; jobs, instances and the proxy continue without it.
pub async fn start(options: ServerOptions) -> Result<RunningServer, StartError> {
    if options.token.is_none() && !options.listen.ip().is_loopback() {
        return Err(StartError::Open(options.listen));
    }
    let data = DataDir::lock(&options.data)?;
    ensure_log(&data, options.missing_log).await?;
    let (parts, listener) = ServerParts::open(&options, data.path()).await?;
    // The drivers need the application, and the application needs the engines that call the drivers.
    let app = Arc::new_cyclic(|weak| build_app(&options, data.path(), parts, weak));
    let mut tasks = JoinSet::new();
    restore_traffic(&app, &mut tasks).await?;
    // Before any driver asks for a job slot.
    effects::reserve_job_slots(&app).await?;
    app.resume().await?;
    push::recovery::recover_missed_pushes(&app).await?;
    effects::reconcile_addresses(&app).await?;
    let stop = CancellationToken::new();
    spawn_tasks(&app, options.repos, listener, &stop, &mut tasks);
    Ok(RunningServer {
        app,
        tasks,
        stop,
        _data: data,
    })
}

/// Everything that is opened before the application is built, because it may fail.
struct ServerParts {
    secrets: SecretStore,
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    /// Where the API listens.
    address: SocketAddr,
    router: Arc<dyn Router>,
    proxy_address: SocketAddr,
    targets: Arc<TargetRegistry>,
    clock: Arc<dyn Clock>,
    internal_token: String,
    job_tokens: JobTokens,
    repos: Arc<GitRepositories>,
    business_events: BusinessEventStore,
}

impl ServerParts {
    async fn open(options: &ServerOptions, data: &Path) -> Result<(Self, TcpListener), StartError> {
        let secrets = options.secrets.as_deref().map(SecretStore::read);
        let secrets = secrets.transpose()?.unwrap_or_default();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(
            &data.join("shipway.db"),
            SqliteOptions {
                crash_after_events: options.crash_after_events,
                pages_max: None,
            },
        )?);
        let blobs = FileBlobs::open(&data.join("blobs")).map_err(io_error("opening the blobs"))?;
        let blobs: Arc<dyn Blobs> = Arc::new(blobs);
        let listener = TcpListener::bind(options.listen).await;
        let listener = listener.map_err(|source| StartError::Listen {
            address: options.listen,
            source,
        })?;
        let address = listener
            .local_addr()
            .map_err(io_error("reading the address"))?;
        let plane = DataPlane::attach_or_start(plane_options(options, data)).await;
        let plane = Arc::new(plane.map_err(|error| StartError::Proxy(error.to_string()))?);
        let proxy_address = plane.listen_address().await.unwrap_or(options.proxy_listen);
        let router = ProxyRouter::new(plane, data.join("proxy").join("meter.json"));
        let router: Arc<dyn Router> = Arc::new(router);
        let target = open_target(options, data, &blobs, &secrets).await?;
        let targets = TargetRegistry::default()
            .with_target(TargetKind::Process, target)
            .with_router(RouterKind::Proxy, router.clone());
        let clock = Arc::new(RealClock::after(last_event_at(&*store).await?));
        let internal_token =
            internal_token(data).map_err(io_error("keeping the internal token"))?;
        let job_tokens = JobTokens::open(&data.join("keys"))
            .map_err(io_error("keeping the key of jobs' tokens"))?;
        let repos = Arc::new(GitRepositories::open(data.join("git"))?);
        let business_events = BusinessEventStore::open(data.join("happened.json"))
            .map_err(io_error("reading happened.json"))?;
        let parts = Self {
            secrets,
            store,
            blobs,
            address,
            router,
            proxy_address,
            targets: Arc::new(targets),
            clock,
            internal_token,
            job_tokens,
            repos,
            business_events,
        };
        Ok((parts, listener))
    }
}

fn io_error(what: &str) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}

async fn open_target(
    options: &ServerOptions,
    data: &Path,
    blobs: &Arc<dyn Blobs>,
    secrets: &SecretStore,
) -> Result<Arc<dyn Target>, StartError> {
    let target = ProcessTarget::open(process::ProcessTargetOptions {
        root: data.join("instances"),
        data: data.join("service-data"),
        shim: vec![
            options.exe.clone().into_os_string(),
            "instance".into(),
            "--dir".into(),
        ],
        artifacts: Arc::new(UnpackBlobs(blobs.clone())),
        secrets: secret_resolver(secrets.clone()),
    });
    match target.await {
        Ok(target) => Ok(Arc::new(target)),
        Err(error) => Err(StartError::Instances(error.to_string())),
    }
}

fn start_engines(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    app: &Weak<App>,
) -> DeliveryEngines {
    DeliveryEngines {
        services: start_engine(store, clock, ServiceDriver(app.clone())),
        runs: start_engine(store, clock, RunDriver(app.clone())),
        groups: start_engine(store, clock, GroupDriver(app.clone())),
        rollouts: start_engine(store, clock, RolloutDriver(app.clone())),
        addresses: start_engine(store, clock, AddressDriver),
    }
}

fn start_engine<A: Aggregate>(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    driver: impl Driver<A> + 'static,
) -> Engine<A> {
    let options = EngineOptions::default();
    Engine::start(store.clone(), Arc::new(driver), clock.clone(), options)
}

/// The executor of jobs as processes of this machine, and its files.
fn build_job_executor(
    options: &ServerOptions,
    data: &Path,
    parts: &ServerParts,
    actions: &ActionSource,
) -> (JobRunner, ProcessJobExecutor) {
    let runner = JobRunner::new(options.exe.clone(), data.join("runs"))
        .with_limits(options.job_limits.clone())
        .with_labels(options.runner_labels.clone());
    let sources = LocalSources {
        repositories: parts.repos.clone(),
        blobs: parts.blobs.clone(),
        caches: data.join("caches"),
        actions: actions.clone(),
        hidden: hidden_from_jobs(options, data),
    };
    let executor = ProcessJobExecutor::new(runner.clone(), options.jobs, sources);
    (runner, executor)
}

/// Builds the application. Its drivers get `weak`, which they can upgrade once the application is built.
fn build_app(options: &ServerOptions, data: &Path, parts: ServerParts, weak: &Weak<App>) -> App {
    let local_url = format!("http://{}", reachable(parts.address));
    let public_url = options.public_url.clone();
    let keyed_requests = start_engine(&parts.store, &parts.clock, api::NoEffects);
    let actions = ActionSource {
        cache: Some(data.join("actions")),
        ..options.actions.clone()
    };
    let (runner, executor) = build_job_executor(options, data, &parts, &actions);
    App {
        engines: start_engines(&parts.store, &parts.clock, weak),
        keyed_requests: api::KeyedRequestRunner::new(keyed_requests),
        workloads: Workloads {
            traffic: Arc::new(TrafficControl::new(
                parts.router.clone(),
                parts.targets.clone(),
            )),
            targets: parts.targets,
            router: parts.router,
        },
        jobs: runner,
        job_executor: Arc::new(executor),
        notifier: NotificationSender::new(),
        providers: MetricProviders {
            reader: MetricReader::new(),
            secrets: parts.secrets.clone(),
            clock: parts.clock.clone(),
        },
        observations: ReleaseObservations {
            business_events: parts.business_events,
            live_evidence: LiveEvidence::default(),
            baseline_history: Arc::new(BaselineHistory::default()),
        },
        actions,
        storing: FileStorage::new(options.storage_wait),
        reports: crate::test_reports::TestReportCache::default(),
        server_addresses: ServerAddresses {
            url: public_url.unwrap_or_else(|| local_url.clone()),
            proxy_url: format!("http://{}", reachable(parts.proxy_address)),
            proxy_address: parts.proxy_address,
            api_port: parts.address.port(),
            local_url,
        },
        client_tokens: ClientTokens {
            server_token: options.token.clone(),
            internal_token: parts.internal_token,
            job_tokens: parts.job_tokens,
        },
        exe: options.exe.clone(),
        data: data.to_owned(),
        store: parts.store,
        blobs: parts.blobs,
        clock: parts.clock,
        repos: parts.repos,
        secrets: parts.secrets,
    }
}

/// Restores the routes that the log describes, and starts the task that gives them to the proxy.
async fn restore_traffic(app: &Arc<App>, tasks: &mut JoinSet<()>) -> Result<(), StoreError> {
    let claims = app
        .engines
        .addresses
        .read(STREAM)
        .await?
        .unwrap_or_default();
    let (routes, ports) = app::routes(
        &*app.store,
        &app.engines.services,
        &app.engines.rollouts,
        &claims,
    )
    .await?;
    app.workloads.traffic.restore(routes, ports);
    let traffic = app.workloads.traffic.clone();
    tasks.spawn(async move { traffic.run().await });
    Ok(())
}

/// Starts the background tasks, and the listener that takes requests.
fn spawn_tasks(
    app: &Arc<App>,
    repos: Vec<PathBuf>,
    listener: TcpListener,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(workspaces::run(app.clone()));
    let history = app.observations.baseline_history.clone();
    tasks.spawn(record_history(app.workloads.clone(), history));
    tasks.spawn(effects::environment_health::run(app.clone()));
    tasks.spawn(follow_log::<DeliveryCounts>(app.store.clone()));
    for repo in repos {
        let app = app.clone();
        tasks.spawn(async move {
            if let Err(error) = crate::followed_repo::run(app, &repo).await {
                tracing::error!(%error, path = %repo.display(), "the repository can't be followed");
            }
        });
    }
    tasks.spawn(api::prune_keyed_requests(app.clone()));
    tasks.spawn(crate::listener::serve(
        listener,
        crate::http_routes::router(app.clone()),
        crate::listener::ConnectionTimeouts::default(),
        stop.clone(),
    ));
}

impl RunningServer {
    /// Stops taking requests and effects. Jobs, instances and the proxy continue; the next server adopts them.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.app.keyed_requests.stop().await;
        self.app.engines.services.stop().await;
        self.app.engines.rollouts.stop().await;
        self.app.engines.runs.stop().await;
        self.app.engines.groups.stop().await;
        self.app.engines.addresses.stop().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.app.store.checkpoint().await {
            tracing::warn!(%error, "shipway.db is not whole without shipway.db-wal: copy both for a backup");
        }
    }
}

/// Checks that a used data directory has its log. With [`MissingLog::StartEmpty`] the other files are moved aside.
async fn ensure_log(data: &DataDir, missing_log: MissingLog) -> Result<(), StartError> {
    match data.require_log() {
        Err(shipway_store::DataDirError::LogMissing { found, .. })
            if missing_log == MissingLog::StartEmpty =>
        {
            // Once their folders are moved, no server supervises these processes.
            let stopped = shipway_drivers::stop_all(data.path()).await;
            let (instances, jobs) = (stopped.instances, stopped.jobs);
            tracing::warn!(
                instances,
                jobs,
                "stopped what the last server has left running"
            );
            let label = jiff::Timestamp::now().as_second().to_string();
            let aside = data.set_aside(&label).map_err(|source| StartError::Io {
                what: format!("moving what is in {} aside", data.path().display()),
                source,
            })?;
            let aside = aside.map(|aside| aside.display().to_string());
            tracing::warn!(found, aside, "beginning with an empty event log");
            Ok(())
        }
        checked => Ok(checked?),
    }
}

/// What jobs must not see; says where they see it all the same.
fn hidden_from_jobs(options: &ServerOptions, data: &Path) -> Vec<PathBuf> {
    if options.unconfined_jobs {
        tracing::warn!("jobs are not confined: they can read the keys and secrets of this server");
        return Vec::new();
    }
    if let Err(error) = shipway_drivers::jobs::can_isolate() {
        tracing::warn!(%error, "jobs are not confined: they can read the keys and secrets of this server (docs/security.md)");
    }
    let token_file = options.actions.token_file.as_ref();
    let of_web = options.actions.forge.starts_with("http");
    let files = options.secrets.iter().chain(token_file.filter(|_| of_web));
    // A link is hidden as well as its target, which holds the content.
    let files = files.flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]);
    let mut hidden = vec![data.to_owned()];
    for file in files.flatten().filter(|file| file.is_absolute()) {
        if !file.starts_with(data) && !hidden.contains(&file) {
            hidden.push(file);
        }
    }
    hidden
}

fn plane_options(options: &ServerOptions, data: &Path) -> data_plane::DataPlaneOptions {
    data_plane::DataPlaneOptions {
        exe: vec![options.exe.clone().into_os_string(), "proxy".into()],
        control: data.join("proxy").join("control.sock"),
        state: data.join("proxy"),
        listen: vec![options.proxy_listen],
        workers: options.proxy_workers,
        trusted: options.trust_proxy.clone(),
        log: data.join("proxy").join("proxy.log"),
    }
}

/// When the last fact of the log came about, by the clock of the server that recorded it.
async fn last_event_at(store: &dyn Store) -> Result<Option<jiff::Timestamp>, StoreError> {
    let last = store.last_position().await?;
    if last == 0 {
        return Ok(None);
    }
    let mut newest = store.subscribe(last - 1).await?;
    let recorded = newest.next().await.transpose()?;
    let dated = recorded.and_then(|it| serde_json::from_str::<EventTime>(&it.event).ok());
    Ok(dated.map(|it| it.at))
}

/// What every event has.
#[derive(serde::Deserialize)]
struct EventTime {
    at: jiff::Timestamp,
}

/// Git hooks of this server present it; kept, so that they are known to the next server too.
fn internal_token(data: &Path) -> Result<String, std::io::Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = data.join("keys");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let path = folder.join("internal-token");
    if let Ok(token) = std::fs::read_to_string(&path)
        && token.len() >= 32
    {
        return Ok(token);
    }
    let mut random = [0u8; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let token = shipway_core::ids::Digest::compute(&random).hex().to_owned();
    write_key(&path, token.as_bytes())?;
    Ok(token)
}

/// Writes a key for the server's user alone, durably.
pub(crate) fn write_key(path: &std::path::Path, key: &[u8]) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

fn secret_resolver(secrets: SecretStore) -> process::SecretResolver {
    Arc::new(move |place, name| {
        secrets
            .get_in(place.environment.as_str(), name)
            .map(str::to_owned)
    })
}

/// Artifacts unpacked from the blobs.
struct UnpackBlobs(Arc<dyn Blobs>);

#[async_trait::async_trait]
impl process::ArtifactSource for UnpackBlobs {
    async fn open(
        &self,
        digest: &shipway_core::ids::Digest,
    ) -> Result<shipway_engine::Reader, BlobError> {
        self.0.open(digest).await
    }
}
