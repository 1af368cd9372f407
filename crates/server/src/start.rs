//! A server brought up: data directory, log, proxy, instances, engines, listener; in that order, so that nothing is promised
//! before it is there.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use futures_util::StreamExt as _;
use shipway_core::{
    address::{
        claims::{ClaimsState, STREAM},
        reachable,
    },
    aggregate::Aggregate,
    secret::SecretUser,
    source_repository::SourceRepository,
    target::{RouterKind, TargetKind},
};
use shipway_drivers::{
    git::{GitRepositories, hook::HookToken, http::HookTarget},
    jobs::{
        EmptyFolderLauncher, JobExecutor, JobRunner, LocalSources, ProcessJobExecutor,
        RemoteJobExecutor,
    },
    metrics::MetricReader,
    network_guard::NetworkGuard,
    notify,
    outbox::DestinationRegistry,
};
use shipway_engine::{
    BlobError, Blobs, Clock, Driver, Engine, Options as EngineOptions, RealClock, Store, StoreError,
};
use shipway_store::{DataDir, FileBlobs, SqliteOptions, SqliteStore};
use shipway_targets::{
    TargetRegistry,
    data_plane::{self, DataPlane, proxy_router::ProxyRouter},
    process::{self, ProcessTarget},
    target::Target,
    traffic_registry::TrafficRegistry,
};
use shipway_workflow::job::ActionSource;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::{NoDirectoryEffects, OpenIdLogin, UserAccounts, recorded_directory},
    app::App,
    baseline_history::record_history,
    business_events::BusinessEventStore,
    capabilities::{
        ClientTokens, DataFolder, JobInputs, JobPlatform, MetricProviders, ReleaseObservations,
        ServerAddresses, WorkflowSources, Workloads,
    },
    delivery_engines::DeliveryEngines,
    delivery_matrix::{MatrixFeed, follow_matrix},
    effects::{
        self, AddressDriver, ForgeDriver, GroupDriver, NoticeDelivery, OutboxDriver, RolloutDriver,
        RunDriver, SecretDriver, ServiceDriver,
    },
    file_storage::FileStorage,
    forges::{ForgeConnections, ReportFollower},
    job_logs::JobLogReader,
    job_token::JobTokens,
    key_files::open_internal_token,
    keyed_requests::{KeyedRequestRunner, NoEffects},
    missing_rows::rebuild_missing_rows,
    projections::follow_projections,
    push::PushSources,
    recorded_routes::recorded_routes,
    retention::FilePruner,
    sealing::SealingKeys,
    secrets::{SecretPlace, SecretStore, SecretsFile},
    start_options::{MissingLog, ServerOptions, StartError, io_error},
    test_reports::TestReports,
    workspaces::{self, RunStorage},
};

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
    let data = DataDir::lock(&options.data)?;
    ensure_log(&data, options.missing_log).await?;
    let (parts, listener) = ServerParts::open(&options, data.path()).await?;
    let app = Arc::new(build_app(&options, data.path(), parts)?);
    let claims = app.engines.addresses.read(STREAM).await?;
    let claims = claims.unwrap_or_default();
    rebuild_missing_rows(&*app.store, &claims).await?;
    app.forges.load(&*app.store, &app.engines).await?;
    let mut tasks = JoinSet::new();
    restore_traffic(&app, &claims, &mut tasks).await?;
    // Before any driver asks for a job slot.
    effects::reserve_job_slots(&*app.store, &*app.job_executor).await?;
    app.engines.resume().await?;
    app.pushes.recover_missed_pushes().await?;
    app.engines.resume_forges().await?;
    effects::reconcile_addresses(&app.engines).await?;
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
    proxy_address: SocketAddr,
    targets: Arc<TargetRegistry>,
    clock: Arc<dyn Clock>,
    internal_token: String,
    job_tokens: Arc<JobTokens>,
    sealing: Arc<SealingKeys>,
    repos: Arc<GitRepositories>,
    business_events: Arc<BusinessEventStore>,
}

