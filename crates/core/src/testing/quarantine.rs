//! The quarantine of a service's tests, and the tests seen to be flaky.
//!
//! A person puts a test into quarantine with an owner, a reason and an expiry date. It is released by a person, by expiry, or
//! automatically after enough clean runs in a row. Quarantined tests still run.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{FlakyEvidence, FlakySighting, TestId};
use crate::ids::{CommitId, RunNumber};

/// Maximum number of quarantined tests; beyond that, the tests need another remedy.
const QUARANTINE_MAX: usize = 500;
/// Flaky tests that are remembered, those seen last.
const FLAKY_MAX: usize = 500;
/// Runs that are remembered as counted: a report that comes again counts once.
const COUNTED_MAX: usize = 50;
/// The longest quarantine, in days; it can be renewed.
const DAYS_MAX: i64 = 180;
/// Characters of an owner or a reason.
const WORDS_MAX: usize = 500;

/// What a service remembers of its tests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestingState {
    /// Tests that don't block, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantinedTest>,
    /// Show only tests that passed and failed on the same commit, those seen last at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaky: Vec<FlakyTest>,
    /// Runs that have been counted, with how many reports they had then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counted: Vec<(RunNumber, u32)>,
}

/// A test in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedTest {
    pub test: TestId,
    pub owner: String,
    pub reason: String,
    pub by: String,
    pub since: Timestamp,
    /// Until when at most.
    pub until: Timestamp,
    /// It leaves after so many clean runs in a row.
    pub clean_runs_needed: u32,
    /// It has so many.
    pub clean_runs: u32,
}

/// A test that passed and failed on one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlakyTest {
    pub test: TestId,
    /// On how many commits.
    pub commits: u32,
    /// The last of them.
    pub commit: CommitId,
    pub evidence: FlakyEvidence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

/// A wish to quarantine a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineTerms {
    pub test: TestId,
    pub owner: String,
    pub reason: String,
    /// Until when at most.
    pub until: Timestamp,
    /// After how many clean runs in a row it leaves.
    pub clean_runs: u32,
    /// The run whose change touches the test, if the last one in which it failed does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched_by: Option<RunNumber>,
}

/// What a run has shown of tests, once it was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResults {
    pub run: RunNumber,
    /// How many of its jobs have reported so far; a run that is run again has more.
    pub reports: u32,
    pub commit: CommitId,
    /// Tests that passed and failed on it.
    pub flaky: Vec<FlakySighting>,
    /// Tests in quarantine that passed, wherever they ran.
    pub clean: Vec<TestId>,
    /// Tests in quarantine that failed.
    pub failed: Vec<TestId>,
}

/// The facts of a service's tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestingEvent {
    /// A test doesn't block from now on.
    Quarantined { request: QuarantineTerms },
    /// A test was released from quarantine.
    Left { test: TestId, why: String },
    /// A run was seen.
    RunSeen { seen: TestResults },
}

/// Why a test can't be quarantined or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineRejection {
    /// A required field is missing.
    #[error("a test in quarantine needs {0} (--owner and --reason)")]
    Unsaid(&'static str),
    /// The end is past or too far away.
    #[error("a quarantine must end within {DAYS_MAX} days from now, not {0}")]
    End(Timestamp),
    /// It would never leave, or at once.
    #[error("a test leaves quarantine after 1 to 1000 clean runs, not {0}")]
    CleanRuns(u32),
    /// It is not flaky: it was just changed.
    #[error("{test} can't be quarantined: the change of {run} touches it and may be the cause")]
    Touched {
        test: TestId,
        /// By which run's change.
        run: RunNumber,
    },
    #[error("{QUARANTINE_MAX} tests are already in quarantine: fix or release some")]
    Full,
    #[error("{0} is not in quarantine")]
    Free(TestId),
}

impl TestingState {
    /// A test's entry in the quarantine, over or not.
    #[must_use]
    pub fn entry(&self, test: &TestId) -> Option<&QuarantinedTest> {
        self.quarantine.iter().find(|entry| entry.test == *test)
    }

