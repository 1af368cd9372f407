//! Reads a job's journal as it grows, until the job or its worker has ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use shipway_worker::remove_leftover_containers;
use shipway_workflow::job::{JournalBody, JournalEntry};
use tokio_util::sync::CancellationToken;

use super::{
    JOURNAL_FILE, JobError, WORDS_FILE,
    file_watcher::{FileWatch, FileWatcher},
    io_error,
};
use shipway_targets::process::procfs::{ProcessId, kill_session};

/// A reader of a job's journal. Dropping it does not affect the worker.
#[derive(Debug)]
pub struct JobJournal {
    folder: PathBuf,
    file: File,
    watch: FileWatch,
    /// Bytes that were read; those before `taken` are parsed.
    text: Vec<u8>,
    taken: usize,
    worker: Option<ProcessId>,
    /// Cancelled when the worker that this process started has exited.
    child: Option<CancellationToken>,
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
        child: Option<CancellationToken>,
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
            worker: None,
            child,
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
                // Steps belong to the worker's session. No other process kills the remaining ones.
                if let Some(worker) = self.worker {
                    kill_session(worker).await;
                }
                remove_leftover_containers(&self.folder).await;
                return Err(JobError::WorkerLost(last_stderr_line(&self.folder)));
            }
            tokio::select! {
                () = cancelled.cancelled() => return Err(JobError::Cancelled),
                () = self.watch.changed() => {}
                // Lines may have been written just before the exit: read once more.
                () = wait_until_worker_ended(self.worker, self.child.as_ref()) => self.state = JournalState::Last,
            }
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
                self.worker = Some(ProcessId { pid, start_time });
            }
            JournalBody::Finished { .. } => self.state = JournalState::Done,
            _ => {}
        }
        Ok(Some(entry))
    }
}

/// Waits until the worker has exited: the one that this process started, otherwise the one named in the journal. Returns at once
/// if there is neither. A worker that found another one in its folder exits after that one.
async fn wait_until_worker_ended(worker: Option<ProcessId>, child: Option<&CancellationToken>) {
    match (child, worker) {
        (Some(child), _) => child.cancelled().await,
        (None, Some(worker)) => worker.wait_until_ended().await,
        (None, None) => {}
    }
}

/// The last line that the worker printed.
fn last_stderr_line(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(WORDS_FILE)).unwrap_or_default();
    let last = text.trim().lines().next_back();
    last.map(|line| format!(": {line}")).unwrap_or_default()
}
