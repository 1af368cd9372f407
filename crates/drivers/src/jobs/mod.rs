//! Jobs as worker processes: started detached, found again by their journal, followed to their end. A server that goes away
//! loses nothing: the next one reads the journal from where it likes.
//!
//! Everything that two processes must agree on is in the job's folder: the worker holds a lock on it for life, its journal says
//! which process it is, and a wish to cancel is a file there before it is a signal. So nothing here has to be remembered.

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
use sha2::{Digest as _, Sha256};
use shipway_core::{ids::RunId, target::Limits};
use shipway_workflow::{
    job::{ENGINE, JobKey, JobLimits, JobSpec, JournalBody, JournalEntry, NETWORK},
    runner::{RunnerLabels, RunnerMismatch, RunnerRequest},
};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::process::{cgroup, procfs::ProcessId};

mod file_watcher;
mod job_journal;
mod job_log;
mod job_slots;
mod ownership;

pub use job_journal::JobJournal;
pub use job_log::JobLog;
pub use job_slots::{JobSlot, JobSlots};
pub use shipway_worker::{AttemptProgress, RESUME_STATE_FILE, can_isolate, read_attempt_progress};

use file_watcher::FileWatcher;

const JOB_FILE: &str = "job.json";
const JOURNAL_FILE: &str = "journal.jsonl";
const LOG_FILE: &str = "log";
/// What the worker complains of on its way up.
const WORDS_FILE: &str = "worker.log";
/// Somebody wants the job to stop. A worker that comes up looks for it.
const CANCEL_FILE: &str = "cancel";
/// And its worker has been told.
const CANCELLED_FILE: &str = "cancel.told";
/// How long a worker may take from its last line to its end: it has nothing left to do.
const SETTLED: Duration = Duration::from_secs(2);
/// Held by the worker of the folder as long as it lives.
const LOCK_FILE: &str = "worker.lock";

/// What of the server's environment a worker gets: where programs are, what it needs to find a user's tools, the way to the
/// network ([`NETWORK`]) and to containers ([`ENGINE`]).
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
    /// Words for workers besides the folder.
    arguments: &'static [&'static str],
    slots: JobSlots,
    /// Of each job, where this machine can enforce them.
    limits: Limits,
    /// What jobs may ask for with `runs-on`.
    labels: RunnerLabels,
    shared: Arc<RunnerState>,
}

#[derive(Debug, Default)]
struct RunnerState {
    watcher: OnceLock<FileWatcher>,
    /// Workers that were started here and live: their ends are known before they have written who they are.
    children: Mutex<BTreeMap<PathBuf, CancellationToken>>,
    /// Held while the folder of a run is made its own.
    claims: tokio::sync::Mutex<()>,
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

fn io_error(what: &str, folder: &Path) -> impl FnOnce(io::Error) -> JobError {
    let what = format!("{what} {}", folder.display());
    move |source| JobError::Io { what, source }
}

impl JobRunner {
    /// Workers are `exe worker --dir FOLDER`; their folders are below `root`.
    #[must_use]
    pub fn new(exe: PathBuf, root: PathBuf) -> Self {
        Self {
            exe,
            root,
            arguments: &[],
            slots: JobSlots::new(usize::MAX),
            limits: Limits::default(),
            labels: RunnerLabels::of_linux(std::env::consts::ARCH, &[]),
            shared: Arc::default(),
        }
    }

    /// With these labels instead of those that every machine has.
    #[must_use]
    pub fn with_labels(mut self, labels: RunnerLabels) -> Self {
        self.labels = labels;
        self
    }

    /// Whether this machine is one that a job asks for.
    pub fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        self.labels.check(request)
    }

    /// With limits on what each job may use together with all that it starts. What this machine doesn't let us enforce is
    /// said once, here.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        if self.limits != Limits::default() {
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

    /// How the names of our jobs' control groups begin: other servers have jobs too.
    fn cgroup_prefix(&self) -> String {
        format!("job-{}-", short_hash(&self.root))
    }

    /// With room for so many jobs at once.
    #[must_use]
    pub fn with_slots(mut self, places: usize) -> Self {
        self.slots = JobSlots::new(places);
        self
    }

    /// Where jobs get their places. Whoever starts one asks first.
    #[must_use]
    pub const fn slots(&self) -> &JobSlots {
        &self.slots
    }

    /// With workers that don't wait for the disk: what they leave is temporary.
    #[must_use]
    pub const fn with_volatile_workers(mut self) -> Self {
        self.arguments = &["--volatile"];
        self
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

    /// The folder of an attempt at a job, from 1. The first one's is the job's.
    #[must_use]
    pub fn attempt_folder(&self, run: &RunId, key: &JobKey, attempt: u32) -> PathBuf {
        let mut folder = self.job_folder(run, key);
        if attempt > 1 {
            // No key has an `@`.
            folder.set_file_name(format!("{key}@{attempt}"));
        }
        folder
    }

    /// The log of a job.
    #[must_use]
    pub fn log_path(&self, run: &RunId, key: &JobKey) -> PathBuf {
        self.job_folder(run, key).join(LOG_FILE)
    }

    /// The log of an attempt at a job, from 1.
    #[must_use]
    pub fn attempt_log_path(&self, run: &RunId, key: &JobKey, attempt: u32) -> PathBuf {
        self.attempt_folder(run, key, attempt).join(LOG_FILE)
    }

    /// Writes a line into the log of a job whose worker has ended. A full disk costs the line.
    pub fn append_to_log(&self, folder: &Path, text: &str) {
        let now = jiff::Timestamp::now();
        let line = format!("{now:.3} {text}\n");
        let log = OpenOptions::new().append(true).open(folder.join(LOG_FILE));
        if let Err(error) = log.and_then(|mut log| log.write_all(line.as_bytes())) {
            tracing::debug!(%error, folder = %folder.display(), "a line of a job's log is lost");
        }
    }

    /// Whether a worker has begun in this folder, or has been.
    #[must_use]
    pub fn has_started(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|found| found.len() > 0)
    }

