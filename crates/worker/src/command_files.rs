//! The command files of a step (`GITHUB_OUTPUT`, `GITHUB_ENV`, …): created for each step, and read even if it failed.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    command_file_parser,
    environment::{COMMANDS, EnvVars},
};

/// GitHub's limit.
const SUMMARY_BYTES_MAX: u64 = 1 << 20;
/// Limit for each of the other files.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Suffix of a file that no step has written to: the next step reuses it. Most steps write none of the five files,
/// and creating files can dominate the run time of a short step on a file system with many recent deletions.
const SPARE: &str = "spare";

pub(crate) struct CommandFiles {
    output: PathBuf,
    env: PathBuf,
    path: PathBuf,
    state: PathBuf,
    summary: PathBuf,
}

/// What to do with files that the step hasn't written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnusedFiles {
    /// A process may still have them open, and its late writes must not reach the next step.
    Remove,
    /// The next step gets them.
    Reuse,
}

/// The parsed contents of a step's command files.
#[derive(Debug, Default)]
pub(crate) struct CommandFileValues {
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) state: Vec<(String, String)>,
    pub(crate) paths: Vec<String>,
    /// Markdown.
    pub(crate) summary: Option<String>,
    /// Problems that are reported and don't fail the step.
    pub(crate) warnings: Vec<String>,
    /// The first problem that fails the step.
    pub(crate) error_message: Option<String>,
}

impl CommandFiles {
    pub(crate) fn create(temp: &Path, index: usize) -> io::Result<Self> {
        // Separate folder, so that it can be mounted into container actions.
        let folder = temp.join(COMMANDS);
        fs::create_dir_all(&folder)?;
        let file = |name: &str| {
            let path = folder.join(format!("{name}-{index}"));
            let _ = fs::rename(folder.join(format!("{name}-{SPARE}")), &path);
            // Creates the file, or truncates a reused one that a late process has written to.
            File::create(&path).map(|_| path)
        };
        Ok(Self {
            output: file("output")?,
            env: file("env")?,
            path: file("path")?,
            state: file("state")?,
            summary: file("summary")?,
        })
    }

    /// Adds the variables that hold the paths of the files.
    pub(crate) fn set_variables(&self, env: &mut EnvVars) {
        for (name, path) in [
            ("GITHUB_OUTPUT", &self.output),
            ("GITHUB_ENV", &self.env),
            ("GITHUB_PATH", &self.path),
            ("GITHUB_STATE", &self.state),
            ("GITHUB_STEP_SUMMARY", &self.summary),
        ] {
            env.set(name, path.display().to_string());
        }
    }

    /// Reads the files and removes them, except those that the next step may reuse.
    pub(crate) fn collect(self, unwritten: UnusedFiles) -> CommandFileValues {
        let mut written = CommandFileValues::default();
        written.outputs = written.read_pairs("GITHUB_OUTPUT", &self.output);
        written.env = written.read_pairs("GITHUB_ENV", &self.env);
        written.state = written.read_pairs("GITHUB_STATE", &self.state);
        if let Some(name) = find_blocked_name(&written.env) {
            written.set_error(format!("GITHUB_ENV: {name} can't be set for later steps"));
            written
                .env
                .retain(|(name, _)| as_blocked_name(name).is_none());
        }
        if let Some(text) = written.read_text("GITHUB_PATH", &self.path) {
            let lines = text.lines().filter(|line| !line.is_empty());
            written.paths = lines.map(str::to_owned).collect();
        }
        match fs::metadata(&self.summary).map_or(0, |found| found.len()) {
            0 => {}
            size if size > SUMMARY_BYTES_MAX => written.warnings.push(format!(
                "GITHUB_STEP_SUMMARY is dropped: it has {size} bytes, the limit is {SUMMARY_BYTES_MAX}"
            )),
            _ => written.summary = written.read_text("GITHUB_STEP_SUMMARY", &self.summary),
        }
        for (name, path) in [
            ("output", self.output),
            ("env", self.env),
            ("path", self.path),
            ("state", self.state),
            ("summary", self.summary),
        ] {
            let unused = unwritten == UnusedFiles::Reuse
                && fs::symlink_metadata(&path).is_ok_and(|it| it.is_file() && it.len() == 0);
            let spared =
                unused && fs::rename(&path, path.with_file_name(format!("{name}-{SPARE}"))).is_ok();
            if !spared {
                // The step may have removed the file itself.
                let _ = fs::remove_file(path);
            }
        }
        written
    }
}

