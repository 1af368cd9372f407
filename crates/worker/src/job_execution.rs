//! A running job: its state, its preparation before the first step, and its conclusion.

use std::{collections::BTreeMap, fs, io, path::Path, rc::Rc, sync::Arc};

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
    install_folders::prepare_install_folders,
    job_inputs::open_inputs,
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
    step_resources::StepResources,
    step_scope::StepScope,
};

/// A running job.
pub(crate) struct JobExecution {
    pub(crate) resources: StepResources,
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
    pub(crate) fn start(
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
        let (previous_attempt, lost) = match read_previous_attempt(&spec) {
            None => (None, None),
            Some(Ok(previous_attempt)) => (Some(previous_attempt), None),
            Some(Err(lost)) => (None, Some(lost)),
        };
        let base = previous_attempt.as_ref().map_or(folder, |it| &it.base);
        let folders = JobFolders::create(folder, base)?;
        prepare_install_folders(&folders)?;
        fs::write(&folders.event, spec.contexts.github.get("event").to_json())?;
        let library = ActionLibrary::new(&spec, base);
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
        let inputs = open_inputs(&spec, folder);
        let resources = StepResources {
            cgroup_limits,
            output,
            pipe: OutputPipe::new()?,
            scope: JobScope::new(&spec, &folders),
            runtime: RuntimeEndpoints::new(&spec, &folders, &inputs),
            spec: Arc::new(spec),
            inputs,
            folders,
            cancel,
            library,
            states: BTreeMap::new(),
            files: Rc::default(),
            containers: Containers::default(),
        };
        let mut job = Self {
            resources,
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
        let spec = &self.resources.spec;
        let attempt = spec.resume.as_ref().map_or(1, |resume| resume.attempt);
        let why = format!(
            "the job can't be resumed from attempt {attempt}: {lost}; run it from its first step: shipway retry r{} --job {}",
            spec.contexts.github.get("run_number").to_text(),
            spec.key
        );
        self.resources.output.annotate(AnnotationLevel::Error, &why);
        self.resources.scope.verdict.failed = Some(why);
    }

    /// Evaluates the job's variables. On an error the job fails and no step runs.
    pub(crate) fn evaluate_job_env(&mut self) -> bool {
        if self.resources.scope.verdict.failed.is_some() {
            return false;
        }
        let workspace = self.resources.folders.workspace.clone();
        let prepared = self
            .resources
            .scope
            .evaluate_env_layers(&self.resources.spec, &WorkspaceFiles(&workspace));
        if let Err(error) = &prepared {
            let why = format!("env: {error}\n{}", error.snippet());
            self.resources.output.annotate(AnnotationLevel::Error, &why);
            self.resources.scope.verdict.failed = Some(why);
        }
        prepared.is_ok()
    }

    /// Fetches the actions of all steps. On an error the job fails and no step runs.
    pub(crate) async fn fetch_step_actions(&mut self) -> io::Result<bool> {
        let resources = &mut self.resources;
        let spec = Arc::clone(&resources.spec);
        let (output, cancel) = (&mut resources.output, &mut resources.cancel);
        let fetched = resources
            .library
            .fetch_job_actions(&spec.steps, output, cancel);
        let result = fetched.await;
        self.resources
            .record_cancellation(self.resources.cancel.reason());
        if let Err(error) = &result {
            let why = error.to_string();
            self.resources.output.annotate(AnnotationLevel::Error, &why);
            self.resources.scope.verdict.failed = Some(why);
        }
        for annotation in std::mem::take(&mut self.resources.output.effects.annotations) {
            self.journal.append(annotation)?;
        }
        Ok(result.is_ok())
    }

    pub(crate) fn finish_job(mut self) -> io::Result<Conclusion> {
        for stray in kill_stray_processes() {
            let (pid, name) = (stray.pid.as_raw_nonzero(), &stray.name);
            let text = format!("killed a process that the job left running: {name} (pid {pid})");
            self.resources
                .output
                .annotate(AnnotationLevel::Warning, &text);
        }
        self.store_test_reports();
        let outputs = self.evaluate_outputs();
        if let Some(url) = self.evaluate_environment_url() {
            self.journal.append(JournalBody::EnvironmentUrl { url })?;
        }
        let verdict = self.resources.scope.verdict.clone();
        let conclusion = verdict.conclusion();
        let mut why: Vec<String> = [verdict.cancelled, verdict.failed, verdict.unsupported]
            .into_iter()
            .flatten()
            .collect();
        self.resources.output.finish();
        if self.resources.output.log.lost_lines() > 0 {
            let lost = self.resources.output.log.lost_lines();
            why.push(format!(
                "{lost} lines of the log were lost because the disk was full"
            ));
        }
        let why = (!why.is_empty()).then(|| {
            self.resources
                .output
                .masker
                .mask(&why.join("; "))
                .into_owned()
        });
        let annotations = std::mem::take(&mut self.resources.output.effects.annotations);
        let artifacts = self.resources.runtime.artifact_store.take_unrecorded();
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
        if self.resources.scope.verdict.cancelled.is_some() {
            return;
        }
        let (spec, masker) = (&self.resources.spec, &self.resources.output.masker);
        let workspace = &self.resources.folders.workspace;
        let collected = read_journal(&spec.mounts.folder.join(JOURNAL_FILE)).and_then(|entries| {
            reports::collect_reports(spec, workspace, &spec.mounts.folder, &entries, masker)
        });
        let noted = collected.and_then(|stored| match stored {
            Some(stored) => self.journal.append(JournalBody::Reports(Box::new(stored))),
            None => Ok(()),
        });
        if let Err(error) = noted {
            let why = format!("the reports of the tests could not be stored: {error}");
            self.resources.output.annotate(AnnotationLevel::Error, &why);
            self.resources.scope.verdict.failed.get_or_insert(why);
        }
    }

    /// Evaluates something in the job's contexts after its last step.
    fn with_final_contexts<T>(&self, read: impl FnOnce(&Contexts<'_>) -> T) -> T {
        let files = WorkspaceFiles(&self.resources.folders.workspace);
        let env = &self.resources.scope.env;
        read(&self.resources.expression_contexts(
            &self.step_scope,
            &self.step_scope.step_identity(""),
            env,
            &files,
        ))
    }

    /// The value of `environment.url`. An evaluation error is only a warning, since the job has done its work.
    fn evaluate_environment_url(&mut self) -> Option<String> {
        let template = self.resources.spec.environment_url.as_ref()?;
        match self.with_final_contexts(|contexts| template.resolve_text(contexts)) {
            Ok(url) => {
                let url = self.resources.output.masker.mask(url.trim()).into_owned();
                Some(url).filter(|url| !url.is_empty())
            }
            Err(error) => {
                let text = format!("environment.url has no value: {error}");
                self.resources
                    .output
                    .annotate(AnnotationLevel::Warning, &text);
                None
            }
        }
    }

    /// The job's outputs. One that contains a secret is dropped with a warning.
    fn evaluate_outputs(&mut self) -> Vec<(String, String)> {
        match self.with_final_contexts(|contexts| self.resources.spec.outputs.resolve(contexts)) {
            Ok(mut outputs) => {
                outputs.retain(|(name, value)| {
                    let secret = self.resources.output.masker.contains_secret(value);
                    if secret {
                        let text = format!("the output {name} is dropped: it may contain a secret");
                        self.resources
                            .output
                            .annotate(AnnotationLevel::Warning, &text);
                    }
                    !secret
                });
                outputs
            }
            Err(error) => {
                let why = format!("outputs: {error}");
                self.resources.output.annotate(AnnotationLevel::Error, &why);
                self.resources.scope.verdict.failed.get_or_insert(why);
                Vec::new()
            }
        }
    }
}

/// The attempt that the job resumes, if it resumes one.
fn read_previous_attempt(spec: &JobSpec) -> Option<Result<PreviousAttempt, ResumeError>> {
    let resume = spec.resume.as_ref()?;
    let Some(folder) = &spec.mounts.resumed else {
        return Some(Err(ResumeError::WorkspaceGone));
    };
    Some(PreviousAttempt::read(folder, resume, &spec.steps))
}
