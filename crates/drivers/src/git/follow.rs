//! Follows a repository on this machine: a commit there acts like a push.
//!
//! [`RepositoryFollower`] watches the branches of a repository (a working tree, a linked one, or a bare one) by inotify, copies
//! new commits into the service's bare repository, and reports changed branches. It keeps no state: the caller remembers the
//! last recorded branches and passes them at the start, so changes while the server was down are reported too, and an unrecorded
//! report is repeated.
//!
//! # Failure modes
//!
//! - inotify's queue overflows: all branches are compared.
//! - The repository disappears: it is looked for again, with backoff.
//! - File systems without inotify (NFS): all branches are compared every [`RECHECK`].

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    BRANCHES, GitError, GitRefs, GitRepository, RefUpdate, changed_refs, command::GitRunner,
};

/// Debounce: git updates a reference in several steps, a rebase updates many. Short enough not to be noticed.
const SETTLE: Duration = Duration::from_millis(15);
/// Interval of full comparisons, for changes that inotify misses.
const RECHECK: Duration = Duration::from_secs(60);
/// Pause after the first failure, doubled up to [`RECHECK`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Queued reports before the follower waits for the caller.
const REPORTS_MAX: usize = 16;
/// Buffer for hundreds of events.
const EVENT_BYTES: usize = 16 << 10;

/// Events in a folder of references: git writes `x.lock` and renames it.
const CHANGES: WatchMask = WatchMask::CREATE
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

/// A task that follows one repository; dropping this stops it.
#[derive(Debug)]
pub struct RepositoryFollower {
    reports: mpsc::Receiver<Vec<RefUpdate>>,
    task: JoinHandle<()>,
}

impl Drop for RepositoryFollower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RepositoryFollower {
    /// Follows the branches of the repository that contains `source`, copying into `into`. `seen` are the branches that the
    /// caller recorded last; if empty, every branch is reported as new.
    ///
    /// # Errors
    /// When `source` is not a repository. Later failures are logged and retried.
    pub async fn start(
        source: &Path,
        into: GitRepository,
        seen: GitRefs,
    ) -> Result<Self, GitError> {
        let source = GitRepository::open(GitRunner::for_reading(), source).await?;
        // `seen` may contain tags: these are not followed, and must not be reported as deleted.
        let mut seen = seen;
        seen.retain(|name, _| name.starts_with(BRANCHES));
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let task = tokio::spawn(
            FollowTask {
                source,
                into,
                seen,
                sender,
            }
            .run(),
        );
        Ok(Self { reports, task })
    }

    /// The next report of changed branches; never empty. `None` only after the follower was stopped. Cancel safe.
    pub async fn next_updates(&mut self) -> Option<Vec<RefUpdate>> {
        self.reports.recv().await
    }
}

struct FollowTask {
    source: GitRepository,
    into: GitRepository,
    seen: GitRefs,
    sender: mpsc::Sender<Vec<RefUpdate>>,
}

/// The receiver of the reports was dropped.
struct ReceiverClosed;