impl ServerParts {
    async fn open(options: &ServerOptions, data: &Path) -> Result<(Self, TcpListener), StartError> {
        let file = options.secrets.as_deref().map(SecretsFile::read);
        let file = file.transpose()?.unwrap_or_default();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(
            &data.join("shipway.db"),
            SqliteOptions {
                crash_after_events: options.crash_after_events,
                pages_max: None,
            },
        )?);
        let is_open = options.token.is_none() && !options.listen.ip().is_loopback();
        if is_open && !recorded_directory(&*store).await?.has_users() {
            return Err(StartError::Open(options.listen));
        }
        let internal_token =
            open_internal_token(data).map_err(io_error("keeping the internal token"))?;
        let sealing = Arc::new(
            SealingKeys::open(&data.join("keys"))
                .map_err(io_error("reading the keys that encrypt secrets"))?,
        );
        let secrets = SecretStore::open(file, sealing.clone(), &*store).await?;
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
        let target = open_target(options, data, &blobs, &secrets).await?;
        // A line for each target and router that environments can name.
        let targets = TargetRegistry::default()
            .with_target(TargetKind::Process, target)
            .with_router(RouterKind::Proxy, Arc::new(router));
        let clock = Arc::new(RealClock::after(last_event_at(&*store).await?));
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
            proxy_address,
            targets: Arc::new(targets),
            clock,
            internal_token,
            job_tokens: Arc::new(job_tokens),
            sealing,
            repos,
            business_events: Arc::new(business_events),
        };
        Ok((parts, listener))
    }
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

/// The capabilities that drivers and handlers share.
struct SharedParts {
    workloads: Workloads,
    jobs: JobPlatform,
    job_inputs: JobInputs,
    tests: TestReports,
    observations: ReleaseObservations,
    server: ServerAddresses,
    pushes: PushSources,
    forges: ForgeConnections,
    /// The repository of services whose configuration names none.
    repository: Option<SourceRepository>,
}

impl SharedParts {
    fn new(
        options: &ServerOptions,
        data: &Path,
        parts: &ServerParts,
        jobs: JobPlatform,
        actions: ActionSource,
    ) -> Self {
        let local_url = format!("http://{}", reachable(parts.address));
        let public_url = options.public_url.clone();
        let server = ServerAddresses {
            url: public_url.unwrap_or_else(|| local_url.clone()),
            proxy_url: format!("http://{}", reachable(parts.proxy_address)),
            proxy_address: parts.proxy_address,
            api_port: parts.address.port(),
            local_url,
        };
        let pushes = PushSources {
            store: parts.store.clone(),
            blobs: parts.blobs.clone(),
            repositories: parts.repos.clone(),
            server: server.clone(),
            targets: parts.targets.available(),
            jobs: jobs.executor.clone(),
            scratch: data.to_owned(),
        };
        Self {
            workloads: Workloads {
                traffic: Arc::new(TrafficRegistry::new(parts.targets.clone())),
                targets: parts.targets.clone(),
            },
            jobs,
            job_inputs: JobInputs {
                secrets: parts.secrets.clone(),
                actions,
                tokens: parts.job_tokens.clone(),
            },
            tests: TestReports {
                store: parts.store.clone(),
                blobs: parts.blobs.clone(),
                repositories: parts.repos.clone(),
                clock: parts.clock.clone(),
                cache: Arc::default(),
            },
            observations: ReleaseObservations {
                business_events: parts.business_events.clone(),
                live_evidence: Arc::default(),
                baseline_history: Arc::default(),
            },
            repository: options.repository.clone(),
            pushes,
            forges: ForgeConnections::new(parts.secrets.clone()),
            server,
        }
    }
}

