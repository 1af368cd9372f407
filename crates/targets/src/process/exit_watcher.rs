//! The shim's event loop: copies the instance's output to its log, forwards a stop request, and kills everything that the
//! instance started when it exits.
//!
//! # Stopping
//! The stop signal is sent once, to the main process only. After it has exited, each orphaned process gets SIGTERM once. What
//! still runs when the grace period has expired is killed.

use std::{
    collections::BTreeSet,
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
use shipway_core::target::StopSignal;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::{instance_log::InstanceLog, shell_command::SHELL};
use crate::procfs::{self, ProcessId};

/// Interval of kill rounds: a process may have forked before it died.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// Unkillable processes (waiting for a broken disk) are abandoned after this time.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Bytes per read.
const CHUNK_BYTES: usize = 64 << 10;

/// Signals as a pollable pipe.
pub(super) struct SignalWakeups {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
}

impl SignalWakeups {
    /// Makes SIGTERM and SIGINT request a stop.
    pub(super) fn register() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        // Register the flag first: the loop must find it set when the pipe wakes it.
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

/// How to stop the instance.
#[derive(Clone, Copy)]
pub(super) struct InstanceStopRequest {
    pub(super) signal: StopSignal,
    /// Time from the signal to SIGKILL.
    pub(super) grace: Duration,
}

impl InstanceStopRequest {
    const fn signal(self) -> Signal {
        match self.signal {
            StopSignal::SigTerm => Signal::TERM,
            StopSignal::SigInt => Signal::INT,
            StopSignal::SigQuit => Signal::QUIT,
            StopSignal::SigHup => Signal::HUP,
            StopSignal::SigUsr1 => Signal::USR1,
            StopSignal::SigUsr2 => Signal::USR2,
            StopSignal::SigWinch => Signal::WINCH,
        }
    }
}

/// How the instance ended.
#[derive(Clone, Copy, Default)]
pub(super) struct InstanceEnd {
    /// Exit status of the main process.
    pub(super) status: Option<WaitStatus>,
    /// It was killed at the end of the grace period.
    pub(super) grace_exceeded: bool,
    /// The main process exited unexpectedly while others still ran.
    pub(super) left_processes: bool,
}

/// State of the instance.
enum WatchStage {
    Running,
    Stopping(StopProgress),
    /// All remaining processes are being killed.
    Killing {
        give_up: Instant,
    },
}

/// The main process got the stop signal.
struct StopProgress {
    /// When all processes are killed.
    deadline: Option<Instant>,
    /// The signal for orphaned processes.
    orphan_signal: Signal,
    /// Processes that got a signal. None gets two, because many servers treat the second as "now".
    signalled: BTreeSet<ProcessId>,
}

/// Watches one instance.
pub(super) struct ExitWatcher {
    main: ProcessId,
    main_pid: Pid,
    request: InstanceStopRequest,
    stage: WatchStage,
    end: InstanceEnd,
    /// `None` after the last writer has closed it.
    output: Option<OwnedFd>,
    log: InstanceLog,
    wakeups: SignalWakeups,
    chunk: Vec<u8>,
}

impl ExitWatcher {
    pub(super) fn new(
        main: ProcessId,
        request: InstanceStopRequest,
        output: OwnedFd,
        log: InstanceLog,
        wakeups: SignalWakeups,
    ) -> io::Result<Self> {
        let main_pid = main.as_pid();
        Ok(Self {
            main,
            main_pid: main_pid.ok_or_else(|| io::Error::other("no process"))?,
            request,
            stage: WatchStage::Running,
            end: InstanceEnd::default(),
            output: Some(output),
            log,
            wakeups,
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    /// Kills the instance after an error of the shim.
    pub(super) fn kill_now(&mut self) {
        self.stage = WatchStage::Killing {
            give_up: Instant::now() + GIVE_UP,
        };
        self.watch_until_end();
    }

    /// Runs until the instance and all its descendants have exited; returns how it ended.
    pub(super) fn watch_until_end(&mut self) -> InstanceEnd {
        while self.reap_children() {
            let now = Instant::now();
            self.advance_stage(now);
            match self.stage {
                WatchStage::Killing { give_up } if now > give_up => break,
                WatchStage::Killing { .. } => self.kill_all(),
                WatchStage::Running | WatchStage::Stopping(_) => {}
            }
            self.wait_for_event(now);
        }
        // The last output may still be in the pipe.
        while self.copy_output() {}
        self.end
    }

    /// Reaps children; returns whether any are left.
    fn reap_children(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main_pid => self.end.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn advance_stage(&mut self, now: Instant) {
        let main_ended = self.end.status.is_some();
        match &mut self.stage {
            WatchStage::Running if main_ended => {
                self.end.left_processes = !procfs::child_processes(std::process::id()).is_empty();
                self.start_killing(now);
            }
            WatchStage::Running if self.wakeups.stop.load(Ordering::SeqCst) => {
                self.send_stop_signal(now)
            }
            WatchStage::Stopping(stopping) if stopping.deadline.is_some_and(|at| now >= at) => {
                self.end.grace_exceeded = true;
                let (signal, grace) = (self.request.signal.name(), self.request.grace);
                let note = format!(
                    "still running {} s after {signal} (run.grace), killed",
                    grace.as_secs_f32()
                );
                self.log.write_note(&note);
                self.start_killing(now);
            }
            WatchStage::Stopping(stopping) if main_ended => {
                stopping.signal_orphans();
            }
            WatchStage::Running | WatchStage::Stopping(_) | WatchStage::Killing { .. } => {}
        }
    }

    fn start_killing(&mut self, now: Instant) {
        self.stage = WatchStage::Killing {
            give_up: now + GIVE_UP,
        };
    }

    /// Sends the stop signal to the main process only, which is responsible for its children.
    ///
    /// If `/bin/sh -c` is still the parent of the command, it only gets SIGTERM, unless it has a trap: it exits, and its
    /// orphaned children get the stop signal instead.
    fn send_stop_signal(&mut self, now: Instant) {
        let signal = self.request.signal();
        let is_shell = procfs::is_shell_with_command(self.main, SHELL);
        let has_trap = is_shell && procfs::has_handler(self.main, signal.as_raw());
        let (to_main, orphan_signal) = match (is_shell, has_trap) {
            (true, false) => (Signal::TERM, signal),
            (true, true) | (false, _) => (signal, Signal::TERM),
        };
        self.main.send_signal(to_main);
        self.stage = WatchStage::Stopping(StopProgress {
            deadline: now.checked_add(self.request.grace),
            orphan_signal,
            signalled: BTreeSet::from([self.main]),
        });
    }

    /// Kills the process group, and processes that left it: orphans are reparented to the shim.
    fn kill_all(&self) {
        if self.end.status.is_none() {
            let _ = kill_process_group(self.main_pid, Signal::KILL);
        }
        for process in procfs::child_processes(std::process::id()) {
            process.send_signal(Signal::KILL);
        }
    }

    /// Waits for an event or the deadline of the current stage.
    fn wait_for_event(&mut self, now: Instant) {
        let timeout = match &self.stage {
            WatchStage::Running => None,
            WatchStage::Stopping(stopping) => {
                let left = |deadline: Instant| deadline.saturating_duration_since(now);
                stopping.deadline.map(left)
            }
            WatchStage::Killing { .. } => Some(KILL_AGAIN),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = vec![PollFd::new(&self.wakeups.pipe, PollFlags::IN)];
        if let Some(output) = &self.output {
            polled.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
        }
        // EINTR is handled like an event.
        let _ = poll(&mut polled, timeout.as_ref());
        let printed = polled.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.wakeups.drain();
        if printed {
            self.copy_output();
        }
    }

    /// Copies one chunk of output to the log; returns whether there may be more.
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
                self.log.write_output(&self.chunk[..count]);
                true
            }
            Err(error) => error == Errno::INTR,
        }
    }
}

impl StopProgress {
    /// Sends one signal to each orphaned process. Processes with a living parent are stopped by that parent.
    fn signal_orphans(&mut self) {
        for process in procfs::child_processes(std::process::id()) {
            if self.signalled.insert(process) {
                process.send_signal(self.orphan_signal);
            }
        }
    }
}
