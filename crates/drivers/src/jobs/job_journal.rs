//! A job's journal, read as it grows, until the job or its worker has ended.

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
use crate::process::procfs::{ProcessId, kill_session};

/// A job's journal. Dropped, it leaves the worker alone.
#[derive(Debug)]
pub struct JobJournal {
    folder: PathBuf,
    file: File,
    watch: FileWatch,
    /// What was read and is not yet taken apart, from `taken` on.
    text: Vec<u8>,
    taken: usize,
    worker: Option<ProcessId>,
    /// The worker that was started here.
    child: Option<CancellationToken>,
    state: JournalState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalState {
    Open,
    /// The worker is gone: what is there is all there will be.
    Last,
    /// Its last line has been read.
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

    /// The next entry; `None` after the last. A worker that is gone without a last line is an error.
    ///
    /// May be dropped and called again at any time: no entry is lost.
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
                // Steps are of the worker's session. Nobody else ends what it has left.
                if let Some(worker) = self.worker {
                    kill_session(worker).await;
                }
                remove_leftover_containers(&self.folder).await;
                return Err(JobError::WorkerLost(last_stderr_line(&self.folder)));
            }
            tokio::select! {
                () = cancelled.cancelled() => return Err(JobError::Cancelled),
                () = self.watch.changed() => {}
                // Its last lines may have come in the same moment: read once more.
                () = wait_until_worker_ended(self.worker, self.child.as_ref()) => self.state = JournalState::Last,
            }
        }
    }

    /// Returns when the job or its worker has ended. The entries are gone then.
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

/// Returns when the worker has ended: the one that was started here, or the one that has said who it is. Where there is neither,
/// there is no worker. The one that was started here may have found another at work; then it ends after that one.
async fn wait_until_worker_ended(worker: Option<ProcessId>, child: Option<&CancellationToken>) {
    match (child, worker) {
        (Some(child), _) => child.cancelled().await,
        (None, Some(worker)) => worker.wait_until_ended().await,
        (None, None) => {}
    }
}

/// What the worker said before it went.
fn last_stderr_line(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(WORDS_FILE)).unwrap_or_default();
    let last = text.trim().lines().next_back();
    last.map(|line| format!(": {line}")).unwrap_or_default()
}
