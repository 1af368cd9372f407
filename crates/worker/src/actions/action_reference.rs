//! Resolves `uses:` of steps.

use serde::{Deserialize, Serialize};

use super::built_in_names::has_built_in;
use crate::forge::{is_reference, is_repository};

/// Whether built-in equivalents replace GitHub's actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltInActions {
    Enabled,
    Disabled,
}

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
        "there is no action.yml, action.yaml or Dockerfile in {name}: the folder exists, the file doesn't"
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

/// Stands for the name of the repository that the run is of.
const OWN_REPOSITORY: &str = "$";

/// `owner/repo/path@ref`, or `$/path` for the commit that the run is of.
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
    /// Parses `uses:`. With [`BuiltInActions::Disabled`] only Shipway's own actions are built in.
    pub(crate) fn parse(action: &str, built_in: BuiltInActions) -> Result<Self, ActionFileError> {
        if let Some(image) = action.strip_prefix("docker://") {
            return Ok(Self::Docker(image.to_owned()));
        }
        if action.starts_with("./") || action == "." {
            return Ok(Self::Local(action.to_owned()));
        }
        if let Some(path) = action.strip_prefix("$/") {
            let own = RemoteAction::in_own_repository(path);
            let own = own.map_err(|problem| ActionFileError::InvalidReference {
                action: action.to_owned(),
                problem,
            })?;
            return Ok(Self::Remote(own));
        }
        let (name, reference) = action.split_once('@').unwrap_or((action, ""));
        if name.to_ascii_lowercase().starts_with("shipway/")
            || (built_in == BuiltInActions::Enabled && has_built_in(name))
        {
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
    /// The action in a folder of the run's commit.
    fn in_own_repository(path: &str) -> Result<Self, ReferenceProblem> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let parts: Vec<&str> = parts.collect();
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(ReferenceProblem::PathLeavesRepository);
        }
        Ok(Self {
            repository: OWN_REPOSITORY.to_owned(),
            path: parts.join("/"),
            reference: String::new(),
        })
    }

    /// Whether it belongs to the commit that the run is of.
    pub(crate) fn is_own(&self) -> bool {
        self.repository == OWN_REPOSITORY
    }

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
        if self.is_own() {
            return Ok(());
        }
        write!(f, "@{}", self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uses_means_is_read_as_github_reads_it() {
        let of = |action: &str| ActionReference::parse(action, BuiltInActions::Enabled).ok();
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
            ActionReference::parse("actions/checkout@v4", BuiltInActions::Disabled),
            Ok(ActionReference::Remote(_))
        ));
        assert_eq!(
            ActionReference::parse("shipway/deploy", BuiltInActions::Disabled).ok(),
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
