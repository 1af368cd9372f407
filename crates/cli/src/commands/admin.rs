//! `shipway admin`: maintenance of a data directory, and files for the installation.

use std::path::PathBuf;

use shipway_core::{
    address::claims::AddressClaims, audit::AuditLog, delivery::DeliveryCounts,
    outbox::OutboxAggregate, rollout::RolloutAggregate, run::RunAggregate,
    service::ServiceAggregate,
};
use shipway_store::{DataDir, SqliteOptions, SqliteStore, rebuild_projection, rebuild_rows};

use super::{install_files, prune, server::default_data};
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, counted, line},
};

/// Maintain a data directory, or install shell completions, man pages and a systemd unit
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Rebuild the read models from the event log; stop the server first
    Rebuild(Folder),
    /// Stop the proxy, instances and jobs that a stopped server left running
    StopAll(Folder),
    /// Remove old artifacts, logs, workspaces and git objects of a running server now
    Prune(prune::PruneArgs),
    /// Write shell completions, man pages and a systemd unit below a prefix such as /usr/local
    InstallFiles(install_files::InstallFilesArgs),
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// The data directory; default: ~/.local/share/shipway
    #[arg(long, env = "SHIPWAY_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command. `command_line` describes all commands of the program.
pub fn run(
    args: &Args,
    server: &ServerConnection,
    output: Output,
    command_line: &mut clap::Command,
) -> Result<(), Failure> {
    match &args.command {
        Command::Rebuild(folder) => with_locked_data(folder, async |data| rebuild(&data).await),
        Command::StopAll(folder) => with_locked_data(folder, async |data| {
            stop_all(&data).await;
            Ok(())
        }),
        Command::Prune(args) => prune::run(args, server, output),
        Command::InstallFiles(args) => install_files::run(args, command_line),
    }
}

async fn stop_all(data: &DataDir) {
    let stopped = shipway_drivers::stop_all(data.path()).await;
    line(&format!(
        "stopped {}, {}{}",
        counted(stopped.instances, "instance"),
        counted(stopped.jobs, "job"),
        if stopped.proxy { " and the proxy" } else { "" }
    ));
}

/// Locks the data directory, so that no server uses it meanwhile.
fn with_locked_data(
    folder: &Folder,
    work: impl AsyncFnOnce(DataDir) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = folder.data.clone().map_or_else(default_data, Ok)?;
    if !path.is_dir() {
        return Err(Failure::usage(format!(
            "there is no data directory {}",
            path.display()
        )));
    }
    let data = DataDir::lock(&path).map_err(|error| Failure::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(work(data))
}

async fn rebuild(data: &DataDir) -> Result<(), Failure> {
    let store = SqliteStore::open(&data.path().join("shipway.db"), SqliteOptions::default())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let failed = |error: shipway_engine::StoreError| Failure::Failed(error.to_string());
    let mut rows = rebuild_rows::<ServiceAggregate>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_rows::<AddressClaims>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_rows::<RunAggregate>(&store).await.map_err(failed)?;
    rows += rebuild_rows::<OutboxAggregate>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_rows::<RolloutAggregate>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_projection::<DeliveryCounts>(&store)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    rows += rebuild_projection::<AuditLog>(&store)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    line(&format!("{rows} rows rebuilt"));
    Ok(())
}
