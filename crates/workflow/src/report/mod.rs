//! What the tests of a job said, as a worker writes it down and everyone reads it: which tests there were, how each ended, and
//! how much of the code they ran.
//!
//! The whole [`TestReport`] of a job is a file (gzipped JSON); the log records only its [`TestSummary`], which is small whatever
//! the job did. It holds no secrets: the worker masks names and messages before they are written.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

mod lines;

pub use lines::LineCoverage;

/// Failing tests that are named on record; the rest is in the report.
pub const FAILING_MAX: usize = 20;

/// Maximum bytes of recorded line coverage, which a run merges over its jobs; larger coverage is only in the report. Enough
/// for about a hundred thousand lines of code.
const LINES_BYTES_MAX: usize = 64 << 10;

/// The longest part of a test's name that is kept, in characters. Parametrised tests put whole documents there.
const NAME_MAX: usize = 300;

/// Names that tools give to the suite of everything: they tell tests apart from none.
const EVERYTHING: [&str; 9] = [
    "pytest",
    "jest tests",
    "mocha tests",
    "vitest tests",
    "nextest-run",
    "root suite",
    "tests",
    "test",
    "root",
];

/// Where a job's reports are. Nothing named: where tools write them ([`ReportPaths::JUNIT`], [`ReportPaths::COVERAGE`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPaths {
    /// Patterns of JUnit XML files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub junit: Vec<String>,
    /// Patterns of Cobertura XML and LCOV files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<String>,
}

impl ReportPaths {
    /// Default paths of JUnit XML.
    pub const JUNIT: [&'static str; 1] = ["**/TEST-*.xml"];
    /// Default paths of coverage reports.
    pub const COVERAGE: [&'static str; 4] = [
        "**/lcov.info",
        "**/coverage.xml",
        "**/cobertura.xml",
        "**/cobertura-coverage.xml",
    ];

    /// Whether no paths are configured.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.junit.is_empty() && self.coverage.is_empty()
    }
}

/// A test, by the names its tool gives it. Two reports that mean the same test say the same here: [`TestId::new`] sees to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TestId {
    /// The suite, where there is no class that says more. Suites are named after dates, hosts and files of configuration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// The class, module or package.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The test itself.
    pub name: String,
}

impl TestId {
    /// A test by its names as they are in a report: white space and what can't be printed is evened out, over-long names are cut
    /// (a hash keeps them apart), and a suite or class that means "everything" is left out, as is a class that is the name again.
    #[must_use]
    pub fn new(suite: &str, class: &str, name: &str) -> Self {
        let (mut suite, mut class, name) = (even(suite), even(class), even(name));
        let says_nothing = |part: &str| EVERYTHING.contains(&part.to_lowercase().as_str());
        if says_nothing(&class) || class == name {
            class.clear();
        }
        if says_nothing(&suite) || !class.is_empty() {
            suite.clear();
        }
        Self { suite, class, name }
    }
}

impl fmt::Display for TestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.suite, &self.class] {
            if !part.is_empty() {
                write!(f, "{part}/")?;
            }
        }
        f.write_str(&self.name)
    }
}

/// One line without what can't be printed, not too long.
fn even(text: &str) -> String {
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(NAME_MAX) {
        let hash = fnv(line.as_bytes());
        line.truncate(cut);
        line.push_str(&format!("…{hash:016x}"));
    }
    line
}

/// FNV-1a: the same everywhere and forever, which the standard library's hash doesn't promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// As it should.
    Passed,
    /// What it asserts is not so.
    Failed,
    /// It could not be carried out.
    Errored,
    /// It was left out.
    Skipped,
}

impl TestOutcome {
    /// Failed or errored.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Errored)
    }
}

/// Whether a test kept to one outcome while it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStability {
    /// It did, as far as the report says.
    #[default]
    Steady,
    /// Its tool ran it again, and it passed after it had failed.
    PassedOnRerun,
    /// The report has it more than once, passed and failed.
    Mixed,
}

impl TestStability {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        *self == Self::Steady
    }
}

/// One test and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCase {
    /// Which.
    pub id: TestId,
    /// How; of several tries the last.
    pub outcome: TestOutcome,
    /// How long, in milliseconds.
    pub took_ms: u64,
    /// Whether its tries agreed.
    #[serde(default, skip_serializing_if = "TestStability::is_steady")]
    pub steadiness: TestStability,
    /// Why, in a line, when it ended badly in any of its tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The file it is in, as its tool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl TestCase {
    /// Whether any try ended badly and no rerun has made up for it. A test that a report has twice, once failed, counts.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.outcome.is_bad() || self.steadiness == TestStability::Mixed
    }

    /// Whether it passed and failed in one run.
    #[must_use]
    pub fn is_flaky(&self) -> bool {
        !self.steadiness.is_steady()
    }
}

/// Covered parts of a whole: lines or branches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageCount {
    /// So many were run.
    pub covered: u64,
    /// Of so many.
    pub total: u64,
}

impl CoverageCount {
    /// In hundredths of a percent, rounded down; none of nothing.
    #[must_use]
    pub fn basis_points(self) -> Option<u32> {
        let share = u128::from(self.covered) * 10_000;
        let share = share.checked_div(u128::from(self.total))?;
        u32::try_from(share.min(10_000)).ok()
    }

    /// Both together.
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        Self {
            covered: self.covered.saturating_add(other.covered),
            total: self.total.saturating_add(other.total),
        }
    }
}

/// How much of the code was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Lines.
    pub lines: CoverageCount,
    /// Branches; 0 of 0 if they were not counted.
    #[serde(default)]
    pub branches: CoverageCount,
}

