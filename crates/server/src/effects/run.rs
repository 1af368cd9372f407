//! Carries out the effects of runs: starts workers for jobs, and reports the end of a run to its service.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    access::JobIdentity,
    aggregate::Actor,
    ids::Digest,
    run::{
        ArtifactRecord, GateInput, JobView, RunAggregate, RunEffect, RunInput, RunSpec, RunState,
        RunStatus, RunView, StepLine, job_spec,
    },
    secret::SecretUser,
    service,
};
use shipway_drivers::jobs::{JobError, JobExecutor, JobSlot, JournalOffset};
use shipway_engine::{Driver, RowQuery, RowScope, Store, StoreError, Work};
use shipway_workflow::{
    job::{Conclusion, JobKey, JournalBody, JournalEntry},
    report::StoredReport,
    runner::RunnerMismatch,
};

use super::{annotations::JobAnnotations, concurrency_groups};
use crate::{
    capabilities::{JobInputs, JobPlatform, ServerAddresses, Workloads},
    delivery_engines::DeliveryEngines,
    file_storage::{FileStorage, JobFile},
    job_environment::{JobEnvironmentSources, job_environment, record_secret_use},
    test_reports::TestReports,
};

/// Carries out the effects of runs.
pub(crate) struct RunDriver {
    pub(crate) engines: Weak<DeliveryEngines>,
    pub(crate) jobs: JobPlatform,
    pub(crate) inputs: JobInputs,
    pub(crate) tests: TestReports,
    /// For tests of environments.
    pub(crate) workloads: Workloads,
    pub(crate) server: ServerAddresses,
}

#[async_trait]
impl Driver<RunAggregate> for RunDriver {
    async fn carry_out(&self, work: Work<RunAggregate>) -> RunInput {
        // The engines outlive their effects but for the moment in which both end.
        let Some(engines) = self.engines.upgrade() else {
            return RunInput::TimerFired;
        };
        let Some(run) = work.state.0.as_deref() else {
            return RunInput::TimerFired;
        };
        match &work.effect {
            RunEffect::Gate(effect) => {
                concurrency_groups::carry_out(&engines.groups, &run.spec.id, effect).await
            }
            RunEffect::RunJob { key, attempt, stop } => {
                let job = JobIdentity {
                    run: run.spec.id.clone(),
                    key: key.clone(),
                    attempt: *attempt,
                };
                let running = RunningJob {
                    driver: self,
                    engines: &engines,
                    work: &work,
                    run: &run.spec,
                    job: &job,
                };
                running.run(stop.as_deref()).await
            }
            RunEffect::NotifyService {
                conclusion,
                artifacts,
                ..
            } => {
                self.tests.record_history(&engines, run).await;
                let id = &run.spec.id;
                let input = service::ServiceInput::RunEnded {
                    number: id.number,
                    conclusion: *conclusion,
                    artifacts: artifacts.clone(),
                };
                let by = Actor::Shipway(format!("run {}", id.number));
                match engines.send_to_service(&id.service, input, by).await {
                    Ok(_) => RunInput::ServiceNotified,
                    Err(error) => {
                        tracing::error!(%error, run = %id, "the service could not be notified");
                        RunInput::TimerFired
                    }
                }
            }
        }
    }
}

/// How the preparation of a job ends when its worker can't be followed.
enum JobNotStarted {
    /// The run doesn't wait for the job any more.
    Cancelled,
    Ended(Conclusion, String),
}

impl JobNotStarted {
    fn failure(error: impl std::fmt::Display) -> Self {
        Self::Ended(Conclusion::Failure, error.to_string())
    }

    fn into_input(self, key: &JobKey) -> RunInput {
        match self {
            Self::Cancelled => RunInput::TimerFired,
            Self::Ended(conclusion, why) => RunInput::JobEnded {
                key: key.clone(),
                conclusion,
                outputs: Vec::new(),
                why: Some(why),
            },
        }
    }
}

/// A job while its effect is carried out.
#[derive(Clone, Copy)]
struct RunningJob<'a> {
    driver: &'a RunDriver,
    engines: &'a DeliveryEngines,
    work: &'a Work<RunAggregate>,
    run: &'a RunSpec,
    job: &'a JobIdentity,
}

