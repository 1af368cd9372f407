//! Carries out the effects of runs: starts workers for jobs, and reports the end of a run to its service.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    access::JobIdentity,
    aggregate::Actor,
    ids::{Digest, RunId},
    run::{
        ArtifactRecord, GateInput, JobEnvironment, JobRecord, JobView, Run, RunAggregate,
        RunEffect, RunInput, RunSpec, RunState, RunStatus, RunView, StepLine, job_spec,
    },
    service::{self, RunPurpose},
};
use shipway_drivers::jobs::{JobError, JobSlot, JournalOffset};
use shipway_engine::{Driver, RowQuery, RowScope, StoreError, Work};
use shipway_workflow::{
    job::{
        Conclusion, JobKey, JournalBody, JournalEntry, ServerAccess, SourceTree, StoredArtifact,
    },
    report::StoredReport,
    runner::RunnerMismatch,
};

use super::annotations::JobAnnotations;
use crate::{
    app::{App, service_stream},
    file_storage::{FileStorage, JobFile},
    test_reports,
};

/// Carries out the effects of runs.
pub struct RunDriver(pub Weak<App>);

#[async_trait]
impl Driver<RunAggregate> for RunDriver {
    async fn carry_out(&self, work: Work<RunAggregate>) -> RunInput {
        let Some(app) = self.0.upgrade() else {
            return RunInput::TimerFired;
        };
        let Some(spec) = work.state.0.as_deref().map(|run| run.spec.clone()) else {
            return RunInput::TimerFired;
        };
        match &work.effect {
            RunEffect::Gate(effect) => {
                super::concurrency_groups::carry_out(&app, &spec.id, effect).await
            }
            RunEffect::RunJob { key, attempt, stop } => {
                let job = JobIdentity {
                    run: spec.id.clone(),
                    key: key.clone(),
                    attempt: *attempt,
                };
                run_job(&app, &work, &spec, &job, stop.as_deref()).await
            }
            RunEffect::NotifyService {
                conclusion,
                artifacts,
                ..
            } => {
                if let Some(run) = work.state.0.as_deref() {
                    test_reports::record_test_history(&app, run).await;
                }
                let input = service::ServiceInput::RunEnded {
                    number: spec.id.number,
                    conclusion: *conclusion,
                    artifacts: artifacts.clone(),
                };
                match app
                    .engines
                    .services
                    .send(
                        &service_stream(&spec.id.service),
                        input,
                        Actor::Shipway(format!("run {}", spec.id.number)),
                    )
                    .await
                {
                    Ok(_) => RunInput::ServiceNotified,
                    Err(error) => {
                        tracing::error!(%error, run = %spec.id, "the service could not be told");
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

/// Runs a job: starts or finds its worker, and follows its journal to the end.
async fn run_job(
    app: &Arc<App>,
    work: &Work<RunAggregate>,
    run: &RunSpec,
    job: &JobIdentity,
    stop: Option<&str>,
) -> RunInput {
    let key = &job.key;
    // Holds the job slot until this function returns.
    let _slot = match ensure_worker(app, work, run, job, stop).await {
        Ok(slot) => slot,
        Err(not_started) => return not_started.into_input(key),
    };
    // From the first entry: the run's record of the job is not enough to continue in the middle.
    let journal = app.job_executor.open_journal(job, JournalOffset::default());
    let mut journal = match journal.await {
        Ok(journal) => journal,
        Err(error) => return JobNotStarted::failure(error).into_input(key),
    };
    let mut follower = JobFollower {
        app,
        work,
        run,
        job,
        is_stopping: stop.is_some(),
        names: BTreeMap::new(),
        annotations: JobAnnotations::default(),
        lost: Vec::new(),
        end: None,
    };
    loop {
        match journal.next(&work.cancelled).await {
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
async fn ensure_worker(
    app: &Arc<App>,
    work: &Work<RunAggregate>,
    run: &RunSpec,
    job: &JobIdentity,
    stop: Option<&str>,
) -> Result<JobSlot, JobNotStarted> {
    if let Err(error) = app.claim_run_folder(run).await {
        let why = format!("the folder of {} can't be prepared: {error}", run.id);
        return Err(JobNotStarted::Ended(Conclusion::Failure, why));
    }
    let executor = &app.job_executor;
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
    check_runner(app, &work.state, &job.key).map_err(JobNotStarted::failure)?;
    let slot = tokio::select! {
        slot = executor.slots().acquire(job) => slot,
        () = work.cancelled.cancelled() => return Err(JobNotStarted::Cancelled),
    };
    let environment = job_environment(app, &work.state, &job.key)
        .await
        .map_err(JobNotStarted::failure)?;
    let spec = job_spec(&work.state, &job.key, environment).map_err(JobNotStarted::failure)?;
    executor
        .start_job(job, spec)
        .await
        .map_err(JobNotStarted::failure)?;
    Ok(slot)
}

/// Whether this machine is one that the job asks for with `runs-on`.
fn check_runner(app: &App, state: &RunState, key: &JobKey) -> Result<(), RunnerMismatch> {
    match state.0.as_deref().and_then(|run| run.cell(key)) {
        Some((_, cell)) => app.job_executor.check_request(&cell.runs_on),
        // It is refused where its spec is made.
        None => Ok(()),
    }
}

/// Reserves slots for jobs that still run since the last server.
pub async fn reserve_job_slots(app: &App) -> Result<(), StoreError> {
    let live = RowQuery {
        scope: RowScope::Live,
        ..RowQuery::new("run")
    };
    for row in app.store.rows_of_all_pages(live).await? {
        if let Ok(run) = serde_json::from_value::<RunView>(row.doc) {
            reserve_slots_of_run(app, &run).await;
        }
    }
    Ok(())
}

async fn reserve_slots_of_run(app: &App, run: &RunView) {
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
        if app.job_executor.is_running(&job).await {
            app.job_executor.slots().reserve(&job);
        }
    }
}

/// A job's journal, entry by entry, as what it means to the run.
struct JobFollower<'a> {
    app: &'a App,
    work: &'a Work<RunAggregate>,
    run: &'a RunSpec,
    job: &'a JobIdentity,
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

impl JobFollower<'_> {
    async fn handle(&mut self, entry: JournalEntry) -> Result<(), FollowerStopped> {
        self.annotations.record(&entry.body);
        if let Some(input) = self.input(entry).await? {
            self.report(input).await;
        }
        Ok(())
    }

    async fn report(&self, input: RunInput) {
        if let Err(error) = self.work.report.send(input).await {
            tracing::debug!(%error, run = %self.run.id, "what a worker said is not recorded");
        }
    }

    /// The input for the run that an entry results in.
    async fn input(&mut self, entry: JournalEntry) -> Result<Option<RunInput>, FollowerStopped> {
        let key = self.job.key.clone();
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
        let key = self.job.key.clone();
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
        let reported =
            test_reports::test_report_input(self.app, self.run, &self.job.key, stored, digest)
                .await;
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
            files: &*self.app.job_executor,
            job: self.job,
            path,
            digest,
            noun,
        };
        let delayed = |reason| RunInput::StorageDelayed {
            key: self.job.key.clone(),
            reason,
        };
        let is_delayed = AtomicBool::new(false);
        let on_wait = |reason| {
            is_delayed.store(true, Ordering::Relaxed);
            self.report(delayed(Some(reason)))
        };
        let storage = match self.is_stopping {
            true => &FileStorage::new(Duration::ZERO),
            false => &self.app.storing,
        };
        let stored = tokio::select! {
            stored = storage.store(&*self.app.blobs, &file, on_wait) => stored,
            () = self.work.cancelled.cancelled() => return Err(FollowerStopped),
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
        tracing::error!(run = %self.run.id, key = %self.job.key, noun, %why, "a file of a job could not be stored");
        self.lost.push(format!("{noun} could not be stored: {why}"));
    }

    /// The job's end; a job whose files are not all stored has failed.
    async fn finish(mut self) -> RunInput {
        let annotations = std::mem::take(&mut self.annotations).worst_first();
        self.report(RunInput::Annotated {
            key: self.job.key.clone(),
            annotations,
        })
        .await;
        for why in &self.lost {
            let line = format!("##[error]{why}");
            self.app.job_executor.append_to_log(self.job, &line).await;
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
            key: self.job.key.clone(),
            conclusion,
            outputs: end.outputs,
            why: (!why.is_empty()).then(|| why.join("; ")),
        }
    }
}

/// Why the environment of a job can't be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobEnvironmentError {
    /// The run's stream has no events.
    #[error("the run is not open")]
    RunNotOpen,
}

/// The inputs of a job apart from its steps. They include secrets: pass them only to the worker, or to a person with permission to read them.
pub(crate) async fn job_environment(
    app: &App,
    state: &RunState,
    key: &JobKey,
) -> Result<JobEnvironment, JobEnvironmentError> {
    let known = (state.0.as_deref()).ok_or(JobEnvironmentError::RunNotOpen)?;
    let run = &known.spec;
    let artifacts = known.artifacts.iter().map(|artifact| StoredArtifact {
        name: artifact.name.clone(),
        digest: artifact.digest.to_string(),
    });
    Ok(JobEnvironment {
        secrets: app.secrets.all().clone(),
        // A job that is started has passed the gates of its environment.
        environment_secrets: (environment(known, key))
            .map(|name| app.secrets.for_environment(name))
            .unwrap_or_default(),
        vars: BTreeMap::new(),
        env: tested_environment(app, &run.id, &run.purpose).await,
        source: SourceTree::Git {
            repository: run.id.service.to_string(),
            commit: run.commit.id.to_string(),
            reference: run.reference.clone(),
        },
        artifacts: artifacts.collect(),
        server: Some(ServerAccess {
            url: app.server_addresses.local_url.clone(),
            token: job_token(app, known, key),
        }),
        actions: app.actions.without_local_files(),
    })
}

/// The token for the attempt at a job that is under way; of a run without a uid one that opens nothing.
fn job_token(app: &App, run: &Run, key: &JobKey) -> String {
    let job = JobIdentity {
        run: run.spec.id.clone(),
        key: key.clone(),
        attempt: run.jobs.get(key).map_or(1, JobRecord::attempt),
    };
    let uid = run.spec.uid.as_ref();
    uid.map_or_else(String::new, |uid| {
        app.client_tokens.job_tokens.token(&job, uid)
    })
}

/// The environment that a job goes to, by its `environment`.
fn environment<'a>(run: &'a Run, key: &JobKey) -> Option<&'a str> {
    let (_, cell) = run.cell(key)?;
    cell.gate.environment.as_deref()
}

/// Environment variables for tests of an environment, with its address.
async fn tested_environment(
    app: &App,
    run: &RunId,
    purpose: &RunPurpose,
) -> BTreeMap<String, String> {
    let RunPurpose::Tests {
        environment,
        release,
    } = purpose
    else {
        return BTreeMap::new();
    };
    let place = shipway_core::target::ServiceEnvironment {
        service: run.service.clone(),
        environment: environment.clone(),
    };
    let addresses = app.addresses_of(&place).await;
    // A path is appended to it, and names below `localhost` don't resolve for every program.
    let local = addresses.local_url(app.server_addresses.proxy_address);
    let url = local.unwrap_or_else(|| addresses.url(app.server_addresses.proxy_address));
    BTreeMap::from([
        (
            "SHIPWAY_URL".to_owned(),
            url.trim_end_matches('/').to_owned(),
        ),
        ("SHIPWAY_ENVIRONMENT".to_owned(), environment.to_string()),
        ("SHIPWAY_RELEASE".to_owned(), release.0.to_string()),
    ])
}
