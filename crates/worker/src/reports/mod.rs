//! Test and coverage reports, read when the job's steps have ended: stored as one file next to the journal and one
//! entry in it.
//!
//! # Failure modes
//!
//! Reports are untrusted: files are limited in number and size, reading in time; nothing that they refer to is
//! opened; errors are warnings and never fail the job. Names and messages are masked before they are written.
//!
//! A report counts only if a step of this job has written it, not if it was checked out or restored from a cache.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use shipway_workflow::{
    job::{Conclusion, JobSpec, JournalBody, JournalEntry},
    model::StepAction,
    report::{ReportPaths, StoredReport, TestReport, TestSummary},
};

use crate::{file_hash, mask::Masker};

mod aggregate;
mod coverage;
mod junit;
mod report_error;
mod report_finder;
#[cfg(test)]
mod tests;

use aggregate::ReportAggregate;
use report_error::ReportError;
use report_finder::{FoundReport, ReportKind, ReportPatterns};

/// File name of the stored report, in the job's folder.
const REPORT_FILE: &str = "tests.json.gz";
/// Limit for one report. Large ones contain captured output.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Limit for all reports of a job.
const ALL_BYTES_MAX: u64 = 512 << 20;
/// Limit for reading all reports: the job's result waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Resolution of file timestamps: the kernel's tick.
const TICK: Duration = Duration::from_millis(10);
/// Exit codes from here on don't come from the program: it was not found, or killed by a signal.
const EXIT_CODE_END: u32 = 126;

/// The time span of a step.
struct StepSpan {
    index: usize,
    began: SystemTime,
    ended: SystemTime,
    /// Whether the step brings files of other jobs or commits (checkout, cache, artifact).
    fetches: bool,
    conclusion: Conclusion,
    why: Option<String>,
    /// Whether it ran in a previous attempt.
    earlier: bool,
}

impl StepSpan {
    fn covers_time(&self, at: SystemTime) -> bool {
        at + TICK >= self.began && at <= self.ended + TICK
    }
}

/// Reads all reports and stores them in the job's `folder`; `None` if there are none.
pub(crate) fn collect_reports(
    spec: &JobSpec,
    workspace: &Path,
    folder: &Path,
    entries: &[JournalEntry],
    masker: &Masker,
) -> io::Result<Option<StoredReport>> {
    let spans = step_spans(spec, entries);
    let Some(began) = spans.iter().map(|span| span.began).min() else {
        return Ok(None);
    };
    let (report, explains) = read_reports(&spec.reports, workspace, began, &spans, masker);
    if report == TestReport::default() {
        return Ok(None);
    }
    let path = folder.join(REPORT_FILE);
    let mut file = GzEncoder::new(
        io::BufWriter::new(File::create(&path)?),
        Compression::fast(),
    );
    serde_json::to_writer(&mut file, &report)?;
    let mut file = file.finish()?;
    file.flush()?;
    // fsync before the journal refers to this file.
    file.get_ref().sync_all()?;
    let size = file.get_ref().metadata()?.len();
    let digest = format!(
        "sha256:{}",
        file_hash::to_hex(&file_hash::hash_file(&path)?)
    );
    Ok(Some(StoredReport {
        path,
        digest,
        size,
        summary: TestSummary::from_report(&report, explains),
    }))
}

fn read_reports(
    paths: &ReportPaths,
    workspace: &Path,
    began: SystemTime,
    spans: &[StepSpan],
    masker: &Masker,
) -> (TestReport, Option<usize>) {
    let mut aggregate = ReportAggregate::new(masker).with_workspace(workspace);
    let wanted = match report_patterns(paths) {
        Ok(wanted) => wanted,
        Err(why) => {
            aggregate.add_warning(format!("reports can't be looked for: {why}"));
            return (aggregate.into_report(), None);
        }
    };
    let (found, trouble) = report_finder::find_reports(workspace, &wanted);
    if let Some(trouble) = trouble {
        aggregate.add_warning(trouble);
    }
    let (deadline, mut bytes_left) = (Instant::now() + PATIENCE, ALL_BYTES_MAX);
    let mut explained = only_failed_step(spans);
    for report in &found {
        if Instant::now() > deadline || bytes_left == 0 {
            aggregate.add_warning(format!(
                "reports from {} on are ignored: there are too many, or they are too large",
                report.name
            ));
            break;
        }
        let before = aggregate.failed_tests();
        match read_one_report(report, began, spans, paths, bytes_left, &mut aggregate) {
            Ok(read) => {
                bytes_left = bytes_left.saturating_sub(read.bytes);
                // A test that failed in another step doesn't explain why this one failed.
                let elsewhere =
                    |span: &&StepSpan| !read.written.is_some_and(|at| span.covers_time(at));
                if aggregate.failed_tests() > before && explained.as_ref().is_some_and(elsewhere) {
                    explained = None;
                }
            }
            Err(why) => aggregate.add_warning(format!("{}: {why}", report.name)),
        }
    }
    let explains = explained.filter(|_| aggregate.failed_tests() > 0);
    (aggregate.into_report(), explains.map(|span| span.index))
}

