//! Compares the tests of a run with those of an earlier run.

use serde::{Deserialize, Serialize};

use shipway_workflow::report::combine_coverage;

use super::{Coverage, TestCase, TestId, TestReport};

/// Differences from an earlier run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestComparison {
    /// Tests that fail and didn't.
    pub new_failures: Vec<NewFailure>,
    /// Tests that fail as they did.
    pub still_failing: Vec<TestId>,
    /// Tests that failed and pass.
    pub fixed: Vec<TestId>,
    /// How much the share of covered lines has grown, in hundredths of a percent.
    pub coverage_change: Option<i64>,
}

/// A test that fails and didn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFailure {
    pub test: TestId,
    pub was: EarlierResult,
}

/// How a test that fails now ended before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlierResult {
    Passing,
    /// It was left out.
    Skipped,
    /// There was no such test.
    Absent,
}

/// Differences between the reports of a run and those of the last successful run; a run with several jobs has several reports.
#[must_use]
pub fn against(now: &[TestReport], base: &[TestReport]) -> TestComparison {
    let before = MergedResults::merge(base);
    let after = MergedResults::merge(now);
    let mut comparison = TestComparison {
        coverage_change: change(coverage(now), coverage(base)),
        ..TestComparison::default()
    };
    for (test, fails) in &after.0 {
        match (fails, before.0.get(test)) {
            (CaseResult::Fails, Some(CaseResult::Fails)) => {
                comparison.still_failing.push((*test).clone())
            }
            (CaseResult::Fails, was) => comparison.new_failures.push(NewFailure {
                test: (*test).clone(),
                was: match was {
                    Some(CaseResult::Skipped) => EarlierResult::Skipped,
                    Some(_) => EarlierResult::Passing,
                    None => EarlierResult::Absent,
                },
            }),
            (CaseResult::Passes, Some(CaseResult::Fails)) => comparison.fixed.push((*test).clone()),
            (CaseResult::Passes | CaseResult::Skipped, _) => {}
        }
    }
    comparison
}

/// The coverage of a whole run: its jobs' together.
#[must_use]
pub(super) fn coverage(reports: &[TestReport]) -> Option<Coverage> {
    combine_coverage(
        reports
            .iter()
            .map(|report| (report.coverage, &report.lines)),
    )
}

fn change(now: Option<Coverage>, base: Option<Coverage>) -> Option<i64> {
    let now = now?.lines.basis_points()?;
    let base = base?.lines.basis_points()?;
    Some(i64::from(now) - i64::from(base))
}

/// The tests that took longest, at most `count`, the longest first.
#[must_use]
pub fn slowest(reports: &[TestReport], count: usize) -> Vec<&TestCase> {
    let mut cases: Vec<&TestCase> = reports.iter().flat_map(|report| &report.cases).collect();
    cases.retain(|case| case.took_ms > 0);
    cases.sort_by(|a, b| b.took_ms.cmp(&a.took_ms).then_with(|| a.id.cmp(&b.id)));
    cases.truncate(count);
    cases
}

/// How a test ended in several jobs: it fails if it fails in one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CaseResult {
    Skipped,
    Passes,
    Fails,
}

struct MergedResults<'r>(std::collections::BTreeMap<&'r TestId, CaseResult>);

impl<'r> MergedResults<'r> {
    fn merge(reports: &'r [TestReport]) -> Self {
        let mut merged = std::collections::BTreeMap::new();
        for case in reports.iter().flat_map(|report| &report.cases) {
            let how = match case.outcome {
                _ if case.is_failure() => CaseResult::Fails,
                super::TestOutcome::Skipped => CaseResult::Skipped,
                _ => CaseResult::Passes,
            };
            let known = merged.entry(&case.id).or_insert(how);
            *known = how.max(*known);
        }
        Self(merged)
    }
}
