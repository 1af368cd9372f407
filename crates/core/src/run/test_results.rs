//! What the tests of a run's jobs said, and what that changes: a job that failed of nothing but tests in quarantine counts as
//! green, and a run that covers too little doesn't.

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    job::{Conclusion, JobKey},
    report::{LineCoverage, combine_coverage},
};

use super::{job_record::JobRecord, job_tests::JobTests, state::Run};
use crate::testing::{Coverage, FailureExcuse, TestTotals};

/// What the tests of a run said, as lists and pages show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestsView {
    /// All jobs together; of a job that ran again, its last time.
    pub totals: TestTotals,
    /// Of all jobs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// How much must be covered, in hundredths of a percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_min: Option<u32>,
    /// Job by job, in the order in which they reported.
    pub jobs: Vec<JobTestsView>,
}

/// The tests of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTestsView {
    pub job: JobKey,
    #[serde(flatten)]
    pub tests: JobTests,
    /// Whether a later attempt at the job takes its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_outdated: bool,
}

impl TestsView {
    /// What counts: of a job that ran again, its last time.
    pub fn latest(&self) -> impl Iterator<Item = &JobTestsView> {
        self.jobs.iter().filter(|job| !job.is_outdated)
    }
}

impl Run {
    /// How a job counts that has ended: as it did, or as green where all that failed of it is in quarantine.
    pub(super) fn excused(
        &self,
        key: &JobKey,
        conclusion: Conclusion,
        why: Option<String>,
    ) -> (Conclusion, Option<String>) {
        if conclusion != Conclusion::Failure {
            return (conclusion, why);
        }
        let mut last = self.tests.iter().rev();
        let last = last.find(|(job, tests)| job == key && self.counts(job, tests));
        let excuse = last.map(|(_, tests)| &tests.excuse);
        let failed = self.jobs.get(key).map(|record| {
            let bad = |step: &&super::StepLine| {
                !matches!(step.conclusion, Conclusion::Success | Conclusion::Skipped)
            };
            record.steps.iter().filter(bad).map(|step| step.index)
        });
        let failed: Vec<usize> = failed.into_iter().flatten().collect();
        match excuse {
            Some(excuse) if conclusion == Conclusion::Failure => match excuse.step {
                Some(step) if failed == [step] => (Conclusion::Success, Some(excuse_text(excuse))),
                _ => {
                    let why_not = excuse.why_not.as_ref();
                    let parts = [
                        why,
                        why_not.map(|it| format!("not excused by quarantine: {it}")),
                    ];
                    let parts: Vec<String> = parts.into_iter().flatten().collect();
                    (conclusion, (!parts.is_empty()).then(|| parts.join("; ")))
                }
            },
            _ => (conclusion, why),
        }
    }

    /// Why the coverage is too low, if a minimum is configured and coverage was reported.
    pub(super) fn covers_too_little(&self) -> Option<String> {
        let minimum = self.spec.coverage_min?;
        let covered = self.coverage()?.lines.basis_points()?;
        (covered < minimum).then(|| {
            format!(
                "{} of the lines are covered, but shipway.yaml requires {} (reports.minimum)",
                percent(covered),
                percent(minimum)
            )
        })
    }

    /// Whether a report is of the last attempt at its job.
    fn counts(&self, key: &JobKey, tests: &JobTests) -> bool {
        tests.attempt == 0 || self.attempt_of(key) == tests.attempt
    }

    /// Which attempt at a job this is, from 1.
    pub(super) fn attempt_of(&self, key: &JobKey) -> u32 {
        self.jobs.get(key).map_or(1, JobRecord::attempt)
    }

    /// Whether another report of the same job takes the place of the one at `at`, or nothing of it counts any more.
    fn is_outdated(&self, at: usize) -> bool {
        let (key, tests) = &self.tests[at];
        let mut later = self.tests[at + 1..].iter();
        !self.counts(key, tests) || later.any(|(other, _)| other == key)
    }

    /// The reports that count, one of each job.
    fn last_reports(&self) -> impl Iterator<Item = &JobTests> {
        let last = (0..self.tests.len()).filter(|at| !self.is_outdated(*at));
        last.map(|at| &self.tests[at].1)
    }

    fn coverage(&self) -> Option<Coverage> {
        let each = self.last_reports().map(|it| &it.summary);
        combine_coverage(each.map(|it| (it.coverage, &it.lines)))
    }

    /// What its tests said; none when none did.
    pub(super) fn tests_view(&self) -> Option<TestsView> {
        (!self.tests.is_empty()).then(|| TestsView {
            totals: self.last_reports().fold(TestTotals::default(), |sum, it| {
                sum.merge(it.summary.totals)
            }),
            coverage: self.coverage(),
            coverage_min: self.spec.coverage_min,
            jobs: self
                .tests
                .iter()
                .enumerate()
                .map(|(at, (job, tests))| {
                    let mut tests = tests.clone();
                    // Only the summary is stored: covered lines aren't shown individually.
                    tests.summary.lines = LineCoverage::default();
                    JobTestsView {
                        job: job.clone(),
                        tests,
                        is_outdated: self.is_outdated(at),
                    }
                })
                .collect(),
        })
    }
}

fn excuse_text(excuse: &FailureExcuse) -> String {
    let names: Vec<String> = excuse
        .quarantined
        .iter()
        .take(3)
        .map(ToString::to_string)
        .collect();
    let more = match excuse.quarantined.len() {
        0..=3 => String::new(),
        many => format!(" and {} more", many - 3),
    };
    format!(
        "counts as success: all failed tests are in quarantine ({}{more})",
        names.join(", ")
    )
}

/// `81.25%`, `80%`
#[must_use]
pub fn percent(basis_points: u32) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    match rest {
        0 => format!("{whole}%"),
        _ => format!("{whole}.{rest:02}%"),
    }
}

/// `120 tests, 2 failed, 1 skipped, 1 flaky; 81.25% of the lines covered`
#[must_use]
pub fn in_short(totals: &TestTotals, coverage: Option<&Coverage>) -> String {
    let mut parts = Vec::new();
    if totals.tests > 0 {
        let s = if totals.tests == 1 { "" } else { "s" };
        let mut text = format!("{} test{s}", totals.tests);
        for (count, word) in [
            (totals.failed, "failed"),
            (totals.errored, "errored"),
            (totals.skipped, "skipped"),
            (totals.flaky, "flaky"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        parts.push(text);
    }
    let covered = coverage.and_then(|coverage| coverage.lines.basis_points());
    parts.extend(covered.map(|it| format!("{} of the lines covered", percent(it))));
    parts.join("; ")
}
