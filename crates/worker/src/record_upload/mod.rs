//! Sends the records of a job to the server: its journal and log, summaries of steps, and files that are to be stored.
//!
//! # Why
//!
//! The worker of a job that shares no disk with the server writes the same files as any other. A thread sends new bytes of them,
//! so that steps never wait for the server, and a restarted server gets the bytes that it missed.
//!
//! # Invariants
//!
//! - No step runs before the server has the first entry of the journal: of two workers for one attempt, the server takes one.
//! - What an entry of the journal refers to (log, summary, file) arrives before the entry.
//! - Each request says at which offset its bytes belong, so that sending them again changes nothing.
//!
//! # Failure modes
//!
//! - The server can't be reached for [`SERVER_WAIT_MAX`], or refuses the records: the job is cancelled, and the worker exits with an
//!   error. The server sees a lost worker.
//! - A file can't be stored: its entry is sent all the same, and the server fails the job with the reason.

mod file_watch;
mod upload_client;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    process::{Signal, getpid, kill_process},
};
use shipway_workflow::job::{JournalBody, JournalEntry, ServerAccess};
use tokio::sync::oneshot;

use self::{
    file_watch::{FolderWatch, WakeReason},
    upload_client::{RecordName, UploadClient, UploadError},
};
use crate::{job_log::LOG_FILE, journal::JOURNAL_FILE};

/// How long a server that can't be reached, or has no space, is waited for.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// The first pause before a request is sent again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Bytes per request, except for a single line of the journal that is longer.
const CHUNK_BYTES: usize = 1 << 20;
/// The longest line of a journal; the server refuses longer requests.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Time between two looks at the files, so that a chatty step doesn't cause a request per line.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Why the records of a job are not complete on the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordUploadError {
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    #[error("the server refuses the records of the job: {0}")]
    Refused(String),
    #[error("the records of the job can't be read: {0}")]
    File(#[from] io::Error),
    #[error("a line of the journal is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
}

/// The thread that sends the records.
pub(crate) struct RecordUploader {
    thread: JoinHandle<Result<(), RecordUploadError>>,
    /// Dropped when the journal is complete.
    open_journal: OwnedFd,
    claimed: oneshot::Receiver<()>,
}

impl RecordUploader {
    /// Starts to send the records in `folder`, and to listen for a cancellation.
    pub(crate) fn start(server: &ServerAccess, folder: &Path) -> io::Result<Self> {
        let (watch, open_journal) = FolderWatch::open(folder)?;
        let (claim, claimed) = oneshot::channel();
        let upload = RecordUpload {
            client: UploadClient::new(server),
            folder: folder.to_owned(),
            journal_sent: 0,
            log_sent: 0,
            log_is_full: false,
            claim: Some(claim),
        };
        let canceller = UploadClient::new(server);
        let threads = || std::thread::Builder::new().name("records".to_owned());
        // Ends with the process.
        threads().spawn(move || await_cancellation(&canceller))?;
        let thread = threads().spawn(move || {
            let ended = upload.run(&watch);
            if ended.is_err() {
                cancel_own_job();
            }
            ended
        })?;
        Ok(Self {
            thread,
            open_journal,
            claimed,
        })
    }

    /// Waits until the server has taken the first entry of the journal; false if it won't.
    pub(crate) async fn wait_until_claimed(&mut self) -> bool {
        (&mut self.claimed).await.is_ok()
    }

    /// Sends the rest of the records.
    pub(crate) fn finish(self) -> Result<(), RecordUploadError> {
        drop(self.open_journal);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread has panicked").into()))
    }
}

/// The state of the thread.
struct RecordUpload {
    client: UploadClient,
    folder: PathBuf,
    /// Bytes that the server has.
    journal_sent: u64,
    log_sent: u64,
    /// Whether the server takes no more of the log.
    log_is_full: bool,
    /// Notified when the server has the first entry.
    claim: Option<oneshot::Sender<()>>,
}

impl RecordUpload {
    fn run(mut self, watch: &FolderWatch) -> Result<(), RecordUploadError> {
        let mut reason = WakeReason::Changed;
        loop {
            while self.send_new_entries()? {}
            self.send_log()?;
            if reason == WakeReason::Complete {
                return Ok(());
            }
            reason = watch.wait(BATCH_INTERVAL)?;
        }
    }

