//! What was read so far of a job's tests: each once, whatever number of files has it, and no more than a job may reasonably have.

use std::{collections::BTreeMap, path::Path};

use shipway_workflow::report::{Case, Coverage, Lines, Outcome, Report, Steadiness, TestId};

use crate::{containers::in_workspace, mask::Masker};

/// Tests that are kept. More are counted as a warning, so that nobody takes the report for whole.
const CASES_MAX: usize = 200_000;
/// Messages that are kept; a run in which more fail is not read test by test.
const MESSAGES_MAX: usize = 1_000;
/// Characters of a message.
const MESSAGE_MAX: usize = 1_000;
/// What could not be read is said so often.
const WARNINGS_MAX: usize = 20;
/// Files whose coverage is kept.
const SOURCES_MAX: usize = 100_000;
/// And their lines, those of several reports counted each time.
const LINES_MAX: usize = 20_000_000;

/// What was read so far.
pub(super) struct Gathered<'m> {
    masker: &'m Masker,
    cases: BTreeMap<TestId, Case>,
    messages: usize,
    left_out: usize,
    lines: Lines,
    /// How many lines that are.
    lines_known: usize,
    /// Where the files are; their names on record are without it.
    workspace: String,
    warnings: Vec<String>,
}

impl<'m> Gathered<'m> {
    pub(super) const fn new(masker: &'m Masker) -> Self {
        Self {
            masker,
            cases: BTreeMap::new(),
            messages: 0,
            left_out: 0,
            lines: Lines::new(),
            lines_known: 0,
            workspace: String::new(),
            warnings: Vec::new(),
        }
    }

    /// The text without secrets. Asked before anything is cut: half a secret would not be known again.
    pub(super) fn masked(&self, text: String) -> String {
        if self.masker.finds(&text) {
            self.masker.mask(&text).into_owned()
        } else {
            text
        }
    }

    /// Takes in a test. One that is there already and ended otherwise was mixed: what came last counts, and that it failed once
    /// isn't forgotten.
    pub(super) fn case(&mut self, mut case: Case) {
        if let Some(known) = self.cases.get_mut(&case.id) {
            let disagree = |a: Outcome, b: Outcome| {
                a.is_bad() && b == Outcome::Passed || a == Outcome::Passed && b.is_bad()
            };
            if disagree(known.outcome, case.outcome) || known.steadiness == Steadiness::Mixed {
                case.steadiness = Steadiness::Mixed;
            }
            // Left out once and run once: it ran.
            if case.outcome == Outcome::Skipped {
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

    /// Names of source files are without this folder: other jobs have theirs elsewhere.
    pub(super) fn within(mut self, workspace: &Path) -> Self {
        self.workspace = format!("{}/", workspace.display());
        self
    }

    /// Takes in the coverage of a source file: its lines, each with whether it was run, and what else was counted. What several
    /// reports say of one file is put together.
    pub(super) fn source(&mut self, name: &str, lines: &BTreeMap<u32, bool>, counted: Coverage) {
        let name = name.strip_prefix(&self.workspace).unwrap_or(name);
        let name = in_workspace(name).unwrap_or(name).trim_start_matches("./");
        let name = self.masked(name.to_owned());
        self.lines_known += lines.len();
        if self.lines.files() >= SOURCES_MAX || self.lines_known > LINES_MAX {
            return self.warn(format!(
                "coverage of more than {SOURCES_MAX} files or {LINES_MAX} lines is left out"
            ));
        }
        let lines = lines.iter().map(|(line, run)| (*line, *run));
        self.lines.add(&name, lines, counted);
    }

    /// Says that something could not be read.
    pub(super) fn warn(&mut self, warning: String) {
        let warning = self.masked(warning);
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// How many tests failed so far.
    pub(super) fn failures(&self) -> usize {
        self.cases.values().filter(|case| case.is_failure()).count()
    }

    /// The whole.
    pub(super) fn report(mut self) -> Report {
        if self.left_out > 0 {
            let left_out = self.left_out;
            self.warn(format!(
                "{left_out} tests beyond the first {CASES_MAX} are left out"
            ));
        }
        let coverage = self.lines.coverage();
        Report {
            cases: self.cases.into_values().collect(),
            coverage: (coverage.lines.total > 0).then_some(coverage),
            lines: self.lines,
            warnings: self.warnings,
        }
    }
}
