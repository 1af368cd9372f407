//! What a webhook reports.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::CommitId;

/// A change at the forge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeChange {
    /// A branch or tag was created, moved or deleted. What it points at is read from the forge.
    Reference {
        /// `refs/heads/main`
        reference: String,
        /// The account that pushed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<String>,
    },
    PullRequest(Box<PullRequestChange>),
}

/// A change of a pull request, which GitLab calls merge request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PullRequestChange {
    pub number: u64,
    /// The activity in GitHub's words: `opened`, `synchronize`, `closed`.
    pub action: String,
    /// The head commit.
    pub head: CommitId,
    /// The branch that it would be merged into.
    pub base_branch: String,
    pub origin: PullRequestOrigin,
    /// The commit on the base branch, after it was merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_as: Option<CommitId>,
    /// When the forge changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// The account that changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// `github.event` for its workflows.
    pub payload: serde_json::Value,
}

/// Whose commits a pull request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestOrigin {
    /// A branch of the repository itself: its author may push there.
    SameRepository,
    /// Another repository: its author may be a stranger. Also when that is not known.
    Fork,
}