impl CommandFileValues {
    fn read_pairs(&mut self, name: &str, path: &Path) -> Vec<(String, String)> {
        let text = self.read_text(name, path).unwrap_or_default();
        let (pairs, result) = command_file_parser::parse_pairs(&text);
        if let Err(why) = result {
            self.set_error(format!("{name}: {why}"));
        }
        pairs
    }

    /// The text of a file; `None` if the step removed it.
    fn read_text(&mut self, name: &str, path: &Path) -> Option<String> {
        let file = File::open(path).ok()?;
        let mut bytes = Vec::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        match read {
            Ok(count) if count as u64 <= FILE_BYTES_MAX => {
                let text = String::from_utf8_lossy(&bytes);
                // PowerShell writes a byte order mark.
                Some(text.trim_start_matches('\u{feff}').to_owned())
            }
            Ok(_) => {
                self.set_error(format!("{name}: more than {FILE_BYTES_MAX} bytes"));
                None
            }
            Err(error) => {
                self.set_error(format!("{name}: {error}"));
                None
            }
        }
    }

    fn set_error(&mut self, why: String) {
        self.error_message.get_or_insert(why);
    }
}

/// Variables with which a step could inject code into later steps.
fn as_blocked_name(name: &str) -> Option<&str> {
    name.eq_ignore_ascii_case("NODE_OPTIONS").then_some(name)
}

fn find_blocked_name(env: &[(String, String)]) -> Option<&str> {
    env.iter().find_map(|(name, _)| as_blocked_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fill: impl Fn(&CommandFiles)) -> CommandFileValues {
        let folder = tempfile::tempdir().unwrap();
        let channel = CommandFiles::create(folder.path(), 0).unwrap();
        fill(&channel);
        let written = channel.collect(UnusedFiles::Reuse);
        // Written files are removed, unused ones stay for the next step.
        for left in fs::read_dir(folder.path().join(COMMANDS)).unwrap() {
            assert_eq!(left.unwrap().metadata().unwrap().len(), 0);
        }
        written
    }

    #[test]
    fn the_next_step_gets_the_files_that_nobody_wrote_to_empty() {
        let folder = tempfile::tempdir().unwrap();
        let first = CommandFiles::create(folder.path(), 0).unwrap();
        fs::write(&first.env, "A=1\n").unwrap();
        first.collect(UnusedFiles::Reuse);
        let spare = folder.path().join(COMMANDS).join("output-spare");
        fs::write(&spare, "b=2\n").unwrap();
        let next = CommandFiles::create(folder.path(), 1).unwrap();
        assert!(!spare.exists());
        let written = next.collect(UnusedFiles::Remove);
        assert_eq!((written.outputs, written.env), (vec![], vec![]));
        assert_eq!(
            fs::read_dir(folder.path().join(COMMANDS)).unwrap().count(),
            0
        );
    }

    #[test]
    fn what_a_step_writes_is_read() {
        let written = written(|channel| {
            fs::write(&channel.output, "\u{feff}a=1\n").unwrap();
            fs::write(&channel.env, "B=2\n").unwrap();
            fs::write(&channel.path, "/x\n\n/y\n").unwrap();
            fs::write(&channel.summary, "# fine").unwrap();
            fs::remove_file(&channel.state).unwrap();
        });
        assert_eq!(written.outputs, [("a".to_owned(), "1".to_owned())]);
        assert_eq!(written.env, [("B".to_owned(), "2".to_owned())]);
        assert_eq!(written.paths, ["/x", "/y"]);
        assert_eq!(written.summary.as_deref(), Some("# fine"));
        assert_eq!(written.error_message, None);
    }

    #[test]
    fn node_options_are_refused_and_the_rest_counts() {
        let written = written(|channel| fs::write(&channel.env, "A=1\nnode_options=x\n").unwrap());
        assert_eq!(written.env, [("A".to_owned(), "1".to_owned())]);
        assert!(written.error_message.unwrap().contains("node_options"));
    }

    #[test]
    fn a_summary_that_is_too_long_is_left_out_and_told() {
        let long = vec![b'x'; SUMMARY_BYTES_MAX as usize + 1];
        let written = written(|channel| fs::write(&channel.summary, &long).unwrap());
        assert_eq!((written.summary, written.error_message), (None, None));
        assert_eq!(written.warnings.len(), 1);
    }
}
