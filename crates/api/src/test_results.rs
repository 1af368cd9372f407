//! Results of tests.

use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::RunId,
    run::TestsView,
    testing::{Comparison, Quarantined, Sighting, TestCase, TestId},
};
use shipway_workflow::job::JobKey;

/// The tests of a run, compared with those of the last green one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunTests {
    #[serde(flatten)]
    pub summary: TestsView,
    /// The last green run before it: of its branch, or of the branch that is released.
    pub base: Option<RunId>,
    /// Differences from the tests of `base`.
    pub compared: Comparison,
    /// At most 200; those that block and are new come first.
    pub failing: Vec<FailingTest>,
    pub slowest: Vec<TestCase>,
    /// Tests that passed and failed on this commit.
    pub flaky: Vec<Sighting>,
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
    pub quarantine: Option<Quarantined>,
}