    /// Puts a test into quarantine, or renews its terms.
    pub fn quarantine(
        &self,
        request: QuarantineTerms,
        now: Timestamp,
    ) -> Result<TestingEvent, QuarantineRejection> {
        for (text, what) in [(&request.owner, "an owner"), (&request.reason, "a reason")] {
            if text.trim().is_empty() || text.chars().count() > WORDS_MAX {
                return Err(QuarantineRejection::Unsaid(what));
            }
        }
        let latest = now.checked_add(SignedDuration::from_hours(24 * DAYS_MAX));
        if request.until <= now || latest.is_ok_and(|latest| request.until > latest) {
            return Err(QuarantineRejection::End(request.until));
        }
        if !(1..=1_000).contains(&request.clean_runs) {
            return Err(QuarantineRejection::CleanRuns(request.clean_runs));
        }
        if let Some(run) = request.touched_by {
            return Err(QuarantineRejection::Touched {
                test: request.test,
                run,
            });
        }
        if self.quarantine.len() >= QUARANTINE_MAX && self.entry(&request.test).is_none() {
            return Err(QuarantineRejection::Full);
        }
        Ok(TestingEvent::Quarantined { request })
    }

    /// Releases a test from quarantine.
    pub fn release(&self, test: TestId, by: &str) -> Result<TestingEvent, QuarantineRejection> {
        if self.entry(&test).is_none() {
            return Err(QuarantineRejection::Free(test));
        }
        Ok(TestingEvent::Left {
            test,
            why: format!("released by {by}"),
        })
    }

    /// Records the test results of an ended run; `None` if they are recorded already or empty.
    #[must_use]
    pub fn record_results(&self, seen: TestResults) -> Option<TestingEvent> {
        let says_nothing = seen.flaky.is_empty() && seen.clean.is_empty() && seen.failed.is_empty();
        let is_known = self.counted.contains(&(seen.run, seen.reports));
        (!says_nothing && !is_known).then_some(TestingEvent::RunSeen { seen })
    }

    /// The tests to release now: expired, or clean for long enough.
    #[must_use]
    pub fn leaving(&self, now: Timestamp) -> Vec<TestingEvent> {
        let leaving = self.quarantine.iter().filter_map(|entry| {
            let why = if entry.until <= now {
                "its time has expired".to_owned()
            } else if entry.clean_runs >= entry.clean_runs_needed {
                format!("{} clean runs in a row", entry.clean_runs)
            } else {
                return None;
            };
            let test = entry.test.clone();
            Some(TestingEvent::Left { test, why })
        });
        leaving.collect()
    }

    /// When the next quarantine expires.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.quarantine.iter().map(|entry| entry.until).min()
    }

    pub fn apply(&mut self, fact: &TestingEvent, by: &str, at: Timestamp) {
        match fact {
            TestingEvent::Quarantined { request } => {
                self.quarantine.retain(|entry| entry.test != request.test);
                self.quarantine.push(QuarantinedTest {
                    test: request.test.clone(),
                    owner: request.owner.clone(),
                    reason: request.reason.clone(),
                    by: by.to_owned(),
                    since: at,
                    until: request.until,
                    clean_runs_needed: request.clean_runs,
                    clean_runs: 0,
                });
                self.quarantine.sort_by(|a, b| a.test.cmp(&b.test));
            }
            TestingEvent::Left { test, .. } => self.quarantine.retain(|entry| entry.test != *test),
            TestingEvent::RunSeen { seen } => self.record(seen, at),
        }
    }

    fn record(&mut self, seen: &TestResults, at: Timestamp) {
        // A run that is run again counts once for being clean, and whenever it fails.
        let again = self.counted.iter().any(|(run, _)| *run == seen.run);
        self.counted.push((seen.run, seen.reports));
        let surplus = self.counted.len().saturating_sub(COUNTED_MAX);
        self.counted.drain(..surplus);
        for entry in &mut self.quarantine {
            if seen.failed.contains(&entry.test) {
                entry.clean_runs = 0;
            } else if !again && seen.clean.contains(&entry.test) {
                entry.clean_runs += 1;
            }
        }
        for sighting in &seen.flaky {
            self.sighted(sighting, &seen.commit, at);
        }
        let surplus = self.flaky.len().saturating_sub(FLAKY_MAX);
        self.flaky.drain(..surplus);
    }

    fn sighted(&mut self, sighting: &FlakySighting, commit: &CommitId, at: Timestamp) {
        let known = self.flaky.iter().position(|it| it.test == sighting.test);
        let known = known.map(|place| self.flaky.remove(place));
        let before = known.as_ref().map_or(0, |known| known.commits);
        let again = known.as_ref().is_some_and(|known| known.commit == *commit);
        self.flaky.push(FlakyTest {
            test: sighting.test.clone(),
            commits: if again {
                before
            } else {
                before.saturating_add(1)
            },
            commit: commit.clone(),
            evidence: sighting.evidence.clone(),
            message: sighting.message.clone(),
            first_at: known.map_or(at, |known| known.first_at),
            last_at: at,
        });
    }
}