/// Starts the engines. Their drivers get a weak reference to them, which they can upgrade from the first effect on.
fn start_engines(
    data: &Path,
    parts: &ServerParts,
    shared: &SharedParts,
    engines: &Weak<DeliveryEngines>,
) -> DeliveryEngines {
    let (store, clock) = (&parts.store, &parts.clock);
    let outbox = OutboxDriver {
        destinations: outbox_destinations(parts),
        secrets: parts.secrets.clone(),
    };
    let notices = NoticeDelivery {
        pages_url: shared.server.url.clone(),
    };
    let services = ServiceDriver {
        engines: engines.clone(),
        executor: shared.jobs.executor.clone(),
        workflows: WorkflowSources {
            actions: shared.job_inputs.actions.clone(),
            scratch: data.join("forge"),
        },
        repository: shared.repository.clone(),
        repositories: parts.repos.clone(),
        store: store.clone(),
        workloads: shared.workloads.clone(),
        baseline_history: shared.observations.baseline_history.clone(),
        notices: notices.clone(),
        secrets: parts.secrets.clone(),
    };
    let runs = RunDriver {
        engines: engines.clone(),
        jobs: shared.jobs.clone(),
        inputs: shared.job_inputs.clone(),
        tests: shared.tests.clone(),
        workloads: shared.workloads.clone(),
        server: shared.server.clone(),
    };
    let rollouts = RolloutDriver {
        engines: engines.clone(),
        store: store.clone(),
        workloads: shared.workloads.clone(),
        observations: shared.observations.clone(),
        providers: MetricProviders {
            reader: MetricReader::new(),
            secrets: parts.secrets.clone(),
            clock: clock.clone(),
        },
        server: shared.server.clone(),
        notices,
    };
    let groups = GroupDriver {
        engines: engines.clone(),
    };
    let forges = ForgeDriver::new(engines.clone(), &shared.pushes, &shared.forges);
    DeliveryEngines {
        services: start_engine(store, clock, services),
        runs: start_engine(store, clock, runs),
        groups: start_engine(store, clock, groups),
        rollouts: start_engine(store, clock, rollouts),
        addresses: start_engine(store, clock, AddressDriver),
        secrets: start_engine(store, clock, SecretDriver),
        outbox: start_engine(store, clock, outbox),
        forges: start_engine(store, clock, forges),
    }
}

/// Every kind of destination that messages of the outbox go to.
fn outbox_destinations(parts: &ServerParts) -> DestinationRegistry {
    let own_ports = vec![parts.address.port(), parts.proxy_address.port()];
    let guard = NetworkGuard::new(own_ports);
    DestinationRegistry::new(notify::destinations(&guard))
}

fn start_engine<A: Aggregate>(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    driver: impl Driver<A> + 'static,
) -> Engine<A> {
    let options = EngineOptions::default();
    Engine::start(store.clone(), Arc::new(driver), clock.clone(), options)
}

/// The executor of jobs: as processes of this machine that share its disk, unless an option says otherwise.
fn build_job_executor(
    options: &ServerOptions,
    data: &Path,
    parts: &ServerParts,
    actions: &ActionSource,
) -> Arc<dyn JobExecutor> {
    let runner = JobRunner::new(options.exe.clone(), data.join("runs"))
        .with_limits(options.job_limits.clone())
        .with_labels(options.runner_labels.clone());
    if let Some(root) = &options.empty_job_folders {
        let launcher = EmptyFolderLauncher::new(runner.clone(), root.clone());
        let executor = RemoteJobExecutor::new(runner, options.jobs, Box::new(launcher));
        return Arc::new(executor);
    }
    let sources = LocalSources {
        repositories: parts.repos.clone(),
        blobs: parts.blobs.clone(),
        caches: data.join("caches"),
        actions: actions.clone(),
        hidden: hidden_from_jobs(options, data),
    };
    Arc::new(ProcessJobExecutor::new(runner, options.jobs, sources))
}

fn open_accounts(data: &Path, parts: &ServerParts) -> Result<UserAccounts, StartError> {
    let directory = start_engine(&parts.store, &parts.clock, NoDirectoryEffects);
    UserAccounts::open(data, directory, parts.clock.clone(), parts.sealing.clone())
        .map_err(|error| StartError::Accounts(error.to_string()))
}

