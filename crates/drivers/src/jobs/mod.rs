//! Runs jobs as detached worker processes, finds them again by their journal, and follows them to their end.
//!
//! # Why
//!
//! A job must survive a restart of the server: the next server reads its journal from any position.
//!
//! # Invariants
//!
//! Everything that two processes must agree on is in the job's folder: the worker holds a lock there while it runs, its journal
//! names its process, and a cancellation is a file before it is a signal. This module has no state that must be remembered.
//!
//! # Failure modes
//!
//! - The server is killed after starting a worker: the worker runs on.
//! - Two workers are started in one folder: one runs the job, the other waits for the lock and exits.
//! - A worker dies without a last line: its journal ends with [`JobError::WorkerLost`], and its steps are killed.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use rustix::{
    fs::{FlockOperation, flock},
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use shipway_core::{ids::RunId, target::ResourceLimits};
use shipway_workflow::{
    job::{ENGINE, JobKey, JobResources, JobSpec, JournalBody, JournalEntry, NETWORK},
    runner::{RunnerLabels, RunnerMismatch, RunnerRequest},
};
use tokio::{process::Command, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use shipway_targets::{
    process::cgroup,
    procfs::ProcessId,
    tail::{read_last_lines, stream_file},
};

mod attempt_records;
mod empty_folder_launcher;
mod file_watcher;
mod job_executor;
mod job_inbox;
mod job_journal;
mod job_log;
mod job_slots;
mod job_start_error;
mod job_storage;
mod leftovers;
mod ownership;
mod process_executor;
mod remote_executor;
mod shell_file;
mod step_log;
mod step_summaries;

pub use attempt_records::{AttemptRecords, JobFileError, JobFiles, JobLogEnd, JobLogStream};
pub use empty_folder_launcher::EmptyFolderLauncher;
pub use job_executor::{JobExecutor, JournalOffset, JournalStream};
pub use job_inbox::{
    APPEND_BYTES_MAX, AppendedRecord, JobInbox, ReceiveError, SUMMARY_BYTES_MAX, WorkerContact,
};
pub use job_journal::JobJournal;
pub use job_log::JobLog;
pub use job_slots::{JobSlot, JobSlots};
pub use job_start_error::JobStartError;
pub use job_storage::{JobStorage, ShellFileError, WorkspaceSelection};
pub use process_executor::{LocalSources, ProcessJobExecutor};
pub use remote_executor::{RemoteJobExecutor, WorkerLauncher};
pub use shell_file::{InvalidShellFileName, ShellFileName};
pub use shipway_worker::{AttemptProgress, ResumeError, can_isolate};
pub use step_log::{LoggedStep, LoggedStepEnd};

use shipway_worker::RESUME_STATE_FILE;

use file_watcher::FileWatcher;
use job_inbox::RemoteWorker;
use job_journal::WorkerWatch;
use step_log::read_step_log;
use step_summaries::read_job_summary;

const JOB_FILE: &str = "job.json";
const JOURNAL_FILE: &str = "journal.jsonl";
const LOG_FILE: &str = "log";
/// Errors that the worker prints before its journal is open.
const WORDS_FILE: &str = "worker.log";
/// Present if the job is to be cancelled; a worker checks for it when it starts.
const CANCEL_FILE: &str = "cancel";
/// The name of [`CANCEL_FILE`] after the worker was signalled.
const CANCELLED_FILE: &str = "cancel.told";
/// Timeout for a worker to exit after its last line: it has nothing left to do.
const SETTLED: Duration = Duration::from_secs(2);
/// Locked by the worker of the folder while it runs.
const LOCK_FILE: &str = "worker.lock";

/// Environment variables that are passed to a worker: where programs are, where a user's tools are, and, with [`NETWORK`] and
/// [`ENGINE`], how to reach the network and containers.
const ENVIRONMENT: [&str; 7] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "TZ",
    "RUST_BACKTRACE",
    "XDG_RUNTIME_DIR",
];

/// Starts and finds workers.
#[derive(Clone, Debug)]
pub struct JobRunner {
    exe: PathBuf,
    root: PathBuf,
    /// Arguments for workers after the folder.
    arguments: &'static [&'static str],
    /// Limits of each job, if this machine can enforce them.
    limits: ResourceLimits,
    /// The labels that jobs may request with `runs-on`.
    labels: RunnerLabels,
    shared: Arc<RunnerState>,
}

#[derive(Debug, Default)]
struct RunnerState {
    watcher: OnceLock<FileWatcher>,
    /// Running workers that were started by this process: their exit is known before they have written who they are.
    children: Mutex<BTreeMap<PathBuf, CancellationToken>>,
    /// Held while the folder of a run is claimed.
    claims: tokio::sync::Mutex<()>,
}

