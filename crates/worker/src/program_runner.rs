//! Runs a program: forwards its output as it comes, enforces its timeout, waits for its end.
//!
//! All steps of a job print into one pipe. A process that a step leaves running can print while later steps run, and
//! the worker doesn't have to wait until it closes its output.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    time::{Instant, sleep_until},
};

use crate::{
    cancellation::{JobCancellation, StopMode, WhenCancelled},
    cgroup_limits::prefer_for_oom_kill,
    output_processor::OutputProcessor,
    processes::{ENDING, signal_group},
    shell::{CommandLine, find_program},
};

/// Capacity of the pipe: programs that print a lot block less often.
const PIPE_BYTES: usize = 1 << 20;
const CHUNK_BYTES: usize = 256 * 1024;
/// How long the client of a container may take to notice that its process was killed.
const GONE: Duration = Duration::from_secs(3);

/// The pipe that all steps print into.
pub(crate) struct OutputPipe {
    reader: pipe::Receiver,
    writer: OwnedFd,
    chunk: Vec<u8>,
}

/// A program to run.
pub(crate) struct ProgramInvocation {
    pub(crate) line: CommandLine,
    pub(crate) workdir: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

/// A process that is signalled by other means than its pid, such as one in a container.
pub(crate) trait RemoteProcess {
    fn send_signal(&self, signal: Signal);
}

/// When a program has to be stopped.
pub(crate) struct RunLimits<'c> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel: &'c mut JobCancellation,
    pub(crate) when_cancelled: WhenCancelled,
}

/// How a program or an action ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RunOutcome {
    #[default]
    Succeeded,
    /// With the reason.
    Failed(String),
    /// Stopped because of its timeout.
    TimedOut,
    /// Stopped because the job was cancelled.
    Cancelled,
    /// Not started, because it can't run on this machine; not a failure. With the reason.
    Unsupported(String),
}

