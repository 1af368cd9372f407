//! Aggregates the reports of a job: each test once, whatever the number of files that contain it, with limits for
//! everything.

use std::{collections::BTreeMap, path::Path};

use shipway_workflow::report::{
    Coverage, LineCoverage, TestCase, TestId, TestOutcome, TestReport, TestStability,
};

use crate::{mask::Masker, workspace_paths::workspace_relative};

/// Limit for tests; a warning counts those beyond it.
const CASES_MAX: usize = 200_000;
/// Limit for messages of failed tests.
const MESSAGES_MAX: usize = 1_000;
/// Characters of a message.
const MESSAGE_MAX: usize = 1_000;
const WARNINGS_MAX: usize = 20;
/// Limit for source files with coverage.
const SOURCES_MAX: usize = 100_000;
/// Limit for their lines, in total; those of several reports count each time.
const LINES_MAX: usize = 20_000_000;

pub(super) struct ReportAggregate<'m> {
    masker: &'m Masker,
    cases: BTreeMap<TestId, TestCase>,
    messages: usize,
    left_out: usize,
    lines: LineCoverage,
    /// Number of lines read so far.
    lines_known: usize,
    /// Path of the workspace, which is removed from file names.
    workspace: String,
    warnings: Vec<String>,
}

impl<'m> ReportAggregate<'m> {
    pub(super) const fn new(masker: &'m Masker) -> Self {
        Self {
            masker,
            cases: BTreeMap::new(),
            messages: 0,
            left_out: 0,
            lines: LineCoverage::new(),
            lines_known: 0,
            workspace: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Masks secrets. Must be called before a text is cut: a partial secret is not recognised.
    pub(super) fn mask_text(&self, text: String) -> String {
        if self.masker.contains_secret(&text) {
            self.masker.mask(&text).into_owned()
        } else {
            text
        }
    }

    /// Adds a test. If it is there with the opposite outcome, it is mixed (flaky): the last outcome counts.
    pub(super) fn add_case(&mut self, mut case: TestCase) {
        if let Some(known) = self.cases.get_mut(&case.id) {
            let disagree = |a: TestOutcome, b: TestOutcome| {
                a.is_bad() && b == TestOutcome::Passed || a == TestOutcome::Passed && b.is_bad()
            };
            if disagree(known.outcome, case.outcome) || known.steadiness == TestStability::Mixed {
                case.steadiness = TestStability::Mixed;
            }
            // Skipped in one report and run in another: it ran.
            if case.outcome == TestOutcome::Skipped {
                case.outcome = known.outcome;
            }
            case.message = case.message.or_else(|| known.message.take());
            case.took_ms = case.took_ms.saturating_add(known.took_ms);
            *known = case;
            return;
        }
        if self.cases.len() >= CASES_MAX {
            self.left_out += 1;
            return;
        }
        if let Some(message) = &mut case.message {
            self.messages += 1;
            if self.messages > MESSAGES_MAX {
                case.message = None;
            } else if let Some((cut, _)) = message.char_indices().nth(MESSAGE_MAX) {
                message.truncate(cut);
                message.push('…');
            }
        }
        self.cases.insert(case.id.clone(), case);
    }

    /// Sets the workspace, whose path is removed from file names: it differs between jobs.
    pub(super) fn with_workspace(mut self, workspace: &Path) -> Self {
        self.workspace = format!("{}/", workspace.display());
        self
    }

    /// Adds the coverage of a source file: its lines, with whether they were run, and counts. Several reports of one
    /// file are merged.
    pub(super) fn add_source(
        &mut self,
        name: &str,
        lines: &BTreeMap<u32, bool>,
        counted: Coverage,
    ) {
        let name = name.strip_prefix(&self.workspace).unwrap_or(name);
        let name = workspace_relative(name)
            .unwrap_or(name)
            .trim_start_matches("./");
        let name = self.mask_text(name.to_owned());
        self.lines_known += lines.len();
        if self.lines.files() >= SOURCES_MAX || self.lines_known > LINES_MAX {
            return self.add_warning(format!(
                "coverage of more than {SOURCES_MAX} files or {LINES_MAX} lines is left out"
            ));
        }
        let lines = lines.iter().map(|(line, run)| (*line, *run));
        self.lines.add(&name, lines, counted);
    }

    /// Adds a warning.
    pub(super) fn add_warning(&mut self, warning: String) {
        let warning = self.mask_text(warning);
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Number of failed tests so far.
    pub(super) fn failed_tests(&self) -> usize {
        self.cases.values().filter(|case| case.is_failure()).count()
    }

    pub(super) fn into_report(mut self) -> TestReport {
        if self.left_out > 0 {
            let left_out = self.left_out;
            self.add_warning(format!(
                "{left_out} tests beyond the first {CASES_MAX} are left out"
            ));
        }
        let coverage = self.lines.coverage();
        TestReport {
            cases: self.cases.into_values().collect(),
            coverage: (coverage.lines.total > 0).then_some(coverage),
            lines: self.lines,
            warnings: self.warnings,
        }
    }
}
