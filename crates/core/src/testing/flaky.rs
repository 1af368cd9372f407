//! Flaky: passed and failed on the same commit. Everything else about a test may have changed its mind for it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{TestId, TestReport, TestStability, too_many_fail};
use crate::ids::RunNumber;

/// What a job's tests said, on the commit that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct TestedAttempt<'r> {
    pub run: RunNumber,
    pub job: &'r str,
    pub report: &'r TestReport,
}

/// A test that passed and failed on one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlakySighting {
    pub test: TestId,
    pub evidence: FlakyEvidence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How it is known that a test is flaky, the strongest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlakyEvidence {
    /// It was tried again within one job, and ended otherwise.
    Rerun { run: RunNumber, job: String },
    /// One job passed and failed it, at different times.
    SameJob {
        job: String,
        /// The run it passed in.
        passed: RunNumber,
        /// The run it failed in.
        failed: RunNumber,
    },
    /// Different jobs had different results, perhaps because of a difference between the jobs.
    OtherJob {
        /// The run and job it passed in.
        passed: (RunNumber, String),
        /// The run and job it failed in.
        failed: (RunNumber, String),
    },
}

impl fmt::Display for FlakyEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rerun { run, job } => {
                write!(f, "failed and passed when {job} of {run} tried it again")
            }
            Self::SameJob {
                job,
                passed,
                failed,
            } if passed == failed => {
                write!(f, "passed and failed in {job} of {passed}, run twice")
            }
            Self::SameJob {
                job,
                passed,
                failed,
            } => write!(
                f,
                "passed in {passed} and failed in {failed}, both in {job}"
            ),
            Self::OtherJob { passed, failed } => write!(
                f,
                "passed in {} of {} and failed in {} of {}; it may depend on the job",
                passed.1, passed.0, failed.1, failed.0
            ),
        }
    }
}

/// Where a test passed and where it failed.
#[derive(Default)]
struct TestOutcomes<'r> {
    passed: Vec<(RunNumber, &'r str)>,
    failed: Vec<(RunNumber, &'r str)>,
    rerun: Option<(RunNumber, &'r str)>,
    message: Option<&'r str>,
}

/// The tests that passed and failed on one commit, over all attempts. Jobs in which nearly all tests failed are no evidence
/// about single tests.
#[must_use]
pub fn sightings(tried: &[TestedAttempt<'_>]) -> Vec<FlakySighting> {
    let mut seen: BTreeMap<&TestId, TestOutcomes<'_>> = BTreeMap::new();
    let judged = tried
        .iter()
        .filter(|it| too_many_fail(&super::TestTotals::from_cases(&it.report.cases)).is_none());
    for TestedAttempt { run, job, report } in judged {
        for case in &report.cases {
            let place = (*run, *job);
            let entry = seen.entry(&case.id).or_default();
            if case.steadiness != TestStability::Steady {
                entry.rerun.get_or_insert(place);
            }
            match case.outcome {
                outcome if outcome.is_bad() => entry.failed.push(place),
                super::TestOutcome::Skipped => {}
                _ => entry.passed.push(place),
            }
            if entry.message.is_none() {
                entry.message = case.message.as_deref();
            }
        }
    }
    let sighting = |(test, seen): (&TestId, TestOutcomes<'_>)| {
        Some(FlakySighting {
            test: test.clone(),
            evidence: evidence(&seen)?,
            message: seen.message.map(str::to_owned),
        })
    };
    seen.into_iter().filter_map(sighting).collect()
}

fn evidence(seen: &TestOutcomes<'_>) -> Option<FlakyEvidence> {
    if let Some((run, job)) = seen.rerun {
        let job = job.to_owned();
        return Some(FlakyEvidence::Rerun { run, job });
    }
    for (failed, job) in &seen.failed {
        let same = seen.passed.iter().find(|(_, other)| other == job);
        if let Some((passed, _)) = same {
            return Some(FlakyEvidence::SameJob {
                job: (*job).to_owned(),
                passed: *passed,
                failed: *failed,
            });
        }
    }
    let owned = |(run, job): (RunNumber, &str)| (run, job.to_owned());
    Some(FlakyEvidence::OtherJob {
        passed: owned(*seen.passed.first()?),
        failed: owned(*seen.failed.first()?),
    })
}
