//! One job from its first step to its last line in the journal.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use shipway_workflow::{
    expr::{Contexts, EvalError, Names, Object, Status, Value},
    job::{Conclusion, JobSpec, JournalBody, Level},
    model::{Action, Step},
};
use tokio_util::sync::CancellationToken;

use crate::{
    actions::{self, Call},
    command::{self, Command},
    environment::{Folders, arch, base, fixed},
    exec::{self, Ended, Invocation},
    files,
    hash::Workspace,
    journal::Journal,
    log::Log,
    mask::Masker,
    process::kill_strays,
};

/// What the worker is given, in the job's folder; holds secrets, and is removed once read.
pub const JOB_FILE: &str = "job.json";
/// The journal, in the job's folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The log, in the job's folder.
pub const LOG_FILE: &str = "log";
/// A step's summary may have this many bytes.
const SUMMARY_BYTES_MAX: u64 = 1 << 20;
/// Annotations of a step that are kept; more help nobody.
const ANNOTATIONS_MAX: u32 = 50;

/// Runs the job in `folder` to its end: the main function of `shipway worker --dir FOLDER`.
#[must_use]
pub fn run(folder: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(work(folder)));
    match outcome {
        Ok(Conclusion::Success | Conclusion::Skipped) => ExitCode::SUCCESS,
        Ok(Conclusion::Failure | Conclusion::Cancelled) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shipway worker: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

async fn work(folder: &Path) -> io::Result<Conclusion> {
    let lock = File::create(folder.join("worker.lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another worker runs this job"))?;
    let job_file = folder.join(JOB_FILE);
    let spec: JobSpec = serde_json::from_slice(&fs::read(&job_file)?)?;
    fs::remove_file(&job_file)?;
    // Strays of steps become our children, so that they can be ended and named.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut job = Job::begin(spec, folder)?;
    let cancelled = CancellationToken::new();
    tokio::spawn(cancel_on_term(cancelled.clone()));
    let timeout = Duration::from_millis(job.spec.timeout_ms);
    let deadline = Instant::now() + timeout;
    for index in 0..job.spec.steps.len() {
        job.step(index, deadline, &cancelled).await?;
    }
    job.end(&cancelled)
}

async fn cancel_on_term(cancelled: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    }
}

/// A job under way.
struct Job {
    spec: JobSpec,
    folders: Folders,
    journal: Journal,
    log: Log,
    masker: Masker,
    /// Set by steps through `GITHUB_ENV`.
    env: Vec<(String, String)>,
    /// Put before `PATH` by steps.
    paths: Vec<String>,
    steps: Object,
    failed: bool,
    late: bool,
    cancelled: bool,
    why: Option<String>,
}

/// How a step went, before `continue-on-error`.
struct Went {
    outcome: Conclusion,
    outputs: Vec<(String, String)>,
    summary: bool,
    why: Option<String>,
}

/// What a step's output lines leave behind.
#[derive(Default)]
struct Heard {
    outputs: Vec<(String, String)>,
    annotations: Vec<JournalBody>,
    stopped: Option<String>,
    echo: bool,
}

impl Job {
    fn begin(spec: JobSpec, folder: &Path) -> io::Result<Self> {
        let folders = Folders::create(folder)?;
        let mut secrets: Vec<String> = Vec::new();
        if let Value::Object(object) = &spec.contexts.secrets {
            secrets.extend(object.iter().map(|(_, value)| value.to_text().to_string()));
        }
        secrets.extend(spec.server.as_ref().map(|server| server.token.clone()));
        let event = spec.contexts.github.get("event");
        fs::write(folders.temp.join("event.json"), event.to_json())?;
        let mut journal = Journal::open(&folder.join(JOURNAL_FILE))?;
        journal.write(JournalBody::Started {
            pid: std::process::id(),
            start_time: start_time(),
        })?;
        Ok(Self {
            log: Log::open(&folder.join(LOG_FILE))?,
            masker: Masker::new(secrets),
            env: Vec::new(),
            paths: Vec::new(),
            steps: Object::default(),
            failed: false,
            late: false,
            cancelled: false,
            why: None,
            spec,
            folders,
            journal,
        })
    }

    fn say(&mut self, text: &str) {
        self.log.line(&self.masker, text);
    }

