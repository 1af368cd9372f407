//! Runs one job: reads its spec, runs its steps and writes its journal.

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
    expr::Contexts,
    job::{AnnotationLevel, Conclusion, JobSpec, JournalBody},
};

use crate::{
    actions::action_library::ActionLibrary,
    background_steps::BackgroundSteps,
    cancellation::JobCancellation,
    cgroup_limits::CgroupLimits,
    containers::Containers,
    environment::JobFolders,
    file_hash::WorkspaceFiles,
    job_log::{JobLog, LOG_FILE},
    job_scope::{JobScope, is_debug_enabled},
    job_secrets::build_masker,
    journal::{Durability, JOURNAL_FILE, JournalWriter, read_journal},
    output_processor::OutputProcessor,
    previous_attempt::{PreviousAttempt, ResumeError},
    processes::{kill_stray_processes, own_start_time},
    program_runner::OutputPipe,
    reports,
    resume_state::ResumeStateWriter,
    runtime::RuntimeEndpoints,
    sandbox,
    step_runner::StepRunner,
    step_scope::StepScope,
};

/// The spec of the job, in the job's folder. It contains secrets and is removed after reading.
pub const JOB_FILE: &str = "job.json";

/// Exists when the job was cancelled. A running worker gets a signal as well; the file is for a worker that is still
/// starting.
const CANCEL_FILE: &str = "cancel";

/// Locked by the worker as long as it lives.
const LOCK_FILE: &str = "worker.lock";

