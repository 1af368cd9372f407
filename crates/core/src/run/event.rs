//! Inputs, events, effects and rejections of a run.

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    graph::{JobExpansion, RerunSelection},
    job::{AnnotationLevel, Conclusion, JobKey},
};

use super::{
    gate_event::{GateEffect, GateFact, GateInput},
    job_tests::JobTests,
    resume_point::FromStep,
    spec::RunSpec,
};
use crate::{
    gate::UnacceptedDecider,
    ids::{Digest, RunId},
    release::Commit,
    service,
};

/// Attempts at one run; GitHub's limit.
pub(super) const RUN_ATTEMPTS_MAX: u32 = 50;

/// An artifact that a job stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Its name; a later one of the same name takes its place.
    pub name: String,
    pub digest: Digest,
    pub size: u64,
}

/// Something to look at that a step of a job pointed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    pub level: AnnotationLevel,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
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

/// A finished step, as pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLine {
    /// Its place in the job, from 0.
    pub index: usize,
    pub name: String,
    pub conclusion: Conclusion,
    /// How it went, where that differs: a failure that may be counts as success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Conclusion>,
    pub took_ms: u64,
    /// The attempt at the job in which it ran, when that was an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_attempt: Option<u32>,
}

/// The facts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    Opened {
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
        key: JobKey,
    },
    /// A step has finished.
    StepFinished {
        key: JobKey,
        step: StepLine,
    },
    /// What the steps of a job pointed out.
    Annotated {
        key: JobKey,
        annotations: Vec<Annotation>,
    },
    /// An artifact is in the blob store.
    ArtifactStored {
        artifact: ArtifactRecord,
    },
    /// A file that a job left can't be stored for now; its conclusion waits.
    StorageDelayed {
        key: JobKey,
        /// Which file, why, and until when it is tried again; none: it was stored.
        reason: Option<String>,
    },
    /// The tests of a job have reported.
    TestsReported {
        key: JobKey,
        tests: Box<JobTests>,
    },
    /// A job should stop.
    StopRequested {
        key: JobKey,
        why: String,
    },
    /// A job has ended; one of the jobs of a matrix has.
    JobEnded {
        key: JobKey,
        /// How, `continue-on-error` not counted.
        conclusion: Conclusion,
        outputs: Vec<(String, String)>,
        why: Option<String>,
    },
    /// An attempt at a job has failed, and the job begins anew, in a folder of its own.
    JobRetried {
        key: JobKey,
        why: String,
    },
    /// A run that had ended runs jobs again.
    RerunStarted {
        /// The attempt at the run that begins; the first one was 1.
        attempt: u32,
        again: RerunSelection,
        /// Those of the jobs that resume in the workspace of the previous attempt, with the id of the step.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<(JobKey, String)>,
    },
    /// A person was given the secrets of an ended job, for a shell in its workspace.
    SecretsShown {
        key: JobKey,
        /// The id of the step whose environment it was.
        step: String,
    },
    /// A job of the workflow is settled: all of its matrix have ended, or it never starts.
    JobCompleted {
        /// Its key without a cell: its id, behind those of the jobs that call it.
        job: JobKey,
        /// How it counts for the jobs after it.
        result: Conclusion,
        why: Option<String>,
    },
    /// A person has asked to cancel the run.
    CancellationRequested {
        reason: String,
    },
    Ended {
        conclusion: Conclusion,
        why: Option<String>,
    },
    /// Something happened where it, or a job, waits for a group or for people.
    Gate(Box<GateFact>),
    /// The service has been notified of the end.
    ServiceNotified,
}

