//! Runs git with a clean environment, bounded output and a deadline.
//!
//! # Invariants
//!
//! Only this module builds `git` commands: none runs with a user's configuration, waits for a password, or outlives the future
//! that started it. Dropping that future kills git and its helpers (they share a process group).

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::GitError;

/// Default deadline. Local reads take milliseconds; only a failing disk or a stopped process takes this long.
const DEADLINE: Duration = Duration::from_secs(60);
/// Upper bound for output: far above the file list of the largest repositories (Linux: 6 MB).
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Upper bound for error output.
pub(crate) const STDERR_BYTES_MAX: u64 = 16 << 10;

/// Runs git. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct GitRunner {
    /// The directory whose `.gitconfig` is the only configuration other than the repository's; `None` for reading foreign
    /// repositories, which need none.
    home: Option<Arc<Path>>,
}

impl GitRunner {
    /// Uses the configuration in `home`.
    pub(crate) fn with_home(home: PathBuf) -> Self {
        Self {
            home: Some(home.into()),
        }
    }

    /// For reading only, without configuration.
    pub(crate) const fn for_reading() -> Self {
        Self { home: None }
    }

    /// A `git` command that inherits only `PATH`.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear().process_group(0).kill_on_drop(true);
        command.env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        );
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_PROTOCOL_FROM_USER", "0"),
        ] {
            command.env(name, value);
        }
        match &self.home {
            Some(home) => command.env("HOME", home.as_os_str()),
            // The user named this repository, which may belong to another user.
            None => command
                .env("HOME", "/nonexistent")
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "safe.directory")
                .env("GIT_CONFIG_VALUE_0", "*"),
        };
        command
    }

    /// Builds a call of a git command that ends by itself.
    pub(crate) fn call(&self, what: &'static str) -> GitCall {
        GitCall {
            command: self.command(),
            what,
            stdin: Vec::new(),
            deadline: DEADLINE,
        }
    }
}

/// A call of git with output small enough for memory.
pub(crate) struct GitCall {
    command: Command,
    what: &'static str,
    stdin: Vec<u8>,
    deadline: Duration,
}

/// The result of a call.
pub(crate) struct GitOutput {
    what: &'static str,
    /// The exit code; 128 plus the signal, as in shells.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl GitOutput {
    /// Standard output, or the failure.
    pub(crate) fn into_success(self) -> Result<Vec<u8>, GitError> {
        if self.code == 0 {
            Ok(self.stdout)
        } else {
            Err(self.failure())
        }
    }

    /// The failure that this result describes.
    pub(crate) fn failure(&self) -> GitError {
        GitError::Failed {
            what: self.what,
            reason: describe_failure(&self.stderr, self.code),
        }
    }
}

impl GitCall {
    /// Runs in this repository.
    pub(crate) fn in_repository(mut self, git_dir: &Path) -> Self {
        self.command.env("GIT_DIR", git_dir).current_dir(git_dir);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable, which other users of the machine can't read.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the standard input.
    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = bytes;
        self
    }

    /// Replaces the deadline, for work that grows with the repository.
    pub(crate) const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the command to its end. Dropping the future kills it.
    pub(crate) async fn run(mut self) -> Result<GitOutput, GitError> {
        let (what, deadline) = (self.what, self.deadline);
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(GitError::Start)?;
        let group = ProcessGroup::from_child(&child);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let input = self.stdin;
        let work = async {
            let ((), stdout, stderr, status) = tokio::join!(
                write_stdin(stdin, &input),
                read_up_to(stdout, ANSWER_BYTES_MAX),
                read_up_to(stderr, STDERR_BYTES_MAX),
                child.wait()
            );
            (stdout, stderr, status)
        };
        let (stdout, stderr, status) =
            tokio::time::timeout(deadline, work)
                .await
                .map_err(|_| GitError::Timeout {
                    what,
                    after: deadline,
                })?;
        let status = status.map_err(GitError::Start)?;
        group.disarm();
        let (stdout, whole) = stdout;
        if !whole {
            return Err(GitError::TooLarge {
                what: format!("git's answer to {what:?}"),
                max_bytes: ANSWER_BYTES_MAX,
            });
        }
        Ok(GitOutput {
            what,
            code: exit_code(status),
            stdout,
            stderr: stderr.0,
        })
    }
}

