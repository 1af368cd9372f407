//! A push, and the commits that it brought.

use serde::{Deserialize, Serialize};

use crate::{
    config::ServiceConfig,
    ids::{CommitId, Digest},
    release::{Commit, WorkflowFile},
    repository::ServiceLocation,
};

/// A pushed commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The full name of the ref: `refs/heads/main`.
    pub reference: String,
    /// Where the ref was before; none for a new one.
    pub before: Option<CommitId>,
    pub commit: Commit,
    /// `shipway.yaml` as of the commit; none when there is no such file or it has errors.
    pub config: Option<Box<ServiceConfig>>,
    /// Why there is no configuration, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfigured: Option<String>,
    /// The workflows that the configuration names as tests of an environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<WorkflowFile>,
    /// The commit's own tree as an artifact, where the configuration says that it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// Where the service is, if not at the root of the repository of its name. None in logs of before there were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<ServiceLocation>,
    /// The commits that it brought, newest first, at most [`Push::COMMITS_MAX`]; the history of a new reference is among them.
    /// Empty in logs of before this was recorded, or where git couldn't tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<PushedCommit>,
    /// Older commits that it brought and that are not in `commits`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub commits_omitted: u32,
}

/// A commit that a push brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedCommit {
    pub id: CommitId,
    /// When its author wrote it, as claimed in the commit: a rebase keeps it. Lead time starts here.
    pub authored_at: jiff::Timestamp,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Push {
    /// Commits that the log records of one push; a larger push says how many it left out.
    pub const COMMITS_MAX: usize = 250;

    /// The branch, when the ref is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/heads/")
    }

    /// Whether its green runs make a release.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| self.branch() == Some(config.branch.as_str()))
    }
}
