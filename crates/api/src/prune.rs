//! Files that the retention rule no longer covers.

use serde::{Deserialize, Serialize};
use shipway_core::ids::{ReleaseNumber, ServiceName};
use utoipa::ToSchema;

/// A removal has no parameters: the retention rule selects the files.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {}

/// Files that a removal would remove, or has removed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PruneReport {
    /// Artifacts and reports of tests.
    pub blobs: PrunedFiles,
    /// Runs with their logs and workspaces.
    pub runs: PrunedFiles,
    /// The ids of these runs: `shop/r12`.
    pub run_ids: Vec<String>,
    /// Releases that can't be deployed without the removed artifacts.
    pub releases: Vec<PrunedRelease>,
    /// Git repositories that `git gc` has made smaller; unknown before the removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<PrunedFiles>,
}

/// A number of things and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrunedFiles {
    pub count: u64,
    pub bytes: u64,
}

/// A release without artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct PrunedRelease {
    #[schema(value_type = String)]
    pub service: ServiceName,
    #[schema(value_type = u32)]
    pub number: ReleaseNumber,
}