    /// What expressions see, with `env` as it stands for a step.
    fn contexts<'c>(&'c self, env: &[(String, String)], files: &'c Workspace<'c>) -> Contexts<'c> {
        let known = &self.spec.contexts;
        let mut contexts = Contexts::new();
        for (name, value) in known.iter() {
            contexts.set(name, value.clone());
        }
        let mut variables = Object::new(Names::Exact);
        for (name, value) in env {
            variables.insert(name.clone(), Value::from(value.as_str()));
        }
        contexts.set("env", Value::Object(Arc::new(variables)));
        contexts.set("steps", Value::Object(Arc::new(self.steps.clone())));
        let status = if self.cancelled {
            "cancelled"
        } else if self.failed {
            "failure"
        } else {
            "success"
        };
        contexts.set("job", Value::object([("status", Value::from(status))]));
        let temp = self.folders.temp.display().to_string();
        contexts.set(
            "runner",
            Value::object([
                ("os", Value::from("Linux")),
                ("arch", Value::from(arch())),
                ("temp", Value::from(temp.as_str())),
                ("name", Value::from("shipway")),
            ]),
        );
        contexts
            .with_status(Status {
                success: !self.failed && !self.cancelled,
                failure: self.failed && !self.cancelled,
                cancelled: self.cancelled,
            })
            .with_files(files)
    }

    /// The workflow's, the job's and the steps' variables so far.
    fn variables(&self) -> Result<Vec<(String, String)>, EvalError> {
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let mut env: Vec<(String, String)> = Vec::new();
        for layer in &self.spec.env {
            let resolved = layer.resolve(&self.contexts(&env, &files))?;
            merge(&mut env, resolved);
        }
        merge(&mut env, self.env.clone());
        Ok(env)
    }

    async fn step(
        &mut self,
        index: usize,
        deadline: Instant,
        cancelled: &CancellationToken,
    ) -> io::Result<()> {
        let step = self.spec.steps[index].clone();
        self.cancelled |= cancelled.is_cancelled();
        let begun = Instant::now();
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let asked = self.variables().and_then(|env| {
            let contexts = self.contexts(&env, &files);
            let holds = step.if_.holds(&contexts)?;
            let name = step
                .name
                .as_ref()
                .map_or_else(|| Ok(step.title()), |name| name.resolve_text(&contexts))?;
            Ok((holds && !self.late, name, env))
        });
        let (holds, name, env) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                let offset = self.log.offset();
                self.journal.write(JournalBody::StepStarted {
                    index,
                    id: step.id.clone(),
                    name: self.masker.mask(&step.title()).into_owned(),
                    log_offset: offset,
                })?;
                self.say(&format!("##[error]line {}: {error}", step.at.line));
                let went = Went {
                    outcome: Conclusion::Failure,
                    outputs: Vec::new(),
                    summary: false,
                    why: Some(error.to_string()),
                };
                return self.finish(index, &step, went, Conclusion::Failure, begun, Vec::new());
            }
        };
        if !holds {
            let went = Went {
                outcome: Conclusion::Skipped,
                outputs: Vec::new(),
                summary: false,
                why: None,
            };
            let offset = self.log.offset();
            self.journal.write(JournalBody::StepStarted {
                index,
                id: step.id.clone(),
                name: self.masker.mask(&name).into_owned(),
                log_offset: offset,
            })?;
            return self.finish(index, &step, went, Conclusion::Skipped, begun, Vec::new());
        }
        let offset = self.log.offset();
        let shown = self.masker.mask(&name).into_owned();
        self.journal.write(JournalBody::StepStarted {
            index,
            id: step.id.clone(),
            name: shown.clone(),
            log_offset: offset,
        })?;
        self.say(&format!("##[group]{shown}"));
        let mut heard = Heard::default();
        let mut entries = Vec::new();
        // A step whose condition held although the job is cancelled is not cancelled again.
        let token = if self.cancelled {
            CancellationToken::new()
        } else {
            cancelled.clone()
        };
        let went = self
            .carry_out(
                index,
                &step,
                env,
                deadline,
                &token,
                &mut heard,
                &mut entries,
            )
            .await;
        let continues = {
            let env = self.variables().unwrap_or_default();
            step.continue_on_error
                .resolve(&self.contexts(&env, &files))
                .unwrap_or(false)
        };
        let conclusion = if went.outcome == Conclusion::Failure && continues {
            Conclusion::Success
        } else {
            went.outcome
        };
        entries.extend(heard.annotations);
        self.finish(index, &step, went, conclusion, begun, entries)
    }

    /// Writes down how a step ended, and what that means for those after it.
    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        went: Went,
        conclusion: Conclusion,
        begun: Instant,
        entries: Vec<JournalBody>,
    ) -> io::Result<()> {
        match (went.outcome, &went.why) {
            (Conclusion::Failure, Some(why)) => self.say(&format!("##[error]{why}")),
            (Conclusion::Cancelled, _) => self.say("##[error]The operation was canceled."),
            _ => {}
        }
        if conclusion == Conclusion::Failure && !self.failed {
            self.failed = true;
            self.why = Some(format!(
                "step {:?}: {}",
                step.title(),
                went.why.as_deref().unwrap_or("failed")
            ));
        }
        self.cancelled |= conclusion == Conclusion::Cancelled && !self.late;
        let annotations = entries
            .iter()
            .filter(|entry| matches!(entry, JournalBody::Annotation { .. }))
            .count() as u32;
        for entry in entries {
            self.journal.write(entry)?;
        }
        // A secret among the outputs is of use to later steps, and not for the journal.
        let shown = went
            .outputs
            .iter()
            .filter(|(_, value)| !self.masker.finds(value))
            .cloned()
            .collect();
        let outputs = Value::object(
            went.outputs
                .iter()
                .map(|(name, value)| (name.as_str(), Value::from(value.as_str()))),
        );
        let of_step = Value::object([
            ("outputs", outputs),
            ("outcome", Value::from(went.outcome.as_str())),
            ("conclusion", Value::from(conclusion.as_str())),
        ]);
        self.steps.insert(step.id.clone(), of_step);
        let log_offset = self.log.offset();
        self.journal.write(JournalBody::StepFinished {
            index,
            id: step.id.clone(),
            outcome: went.outcome,
            conclusion,
            outputs: shown,
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            log_offset,
            summary: went.summary,
            annotations,
            why: went.why.map(|why| self.masker.mask(&why).into_owned()),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "all that a step sees")]
    async fn carry_out(
        &mut self,
        index: usize,
        step: &Step,
        mut env: Vec<(String, String)>,
        deadline: Instant,
        cancelled: &CancellationToken,
        heard: &mut Heard,
        entries: &mut Vec<JournalBody>,
    ) -> Went {
        let failed = |why: String| Went {
            outcome: Conclusion::Failure,
            outputs: Vec::new(),
            summary: false,
            why: Some(why),
        };
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let own = match step.env.resolve(&self.contexts(&env, &files)) {
            Ok(own) => own,
            Err(error) => return failed(error.to_string()),
        };
        merge(&mut env, own);
        let channel = match StepFiles::create(&self.folders.temp, index) {
            Ok(channel) => channel,
            Err(error) => return failed(format!("the step's files can't be made: {error}")),
        };
        let full = self.full_environment(&env, step, &channel);
        let minutes = match step
            .timeout_minutes
            .as_ref()
            .map(|minutes| minutes.resolve(&self.contexts(&env, &files)))
            .transpose()
        {
            Ok(minutes) => minutes,
            Err(error) => return failed(error.to_string()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let own_limit =
            minutes.map(|minutes| Duration::from_secs_f64(minutes.clamp(0.0, 1e6) * 60.0));
        let timeout = own_limit.map_or(left, |limit| limit.min(left));
        let mut outputs = Vec::new();
        let ended = match &step.action {
            Action::Run {
                script,
                shell,
                working_directory,
            } => {
                let invocation = {
                    let contexts = self.contexts(&env, &files);
                    self.invocation(
                        index,
                        script,
                        shell.as_deref(),
                        working_directory.as_ref(),
                        &contexts,
                        full,
                    )
                };
                match invocation {
                    Ok(invocation) => {
                        self.run_script(&invocation, timeout, cancelled, heard)
                            .await
                    }
                    Err(why) => return failed(why),
                }
            }
            Action::Uses { action, with } => {
                let with = match with.resolve(&self.contexts(&env, &files)) {
                    Ok(with) => with
                        .into_iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value))
                        .collect::<BTreeMap<_, _>>(),
                    Err(error) => return failed(error.to_string()),
                };
                self.run_action(
                    action,
                    with,
                    &full,
                    timeout,
                    cancelled,
                    &mut outputs,
                    entries,
                )
                .await
            }
        };
        outputs.extend(std::mem::take(&mut heard.outputs));
        let (summary, written) = self.take_files(&channel, &mut outputs);
        let late = ended == Ended::TimedOut && Instant::now() >= deadline;
        self.late |= late;
        let (outcome, why) = match (ended, written) {
            (Ended::Fine, Ok(())) => (Conclusion::Success, None),
            (Ended::Fine, Err(why)) => (Conclusion::Failure, Some(why)),
            (Ended::Badly(why), _) => (Conclusion::Failure, Some(why)),
            (Ended::TimedOut, _) if late => {
                self.why = Some(format!(
                    "the job took longer than {} min",
                    self.spec.timeout_ms / 60_000
                ));
                (
                    Conclusion::Cancelled,
                    Some("the job's time is over".to_owned()),
                )
            }
            (Ended::TimedOut, _) => (
                Conclusion::Failure,
                Some(format!(
                    "took longer than {} min",
                    minutes.unwrap_or_default()
                )),
            ),
            (Ended::Cancelled, _) => (Conclusion::Cancelled, Some("cancelled".to_owned())),
        };
        Went {
            outcome,
            outputs,
            summary,
            why,
        }
    }

    /// The whole environment of a step's processes.
    fn full_environment(
        &self,
        env: &[(String, String)],
        step: &Step,
        channel: &StepFiles,
    ) -> Vec<(String, String)> {
        let mut full = base(&self.folders);
        merge(&mut full, env.to_vec());
        if !self.paths.is_empty() {
            let path = full
                .iter()
                .find(|(name, _)| name == "PATH")
                .map(|(_, value)| value.clone())
                .unwrap_or_default();
            let added: Vec<&str> = self
                .paths
                .iter()
                .rev()
                .map(String::as_str)
                .chain([path.as_str()])
                .collect();
            merge(&mut full, vec![("PATH".to_owned(), added.join(":"))]);
        }
        merge(&mut full, fixed(&self.spec, &self.folders, &step.id));
        merge(&mut full, channel.variables());
        if let Some(server) = &self.spec.server {
            merge(
                &mut full,
                vec![("SHIPWAY_SERVER".to_owned(), server.url.clone())],
            );
        }
        full
    }

    fn invocation(
        &self,
        index: usize,
        script: &shipway_workflow::expr::Template,
        shell: Option<&str>,
        working_directory: Option<&shipway_workflow::expr::Template>,
        contexts: &Contexts<'_>,
        env: Vec<(String, String)>,
    ) -> Result<Invocation, String> {
        let text = |template: &shipway_workflow::expr::Template| {
            template
                .resolve_text(contexts)
                .map_err(|error| error.to_string())
        };
        let defaults = &self.spec.defaults;
        let shell = match shell {
            Some(shell) => Some(shell.to_owned()),
            None => defaults.shell.as_ref().map(text).transpose()?,
        };
        let folder = match working_directory.or(defaults.working_directory.as_ref()) {
            Some(folder) => self.folders.workspace.join(text(folder)?),
            None => self.folders.workspace.clone(),
        };
        if !folder.is_dir() {
            return Err(format!(
                "the working directory {} does not exist",
                folder.display()
            ));
        }
        let file = self.folders.temp.join(format!(
            "step-{index}.{}",
            exec::extension(shell.as_deref())
        ));
        fs::write(&file, text(script)? + "\n")
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let path = env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.as_str())
            .unwrap_or_default();
        let (program, arguments) = exec::shell(shell.as_deref(), &file, path)?;
        Ok(Invocation {
            program,
            arguments,
            workdir: folder,
            env,
        })
    }

    async fn run_script(
        &mut self,
        invocation: &Invocation,
        timeout: Duration,
        cancelled: &CancellationToken,
        heard: &mut Heard,
    ) -> Ended {
        let (log, masker) = (&mut self.log, &mut self.masker);
        let result = exec::run(invocation, Some(timeout), cancelled, |line| {
            hear(line, log, masker, heard)
        })
        .await;
        result.unwrap_or_else(|error| {
            Ended::Badly(format!("{} can't be started: {error}", invocation.program))
        })
    }

    #[expect(clippy::too_many_arguments, reason = "all that an action sees")]
    async fn run_action(
        &mut self,
        action: &str,
        with: BTreeMap<String, String>,
        env: &[(String, String)],
        timeout: Duration,
        cancelled: &CancellationToken,
        outputs: &mut Vec<(String, String)>,
        entries: &mut Vec<JournalBody>,
    ) -> Ended {
        let (log, masker) = (&mut self.log, &mut self.masker);
        let mut heard = Heard::default();
        let mut say = |line: String| hear(&line, log, masker, &mut heard);
        let call = Call {
            spec: &self.spec,
            folders: &self.folders,
            with,
            env,
            say: &mut say,
        };
        let ended = tokio::select! {
            result = tokio::time::timeout(timeout, actions::run(action, call)) => match result {
                Ok(Ok(left)) => {
                    outputs.extend(left.outputs);
                    entries.extend(left.entries);
                    Ended::Fine
                }
                Ok(Err(why)) => Ended::Badly(why),
                Err(_) => Ended::TimedOut,
            },
            () = cancelled.cancelled() => Ended::Cancelled,
        };
        entries.extend(heard.annotations);
        ended
    }

    /// Reads what the step wrote; a file that can't be read as it should fails the step.
    fn take_files(
        &mut self,
        channel: &StepFiles,
        outputs: &mut Vec<(String, String)>,
    ) -> (bool, Result<(), String>) {
        let read =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let mut result = Ok(());
        match files::pairs(&read(&channel.output)) {
            Ok(pairs) => outputs.extend(pairs),
            Err(why) => result = Err(format!("GITHUB_OUTPUT: {why}")),
        }
        match files::pairs(&read(&channel.env)) {
            Ok(pairs) => {
                for (name, value) in pairs {
                    if name.eq_ignore_ascii_case("NODE_OPTIONS") {
                        result =
                            Err("GITHUB_ENV: NODE_OPTIONS can't be set for later steps".to_owned());
                    } else {
                        merge(&mut self.env, vec![(name, value)]);
                    }
                }
            }
            Err(why) => result = Err(format!("GITHUB_ENV: {why}")),
        }
        self.paths.extend(
            read(&channel.path)
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned),
        );
        let size = fs::metadata(&channel.summary).map_or(0, |found| found.len());
        if size > SUMMARY_BYTES_MAX {
            result = Err(format!(
                "GITHUB_STEP_SUMMARY: {size} bytes, at most {SUMMARY_BYTES_MAX} are kept"
            ));
        } else if size > 0 {
            let masked = self.masker.mask(&read(&channel.summary)).into_owned();
            let _ = fs::write(&channel.summary, masked);
        }
        (size > 0, result)
    }

    fn end(mut self, cancelled: &CancellationToken) -> io::Result<Conclusion> {
        let strays = kill_strays();
        if !strays.is_empty() {
            self.say(&format!(
                "##[warning]Ended what the job left running: {}",
                strays.join(", ")
            ));
        }
        self.cancelled |= cancelled.is_cancelled();
        let conclusion = if self.failed {
            Conclusion::Failure
        } else if self.cancelled || self.late {
            Conclusion::Cancelled
        } else {
            Conclusion::Success
        };
        let (outputs, why) = self.job_outputs();
        let conclusion = if why.is_some() && conclusion == Conclusion::Success {
            Conclusion::Failure
        } else {
            conclusion
        };
        let mut why = self.why.take().or(why);
        if self.log.lost() > 0 {
            let lost = format!(
                "{} lines of the log were lost: the disk was full",
                self.log.lost()
            );
            why = Some(why.map_or_else(|| lost.clone(), |why| format!("{why}; {lost}")));
        }
        self.log.flush();
        let why = why.map(|why| self.masker.mask(&why).into_owned());
        self.journal.write(JournalBody::Finished {
            conclusion,
            outputs,
            why,
        })?;
        Ok(conclusion)
    }

    /// What later jobs see; an output that holds a secret is dropped, with a warning.
    fn job_outputs(&mut self) -> (Vec<(String, String)>, Option<String>) {
        let workspace = self.folders.workspace.clone();
        let files = Workspace(&workspace);
        let resolved = self
            .variables()
            .and_then(|env| self.spec.outputs.resolve(&self.contexts(&env, &files)));
        match resolved {
            Ok(outputs) => {
                let (secret, plain): (Vec<_>, Vec<_>) = outputs
                    .into_iter()
                    .partition(|(_, value)| self.masker.finds(value));
                for (name, _) in secret {
                    self.say(&format!(
                        "##[warning]The output {name} is left out: it may hold a secret"
                    ));
                }
                (plain, None)
            }
            Err(error) => (Vec::new(), Some(format!("outputs: {error}"))),
        }
    }
}