/// Runs the job in `folder` until it ends: the main function of `shipway worker --dir FOLDER`.
///
/// Exit code 0: the job succeeded; 1: it did not; 2: it could not be run, and stderr has the reason. A second worker
/// for the same folder waits for the first one and then exits.
#[must_use]
pub fn run_job(folder: &Path, keeping: Durability) -> ExitCode {
    match start(folder, keeping) {
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

fn start(folder: &Path, keeping: Durability) -> io::Result<Option<Conclusion>> {
    // The kernel releases the lock when the process ends. A second worker blocks here until the first has finished
    // the job.
    let lock = File::create(folder.join(LOCK_FILE))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let job_file = folder.join(JOB_FILE);
    if fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|journal| journal.len() > 0) {
        // Another worker has run or lost this job. If the spec was written again meanwhile, remove it: it holds
        // secrets.
        let _ = fs::remove_file(&job_file);
        return Ok(None);
    }
    let mut spec: JobSpec = serde_json::from_slice(&fs::read(&job_file)?)?;
    fs::remove_file(&job_file)?;
    // Read the forge's token now: the sandbox hides its file.
    crate::forge::forge_login::move_token_into_address(&mut spec.actions, &spec.hidden);
    match sandbox::enter_sandbox(&spec) {
        Err(error) if !error.is_harmless() => return Err(io::Error::other(error)),
        // Run unsandboxed; the server has reported at startup that it can't isolate jobs.
        Err(_) | Ok(()) => {}
    }
    // Detach from the terminal, so that steps can neither prompt there nor be interrupted from it. EPERM means that
    // the process already leads a group, which is enough.
    let _ = rustix::process::setsid();
    // Child subreaper: orphaned processes of steps are reparented to the worker, which kills and reports them.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Background steps are local tasks.
    let beside = tokio::task::LocalSet::new();
    let ended = runtime.block_on(beside.run_until(run_spec(spec, folder, keeping)));
    // Don't wait for blocking tasks: an action that was cancelled may still be hashing a file.
    runtime.shutdown_background();
    ended.map(Some)
}

async fn run_spec(spec: JobSpec, folder: &Path, keeping: Durability) -> io::Result<Conclusion> {
    // Install signal handlers before the journal publishes the pid, from when on the job may be cancelled.
    let cancel = JobCancellation::with_timeout(Duration::from_millis(spec.timeout_ms))?;
    let mut job = JobExecution::start(spec, folder, cancel, keeping)?;
    // Check the file after the journal has published the pid: a server that writes it later also sends a signal.
    if folder.join(CANCEL_FILE).exists() {
        job.runner.cancel.request();
    }
    if job.evaluate_job_env() && job.fetch_step_actions().await? && job.start_containers().await {
        let from = job.restore_previous_steps()?;
        job.run_pre_steps().await?;
        job.run_main_steps(from).await?;
        job.run_post_steps().await?;
    }
    let runner = &mut job.runner;
    runner.containers.remove_all(&mut runner.output).await;
    job.finish_job()
}

/// A running job.
pub(crate) struct JobExecution {
    pub(crate) runner: StepRunner,
    pub(crate) journal: JournalWriter,
    pub(crate) step_scope: StepScope,
    /// Number of started steps: the next index in the journal.
    pub(crate) started_steps: usize,
    pub(crate) background: BackgroundSteps,
    pub(crate) resume_writer: ResumeStateWriter,
    /// The attempt to resume from; taken when its steps are restored.
    pub(crate) previous_attempt: Option<PreviousAttempt>,
    /// Keys of the steps whose pre step ran in the previous attempt.
    pub(crate) completed_pre_steps: Vec<String>,
}

impl JobExecution {
    fn start(
        spec: JobSpec,
        folder: &Path,
        cancel: JobCancellation,
        keeping: Durability,
    ) -> io::Result<Self> {
        let mut journal = JournalWriter::open(&folder.join(JOURNAL_FILE), keeping)?;
        journal.append(JournalBody::Started {
            pid: std::process::id(),
            start_time: own_start_time(),
        })?;
        let resume = spec.resume.as_ref();
        let (previous_attempt, lost) =
            match resume.map(|resume| PreviousAttempt::read(resume, &spec.steps)) {
                None => (None, None),
                Some(Ok(previous_attempt)) => (Some(previous_attempt), None),
                Some(Err(lost)) => (None, Some(lost)),
            };
        let base = previous_attempt.as_ref().map_or(folder, |it| &it.base);
        let folders = JobFolders::create(folder, base)?;
        fs::write(&folders.event, spec.contexts.github.get("event").to_json())?;
        let library = ActionLibrary::new(&spec.actions, base);
        let mut output =
            OutputProcessor::new(JobLog::open(&folder.join(LOG_FILE))?, build_masker(&spec));
        output.workspace.clone_from(&folders.workspace);
        output.debug = is_debug_enabled(&spec);
        let resume_writer =
            ResumeStateWriter::new(folder, keeping, output.masker.added_since(0).len());
        // Register the previous attempt's secrets before the first line of output.
        let masks = previous_attempt
            .as_ref()
            .map_or(&[][..], |previous_attempt| &previous_attempt.masks);
        masks.iter().for_each(|mask| output.masker.add(mask));
        let (cgroup_limits, refused) = CgroupLimits::enter(&spec.limits);
        if let Some(why) = refused {
            output.annotate(AnnotationLevel::Warning, &why);
        }
        let runner = StepRunner {
            cgroup_limits,
            output,
            pipe: OutputPipe::new()?,
            scope: JobScope::new(&spec, &folders),
            runtime: RuntimeEndpoints::new(&spec, &folders),
            spec: Arc::new(spec),
            folders,
            cancel,
            library,
            states: BTreeMap::new(),
            files: Rc::default(),
            containers: Containers::default(),
        };
        let mut job = Self {
            runner,
            journal,
            step_scope: StepScope::default(),
            started_steps: 0,
            background: BackgroundSteps::default(),
            resume_writer,
            previous_attempt,
            completed_pre_steps: Vec::new(),
        };
        if let Some(lost) = lost {
            job.fail_resume(&lost);
        }
        Ok(job)
    }

    /// Fails the job, with the reason why it can't be resumed.
    fn fail_resume(&mut self, lost: &ResumeError) {
        let spec = &self.runner.spec;
        let attempt = spec.resume.as_ref().map_or(1, |resume| resume.attempt);
        let why = format!(
            "the job can't be resumed from attempt {attempt}: {lost}; run it from its first step: shipway retry r{} --job {}",
            spec.contexts.github.get("run_number").to_text(),
            spec.key
        );
        self.runner.output.annotate(AnnotationLevel::Error, &why);
        self.runner.scope.verdict.failed = Some(why);
    }

    /// Evaluates the job's variables. On an error the job fails and no step runs.
    fn evaluate_job_env(&mut self) -> bool {
        if self.runner.scope.verdict.failed.is_some() {
            return false;
        }
        let workspace = self.runner.folders.workspace.clone();
        let prepared = self
            .runner
            .scope
            .evaluate_env_layers(&self.runner.spec, &WorkspaceFiles(&workspace));
        if let Err(error) = &prepared {
            let why = format!("env: {error}\n{}", error.snippet());
            self.runner.output.annotate(AnnotationLevel::Error, &why);
            self.runner.scope.verdict.failed = Some(why);
        }
        prepared.is_ok()
    }

    /// Fetches the actions of all steps. On an error the job fails and no step runs.
    async fn fetch_step_actions(&mut self) -> io::Result<bool> {
        let runner = &mut self.runner;
        let spec = Arc::clone(&runner.spec);
        let (output, cancel) = (&mut runner.output, &mut runner.cancel);
        let fetched = runner
            .library
            .fetch_job_actions(&spec.steps, output, cancel);
        let result = fetched.await;
        self.runner.record_cancellation(self.runner.cancel.reason());
        if let Err(error) = &result {
            let why = error.to_string();
            self.runner.output.annotate(AnnotationLevel::Error, &why);
            self.runner.scope.verdict.failed = Some(why);
        }
        for annotation in std::mem::take(&mut self.runner.output.effects.annotations) {
            self.journal.append(annotation)?;
        }
        Ok(result.is_ok())
    }

    fn finish_job(mut self) -> io::Result<Conclusion> {
        for stray in kill_stray_processes() {
            let (pid, name) = (stray.pid.as_raw_nonzero(), &stray.name);
            let text = format!("killed a process that the job left running: {name} (pid {pid})");
            self.runner.output.annotate(AnnotationLevel::Warning, &text);
        }
        self.store_test_reports();
        let outputs = self.evaluate_outputs();
        if let Some(url) = self.evaluate_environment_url() {
            self.journal.append(JournalBody::EnvironmentUrl { url })?;
        }
        let verdict = self.runner.scope.verdict.clone();
        let conclusion = verdict.conclusion();
        let mut why: Vec<String> = [verdict.cancelled, verdict.failed, verdict.unsupported]
            .into_iter()
            .flatten()
            .collect();
        self.runner.output.finish();
        if self.runner.output.log.lost_lines() > 0 {
            let lost = self.runner.output.log.lost_lines();
            why.push(format!(
                "{lost} lines of the log were lost, the disk was full"
            ));
        }
        let why =
            (!why.is_empty()).then(|| self.runner.output.masker.mask(&why.join("; ")).into_owned());
        let annotations = std::mem::take(&mut self.runner.output.effects.annotations);
        let artifacts = self.runner.runtime.artifact_store.take_unrecorded();
        for entry in artifacts.into_iter().chain(annotations) {
            self.journal.append(entry)?;
        }
        self.journal.append_durably(JournalBody::Finished {
            conclusion,
            outputs,
            why,
        })?;
        Ok(conclusion)
    }

    /// Stores the test reports. Skipped for a cancelled job; if they can't be stored (disk full), the job fails,
    /// because its test results would be lost.
    fn store_test_reports(&mut self) {
        if self.runner.scope.verdict.cancelled.is_some() {
            return;
        }
        let (spec, masker) = (&self.runner.spec, &self.runner.output.masker);
        let workspace = &self.runner.folders.workspace;
        let collected = read_journal(&spec.folder.join(JOURNAL_FILE)).and_then(|entries| {
            reports::collect_reports(spec, workspace, &spec.folder, &entries, masker)
        });
        let noted = collected.and_then(|stored| match stored {
            Some(stored) => self.journal.append(JournalBody::Reports(Box::new(stored))),
            None => Ok(()),
        });
        if let Err(error) = noted {
            let why = format!("the reports of the tests could not be stored: {error}");
            self.runner.output.annotate(AnnotationLevel::Error, &why);
            self.runner.scope.verdict.failed.get_or_insert(why);
        }
    }

    /// Evaluates something in the job's contexts after its last step.
    fn with_final_contexts<T>(&self, read: impl FnOnce(&Contexts<'_>) -> T) -> T {
        let files = WorkspaceFiles(&self.runner.folders.workspace);
        let env = &self.runner.scope.env;
        read(&self.runner.expression_contexts(
            &self.step_scope,
            &self.step_scope.step_identity(""),
            env,
            &files,
        ))
    }

    /// The value of `environment.url`. An evaluation error is only a warning, since the job has done its work.
    fn evaluate_environment_url(&mut self) -> Option<String> {
        let template = self.runner.spec.environment_url.as_ref()?;
        match self.with_final_contexts(|contexts| template.resolve_text(contexts)) {
            Ok(url) => {
                let url = self.runner.output.masker.mask(url.trim()).into_owned();
                Some(url).filter(|url| !url.is_empty())
            }
            Err(error) => {
                let text = format!("environment.url has no value: {error}");
                self.runner.output.annotate(AnnotationLevel::Warning, &text);
                None
            }
        }
    }

    /// The job's outputs. One that contains a secret is dropped with a warning.
    fn evaluate_outputs(&mut self) -> Vec<(String, String)> {
        match self.with_final_contexts(|contexts| self.runner.spec.outputs.resolve(contexts)) {
            Ok(mut outputs) => {
                outputs.retain(|(name, value)| {
                    let secret = self.runner.output.masker.contains_secret(value);
                    if secret {
                        let text = format!("the output {name} is left out: it may hold a secret");
                        self.runner.output.annotate(AnnotationLevel::Warning, &text);
                    }
                    !secret
                });
                outputs
            }
            Err(error) => {
                let why = format!("outputs: {error}");
                self.runner.output.annotate(AnnotationLevel::Error, &why);
                self.runner.scope.verdict.failed.get_or_insert(why);
                Vec::new()
            }
        }
    }
}
