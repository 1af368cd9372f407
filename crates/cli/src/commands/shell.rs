//! `shipway shell`: a shell where a step of a job stood, in the job's workspace, with the variables that the step had. On the
//! server's machine only: the workspace is there, and nothing of it goes over the network.

use std::{
    io::{self, IsTerminal, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use shipway_api::{ApiClient, ShellRequest};
use shipway_core::{
    ids::RunId,
    run::{JobView, RunStatus, RunView},
};
use shipway_worker::{
    DebugShellContext, SecretAccess, build_debug_shell_context, read_attempt_progress,
};
use shipway_workflow::job::{JobSpec, ResumePoint};

use super::id_args::run_id;
use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, error_line, error_text},
};

const EXAMPLES: &str = "\
Examples:
  shipway shell r12                         in the failed job of r12
  shipway shell r12 test.2 --step build     in another job, at another step
  shipway shell r12 test -- make test       run one command there, with its exit code

Works only on the server's machine, for a user with access to the server's data directory. Variables that contain secrets \
are left out; --with-secrets includes them, which is recorded. Changes in the workspace are used when the job is resumed: \
shipway retry r12 --from-failed-step";

/// Open a shell in the workspace of a failed job, with the variables of its failed step
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The run, such as r12 or shop/r12
    id: String,
    /// The key of the job (default: the failed job, if there is only one)
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// The id of the step (default: the failed one)
    #[arg(long, value_name = "ID")]
    step: Option<String>,
    /// Include the job's secrets; this is recorded in the audit log
    #[arg(long)]
    with_secrets: bool,
    /// A command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Becomes the shell; comes back only with why not.
pub fn run(server: &ServerConnection, args: &Args, output: Output) -> Result<ExitCode, Failure> {
    if args.command.is_empty() && !io::stdin().is_terminal() {
        return Err(Failure::usage_with(
            "a shell needs a terminal",
            format!("give a command: shipway shell {} … -- make test", args.id),
        ));
    }
    let run = server.run(&run_id(server, &args.id)?)?;
    let job = find_job(&run, args.job.as_deref())?;
    let spec = fetch_spec(server, &run.id, &job.key, args)?;
    let secrets = if args.with_secrets {
        SecretAccess::Granted
    } else {
        SecretAccess::Withheld
    };
    let resume = spec
        .resume
        .clone()
        .ok_or_else(|| Failure::Failed("the server named no step".to_owned()))?;
    let stand = shell_context(&spec, &resume, secrets)?;
    if !output.quiet {
        let why = job.why.as_deref().unwrap_or_default();
        let title = format!("{} {}, attempt {}", run.id, job.name, resume.attempt);
        error_text(&head(&title, &stand, why));
    }
    let prompt = format!("[{} {}] ", run.id, job.key);
    let error = command(&stand, &args.command, &prompt).exec();
    Err(unstarted(&args.command, &error))
}

/// A shell where the job of this spec failed; waits for its end. For `shipway run`.
pub fn open_in_failed_job(spec: &JobSpec, attempt: u32) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        error_line("no shell opened: this is not a terminal");
        return Ok(());
    }
    let failed = read_attempt_progress(&spec.mounts.folder, &spec.steps).ok();
    let Some(step) = failed.and_then(|standing| standing.failed) else {
        error_line(&format!("no shell opened: no step of {} failed", spec.name));
        return Ok(());
    };
    let resume = ResumePoint { attempt, step };
    let stand = shell_context(spec, &resume, SecretAccess::Granted)?;
    error_text(&head(&spec.name, &stand, ""));
    // Ctrl-C belongs to the shell: this process already ignores it.
    let ended = command(&stand, &[], &format!("[{}] ", spec.key)).status();
    ended.map(drop).map_err(|error| unstarted(&[], &error))
}

/// The selected job: the named one, or the only failed one.
fn find_job<'r>(run: &'r RunView, named: Option<&str>) -> Result<&'r JobView, Failure> {
    let jobs = || run.jobs.iter().filter(|job| job.calls.is_none());
    let keys = |jobs: &[&JobView]| {
        let keys: Vec<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
        keys.join(", ")
    };
    if let Some(named) = named {
        let found = jobs().find(|job| job.key == named);
        return found.ok_or_else(|| {
            let known: Vec<&JobView> = jobs().collect();
            Failure::usage_with(
                format!("{} has no job {named}", run.id),
                format!("its jobs are {}", keys(&known)),
            )
        });
    }
    let has_failed =
        |job: &&JobView| matches!(job.status, RunStatus::Failure | RunStatus::Cancelled);
    let failed: Vec<&JobView> = jobs().filter(has_failed).collect();
    match failed.as_slice() {
        [job] => Ok(job),
        [] => Err(Failure::usage_with(
            format!("no job of {} failed", run.id),
            "workspaces of successful jobs are deleted when their run ends",
        )),
        several => Err(Failure::usage_with(
            format!("several jobs of {} failed: name one", run.id),
            format!("the jobs are {}", keys(several)),
        )),
    }
}