/// One line of a step's output: a command, or text for the log.
fn hear(line: &str, log: &mut Log, masker: &mut Masker, heard: &mut Heard) {
    let Some(command) = command::parse(line) else {
        return log.line(masker, line);
    };
    if let Some(token) = &heard.stopped {
        if command.name == *token {
            heard.stopped = None;
        }
        return log.line(masker, line);
    }
    let level = match command.name.as_str() {
        "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "notice" => Some(Level::Notice),
        _ => None,
    };
    if let Some(level) = level {
        annotate(level, &command, masker, heard);
        return log.line(masker, &format!("##[{}]{}", command.name, command.value));
    }
    match command.name.as_str() {
        "add-mask" => masker.extend([command.value]),
        "set-output" => heard.outputs.extend(command.get("name").map(|name| (name.to_owned(), command.value.clone()))),
        "stop-commands" => heard.stopped = Some(command.value.to_ascii_lowercase()),
        "group" => log.line(masker, &format!("##[group]{}", command.value)),
        "endgroup" => log.line(masker, "##[endgroup]"),
        "debug" => log.line(masker, &format!("##[debug]{}", command.value)),
        "echo" => heard.echo = command.value.eq_ignore_ascii_case("on"),
        "save-state" | "add-matcher" | "remove-matcher" => {}
        "set-env" | "add-path" => log.line(masker, &format!("##[error]The command {} is switched off, as at GitHub: write to the file in $GITHUB_{} instead", command.name, if command.name == "set-env" { "ENV" } else { "PATH" })),
        _ => log.line(masker, line),
    }
    if heard.echo && command.name != "echo" {
        log.line(masker, line);
    }
}