impl<'a> RunningJob<'a> {
    /// Starts or finds the job's worker, and follows its journal to the end.
    async fn run(self, stop: Option<&str>) -> RunInput {
        let key = &self.job.key;
        // Holds the job slot until this function returns.
        let _slot = match self.ensure_worker(stop).await {
            Ok(slot) => slot,
            Err(not_started) => return not_started.into_input(key),
        };
        // From the first entry: the run's record of the job is not enough to continue in the middle.
        let executor = &self.driver.jobs.executor;
        let journal = executor.open_journal(self.job, JournalOffset::default());
        let mut journal = match journal.await {
            Ok(journal) => journal,
            Err(error) => return JobNotStarted::failure(error).into_input(key),
        };
        let mut follower = JobFollower::new(self, stop);
        loop {
            match journal.next(&self.work.cancelled).await {
                Ok(Some(entry)) => {
                    if let Err(FollowerStopped) = follower.handle(entry).await {
                        return RunInput::TimerFired;
                    }
                }
                Ok(None) => return follower.finish().await,
                // The server stops, or the run wants the job stopped: the next effect follows the same journal.
                Err(JobError::Cancelled) => return RunInput::TimerFired,
                Err(error @ JobError::WorkerLost(_)) => {
                    return RunInput::WorkerLost {
                        key: key.clone(),
                        why: error.to_string(),
                    };
                }
                Err(error) => return JobNotStarted::failure(error).into_input(key),
            }
        }
    }

    /// Waits for a job slot and starts the job's worker, or takes over the one of an earlier effect. With `stop` no worker is started,
    /// and a running one is cancelled.
    async fn ensure_worker(self, stop: Option<&str>) -> Result<JobSlot, JobNotStarted> {
        let (work, job) = (self.work, self.job);
        let executor = &*self.driver.jobs.executor;
        if let Err(error) = claim_run_folder(executor, self.run).await {
            let why = format!("the folder of {} can't be prepared: {error}", self.run.id);
            return Err(JobNotStarted::Ended(Conclusion::Failure, why));
        }
        if executor.has_started(job).await {
            let slot = executor.slots().resume(job);
            if stop.is_some() {
                executor.cancel_job(job).await;
            }
            return Ok(slot);
        }
        if let Some(why) = stop {
            return Err(JobNotStarted::Ended(Conclusion::Cancelled, why.to_owned()));
        }
        check_runner(executor, &work.state, &job.key).map_err(JobNotStarted::failure)?;
        let slot = tokio::select! {
            slot = executor.slots().acquire(job) => slot,
            () = work.cancelled.cancelled() => return Err(JobNotStarted::Cancelled),
        };
        let prepared = job_environment(self.environment_sources(), &work.state, &job.key)
            .await
            .map_err(JobNotStarted::failure)?;
        let spec = job_spec(&work.state, &job.key, prepared.environment);
        let spec = spec.map_err(JobNotStarted::failure)?;
        let user = SecretUser::Job {
            run: job.run.clone(),
            job: job.key.to_string(),
            attempt: job.attempt,
        };
        let by = Actor::Shipway(job.to_string());
        record_secret_use(self.engines, &user, prepared.used, &by)
            .await
            .map_err(JobNotStarted::failure)?;
        executor
            .start_job(job, spec)
            .await
            .map_err(JobNotStarted::failure)?;
        Ok(slot)
    }

    fn environment_sources(self) -> JobEnvironmentSources<'a> {
        JobEnvironmentSources {
            inputs: &self.driver.inputs,
            engines: self.engines,
            traffic: &self.driver.workloads.traffic,
            server: &self.driver.server,
        }
    }
}

/// Whether this machine is one that the job asks for with `runs-on`.
fn check_runner(
    executor: &dyn JobExecutor,
    state: &RunState,
    key: &JobKey,
) -> Result<(), RunnerMismatch> {
    match state.0.as_deref().and_then(|run| run.cell(key)) {
        Some((_, cell)) => executor.check_request(&cell.runs_on),
        // It is refused where its spec is made.
        None => Ok(()),
    }
}