/// Commands of people and reports of drivers.
#[derive(Clone, Debug)]
pub enum RunInput {
    /// Begin. Said again, it changes nothing.
    Open(Box<RunSpec>),
    /// A worker runs the job.
    JobStarted {
        key: JobKey,
    },
    /// A step has finished.
    StepFinished {
        key: JobKey,
        step: StepLine,
    },
    /// What the steps of a job pointed out.
    Annotated {
        key: JobKey,
        annotations: Vec<Annotation>,
    },
    /// An artifact is in the blob store.
    ArtifactStored {
        artifact: ArtifactRecord,
    },
    /// A file that a job left can't be stored for now, or is stored after all.
    StorageDelayed {
        key: JobKey,
        /// Which file, why, and until when it is tried again; none: it was stored.
        reason: Option<String>,
    },
    /// The tests of a job have reported; said before its end.
    TestsReported {
        key: JobKey,
        tests: Box<JobTests>,
    },
    /// A job has ended. A worker that was lost is a failure: `worker lost`.
    JobEnded {
        key: JobKey,
        /// How, `continue-on-error` not counted.
        conclusion: Conclusion,
        outputs: Vec<(String, String)>,
        why: Option<String>,
    },
    /// The worker of a job is gone without having told how the job ended.
    WorkerLost {
        key: JobKey,
        why: String,
    },
    /// Run jobs again; the run must be over.
    Rerun {
        again: RerunSelection,
        /// The steps at which failed jobs resume; `None`: jobs start at their first step.
        from: Option<FromStep>,
    },
    /// Requests the secrets of an ended job for a shell.
    ShowSecrets {
        key: JobKey,
        /// The id of the step whose environment it is.
        step: String,
    },
    Cancel {
        reason: String,
    },
    /// About a group or an approval that it, or a job, waits for.
    Gate(GateInput),
    /// The service has been notified of the end.
    ServiceNotified,
    /// The time has come.
    TimerFired,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RunEffect {
    /// Have a worker run this job ([`super::job_spec`]), or find the worker that already runs it; report its journal, and answer
    /// with [`RunInput::JobEnded`].
    RunJob {
        key: JobKey,
        /// Which attempt at it, from 1; each has a folder of its own.
        attempt: u32,
        /// Once set, the worker must be stopped, and a job that has not started ends as cancelled without a worker. The effect
        /// comes out again with it, under the same key.
        stop: Option<String>,
    },
    /// Ask a concurrency group, or leave it.
    Gate(GateEffect),
    /// Notify the service of the end; answer with [`RunInput::ServiceNotified`].
    NotifyService {
        conclusion: Conclusion,
        commit: Commit,
        artifacts: Vec<service::RunArtifact>,
    },
}

/// Why an input is refused, with what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunRejection {
    /// There is no such run.
    #[error("no such run: push a commit, or start a workflow with `shipway dispatch`")]
    NotOpen,
    /// The run has no such job.
    #[error("{run} has no job {key}; its jobs are {known}")]
    UnknownJob {
        run: RunId,
        key: JobKey,
        known: String,
    },
    /// The job waits for no approval.
    #[error("{key} of {run} does not wait for approval; {waiting}")]
    NoPendingApproval {
        run: RunId,
        key: JobKey,
        waiting: String,
    },
    #[error(
        "what {key} of {run} brings to {environment} is not what you saw: look again, and decide with `shipway approve {run} --job {key}` (it is {current} now)"
    )]
    SubjectChanged {
        run: RunId,
        key: JobKey,
        environment: String,
        current: Digest,
    },
    #[error(
        "{} may not open the gates of {key} of {run}: {}", decider.who,
        match decider.accepted.as_str() {
            "" => "its environment names no one in `break_glass`".to_owned(),
            named => format!("its environment allows it to {named}"),
        }
    )]
    NoBreakGlass {
        run: RunId,
        key: JobKey,
        decider: Box<UnacceptedDecider>,
    },
    #[error("break-glass needs a reason: shipway break-glass {run} --job {key} --reason …")]
    NoBreakGlassReason { run: RunId, key: JobKey },
    #[error("{key} of {run} does not wait at a gate: there is nothing to open")]
    NothingToOpen { run: RunId, key: JobKey },
    #[error("the glass of {key} of {run} was not broken: there is nothing to review")]
    NoGlassBroken { run: RunId, key: JobKey },
    #[error(
        "{who} broke the glass of {key} of {run}: another person must review it: shipway review {run} --job {key}"
    )]
    OwnReview {
        run: RunId,
        key: JobKey,
        who: String,
    },
    /// This person may not say yes or no.
    #[error("{} may not approve or reject {key} of {run}: {decider}", decider.who)]
    NotAllowed {
        run: RunId,
        key: JobKey,
        decider: Box<UnacceptedDecider>,
    },
    #[error("{0} is still running: wait until it ends or cancel it, then re-run jobs")]
    UnderWay(RunId),
    /// There is nothing to run again.
    #[error("no job of {0} failed: re-run all jobs, or one with --job")]
    NothingFailed(RunId),
    /// It was run again too often.
    #[error("{run} already has {RUN_ATTEMPTS_MAX} attempts; push a commit, or start a new run")]
    TooOften { run: RunId },
    /// The job can't be resumed.
    #[error(
        "{key} of {run} can't be resumed from a step: {why}; re-run it from its first step: shipway retry {run} --job {key}"
    )]
    NothingKept {
        run: RunId,
        key: JobKey,
        why: String,
    },
    /// No step of the job failed.
    #[error(
        "no step of {key} of {run} failed; name the step to resume from (--job {key} --step ID), or re-run it from its first step: shipway retry {run} --job {key}"
    )]
    NoFailedStep { run: RunId, key: JobKey },
    /// The job can't be resumed at this step.
    #[error(
        "{key} of {run} can't be resumed from the step {step:?}: its steps up to the failed one are {known}"
    )]
    NotFromThere {
        run: RunId,
        key: JobKey,
        step: String,
        known: String,
    },
    /// A step was given, but several jobs would run again.
    #[error(
        "several jobs of {run} would be re-run ({jobs}): name the one with the step {step:?} with --job"
    )]
    StepOfSeveral {
        run: RunId,
        step: String,
        jobs: String,
    },
    /// No job has failed.
    #[error(
        "no job of {run} failed in a step, so there is no step to resume from: shipway retry {run}"
    )]
    NoneFailed { run: RunId },
    /// The job isn't over.
    #[error("{key} of {run} has not finished: a shell can be opened in its workspace afterwards")]
    JobUnderWay { run: RunId, key: JobKey },
    #[error("{run} can't be re-run because its workflow can't: {why}")]
    NoPlan { run: RunId, why: String },
    #[error("{run} has already finished ({conclusion}) and can't be cancelled")]
    Ended { run: RunId, conclusion: Conclusion },
}
