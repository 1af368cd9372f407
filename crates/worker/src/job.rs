//! One job, from its spec to its last line in the journal.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use shipway_workflow::{
    expr::{Contexts, Value},
    job::{Conclusion, JobSpec, JournalBody, Level},
};

use crate::{
    actions::known::Library,
    background::Background,
    cancel::Cancel,
    confine::Confinement,
    containers::Containers,
    environment::Folders,
    exec::Pipe,
    frame::Frame,
    hand::Hand,
    hash::Workspace,
    journal::{Journal, Keeping, read_journal},
    kept::Keeper,
    log::Log,
    mask::Masker,
    output::Output,
    past::{Lost, Past},
    process::{end_strays, start_time},
    reports,
    runtime::Runtime,
    sandbox,
    scope::{Scope, shows_debug},
};

/// What the worker is given, in the job's folder; holds secrets, and is removed once read.
pub const JOB_FILE: &str = "job.json";
/// The journal, in the job's folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The log, in the job's folder.
pub const LOG_FILE: &str = "log";

/// There when somebody wants the job to stop. Then the worker is told by a signal as well, unless it was not yet up.
const CANCEL_FILE: &str = "cancel";

/// Held by the worker of the folder as long as it lives.
const LOCK_FILE: &str = "worker.lock";

