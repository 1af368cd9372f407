//! The push that a service delivered last.

use serde::{Deserialize, Serialize};

use crate::ids::CommitId;

/// A push that became a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredPush {
    pub sequence: u64,
    pub commit: CommitId,
}
