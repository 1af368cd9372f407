//! What can be said to a run, what it says happened, what it asks of the world, and why it refuses.

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    graph::{JobExpansion, RerunSelection},
    job::{AnnotationLevel, Conclusion, JobKey},
};

use super::{
    gate::{GateEffect, GateFact, GateInput},
    reported::JobTests,
    resume::FromStep,
    spec::RunSpec,
};
use crate::{
    ids::{Digest, RunId},
    release::Commit,
    service,
};

/// Attempts at one run; GitHub's limit.
pub(super) const RUN_ATTEMPTS_MAX: u32 = 50;

/// An artifact that a job stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name; a later one of the same name takes its place.
    pub name: String,
    /// Its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

/// Something to look at that a step of a job pointed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// How bad it is.
    pub level: AnnotationLevel,
    /// What it says, masked.
    pub message: String,
    /// The file meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Its headline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Annotation {
    /// `a.rs:7: title: what it says`, on one line.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        };
        let title = self.title.as_ref().map(|title| format!("{title}: "));
        let message = self.message.lines().next().unwrap_or_default();
        format!("{place}{}{message}", title.unwrap_or_default())
    }
}

/// A step that is over, as pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLine {
    /// Its place in the job, from 0.
    pub index: usize,
    /// What people call it.
    pub name: String,
    /// How it counts.
    pub conclusion: Conclusion,
    /// How it went, where that differs: a failure that may be counts as success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Conclusion>,
    /// How long it took.
    pub took_ms: u64,
    /// The attempt at the job in which it ran, when that was an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_attempt: Option<u32>,
}

/// The facts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It exists.
    Opened {
        /// What runs, and why.
        spec: Box<RunSpec>,
    },
    /// A job may start.
    JobReady {
        /// Its key without a cell: its id, behind those of the jobs that call it.
        job: JobKey,
        /// What it becomes: one job, or those of its matrix.
        expanded: Box<JobExpansion>,
    },
    /// A worker runs it.
    JobStarted {
        /// Which.
        key: JobKey,
    },
    /// A step is over.
    StepFinished {
        /// Of which job.
        key: JobKey,
        /// Which, and how.
        step: StepLine,
    },
    /// What the steps of a job pointed out.
    Annotated {
        /// Which job.
        key: JobKey,
        /// What, the worst first.
        annotations: Vec<Annotation>,
    },
    /// An artifact is in the blob store.
    ArtifactStored {
        /// Which.
        artifact: Artifact,
    },
    /// A file that a job left can't be stored for now; its conclusion waits.
    StorageDelayed {
        /// Of which job.
        key: JobKey,
        /// Which file, why, and until when it is tried again; none: it was stored.
        reason: Option<String>,
    },
    /// The tests of a job have reported.
    TestsReported {
        /// Of which job.
        key: JobKey,
        /// What they said.
        tests: Box<JobTests>,
    },
    /// A job should stop.
    StopAsked {
        /// Which.
        key: JobKey,
        /// Why.
        why: String,
    },
    /// A job has ended; one of the jobs of a matrix has.
    JobEnded {
        /// Which.
        key: JobKey,
        /// How, `continue-on-error` not counted.
        conclusion: Conclusion,
        /// What later jobs see of it.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
    /// An attempt at a job has failed, and the job begins anew, in a folder of its own.
    JobRetried {
        /// Which.
        key: JobKey,
        /// Why the attempt failed.
        why: String,
    },
    /// The run, which was over, goes on with jobs that are run again.
    RunAgain {
        /// The attempt at the run that begins; the first one was 1.
        attempt: u32,
        /// Which jobs.
        again: RerunSelection,
        /// The jobs among them that go on in the workspace of the attempt before, each at the step of this id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<(JobKey, String)>,
    },
    /// Somebody was given the secrets of a job that is over, for a shell in its workspace.
    SecretsShown {
        /// Which job.
        key: JobKey,
        /// The id of the step whose environment it was.
        step: String,
    },
    /// A job of the workflow is settled: all of its matrix have ended, or it never starts.
    JobSettled {
        /// Its key without a cell: its id, behind those of the jobs that call it.
        job: JobKey,
        /// How it counts for the jobs after it.
        result: Conclusion,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
    /// Somebody wants the run to stop.
    CancelAsked {
        /// Why.
        reason: String,
    },
    /// It is over.
    Ended {
        /// How.
        conclusion: Conclusion,
        /// Why, when it isn't green.
        why: Option<String>,
    },
    /// Something happened where it, or a job, waits for a group or for people.
    Gate(Box<GateFact>),
    /// The service knows that it is over.
    ServiceTold,
}

/// What people and drivers say to a run.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin. Said again, it changes nothing.
    Open(Box<RunSpec>),
    /// A worker runs the job.
    JobStarted {
        /// Which.
        key: JobKey,
    },
    /// A step is over.
    StepFinished {
        /// Of which job.
        key: JobKey,
        /// Which, and how.
        step: StepLine,
    },
    /// What the steps of a job pointed out.
    Annotated {
        /// Which job.
        key: JobKey,
        /// What, the worst first.
        annotations: Vec<Annotation>,
    },
    /// An artifact is in the blob store.
    ArtifactStored {
        /// Which.
        artifact: Artifact,
    },
    /// A file that a job left can't be stored for now, or is stored after all.
    StorageDelayed {
        /// Of which job.
        key: JobKey,
        /// Which file, why, and until when it is tried again; none: it was stored.
        reason: Option<String>,
    },
    /// The tests of a job have reported; said before its end.
    TestsReported {
        /// Of which job.
        key: JobKey,
        /// What they said.
        tests: Box<JobTests>,
    },
    /// A job has ended. A worker that was lost is a failure: `worker lost`.
    JobEnded {
        /// Which.
        key: JobKey,
        /// How, `continue-on-error` not counted.
        conclusion: Conclusion,
        /// What later jobs see of it.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
    /// The worker of a job is gone without having told how the job ended.
    WorkerLost {
        /// Which.
        key: JobKey,
        /// What is known of it.
        why: String,
    },
    /// Run jobs again; the run must be over.
    RunAgain {
        /// Which jobs.
        again: RerunSelection,
        /// Where those begin that were begun before; none: at their first step.
        from: Option<FromStep>,
    },
    /// Somebody wants a shell with the secrets of a job that is over.
    ShowSecrets {
        /// Which job.
        key: JobKey,
        /// The id of the step whose environment it is.
        step: String,
    },
    /// Stop.
    Cancel {
        /// Why.
        reason: String,
    },
    /// About a group or an approval that it, or a job, waits for.
    Gate(GateInput),
    /// The service knows that it is over.
    Told,
    /// The time has come.
    Woken,
}

/// What a run asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Have a worker run this job ([`super::job_spec`] says what), or find the one that does; report what it journals, and answer
    /// with [`Input::JobEnded`].
    RunJob {
        /// Which.
        key: JobKey,
        /// Which attempt at it, from 1; each has a folder of its own.
        attempt: u32,
        /// Once this is set, the worker must be asked to stop, and a job that has not begun ends as cancelled without one.
        /// The effect comes out again with it, under the same key.
        stop: Option<String>,
    },
    /// Ask a concurrency group, or leave it.
    Gate(GateEffect),
    /// Tell the service that it is over; answer with [`Input::Told`].
    TellService {
        /// How.
        conclusion: Conclusion,
        /// Of which commit.
        commit: Commit,
        /// What it stored.
        artifacts: Vec<service::Artifact>,
    },
}

