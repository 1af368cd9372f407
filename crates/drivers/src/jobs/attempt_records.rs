//! What jobs have left for readers: logs, summaries, the progress of their steps, and files on their way to the blobs.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use shipway_core::access::JobIdentity;
use shipway_engine::Reader;
use shipway_worker::{AttemptProgress, ResumeError};
use shipway_workflow::model::WorkflowStep;

use super::{JobError, LoggedStep};

/// Bytes of a log. Ends after the first error.
pub type JobLogStream = BoxStream<'static, io::Result<Bytes>>;

/// Where the stream of a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobLogEnd {
    /// At its present end.
    Present,
    /// When the job has ended.
    Finished,
}

/// Files that jobs have stored.
#[async_trait]
pub trait JobFiles: Send + Sync {
    /// Opens a file that the journal of `job` names. The journal is written by a process that runs the job's steps, so that a file
    /// which is not the job's own is refused.
    async fn open_file(&self, job: &JobIdentity, path: &Path) -> Result<Reader, JobFileError>;
}

/// Why a file of a job can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// The journal names a file that isn't the job's.
    #[error("{0} is not a file in the job's folder")]
    Outside(PathBuf),
    /// The worker, which shares no disk with the server, has not sent it.
    #[error("the worker has not sent {0}")]
    NotSent(PathBuf),
    /// It can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// The file, as the journal names it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The records of attempts at jobs, running or ended.
#[async_trait]
pub trait AttemptRecords: JobFiles {
    /// The log from a byte offset; `None` if the job has none yet.
    async fn read_log(
        &self,
        job: &JobIdentity,
        offset: u64,
        end: JobLogEnd,
    ) -> Result<Option<JobLogStream>, JobError>;

    /// A part of the log: `bytes` of it, or fewer at its present end; `None` if the job has none.
    async fn read_log_block(
        &self,
        job: &JobIdentity,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<Bytes>, JobError>;

    /// The last complete lines of the log, up to 256 KiB; empty if there is none.
    async fn read_log_end(&self, job: &JobIdentity) -> String;

    /// The steps that have run, and where the output of each is in the log; empty if the attempt has not started.
    async fn read_step_log(&self, job: &JobIdentity) -> Vec<LoggedStep>;

    /// The summaries of the job's steps, one after the other; `None` if no step wrote one.
    async fn read_summary(&self, job: &JobIdentity) -> Option<String>;

    /// How far an attempt got with these steps, and where it can be resumed.
    async fn read_progress(
        &self,
        job: &JobIdentity,
        steps: &[WorkflowStep],
    ) -> Result<AttemptProgress, ResumeError>;
}