impl Coverage {
    /// Both together.
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        Self {
            lines: self.lines.merge(other.lines),
            branches: self.branches.merge(other.branches),
        }
    }
}

/// The coverage of several jobs together: line by line where their lines are known, else added up.
#[must_use]
pub fn combine_coverage<'r>(
    jobs: impl IntoIterator<Item = (Option<Coverage>, &'r LineCoverage)>,
) -> Option<Coverage> {
    let (mut lines, mut added) = (LineCoverage::default(), None);
    for (coverage, known) in jobs {
        let Some(coverage) = coverage else { continue };
        if known.is_empty() {
            added = Some(added.unwrap_or_else(Coverage::default).merge(coverage));
        } else {
            lines.merge(known);
        }
    }
    match (lines.is_empty(), added) {
        (true, added) => added,
        (false, added) => Some(lines.coverage().merge(added.unwrap_or_default())),
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestTotals {
    /// All.
    pub tests: u64,
    /// As they should.
    pub passed: u64,
    /// Otherwise.
    pub failed: u64,
    /// Not carried out.
    pub errored: u64,
    /// Left out.
    pub skipped: u64,
    /// Among them those that passed and failed.
    #[serde(default)]
    pub flaky: u64,
    /// Their time in milliseconds, as if one after the other.
    pub took_ms: u64,
}

impl TestTotals {
    /// Of these tests.
    #[must_use]
    pub fn from_cases<'c>(cases: impl IntoIterator<Item = &'c TestCase>) -> Self {
        let mut totals = Self::default();
        for case in cases {
            totals.tests += 1;
            match case.outcome {
                TestOutcome::Passed => totals.passed += 1,
                TestOutcome::Failed => totals.failed += 1,
                TestOutcome::Errored => totals.errored += 1,
                TestOutcome::Skipped => totals.skipped += 1,
            }
            totals.flaky += u64::from(case.is_flaky());
            totals.took_ms = totals.took_ms.saturating_add(case.took_ms);
        }
        totals
    }

    /// Both together.
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        Self {
            tests: self.tests + other.tests,
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            errored: self.errored + other.errored,
            skipped: self.skipped + other.skipped,
            flaky: self.flaky + other.flaky,
            took_ms: self.took_ms.saturating_add(other.took_ms),
        }
    }

    /// Failed or errored.
    #[must_use]
    pub const fn bad(self) -> u64 {
        self.failed + self.errored
    }
}

/// All that the tests of a job said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The tests, each once, in order of their names.
    pub cases: Vec<TestCase>,
    /// How much of the code was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Which lines that was.
    #[serde(default, skip_serializing_if = "LineCoverage::is_empty")]
    pub lines: LineCoverage,
    /// What could not be read. Where there is any, the report is not whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl TestReport {
    /// Its tests by name.
    #[must_use]
    pub fn by_id(&self) -> BTreeMap<&TestId, &TestCase> {
        self.cases.iter().map(|case| (&case.id, case)).collect()
    }
}

/// A failing test, as it is on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTest {
    /// Which.
    pub id: TestId,
    /// Why, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The recorded summary of a job's tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestSummary {
    /// How many ended how.
    pub totals: TestTotals,
    /// The first of those that failed, at most [`FAILING_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<FailedTest>,
    /// How much of the code was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Which lines that was; none where that is too much for a record.
    #[serde(default, skip_serializing_if = "LineCoverage::is_empty")]
    pub lines: LineCoverage,
    /// What could not be read, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The step whose failure these tests explain: the only one that failed, by an ordinary exit code, and it wrote all reports
    /// in which a test failed, all of them whole. None: what failed may be something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explains: Option<usize>,
}

impl TestSummary {
    /// Of a report.
    #[must_use]
    pub fn from_report(report: &TestReport, explains: Option<usize>) -> Self {
        let failing = report.cases.iter().filter(|case| case.is_failure());
        Self {
            totals: TestTotals::from_cases(&report.cases),
            failing: failing
                .take(FAILING_MAX)
                .map(|case| FailedTest {
                    id: case.id.clone(),
                    message: case.message.clone(),
                })
                .collect(),
            coverage: report.coverage,
            lines: if report.lines.weight() <= LINES_BYTES_MAX {
                report.lines.clone()
            } else {
                LineCoverage::default()
            },
            warnings: report.warnings.iter().take(5).cloned().collect(),
            explains: explains.filter(|_| report.warnings.is_empty()),
        }
    }
}

/// A job's report as a file, and its recorded summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReport {
    /// The gzipped [`TestReport`].
    pub path: PathBuf,
    /// `sha256:…` of that file.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// In short.
    pub summary: TestSummary,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_has_one_name_whatever_its_tool_makes_of_it() {
        let plain = TestId::new("pytest", "tests.test_shop.TestCart", "test_adds");
        assert_eq!(plain.to_string(), "tests.test_shop.TestCart/test_adds");
        assert_eq!(
            TestId::new(
                "tests.test_shop.TestCart",
                " tests.test_shop.TestCart\n",
                "test_adds"
            ),
            plain
        );
        let odd = TestId::new("", "a", "two\u{7} lines\r\n  of\tname");
        assert_eq!(odd.name, "two lines of name");
        let long = |end: &str| TestId::new("", "a", &format!("{}{end}", "x".repeat(1_000)));
        assert_ne!(long("1"), long("2"));
        assert!(long("1").name.chars().count() < 330);
    }

    #[test]
    fn shares_of_nothing_are_none() {
        let of = |covered, total| CoverageCount { covered, total }.basis_points();
        assert_eq!(of(0, 0), None);
        assert_eq!(of(2, 3), Some(6_666));
        assert_eq!(of(u64::MAX, 1), Some(10_000));
    }
}