/// Moves aside what another run of the same number has left.
pub(super) async fn claim_run_folder(
    executor: &dyn JobExecutor,
    run: &RunSpec,
) -> std::io::Result<()> {
    let Some(uid) = &run.uid else {
        return Ok(());
    };
    if let Some(moved) = executor.claim_run(&run.id, uid).await? {
        tracing::warn!(run = %run.id, to = %moved.display(), "files of a run that is not in the log were moved aside; has the event log lost its last events?");
    }
    Ok(())
}

/// Reserves slots for jobs that still run since the last server.
pub(crate) async fn reserve_job_slots(
    store: &dyn Store,
    executor: &dyn JobExecutor,
) -> Result<(), StoreError> {
    let live = RowQuery {
        scope: RowScope::Live,
        ..RowQuery::new("run")
    };
    for row in store.rows_of_all_pages(live).await? {
        if let Ok(run) = serde_json::from_value::<RunView>(row.doc) {
            reserve_slots_of_run(executor, &run).await;
        }
    }
    Ok(())
}

async fn reserve_slots_of_run(executor: &dyn JobExecutor, run: &RunView) {
    let open = |job: &&JobView| matches!(job.status, RunStatus::Queued | RunStatus::Running);
    for job in run.jobs.iter().filter(open) {
        let Ok(key) = job.key.parse() else {
            continue;
        };
        let job = JobIdentity {
            run: run.id.clone(),
            key,
            attempt: u32::try_from(job.earlier.len()).unwrap_or_default() + 1,
        };
        if executor.is_running(&job).await {
            executor.slots().reserve(&job);
        }
    }
}

/// A job's journal, entry by entry, as what it means to the run.
struct JobFollower<'a> {
    running: RunningJob<'a>,
    /// A job that is being stopped does not wait for disk space.
    is_stopping: bool,
    /// Steps that have begun, by their place.
    names: BTreeMap<usize, String>,
    annotations: JobAnnotations,
    /// Why files that the job has left are not stored.
    lost: Vec<String>,
    end: Option<JobEnd>,
}

/// How a job ended, by its journal.
struct JobEnd {
    conclusion: Conclusion,
    outputs: Vec<(String, String)>,
    why: Option<String>,
}

/// The job is no longer followed by this effect; the next one reads the journal from the beginning.
struct FollowerStopped;

impl<'a> JobFollower<'a> {
    fn new(job: RunningJob<'a>, stop: Option<&str>) -> Self {
        Self {
            running: job,
            is_stopping: stop.is_some(),
            names: BTreeMap::new(),
            annotations: JobAnnotations::default(),
            lost: Vec::new(),
            end: None,
        }
    }

    async fn handle(&mut self, entry: JournalEntry) -> Result<(), FollowerStopped> {
        self.annotations.record(&entry.body);
        if let Some(input) = self.input(entry).await? {
            self.report(input).await;
        }
        Ok(())
    }

    async fn report(&self, input: RunInput) {
        if let Err(error) = self.running.work.report.send(input).await {
            tracing::debug!(%error, run = %self.running.run.id, "the report of a worker could not be recorded");
        }
    }

    /// The input for the run that an entry results in.
    async fn input(&mut self, entry: JournalEntry) -> Result<Option<RunInput>, FollowerStopped> {
        let key = self.running.job.key.clone();
        Ok(match entry.body {
            JournalBody::Started { .. } => Some(RunInput::JobStarted { key }),
            JournalBody::StepStarted { index, name, .. } => {
                self.names.insert(index, name);
                None
            }
            body @ JournalBody::StepFinished { .. } => self.finished_step(body),
            JournalBody::ArtifactSaved {
                name,
                path,
                digest,
                size,
            } => {
                let noun = format!("the artifact {name}");
                let stored = self.store(&path, &digest, &noun).await?;
                stored.map(|digest| RunInput::ArtifactStored {
                    artifact: ArtifactRecord { name, digest, size },
                })
            }
            JournalBody::Reports(stored) => self.report_tests(*stored).await?,
            JournalBody::Finished {
                conclusion,
                outputs,
                why,
            } => {
                self.end = Some(JobEnd {
                    conclusion,
                    outputs,
                    why,
                });
                None
            }
            JournalBody::EnvironmentUrl { url } => {
                Some(RunInput::Gate(GateInput::EnvironmentUrlSet { key, url }))
            }
            JournalBody::Resumed { .. }
            | JournalBody::Annotation { .. }
            | JournalBody::DeployAsked { .. } => None,
        })
    }

