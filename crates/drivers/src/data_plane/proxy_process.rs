//! The proxy's process: started so that it outlives us, adopted by its number, and its end noticed at once.

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

/// A process that may or may not be a child of ours.
#[derive(Debug)]
pub(super) struct ProxyProcess {
    descriptor: AsyncFd<OwnedFd>,
    /// When it is a child, it must be waited for.
    child: Option<Child>,
}

impl ProxyProcess {
    /// Holds on to a process that was started by somebody else, an earlier server for instance. The number may belong to another
    /// process by the time this returns: the caller asks the proxy for its name again.
    pub(super) fn adopt(pid: u32) -> io::Result<Self> {
        Ok(Self {
            descriptor: open_pidfd(pid)?,
            child: None,
        })
    }

    /// Starts the proxy.
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
        // Out of the terminal's foreground group: neither Ctrl-C nor a closed terminal reaches it. Not killed with us.
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

    /// Resolves when it has ended. Cancel safe.
    pub(super) async fn wait_until_ended(&mut self) {
        // A process's descriptor becomes readable when it ends and stays so.
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

/// The last line of a log, for an error that needs a reason.
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
        || format!("it said nothing in {}", log_file.display()),
        // It is the same program, and says so.
        |line| {
            let words = line.strip_prefix("shipway: ").unwrap_or(line);
            words.chars().take(300).collect()
        },
    )
}
