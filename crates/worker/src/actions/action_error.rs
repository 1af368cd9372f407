//! Why an action failed.

use std::{io, path::PathBuf};

use super::{
    action_reference::ActionFileError,
    fetch_error::{LargeFileError, NetworkGitError},
    tool_table::MissingTool,
};
use crate::{
    artifact_tar::ArtifactError,
    cache::{CacheKeyError, FindCacheError, cache_archive::CacheArchiveError},
    containers::ContainerError,
    expression_error::ExpressionError,
    forge::ForgeError,
    job_inputs::JobInputError,
    path_error::PathError,
    path_patterns::PatternError,
    runtime::ArtifactNameError,
    server_request::RequestError,
};

/// Why an action failed; the message is the reason of its step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActionError {
    // Inputs
    #[error("{action} needs `{input}`")]
    MissingInput { action: &'static str, input: String },
    #[error("`{input}` must be {expected}, but this is {value:?}")]
    InvalidInput {
        input: String,
        expected: String,
        value: String,
    },
    #[error("`artifact-ids` are numbers with commas between them, not {0:?}")]
    InvalidArtifactId(String),
    #[error("`name` and `artifact-ids` can't be used together")]
    NameAndIds,
    #[error("`pattern`: {0}")]
    InvalidArtifactPattern(globset::Error),
    #[error("the path {0} leaves the workspace")]
    PathLeavesWorkspace(String),
    #[error("{what}: {source}")]
    Expression {
        /// E.g. `with` or `the input token`.
        what: String,
        source: ExpressionError,
    },
    // Submodules and large files
    #[error("the submodule {name} has the address {url}: {reason}")]
    Submodule {
        name: String,
        url: String,
        reason: &'static str,
    },
    #[error(
        "the submodules can't be fetched: {0}; check their addresses in .gitmodules, and give `token` for private ones"
    )]
    Submodules(NetworkGitError),
    #[error("the submodule {} is not checked out; fetch it: git submodule update --init", .0.display())]
    SubmoduleMissing(PathBuf),
    #[error("{count} files are stored with Git LFS, such as {first}: {source}")]
    LargeFiles {
        count: usize,
        first: String,
        source: LargeFileError,
    },
    // Resolving
    #[error("{0} is not a built-in action of Shipway; there is only shipway/deploy")]
    UnknownBuiltIn(String),
    #[error(
        "actions/setup-{0} is not supported; install the tool on the machine and remove the step"
    )]
    UnknownTool(String),
    #[error(transparent)]
    ActionFile(#[from] ActionFileError),
    #[error(
        "the action {action} is used by an action that is used by an action …: more than {max} deep; does one use itself?"
    )]
    TooDeep { action: String, max: usize },
    #[error(
        "the action {action} can't be fetched from {forge}: {source}; check its name and ref, name a forge or a folder of bare repositories that has it with --forge (SHIPWAY_FORGE), or copy it into the repository and use it as ./path"
    )]
    NotFetched {
        action: String,
        forge: String,
        source: ForgeError,
    },
    #[error("it is not an action of a repository")]
    NotOfRepository,
    #[error("{missing}, and {action} did not provide it: {reason}\n{}", missing.advice())]
    ToolNotProvided {
        missing: MissingTool,
        action: String,
        reason: String,
    },
    #[error("cancelled")]
    Cancelled,
    // Artifacts
    #[error(transparent)]
    ArtifactName(#[from] ArtifactNameError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("no files were found for {0}")]
    NoFiles(String),
    #[error(
        "the run already has an artifact {0}; choose another name, or set `overwrite: true` to replace it"
    )]
    ArtifactExists(String),
    #[error("no artifact {wanted} in the run; its artifacts are: {known}")]
    UnknownArtifact { wanted: String, known: String },
    #[error("the artifact {name} can't be unpacked: {source}")]
    ArtifactUnreadable { name: String, source: Box<Self> },
    #[error("`repository`: only artifacts of {0} can be downloaded here; remove it")]
    OtherRepositorysArtifacts(String),
    #[error("`run-id`: artifacts of other runs need a server, but this run has none; remove it")]
    NoServer,
    #[error("the server's information about the run: {0}")]
    InvalidRunDescription(ureq::Error),
    // Caches
    #[error(transparent)]
    CacheKey(#[from] CacheKeyError),
    #[error(transparent)]
    FindCache(#[from] FindCacheError),
    #[error(transparent)]
    CacheArchive(#[from] CacheArchiveError),
    #[error("the cache {key} can't be restored: {source}")]
    CacheNotRestored { key: String, source: Box<Self> },
    #[error("there is no cache for the key {0}, and `fail-on-cache-miss` is set")]
    CacheMiss(String),
    #[error(transparent)]
    Input(#[from] JobInputError),
    // Checkout
    #[error("only the run's own repository can be checked out, not {0}")]
    OtherRepository(String),
    #[error("no branch, tag or commit {0} in the repository")]
    UnknownReference(String),
    #[error("git can't be run: {0}")]
    GitMissing(io::Error),
    #[error("git {command}: {reason}")]
    Git { command: String, reason: String },
    // Deploy
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("not deployed: {0}")]
    NotDeployed(String),
    #[error("the rollout ended: {0}")]
    RolloutFailed(String),
    // Running
    #[error("the action has no file {0}; if a build creates it, commit it")]
    NoEntryFile(String),
    #[error("the action needs node {wanted}, and {problem}; install node {wanted}")]
    NoNode { wanted: u32, problem: NodeProblem },
    #[error("there is no {0} on this machine")]
    NoProgram(String),
    #[error("a virtual environment can't be made: {}: {reason}", program.display())]
    VirtualEnvironment { program: PathBuf, reason: String },
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Patterns(#[from] PatternError),
    #[error(transparent)]
    File(#[from] PathError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blocking task has panicked.
    #[error(transparent)]
    Panicked(#[from] tokio::task::JoinError),
}

/// Why no Node.js can run an action.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeProblem {
    #[error("there is no node on this machine")]
    NotInstalled,
    #[error("the job's container has no node")]
    NotInContainer,
    #[error(transparent)]
    NotExecutable(#[from] PathError),
    #[error("{} doesn't report its version", .0.display())]
    NoVersion(PathBuf),
}

impl ActionError {
    /// For `map_err`: an error in the expression of `what`.
    pub(crate) fn in_expression(
        what: impl Into<String>,
    ) -> impl FnOnce(shipway_workflow::expr::EvalError) -> Self {
        |error| Self::Expression {
            what: what.into(),
            source: error.into(),
        }
    }
}
