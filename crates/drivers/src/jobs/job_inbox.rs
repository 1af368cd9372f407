//! Records that workers without a shared disk send: journals, logs and summaries, kept in the same folders and formats as those of
//! workers on this machine.
//!
//! # Invariants
//!
//! - Bytes that are acknowledged are synced to disk, and never change.
//! - Bytes that are sent again change nothing; other bytes at the same offset are refused. So of two workers for one attempt, the first
//!   to send its journal is the worker of the job.
//! - A cancellation is a file before the worker is notified: it survives a restart of the server.
//!
//! # Failure modes
//!
//! - The server is killed between writing and acknowledging: the worker sends the same bytes again, and they are compared.
//! - A worker that sends nothing for the time of [`WORKER_SILENCE_MAX`] is lost. An open request counts as a sign of life.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shipway_core::access::JobIdentity;
use shipway_workflow::job::JournalEntry;
use tokio::{sync::Notify, task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{CANCEL_FILE, JOURNAL_FILE, JobRunner, LOG_FILE};

/// How long a worker may be silent: several of its requests.
pub(super) const WORKER_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the answer about a cancellation is held back.
const CANCELLATION_WAIT: Duration = Duration::from_secs(20);

/// Bytes of one request.
pub const APPEND_BYTES_MAX: usize = 4 << 20;
/// Bytes of a journal.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a log.
const LOG_BYTES_MAX: u64 = 16 << 30;
/// Bytes of a step's summary: GitHub's limit.
pub const SUMMARY_BYTES_MAX: usize = 1 << 20;
/// Steps that may have a summary.
const SUMMARIES_MAX: u32 = 10_000;

/// A record that workers append to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendedRecord {
    /// Whole lines, each a [`JournalEntry`].
    Journal,
    /// Any bytes.
    Log,
}

impl AppendedRecord {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Journal => JOURNAL_FILE,
            Self::Log => LOG_FILE,
        }
    }

    const fn bytes_max(self) -> u64 {
        match self {
            Self::Journal => JOURNAL_BYTES_MAX,
            Self::Log => LOG_BYTES_MAX,
        }
    }
}

/// Why records are refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The record has other bytes at this offset.
    #[error("another worker runs this job: its record has other bytes at this offset")]
    Conflict,
    /// The request or the record is too large.
    #[error("a record has at most {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// Not whole lines of a journal.
    #[error("these are not lines of a journal: {0}")]
    NoEntries(String),
    /// The disk refuses the bytes.
    #[error("the record can't be written: {0}")]
    Io(#[from] io::Error),
}

/// Receives the records of jobs.
pub struct JobInbox {
    runner: JobRunner,
    /// Workers with recent requests.
    workers: Mutex<BTreeMap<JobIdentity, Arc<RemoteWorker>>>,
}

impl JobInbox {
    pub(super) fn new(runner: JobRunner) -> Self {
        Self {
            runner,
            workers: Mutex::default(),
        }
    }

    pub(super) fn folder(&self, job: &JobIdentity) -> PathBuf {
        self.runner.attempt_folder(&job.run, &job.key, job.attempt)
    }