    fn finished_step(&self, body: JournalBody) -> Option<RunInput> {
        let JournalBody::StepFinished {
            index,
            outcome,
            conclusion,
            took_ms,
            earlier,
            ..
        } = body
        else {
            return None;
        };
        let name = self.names.get(&index).cloned().unwrap_or_default();
        let step = StepLine {
            index,
            name,
            conclusion,
            outcome: (outcome != conclusion).then_some(outcome),
            took_ms,
            in_attempt: earlier.map(|earlier| earlier.attempt),
        };
        let key = self.running.job.key.clone();
        Some(RunInput::StepFinished { key, step })
    }

    async fn report_tests(
        &mut self,
        stored: StoredReport,
    ) -> Result<Option<RunInput>, FollowerStopped> {
        let noun = "the report of the tests";
        let Some(digest) = self.store(&stored.path, &stored.digest, noun).await? else {
            return Ok(None);
        };
        let RunningJob { engines, run, .. } = self.running;
        let tests = &self.running.driver.tests;
        let key = &self.running.job.key;
        let reported = tests.report_input(engines, run, key, stored, digest).await;
        Ok(reported
            .map_err(|error| self.lose(noun, &error.to_string()))
            .ok())
    }

    /// Brings a file into the blobs; none when that can't be, which fails the job.
    async fn store(
        &mut self,
        path: &Path,
        digest: &str,
        noun: &str,
    ) -> Result<Option<Digest>, FollowerStopped> {
        let file = JobFile {
            files: &*self.running.driver.jobs.executor,
            job: self.running.job,
            path,
            digest,
            noun,
        };
        let delayed = |reason| RunInput::StorageDelayed {
            key: self.running.job.key.clone(),
            reason,
        };
        let is_delayed = AtomicBool::new(false);
        let on_wait = |reason| {
            is_delayed.store(true, Ordering::Relaxed);
            self.report(delayed(Some(reason)))
        };
        let storage = match self.is_stopping {
            true => &FileStorage::new(Duration::ZERO),
            false => &self.running.driver.jobs.storage,
        };
        let stored = tokio::select! {
            stored = storage.store(&*self.running.driver.jobs.blobs, &file, on_wait) => stored,
            () = self.running.work.cancelled.cancelled() => return Err(FollowerStopped),
        };
        match stored {
            Ok(digest) => {
                if is_delayed.into_inner() {
                    self.report(delayed(None)).await;
                }
                Ok(Some(digest))
            }
            Err(error) => {
                self.lose(noun, &error);
                Ok(None)
            }
        }
    }

    fn lose(&mut self, noun: &str, why: &dyn std::fmt::Display) {
        tracing::error!(run = %self.running.run.id, key = %self.running.job.key, noun, %why, "a file of a job could not be stored");
        self.lost.push(format!("{noun} could not be stored: {why}"));
    }

    /// The job's end; a job whose files are not all stored has failed.
    async fn finish(mut self) -> RunInput {
        let annotations = std::mem::take(&mut self.annotations).worst_first();
        self.report(RunInput::Annotated {
            key: self.running.job.key.clone(),
            annotations,
        })
        .await;
        for why in &self.lost {
            let line = format!("##[error]{why}");
            self.running
                .driver
                .jobs
                .executor
                .append_to_log(self.running.job, &line)
                .await;
        }
        let end = self.end.unwrap_or_else(|| JobEnd {
            conclusion: Conclusion::Failure,
            outputs: Vec::new(),
            why: Some("the journal has no end".to_owned()),
        });
        let conclusion = match end.conclusion {
            Conclusion::Success | Conclusion::Skipped if !self.lost.is_empty() => {
                Conclusion::Failure
            }
            conclusion => conclusion,
        };
        let why: Vec<String> = self.lost.into_iter().chain(end.why).collect();
        RunInput::JobEnded {
            key: self.running.job.key.clone(),
            conclusion,
            outputs: end.outputs,
            why: (!why.is_empty()).then(|| why.join("; ")),
        }
    }
}