fn build_app(options: &ServerOptions, data: &Path, parts: ServerParts) -> Result<App, StartError> {
    let keyed_requests = start_engine(&parts.store, &parts.clock, NoEffects);
    let actions = options.cached_actions(data);
    let jobs = JobPlatform {
        executor: build_job_executor(options, data, &parts, &actions),
        storage: Arc::new(FileStorage::new(options.storage_wait)),
        blobs: parts.blobs.clone(),
    };
    let shared = SharedParts::new(options, data, &parts, jobs, actions);
    let engines = Arc::new_cyclic(|engines| start_engines(data, &parts, &shared, engines));
    Ok(App {
        openid: OpenIdLogin::open(options, &shared.server.url, &parts.sealing, &parts.clock),
        accounts: Arc::new(open_accounts(data, &parts)?),
        pushes: shared.pushes.receiver(engines.clone()),
        forges: shared.forges.clone(),
        pruner: FilePruner {
            policy: options.retention,
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            engines: engines.clone(),
            blobs: parts.blobs.clone(),
            repositories: parts.repos.clone(),
            executor: shared.jobs.executor.clone(),
            is_running: Arc::default(),
            last: Arc::default(),
        },
        hook: HookTarget {
            exe: options.exe.clone(),
            url: format!("{}/internal/push", shared.server.local_url),
            token: HookToken::new(parts.internal_token.clone()),
        },
        engines,
        keyed_requests: Arc::new(KeyedRequestRunner::new(keyed_requests)),
        workloads: shared.workloads,
        job_log_reader: JobLogReader::new(shared.jobs.executor.clone()),
        job_executor: shared.jobs.executor,
        storing: shared.jobs.storage,
        job_inputs: shared.job_inputs,
        test_reports: shared.tests,
        observations: shared.observations,
        matrix: MatrixFeed::default(),
        server_addresses: shared.server,
        client_tokens: Arc::new(ClientTokens {
            server_token: options.token.clone(),
            internal_token: parts.internal_token,
        }),
        data: DataFolder(data.into()),
        store: parts.store,
        blobs: parts.blobs,
        clock: parts.clock,
        repos: parts.repos,
    })
}

/// Restores the routes that the log describes, and starts the task that gives them to the proxy.
async fn restore_traffic(
    app: &Arc<App>,
    claims: &ClaimsState,
    tasks: &mut JoinSet<()>,
) -> Result<(), StoreError> {
    let engines = &app.engines;
    let routes = recorded_routes(&*app.store, &engines.services, &engines.rollouts, claims);
    let (routes, ports) = routes.await?;
    app.workloads.traffic.restore(&routes, &ports);
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
    tasks.spawn(workspaces::run(RunStorage {
        store: app.store.clone(),
        clock: app.clock.clone(),
        executor: app.job_executor.clone(),
        policy: app.pruner.policy,
    }));
    tasks.spawn(app.pruner.clone().run());
    tasks.spawn(app.job_inputs.secrets.uses().run(app.engines.clone()));
    tasks.spawn(app.accounts.clone().save_usage());
    let Workloads { targets, traffic } = app.workloads.clone();
    tasks.spawn(record_history(
        app.observations.baseline_history.clone(),
        targets.clone(),
        traffic,
    ));
    tasks.spawn(effects::environment_health::run(
        app.engines.clone(),
        targets,
        app.store.clone(),
        app.clock.clone(),
    ));
    tasks.spawn(follow_projections(app.store.clone()));
    tasks.spawn(follow_matrix(
        app.matrix.clone(),
        app.store.clone(),
        app.workloads.targets.clone(),
        app.clock.clone(),
    ));
    for repo in repos {
        let pushes = app.pushes.clone();
        tasks.spawn(async move {
            if let Err(error) = crate::followed_repo::run(pushes, &repo).await {
                tracing::error!(%error, path = %repo.display(), "the repository can't be followed");
            }
        });
    }
    tasks.spawn(ReportFollower::new(&app.pushes, &app.forges).run());
    let (store, clock) = (app.store.clone(), app.clock.clone());
    tasks.spawn(app.keyed_requests.prune(store, clock));
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
        self.app.accounts.stop().await;
        self.app.engines.stop().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.app.store.checkpoint().await {
            tracing::warn!(%error, "shipway.db is incomplete without shipway.db-wal: copy both for a backup");
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
                "stopped processes that the previous server left running"
            );
            let label = jiff::Timestamp::now().as_second().to_string();
            let aside = data.set_aside(&label).map_err(|source| StartError::Io {
                what: format!("moving what is in {} aside", data.path().display()),
                source,
            })?;
            let aside = aside.map(|aside| aside.display().to_string());
            tracing::warn!(found, aside, "starting with an empty event log");
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
    let client_secret = options
        .openid
        .as_ref()
        .and_then(|it| it.secret_file.as_ref());
    let files = options.secrets.iter().chain(token_file.filter(|_| of_web));
    let files = files.chain(client_secret);
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
    Ok(recorded.and_then(|it| it.recorded_at()))
}

fn secret_resolver(secrets: SecretStore) -> process::SecretResolver {
    Arc::new(move |set, name| {
        let place = SecretPlace {
            service: &set.place.service,
            environment: Some(&set.place.environment),
        };
        let user = SecretUser::Instances {
            environment: set.place.environment.clone(),
            release: set.release.released(),
        };
        secrets.find(place, name, &user)
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