    /// The worker of a job. Workers that were silent for long are forgotten.
    pub(super) fn worker(&self, job: &JobIdentity) -> Arc<RemoteWorker> {
        // Nothing panics while it is held.
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|known, worker| {
            known == job || Arc::strong_count(worker) > 1 || !worker.is_silent()
        });
        workers.entry(job.clone()).or_default().clone()
    }

    /// Creates the folder of a job with empty records, so that they can be watched.
    pub(super) fn prepare(&self, job: &JobIdentity) -> io::Result<()> {
        let folder = self.folder(job);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        for name in [JOURNAL_FILE, LOG_FILE] {
            super::create_file(&folder.join(name))?;
        }
        Ok(())
    }

    /// Appends bytes at an offset; returns the length of the record when it is on disk. That is less than the offset if bytes before
    /// are missing: then nothing was appended.
    ///
    /// # Errors
    /// When the record has other bytes there, or would be too large.
    pub async fn append(
        &self,
        job: &JobIdentity,
        record: AppendedRecord,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<u64, ReceiveError> {
        let worker = self.worker(job);
        let _contact = worker.open_request();
        if bytes.len() > APPEND_BYTES_MAX {
            let bytes_max = APPEND_BYTES_MAX as u64;
            return Err(ReceiveError::TooLarge { bytes_max });
        }
        if record == AppendedRecord::Journal {
            check_entries(&bytes)?;
        }
        let path = self.folder(job).join(record.file_name());
        let _only_one = worker.appending.lock().await;
        let appended = spawn_blocking(move || append_at(&path, record, offset, &bytes)).await;
        appended.map_err(io::Error::other)?
    }

    /// Stores the summary of a step.
    ///
    /// # Errors
    /// When it is too large, or can't be written.
    pub async fn store_summary(
        &self,
        job: &JobIdentity,
        step: u32,
        text: Vec<u8>,
    ) -> Result<(), ReceiveError> {
        let worker = self.worker(job);
        let _contact = worker.open_request();
        if text.len() > SUMMARY_BYTES_MAX || step >= SUMMARIES_MAX {
            let bytes_max = SUMMARY_BYTES_MAX as u64;
            return Err(ReceiveError::TooLarge { bytes_max });
        }
        let folder = self.folder(job).join("summaries");
        let stored = spawn_blocking(move || write_summary(&folder, step, &text)).await;
        Ok(stored.map_err(io::Error::other)??)
    }

    /// A long request of the job's worker, which isn't silent until the guard is dropped.
    #[must_use]
    pub fn open_request(&self, job: &JobIdentity) -> WorkerContact {
        self.worker(job).open_request()
    }

    /// Waits a while for a cancellation; whether the job is cancelled.
    pub async fn wait_for_cancellation(&self, job: &JobIdentity) -> bool {
        let worker = self.worker(job);
        let _contact = worker.open_request();
        if self.folder(job).join(CANCEL_FILE).exists() {
            return true;
        }
        let cancelled = worker.cancelled.cancelled();
        tokio::time::timeout(CANCELLATION_WAIT, cancelled)
            .await
            .is_ok()
    }

    /// Cancels a job. Idempotent.
    pub(super) fn cancel(&self, job: &JobIdentity) {
        // Fails if the folder was removed: then there is nothing to cancel.
        let _ = super::create_file(&self.folder(job).join(CANCEL_FILE));
        self.worker(job).cancelled.cancel();
    }
}

/// A worker that shares no disk with the server.
pub(super) struct RemoteWorker {
    /// Held while a record grows.
    appending: tokio::sync::Mutex<()>,
    contact: Mutex<ContactState>,
    /// Notified when a request ends.
    request_ended: Notify,
    cancelled: CancellationToken,
}

struct ContactState {
    open_requests: usize,
    last_at: Instant,
}

impl Default for RemoteWorker {
    fn default() -> Self {
        Self {
            appending: tokio::sync::Mutex::default(),
            contact: Mutex::new(ContactState {
                open_requests: 0,
                last_at: Instant::now(),
            }),
            request_ended: Notify::default(),
            cancelled: CancellationToken::new(),
        }
    }
}

impl RemoteWorker {
    fn contact(&self) -> MutexGuard<'_, ContactState> {
        // Nothing panics while it is held.
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_request(self: &Arc<Self>) -> WorkerContact {
        self.contact().open_requests += 1;
        WorkerContact(Arc::clone(self))
    }

    /// When the worker counts as lost if it sends nothing more; `None` while a request is open.
    fn silent_from(&self) -> Option<Instant> {
        let contact = self.contact();
        (contact.open_requests == 0).then(|| contact.last_at + WORKER_SILENCE_MAX)
    }

    fn is_silent(&self) -> bool {
        self.silent_from()
            .is_some_and(|from| from <= Instant::now())
    }

    /// Waits until the worker has been silent for too long.
    pub(super) async fn wait_until_silent(&self) {
        loop {
            // Created before the state is read, so that no end is missed.
            let request_ended = self.request_ended.notified();
            match self.silent_from() {
                Some(from) if from <= Instant::now() => return,
                Some(from) => tokio::time::sleep_until(from).await,
                None => request_ended.await,
            }
        }
    }
}

/// An open request of a worker.
pub struct WorkerContact(Arc<RemoteWorker>);

impl Drop for WorkerContact {
    fn drop(&mut self) {
        let mut contact = self.0.contact();
        contact.open_requests = contact.open_requests.saturating_sub(1);
        contact.last_at = Instant::now();
        drop(contact);
        self.0.request_ended.notify_waiters();
    }
}

/// Whether bytes are whole lines of a journal.
fn check_entries(bytes: &[u8]) -> Result<(), ReceiveError> {
    let invalid = |why: &str| ReceiveError::NoEntries(why.to_owned());
    let lines = bytes
        .strip_suffix(b"\n")
        .ok_or_else(|| invalid("the last line is incomplete"))?;
    for line in lines.split(|byte| *byte == b'\n') {
        serde_json::from_slice::<JournalEntry>(line)
            .map_err(|error| invalid(&error.to_string()))?;
    }
    Ok(())
}

