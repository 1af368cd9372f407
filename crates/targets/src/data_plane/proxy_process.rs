//! The proxy's process: started so that it outlives the server, or adopted by its pid, and watched by a pidfd.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
};

use super::{DataPlaneError, DataPlaneOptions};

/// The proxy, which may be a child of this process or not.
#[derive(Debug)]
pub(super) struct ProxyProcess {
    descriptor: AsyncFd<OwnedFd>,
    /// Set if it is a child, which must be reaped.
    child: Option<Child>,
}

impl ProxyProcess {
    /// Opens a process that was started by an earlier server. The pid may be reused before this returns: the caller asks the
    /// proxy for its id again.
    pub(super) fn adopt(pid: u32) -> io::Result<Self> {
        Ok(Self {
            descriptor: open_pidfd(pid)?,
            child: None,
        })
    }

    pub(super) fn start(options: &DataPlaneOptions) -> Result<Self, DataPlaneError> {
        let (exe, first) = match options.exe.split_first() {
            Some((exe, first)) => (exe.clone(), first),
            None => (OsString::new(), &[][..]),
        };
        let failed = |source| DataPlaneError::Spawn {
            exe: exe.clone(),
            source,
        };
        let log = open_log(&options.log).map_err(failed)?;
        let mut command = Command::new(&exe);
        command
            .args(first)
            .args(proxy_arguments(options))
            .stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // Own process group: neither Ctrl-C nor a closed terminal reaches it. Not killed with the server.
        command.process_group(0).kill_on_drop(false);
        let child = command.spawn().map_err(failed)?;
        let pid = child
            .id()
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(Self {
            descriptor: open_pidfd(pid).map_err(failed)?,
            child: Some(child),
        })
    }

    /// Waits until the process has exited. Cancel safe.
    pub(super) async fn wait_until_ended(&mut self) {
        // A pidfd becomes readable when the process exits, and stays so.
        let _ = self.descriptor.readable().await;
        if let Some(child) = &mut self.child {
            let _ = child.wait().await;
        }
    }

    /// SIGTERM.
    pub(super) fn terminate(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::TERM);
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that may close or change their descriptor; OwnedFd does neither"
)]
fn open_pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// `--control … --state … --workers … --listen …`
fn proxy_arguments(options: &DataPlaneOptions) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--control".into(),
        options.control.clone().into(),
        "--state".into(),
        options.state.clone().into(),
        "--workers".into(),
        options.workers.to_string().into(),
    ];
    for network in &options.trusted {
        arguments.extend(["--trust-proxy".into(), network.to_string().into()]);
    }
    for address in &options.listen {
        arguments.extend(["--listen".into(), address.to_string().into()]);
    }
    arguments
}

/// The last line of the log, as the reason in an error.
pub(super) fn last_log_line(log_file: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(log_file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map(|_| tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.map_or_else(
        || format!("it logged nothing to {}", log_file.display()),
        // The line starts with the program's name.
        |line| {
            let words = line.strip_prefix("shipway: ").unwrap_or(line);
            words.chars().take(300).collect()
        },
    )
}
