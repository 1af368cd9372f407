//! `shipway server`: the control plane, until it gets a signal.

use std::{net::SocketAddr, path::PathBuf};

use shipway_workflow::job::ActionSource;

use crate::{
    client::ServerConnection, exit::Failure, forge::Forge, limits::JobLimits,
    openid::OpenIdLoginOptions, retention::RetentionOptions, runner::RunnerOptions,
};

/// Start a server: git remote, runs, rollouts, API and pages; the proxy and instances outlive it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data directory; default: ~/.local/share/shipway
    #[arg(long, env = "SHIPWAY_DATA", value_name = "DIR")]
    data: Option<PathBuf>,

    /// Address of the API, the git remote and the pages
    #[arg(long, default_value = "127.0.0.1:7878", value_name = "ADDR")]
    listen: SocketAddr,

    /// Address of the proxy, for the traffic of the services
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    proxy_listen: SocketAddr,

    /// Threads of the proxy; 0: one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    proxy_workers: usize,

    /// A trusted proxy in front of Shipway's, as an address or a network in CIDR notation: its X-Forwarded-*, Forwarded and X-Real-IP headers are kept, those of other clients are replaced; repeatable. A proxy that is already running keeps its setting
    #[arg(long, value_name = "CIDR")]
    trust_proxy: Vec<shipway_proxy::TrustedNetwork>,

    /// File with NAME=value lines, readable only by you: the secrets of workflows, instances and notifications; lines below `[ENVIRONMENT]` belong to that environment
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// A local repository to follow: its commits count as pushed; repeatable
    #[arg(long, value_name = "PATH")]
    repo: Vec<PathBuf>,

    /// Maximum number of parallel jobs; others are queued. Default: two per core, at least four
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    #[command(flatten)]
    limits: JobLimits,

    /// Run jobs without the sandbox: they can access everything that the server's user can (keys, secrets, mounts, other processes). For jobs that run their own container engine
    #[arg(long)]
    unconfined_jobs: bool,

    /// Start the workers of jobs in empty folders below DIR, as if on another machine: inputs and records go over HTTP. For tests; such jobs are not confined
    #[arg(long, value_name = "DIR", hide = true)]
    jobs_in_empty_folders: Option<PathBuf>,

    /// How long artifacts and reports of a job wait for disk space before the job fails
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    storage_wait: jiff::SignedDuration,

    #[command(flatten)]
    retention: RetentionOptions,

    #[command(flatten)]
    runner: RunnerOptions,

    /// External URL of this server, if it differs from --listen
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,

    /// The repository on a forge for services without `repository` in shipway.yaml, as OWNER/NAME or URL (`github.repository`)
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<shipway_core::source_repository::SourceRepository>,

    /// Start with an empty event log in a data directory that was used before; files of earlier runs and instances are moved to DATA/set-aside
    #[arg(long)]
    new_log: bool,

    #[command(flatten)]
    forge: Forge,

    #[command(flatten)]
    openid: OpenIdLoginOptions,
}

/// Runs the server until SIGTERM or Ctrl-C.
pub fn run(args: Args, shared: &ServerConnection) -> Result<(), Failure> {
    crate::print::log_to_stderr();
    shipway_targets::open_files::raise_limit();
    protect_memory();
    let data = args.data.map_or_else(default_data, Ok)?;
    let exe = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("can't locate this program: {error}")))?;
    let options = shipway_server::ServerOptions {
        data: data.clone(),
        listen: args.listen,
        proxy_listen: args.proxy_listen,
        proxy_workers: args.proxy_workers,
        trust_proxy: args.trust_proxy,
        // An empty one, as from a variable that is set to nothing, guards nothing.
        token: shared.token.clone().filter(|token| !token.is_empty()),
        secrets: args.secrets,
        repos: args.repo,
        actions: ActionSource {
            allow_other_versions: args.runner.allow_other_versions(),
            ..args.forge.source(None)?
        },
        public_url: args.public_url,
        exe,
        jobs: args.jobs.map_or_else(super::jobs_max, usize::from),
        job_limits: args.limits.limits(),
        runner_labels: args.runner.labels(),
        repository: args.repository,
        crash_after_events: std::env::var("SHIPWAY_CRASH_AFTER_EVENTS")
            .ok()
            .and_then(|text| text.parse().ok()),
        unconfined_jobs: args.unconfined_jobs,
        empty_job_folders: args.jobs_in_empty_folders,
        storage_wait: args.storage_wait.unsigned_abs(),
        retention: args.retention.policy(),
        openid: args.openid.provider()?,
        missing_log: match args.new_log {
            true => shipway_server::MissingLog::StartEmpty,
            false => shipway_server::MissingLog::Refuse,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(async {
        let running = shipway_server::start(options)
            .await
            .map_err(|error| Failure::usage(error.to_string()))?;
        tracing::info!("pages and API  {}", running.app.url());
        tracing::info!("proxy          {}", running.app.proxy_url());
        tracing::info!("data           {}", data.display());
        tracing::info!("push to        {}/git/SERVICE", running.app.url());
        if let Some(url) = running.app.setup_url().await {
            tracing::info!("first admin    {url}  (once, within an hour; until then everyone on this machine may do everything)");
        }
        terminated().await;
        tracing::info!("stopping; the proxy, instances and jobs keep running");
        running.stop().await;
        Ok(())
    })
}

/// Jobs of a server that isn't root have its user: they must not read its memory, or its token in its environment.
fn protect_memory() {
    let private = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(private) {
        tracing::debug!(%error, "other processes of the server's user can read the server's memory");
    }
}

/// `~/.local/share/shipway`, as the desktop's rules have it.
pub fn default_data() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    base.map(|base| base.join("shipway")).ok_or_else(|| {
        Failure::usage_with(
            "no home directory for the data directory",
            "set the data directory with --data",
        )
    })
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut term) => {
            tokio::select! {
                _ = interrupt => {}
                _ = term.recv() => {}
            }
        }
        Err(_) => drop(interrupt.await),
    }
}
