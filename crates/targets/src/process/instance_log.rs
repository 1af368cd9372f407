//! The log of an instance: its raw output in files of bounded size. A full disk loses lines but never stops the instance.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;
use shipway_core::run::find_error_line;

/// The current file; older ones are `log.1`, `log.2`.
pub(super) const LOG: &str = "log";
/// Prefix of lines written by Shipway.
const NOTE_PREFIX: &str = "shipway: ";
/// Size at which a file is rotated.
const BYTES_MAX: u64 = 10 << 20;
/// Number of rotated files.
const ROTATED_MAX: u32 = 2;
/// Bytes at the end that are searched for the last lines.
const END_BYTES: u64 = 8 << 10;
/// Longest quoted line.
const QUOTED_CHARS: usize = 200;

/// Writes the log.
pub(super) struct InstanceLog {
    path: PathBuf,
    file: File,
    size: u64,
    bytes_max: u64,
    lost: u64,
}

impl InstanceLog {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            bytes_max: BYTES_MAX,
            lost: 0,
        })
    }

    /// Writes output of the instance, or drops and counts it.
    pub(super) fn write_output(&mut self, bytes: &[u8]) {
        if self.size >= self.bytes_max {
            self.rotate();
        }
        if self.lost > 0 && self.report_lost_bytes().is_err() {
            self.lost += bytes.len() as u64;
            return;
        }
        if let Err(rest) = self.append(bytes) {
            self.lost += rest;
        }
    }

    /// Writes a line of Shipway's own.
    pub(super) fn write_note(&mut self, text: &str) {
        self.write_output(format!("{NOTE_PREFIX}{text}\n").as_bytes());
    }

    fn report_lost_bytes(&mut self) -> Result<(), u64> {
        let lost = self.lost;
        self.append(
            format!("\n{NOTE_PREFIX}{lost} bytes are missing here, the disk was full\n").as_bytes(),
        )?;
        self.lost = 0;
        Ok(())
    }

    /// The error is the number of bytes that were not written.
    fn append(&mut self, bytes: &[u8]) -> Result<(), u64> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(rest.len() as u64),
                Ok(count) => {
                    self.size += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(rest.len() as u64),
            }
        }
        Ok(())
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..ROTATED_MAX).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let renamed = fs::rename(&self.path, numbered(1));
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        match (renamed, opened) {
            (Ok(()), Ok(file)) => self.file = file,
            // Disk full: keep using the old file, as far as it can grow.
            (Ok(()), Err(_)) => drop(fs::rename(numbered(1), &self.path)),
            (Err(_), _) => {}
        }
        self.size = 0;
    }
}

/// The last lines of the current run, oldest first, each shortened.
pub(super) fn last_log_lines(path: &Path, lines: usize) -> Vec<String> {
    let end = read_end(path).unwrap_or_default();
    shorten_lines(current_run(&end).into_iter().rev().take(lines))
}

/// The lines of the current run that say why it exited, oldest first, each shortened: its last lines without stack frames, or the
/// line that names the error if that is not among them.
pub(super) fn exit_reason_lines(path: &Path, lines: usize) -> Vec<String> {
    let end = read_end(path).unwrap_or_default();
    let run = current_run(&end);
    let error = find_error_line(&run.join("\n"));
    let told = without_stack_frames(&run);
    let last = &told[told.len().saturating_sub(lines)..];
    match error.filter(|error| !last.iter().any(|line| line.contains(error.as_str()))) {
        Some(error) => shorten_lines([error.as_str()].into_iter()),
        None => shorten_lines(last.iter().rev().copied()),
    }
}

fn without_stack_frames<'l>(run: &[&'l str]) -> Vec<&'l str> {
    let mut told = Vec::new();
    let mut is_source = false;
    for line in run {
        // Python quotes the source below each frame.
        let is_quoted = is_source && line.starts_with("    ");
        is_source = line.trim_start().starts_with("File \"") || is_quoted;
        if !is_quoted && !STACK_FRAME.is_match(line) {
            told.push(*line);
        }
    }
    told
}

/// The lines of the current run that are not empty.
fn current_run(end: &str) -> Vec<&str> {
    let lines: Vec<&str> = end.lines().collect();
    let begin = lines.iter().rposition(|line| line.starts_with(STARTED));
    let run = &lines[begin.map_or(0, |at| at + 1)..];
    run.iter()
        .copied()
        .filter(|line| !line.trim().is_empty())
        .collect()
}

