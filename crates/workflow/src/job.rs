//! The contract between whoever starts a job and the worker process that runs it: what the worker is given, and what it
//! writes into its journal. Plain JSON, and it only ever grows.
//!
//! A job spec holds secrets: it is handed over as a file that only the worker's user can read, never logged, and its
//! `Debug` leaves them out.

use std::{fmt, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    expr::{Template, Value},
    model::{Container, RunDefaults, Step, Table},
    report::{Paths, StoredReport},
};

/// Variables of the server's environment that steps get too: behind a company's proxy nothing can be fetched without them.
pub const NETWORK: [&str; 13] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
];

/// Variables of the server's environment that lead to a container engine: for what a job's containers need, and for steps that
/// use the engine themselves.
pub const ENGINE: [&str; 7] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_API_VERSION",
    "CONTAINER_HOST",
];

/// Characters that a key may have: it is a file's name, and more may be hung on it.
pub(crate) const KEY_MAX: usize = 200;

/// A job's name within its run: `test`, `test.3` for the third of a matrix, `release.2~build` for the job `build` of the
/// workflow that the second of `release` calls. Safe as a file name and in an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobKey(String);

/// A text that can't be a job's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the key of a job, such as test, test.3 or release~test; it has at most {KEY_MAX} characters"
)]
pub struct ParseJobKeyError(String);

impl JobKey {
    /// The key of the job `id` alone, or of the cell `cell` (from 0) of its matrix.
    ///
    /// Ids hold letters, digits, `-` and `_` only (the parser refuses others), so the dot makes no two keys equal.
    #[must_use]
    pub fn new(id: &str, cell: Option<usize>) -> Self {
        match cell {
            None => Self(id.to_owned()),
            Some(cell) => Self(format!("{id}.{}", cell + 1)),
        }
    }

    /// The key of a job of the workflow that the job of this key calls. Ids nested deeply can be too long for one.
    pub fn inside(&self, id: &str, cell: Option<usize>) -> Result<Self, ParseJobKeyError> {
        format!("{self}~{}", Self::new(id, cell)).parse()
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the job in its own workflow: without those that call it, and without the cell.
    #[must_use]
    pub fn job_id(&self) -> &str {
        let last = self.0.rsplit('~').next().unwrap_or_default();
        last.split('.').next().unwrap_or_default()
    }

    /// The keys of the jobs whose calls lead here, the outermost first.
    pub fn callers(&self) -> impl Iterator<Item = Self> {
        self.0
            .match_indices('~')
            .map(|(at, _)| Self(self.0[..at].to_owned()))
    }
}

impl std::str::FromStr for JobKey {
    type Err = ParseJobKeyError;

    fn from_str(text: &str) -> Result<Self, ParseJobKeyError> {
        if text.len() <= KEY_MAX && text.split('~').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseJobKeyError(text.chars().take(80).collect()))
        }
    }
}

/// `test` or `test.3`
fn is_segment(text: &str) -> bool {
    let (id, cell) = text
        .split_once('.')
        .map_or((text, None), |(id, cell)| (id, Some(cell)));
    is_identifier(id)
        && cell.is_none_or(|cell| {
            !cell.is_empty() && cell.len() <= 6 && cell.bytes().all(|b| b.is_ascii_digit())
        })
}

impl TryFrom<String> for JobKey {
    type Error = ParseJobKeyError;

    fn try_from(text: String) -> Result<Self, ParseJobKeyError> {
        text.parse()
    }
}

