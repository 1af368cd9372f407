//! Reads a job's journal as it grows, until the job or its worker has ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use shipway_worker::remove_leftover_containers;
use shipway_workflow::job::{JournalBody, JournalEntry};
use tokio_util::sync::CancellationToken;

use super::{
    JOURNAL_FILE, JobError, JournalOffset, JournalStream, WORDS_FILE,
    file_watcher::{FileWatch, FileWatcher},
    io_error,
    job_inbox::{RemoteWorker, WORKER_SILENCE_MAX},
};
use shipway_targets::procfs::{ProcessId, kill_session};

/// A reader of a job's journal. Dropping it does not affect the worker.
pub struct JobJournal {
    folder: PathBuf,
    file: File,
    watch: FileWatch,
    /// Bytes that were read; those before `taken` are parsed.
    text: Vec<u8>,
    taken: usize,
    worker: WorkerWatch,
    state: JournalState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalState {
    Open,
    /// The worker has exited: nothing more will be written.
    Last,
    /// The last line was read.
    Done,
}

impl JobJournal {
    pub(super) fn open(
        folder: &Path,
        watcher: &FileWatcher,
        worker: WorkerWatch,
    ) -> io::Result<Self> {
        let path = folder.join(JOURNAL_FILE);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)?;
        Ok(Self {
            folder: folder.to_owned(),
            file,
            watch: watcher.watch(&path)?,
            text: Vec::new(),
            taken: 0,
            worker,
            state: JournalState::Open,
        })
    }

    /// The next entry; `None` after the last. A worker that exited without a last line is an error.
    ///
    /// Cancel safe: no entry is lost.
    pub async fn next(
        &mut self,
        cancelled: &CancellationToken,
    ) -> Result<Option<JournalEntry>, JobError> {
        loop {
            if let Some(entry) = self.take_line()? {
                return Ok(Some(entry));
            }
            if self.state == JournalState::Done {
                return Ok(None);
            }
            let before = self.text.len();
            self.file
                .read_to_end(&mut self.text)
                .map_err(io_error("reading the journal in", &self.folder))?;
            if self.text.len() > before {
                continue;
            }
            if self.state == JournalState::Last {
                return Err(self.worker.clean_up(&self.folder).await);
            }
            tokio::select! {
                () = cancelled.cancelled() => return Err(JobError::Cancelled),
                () = self.watch.changed() => {}
                // Lines may have been written just before the exit: read once more.
                () = self.worker.wait_until_ended() => self.state = JournalState::Last,
            }
        }
    }

    /// The journal after the entries that were read before.
    pub(super) const fn after(self, offset: JournalOffset) -> JournalAfterOffset {
        JournalAfterOffset {
            journal: self,
            skipped: offset.0,
        }
    }

    /// Waits until the job or its worker has ended, discarding entries.
    pub(super) async fn wait_until_over(&mut self) {
        let never = CancellationToken::new();
        while let Ok(Some(_)) = self.next(&never).await {}
    }

    fn take_line(&mut self) -> Result<Option<JournalEntry>, JobError> {
        let rest = &self.text[self.taken..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.text.drain(..self.taken);
            self.taken = 0;
            return Ok(None);
        };
        let entry: JournalEntry = serde_json::from_slice(&rest[..end])
            .map_err(|error| io_error("reading the journal in", &self.folder)(error.into()))?;
        self.taken += end + 1;
        match entry.body {
            JournalBody::Started { pid, start_time } => {
                self.worker.set_process(ProcessId { pid, start_time });
            }
            JournalBody::Finished { .. } => self.state = JournalState::Done,
            _ => {}
        }
        Ok(Some(entry))
    }
}

/// How the end of a worker is noticed.
pub(super) enum WorkerWatch {
    /// A process of this machine.
    Process {
        /// Cancelled when the worker that this process started has exited.
        child: Option<CancellationToken>,
        /// The worker that the journal names.
        named: Option<ProcessId>,
    },
    /// A worker that sends its records. The process that its journal names is one of another machine.
    Remote(Arc<RemoteWorker>),
}

impl WorkerWatch {
    fn set_process(&mut self, worker: ProcessId) {
        match self {
            Self::Process { named, .. } => *named = Some(worker),
            Self::Remote(_) => {}
        }
    }

    /// Waits until the worker has exited: the one that this process started, otherwise the one named in the journal. Returns at once
    /// if there is neither. A worker that found another one in its folder exits after that one.
    async fn wait_until_ended(&self) {
        match self {
            Self::Process {
                child: Some(child), ..
            } => child.cancelled().await,
            Self::Process {
                named: Some(worker),
                ..
            } => worker.wait_until_ended().await,
            Self::Process { .. } => {}
            Self::Remote(worker) => worker.wait_until_silent().await,
        }
    }

    /// Removes what a lost worker has left running on this machine; the reason why the job has no end.
    async fn clean_up(&self, folder: &Path) -> JobError {
        let Self::Process { named, .. } = self else {
            let seconds = WORKER_SILENCE_MAX.as_secs();
            return JobError::WorkerLost(format!(": it has sent nothing for {seconds} s"));
        };
        // Steps belong to the worker's session. No other process kills the remaining ones.
        if let Some(worker) = named {
            kill_session(*worker).await;
        }
        remove_leftover_containers(folder).await;
        JobError::WorkerLost(last_stderr_line(folder))
    }
}

/// A journal without its first entries. They are read all the same, because the first one names the worker.
pub(super) struct JournalAfterOffset {
    journal: JobJournal,
    /// Number of entries that are still to be skipped.
    skipped: usize,
}

#[async_trait]
impl JournalStream for JournalAfterOffset {
    async fn next(
        &mut self,
        cancelled: &CancellationToken,
    ) -> Result<Option<JournalEntry>, JobError> {
        while self.skipped > 0 {
            if self.journal.next(cancelled).await?.is_none() {
                return Ok(None);
            }
            self.skipped -= 1;
        }
        self.journal.next(cancelled).await
    }
}

/// The last line that the worker printed.
fn last_stderr_line(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(WORDS_FILE)).unwrap_or_default();
    let last = text.trim().lines().next_back();
    last.map(|line| format!(": {line}")).unwrap_or_default()
}
