//! Watches growing files by inotify. One watcher serves all files: the system limits instances per user (128), and a run may
//! have hundreds of jobs.

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
};
use tokio::{io::unix::AsyncFd, sync::watch, task::AbortHandle};

/// Watches files. Its task is aborted on drop.
#[derive(Debug)]
pub(super) struct FileWatcher {
    shared: Arc<WatcherState>,
    task: AbortHandle,
}

#[derive(Debug)]
struct WatcherState {
    inotify: AsyncFd<OwnedFd>,
    /// By watch descriptor. Watches of the same file share one.
    files: Mutex<BTreeMap<i32, watch::Sender<()>>>,
}

/// A watch of one file.
#[derive(Debug)]
pub(super) struct FileWatch {
    number: i32,
    changes: watch::Receiver<()>,
    shared: Arc<WatcherState>,
}

impl FileWatcher {
    /// Must be called within a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the descriptor is owned and never closed by anybody else"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let shared = Arc::new(WatcherState {
            inotify,
            files: Mutex::default(),
        });
        let for_task = shared.clone();
        // In the same runtime as the waiters: a change wakes one thread less.
        let task = tokio::spawn(async move { for_task.dispatch_events().await });
        Ok(Self {
            shared,
            task: task.abort_handle(),
        })
    }

    /// Starts watching a file.
    pub(super) fn watch(&self, path: &Path) -> io::Result<FileWatch> {
        let mut files = self.shared.files();
        let number = inotify::add_watch(self.shared.inotify.get_ref(), path, WatchFlags::MODIFY)?;
        let sender = files
            .entry(number)
            .or_insert_with(|| watch::Sender::new(()));
        Ok(FileWatch {
            number,
            changes: sender.subscribe(),
            shared: self.shared.clone(),
        })
    }
}

impl Drop for FileWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FileWatch {
    /// Waits until the file has changed since the last call.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The watcher has ended: no change will be reported.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        let mut files = self.shared.files();
        let is_last = files
            .get(&self.number)
            .is_some_and(|sender| sender.receiver_count() <= 1);
        if is_last {
            files.remove(&self.number);
            // Fails if the file was deleted.
            let _ = inotify::remove_watch(self.shared.inotify.get_ref(), self.number);
        }
    }
}

impl WatcherState {
    fn files(&self) -> MutexGuard<'_, BTreeMap<i32, watch::Sender<()>>> {
        // No panic is possible while the lock is held.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dispatch_events(&self) {
        while let Ok(mut ready) = self.inotify.readable().await {
            // Clear readiness before reading: later events make it ready again.
            ready.clear_ready();
            self.notify_watches();
        }
    }

    /// Reads all pending events and notifies their watches.
    fn notify_watches(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4 * 1024];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        while let Ok(event) = events.next() {
            let files = self.files();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                files.values().for_each(|file| file.send_replace(()));
            } else if let Some(file) = files.get(&event.wd()) {
                file.send_replace(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write, time::Duration};

    use super::*;

    #[tokio::test]
    async fn two_who_watch_one_file_both_hear_of_it_and_one_may_leave() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let watcher = FileWatcher::new().unwrap();
        let (mut one, mut two) = (watcher.watch(&path).unwrap(), watcher.watch(&path).unwrap());
        file.write_all(b"x").unwrap();
        one.changed().await;
        two.changed().await;
        drop(one);
        let quiet = tokio::time::timeout(Duration::from_millis(50), two.changed()).await;
        assert!(quiet.is_err(), "nothing has changed");
        file.write_all(b"x").unwrap();
        two.changed().await;
        drop(two);
        assert!(watcher.shared.files().is_empty());
    }
}
