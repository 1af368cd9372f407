//! Whether a failed job failed only because of quarantined tests.
//!
//! The command that ran the tests ended with an error, and its reason is unknown. So the check is strict: every fact about the
//! job must be explained by quarantined tests.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{TestId, TestReport, TestSummary, TestingState, is_touched, too_many_fail};

/// Maximum number of tests in the message; the check covers all of them.
const NAMED_MAX: usize = 20;

/// What quarantine means for a job's failing tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureExcuse {
    /// The step whose failure is excused: every test that failed in the job is in quarantine. None: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Failing tests that are in quarantine, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<TestId>,
    /// Why quarantine doesn't excuse, where it might seem to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

impl FailureExcuse {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the quarantine of a service excuses a job. `changed` are the paths that the run's change touches; `None` if unknown:
/// then no test is excused, since any of them may be broken by the change.
#[must_use]
pub fn excuse(
    report: &TestReport,
    summary: &TestSummary,
    quarantine: &TestingState,
    changed: Option<&[String]>,
    now: Timestamp,
) -> FailureExcuse {
    let failing = report.cases.iter().filter(|case| case.is_failure());
    let (held, free): (Vec<_>, Vec<_>) = failing.partition(|case| quarantine.holds(&case.id, now));
    if held.is_empty() {
        return FailureExcuse::default();
    }
    let quarantined: Vec<TestId> = held
        .iter()
        .take(NAMED_MAX)
        .map(|case| case.id.clone())
        .collect();
    let touched = |changed: &[String]| {
        let touched = held.iter().find(|case| is_touched(case, changed));
        touched.map(|case| format!("{} is in quarantine, but this change touches it", case.id))
    };
    let why_not = too_many_fail(&summary.totals)
        .or_else(|| match changed {
            None => Some("the files of the change could not be determined".to_owned()),
            Some(changed) => touched(changed),
        })
        .or_else(|| {
            let first = free.first()?;
            Some(format!("{} fails too and is not in quarantine", first.id))
        })
        .or_else(|| {
            summary.explains.is_none().then(|| {
                "the job has other failures than its tests, or not all reports could be read"
                    .to_owned()
            })
        });
    FailureExcuse {
        step: summary.explains.filter(|_| why_not.is_none()),
        quarantined,
        why_not,
    }
}

impl TestingState {
    /// The tests in quarantine at a moment.
    #[must_use]
    pub fn held(&self, now: Timestamp) -> BTreeSet<&TestId> {
        let held = self.quarantine.iter().filter(|entry| entry.until > now);
        held.map(|entry| &entry.test).collect()
    }

    /// Whether a test is in quarantine at a moment.
    #[must_use]
    pub fn holds(&self, test: &TestId, now: Timestamp) -> bool {
        self.entry(test).is_some_and(|entry| entry.until > now)
    }
}
