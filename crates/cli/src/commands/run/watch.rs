//! `shipway run --watch`: re-run whenever a file changes that git doesn't ignore. A run that is under way is cancelled first: its
//! answer would be of files that are no more.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Site, local::Interrupts};
use crate::{
    exit::Failure,
    print::{line, report_failure},
};

/// Quiet for so long, an editor or a checkout is done with its files.
const QUIET: Duration = Duration::from_millis(150);
/// The longest wait for a quiet moment.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Paths per git command, because command lines are limited.
const ASKED_AT_ONCE: usize = 256;
/// WatchedFolders that are watched; the kernel allows a user some thousands.
const FOLDERS_MAX: usize = 4_096;

/// Runs, and again after each change, until Ctrl-C.
pub(super) fn run(mut site: Site<'_>, runtime: &Runtime) -> Result<(), Failure> {
    let mut changes = runtime.block_on(async { Changes::watch(site.here.clone()) })?;
    // All the time: a Ctrl-C is not to be lost between two runs.
    let interrupts = runtime.block_on(async { Interrupts::subscribe() });
    let mut interrupts = interrupts.map_err(super::failed)?;
    loop {
        site.stop = CancellationToken::new();
        let (stop, mut changed) = (site.stop.clone(), changes.changed.clone());
        changed.mark_unchanged();
        let watching = runtime.spawn(async move {
            if changed.changed().await.is_ok() {
                stop.cancel();
            }
        });
        let ended = site.run(runtime);
        watching.abort();
        match ended {
            Ok(ended) if ended.interrupted => return Ok(()),
            Ok(_) => {}
            // A workflow that is being written has errors now and then.
            Err(failure) => drop(report_failure(&failure)),
        }
        if !site.stop.is_cancelled() {
            print_heading(&site, "waiting for changes; press Ctrl-C to stop");
            if !runtime.block_on(changes.next(&mut interrupts))? {
                return Ok(());
            }
        }
        changes.changed.mark_unchanged();
        print_heading(&site, "files have changed");
    }
}

fn print_heading(site: &Site<'_>, what: &str) {
    if !site.output.json && !site.output.quiet {
        line(&format!("\n── {what} ──"));
    }
}

/// A watched folder. It signals when files have changed and are quiet again.
struct Changes {
    changed: watch::Receiver<u64>,
}

impl Changes {
    fn watch(root: PathBuf) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::Failed(format!("can't watch {}: {error}", root.display()));
        let inotify = Inotify::init().map_err(failed)?;
        let mut folders = WatchedFolders {
            watches: inotify.watches(),
            root: root.clone(),
            by_watch: HashMap::new(),
        };
        folders.add(vec![root.clone()]).map_err(failed)?;
        let events = inotify.into_event_stream(vec![0; 16 * 1024]);
        let events = events.map_err(failed)?;
        let (tell, changed) = watch::channel(0);
        // Ends with the runtime or the last receiver.
        tokio::spawn(serve(folders, events, tell));
        Ok(Self { changed })
    }

    /// Returns at the next change; false when it was Ctrl-C.
    async fn next(&mut self, interrupts: &mut Interrupts) -> Result<bool, Failure> {
        tokio::select! {
            changed = self.changed.changed() => changed
                .map(|()| true)
                .map_err(|_| Failure::Failed("file watching stopped".to_owned())),
            () = interrupts.next() => Ok(false),
        }
    }
}

/// Collects what changes until it is quiet, and tells of it when git cares.
async fn serve(
    mut folders: WatchedFolders,
    mut events: EventStream<Vec<u8>>,
    tell: watch::Sender<u64>,
) {
    while let Some(Ok(event)) = events.next().await {
        let mut paths = BTreeSet::new();
        let begun = Instant::now();
        folders.note(&event, &mut paths);
        while begun.elapsed() < QUIET_MAX {
            match timeout(QUIET, events.next()).await {
                Ok(Some(Ok(event))) => folders.note(&event, &mut paths),
                Ok(Some(Err(_)) | None) => return,
                Err(_) => break,
            }
        }
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let counts = folders.not_ignored(&paths);
        if !counts.is_empty() {
            tell.send_modify(|count| *count += 1);
        }
        if tell.is_closed() {
            return;
        }
    }
}

struct WatchedFolders {
    watches: Watches,
    root: PathBuf,
    by_watch: HashMap<WatchDescriptor, PathBuf>,
}

impl WatchedFolders {
    /// Watches folders and all below, but for what git ignores.
    fn add(&mut self, mut level: Vec<PathBuf>) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        while !level.is_empty() {
            let mut below = Vec::new();
            for folder in level {
                if self.by_watch.len() >= FOLDERS_MAX {
                    return Err(io::Error::other(format!(
                        "it has more than {FOLDERS_MAX} folders that git doesn't ignore"
                    )));
                }
                match self.watches.add(&folder, mask) {
                    Ok(watch) => drop(self.by_watch.insert(watch, folder.clone())),
                    // Gone meanwhile, or not for us.
                    Err(_) if folder != self.root => continue,
                    Err(error) => return Err(error),
                }
                let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
                let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
                below.extend(folders.map(|it| it.path()).filter(|it| !is_git(it)));
            }
            level = self.not_ignored(&below);
        }
        Ok(())
    }

    /// Notes what an event is about; a new folder is watched as well.
    fn note(&mut self, event: &Event<std::ffi::OsString>, paths: &mut BTreeSet<PathBuf>) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            paths.insert(self.root.clone());
            return;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.by_watch.remove(&event.wd);
            return;
        }
        let Some(path) = self.by_watch.get(&event.wd).zip(event.name.as_ref()) else {
            return;
        };
        let path = path.0.join(path.1);
        if is_git(&path) {
            return;
        }
        let comes = event
            .mask
            .intersects(EventMask::CREATE | EventMask::MOVED_TO);
        if event.mask.contains(EventMask::ISDIR) && comes {
            // If the watch limit is reached, changes in it are not seen.
            let folders = self.not_ignored(std::slice::from_ref(&path));
            let _ = self.add(folders);
        }
        paths.insert(path);
    }

    /// The paths that git doesn't ignore; all of them where there is no repository.
    fn not_ignored(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for some in paths.chunks(ASKED_AT_ONCE) {
            let asked = Command::new("git")
                .args(["check-ignore", "-z", "--"])
                .args(some)
                .current_dir(&self.root)
                .stderr(std::process::Stdio::null())
                .output();
            let ignored = asked.map(|output| output.stdout).unwrap_or_default();
            let ignored: BTreeSet<&[u8]> = ignored.split(|byte| *byte == 0).collect();
            let counts = |path: &&PathBuf| !ignored.contains(path.as_os_str().as_bytes());
            left.extend(some.iter().filter(counts).cloned());
        }
        left
    }
}

fn is_git(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ".git")
}
