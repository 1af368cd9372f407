//! A script run by its shell: its output read line by line, its end awaited, its time bounded.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Pid;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::process;

/// A line is handed on at this length at the latest: a program that prints no newline doesn't fill the memory.
const LINE_MAX: usize = 256 * 1024;
/// After the process has ended, how long output that is still in the pipe is waited for: a stray may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(500);

/// What is to be run.
pub(crate) struct Invocation {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) workdir: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, well.
    Fine,
    /// By itself, badly; in words.
    Badly(String),
    /// It took too long and was ended.
    TimedOut,
    /// The job is cancelled and it was ended.
    Cancelled,
}

/// Runs it; every line of output goes to `line`, with `overlap` bytes of it repeated where a line had to be cut.
pub(crate) async fn run(
    invocation: &Invocation,
    timeout: Option<Duration>,
    cancelled: &CancellationToken,
    mut line: impl FnMut(&str),
) -> io::Result<Ended> {
    let (writer, mut reader) = pipe::pipe()?;
    let writer = writer.into_blocking_fd()?;
    let mut command = Command::new(&invocation.program);
    command
        .args(&invocation.arguments)
        .current_dir(&invocation.workdir)
        .env_clear()
        .envs(invocation.env.iter().map(|(name, value)| (name, value)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    // It holds the writing end of the pipe.
    drop(command);
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let mut lines = Lines::default();
    let ended = {
        let reading = async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                lines.push(&chunk[..count], &mut line);
            }
        };
        let ending = wait(&mut child, group, timeout, cancelled);
        tokio::pin!(reading, ending);
        tokio::select! {
            ended = &mut ending => {
                process::kill(group);
                let _ = tokio::time::timeout(DRAIN, &mut reading).await;
                ended?
            }
            () = &mut reading => ending.await?,
        }
    };
    lines.finish(&mut line);
    process::kill(group);
    Ok(ended)
}

async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    timeout: Option<Duration>,
    cancelled: &CancellationToken,
) -> io::Result<Ended> {
    let late = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        status = child.wait() => {
            let status = status?;
            return Ok(if status.success() { Ended::Fine } else { Ended::Badly(status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))) });
        }
        () = late => Ended::TimedOut,
        () = cancelled.cancelled() => Ended::Cancelled,
    };
    process::end(child, group).await;
    Ok(why)
}

/// Bytes cut into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8], line: &mut impl FnMut(&str)) {
        self.0.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(end) = self.0[begin..].iter().position(|byte| *byte == b'\n') {
            emit(&self.0[begin..begin + end], line);
            begin += end + 1;
        }
        self.0.drain(..begin);
        if self.0.len() > LINE_MAX {
            emit(&self.0, line);
            self.0.clear();
        }
    }

    fn finish(&mut self, line: &mut impl FnMut(&str)) {
        if !self.0.is_empty() {
            emit(&self.0, line);
            self.0.clear();
        }
    }
}

fn emit(bytes: &[u8], line: &mut impl FnMut(&str)) {
    line(&String::from_utf8_lossy(
        bytes.strip_suffix(b"\r").unwrap_or(bytes),
    ));
}

/// The program and arguments of a shell for a script file, as GitHub's runner has them. Unset: bash where there is one, else sh.
pub(crate) fn shell(
    name: Option<&str>,
    script: &Path,
    path: &str,
) -> Result<(String, Vec<String>), String> {
    let script = script.display().to_string();
    let words = |template: &str| -> Vec<String> {
        template
            .split_whitespace()
            .map(|word| word.replace("{0}", &script))
            .collect()
    };
    let has_bash = || {
        path.split(':')
            .any(|folder| Path::new(folder).join("bash").is_file())
    };
    let mut all = match name {
        None if has_bash() => words("bash -e {0}"),
        None => words("sh -e {0}"),
        Some("bash") => words("bash --noprofile --norc -e -o pipefail {0}"),
        Some("sh") => words("sh -e {0}"),
        Some("python") => words("python {0}")
            .into_iter()
            .map(|word| if word == "python" { python(path) } else { word })
            .collect(),
        Some("pwsh") => vec![
            "pwsh".to_owned(),
            "-command".to_owned(),
            format!(". '{script}'"),
        ],
        Some(custom) if custom.contains("{0}") => words(custom),
        Some(unknown) => {
            return Err(format!(
                "the shell {unknown:?} is not known; there are bash, sh, python, pwsh, or a command with {{0}} for the script"
            ));
        }
    };
    let program = all.remove(0);
    Ok((program, all))
}

/// `python`, or `python3` where only that is there.
fn python(path: &str) -> String {
    let has = |name: &str| {
        path.split(':')
            .any(|folder| Path::new(folder).join(name).is_file())
    };
    if has("python") {
        "python".to_owned()
    } else {
        "python3".to_owned()
    }
}

/// The ending that a shell expects of its scripts.
pub(crate) fn extension(shell: Option<&str>) -> &'static str {
    match shell {
        Some("python") => "py",
        Some("pwsh") => "ps1",
        _ => "sh",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_githubs() {
        let of = |name| {
            shell(name, Path::new("/t/s.sh"), "/usr/bin:/bin")
                .map(|(program, arguments)| format!("{program} {}", arguments.join(" ")))
        };
        assert_eq!(
            of(Some("bash")).unwrap(),
            "bash --noprofile --norc -e -o pipefail /t/s.sh"
        );
        assert_eq!(of(None).unwrap(), "bash -e /t/s.sh");
        assert_eq!(of(Some("perl {0} x")).unwrap(), "perl /t/s.sh x");
        assert!(of(Some("fish")).unwrap_err().contains("{0}"));
    }

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let mut got = Vec::new();
        let mut lines = Lines::default();
        for chunk in ["a", "b\r\nc", "\n", "d"] {
            lines.push(chunk.as_bytes(), &mut |line: &str| {
                got.push(line.to_owned())
            });
        }
        lines.finish(&mut |line: &str| got.push(line.to_owned()));
        assert_eq!(got, ["ab", "c", "d"]);
    }
}