/// Why an input is refused, with what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such run.
    #[error("there is no such run: push a commit, or start a workflow by hand")]
    NotOpen,
    /// The run has no such job.
    #[error("{run} has no job {key}; its jobs are {known}")]
    UnknownJob {
        /// Which run.
        run: RunId,
        /// What was named.
        key: JobKey,
        /// What there is.
        known: String,
    },
    /// Nobody was asked to say yes.
    #[error("{key} of {run} does not wait for approval; {waiting}")]
    NotAsked {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
        /// What does.
        waiting: String,
    },
    /// This person may not say yes or no.
    #[error("{who} may not decide about {key} of {run}: it waits for {from}")]
    NotAllowed {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
        /// The person.
        who: String,
        /// Who may.
        from: String,
    },
    /// It isn't over.
    #[error("{0} is still under way: wait for its end, or cancel it; then jobs can be run again")]
    UnderWay(RunId),
    /// There is nothing to run again.
    #[error("no job of {0} failed: run all of it again, or one job with --job")]
    NothingFailed(RunId),
    /// It was run again too often.
    #[error("{run} was run {RUN_ATTEMPTS_MAX} times; push a commit, or start the workflow anew")]
    TooOften {
        /// Which run.
        run: RunId,
    },
    /// A job can't go on from a step.
    #[error(
        "{key} of {run} can't go on from a step: {why}; run it from its first step: shipway retry {run} --job {key}"
    )]
    NothingKept {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
        /// Why.
        why: String,
    },
    /// No step of the job failed.
    #[error(
        "no step of {key} of {run} failed; name the step to go on from (--job {key} --step ID), or run it from its first step: shipway retry {run} --job {key}"
    )]
    NoFailedStep {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
    },
    /// The step isn't one to go on from.
    #[error(
        "{key} of {run} can't go on from the step {step:?}: its steps up to the one that failed are {known}"
    )]
    NotFromThere {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
        /// What was named.
        step: String,
        /// What there is.
        known: String,
    },
    /// One step is named, and several jobs are meant.
    #[error(
        "which job has the step {step:?}? {jobs} of {run} would run again: name one of them with --job"
    )]
    StepOfSeveral {
        /// Which run.
        run: RunId,
        /// The step.
        step: String,
        /// The jobs.
        jobs: String,
    },
    /// No job has failed.
    #[error(
        "no job of {run} that would run again failed after it had begun, so there is no step to go on from: shipway retry {run}"
    )]
    NoneFailed {
        /// Which run.
        run: RunId,
    },
    /// The job isn't over.
    #[error("{key} of {run} is not over: a shell can be opened in its workspace once it is")]
    JobUnderWay {
        /// Which run.
        run: RunId,
        /// Which job.
        key: JobKey,
    },
    /// What runs can't be read.
    #[error("{run} can't be run again, as its workflow can't be: {why}")]
    NoPlan {
        /// Which run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// It is over.
    #[error("{run} is over ({conclusion}) and can't be cancelled any more")]
    Ended {
        /// Which run.
        run: RunId,
        /// How it ended.
        conclusion: Conclusion,
    },
}
