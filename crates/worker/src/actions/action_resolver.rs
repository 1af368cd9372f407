//! Resolves `uses:` of steps, and reads action files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use shipway_syntax::Source;
use shipway_workflow::{
    expr::Condition,
    job::ActionSource,
    model::{ActionFile, Part, Runs},
    parse_action,
};

use super::{action_store::ActionStore, has_built_in};
use crate::{
    forge::{is_reference, is_repository},
    step_scope::ActionStage,
};

/// Why `uses:` can't be resolved to an action.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActionFileError {
    #[error("the action {action}: {problem}")]
    InvalidReference {
        action: String,
        problem: ReferenceProblem,
    },
    #[error("{file}: {source}")]
    Unreadable {
        file: String,
        source: std::io::Error,
    },
    /// With the diagnostics of the action file, one per line.
    #[error("{0}")]
    Invalid(String),
    #[error(
        "there is no action.yml, action.yaml or Dockerfile in {name}: its repository has no action at this path and ref"
    )]
    NoneInRepository { name: String },
    #[error(
        "there is no action.yml, action.yaml or Dockerfile in {name}: the folder is there, the file isn't"
    )]
    NoneInFolder { name: String },
    #[error(
        "there is no action.yml, action.yaml or Dockerfile in {name}: the folder isn't in the workspace; an action of the repository needs a step with actions/checkout before it"
    )]
    NoFolder { name: String },
}

/// Why the text of `uses:` is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceProblem {
    #[error("write owner/repo@ref, ./path or docker://image")]
    NoRepository,
    #[error("{0} is not the name of a repository")]
    InvalidRepository(String),
    #[error("its path leaves the repository")]
    PathLeavesRepository,
    #[error("{0:?} is not a branch, a tag or a commit")]
    InvalidReference(String),
}

/// The meaning of `uses:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActionReference {
    /// An action that is part of the worker.
    BuiltIn,
    /// A folder in the workspace.
    Local(String),
    /// A folder in a repository of the forge.
    Remote(RemoteAction),
    /// An image.
    Docker(String),
}

/// `owner/repo/path@ref`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RemoteAction {
    /// `owner/repo`
    pub(crate) repository: String,
    /// The folder in the repository; empty for its root.
    pub(crate) path: String,
    /// A branch, a tag or a commit.
    pub(crate) reference: String,
}

impl ActionReference {
    /// Parses `uses:`. Without `built_in` only Shipway's own actions are built in.
    pub(crate) fn parse(action: &str, built_in: bool) -> Result<Self, ActionFileError> {
        if let Some(image) = action.strip_prefix("docker://") {
            return Ok(Self::Docker(image.to_owned()));
        }
        if action.starts_with("./") || action == "." {
            return Ok(Self::Local(action.to_owned()));
        }
        let (name, reference) = action.split_once('@').unwrap_or((action, ""));
        if name.to_ascii_lowercase().starts_with("shipway/") || (built_in && has_built_in(name)) {
            return Ok(Self::BuiltIn);
        }
        let remote = RemoteAction::parse(name, reference);
        let remote = remote.map_err(|problem| ActionFileError::InvalidReference {
            action: action.to_owned(),
            problem,
        })?;
        Ok(Self::Remote(remote))
    }
}

impl RemoteAction {
    fn parse(name: &str, reference: &str) -> Result<Self, ReferenceProblem> {
        let mut parts = name.split('/').filter(|part| !part.is_empty());
        let (Some(owner), Some(repo)) = (parts.next(), parts.next()) else {
            return Err(ReferenceProblem::NoRepository);
        };
        let path: Vec<&str> = parts.collect();
        let repository = format!("{owner}/{repo}");
        if !is_repository(&repository) {
            return Err(ReferenceProblem::InvalidRepository(repository));
        }
        if path.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(ReferenceProblem::PathLeavesRepository);
        }
        if !is_reference(reference) {
            return Err(ReferenceProblem::InvalidReference(reference.to_owned()));
        }
        Ok(Self {
            repository,
            path: path.join("/"),
            reference: reference.to_owned(),
        })
    }
}

impl std::fmt::Display for RemoteAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        if !self.path.is_empty() {
            write!(f, "/{}", self.path)?;
        }
        write!(f, "@{}", self.reference)
    }
}

/// An action file and its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResolvedAction {
    pub(crate) folder: PathBuf,
    pub(crate) file: ActionFile,
    /// The repository; `None` for an action in the workspace.
    pub(crate) remote: Option<RemoteAction>,
}

impl ResolvedAction {
    /// Reads the action in `folder`; `name` is used in messages.
    pub(crate) fn read_action(
        folder: PathBuf,
        name: &str,
        remote: Option<RemoteAction>,
    ) -> Result<Self, ActionFileError> {
        for file in ["action.yml", "action.yaml"] {
            let path = folder.join(file);
            if path.is_file() {
                let text = fs::read(&path).map_err(|source| ActionFileError::Unreadable {
                    file: format!("{name}/{file}"),
                    source,
                })?;
                let text = String::from_utf8_lossy(&text);
                let file = parse_action_file(&format!("{name}/{file}"), &text)?;
                return Ok(Self {
                    folder,
                    file,
                    remote,
                });
            }
        }
        if folder.join("Dockerfile").is_file() {
            let text = "runs: { using: docker, image: Dockerfile }";
            let file = parse_action_file(&format!("{name}/Dockerfile"), text)?;
            return Ok(Self {
                folder,
                file,
                remote,
            });
        }
        let name = name.to_owned();
        Err(if remote.is_some() {
            ActionFileError::NoneInRepository { name }
        } else if folder.is_dir() {
            ActionFileError::NoneInFolder { name }
        } else {
            ActionFileError::NoFolder { name }
        })
    }