impl From<JobKey> for String {
    fn from(key: JobKey) -> Self {
        key.0
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether `text` may be the id of a job, a step, an input or an output: a letter or `_`, then letters, digits, `-` and `_`;
/// at most 100 of them.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// All that a worker needs to run one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Which job of the run.
    pub key: JobKey,
    /// Its id in the workflow: `GITHUB_JOB`.
    pub job_id: String,
    /// What people call it: `test (3.11, ubuntu)`.
    pub name: String,
    /// Its place in its matrix, from 0; 0 without one.
    pub matrix_index: usize,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Environment variables, outermost first: the workflow's, then the job's. Later layers win.
    pub env: Vec<Table>,
    /// `defaults.run`: the job's, and where it says nothing the workflow's.
    pub defaults: RunDefaults,
    /// What later jobs see of it; asked after the last step.
    pub outputs: Table,
    /// The address of the environment it goes to; asked after the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_url: Option<Template>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// What its expressions see from the beginning. `env`, `steps`, `job` and `runner` are the worker's to add.
    pub contexts: JobContexts,
    /// What `actions/checkout` gives.
    pub source: SourceTree,
    /// What `actions/download-artifact` finds.
    pub artifacts: Vec<StoredArtifact>,
    /// Where the caches of its service are; none: it has nowhere to keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caches: Option<PathBuf>,
    /// Where to report to besides the journal; none for a run without a server.
    pub server: Option<ServerAccess>,
    /// Where reports of tests are looked for.
    #[serde(default, skip_serializing_if = "Paths::is_default")]
    pub reports: Paths,
    /// The job's own folder: workspace, temporary files, logs and journal are below it.
    pub folder: PathBuf,
    /// The container its steps run in.
    #[serde(default)]
    pub container: Option<Container>,
    /// Containers that run beside it, by the names they have on its network.
    #[serde(default)]
    pub services: Vec<(String, Container)>,
    /// What becomes of what needs a container where there is no engine.
    #[serde(default)]
    pub without_engine: WithoutEngine,
    /// Where actions of repositories come from.
    #[serde(default)]
    pub actions: ActionSource,
    /// What it may use.
    #[serde(default, skip_serializing_if = "JobLimits::is_none")]
    pub limits: JobLimits,
    /// What it goes on from; none: it begins at its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// What a job, with all that it starts, may use together; what isn't said has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobLimits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes, with their threads.
    pub processes: Option<u32>,
    /// The control groups that enforce them, for the worker to step into. Containers get the limits by their engine.
    pub groups: Vec<PathBuf>,
}

impl JobLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A job goes on where an earlier attempt at it failed: in that one's workspace, with what its steps have left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The folder of the earlier attempt.
    pub folder: PathBuf,
    /// Which attempt that was, from 1.
    pub attempt: u32,
    /// The id of the step to begin at. No place in the journal: what actions do before the first step has places there, too.
    pub step: String,
}

/// Where actions come from that aren't in the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActionSource {
    /// The address of a forge, or a folder that holds bare repositories as `owner/repo` or `owner/repo.git`.
    pub forge: String,
    /// A file with what a private forge wants to know: a token, or `name:token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Where those that were fetched are kept, for all workers of this machine; none: in the job's folder.
    pub cache: Option<PathBuf>,
    /// Whether GitHub's own actions that have a built-in equivalent are built in.
    pub built_in: bool,
}

impl ActionSource {
    /// The forge when nobody names another.
    pub const FORGE: &str = "https://github.com";
}

impl Default for ActionSource {
    fn default() -> Self {
        Self {
            forge: Self::FORGE.to_owned(),
            token_file: None,
            cache: None,
            built_in: true,
        }
    }
}

/// What becomes of jobs and steps that need a container where there is no engine to run it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutEngine {
    /// They fail: on a server somebody must see to it.
    #[default]
    Refuse,
    /// They are skipped, and it is said why.
    LeaveOut,
}

/// The contexts that are known before a job starts.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobContexts {
    /// `github`
    pub github: Value,
    /// `vars`
    pub vars: Value,
    /// `secrets`: an object of texts; each is masked wherever it would appear.
    pub secrets: Value,
    /// `needs`
    pub needs: Value,
    /// `strategy`
    pub strategy: Value,
    /// `matrix`
    pub matrix: Value,
    /// `inputs`
    pub inputs: Value,
}

impl JobContexts {
    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        [
            ("github", &self.github),
            ("vars", &self.vars),
            ("secrets", &self.secrets),
            ("needs", &self.needs),
            ("strategy", &self.strategy),
            ("matrix", &self.matrix),
            ("inputs", &self.inputs),
        ]
        .into_iter()
    }
}

impl fmt::Debug for JobContexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().filter(|(name, _)| *name != "secrets");
        f.debug_map().entries(shown).finish()
    }
}

/// Where the commit's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceTree {
    /// A commit of a repository on this machine.
    Git {
        /// The repository's git directory.
        git_dir: PathBuf,
        /// The commit.
        commit: String,
        /// The full name of the ref: `refs/heads/main`.
        #[serde(rename = "ref")]
        reference: String,
    },
    /// A folder as it is, for runs without a server.
    Directory {
        /// The folder.
        path: PathBuf,
    },
}

/// An artifact that an earlier job of the run stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// Its name.
    pub name: String,
    /// `sha256:…` of the file at `path`.
    pub digest: String,
    /// The tar file that holds it.
    pub path: PathBuf,
}

/// How a worker reaches the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAccess {
    /// Its address: `http://127.0.0.1:7878`.
    pub url: String,
    /// The bearer token for this job; masked.
    pub token: String,
}

impl fmt::Debug for ServerAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAccess")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// How a step or a job ended, in GitHub's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// It did what it should.
    Success,
    /// It didn't.
    Failure,
    /// It was stopped from outside, or ran out of the job's time.
    Cancelled,
    /// Its condition said no.
    Skipped,
}

impl Conclusion {
    /// `success`, `failure`, `cancelled`, `skipped`: what `needs.x.result` and `steps.x.outcome` say.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line of a job's journal. Lines are numbered from 1 without gaps and synced to disk before the job goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub body: JournalBody,
}