fn annotate(level: Level, command: &Command, masker: &Masker, heard: &mut Heard) {
    if heard.annotations.len() >= ANNOTATIONS_MAX as usize {
        return;
    }
    heard.annotations.push(JournalBody::Annotation {
        level,
        message: masker.mask(&command.value).into_owned(),
        file: command.get("file").map(str::to_owned),
        line: command.get("line").and_then(|line| line.parse().ok()),
        title: command
            .get("title")
            .map(|title| masker.mask(title).into_owned()),
    });
}

/// Later values win; the order of first appearance stays.
fn merge(into: &mut Vec<(String, String)>, more: Vec<(String, String)>) {
    for (name, value) in more {
        match into.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => into.push((name, value)),
        }
    }
}

/// The files that a step writes for the runner; new for each step.
struct StepFiles {
    output: PathBuf,
    env: PathBuf,
    path: PathBuf,
    state: PathBuf,
    summary: PathBuf,
}

impl StepFiles {
    fn create(temp: &Path, index: usize) -> io::Result<Self> {
        let file = |name: &str| {
            let path = temp.join(format!("{name}-{index}"));
            File::create(&path).map(|_| path)
        };
        Ok(Self {
            output: file("output")?,
            env: file("env")?,
            path: file("path")?,
            state: file("state")?,
            summary: file("summary")?,
        })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let shown = |path: &Path| path.display().to_string();
        [
            ("GITHUB_OUTPUT", &self.output),
            ("GITHUB_ENV", &self.env),
            ("GITHUB_PATH", &self.path),
            ("GITHUB_STATE", &self.state),
            ("GITHUB_STEP_SUMMARY", &self.summary),
        ]
        .map(|(name, path)| (name.to_owned(), shown(path)))
        .to_vec()
    }
}

/// When this process started, in clock ticks since boot.
fn start_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    rest.split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