    /// The pre or post part of a JavaScript or container action.
    pub(crate) fn stage_part(&self, stage: ActionStage) -> Option<&Part> {
        match (&self.file.runs, stage) {
            (Runs::JavaScript { pre, .. } | Runs::Docker { pre, .. }, ActionStage::Pre) => {
                pre.as_ref()
            }
            (Runs::JavaScript { post, .. } | Runs::Docker { post, .. }, ActionStage::Post) => {
                post.as_ref()
            }
            _ => None,
        }
    }

    /// The condition of the pre or post part; default: `always()`.
    pub(crate) fn stage_condition(&self, stage: ActionStage) -> Condition {
        match self.stage_part(stage) {
            Some(part) => part.condition.clone(),
            None => Condition::parse("always()", 0).unwrap_or_default(),
        }
    }
}

fn parse_action_file(path: &str, text: &str) -> Result<ActionFile, ActionFileError> {
    let source = Source::new(path, text);
    let parsed = parse_action(&source);
    parsed.action.ok_or_else(|| {
        let mistakes = parsed.diagnostics.iter().filter(|it| it.is_error());
        let lines: Vec<String> = mistakes.take(5).map(|it| it.one_line(&source)).collect();
        ActionFileError::Invalid(lines.join("\n"))
    })
}

/// The actions of a job.
#[derive(Clone)]
pub(crate) struct ActionLibrary {
    pub(crate) store: ActionStore,
    /// Whether built-in equivalents replace GitHub's actions.
    pub(crate) built_in: bool,
    /// Actions of repositories.
    pub(crate) fetched: BTreeMap<RemoteAction, Arc<ResolvedAction>>,
    /// The node that runs JavaScript actions; searched on first use.
    pub(crate) node: Option<NodeProgram>,
}

/// A Node.js installation.
#[derive(Clone, Debug)]
pub(crate) struct NodeProgram {
    pub(crate) program: PathBuf,
    /// E.g. `20.1.0`.
    pub(crate) version: String,
}

impl NodeProgram {
    /// From the output of `node --version`.
    pub(crate) fn parse(program: PathBuf, version: &str) -> Self {
        Self {
            program,
            version: version.trim().trim_start_matches('v').to_owned(),
        }
    }

    pub(crate) fn major_version(&self) -> u32 {
        let major = self.version.split('.').next();
        major.and_then(|it| it.parse().ok()).unwrap_or_default()
    }
}

impl ActionLibrary {
    pub(crate) fn new(source: &ActionSource, job: &Path) -> Self {
        Self {
            store: ActionStore::new(source, job),
            built_in: source.built_in,
            fetched: BTreeMap::new(),
            node: None,
        }
    }

    /// Reads an action in the workspace.
    pub(crate) fn read_local(
        workspace: &Path,
        path: &str,
    ) -> Result<Arc<ResolvedAction>, ActionFileError> {
        ResolvedAction::read_action(workspace.join(path), path, None).map(Arc::new)
    }

    /// Whether the action has a pre part.
    pub(crate) fn has_pre_part(&self, action: &ResolvedAction) -> bool {
        match &action.file.runs {
            Runs::Composite { steps } => steps
                .iter()
                .any(|step| self.action_with_pre_part(step).is_some()),
            Runs::JavaScript { .. } | Runs::Docker { .. } => {
                action.stage_part(ActionStage::Pre).is_some()
            }
        }
    }

    /// The action of a step, if it was fetched and has a pre part.
    pub(crate) fn action_with_pre_part(
        &self,
        step: &shipway_workflow::model::Step,
    ) -> Option<Arc<ResolvedAction>> {
        let shipway_workflow::model::Action::Uses { action, .. } = &step.action else {
            return None;
        };
        let Ok(ActionReference::Remote(remote)) = ActionReference::parse(action, self.built_in)
        else {
            return None;
        };
        let known = self.fetched.get(&remote)?;
        self.has_pre_part(known).then(|| Arc::clone(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uses_means_is_read_as_github_reads_it() {
        let of = |action: &str| ActionReference::parse(action, true).ok();
        assert_eq!(of("actions/checkout@v4"), Some(ActionReference::BuiltIn));
        assert_eq!(of("shipway/deploy"), Some(ActionReference::BuiltIn));
        assert_eq!(
            of("./a/b"),
            Some(ActionReference::Local("./a/b".to_owned()))
        );
        assert_eq!(
            of("docker://x:1"),
            Some(ActionReference::Docker("x:1".to_owned()))
        );
        let Some(ActionReference::Remote(remote)) = of("acme/tools/a/b@release/v1") else {
            panic!("not remote");
        };
        assert_eq!(remote.to_string(), "acme/tools/a/b@release/v1");
        assert_eq!(remote.path, "a/b");
        assert!(matches!(
            ActionReference::parse("actions/checkout@v4", false),
            Ok(ActionReference::Remote(_))
        ));
        assert_eq!(
            ActionReference::parse("shipway/deploy", false).ok(),
            Some(ActionReference::BuiltIn)
        );
        for bad in [
            "acme/x/../y@v1",
            "../x@v1",
            "acme/..@v1",
            "acme@v1",
            "acme/x@",
            "acme/x",
            "acme/x@--upload-pack=y",
            "-a/x@v1",
            "acme/x@a b",
            "acme/x@a..b",
        ] {
            assert!(of(bad).is_none(), "{bad}");
        }
    }
}
