//! A server brought up: data directory, log, proxy, instances, engines, listener; in that order, so that nothing is promised
//! before it is there.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak},
};

use futures_util::StreamExt as _;
use shipway_core::{
    address::{claims::STREAM, reachable},
    target::ResourceLimits,
};
use shipway_drivers::{
    data_plane::{self, DataPlane, traffic_meter::TrafficMeter},
    git::GitRepositories,
    jobs::JobRunner,
    notify::NotificationSender,
    process::{self, ProcessTarget},
    target::Target,
};
use shipway_engine::{
    BlobError, Blobs, Clock, Engine, Options as EngineOptions, RealClock, Store, StoreError,
};
use shipway_store::{DataDir, FileBlobs, SqliteOptions, SqliteStore};
use shipway_workflow::{job::ActionSource, runner::RunnerLabels};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    app::{self, App},
    business_events::BusinessEventStore,
    effects::{self, AddressDriver, GroupDriver, RolloutDriver, RunDriver, ServiceDriver},
    job_token::JobTokens,
    push,
    secrets::{SecretStore, SecretsError},
    traffic::TrafficControl,
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
    /// Whether a used data directory may begin with an empty log; what is there is set aside.
    pub new_log: bool,
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
        /// What was being done.
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

/// Starts a server. It serves until [`RunningServer::stop`]; jobs, instances and the proxy go on without it.
pub async fn start(options: ServerOptions) -> Result<RunningServer, StartError> {
    if options.token.is_none() && !options.listen.ip().is_loopback() {
        return Err(StartError::Open(options.listen));
    }
    let data = DataDir::lock(&options.data)?;
    let path = data.path().to_owned();
    require_log(&data, options.new_log).await?;
    let secrets = options
        .secrets
        .as_deref()
        .map(SecretStore::read)
        .transpose()?
        .unwrap_or_default();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(
        &path.join("shipway.db"),
        SqliteOptions {
            crash_after_events: options.crash_after_events,
            pages_max: None,
        },
    )?);
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| StartError::Io { what, source }
    };
    let blobs: Arc<dyn Blobs> =
        Arc::new(FileBlobs::open(&path.join("blobs")).map_err(io("opening the blobs"))?);
    let listener =
        TcpListener::bind(options.listen)
            .await
            .map_err(|source| StartError::Listen {
                address: options.listen,
                source,
            })?;
    let address = listener.local_addr().map_err(io("reading the address"))?;
    let plane = Arc::new(
        DataPlane::attach_or_start(plane_options(&options, &path))
            .await
            .map_err(|error| StartError::Proxy(error.to_string()))?,
    );
    let target: Arc<dyn Target> = Arc::new(
        ProcessTarget::open(process::ProcessTargetOptions {
            root: path.join("instances"),
            data: path.join("service-data"),
            shim: vec![
                options.exe.clone().into_os_string(),
                "instance".into(),
                "--dir".into(),
            ],
            artifacts: Arc::new(UnpackBlobs(blobs.clone())),
            secrets: secret_resolver(secrets.clone()),
        })
        .await
        .map_err(|error| StartError::Instances(error.to_string()))?,
    );
    let clock: Arc<dyn Clock> = Arc::new(RealClock::after(last_event_at(&*store).await?));
    let internal_token = internal_token(&path).map_err(io("keeping the internal token"))?;
    let job_tokens =
        JobTokens::open(&path.join("keys")).map_err(io("keeping the key of jobs' tokens"))?;
    let repos = Arc::new(GitRepositories::open(path.join("git"))?);
    let local_url = format!("http://{}", reachable(address));
    let proxy_address = plane.listen_address().await.unwrap_or(options.proxy_listen);

    let business_events = BusinessEventStore::open(path.join("happened.json"))
        .map_err(io("reading happened.json"))?;

    // The drivers need the application and the application needs the engines that call them.
    let app = Arc::new_cyclic(|weak: &Weak<App>| {
        let engine = EngineOptions::default();
        let services = Engine::start(
            store.clone(),
            Arc::new(ServiceDriver(weak.clone())),
            clock.clone(),
            engine,
        );
        let runs = Engine::start(
            store.clone(),
            Arc::new(RunDriver(weak.clone())),
            clock.clone(),
            engine,
        );
        let groups = Engine::start(
            store.clone(),
            Arc::new(GroupDriver(weak.clone())),
            clock.clone(),
            engine,
        );
        let rollouts = Engine::start(
            store.clone(),
            Arc::new(RolloutDriver(weak.clone())),
            clock.clone(),
            engine,
        );
        let keyed_requests = Engine::start(
            store.clone(),
            Arc::new(api::NoEffects),
            clock.clone(),
            engine,
        );
        let addresses = Engine::start(
            store.clone(),
            Arc::new(AddressDriver),
            clock.clone(),
            engine,
        );
        App {
            keyed_requests: api::KeyedRequestRunner::new(keyed_requests),
            traffic: Arc::new(TrafficControl::new(plane.clone(), target.clone())),
            meter: TrafficMeter::new(plane.clone(), path.join("proxy").join("meter.json")),
            jobs: JobRunner::new(options.exe.clone(), path.join("runs"))
                .with_slots(options.jobs)
                .with_limits(options.job_limits.clone())
                .with_labels(options.runner_labels.clone()),
            notifier: NotificationSender::new(),
            providers: shipway_drivers::metrics::MetricReader::new(),
            business_events,
            live: effects::live_evidence::LiveEvidence::default(),
            baseline_history: effects::baseline_history::BaselineHistory::default(),
            actions: ActionSource {
                cache: Some(path.join("actions")),
                ..options.actions.clone()
            },
            storing: effects::FileStorage::new(options.storage_wait),
            reports: crate::test_reports::TestReportCache::default(),
            url: options
                .public_url
                .clone()
                .unwrap_or_else(|| local_url.clone()),
            proxy_url: format!("http://{}", reachable(proxy_address)),
            proxy_address,
            api_port: address.port(),
            token: options.token.clone(),
            exe: options.exe.clone(),
            data: path.clone(),
            store,
            blobs,
            clock,
            services,
            runs,
            groups,
            rollouts,
            addresses,
            target,
            plane,
            repos,
            secrets,
            local_url,
            internal_token,
            job_tokens,
            hidden: hidden_from_jobs(&options, &path),
        }
    });
    let claims = app.addresses.read(STREAM).await?.unwrap_or_default();
    let (routes, ports) = app::routes(&*app.store, &app.services, &app.rollouts, &claims).await?;
    app.traffic.restore(routes, ports);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let traffic = app.traffic.clone();
    tasks.spawn(async move { traffic.run().await });
    // Before anybody else comes for a place.
    effects::reserve_job_slots(&app).await?;
    app.resume().await?;
    push::recovery::recover_missed_pushes(&app).await?;
    effects::reconcile_addresses(&app).await?;
    tasks.spawn(workspaces::run(app.clone()));
    tasks.spawn(effects::baseline_history::run(app.clone()));
    tasks.spawn(effects::environment_health::run(app.clone()));
    for repo in options.repos {
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
    Ok(RunningServer {
        app,
        tasks,
        stop,
        _data: data,
    })
}