/// The result of reading a file.
#[derive(Default)]
struct ReadReport {
    bytes: u64,
    /// `None` if it was not written by this job.
    written: Option<SystemTime>,
}

fn read_one_report(
    report: &FoundReport,
    began: SystemTime,
    spans: &[StepSpan],
    paths: &ReportPaths,
    bytes_left: u64,
    aggregate: &mut ReportAggregate<'_>,
) -> Result<ReadReport, ReportError> {
    let text = report_finder::read_report(report, FILE_BYTES_MAX.min(bytes_left))?;
    let fetched = spans
        .iter()
        .any(|span| span.fetches && span.covers_time(text.written))
        && !spans
            .iter()
            .any(|span| !span.fetches && span.covers_time(text.written));
    // Written by the failed step of the previous attempt, which runs again.
    let outdated = spans.iter().any(|span| span.earlier)
        && !spans.iter().any(|span| span.covers_time(text.written));
    if text.written + TICK < began || fetched || outdated {
        return Ok(ReadReport::default());
    }
    match report.kind {
        ReportKind::Tests => junit::read_junit(&text.text, aggregate)?,
        ReportKind::Coverage => {
            let known = coverage::read_coverage(&text.text, aggregate)?;
            // With the default patterns, the file may belong to another tool.
            if !known && !paths.coverage.is_empty() {
                return Err(ReportError::UnknownCoverageFormat);
            }
        }
    }
    Ok(ReadReport {
        bytes: text.bytes,
        written: Some(text.written),
    })
}

fn report_patterns(paths: &ReportPaths) -> Result<ReportPatterns, ReportError> {
    let named = |named: &'_ [String]| -> Vec<String> { named.to_vec() };
    let usual = |usual: &[&str]| usual.iter().map(|pattern| (*pattern).to_owned()).collect();
    let (tests, coverage) = (named(&paths.junit), named(&paths.coverage));
    ReportPatterns::new(
        &if tests.is_empty() {
            usual(&ReportPaths::JUNIT)
        } else {
            tests
        },
        &if coverage.is_empty() {
            usual(&ReportPaths::COVERAGE)
        } else {
            coverage
        },
    )
}

/// The finished steps in the journal.
fn step_spans(spec: &JobSpec, entries: &[JournalEntry]) -> Vec<StepSpan> {
    let mut spans: Vec<StepSpan> = Vec::new();
    for entry in entries {
        let at = SystemTime::from(entry.at);
        match &entry.body {
            JournalBody::StepStarted { index, id, .. } => {
                let step = spec.steps.iter().find(|step| step.id == *id);
                spans.push(StepSpan {
                    index: *index,
                    began: at,
                    ended: at,
                    fetches: step.is_some_and(|step| brings_files(&step.action)),
                    conclusion: Conclusion::Skipped,
                    why: None,
                    earlier: false,
                });
            }
            JournalBody::StepFinished {
                index,
                conclusion,
                why,
                earlier,
                ..
            } => {
                let open = spans.iter_mut().rev().find(|span| span.index == *index);
                if let Some(span) = open {
                    (span.ended, span.conclusion, span.why) = (at, *conclusion, why.clone());
                    if let Some(earlier) = earlier {
                        span.began = SystemTime::from(earlier.began);
                        span.ended = SystemTime::from(earlier.ended);
                        span.earlier = true;
                    }
                }
            }
            _ => {}
        }
    }
    spans
}

/// Whether an action brings files of other jobs or commits, which may include reports.
fn brings_files(action: &StepAction) -> bool {
    let StepAction::Uses { action, .. } = action else {
        return false;
    };
    let name = action
        .split('@')
        .next()
        .unwrap_or(action)
        .to_ascii_lowercase();
    [
        "actions/checkout",
        "actions/download-artifact",
        "actions/cache",
    ]
    .iter()
    .any(|known| name.starts_with(known))
}

/// The failed step, if there is exactly one and it failed with an exit code of its own.
fn only_failed_step(spans: &[StepSpan]) -> Option<&StepSpan> {
    let mut failed = spans.iter().filter(|span| {
        span.conclusion != Conclusion::Success && span.conclusion != Conclusion::Skipped
    });
    let only = failed.next().filter(|_| failed.next().is_none())?;
    let code = only.why.as_deref()?.strip_prefix("exit code ")?;
    let code: u32 = code.parse().ok()?;
    (1..EXIT_CODE_END).contains(&code).then_some(only)
}
