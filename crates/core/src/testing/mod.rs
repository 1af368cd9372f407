//! Tests as data: which ones are new among the failures, which can't make up their minds, and which don't block for a while.
//!
//! The results of a job's tests are a [`TestReport`], written by workers and judged by pure functions: [`excuse`] says
//! whether a failed job failed of nothing but tests in quarantine, [`sightings`] which tests passed and failed on one commit,
//! [`against`] what is new since a run before. [`TestingState`] is the service's record: its quarantine, with owners and
//! ends, and the flaky tests seen so far.
//!
//! What it must never do: let a test that the change itself touches off, or judge a run in which nearly everything fails: then
//! it isn't the tests.

mod compare;
mod excuse;
mod flaky;
mod quarantine;
#[cfg(test)]
mod tests;
mod touched;

pub use compare::{EarlierResult, NewFailure, TestComparison, against, slowest};
pub use excuse::{FailureExcuse, excuse};
pub use flaky::{FlakyEvidence, FlakySighting, TestedAttempt, sightings};
pub use quarantine::{
    FlakyTest, QuarantineRejection, QuarantineTerms, QuarantinedTest, TestResults, TestingEvent,
    TestingState,
};
pub use shipway_workflow::report::{
    Coverage, CoverageCount, FailedTest, ReportPaths, TestCase, TestId, TestOutcome, TestReport,
    TestStability, TestSummary, TestTotals,
};
pub use touched::is_touched;

/// From here on it is not the tests that are bad, but the run: tests that failed of a hundred.
const TOO_MANY_PERCENT: u64 = 80;

/// Why nothing is concluded about single tests of a run with these totals; none when something can be.
#[must_use]
pub fn too_many_fail(totals: &TestTotals) -> Option<String> {
    let ran = totals.tests - totals.skipped;
    // One test that fails is all of them, and no catastrophe.
    let too_many = ran >= 5 && totals.bad() * 100 > ran * TOO_MANY_PERCENT;
    too_many.then(|| {
        format!(
            "{} of {ran} tests fail, more than {TOO_MANY_PERCENT}%: not a problem of single tests",
            totals.bad()
        )
    })
}