/// Appends what the file doesn't have yet. Blocks.
fn append_at(
    path: &Path,
    record: AppendedRecord,
    offset: u64,
    bytes: &[u8],
) -> Result<u64, ReceiveError> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let length = file.metadata()?.len();
    if offset > length {
        return Ok(length);
    }
    let known = usize::try_from(length - offset).unwrap_or(usize::MAX);
    let (known, new) = bytes.split_at(known.min(bytes.len()));
    let mut written = vec![0; known.len()];
    file.read_exact_at(&mut written, offset)?;
    if written != known {
        return Err(ReceiveError::Conflict);
    }
    let bytes_max = record.bytes_max();
    if length + new.len() as u64 > bytes_max {
        return Err(ReceiveError::TooLarge { bytes_max });
    }
    if let Err(error) = file.write_all(new) {
        // A full disk: the worker sends all of it again.
        let _ = file.set_len(length);
        return Err(error.into());
    }
    file.sync_data()?;
    Ok(length + new.len() as u64)
}

/// Writes a summary under a temporary name first. Blocks.
fn write_summary(folder: &Path, step: u32, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (path, temp) = (
        folder.join(format!("{step}.md")),
        folder.join(format!("{step}.new")),
    );
    let mut file = File::create(&temp)?;
    file.write_all(text)?;
    fs::rename(temp, path)
}

#[cfg(test)]
mod tests {
    use shipway_workflow::job::JournalBody;

    use super::*;

    fn job() -> JobIdentity {
        JobIdentity {
            run: "shop/r1".parse().unwrap(),
            key: "build".parse().unwrap(),
            attempt: 1,
        }
    }

    fn inbox() -> (tempfile::TempDir, JobInbox) {
        let root = tempfile::tempdir().unwrap();
        let inbox = JobInbox::new(JobRunner::new("shipway".into(), root.path().join("runs")));
        inbox.prepare(&job()).unwrap();
        (root, inbox)
    }

    fn started(pid: u32) -> Vec<u8> {
        let entry = JournalEntry {
            seq: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            body: JournalBody::Started { pid, start_time: 7 },
        };
        let mut line = serde_json::to_vec(&entry).unwrap();
        line.push(b'\n');
        line
    }

    #[tokio::test]
    async fn bytes_that_are_sent_again_change_nothing_and_gaps_are_reported() {
        let (_root, inbox) = inbox();
        let log = async |offset, text: &str| {
            let job = job();
            let sent = inbox.append(&job, AppendedRecord::Log, offset, text.into());
            sent.await.unwrap()
        };
        assert_eq!(log(0, "one\n").await, 4);
        assert_eq!(log(0, "one\n").await, 4, "again");
        assert_eq!(log(2, "e\ntwo\n").await, 8, "overlapping");
        assert_eq!(log(9, "lost").await, 8, "a gap");
        let text = fs::read_to_string(inbox.folder(&job()).join(LOG_FILE)).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[tokio::test]
    async fn the_first_worker_that_sends_its_journal_has_the_job() {
        let (_root, inbox) = inbox();
        let journal = async |line| inbox.append(&job(), AppendedRecord::Journal, 0, line).await;
        let first = started(100);
        assert_eq!(journal(first.clone()).await.unwrap(), first.len() as u64);
        let other = journal(started(200)).await;
        assert!(matches!(other, Err(ReceiveError::Conflict)), "{other:?}");
        for wrong in [&b"no entry\n"[..], b"{}\n", &first[..first.len() - 1], b""] {
            let refused = journal(wrong.to_vec()).await;
            assert!(
                matches!(refused, Err(ReceiveError::NoEntries(_))),
                "{refused:?}"
            );
        }
        let large = vec![b'\n'; APPEND_BYTES_MAX + 1];
        let refused = journal(large).await;
        assert!(
            matches!(refused, Err(ReceiveError::TooLarge { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_lost_when_it_is_silent_and_an_open_request_is_a_sign_of_life() {
        let (_root, inbox) = inbox();
        let worker = inbox.worker(&job());
        let begun = Instant::now();
        let request = worker.open_request();
        let closing = async {
            tokio::time::sleep(Duration::from_secs(500)).await;
            drop(request);
        };
        tokio::join!(worker.wait_until_silent(), closing);
        assert_eq!(
            begun.elapsed(),
            Duration::from_secs(500) + WORKER_SILENCE_MAX
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_reaches_the_worker_at_once_and_after_a_restart() {
        let (_root, inbox) = inbox();
        let (job, begun) = (job(), Instant::now());
        assert!(!inbox.wait_for_cancellation(&job).await);
        assert_eq!(begun.elapsed(), CANCELLATION_WAIT);
        let (cancelled, ()) = tokio::join!(inbox.wait_for_cancellation(&job), async {
            inbox.cancel(&job);
        });
        assert!(cancelled);
        assert_eq!(begun.elapsed(), CANCELLATION_WAIT);
        let restarted = JobInbox::new(inbox.runner.clone());
        assert!(restarted.wait_for_cancellation(&job).await);
    }
}
