//! `shipway admin`: care of a data directory.

use std::path::PathBuf;

use shipway_core::{
    delivery::DeliveryCounts, rollout::RolloutAggregate, run::RunAggregate,
    service::ServiceAggregate,
};
use shipway_store::{DataDir, SqliteOptions, SqliteStore, rebuild_projection, rebuild_rows};

use super::server::default_data;
use crate::{
    exit::Failure,
    print::{counted, line},
};

/// Care of a data directory while no server uses it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the read models anew from the log
    Rebuild(Folder),
    /// Stop the proxy, the instances and the jobs that a server has left running
    StopAll(Folder),
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// The data directory; default: ~/.local/share/shipway
    #[arg(long, env = "SHIPWAY_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Does it, with the data directory locked.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (Command::Rebuild(folder) | Command::StopAll(folder)) = &args.command;
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
    runtime.block_on(async {
        match &args.command {
            Command::Rebuild(_) => rebuild(&data).await,
            Command::StopAll(_) => {
                let stopped = shipway_drivers::stop_all(data.path()).await;
                line(&format!(
                    "stopped {}, {}{}",
                    counted(stopped.instances, "instance"),
                    counted(stopped.jobs, "job"),
                    if stopped.proxy { " and the proxy" } else { "" }
                ));
                Ok(())
            }
        }
    })
}

async fn rebuild(data: &DataDir) -> Result<(), Failure> {
    let store = SqliteStore::open(&data.path().join("shipway.db"), SqliteOptions::default())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let failed = |error: shipway_engine::StoreError| Failure::Failed(error.to_string());
    let mut rows = rebuild_rows::<ServiceAggregate>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_rows::<RunAggregate>(&store).await.map_err(failed)?;
    rows += rebuild_rows::<RolloutAggregate>(&store)
        .await
        .map_err(failed)?;
    rows += rebuild_projection::<DeliveryCounts>(&store)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    line(&format!("{rows} rows made anew"));
    Ok(())
}
