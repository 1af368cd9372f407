//! Results of tests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::RunId,
    run::TestsView,
    testing::{FlakySighting, FlakyTest, QuarantinedTest, TestCase, TestComparison, TestId},
};
use shipway_workflow::job::JobKey;
use utoipa::ToSchema;

/// The tests of a run, compared with those of the last green one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunTests {
    #[serde(flatten)]
    pub summary: TestsView,
    /// The last green run before it: of its branch, or of the branch that is released.
    pub base: Option<RunId>,
    /// Differences from the tests of `base`.
    pub compared: TestComparison,
    /// At most 200; those that block and are new come first.
    pub failing: Vec<FailingTest>,
    pub slowest: Vec<TestCase>,
    /// Tests that passed and failed on this commit.
    pub flaky: Vec<FlakySighting>,
}

/// A failing test of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailingTest {
    pub test: TestId,
    pub job: JobKey,
    pub message: Option<String>,
    /// Whether it passed or didn't exist in the last green run.
    pub is_new: bool,
    /// On how many commits it was seen flaky.
    pub flaky_commits: u32,
    /// Its quarantine, where it is in one.
    pub quarantine: Option<QuarantinedTest>,
}

/// What a service remembers of its tests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceTests {
    pub quarantine: Vec<QuarantinedTest>,
    /// Show only tests that passed and failed on the same commit.
    pub flaky: Vec<FlakyTest>,
}

/// A test that must not block for a while.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// Its whole name, or an end of it that no other test has.
    pub test: String,
    /// Who repairs it.
    pub owner: String,
    pub reason: String,
    /// The end of the quarantine; two weeks from now by default.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// The number of clean runs in a row that end it earlier; 10 by default.
    pub clean_runs: Option<u32>,
}

/// A test that must block again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseTestRequest {
    /// Its whole name, or an end of it that no other test has.
    pub test: String,
}

/// A test that was released from quarantine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleasedTest {
    /// Its whole name.
    pub released: String,
}
