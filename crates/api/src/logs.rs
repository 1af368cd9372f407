//! Windows of the logs of jobs, by line numbers, and searches in them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::run::RunStatus;
use utoipa::{IntoParams, ToSchema};

/// Which lines of a log to read: at most one of `from`, `line`, `step` and `at`; the first lines by default.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogWindowQuery {
    /// The attempt at the job, from 1; the last one by default.
    pub attempt: Option<u32>,
    /// The number of the first line, from 1.
    pub from: Option<u64>,
    /// The number of a line that is returned with lines before and after it.
    pub line: Option<u64>,
    /// The index of the step at whose first line the window begins.
    pub step: Option<usize>,
    /// `failure`: around the line that tells why the job failed; `end`: the last lines.
    pub at: Option<LogPlace>,
    /// How many lines; 500 by default, at most 2000. Fewer are returned when they are longer than 1 MiB together.
    pub count: Option<u32>,
}

/// A place in a log that has no number yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogPlace {
    /// The line that tells why the job failed; the last lines if it has not failed.
    Failure,
    /// The last lines.
    End,
}

/// Consecutive lines of a job's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogWindow {
    /// The key of the job.
    pub job: String,
    pub attempt: u32,
    /// Lines that the log had when it was read.
    pub total: u64,
    /// Bytes that the log had when it was read.
    pub bytes: u64,
    /// The number of the line that the request was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focus: Option<u64>,
    pub lines: Vec<LogLine>,
    /// The steps that have run, in their order.
    pub steps: Vec<LogStep>,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// From 1.
    pub number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// As the job printed it, with its control sequences; the first 16 KiB of a longer one.
    pub text: String,
    /// Bytes of the line that are left out here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_bytes: u64,
}

/// A step and its lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogStep {
    /// Its place in the job, from 0.
    pub index: usize,
    pub name: String,
    pub status: RunStatus,
    pub started_at: Timestamp,
    /// Unknown until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// The number of its first line.
    pub first: u64,
    /// The number of its last line, less than `first` when it has none; unknown until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// What to look for in a log.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogSearchQuery {
    /// The text, case-insensitive; at most 200 characters.
    // A default, so that the permission is checked before the query.
    #[serde(default)]
    #[param(required = true)]
    pub text: String,
    /// The attempt at the job, from 1; the last one by default.
    pub attempt: Option<u32>,
}

/// The lines of a log that contain a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogMatches {
    /// The key of the job.
    pub job: String,
    pub attempt: u32,
    /// How many lines contain it.
    pub count: u64,
    /// The first 500 of them; of a long line the part around the first match.
    pub lines: Vec<LogLine>,
}

/// How far a log has grown; the data of a server-sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGrowth {
    pub total: u64,
    pub bytes: u64,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}