/// Why a job can't be followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The worker exited without a last line.
    #[error("worker lost{0}")]
    WorkerLost(String),
    /// An operation on files or processes failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// Following was cancelled; the worker runs on.
    #[error("no longer followed")]
    Cancelled,
}

fn io_error(what: &str, folder: &Path) -> impl FnOnce(io::Error) -> JobError {
    let what = format!("{what} {}", folder.display());
    move |source| JobError::Io { what, source }
}

impl JobRunner {
    /// A runner that starts `exe worker --dir FOLDER`, with folders below `root`.
    #[must_use]
    pub fn new(exe: PathBuf, root: PathBuf) -> Self {
        Self {
            exe,
            root,
            arguments: &[],
            limits: ResourceLimits::default(),
            labels: RunnerLabels::for_linux(std::env::consts::ARCH, &[]),
            shared: Arc::default(),
        }
    }

    /// Replaces the default labels of this machine.
    #[must_use]
    pub fn with_labels(mut self, labels: RunnerLabels) -> Self {
        self.labels = labels;
        self
    }

    /// Checks that this machine has the labels that a job requests.
    pub fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        self.labels.check(request)
    }

    /// Limits the resources of each job and its descendants. Logs a warning if this machine can't enforce a limit.
    #[must_use]
    pub fn with_limits(mut self, limits: ResourceLimits) -> Self {
        self.limits = limits;
        if self.limits != ResourceLimits::default() {
            cgroup::remove_empty_cgroups(&self.cgroup_prefix());
            let probe = format!("{}probe", self.cgroup_prefix());
            let (_, enforced) = cgroup::create_for_process(&probe, &self.limits);
            cgroup::remove_cgroups(&probe);
            if let Err(why) = enforced {
                tracing::warn!("limits of jobs: {why}");
            }
        }
        self
    }

    /// Prefix of the control groups of this server's jobs: other servers have jobs too.
    fn cgroup_prefix(&self) -> String {
        format!("job-{}-", cgroup::short_hash(&self.root))
    }

    /// Starts workers that don't fsync, for temporary results.
    #[must_use]
    pub const fn with_volatile_workers(mut self) -> Self {
        self.arguments = &["--volatile"];
        self
    }

    /// All runs that have a folder.
    async fn list_runs(&self) -> Vec<RunId> {
        let root = self.root.clone();
        let listed = spawn_blocking(move || leftovers::list_runs(&root)).await;
        listed.unwrap_or_default()
    }

    fn run_folder(&self, run: &RunId) -> PathBuf {
        self.root
            .join(run.service.as_str())
            .join(run.number.0.to_string())
    }

    /// The folder of a job.
    #[must_use]
    pub fn job_folder(&self, run: &RunId, key: &JobKey) -> PathBuf {
        self.run_folder(run).join(key.as_str())
    }

    /// The folder of an attempt, from 1. The first attempt has the job's folder.
    #[must_use]
    pub fn attempt_folder(&self, run: &RunId, key: &JobKey, attempt: u32) -> PathBuf {
        let mut folder = self.job_folder(run, key);
        if attempt > 1 {
            // Keys contain no `@`.
            folder.set_file_name(format!("{key}@{attempt}"));
        }
        folder
    }

    /// Path of the log of an attempt, from 1.
    #[must_use]
    pub fn attempt_log_path(&self, run: &RunId, key: &JobKey, attempt: u32) -> PathBuf {
        self.attempt_folder(run, key, attempt).join(LOG_FILE)
    }

    /// Appends a line to the log of a job whose worker has exited. If the disk is full the line is lost.
    pub fn append_to_log(&self, folder: &Path, text: &str) {
        let now = jiff::Timestamp::now();
        let line = format!("{now:.3} {text}\n");
        let log = OpenOptions::new().append(true).open(folder.join(LOG_FILE));
        if let Err(error) = log.and_then(|mut log| log.write_all(line.as_bytes())) {
            tracing::debug!(%error, folder = %folder.display(), "a line of a job's log is lost");
        }
    }

    /// Whether a worker was started in this folder.
    #[must_use]
    pub fn has_started(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|found| found.len() > 0)
    }

    /// Whether a worker holds the lock of this folder.
    #[must_use]
    pub fn is_worker_running(&self, folder: &Path) -> bool {
        let Ok(lock) = fs::File::open(folder.join(LOCK_FILE)) else {
            return false;
        };
        // Getting the lock means that no worker is alive; it is released when `lock` drops.
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// Starts a detached worker, unless one was started in the job's folder. Safe after a crash: of two workers in one folder,
    /// one runs the job, and the other waits for it and exits.
    pub fn start_worker(&self, spec: &JobSpec) -> Result<(), JobError> {
        let folder = &spec.mounts.folder;
        if self.has_started(folder) {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_error("making the folder", folder))?;
        let group = format!("{}{}", self.cgroup_prefix(), cgroup::short_hash(folder));
        // Limits that can't be enforced were reported when the runner was created.
        let (groups, _) = cgroup::create_for_process(&group, &self.limits);
        let limits = JobResources {
            memory_bytes: self.limits.memory_bytes,
            cpu_millis: self.limits.cpu_millis,
            processes: self.limits.processes,
            groups,
        };
        let spec = JobSpec {
            limits,
            ..spec.clone()
        };
        write_private(folder, &spec).map_err(io_error("writing the job in", folder))?;
        let spawned = self.spawn_worker(folder, group);
        if spawned.is_err() {
            // It contains secrets, and no worker will read it.
            let _ = fs::remove_file(folder.join(JOB_FILE));
        }
        spawned.map_err(io_error("starting the worker in", folder))
    }

    fn spawn_worker(&self, folder: &Path, group: String) -> io::Result<()> {
        // Created early, so that they can be watched.
        for name in [JOURNAL_FILE, LOG_FILE] {
            create_file(&folder.join(name))?;
        }
        let words = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(WORDS_FILE))?;
        let passed = ENVIRONMENT
            .iter()
            .chain(&NETWORK)
            .chain(&ENGINE)
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        // The worker creates its own session: it outlives the server and its terminal.
        let mut child = Command::new(&self.exe)
            .args(["worker", "--dir"])
            .arg(folder)
            .args(self.arguments)
            .current_dir(folder)
            .env_clear()
            .envs(passed)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            .kill_on_drop(false)
            .spawn()?;
        shipway_targets::open_files::restore_limit(child.id());
        let (shared, folder, gone) = (
            self.shared.clone(),
            folder.to_owned(),
            CancellationToken::new(),
        );
        shared.children().insert(folder.clone(), gone.clone());
        // Reaps the worker.
        tokio::spawn(async move {
            let _ = child.wait().await;
            cgroup::remove_cgroups(&group);
            gone.cancel();
            shared.children().remove(&folder);
        });
        Ok(())
    }

    /// Waits until workers of this process have exited and their control groups are removed: a journal ends shortly before its
    /// worker.
    pub async fn wait_for_exits(&self) {
        if self.limits == ResourceLimits::default() {
            return;
        }
        let leaving: Vec<_> = self.shared.children().values().cloned().collect();
        let gone = futures_util::future::join_all(leaving.iter().map(|it| it.cancelled()));
        let _ = tokio::time::timeout(SETTLED, gone).await;
    }

    /// Opens the journal of a job at its start.
    pub fn journal(&self, folder: &Path) -> Result<JobJournal, JobError> {
        let child = self.child_exit(folder);
        self.open_journal(folder, WorkerWatch::Process { child, named: None })
    }

    /// Opens the journal that a worker without a shared disk sends.
    fn received_journal(
        &self,
        folder: &Path,
        worker: Arc<RemoteWorker>,
    ) -> Result<JobJournal, JobError> {
        self.open_journal(folder, WorkerWatch::Remote(worker))
    }

    fn open_journal(&self, folder: &Path, worker: WorkerWatch) -> Result<JobJournal, JobError> {
        let failed = || io_error("reading the journal in", folder);
        let watcher = self.shared.watcher().map_err(failed())?;
        JobJournal::open(folder, watcher, worker).map_err(failed())
    }

    /// Cancelled when the worker in this folder has exited; `None` unless this process has started it and it runs.
    fn child_exit(&self, folder: &Path) -> Option<CancellationToken> {
        self.shared.children().get(folder).cloned()
    }

    /// Opens the log of a job at `offset`.
    pub fn open_log(&self, folder: &Path, offset: u64) -> Result<JobLog, JobError> {
        let failed = || io_error("reading the log in", folder);
        let watcher = self.shared.watcher().map_err(failed())?;
        JobLog::open(&folder.join(LOG_FILE), offset, watcher).map_err(failed())
    }

    /// Whether a job has a log, which it has shortly after its start.
    pub(super) fn has_log(&self, folder: &Path) -> bool {
        folder.join(LOG_FILE).exists()
    }

    /// Streams the log of a job from `offset` to its present end.
    pub(super) fn stream_log(&self, folder: &Path, offset: u64) -> Result<JobLogStream, JobError> {
        type Never = fn() -> std::future::Ready<bool>;
        stream_file(&folder.join(LOG_FILE), offset, None::<Never>)
            .map_err(io_error("reading the log in", folder))
    }

    /// Reads a part of the log of a job; `None` if it has none.
    async fn read_log_block(
        &self,
        folder: &Path,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<Bytes>, JobError> {
        let path = folder.join(LOG_FILE);
        let read = spawn_blocking(move || job_log::read_block(&path, offset, bytes)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map_err(io_error("reading the log in", folder))
    }

    /// The last complete lines of a job's log.
    async fn read_log_end(&self, folder: &Path) -> String {
        let path = folder.join(LOG_FILE);
        let read = spawn_blocking(move || read_last_lines(&path).unwrap_or_default());
        read.await.unwrap_or_default()
    }

    /// Where the output of each step is in the job's log.
    async fn read_step_log(&self, folder: &Path) -> Vec<LoggedStep> {
        let folder = folder.to_owned();
        let read = spawn_blocking(move || read_step_log(&folder)).await;
        read.unwrap_or_default()
    }

    /// The summaries of a job's steps.
    async fn read_summary(&self, folder: &Path) -> Option<String> {
        let folder = folder.to_owned();
        spawn_blocking(move || read_job_summary(&folder))
            .await
            .ok()?
    }

    /// Streams the log of a job from `offset` until the job has ended, by its journal.
    pub fn tail_log(
        &self,
        folder: &Path,
        offset: u64,
        journal: JobJournal,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, JobError> {
        let log = self.open_log(folder, offset)?;
        Ok(stream::unfold(
            (log, Some(journal)),
            |(mut log, mut journal)| async move {
                loop {
                    // Checked before reading: the output of an ended job is complete.
                    let is_over = journal.is_none();
                    match log.read() {
                        Ok(bytes) if bytes.is_empty() && is_over => return None,
                        Ok(bytes) if bytes.is_empty() => {}
                        read => return Some((read, (log, journal))),
                    }
                    if let Some(open) = &mut journal {
                        tokio::select! {
                            () = log.changed() => {}
                            () = open.wait_until_over() => journal = None,
                        }
                    }
                }
            },
        ))
    }

    /// Cancels a job: running steps are stopped, cleanup steps run. Idempotent.
    pub fn cancel(&self, folder: &Path) {
        if folder.join(CANCELLED_FILE).exists() {
            return;
        }
        // Create the file first: a starting worker checks for it after it has written its process id. Fails if the folder was
        // removed.
        let _ = create_file(&folder.join(CANCEL_FILE));
        if self.signal_worker(folder) {
            let _ = fs::rename(folder.join(CANCEL_FILE), folder.join(CANCELLED_FILE));
        }
    }

    /// Stops a cancelled job immediately, without cleanup.
    pub fn cancel_at_once(&self, folder: &Path) {
        self.cancel(folder);
        self.signal_worker(folder);
    }

    /// Signals the worker; false if there is none yet.
    fn signal_worker(&self, folder: &Path) -> bool {
        let Some(worker) = find_worker(folder) else {
            return false;
        };
        let handle = worker
            .as_pid()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Check after opening: the pidfd refers to one process for good.
        let handle = handle.filter(|_| worker.is_alive());
        handle.is_some_and(|handle| pidfd_send_signal(&handle, Signal::TERM).is_ok())
    }
}

impl RunnerState {
    fn children(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, CancellationToken>> {
        // No panic is possible while the lock is held.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watcher(&self) -> io::Result<&FileWatcher> {
        if let Some(watcher) = self.watcher.get() {
            return Ok(watcher);
        }
        let made = FileWatcher::new()?;
        Ok(self.watcher.get_or_init(|| made))
    }
}

/// The worker named in the journal.
fn find_worker(folder: &Path) -> Option<ProcessId> {
    let text = fs::read_to_string(folder.join(JOURNAL_FILE)).ok()?;
    let first = text.lines().next()?;
    match serde_json::from_str::<JournalEntry>(first).ok()?.body {
        JournalBody::Started { pid, start_time } => Some(ProcessId { pid, start_time }),
        _ => None,
    }
}

fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
}

/// The spec contains secrets: mode 0600, and the worker removes it.
fn write_private(folder: &Path, spec: &JobSpec) -> io::Result<()> {
    let beside = folder.join("job.json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&serde_json::to_vec(spec)?)?;
    // Not synced: after a power failure it is written again.
    fs::rename(&beside, folder.join(JOB_FILE))
}