/// The exit code of a process; 128 plus the signal's number if a signal ended it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Writes everything and closes. If git stops reading it reports why on stderr and by its exit code.
async fn write_stdin(stdin: Option<tokio::process::ChildStdin>, bytes: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(bytes).await;
    }
}

/// Reads to the end but keeps at most `max_bytes`; returns whether that was everything. The rest is discarded, so that the
/// writer can exit.
pub(crate) async fn read_up_to(
    reader: Option<impl AsyncRead + Unpin>,
    max_bytes: u64,
) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let Some(mut reader) = reader else {
        return (kept, true);
    };
    let _ = (&mut reader).take(max_bytes).read_to_end(&mut kept).await;
    let dropped = tokio::io::copy(&mut reader, &mut tokio::io::sink())
        .await
        .unwrap_or(0);
    (kept, dropped == 0)
}

/// Git's error message: its first `fatal:` or `error:` line, otherwise the last non-empty line.
pub(crate) fn describe_failure(stderr: &[u8], code: i32) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines().find_map(|line| {
        line.strip_prefix("fatal: ")
            .or_else(|| line.strip_prefix("error: "))
    });
    match told.or_else(|| lines().next_back()) {
        Some(line) => line.chars().filter(|c| !c.is_control()).take(300).collect(),
        None => format!("it exited with code {code} without a message"),
    }
}

/// The process group of a child. Unless [`ProcessGroup::disarm`] was called it is killed on drop: the leader was not reaped
/// then, so its pid can't have been reused.
pub(crate) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    pub(crate) fn from_child(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Sends SIGTERM to the group; git then removes its locks and partial packs.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Called when the leader was reaped.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // The group may have exited already.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Normalizes a path inside a repository: relative, without `..` or line breaks. Empty means the root.
pub(crate) fn normalize_path(path: &str) -> Result<&str, GitError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = if path == "." {
        ""
    } else {
        path.strip_prefix("./").unwrap_or(path)
    };
    let fine = path.is_empty()
        || path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\n', '\0']));
    if fine {
        Ok(path)
    } else {
        Err(GitError::Path(path.chars().take(120).collect()))
    }
}

/// Converts arguments to one type.
pub(crate) fn to_arguments<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_repository_are_refused() {
        for (path, clean) in [
            ("", ""),
            (".", ""),
            ("a/b/", "a/b"),
            ("./a", "a"),
            (".github/x.yml", ".github/x.yml"),
        ] {
            assert_eq!(normalize_path(path).unwrap(), clean);
        }
        for path in [
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a\nb",
            "a/./b",
            "a\0",
        ] {
            assert!(normalize_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_reason_is_gits_own_words() {
        let stderr = b"hint: try harder\nfatal: not a git repository: 'x'\nsee the manual\n";
        assert_eq!(describe_failure(stderr, 128), "not a git repository: 'x'");
        assert_eq!(describe_failure(b"one\ntwo\n", 1), "two");
        assert_eq!(
            describe_failure(b"", 3),
            "it exited with code 3 without a message"
        );
    }

    #[tokio::test]
    async fn a_failure_carries_what_git_said() {
        let error = GitRunner::for_reading()
            .call("be strange")
            .args(["no-such-thing"])
            .run()
            .await
            .unwrap()
            .into_success()
            .unwrap_err();
        assert!(
            error.to_string().starts_with("git could not be strange: "),
            "{error}"
        );
        assert!(error.to_string().contains("no-such-thing"), "{error}");
    }

    #[tokio::test]
    async fn work_that_takes_too_long_is_killed_with_its_helpers() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("!sleep 60 & echo $! > '{}'; wait", pid_file.display());
        let error = GitRunner::for_reading()
            .call("sleep")
            .args(["-c", &format!("alias.nap={script}"), "nap"])
            .deadline(Duration::from_secs(2))
            .run()
            .await
            .err()
            .unwrap();
        assert!(matches!(error, GitError::Timeout { .. }), "{error}");
        let pid: i32 = std::fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let gone = async {
            // A zombie nobody reaps (no init in a container) has ended too.
            let running = || {
                std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| !stat.contains(") Z "))
            };
            while running() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("the helper ended too");
    }
}