impl RunningServer {
    /// Stops taking requests and effects. What runs goes on; the next server takes it up.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.app.keyed_requests.stop().await;
        self.app.services.stop().await;
        self.app.rollouts.stop().await;
        self.app.runs.stop().await;
        self.app.groups.stop().await;
        self.app.addresses.stop().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.app.store.checkpoint().await {
            tracing::warn!(%error, "shipway.db is not whole without shipway.db-wal: copy both for a backup");
        }
    }
}

/// Refuses a used data directory without its log, or sets aside what is there when a new log is wanted.
async fn require_log(data: &DataDir, new_log: bool) -> Result<(), StartError> {
    match data.require_log() {
        Err(shipway_store::DataDirError::LogMissing { found, .. }) if new_log => {
            // Nobody supervises it any more once its folder is moved.
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
fn hidden_from_jobs(options: &ServerOptions, data: &std::path::Path) -> Vec<PathBuf> {
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
    // Links are resolved: what they lead to is what is hidden. The token is found by the name that jobs are given.
    let files = files.flat_map(|file| [Some(file.clone()), file.canonicalize().ok()]);
    let mut hidden = vec![data.to_owned()];
    for file in files.flatten().filter(|file| file.is_absolute()) {
        if !file.starts_with(data) && !hidden.contains(&file) {
            hidden.push(file);
        }
    }
    hidden
}

fn plane_options(options: &ServerOptions, data: &std::path::Path) -> data_plane::DataPlaneOptions {
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
fn internal_token(data: &std::path::Path) -> Result<String, std::io::Error> {
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