/// What happened in a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalBody {
    /// The worker runs.
    Started {
        /// Its process.
        pid: u32,
        /// When that process started, in clock ticks since boot: with the pid, it names the process for good.
        start_time: u64,
    },
    /// The job goes on from an earlier attempt. The steps that were done there follow.
    Resumed {
        /// Which attempt, from 1.
        attempt: u32,
        /// The id of the step that it begins at.
        step: String,
        /// The folder of the attempt whose workspace, home and temporary files it works in.
        base: PathBuf,
    },
    /// A step begins.
    StepStarted {
        /// Its place in the job, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// What people call it, expressions resolved.
        name: String,
        /// Where its output begins in the job's log, in bytes.
        log_offset: u64,
    },
    /// A step is over.
    StepFinished {
        /// Its place in the job, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// How it ended.
        outcome: Conclusion,
        /// What that means for the job: `continue-on-error` turns a failure into a success.
        conclusion: Conclusion,
        /// What later steps see of it; no secrets.
        outputs: Vec<(String, String)>,
        /// How long it took.
        took_ms: u64,
        /// Where its output ends in the job's log, in bytes.
        log_offset: u64,
        /// Whether it wrote a summary.
        #[serde(default)]
        summary: bool,
        /// How many annotations it made.
        #[serde(default)]
        annotations: u32,
        /// Why, when it didn't succeed: `exit code 2`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// Whether it left something to later steps that isn't for the journal: it is in a private file beside it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
        /// When it ran, when that was in an earlier attempt at the job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        earlier: Option<Earlier>,
    },
    /// Something to look at.
    Annotation {
        /// How bad it is.
        level: Level,
        /// What it says, masked.
        message: String,
        /// The file meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        /// The line in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u32>,
        /// The last line meant, when there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_line: Option<u32>,
        /// The column in that line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        column: Option<u32>,
        /// The last column meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end_column: Option<u32>,
        /// Its headline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    /// An artifact is there to be stored.
    ArtifactSaved {
        /// Its name.
        name: String,
        /// The tar file that holds it.
        path: PathBuf,
        /// `sha256:…` of that file.
        digest: String,
        /// Its length in bytes.
        size: u64,
    },
    /// Tests have reported; at most once, after the last step.
    Reports(Box<StoredReport>),
    /// A step asked for a deployment (`shipway/deploy`).
    DeployAsked {
        /// Where to.
        environment: String,
        /// Which artifact, by name; none: the run's only one.
        artifact: Option<String>,
        /// The rollout that came of it, when the server has answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<String>,
    },
    /// Where the environment that the job went to is reached, as `environment.url` says; masked.
    EnvironmentUrl {
        /// The address.
        url: String,
    },
    /// The job is over; always the last line.
    Finished {
        /// How it ended.
        conclusion: Conclusion,
        /// What later jobs see of it; no secrets.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
}

/// When a step ran that was done in an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Which attempt at the job, from 1.
    pub attempt: u32,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// How bad an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For those who debug.
    Debug,
    /// For information.
    Notice,
    /// Something to mind.
    Warning,
    /// Something is wrong.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_as_file_names() {
        assert_eq!(JobKey::new("test", Some(2)).as_str(), "test.3");
        assert_eq!(
            "test.3"
                .parse::<JobKey>()
                .map(|key| key.job_id().to_owned()),
            Ok("test".to_owned())
        );
        for bad in [
            "", ".", "..", "../x", "a/b", "test.", "test.x", "test.1.2", "-a", "a b", "~", "a~",
            "~a", "a~..", "a~~b",
        ] {
            assert!(bad.parse::<JobKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_name_the_calls_that_lead_to_a_job() {
        let key = JobKey::new("release", Some(1))
            .inside("build", None)
            .unwrap();
        let key = key.inside("test", Some(2)).unwrap();
        assert_eq!(key.as_str(), "release.2~build~test.3");
        assert_eq!(key.as_str().parse(), Ok(key.clone()));
        assert_eq!(key.job_id(), "test");
        let callers: Vec<String> = key.callers().map(|key| key.to_string()).collect();
        assert_eq!(callers, ["release.2", "release.2~build"]);
        assert_eq!(JobKey::new("a", None).callers().count(), 0);
        let long = JobKey::new(&"a".repeat(100), None);
        assert!(long.inside(&"b".repeat(100), None).is_err());
    }

    #[test]
    fn debug_output_holds_no_secrets() {
        let contexts = JobContexts {
            secrets: Value::object([("TOKEN", Value::from("hunter2"))]),
            ..JobContexts::default()
        };
        assert!(!format!("{contexts:?}").contains("hunter2"));
        let access = ServerAccess {
            url: "http://here".to_owned(),
            token: "hunter2".to_owned(),
        };
        assert!(!format!("{access:?}").contains("hunter2"));
    }
}