/// The job's specification, passed through a file in its folder: a user without access to the folder gets no shell.
fn fetch_spec(
    server: &ServerConnection,
    run: &RunId,
    job: &str,
    args: &Args,
) -> Result<JobSpec, Failure> {
    let request = |file: Option<&str>| ShellRequest {
        step: args.step.clone(),
        secrets: args.with_secrets,
        file: file.map(str::to_owned),
    };
    let location = server.prepare_shell(run, job, &request(None))?;
    let file = tempfile::Builder::new()
        .prefix("shell-")
        .suffix(".json")
        .rand_bytes(24)
        .tempfile_in(&location.folder)
        .map_err(|error| no_access(&location.folder, &error))?;
    let name = file.path().file_name().unwrap_or_default();
    server.prepare_shell(run, job, &request(name.to_str()))?;
    let mut text = String::new();
    // It is opened; its end removes it.
    (file.as_file().read_to_string(&mut text))
        .map_err(|error| no_access(&location.folder, &error))?;
    let spec = serde_json::from_str(&text);
    spec.map_err(|error| {
        let (step, attempt) = (&location.step, location.attempt);
        Failure::Failed(format!(
            "what the server says of the step {step} of attempt {attempt} can't be read: {error}"
        ))
    })
}

fn no_access(folder: &Path, error: &io::Error) -> Failure {
    let folder = folder.display();
    let help = match error.kind() {
        io::ErrorKind::NotFound => {
            "the job's workspace is on the server's machine: open the shell there"
        }
        _ => "open the shell as the user that the server runs as",
    };
    Failure::usage_with(format!("can't access {folder}: {error}"), help)
}

fn shell_context(
    spec: &JobSpec,
    resume: &ResumePoint,
    secrets: SecretAccess,
) -> Result<DebugShellContext, Failure> {
    build_debug_shell_context(spec, resume, secrets)
        .map_err(|lost| Failure::Failed(format!("no shell can be opened in {}: {lost}", spec.name)))
}

/// The text before the first prompt.
fn head(title: &str, stand: &DebugShellContext, why: &str) -> String {
    let why = match why {
        "" => String::new(),
        why => format!("; it failed: {}", why.lines().next().unwrap_or(why)),
    };
    let mut head = format!("{title}: step {:?} ({}){why}\n", stand.name, stand.step);
    for line in stand.command.lines() {
        head.push_str(&format!("    {line}\n"));
    }
    head.push_str(&format!("in {}\n", stand.folder.display()));
    for differs in &stand.differs {
        head.push_str(&format!("differs from the job: {differs}\n"));
    }
    if !stand.left_out.is_empty() {
        head.push_str(&format!(
            "left out because they contain secrets: {} (include them with --with-secrets, which is recorded)\n",
            stand.left_out.join(", ")
        ));
    }
    head
}

/// The shell, or the given command.
fn command(stand: &DebugShellContext, words: &[String], prompt: &str) -> Command {
    let mut command = match words {
        [] => {
            let mut shell = Command::new(if has_bash(stand) { "bash" } else { "sh" });
            if has_bash(stand) {
                shell.args(["--norc", "--noprofile"]);
            }
            shell.arg("-i");
            shell
        }
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
    };
    command.env_clear().current_dir(&stand.folder);
    if let Ok(terminal) = std::env::var("TERM") {
        command.env("TERM", terminal);
    }
    if words.is_empty() {
        command.env("PS1", format!("{prompt}\\w \\$ "));
    }
    command.envs(stand.env.iter().map(|(name, value)| (name, value)));
    command
}

fn has_bash(stand: &DebugShellContext) -> bool {
    let path = stand.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, path)| path.as_str());
    std::env::split_paths(path).any(|folder| folder.join("bash").is_file())
}

fn unstarted(words: &[String], error: &io::Error) -> Failure {
    let program = words.first().map_or("the shell", String::as_str);
    Failure::Failed(format!("{program} can't be run: {error}"))
}
