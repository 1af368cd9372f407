//! `shipway run`: one workflow, here, without a server. The same decisions as on the server, the same workers; only the log of
//! the run is in memory.

mod follow;
mod local;
mod pick;
mod show;

use std::{path::PathBuf, process::ExitCode};

use local::Local;
use shipway_drivers::jobs::JobRunner;
use shipway_workflow::job::Conclusion;
use show::Show;

use crate::{
    exit::Failure,
    forge::{Forge, user_cache},
    print::{Output, line},
};

/// Run a workflow here, without a server
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workflow; the only one in .github/workflows when not said
    workflow: Option<PathBuf>,
    /// The event it is started by
    #[arg(long, default_value = "push", value_name = "EVENT")]
    event: String,
    /// Only this job and those it needs
    #[arg(long, short, value_name = "ID")]
    job: Option<String>,
    /// Only these cells of matrices, as NAME:VALUE; may be given several times
    #[arg(long, value_name = "NAME:VALUE")]
    matrix: Vec<String>,
    /// An input, as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// A secret, as NAME=VALUE, or NAME to take it from the environment; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret: Vec<String>,
    /// A variable (`vars`), as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// An environment variable of all jobs, as NAME=VALUE; what the workflow says goes over it
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    forge: Forge,
    /// Keep the jobs' folders
    #[arg(long)]
    keep: bool,
}

/// Runs the workflow; exit code 1 when it isn't green.
pub fn run(args: Args, output: Output) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let file = pick::read_workflow(args.workflow.as_deref(), args.job.as_deref())?;
    let cells = pick::cells(&args.matrix, &file.workflow)?;
    let here = std::env::current_dir().map_err(|error| Failure::usage(error.to_string()))?;
    let inputs = pick::pairs(&args.input)?;
    let vars = pick::pairs(&args.var)?;
    let secrets = pick::secrets(&args.secret)?;
    let actions = args.forge.source(user_cache())?;
    let several_jobs = file.has_several_jobs();
    let spec = pick::spec(&here, file.file, &args.event, inputs, vars)?;
    let folder = tempfile::Builder::new()
        .prefix("shipway-run-")
        .disable_cleanup(args.keep)
        .tempdir()
        .map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let exe = std::env::current_exe().map_err(failed)?;
    let local = Local {
        spec,
        secrets,
        env: pick::pairs(&args.env)?,
        actions,
        cells,
        here,
        runner: JobRunner::new(exe, folder.path().to_owned()),
        show: Show::new(output, several_jobs),
        keep: args.keep,
    };
    let conclusion = runtime.block_on(local.drive())?;
    if args.keep && !output.json {
        let folder = folder.path().display();
        line(&format!("The jobs' folders are in {folder}"));
    }
    Ok(match conclusion {
        Conclusion::Success | Conclusion::Skipped => ExitCode::SUCCESS,
        Conclusion::Failure | Conclusion::Cancelled => ExitCode::from(1),
    })
}
