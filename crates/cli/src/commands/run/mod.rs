//! `shipway run`: workflows, here, without a server. The same decisions as on the server, the same workers; only the log of
//! the run is in memory.

mod dotenv;
mod follow;
mod inputs;
mod list;
mod local;
mod plan;
mod selection;
mod show;
mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use inputs::{Asking, Given};
use local::{Ended, Local};
use shipway_core::source_repository::SourceRepository;
use shipway_drivers::{
    jobs::JobRunner,
    reusable_workflows::{calls_unread_workflow, read_called_workflows},
};
use shipway_workflow::job::{ActionSource, Conclusion};
use show::Show;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{
    exit::Failure,
    forge::{Forge, user_cache},
    limits::JobLimits,
    print::{Output, error_line, line},
    runner::RunnerOptions,
};

const EXAMPLES: &str = "\
Examples:
  shipway run                                  the workflows in .github/workflows that a push triggers
  shipway run ci.yml --job test                one job and the jobs it needs
  shipway run ci.yml --matrix os:linux         only these matrix combinations
  shipway run ci.yml --dry-run                 what would run and why, without running it
  shipway run --event release --payload event.json
                                               the workflows that a release triggers, with this payload
  shipway run ci.yml --secret TOKEN --secret-file .secrets
                                               one secret from the environment or a prompt, others from a file
  shipway run ci.yml --watch                   re-run whenever a file changes
  shipway run --list                           list the jobs

Jobs run on this machine, each in its own folder; Docker is only needed for containers. `github.sha` is the checked-out \
commit; uncommitted changes are included. Jobs that this machine can't run (a label of `runs-on` is missing, see --label, or \
there is no container engine) are left out with the reason; jobs that need them are skipped.

Exit codes: 0 success, 1 failed or cancelled, 2 usage or configuration error, 5 incomplete (jobs or steps were left out).";

/// The exit code of a run in which jobs or steps were left out.
const INCOMPLETE: u8 = 5;

/// Run workflows here, without a server
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The workflow, or a folder with workflows that the event triggers (default: .github/workflows)
    #[arg(value_name = "WORKFLOW")]
    workflows: Vec<PathBuf>,
    /// The event that triggers the workflow
    #[arg(long, default_value = "push", value_name = "EVENT")]
    event: String,
    /// JSON file with the event payload (`github.event`)
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// The repository on a forge, as OWNER/NAME or URL (`github.repository`); default: the remote `origin`
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<SourceRepository>,
    /// Run only this job and the jobs it needs
    #[arg(long, short, value_name = "ID")]
    job: Option<String>,
    /// Run only these matrix combinations, as NAME:VALUE; repeatable
    #[arg(long, value_name = "NAME:VALUE")]
    matrix: Vec<String>,
    /// An input, as NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// Inputs from a file with NAME=value lines
    #[arg(long, value_name = "FILE")]
    input_file: Vec<PathBuf>,
    /// A secret, as NAME=VALUE, or NAME to read it from the environment or a prompt; repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    secret: Vec<String>,
    /// Secrets from a file with NAME=value lines (.env format)
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// A variable (`vars`), as NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Variables from a file with NAME=value lines
    #[arg(long, value_name = "FILE")]
    var_file: Vec<PathBuf>,
    /// An environment variable of all jobs, as NAME=VALUE; values in the workflow take precedence
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    forge: Forge,
    /// Environment variables of all jobs from a file with NAME=value lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Maximum number of parallel jobs; default: two per core, at least four
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    limits: JobLimits,
    #[command(flatten)]
    runner: RunnerOptions,
    /// Print the plan without running anything
    #[arg(long, short = 'n', conflicts_with_all = ["list", "watch"])]
    dry_run: bool,
    /// List the jobs without running them
    #[arg(long, short, conflicts_with = "watch")]
    list: bool,
    /// Re-run whenever a file changes that git doesn't ignore
    #[arg(long, short)]
    watch: bool,
    /// Keep the workspaces of the jobs
    #[arg(long)]
    keep: bool,
    /// Open a shell in the workspace of a failed job at the end of the run (terminal only)
    #[arg(long, conflicts_with_all = ["list", "watch", "dry_run"])]
    shell_on_failure: bool,
}