impl FollowTask {
    async fn run(mut self) {
        let mut retry = RETRY_FIRST;
        loop {
            match self.follow_until_error(&mut retry).await {
                Ok(ReceiverClosed) => return,
                Err(error) => {
                    tracing::warn!("following {}: {error}", self.source.git_dir().display())
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RECHECK);
        }
    }

    /// Follows until an error or until the receiver is dropped.
    async fn follow_until_error(
        &mut self,
        retry: &mut Duration,
    ) -> Result<ReceiverClosed, GitError> {
        let mut watched = RefWatcher::start(self.source.git_dir())?;
        loop {
            // The watch was started before this comparison, so no change is missed.
            if self.sync_branches().await?.is_err() {
                return Ok(ReceiverClosed);
            }
            *retry = RETRY_FIRST;
            tokio::select! {
                change = timeout(RECHECK, watched.wait_for_change()) => match change {
                    Ok(changed) => changed?,
                    Err(_) => watched.watch_folders()?,
                },
                () = self.sender.closed() => return Ok(ReceiverClosed),
            }
        }
    }

    /// Copies and reports branches that changed since the last report.
    async fn sync_branches(&mut self) -> Result<Result<(), ReceiverClosed>, GitError> {
        let updates = changed_refs(&self.seen, &self.source.branches().await?);
        if updates.is_empty() {
            return Ok(Ok(()));
        }
        let names = |wanted: bool| {
            updates
                .iter()
                .filter(move |u| u.new.is_some() == wanted)
                .map(|u| u.name.as_str())
        };
        let (here, gone): (Vec<&str>, Vec<&str>) = (names(true).collect(), names(false).collect());
        // Delete first: `a` must be deleted before `a/b` can be created.
        if !gone.is_empty() {
            self.into.delete_branches(&gone).await?;
        }
        if !here.is_empty() {
            self.into
                .fetch_branches(self.source.git_dir(), &here)
                .await?;
        }
        // The branches may have changed since: report the copied state.
        let copied = self.into.branches().await?;
        let mut told = Vec::new();
        for RefUpdate { name, old, .. } in updates {
            let new = copied.get(&name).cloned();
            match &new {
                Some(id) => self.seen.insert(name.clone(), id.clone()),
                None => self.seen.remove(&name),
            };
            if old != new {
                told.push(RefUpdate { name, old, new });
            }
        }
        if told.is_empty() {
            return Ok(Ok(()));
        }
        Ok(self.sender.send(told).await.map_err(|_| ReceiverClosed))
    }
}

/// An inotify watch of the folders with references.
struct RefWatcher {
    git_dir: PathBuf,
    events: EventStream<[u8; EVENT_BYTES]>,
}

impl RefWatcher {
    fn start(git_dir: &Path) -> Result<Self, GitError> {
        let failed = || GitError::io("watch", git_dir);
        let inotify = Inotify::init().map_err(failed())?;
        let events = inotify
            .into_event_stream([0; EVENT_BYTES])
            .map_err(failed())?;
        let watched = Self {
            git_dir: git_dir.to_owned(),
            events,
        };
        watched.watch_folders()?;
        Ok(watched)
    }

    /// Watches every folder with references. Repeating it adds new folders.
    fn watch_folders(&self) -> Result<(), GitError> {
        let mut watches = self.events.watches();
        // Contains `packed-refs` and `HEAD`.
        watches
            .add(&self.git_dir, CHANGES)
            .map_err(GitError::io("watch", &self.git_dir))?;
        // `reftable` is git's other reference storage.
        let mut folders = vec![
            self.git_dir.join("refs/heads"),
            self.git_dir.join("reftable"),
        ];
        while let Some(folder) = folders.pop() {
            // The folder is missing: its parent reports when it is created.
            if watches.add(&folder, CHANGES).is_err() {
                continue;
            }
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                entries
                    .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|e| e.path()),
            );
        }
        Ok(())
    }

    /// Waits until references may have changed, and until no more events arrive.
    async fn wait_for_change(&mut self) -> Result<(), GitError> {
        let mut folders_changed = false;
        let mut relevant = false;
        while !relevant {
            let event = self.next_event().await?;
            relevant = event.0;
            folders_changed |= event.1;
        }
        // Bounded by the caller's timeout, RECHECK.
        while let Ok(event) = timeout(SETTLE, self.next_event()).await {
            folders_changed |= event?.1;
        }
        if folders_changed {
            self.watch_folders()?;
        }
        Ok(())
    }

    /// The next event: whether it may concern references, and whether folders were created or deleted.
    async fn next_event(&mut self) -> Result<(bool, bool), GitError> {
        let lost = |error| GitError::io("watch", &self.git_dir)(error);
        let event = match self.events.next().await {
            Some(event) => event.map_err(lost)?,
            None => return Err(lost(std::io::ErrorKind::UnexpectedEof.into())),
        };
        let gone = EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::IGNORED
            | EventMask::Q_OVERFLOW;
        let folders = event.mask.intersects(EventMask::ISDIR | gone);
        let relevant = folders || event.name.as_deref().is_some_and(is_reference_file);
        Ok((relevant, folders))
    }
}

/// Ignores lock files, and files that a commit in a working tree writes in addition to references.
fn is_reference_file(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.ends_with(b".lock")
        && !matches!(
            name,
            b"index" | b"COMMIT_EDITMSG" | b"FETCH_HEAD" | b"ORIG_HEAD" | b"config"
        )
}
