//! The journal that a worker writes during its job. Fields are only ever added: journals of earlier versions are read.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Conclusion;
use crate::report::StoredReport;

/// One line of a job's journal. Lines are numbered from 1 without gaps and synced to disk before the job continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The fact.
    pub body: JournalBody,
}

/// A fact about a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalBody {
    /// The worker runs.
    Started {
        /// Its process.
        pid: u32,
        /// When that process started, in clock ticks since boot: with the pid, it names the process for good.
        start_time: u64,
    },
    /// The job resumes an earlier attempt. That attempt's finished steps follow.
    Resumed {
        /// Which attempt, from 1.
        attempt: u32,
        /// The id of the step that it begins at.
        step: String,
        /// The folder of the attempt whose workspace, home and temporary files it works in.
        base: PathBuf,
    },
    /// A step begins.
    StepStarted {
        /// Its place in the job, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// Its display name with expressions resolved.
        name: String,
        /// Where its output begins in the job's log, in bytes.
        log_offset: u64,
    },
    /// A step has finished.
    StepFinished {
        /// Its place in the job, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// How it ended.
        outcome: Conclusion,
        /// What that means for the job: `continue-on-error` turns a failure into a success.
        conclusion: Conclusion,
        /// What later steps see of it; no secrets.
        outputs: Vec<(String, String)>,
        /// How long it took.
        took_ms: u64,
        /// Where its output ends in the job's log, in bytes.
        log_offset: u64,
        /// Whether it wrote a summary.
        #[serde(default)]
        summary: bool,
        /// How many annotations it made.
        #[serde(default)]
        annotations: u32,
        /// Why, when it didn't succeed: `exit code 2`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// Whether it left values for later steps that must not be in the journal; a private file next to it has them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
        /// When it ran, when that was in an earlier attempt at the job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        earlier: Option<EarlierStepRun>,
    },
    /// Something to look at.
    Annotation {
        /// How bad it is.
        level: AnnotationLevel,
        /// What it says, masked.
        message: String,
        /// The file meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// The line in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u32>,
        /// The last line meant, when there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_line: Option<u32>,
        /// The column in that line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        column: Option<u32>,
        /// The last column meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_column: Option<u32>,
        /// Its headline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    /// An artifact is there to be stored.
    ArtifactSaved {
        /// Its name.
        name: String,
        /// The tar file that holds it.
        path: PathBuf,
        /// `sha256:…` of that file.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// Tests have reported; at most once, after the last step.
    Reports(Box<StoredReport>),
    /// A step asked for a deployment (`shipway/deploy`).
    DeployAsked {
        /// Where to.
        environment: String,
        /// Which artifact, by name; none: the run's only one.
        artifact: Option<String>,
        /// The rollout that came of it, when the server has answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<String>,
    },
    /// Where the environment that the job went to is reached, as `environment.url` says; masked.
    EnvironmentUrl {
        /// The address.
        url: String,
    },
    /// The job has finished; always the last line.
    Finished {
        /// How it ended.
        conclusion: Conclusion,
        /// What later jobs see of it; no secrets.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
}

/// When a step ran that was done in an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierStepRun {
    /// Which attempt at the job, from 1.
    pub attempt: u32,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// How bad an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationLevel {
    /// For those who debug.
    Debug,
    /// For information.
    Notice,
    /// Something to mind.
    Warning,
    /// Something is wrong.
    Error,
}
