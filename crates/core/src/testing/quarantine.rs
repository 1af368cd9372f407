//! What a service remembers of its tests: those in quarantine, and those that were seen to be flaky.
//!
//! A test comes in by a person, with an owner, a reason and an end, and leaves by a person, by its end, or by itself after enough
//! clean runs in a row. While it is in it runs as before.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Evidence, Sighting, TestId};
use crate::ids::{CommitId, RunNumber};

/// Tests in quarantine at once. Who has more has another problem.
const QUARANTINE_MAX: usize = 500;
/// Flaky tests that are remembered, those seen last.
const FLAKY_MAX: usize = 500;
/// Runs that are remembered as counted: a report that comes again counts once.
const COUNTED_MAX: usize = 50;
/// The longest quarantine, in days. Who needs longer has to say so again.
const DAYS_MAX: i64 = 180;
/// Characters of an owner or a reason.
const WORDS_MAX: usize = 500;

/// What a service remembers of its tests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Testing {
    /// Tests that don't block, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Tests that passed and failed on one commit, those seen last at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaky: Vec<FlakyTest>,
    /// Runs that have been counted, with how many reports they had then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counted: Vec<(RunNumber, u32)>,
}

/// A test in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which.
    pub test: TestId,
    /// Who looks after it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Who put it there.
    pub by: String,
    /// When.
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
    /// Which.
    pub test: TestId,
    /// On how many commits.
    pub commits: u32,
    /// The last of them.
    pub commit: CommitId,
    /// How that is known.
    pub evidence: Evidence,
    /// Why it failed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was first seen.
    pub first_at: Timestamp,
    /// When it was last seen.
    pub last_at: Timestamp,
}

/// A wish to quarantine a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which.
    pub test: TestId,
    /// Who looks after it.
    pub owner: String,
    /// Why.
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
pub struct Seen {
    /// Which run.
    pub run: RunNumber,
    /// How many of its jobs have reported so far; a run that is run again has more.
    pub reports: u32,
    /// Of which commit.
    pub commit: CommitId,
    /// Tests that passed and failed on it.
    pub flaky: Vec<Sighting>,
    /// Tests in quarantine that passed, wherever they ran.
    pub clean: Vec<TestId>,
    /// Tests in quarantine that failed.
    pub failed: Vec<TestId>,
}

/// The facts of a service's tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A test doesn't block from now on.
    Quarantined {
        /// Which, and on what terms.
        request: Request,
    },
    /// A test blocks again.
    Left {
        /// Which.
        test: TestId,
        /// Why.
        why: String,
    },
    /// A run was seen.
    Seen {
        /// What it has shown.
        seen: Seen,
    },
}

/// Why a test can't be quarantined or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody answers for it.
    #[error("a test in quarantine needs {0}: say who looks after it (--owner) and why (--reason)")]
    Unsaid(&'static str),
    /// The end is past or too far away.
    #[error("a quarantine ends between now and {DAYS_MAX} days from now, not {0}")]
    End(Timestamp),
    /// It would never leave, or at once.
    #[error("a test leaves quarantine after 1 to 1000 clean runs, not {0}")]
    CleanRuns(u32),
    /// It is not flaky: it was just changed.
    #[error("{test} can't be quarantined: the change of {run} touches it, and may be why it fails")]
    Touched {
        /// Which.
        test: TestId,
        /// By which run's change.
        run: RunNumber,
    },
    /// There are enough.
    #[error("{QUARANTINE_MAX} tests are in quarantine already: release some, or mend them")]
    Full,
    /// It isn't there.
    #[error("{0} is not in quarantine")]
    Free(TestId),
}

impl Testing {
    /// A test's entry in the quarantine, over or not.
    #[must_use]
    pub fn entry(&self, test: &TestId) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.test == *test)
    }

    /// What follows from a wish to quarantine a test. One that is there already gets the new terms.
    pub fn quarantine(&self, request: Request, now: Timestamp) -> Result<Fact, Refused> {
        for (text, what) in [(&request.owner, "an owner"), (&request.reason, "a reason")] {
            if text.trim().is_empty() || text.chars().count() > WORDS_MAX {
                return Err(Refused::Unsaid(what));
            }
        }
        let latest = now.checked_add(SignedDuration::from_hours(24 * DAYS_MAX));
        if request.until <= now || latest.is_ok_and(|latest| request.until > latest) {
            return Err(Refused::End(request.until));
        }
        if !(1..=1_000).contains(&request.clean_runs) {
            return Err(Refused::CleanRuns(request.clean_runs));
        }
        if let Some(run) = request.touched_by {
            return Err(Refused::Touched {
                test: request.test,
                run,
            });
        }
        if self.quarantine.len() >= QUARANTINE_MAX && self.entry(&request.test).is_none() {
            return Err(Refused::Full);
        }
        Ok(Fact::Quarantined { request })
    }

    /// What follows from a wish to release a test.
    pub fn release(&self, test: TestId, by: &str) -> Result<Fact, Refused> {
        if self.entry(&test).is_none() {
            return Err(Refused::Free(test));
        }
        Ok(Fact::Left {
            test,
            why: format!("released by {by}"),
        })
    }

    /// What follows from a run that is over; nothing, when it was heard of before or says nothing.
    #[must_use]
    pub fn hear(&self, seen: Seen) -> Option<Fact> {
        let says_nothing = seen.flaky.is_empty() && seen.clean.is_empty() && seen.failed.is_empty();
        let is_known = self.counted.contains(&(seen.run, seen.reports));
        (!says_nothing && !is_known).then_some(Fact::Seen { seen })
    }

    /// The tests that leave now: their time is over, or they have been clean for long enough.
    #[must_use]
    pub fn leaving(&self, now: Timestamp) -> Vec<Fact> {
        let leaving = self.quarantine.iter().filter_map(|entry| {
            let why = if entry.until <= now {
                "its time is over".to_owned()
            } else if entry.clean_runs >= entry.clean_runs_needed {
                format!("{} clean runs in a row", entry.clean_runs)
            } else {
                return None;
            };
            let test = entry.test.clone();
            Some(Fact::Left { test, why })
        });
        leaving.collect()
    }

    /// When the next test leaves because its time is over.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.quarantine.iter().map(|entry| entry.until).min()
    }

    /// Folds a fact.
    pub fn apply(&mut self, fact: &Fact, by: &str, at: Timestamp) {
        match fact {
            Fact::Quarantined { request } => {
                self.quarantine.retain(|entry| entry.test != request.test);
                self.quarantine.push(Quarantined {
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
            Fact::Left { test, .. } => self.quarantine.retain(|entry| entry.test != *test),
            Fact::Seen { seen } => self.see(seen, at),
        }
    }

    fn see(&mut self, seen: &Seen, at: Timestamp) {
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

    fn sighted(&mut self, sighting: &Sighting, commit: &CommitId, at: Timestamp) {
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
