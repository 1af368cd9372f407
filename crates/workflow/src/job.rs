//! The contract between the server or `shipway run` and the worker process of a job: the job's specification and the
//! entries of its journal. Plain JSON; fields are only ever added.
//!
//! A job spec holds secrets: it is handed over as a file that only the worker's user can read, never logged, and its
//! `Debug` leaves them out.

mod journal;
mod key;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use self::key::KEY_MAX;
pub use self::{
    journal::{AnnotationLevel, EarlierStepRun, JournalBody, JournalEntry},
    key::{JobKey, ParseJobKeyError, is_identifier},
};
use crate::{
    expr::{ExprValue, Template},
    model::{ContainerDefinition, RunDefaults, TemplateTable, WorkflowStep},
    report::ReportPaths,
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

/// All that a worker needs to run one job. It refers to the source by commit, to artifacts by digest and to an earlier attempt by
/// number. Only [`JobSpec::mounts`] has paths of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Which job of the run.
    pub key: JobKey,
    /// Its id in the workflow: `GITHUB_JOB`.
    pub job_id: String,
    /// Its display name: `test (3.11, ubuntu)`.
    pub name: String,
    /// Its place in its matrix, from 0; 0 without one.
    pub matrix_index: usize,
    /// What it does, in order.
    pub steps: Vec<WorkflowStep>,
    /// Environment variables, outermost first: the workflow's, then the job's. Later layers win.
    pub env: Vec<TemplateTable>,
    /// `defaults.run` of the job, completed by the workflow's.
    pub defaults: RunDefaults,
    /// What later jobs see of it; asked after the last step.
    pub outputs: TemplateTable,
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
    /// The server to report to in addition to the journal; `None` for a run without a server.
    pub server: Option<ServerAccess>,
    /// Where reports of tests are looked for.
    #[serde(default, skip_serializing_if = "ReportPaths::is_default")]
    pub reports: ReportPaths,
    /// The container its steps run in.
    #[serde(default)]
    pub container: Option<ContainerDefinition>,
    /// Service containers, by their names on the job's network.
    #[serde(default)]
    pub services: Vec<(String, ContainerDefinition)>,
    /// What becomes of what needs a container where there is no engine.
    #[serde(default)]
    pub without_engine: WithoutEngine,
    /// Where actions of repositories come from.
    #[serde(default)]
    pub actions: ActionSource,
    /// What it may use.
    #[serde(default, skip_serializing_if = "JobResources::is_none")]
    pub limits: JobResources,
    /// The attempt that it resumes; `None`: it starts at its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumePoint>,
    /// How its worker gets the source and the artifacts.
    #[serde(default, skip_serializing_if = "InputDelivery::is_mounted")]
    pub delivery: InputDelivery,
    /// Where the machine that runs it has all this.
    #[serde(default)]
    pub mounts: JobMounts,
}

/// How the worker of a job gets what the job's spec refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputDelivery {
    /// From [`JobSpec::mounts`].
    #[default]
    Mounted,
    /// From the server, with the job's token; its records go back the same way.
    Fetched,
}

impl InputDelivery {
    const fn is_mounted(&self) -> bool {
        matches!(self, Self::Mounted)
    }
}

/// Where the machine that runs a job has what the job's spec refers to. The executor of the job fills it in; it is empty in a spec
/// on its way there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobMounts {
    /// The job's own folder: workspace, temporary files, logs and journal are below it.
    pub folder: PathBuf,
    /// The git directory of the repository, or the folder of [`SourceTree::Directory`].
    pub source: PathBuf,
    /// The tar files of the artifacts, by digest.
    pub artifacts: BTreeMap<String, PathBuf>,
    /// The caches of the service; `None`: the machine keeps no caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caches: Option<PathBuf>,
    /// The folder of the attempt that the job resumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<PathBuf>,
    /// Files and folders of the server that the job must not see, except for its own below them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<PathBuf>,
}

/// What a job, with all that it starts, may use together; what isn't said has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobResources {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes, with their threads.
    pub processes: Option<u32>,
    /// The control groups that enforce them, for the worker to step into. Containers get the limits by their engine.
    pub groups: Vec<PathBuf>,
}

impl JobResources {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A job resumes where an earlier attempt failed, in that attempt's workspace and with its step outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
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
    /// The cache of fetched actions for all workers of this machine; `None`: the job's folder.
    pub cache: Option<PathBuf>,
    /// Whether GitHub's own actions that have a built-in equivalent are built in.
    pub built_in: bool,
    /// Whether `actions/setup-*` may use the machine's version of a tool when the workflow asks for another one.
    pub allow_other_versions: bool,
}

impl ActionSource {
    /// The default forge.
    pub const FORGE: &str = "https://github.com";

    /// The source without files of this machine, which the executor of a job adds where the job runs.
    #[must_use]
    pub fn without_local_files(&self) -> Self {
        Self {
            token_file: None,
            cache: None,
            ..self.clone()
        }
    }

    /// The source with the files that `local` names.
    #[must_use]
    pub fn with_local_files(self, local: &Self) -> Self {
        Self {
            token_file: local.token_file.clone(),
            cache: local.cache.clone(),
            ..self
        }
    }
}

impl Default for ActionSource {
    fn default() -> Self {
        Self {
            forge: Self::FORGE.to_owned(),
            token_file: None,
            cache: None,
            built_in: true,
            allow_other_versions: false,
        }
    }
}

/// What becomes of jobs and steps that need a container where there is no engine to run it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutEngine {
    /// They fail: on a server an administrator must install an engine.
    #[default]
    Refuse,
    /// They are skipped, with the reason.
    LeaveOut,
}

/// The contexts that are known before a job starts.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobContexts {
    /// `github`
    pub github: ExprValue,
    /// `vars`
    pub vars: ExprValue,
    /// `secrets`: an object of texts; each is masked wherever it would appear.
    pub secrets: ExprValue,
    /// `needs`
    pub needs: ExprValue,
    /// `strategy`
    pub strategy: ExprValue,
    /// `matrix`
    pub matrix: ExprValue,
    /// `inputs`
    pub inputs: ExprValue,
}

impl JobContexts {
    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ExprValue)> {
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
    /// A commit of a repository of the server.
    Git {
        /// The name of the repository, which is that of its service.
        repository: String,
        /// The commit.
        commit: String,
        /// The full name of the ref: `refs/heads/main`.
        #[serde(rename = "ref")]
        reference: String,
    },
    /// A folder as it is, for runs without a server.
    Directory,
}

/// An artifact that an earlier job of the run stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// Its name.
    pub name: String,
    /// `sha256:…` of its tar file.
    pub digest: String,
    /// Bytes of its tar file.
    #[serde(default)]
    pub size: u64,
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

/// How a step, a job or a run ended, in GitHub's words; `incomplete` is Shipway's own.
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
    /// The machine could not run it, or a part of it, for want of a runner label or a container engine. Never a success: a run
    /// with such a job is incomplete as well, and jobs that need it see `skipped`.
    Incomplete,
}

impl Conclusion {
    /// As people and clients of the API read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Incomplete => "incomplete",
        }
    }

    /// As expressions of workflows see it, in GitHub's words: what `needs.x.result` and `steps.x.outcome` are.
    #[must_use]
    pub const fn in_expressions(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped | Self::Incomplete => "skipped",
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_secrets() {
        let contexts = JobContexts {
            secrets: ExprValue::object([("TOKEN", ExprValue::from("hunter2"))]),
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
