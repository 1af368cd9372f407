//! The processes that a server starts: proxy, worker, instance, git hook. The proxy can be used alone.

use std::{net::SocketAddr, path::PathBuf};

use shipway_worker::Durability;

use crate::exit::Failure;

/// Run only the proxy; routes are received over its control socket
#[derive(Debug, clap::Args)]
pub struct Proxy {
    /// Address to listen on; repeatable
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: Vec<SocketAddr>,

    /// The control socket
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,

    /// Directory where the last routes are saved
    #[arg(long, value_name = "DIR")]
    state: PathBuf,

    /// Number of threads; 0: one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    workers: usize,

    /// A trusted proxy in front, as an address or a network in CIDR notation: its X-Forwarded-*, Forwarded and X-Real-IP headers are kept, those of other clients are replaced; repeatable
    #[arg(long, value_name = "CIDR")]
    trust_proxy: Vec<shipway_proxy::TrustedNetwork>,
}

/// Run one job; started by the server and by `shipway run`
#[derive(Debug, clap::Args)]
pub struct Worker {
    /// The job's folder
    #[arg(long)]
    pub dir: PathBuf,

    /// Don't sync the journal to disk: it is not needed after a crash of the machine
    #[arg(long)]
    pub volatile: bool,
}

/// Runs the job; exit code 1 when it isn't green.
pub fn worker(args: &Worker) -> std::process::ExitCode {
    let keeping = if args.volatile {
        Durability::Volatile
    } else {
        Durability::Durable
    };
    shipway_worker::run_job(&args.dir, keeping)
}

/// Run one instance; started by the server
#[derive(Debug, clap::Args)]
pub struct Instance {
    /// The instance's folder
    #[arg(long)]
    pub dir: PathBuf,
}

/// Report a push to the server; called by git
#[derive(Debug, clap::Args)]
pub struct Hook {
    /// Which of git's hooks
    name: String,
}

/// Runs the proxy until it gets a signal.
pub fn proxy(args: Proxy) -> Result<(), Failure> {
    crate::print::log_to_stderr();
    shipway_targets::open_files::raise_limit();
    let options = shipway_proxy::ProxyOptions {
        listen: args.listen,
        control: args.control,
        state: args.state,
        workers: args.workers,
        trusted: args.trust_proxy,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let ready = |addresses: &[SocketAddr]| tracing::info!("proxy listening on {addresses:?}");
    runtime
        .block_on(shipway_proxy::run(options, ready))
        .map_err(|error| Failure::usage(error.to_string()))
}
