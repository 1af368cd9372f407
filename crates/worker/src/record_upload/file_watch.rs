//! Wakes the thread when a record has grown, or when the journal is complete.

use std::{io, path::Path, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::inotify::{CreateFlags, WatchFlags, add_watch, init},
    pipe::{PipeFlags, pipe_with},
};

/// Why the thread is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeReason {
    Changed,
    /// The journal is complete.
    Complete,
}

/// A watch of the job's folder.
pub(super) struct FolderWatch {
    changes: OwnedFd,
    /// Closed when the journal is complete.
    open_journal: OwnedFd,
}

impl FolderWatch {
    /// Watches a folder until the returned descriptor is closed.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, OwnedFd)> {
        let changes = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        add_watch(&changes, folder, WatchFlags::MODIFY | WatchFlags::CREATE)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let watch = Self {
            changes,
            open_journal: read,
        };
        Ok((watch, write))
    }

    /// Waits for the next change, and for `interval` after it to let changes gather.
    pub(super) fn wait(&self, interval: Duration) -> io::Result<WakeReason> {
        if self.poll(&[&self.changes, &self.open_journal], None)? == WakeReason::Complete
            || self.poll(&[&self.open_journal], Some(interval))? == WakeReason::Complete
        {
            return Ok(WakeReason::Complete);
        }
        let mut events = [0; 4096];
        while rustix::io::read(&self.changes, &mut events).is_ok_and(|count| count > 0) {}
        Ok(WakeReason::Changed)
    }

    /// Waits for one of the descriptors; the last one says that the journal is complete.
    fn poll(&self, descriptors: &[&OwnedFd], timeout: Option<Duration>) -> io::Result<WakeReason> {
        let timeout = timeout.map(|it| Timespec::try_from(it).unwrap_or_default());
        let mut polled: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        loop {
            match poll(&mut polled, timeout.as_ref()) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let is_complete = polled.last().is_some_and(|it| !it.revents().is_empty());
        Ok(match is_complete {
            true => WakeReason::Complete,
            false => WakeReason::Changed,
        })
    }
}