/// Runs the job in `folder` to its end: the main function of `shipway worker --dir FOLDER`.
///
/// Exit code 0: the job succeeded; 1: it did not; 2: it could not be run, and the standard error says why. A second worker for
/// the same folder waits for the first one, and then has nothing to do.
#[must_use]
pub fn run(folder: &Path, keeping: Keeping) -> ExitCode {
    match begin(folder, keeping) {
        Ok(None | Some(Conclusion::Success | Conclusion::Skipped)) => ExitCode::SUCCESS,
        Ok(Some(Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete)) => {
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("shipway worker: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

fn begin(folder: &Path, keeping: Keeping) -> io::Result<Option<Conclusion>> {
    // Ends with the process, however that ends. Whoever waits for this worker or for the other waits for the job.
    let lock = File::create(folder.join(LOCK_FILE))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let job_file = folder.join(JOB_FILE);
    if fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|journal| journal.len() > 0) {
        // It was run, or its worker was lost; whoever came too late has left the spec here again.
        let _ = fs::remove_file(&job_file);
        return Ok(None);
    }
    let mut spec: JobSpec = serde_json::from_slice(&fs::read(&job_file)?)?;
    fs::remove_file(&job_file)?;
    // Its file is hidden from now on.
    crate::forge::login::read_token_now(&mut spec.actions, &spec.hidden);
    match sandbox::enter(&spec) {
        Err(error) if !error.is_harmless() => return Err(io::Error::other(error)),
        // The server has said so.
        Err(_) | Ok(()) => {}
    }
    // Away from the terminal of whoever started it: steps can't ask there, and nothing said there ends them. Refused when it
    // leads a group already, which is nearly as good.
    let _ = rustix::process::setsid();
    // Whoever loses its parent becomes our child, so that it can be ended and named.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Steps may run beside others.
    let beside = tokio::task::LocalSet::new();
    let ended = runtime.block_on(beside.run_until(work(spec, folder, keeping)));
    // An action that was cut short may still hash a file.
    runtime.shutdown_background();
    ended.map(Some)
}

async fn work(spec: JobSpec, folder: &Path, keeping: Keeping) -> io::Result<Conclusion> {
    // Before the journal says who runs it: from then on it may be asked to stop.
    let cancel = Cancel::after(Duration::from_millis(spec.timeout_ms))?;
    let mut job = Job::begin(spec, folder, cancel, keeping)?;
    // After the journal says who runs it: whoever leaves the file later knows whom to tell.
    if folder.join(CANCEL_FILE).exists() {
        job.hand.cancel.ask();
    }
    if job.prepare() && job.set_up().await? && job.begin_containers().await {
        let from = job.take_up()?;
        job.pre_steps().await?;
        job.main_steps(from).await?;
        job.post_steps().await?;
    }
    job.hand.end_containers().await;
    job.end()
}

/// A job under way.
pub(crate) struct Job {
    pub(crate) hand: Hand,
    pub(crate) journal: Journal,
    /// Its steps.
    pub(crate) frame: Frame,
    /// How many steps have begun: numbers them in the journal.
    pub(crate) begun: usize,
    /// Those that run beside others.
    pub(crate) background: Background,
    /// Keeps what they leave.
    pub(crate) keeper: Keeper,
    /// What it goes on from, until it does.
    pub(crate) past: Option<Past>,
    /// The steps whose actions have done what they do before the first step, by their keys.
    pub(crate) pre_done: Vec<String>,
}

impl Job {
    fn begin(spec: JobSpec, folder: &Path, cancel: Cancel, keeping: Keeping) -> io::Result<Self> {
        let mut journal = Journal::open(&folder.join(JOURNAL_FILE), keeping)?;
        journal.note(JournalBody::Started {
            pid: std::process::id(),
            start_time: start_time(),
        })?;
        let past = spec.resume.as_ref();
        let past = past
            .map(|resume| Past::read(resume, &spec.steps))
            .transpose();
        let (past, lost) = match past {
            Ok(past) => (past, None),
            Err(lost) => (None, Some(lost)),
        };
        let base = past.as_ref().map_or(folder, |past| &past.base);
        let folders = Folders::create(folder, base)?;
        fs::write(&folders.event, spec.contexts.github.get("event").to_json())?;
        let library = Library::new(&spec.actions, base);
        let mut output = Output::new(Log::open(&folder.join(LOG_FILE))?, masker(&spec));
        output.workspace.clone_from(&folders.workspace);
        output.debug = shows_debug(&spec);
        let keeper = Keeper::new(folder, keeping, output.masker.added(0).len());
        // Before anything is printed.
        let masks = past.as_ref().map_or(&[][..], |past| &past.masks);
        masks.iter().for_each(|mask| output.masker.add(mask));
        let (confinement, refused) = Confinement::enter(&spec.limits);
        if let Some(why) = refused {
            output.annotate(Level::Warning, &why);
        }
        let hand = Hand {
            confinement,
            output,
            pipe: Pipe::new()?,
            scope: Scope::new(&spec, &folders),
            runtime: Runtime::new(&spec, &folders),
            spec: Arc::new(spec),
            folders,
            cancel,
            library,
            states: BTreeMap::new(),
            files: Rc::default(),
            containers: Containers::default(),
        };
        let mut job = Self {
            hand,
            journal,
            frame: Frame::default(),
            begun: 0,
            background: Background::default(),
            keeper,
            past,
            pre_done: Vec::new(),
        };
        if let Some(lost) = lost {
            job.refuse_to_go_on(&lost);
        }
        Ok(job)
    }

    /// Says why it can't go on from an earlier attempt.
    fn refuse_to_go_on(&mut self, lost: &Lost) {
        let spec = &self.hand.spec;
        let attempt = spec.resume.as_ref().map_or(1, |resume| resume.attempt);
        let why = format!(
            "the job can't go on from attempt {attempt}: {lost}; run it from its first step: shipway retry r{} --job {}",
            spec.contexts.github.get("run_number").to_text(),
            spec.key
        );
        self.hand.output.annotate(Level::Error, &why);
        self.hand.scope.verdict.failed = Some(why);
    }

    /// Resolves what all steps share; false when that can't be, and no step can run.
    fn prepare(&mut self) -> bool {
        if self.hand.scope.verdict.failed.is_some() {
            return false;
        }
        let workspace = self.hand.folders.workspace.clone();
        let prepared = self
            .hand
            .scope
            .begin(&self.hand.spec, &Workspace(&workspace));
        if let Err(error) = &prepared {
            let why = format!("env: {error}\n{}", error.snippet());
            self.hand.output.annotate(Level::Error, &why);
            self.hand.scope.verdict.failed = Some(why);
        }
        prepared.is_ok()
    }

    /// Gets the actions that the steps use; false when one can't be had, and no step can run.
    async fn set_up(&mut self) -> io::Result<bool> {
        let result = self.hand.set_up().await;
        self.hand.cut_short(self.hand.cancel.cut());
        if let Err(why) = &result {
            self.hand.output.annotate(Level::Error, why);
            self.hand.scope.verdict.failed = Some(why.clone());
        }
        for annotation in std::mem::take(&mut self.hand.output.heard.annotations) {
            self.journal.note(annotation)?;
        }
        Ok(result.is_ok())
    }

    fn end(mut self) -> io::Result<Conclusion> {
        for stray in end_strays() {
            let (pid, name) = (stray.pid.as_raw_nonzero(), &stray.name);
            let text = format!("ended what the job had left running: {name} (pid {pid})");
            self.hand.output.annotate(Level::Warning, &text);
        }
        self.report_tests();
        let outputs = self.outputs();
        if let Some(url) = self.environment_url() {
            self.journal.note(JournalBody::EnvironmentUrl { url })?;
        }
        let verdict = self.hand.scope.verdict.clone();
        let conclusion = verdict.conclusion();
        let mut why: Vec<String> = [verdict.cut, verdict.failed, verdict.left_out]
            .into_iter()
            .flatten()
            .collect();
        self.hand.output.end();
        if self.hand.output.log.lost() > 0 {
            let lost = self.hand.output.log.lost();
            why.push(format!(
                "{lost} lines of the log were lost, the disk was full"
            ));
        }
        let why =
            (!why.is_empty()).then(|| self.hand.output.masker.mask(&why.join("; ")).into_owned());
        let annotations = std::mem::take(&mut self.hand.output.heard.annotations);
        let artifacts = self.hand.runtime.shelf.take_fresh();
        for entry in artifacts.into_iter().chain(annotations) {
            self.journal.note(entry)?;
        }
        self.journal.record(JournalBody::Finished {
            conclusion,
            outputs,
            why,
        })?;
        Ok(conclusion)
    }

    /// What the tests said goes beside the journal. A job that was cut short has no time for it; one whose report can't be kept, as
    /// on a full disk, has failed: nobody could see what its tests said.
    fn report_tests(&mut self) {
        if self.hand.scope.verdict.cut.is_some() {
            return;
        }
        let (spec, masker) = (&self.hand.spec, &self.hand.output.masker);
        let workspace = &self.hand.folders.workspace;
        let collected = read_journal(&spec.folder.join(JOURNAL_FILE))
            .and_then(|entries| reports::collect(spec, workspace, &spec.folder, &entries, masker));
        let noted = collected.and_then(|stored| match stored {
            Some(stored) => self.journal.note(JournalBody::Reports(Box::new(stored))),
            None => Ok(()),
        });
        if let Err(error) = noted {
            let why = format!("the reports of the tests could not be stored: {error}");
            self.hand.output.annotate(Level::Error, &why);
            self.hand.scope.verdict.failed.get_or_insert(why);
        }
    }

    /// What `read` finds in what expressions of the job see, now that its steps are over.
    fn after_steps<T>(&self, read: impl FnOnce(&Contexts<'_>) -> T) -> T {
        let files = Workspace(&self.hand.folders.workspace);
        let env = &self.hand.scope.env;
        read(
            &self
                .hand
                .contexts(&self.frame, &self.frame.seen(""), env, &files),
        )
    }

    /// Where what the job did is reached. Without a value it is left out: the job has done what it should.
    fn environment_url(&mut self) -> Option<String> {
        let template = self.hand.spec.environment_url.as_ref()?;
        match self.after_steps(|contexts| template.resolve_text(contexts)) {
            Ok(url) => {
                let url = self.hand.output.masker.mask(url.trim()).into_owned();
                Some(url).filter(|url| !url.is_empty())
            }
            Err(error) => {
                let text = format!("environment.url has no value: {error}");
                self.hand.output.annotate(Level::Warning, &text);
                None
            }
        }
    }

    /// What later jobs see; an output that holds a secret is dropped, with a warning.
    fn outputs(&mut self) -> Vec<(String, String)> {
        match self.after_steps(|contexts| self.hand.spec.outputs.resolve(contexts)) {
            Ok(mut outputs) => {
                outputs.retain(|(name, value)| {
                    let secret = self.hand.output.masker.finds(value);
                    if secret {
                        let text = format!("the output {name} is left out: it may hold a secret");
                        self.hand.output.annotate(Level::Warning, &text);
                    }
                    !secret
                });
                outputs
            }
            Err(error) => {
                let why = format!("outputs: {error}");
                self.hand.output.annotate(Level::Error, &why);
                self.hand.scope.verdict.failed.get_or_insert(why);
                Vec::new()
            }
        }
    }
}

fn is_switch(name: &str) -> bool {
    ["ACTIONS_STEP_DEBUG", "ACTIONS_RUNNER_DEBUG"]
        .iter()
        .any(|switch| name.eq_ignore_ascii_case(switch))
}

/// What must not be seen of a job from its beginning on.
pub(crate) fn masker(spec: &JobSpec) -> Masker {
    let mut secrets: Vec<String> = Vec::new();
    if let Value::Object(object) = &spec.contexts.secrets {
        // What switches something on is no secret, and `true` is in every log.
        let secret = object.iter().filter(|(name, _)| !is_switch(name));
        secrets.extend(secret.map(|(_, value)| value.to_text().to_string()));
    }
    secrets.push(spec.contexts.github.get("token").to_text().to_string());
    secrets.extend(spec.server.as_ref().map(|server| server.token.clone()));
    secrets.extend(crate::forge::login::secrets(&spec.actions));
    Masker::new(secrets)
}