    /// Sends the next entries of the journal, after what they refer to; false if there are none.
    fn send_new_entries(&mut self) -> Result<bool, RecordUploadError> {
        let lines = self.read_lines()?;
        if lines.is_empty() {
            return Ok(false);
        }
        self.send_log()?;
        for line in lines.split(|byte| *byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice::<JournalEntry>(line) {
                self.send_attachment(&entry.body)?;
            }
        }
        let offset = self.journal_sent;
        self.journal_sent =
            self.retry(|client| client.append(RecordName::Journal, offset, &lines))?;
        if let Some(claim) = self.claim.take_if(|_| self.journal_sent > 0) {
            let _ = claim.send(());
        }
        Ok(true)
    }

    /// The next complete lines of the journal.
    fn read_lines(&self) -> Result<Vec<u8>, RecordUploadError> {
        let path = self.folder.join(JOURNAL_FILE);
        for bytes_max in [CHUNK_BYTES, LINE_BYTES_MAX] {
            let mut text = read_at(&path, self.journal_sent, bytes_max)?;
            let is_whole = text.len() < bytes_max;
            let end = text.iter().rposition(|byte| *byte == b'\n');
            text.truncate(end.map_or(0, |end| end + 1));
            if is_whole || !text.is_empty() {
                return Ok(text);
            }
        }
        Err(RecordUploadError::LineTooLong)
    }

    /// Sends the log to its present end.
    fn send_log(&mut self) -> Result<(), RecordUploadError> {
        let path = self.folder.join(LOG_FILE);
        while !self.log_is_full {
            let chunk = read_at(&path, self.log_sent, CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            let offset = self.log_sent;
            match self.retry(|client| client.append(RecordName::Log, offset, &chunk)) {
                Ok(length) => self.log_sent = length,
                Err(UploadError::TooLarge) => self.log_is_full = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends the file or the summary that an entry refers to.
    fn send_attachment(&self, body: &JournalBody) -> Result<(), RecordUploadError> {
        let sent = match body {
            JournalBody::ArtifactSaved { path, digest, .. } => self.send_file(path, digest),
            JournalBody::Reports(stored) => self.send_file(&stored.path, &stored.digest),
            JournalBody::StepFinished {
                index,
                summary: true,
                ..
            } => self.send_summary(*index),
            _ => Ok(()),
        };
        match sent {
            // The server fails the job when it looks for the file; a summary is best effort.
            Err(UploadError::TooLarge | UploadError::Unusable(_)) => Ok(()),
            sent => Ok(sent?),
        }
    }

    fn send_file(&self, path: &Path, digest: &str) -> Result<(), UploadError> {
        self.retry(|client| {
            let file =
                File::open(path).map_err(|error| UploadError::Unusable(error.to_string()))?;
            client.store_file(digest, &file)
        })
    }

    fn send_summary(&self, index: usize) -> Result<(), UploadError> {
        let path = self.folder.join("summaries").join(format!("{index}.md"));
        let Ok(text) = std::fs::read(path) else {
            return Ok(());
        };
        self.retry(|client| client.store_summary(index, &text))
    }

    /// Repeats a request while the server can't take it.
    fn retry<T>(
        &self,
        send: impl Fn(&UploadClient) -> Result<T, UploadError>,
    ) -> Result<T, UploadError> {
        let deadline = Instant::now() + SERVER_WAIT_MAX;
        let mut pause = PAUSE_MIN;
        loop {
            match send(&self.client) {
                Err(UploadError::Unreachable(why)) if Instant::now() < deadline => {
                    eprintln!("shipway worker: {why}; trying again in {pause:?}");
                }
                ended => return ended,
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl From<UploadError> for RecordUploadError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Unreachable(why) => Self::Unreachable(why),
            UploadError::TooLarge => Self::Refused("too large".to_owned()),
            UploadError::Unusable(why) | UploadError::Refused(why) => Self::Refused(why),
        }
    }
}

/// Up to `bytes_max` bytes of a file from an offset; none if it doesn't exist yet.
fn read_at(path: &Path, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let left = file.metadata()?.len().saturating_sub(offset);
    let length = usize::try_from(left).unwrap_or(bytes_max).min(bytes_max);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Cancels the job on request of the server, or when the job's token is no longer valid.
fn await_cancellation(client: &UploadClient) {
    loop {
        match client.wait_for_cancellation() {
            Ok(false) => {}
            Ok(true) | Err(UploadError::Refused(_)) => return cancel_own_job(),
            Err(UploadError::Unreachable(_) | UploadError::TooLarge | UploadError::Unusable(_)) => {
                std::thread::sleep(PAUSE_MAX);
            }
        }
    }
}

/// Cancels the job as a server on the same machine does.
fn cancel_own_job() {
    let _ = kill_process(getpid(), Signal::TERM);
}