impl OutputPipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (writer, reader) = pipe::pipe()?;
        // Best effort: the system may limit the capacity.
        let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE_BYTES);
        Ok(Self {
            reader,
            writer: writer.into_blocking_fd()?,
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    async fn forward_output(&mut self, output: &mut OutputProcessor) -> io::Result<()> {
        let count = self.reader.read(&mut self.chunk).await?;
        output.process_bytes(&self.chunk[..count]);
        output.log.flush();
        Ok(())
    }

    /// Reads what the pipe holds now. A process that has exited has written all its output before.
    async fn drain_output(&mut self, output: &mut OutputProcessor) -> io::Result<()> {
        let mut left = usize::try_from(rustix::io::ioctl_fionread(&self.reader)?).unwrap_or(0);
        while left > 0 {
            let room = left.min(self.chunk.len());
            let count = self.reader.read(&mut self.chunk[..room]).await?;
            output.process_bytes(&self.chunk[..count]);
            left -= count.clamp(1, left);
        }
        output.finish();
        Ok(())
    }
}

/// Runs a program until it exits; its output goes to `output`.
pub(crate) async fn run_program(
    invocation: &ProgramInvocation,
    bounds: RunLimits<'_>,
    pipe: &mut OutputPipe,
    output: &mut OutputProcessor,
) -> io::Result<RunOutcome> {
    run_container_client(invocation, None, bounds, pipe, output).await
}

/// Like [`run_program`], for the client of a process in a container: signals are sent to that process, whose end also ends
/// the client.
pub(crate) async fn run_container_client(
    invocation: &ProgramInvocation,
    reach: Option<&dyn RemoteProcess>,
    bounds: RunLimits<'_>,
    pipe: &mut OutputPipe,
    output: &mut OutputProcessor,
) -> io::Result<RunOutcome> {
    let program = &invocation.line.program;
    let path = invocation.env.iter().rfind(|(name, _)| name == "PATH");
    // With an absolute path std uses posix_spawn instead of fork, and no folder of PATH is tried in vain.
    let file = path.and_then(|(_, path)| find_program(program, path));
    let mut command = Command::new(file.as_deref().unwrap_or(program.as_ref()));
    command
        .arg0(program)
        .args(&invocation.line.arguments)
        .current_dir(&invocation.workdir)
        .env_clear()
        .envs(invocation.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::from(pipe.writer.try_clone()?))
        .stderr(Stdio::from(pipe.writer.try_clone()?))
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    drop(command);
    prefer_for_oom_kill(child.id());
    let ended = supervise_program(&mut child, reach, bounds, pipe, output).await?;
    pipe.drain_output(output).await?;
    Ok(ended)
}

async fn supervise_program(
    child: &mut Child,
    reach: Option<&dyn RemoteProcess>,
    bounds: RunLimits<'_>,
    pipe: &mut OutputPipe,
    output: &mut OutputProcessor,
) -> io::Result<RunOutcome> {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let target = SignalTarget { group, reach };
    let mut ending: Option<ProgramTermination> = None;
    let late = bounds.timeout.and_then(|it| Instant::now().checked_add(it));
    let status = loop {
        let alarm = match &ending {
            Some(ending) => ending.next,
            None => late,
        };
        tokio::select! {
            status = child.wait() => break status?,
            read = pipe.forward_output(output) => read?,
            manner = bounds.cancel.wait_for_stop(bounds.when_cancelled), if !ending.as_ref().is_some_and(ProgramTermination::was_killed) => {
                let ending = ending.get_or_insert_with(|| ProgramTermination::new(RunOutcome::Cancelled));
                match manner {
                    StopMode::Graceful => ending.send_next_signal(&target),
                    StopMode::Immediate => ending.send_kill(&target),
                }
            }
            () = sleep_until_some(alarm) => ending.get_or_insert_with(|| ProgramTermination::new(RunOutcome::TimedOut)).send_next_signal(&target),
        }
    };
    Ok(match ending {
        None => outcome_from_status(status),
        Some(ending) => {
            // Its children have had the same grace period.
            signal_group(group, Signal::KILL);
            ending.why
        }
    })
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn outcome_from_status(status: ExitStatus) -> RunOutcome {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => RunOutcome::Succeeded,
        (Some(code), _) => RunOutcome::Failed(format!("exit code {code}")),
        (None, Some(signal)) => {
            let name =
                Signal::from_named_raw(signal).map_or_else(String::new, |it| format!(" ({it:?})"));
            RunOutcome::Failed(format!("killed by signal {signal}{name}"))
        }
        (None, None) => RunOutcome::Failed(status.to_string()),
    }
}

/// The processes to signal.
struct SignalTarget<'r> {
    group: Option<Pid>,
    /// Set if `group` is only the client of a process in a container.
    reach: Option<&'r dyn RemoteProcess>,
}

impl SignalTarget<'_> {
    fn send_signal(&self, signal: Signal) {
        match &self.reach {
            Some(reach) => reach.send_signal(signal),
            None => signal_group(self.group, signal),
        }
    }
}

/// A process group that is being stopped: SIGINT, then SIGTERM, then SIGKILL.
struct ProgramTermination {
    why: RunOutcome,
    said: usize,
    next: Option<Instant>,
}

impl ProgramTermination {
    const fn new(why: RunOutcome) -> Self {
        Self {
            why,
            said: 0,
            next: None,
        }
    }

    /// Sends the next signal.
    fn send_next_signal(&mut self, target: &SignalTarget<'_>) {
        match ENDING.get(self.said) {
            Some((signal, grace)) => {
                target.send_signal(*signal);
                self.next = Some(Instant::now() + *grace);
                self.said += 1;
            }
            None => self.send_kill(target),
        }
    }

    fn send_kill(&mut self, target: &SignalTarget<'_>) {
        if target.reach.is_some() && !self.was_killed() {
            target.send_signal(Signal::KILL);
            self.next = Some(Instant::now() + GONE);
        } else {
            signal_group(target.group, Signal::KILL);
            self.next = None;
        }
        self.said = ENDING.len() + 1;
    }

    /// Whether SIGKILL was sent.
    const fn was_killed(&self) -> bool {
        self.said > ENDING.len()
    }
}