/// Reverses lines and shortens each.
fn shorten_lines<'l>(newest_first: impl Iterator<Item = &'l str>) -> Vec<String> {
    let shorten = |line: &str| line.trim().chars().take(QUOTED_CHARS).collect();
    let mut lines: Vec<String> = newest_first.map(shorten).collect();
    lines.reverse();
    lines
}

/// Lines of stack traces: of Python, JavaScript, Java, Ruby, Go, Rust and PHP.
static STACK_FRAME: LazyLock<Regex> = LazyLock::new(|| {
    let looks = [
        r#"^\s+File ".*", line \d+"#,
        r"^Traceback \(most recent call last\):",
        r"^\s+[~^]+\s*$|^\s*[\])}]+[,;]?\s*$",
        r"^\s+at ",
        r"^\s+from .*:\d+:in ",
        r"^\s+\.\.\. \d+ (more|levels)",
        r"^goroutine \d+ |^created by |^\s+.*\.go:\d+|^[\w./()*]+\(.*\)$",
        r"^\s*\d+: .*::|^stack backtrace:|^note: (run with|Some details)",
        r"^#\d+ ",
        r"^Node\.js v\d+",
        r"^node:internal/|^\s*throw ",
    ];
    Regex::new(&looks.join("|")).expect("a fixed pattern")
});

/// Start of the line that begins a run.
const STARTED: &str = "shipway: started ";

/// The note at the start of a run.
pub(super) fn started_line(what: &str) -> String {
    format!("started {what}")
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        log.bytes_max = 2;
        for round in b'0'..b'4' {
            log.write_output(&[round, b'\n']);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("log"), read("log.1"), read("log.2")),
            ("3\n".into(), "2\n".into(), "1\n".into())
        );
        assert!(!folder.path().join("log.3").exists());
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_said_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        let good = std::mem::replace(
            &mut log.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        log.write_output(b"lost\n");
        log.write_output(b"lost too\n");
        log.file = good;
        log.write_output(b"there again\n");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "\nshipway: 14 bytes are missing here, the disk was full\nthere again\n"
        );
    }

    #[test]
    fn an_exit_is_told_by_its_error_and_not_by_where_it_happened() {
        for (log, wanted) in [
            (
                "starting\nTraceback (most recent call last):\n  File \"/w/app.py\", line 9, in <module>\n    main()\n    ~~~~^^\n  File \"/w/app.py\", line 4, in main\n    raise LookupError(\"no till\")\nLookupError: no till\n",
                "starting | LookupError: no till",
            ),
            (
                "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module 'koa'\nRequire stack:\n- /w/server.js\n    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)\n    at node:internal/main/run_main_module:28:49 {\n  code: 'MODULE_NOT_FOUND',\n  requireStack: [ '/w/server.js' ]\n}\n\nNode.js v20.20.2\n",
                "Error: Cannot find module 'koa'",
            ),
            (
                "panic: assignment to entry in nil map\n\ngoroutine 1 [running]:\nmain.main()\n\t/w/main.go:7 +0x3c\nexit status 2\n",
                "panic: assignment to entry in nil map | exit status 2",
            ),
            (
                "Exception in thread \"main\" java.lang.IllegalStateException: no port\n\tat shop.Main.main(Main.java:5)\n",
                "Exception in thread \"main\" java.lang.IllegalStateException: no port",
            ),
            (
                "thread 'main' panicked at src/main.rs:3:5:\nDATABASE_URL is not set\nstack backtrace:\n   0: std::panicking::begin_panic\n             at /rustc/std/src/panicking.rs:1:2\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
                "thread 'main' panicked at src/main.rs:3:5: | DATABASE_URL is not set",
            ),
            (
                "/w/app.rb:2:in `open': no such table (Shop::Error)\n\tfrom /w/app.rb:2:in `<main>'\n",
                "/w/app.rb:2:in `open': no such table (Shop::Error)",
            ),
            ("one\ntwo\nthree\nfour\n", "two | three | four"),
            ("", ""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(LOG);
            fs::write(
                &path,
                format!("an Error: of an earlier run\n{STARTED}x\n{log}"),
            )
            .unwrap();
            assert_eq!(exit_reason_lines(&path, 3).join(" | "), wanted);
        }
    }

    #[test]
    fn last_words_are_of_this_run_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        assert!(last_log_lines(&path, 3).is_empty());
        log.write_note(&started_line("a"));
        log.write_output(b"old\n");
        log.write_note(&started_line("b"));
        assert!(last_log_lines(&path, 3).is_empty());
        log.write_output(b"one\n\n two \nthree\nunfinished");
        assert_eq!(last_log_lines(&path, 3), ["two", "three", "unfinished"]);
    }
}
