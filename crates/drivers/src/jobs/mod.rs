//! Jobs as worker processes: started detached, found again by their journal, followed to their end. A server that goes away
//! loses nothing: the next one reads the journal from where it likes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use shipway_core::ids::RunId;
use shipway_workflow::job::{JobKey, JobSpec, JournalBody, JournalEntry};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::{process::proc::ProcessId, tail::Tail};

const JOB_FILE: &str = "job.json";
const JOURNAL_FILE: &str = "journal.jsonl";
const LOG_FILE: &str = "log";
const WORDS_FILE: &str = "worker.log";

/// Starts and finds workers.
#[derive(Clone, Debug)]
pub struct JobRunner {
    exe: PathBuf,
    root: PathBuf,
}

/// Why a job can't be followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The worker is gone without a last line.
    #[error("worker lost{0}")]
    WorkerLost(String),
    /// Files or processes.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Nobody follows any more; the worker goes on.
    #[error("no longer followed")]
    Cancelled,
}

impl JobRunner {
    /// Workers are `exe worker --dir FOLDER`; their folders are below `root`.
    #[must_use]
    pub const fn new(exe: PathBuf, root: PathBuf) -> Self {
        Self { exe, root }
    }

    /// The folder of a job.
    #[must_use]
    pub fn folder(&self, run: &RunId, key: &JobKey) -> PathBuf {
        self.root
            .join(run.service.as_str())
            .join(run.number.0.to_string())
            .join(key.as_str())
    }

    /// The log of a job.
    #[must_use]
    pub fn log(&self, run: &RunId, key: &JobKey) -> PathBuf {
        self.folder(run, key).join(LOG_FILE)
    }

    /// Whether a worker has begun in this folder, or has been.
    #[must_use]
    pub fn has_begun(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|found| found.len() > 0)
    }

    /// Starts a worker, detached. A second one in the same folder refuses to run, so a crash in between does no harm.
    pub fn start(&self, spec: &JobSpec) -> Result<(), JobError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| JobError::Io { what, source }
        };
        fs::create_dir_all(&spec.folder).map_err(io("making the job's folder"))?;
        write_private(&spec.folder, spec).map_err(io("writing the job"))?;
        let words = OpenOptions::new()
            .create(true)
            .append(true)
            .open(spec.folder.join(WORDS_FILE))
            .map_err(io("opening the worker's log"))?;
        let mut command = Command::new(&self.exe);
        command
            .args(["worker", "--dir"])
            .arg(&spec.folder)
            .current_dir(&spec.folder);
        // A group of its own: it outlives the server and its terminal.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            .kill_on_drop(false);
        let mut child = command.spawn().map_err(io("starting the worker"))?;
        // Reaped when it ends.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    /// The journal of a job, from its first line on.
    pub fn journal(&self, folder: &Path) -> Result<Journal, JobError> {
        let tail =
            Tail::open(&folder.join(JOURNAL_FILE), 0).map_err(|error| unreadable(folder, error))?;
        Ok(Journal {
            tail,
            folder: folder.to_owned(),
            text: Vec::new(),
            worker: None,
            state: Reading::Open,
        })
    }

    /// Asks a worker to stop: what runs is ended, what must be cleaned up is.
    pub fn cancel(&self, folder: &Path) {
        let Ok(text) = fs::read_to_string(folder.join(JOURNAL_FILE)) else {
            return;
        };
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<JournalEntry>(line).ok());
        let mut worker = entries.filter_map(|entry| match entry.body {
            JournalBody::Started { pid, start_time } => Some(ProcessId { pid, start_time }),
            _ => None,
        });
        if let Some(pid) = worker
            .next_back()
            .filter(|worker| worker.is_alive())
            .and_then(ProcessId::as_pid)
        {
            // Gone in this moment is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

/// A job's journal, read as it grows.
pub struct Journal {
    tail: Tail,
    folder: PathBuf,
    text: Vec<u8>,
    worker: Option<ProcessId>,
    state: Reading,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// The worker is gone: what is there is all there will be.
    Last,
    /// Its last line has been read.
    Done,
}

impl Journal {
    /// The next entry; `None` after the last. A worker that is gone without a last line is an error.
    pub async fn next(
        &mut self,
        cancelled: &CancellationToken,
    ) -> Result<Option<JournalEntry>, JobError> {
        loop {
            if self.state == Reading::Done {
                return Ok(None);
            }
            while let Ok(bytes) = self.read().await
                && !bytes.is_empty()
            {
                self.text.extend_from_slice(&bytes);
            }
            if let Some(entry) = self.take_line()? {
                return Ok(Some(entry));
            }
            if self.state == Reading::Last {
                return Err(JobError::WorkerLost(last_words(&self.folder)));
            }
            tokio::select! {
                () = cancelled.cancelled() => return Err(JobError::Cancelled),
                changed = self.tail.changed() => changed.map_err(|error| unreadable(&self.folder, error))?,
                // Its last lines may have come in the same moment: read once more.
                () = ended(self.worker, &self.folder) => self.state = Reading::Last,
            }
        }
    }

    async fn read(&mut self) -> Result<bytes::Bytes, JobError> {
        self.tail
            .read()
            .await
            .map_err(|error| unreadable(&self.folder, error))
    }

    fn take_line(&mut self) -> Result<Option<JournalEntry>, JobError> {
        let Some(end) = self.text.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.text.drain(..=end).collect();
        let entry: JournalEntry = serde_json::from_slice(&line)
            .map_err(|error| unreadable(&self.folder, error.into()))?;
        match entry.body {
            JournalBody::Started { pid, start_time } => {
                self.worker = Some(ProcessId { pid, start_time })
            }
            JournalBody::Finished { .. } => self.state = Reading::Done,
            _ => {}
        }
        Ok(Some(entry))
    }
}

fn unreadable(folder: &Path, source: io::Error) -> JobError {
    JobError::Io {
        what: format!("reading the journal in {}", folder.display()),
        source,
    }
}

/// Returns when the worker has ended; one that has not yet said who it is gets a while to do so.
async fn ended(worker: Option<ProcessId>, folder: &Path) {
    /// A worker says who it is within milliseconds; this is for a machine that is very busy.
    const BEGIN_MAX: std::time::Duration = std::time::Duration::from_secs(30);
    match worker {
        Some(worker) => worker.ended().await,
        None => {
            let complained = async {
                loop {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    if fs::metadata(folder.join(WORDS_FILE)).is_ok_and(|found| found.len() > 0) {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(BEGIN_MAX, complained).await;
        }
    }
}

fn last_words(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(WORDS_FILE)).unwrap_or_default();
    text.trim()
        .lines()
        .next_back()
        .map(|line| format!(": {line}"))
        .unwrap_or_default()
}

/// The spec holds secrets: only its owner may read it, and the worker removes it.
fn write_private(folder: &Path, spec: &JobSpec) -> io::Result<()> {
    let beside = folder.join("job.json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&serde_json::to_vec(spec)?)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(JOB_FILE))
}
