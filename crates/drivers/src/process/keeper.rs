//! The shim's watch over its instance: what it prints goes to the log, SIGTERM goes on to it, and when it ends everything that it
//! has started ends with it.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait},
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::{log::Log, proc};

/// What was killed is looked at again after this time: it may have forked before it died.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// Processes that the kernel can't end (they wait for a broken disk) are left to it after this time.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Read from the instance at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Signals, as something to poll.
pub(super) struct Wakeups {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
}

impl Wakeups {
    /// From now on SIGTERM and SIGINT ask for a stop.
    pub(super) fn register() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        // The flag first: whoever wakes up finds it set.
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, stop.clone())?;
        }
        for signal in [SIGTERM, SIGINT, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { pipe, stop })
    }

    fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.pipe).read(&mut bytes), Ok(1..)) {}
    }
}

/// Where the instance is in its life.
enum Stage {
    Running,
    /// Was told to stop; killed at the deadline, if it has one.
    Stopping {
        deadline: Option<Instant>,
        rest_told: bool,
    },
    /// Everything that is left is killed.
    Killing {
        give_up: Instant,
    },
}

/// The watch over one instance.
pub(super) struct Keeper {
    main: Pid,
    grace: Duration,
    stage: Stage,
    status: Option<WaitStatus>,
    /// Until its last writer is gone.
    output: Option<OwnedFd>,
    log: Log,
    wakeups: Wakeups,
    chunk: Vec<u8>,
}

impl Keeper {
    pub(super) fn new(
        main: Pid,
        grace: Duration,
        output: OwnedFd,
        log: Log,
        wakeups: Wakeups,
    ) -> Self {
        Self {
            main,
            grace,
            stage: Stage::Running,
            status: None,
            output: Some(output),
            log,
            wakeups,
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Kills it, for want of something to run it with.
    pub(super) fn end_at_once(&mut self) {
        self.stage = Stage::Killing {
            give_up: Instant::now() + GIVE_UP,
        };
        self.keep();
    }

    /// Keeps watch until the instance and all that it has started are gone; how its main process ended.
    pub(super) fn keep(&mut self) -> Option<WaitStatus> {
        while self.reap() {
            let now = Instant::now();
            self.advance(now);
            match self.stage {
                Stage::Killing { give_up } if now > give_up => break,
                Stage::Killing { .. } => self.kill_all(),
                Stage::Running | Stage::Stopping { .. } => {}
            }
            self.wait(now);
        }
        // What was printed last may still be in the pipe.
        while self.copy_output() {}
        self.status
    }

    /// Takes leave of children that have ended; whether there are others.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => self.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn advance(&mut self, now: Instant) {
        let killing = Stage::Killing {
            give_up: now + GIVE_UP,
        };
        let main_ended = self.status.is_some();
        match &mut self.stage {
            Stage::Running if main_ended => self.stage = killing,
            Stage::Running if self.wakeups.stop.load(Ordering::SeqCst) => {
                // Gone in this moment is as good, here and below.
                let _ = kill_process_group(self.main, Signal::TERM);
                self.stage = Stage::Stopping {
                    deadline: now.checked_add(self.grace),
                    rest_told: false,
                };
            }
            Stage::Stopping {
                deadline: Some(deadline),
                ..
            } if now >= *deadline => self.stage = killing,
            // A shell dies of its SIGTERM at once while what it runs finishes its requests: that has the grace as well. What
            // has left the group learns of it now.
            Stage::Stopping { rest_told, .. } if main_ended && !*rest_told => {
                *rest_told = true;
                for process in proc::children(std::process::id()) {
                    process.signal(Signal::TERM);
                }
            }
            Stage::Running | Stage::Stopping { .. } | Stage::Killing { .. } => {}
        }
    }

    /// The group, and what has left it: orphans become children of the shim.
    fn kill_all(&self) {
        if self.status.is_none() {
            let _ = kill_process_group(self.main, Signal::KILL);
        }
        for process in proc::children(std::process::id()) {
            process.signal(Signal::KILL);
        }
    }

    /// Until something happens or the stage has to be looked at again.
    fn wait(&mut self, now: Instant) {
        let timeout = match self.stage {
            Stage::Running => None,
            Stage::Stopping { deadline, .. } => {
                deadline.map(|deadline| deadline.saturating_duration_since(now))
            }
            Stage::Killing { .. } => Some(KILL_AGAIN),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = vec![PollFd::new(&self.wakeups.pipe, PollFlags::IN)];
        if let Some(output) = &self.output {
            polled.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
        }
        // Interrupted is a reason to look, too.
        let _ = poll(&mut polled, timeout.as_ref());
        let printed = polled.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.wakeups.drain();
        if printed {
            self.copy_output();
        }
    }

    /// One read from the instance into its log; whether there may be more.
    fn copy_output(&mut self) -> bool {
        let Some(output) = &self.output else {
            return false;
        };
        match rustix::io::read(output, &mut self.chunk) {
            Ok(0) => {
                self.output = None;
                false
            }
            Ok(count) => {
                self.log.write(&self.chunk[..count]);
                true
            }
            Err(error) => error == Errno::INTR,
        }
    }
}