    /// Whether a worker is at work in this folder now, or is about to be: it holds the folder's lock.
    #[must_use]
    pub fn is_worker_running(&self, folder: &Path) -> bool {
        let Ok(lock) = fs::File::open(folder.join(LOCK_FILE)) else {
            return false;
        };
        // Had it, and given back at once.
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// Starts a worker, detached, unless one has begun in the job's folder. A crash in between does no harm: of two workers in
    /// one folder, one runs the job, and the other waits for it and goes.
    pub fn start_worker(&self, spec: &JobSpec) -> Result<(), JobError> {
        let folder = &spec.folder;
        if self.has_started(folder) {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_error("making the folder", folder))?;
        let group = format!("{}{}", self.cgroup_prefix(), short_hash(folder));
        // What isn't enforced was said when the runner was made.
        let (groups, _) = cgroup::create_for_process(&group, &self.limits);
        let limits = JobLimits {
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
            // It holds secrets, and nobody will read it.
            let _ = fs::remove_file(folder.join(JOB_FILE));
        }
        spawned.map_err(io_error("starting the worker in", folder))
    }

    fn spawn_worker(&self, folder: &Path, group: String) -> io::Result<()> {
        // There from the beginning, to be watched.
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
        // It makes itself a session of its own: it outlives the server and its terminal.
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
        crate::open_files::restore_limit(child.id());
        let (shared, folder, gone) = (
            self.shared.clone(),
            folder.to_owned(),
            CancellationToken::new(),
        );
        shared.children().insert(folder.clone(), gone.clone());
        // Reaped when it ends.
        tokio::spawn(async move {
            let _ = child.wait().await;
            cgroup::remove_cgroups(&group);
            gone.cancel();
            shared.children().remove(&folder);
        });
        Ok(())
    }

    /// Waits until workers that were started here are gone and what was made for them is: a job has ended when its journal says
    /// so, a moment before its worker.
    pub async fn wait_for_exits(&self) {
        if self.limits == Limits::default() {
            return;
        }
        let leaving: Vec<_> = self.shared.children().values().cloned().collect();
        let gone = futures_util::future::join_all(leaving.iter().map(|it| it.cancelled()));
        let _ = tokio::time::timeout(SETTLED, gone).await;
    }

    /// The journal of a job, from its first line on.
    pub fn journal(&self, folder: &Path) -> Result<JobJournal, JobError> {
        let failed = || io_error("reading the journal in", folder);
        let child = self.shared.children().get(folder).cloned();
        let watcher = self.shared.watcher().map_err(failed())?;
        JobJournal::open(folder, watcher, child).map_err(failed())
    }

    /// The log of a job from byte `offset` on, as it stands and as it grows.
    pub fn open_log(&self, folder: &Path, offset: u64) -> Result<JobLog, JobError> {
        let failed = || io_error("reading the log in", folder);
        let watcher = self.shared.watcher().map_err(failed())?;
        JobLog::open(&folder.join(LOG_FILE), offset, watcher).map_err(failed())
    }

    /// The log of a job from byte `offset` on, until the job has ended.
    pub fn tail_log(
        &self,
        folder: &Path,
        offset: u64,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, JobError> {
        let log = self.open_log(folder, offset)?;
        let journal = self.journal(folder)?;
        Ok(stream::unfold(
            (log, Some(journal)),
            |(mut log, mut journal)| async move {
                loop {
                    // Looked at before it is read: what an ended job has written is all there.
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

    /// Asks a job to stop: what runs is ended, what must be cleaned up is. Asked again, nothing more happens.
    pub fn cancel(&self, folder: &Path) {
        if folder.join(CANCELLED_FILE).exists() {
            return;
        }
        // The file first: a worker that isn't up yet looks for it after it has said who it is. A folder that is gone has none.
        let _ = create_file(&folder.join(CANCEL_FILE));
        if self.signal_worker(folder) {
            let _ = fs::rename(folder.join(CANCEL_FILE), folder.join(CANCELLED_FILE));
        }
    }

    /// Has a job that was asked to stop do so at once, without cleaning up.
    pub fn cancel_at_once(&self, folder: &Path) {
        self.cancel(folder);
        self.signal_worker(folder);
    }

    /// Tells a worker to stop; false when there is none, or none yet.
    fn signal_worker(&self, folder: &Path) -> bool {
        let Some(worker) = find_worker(folder) else {
            return false;
        };
        let handle = worker
            .as_pid()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Opened, then looked at: what the handle refers to can't change any more.
        let handle = handle.filter(|_| worker.is_alive());
        handle.is_some_and(|handle| pidfd_send_signal(&handle, Signal::TERM).is_ok())
    }
}

impl RunnerState {
    fn children(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, CancellationToken>> {
        // Nothing panics while it is held.
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

/// The worker that the journal names.
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

/// Enough of it to tell folders apart.
fn short_hash(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hash.iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
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
    // Not synced: after a crash of the machine it is written anew.
    fs::rename(&beside, folder.join(JOB_FILE))
}