/// Runs the workflows; exit code 1 when one isn't green.
pub fn run(args: &Args, output: Output) -> Result<ExitCode, Failure> {
    if args.list {
        return list::run(&args.workflows, output).map(|()| ExitCode::SUCCESS);
    }
    let here = std::env::current_dir().map_err(|error| Failure::usage(error.to_string()))?;
    let asking = if args.dry_run {
        Asking::Not
    } else {
        Asking::May
    };
    let given = Given::read(args, asking)?;
    let actions = ActionSource {
        allow_other_versions: args.runner.allow_other_versions(),
        ..args.forge.source(user_cache())?
    };
    let site = Site {
        args,
        output,
        here,
        given,
        actions,
        stop: CancellationToken::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    if args.dry_run {
        return site.plan(&runtime).map(|()| ExitCode::SUCCESS);
    }
    if args.watch {
        return watch::run(site, &runtime).map(|()| ExitCode::SUCCESS);
    }
    let ended = site.run(&runtime)?;
    Ok(match ended.conclusion {
        Conclusion::Success | Conclusion::Skipped => ExitCode::SUCCESS,
        Conclusion::Failure | Conclusion::Cancelled => ExitCode::from(1),
        Conclusion::Incomplete => ExitCode::from(INCOMPLETE),
    })
}

/// Orders how runs end, the worst last.
const fn badness(conclusion: Conclusion) -> u8 {
    match conclusion {
        Conclusion::Success | Conclusion::Skipped => 0,
        Conclusion::Incomplete => 1,
        Conclusion::Failure | Conclusion::Cancelled => 2,
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::Failed(error.to_string())
}

/// The workflow, its folder and its tools.
struct Site<'a> {
    args: &'a Args,
    output: Output,
    here: PathBuf,
    given: Given,
    /// Where other people's actions come from.
    actions: ActionSource,
    /// Cancels the running jobs because files have changed.
    stop: CancellationToken,
}

impl Site<'_> {
    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let event = selection::SelectingEvent {
            name: &self.args.event,
            payload: self.given.payload.as_ref(),
        };
        selection::workflows(&self.args.workflows, Some(event))
    }

    /// The workflow with all that it calls, other repositories' too.
    fn read(&self, path: &Path, runtime: &Runtime) -> Result<selection::Picked, Failure> {
        let mut picked = selection::read_workflow(path, self.args.job.as_deref())?;
        if calls_unread_workflow(&picked.file) {
            let scratch = tempfile::Builder::new().prefix("shipway-forge-").tempdir();
            let scratch = scratch.map_err(failed)?;
            let reading = read_called_workflows(&mut picked.file, &self.actions, scratch.path());
            for note in runtime.block_on(reading) {
                error_line(&format!("warning: {note}"));
            }
        }
        Ok(picked)
    }

    fn plan(&self, runtime: &Runtime) -> Result<(), Failure> {
        let mut plans = Vec::new();
        for path in self.paths()? {
            let file = self.read(&path, runtime)?;
            let cells = selection::cells(&self.args.matrix, &file.workflow)?;
            let (event, given) = (&self.args.event, &self.given);
            let spec = selection::spec(&self.here, 1, file.file, event, given)?;
            plans.push(plan::plan(&spec, &cells, &self.args.runner.labels())?);
        }
        if self.output.json {
            return self.output.document(&plans);
        }
        let texts: Vec<String> = plans.iter().map(plan::Plan::text).collect();
        line(texts.join("\n").trim_end());
        Ok(())
    }

    /// Runs one workflow after the other; as bad as the worst of them.
    fn run(&self, runtime: &Runtime) -> Result<Ended, Failure> {
        let paths = self.paths()?;
        let folder = tempfile::Builder::new()
            .prefix("shipway-run-")
            .disable_cleanup(self.args.keep)
            .tempdir()
            .map_err(failed)?;
        let exe = std::env::current_exe().map_err(failed)?;
        let runner = JobRunner::new(exe, folder.path().to_owned())
            .with_volatile_workers()
            .with_limits(self.args.limits.limits())
            .with_labels(self.args.runner.labels());
        let mut worst = Ended {
            conclusion: Conclusion::Success,
            interrupted: false,
        };
        for (number, path) in (1..).zip(&paths) {
            if paths.len() > 1 && !self.output.json && !self.output.quiet {
                line(&format!("── {} ──", path.display()));
            }
            let local = self.local(path, number, runner.clone(), runtime)?;
            let ended = runtime.block_on(local.drive())?;
            runtime.block_on(runner.wait_for_exits());
            if badness(ended.conclusion) >= badness(worst.conclusion) {
                worst = ended;
            }
            if ended.interrupted || self.stop.is_cancelled() {
                break;
            }
        }
        if self.args.keep && !self.output.json {
            let folder = folder.path().display();
            line(&format!("The jobs' folders are in {folder}"));
        }
        Ok(worst)
    }

    /// Says which secrets the workflow asks for that are nowhere: their values are empty, and what fails then doesn't say why.
    fn warn_missing_secrets(&self, asked: &BTreeSet<String>) {
        let given = |name: &String| {
            let mut names = self.given.secrets.keys();
            // Every run has this one by itself.
            name == "GITHUB_TOKEN" || names.any(|it| it.eq_ignore_ascii_case(name))
        };
        let missing: Vec<&str> = (asked.iter().filter(|it| !given(it)))
            .map(String::as_str)
            .collect();
        if let Some(first) = missing.first() {
            let names = missing.join(", ");
            error_line(&format!(
                "secrets that were not given are empty: {names} (set one with --secret {first})"
            ));
        }
    }

    fn local(
        &self,
        path: &Path,
        number: u32,
        runner: JobRunner,
        runtime: &Runtime,
    ) -> Result<Local, Failure> {
        let args = self.args;
        let file = self.read(path, runtime)?;
        let cells = selection::cells(&args.matrix, &file.workflow)?;
        let jobs = file.job_count();
        if !self.output.json {
            self.warn_missing_secrets(&file.secrets);
        }
        let hint = show::Hint {
            workflow: path.display().to_string(),
            kept: args.keep,
        };
        Ok(Local {
            spec: selection::spec(&self.here, number, file.file, &args.event, &self.given)?,
            secrets: self.given.secrets.clone(),
            env: self.given.env.clone(),
            actions: self.actions.clone(),
            cells,
            here: self.here.clone(),
            runner,
            show: Show::new(self.output, jobs),
            keep: args.keep,
            shell_on_failure: args.shell_on_failure,
            hint,
            jobs_max: args.jobs.map_or_else(super::jobs_max, usize::from),
            stop: self.stop.clone(),
            stop_reason: "files have changed",
        })
    }
}
