//! Reports of tests, read when the job's steps are over: what they say becomes one file beside the journal and one line in it.
//!
//! Everything here comes from whatever the steps ran, so it is taken for hostile: files are bounded in number and bytes and read
//! in bounded time, nothing that they refer to is followed, and what is wrong with them is a warning. A job never fails because of
//! a report. Secrets in names and messages are masked before anything is written.
//!
//! A report counts if a step of this job has written it: what lay in the repository or came out of a cache is of another day.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use shipway_workflow::{
    job::{Conclusion, JobSpec, JournalBody, JournalEntry},
    model::Action,
    report::{Paths, Report, StoredReport, Summary},
};

use crate::{hash, mask::Masker};

mod coverage;
mod find;
mod gathered;
mod junit;
#[cfg(test)]
mod tests;

use find::{Found, Kind, Wanted};
use gathered::Gathered;

/// The report, in the job's folder.
const REPORT_FILE: &str = "tests.json.gz";
/// The largest report that is read. What makes them larger is captured output.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// And of all of them together.
const ALL_BYTES_MAX: u64 = 512 << 20;
/// How long reading may take: the job's result waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// File systems date files by the last tick of the kernel's clock, which is this long at most.
const TICK: Duration = Duration::from_millis(10);
/// Exit codes from here on are not a program's own: it was not found, or a signal has ended it.
const EXIT_CODE_END: u32 = 126;

/// A step that is over, as far as reports are concerned.
struct Span {
    index: usize,
    began: SystemTime,
    ended: SystemTime,
    /// Whether it brings files from elsewhere.
    fetches: bool,
    conclusion: Conclusion,
    why: Option<String>,
    /// Whether it ran in an earlier attempt at the job.
    earlier: bool,
}

impl Span {
    fn wrote(&self, at: SystemTime) -> bool {
        at + TICK >= self.began && at <= self.ended + TICK
    }
}

/// Reads what the steps have reported and stores it in the job's `folder`; none when there is nothing to say.
pub(crate) fn collect(
    spec: &JobSpec,
    workspace: &Path,
    folder: &Path,
    entries: &[JournalEntry],
    masker: &Masker,
) -> io::Result<Option<StoredReport>> {
    let spans = spans(spec, entries);
    let Some(began) = spans.iter().map(|span| span.began).min() else {
        return Ok(None);
    };
    let (report, explains) = read(&spec.reports, workspace, began, &spans, masker);
    if report == Report::default() {
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
    // The journal will say that it is there.
    file.get_ref().sync_all()?;
    let size = file.get_ref().metadata()?.len();
    let digest = format!("sha256:{}", hash::hex(&hash::of_file(&path)?));
    Ok(Some(StoredReport {
        path,
        digest,
        size,
        summary: Summary::of(&report, explains),
    }))
}

fn read(
    paths: &Paths,
    workspace: &Path,
    began: SystemTime,
    spans: &[Span],
    masker: &Masker,
) -> (Report, Option<usize>) {
    let mut gathered = Gathered::new(masker).within(workspace);
    let wanted = match wanted(paths) {
        Ok(wanted) => wanted,
        Err(why) => {
            gathered.warn(format!("reports can't be looked for: {why}"));
            return (gathered.report(), None);
        }
    };
    let (found, trouble) = find::find(workspace, &wanted);
    if let Some(trouble) = trouble {
        gathered.warn(trouble);
    }
    let (deadline, mut bytes_left) = (Instant::now() + PATIENCE, ALL_BYTES_MAX);
    let mut explained = failed(spans);
    for report in &found {
        if Instant::now() > deadline || bytes_left == 0 {
            gathered.warn(format!(
                "reports from {} on are left out: there are too many, or they are too large",
                report.name
            ));
            break;
        }
        let before = gathered.failures();
        match one(report, began, spans, paths, bytes_left, &mut gathered) {
            Ok(read) => {
                bytes_left = bytes_left.saturating_sub(read.bytes);
                // A test that failed in another step is not what this one failed of.
                let elsewhere = |span: &&Span| !read.written.is_some_and(|at| span.wrote(at));
                if gathered.failures() > before && explained.as_ref().is_some_and(elsewhere) {
                    explained = None;
                }
            }
            Err(why) => gathered.warn(format!("{}: {why}", report.name)),
        }
    }
    let explains = explained.filter(|_| gathered.failures() > 0);
    (gathered.report(), explains.map(|span| span.index))
}

/// What reading a file has come to.
#[derive(Default)]
struct Done {
    bytes: u64,
    /// None: it is not of this job.
    written: Option<SystemTime>,
}

fn one(
    report: &Found,
    began: SystemTime,
    spans: &[Span],
    paths: &Paths,
    bytes_left: u64,
    gathered: &mut Gathered<'_>,
) -> Result<Done, String> {
    let text = find::read(report, FILE_BYTES_MAX.min(bytes_left))?;
    let fetched = spans
        .iter()
        .any(|span| span.fetches && span.wrote(text.written))
        && !spans
            .iter()
            .any(|span| !span.fetches && span.wrote(text.written));
    // What the step left that failed in the earlier attempt.
    let outdated =
        spans.iter().any(|span| span.earlier) && !spans.iter().any(|span| span.wrote(text.written));
    if text.written + TICK < began || fetched || outdated {
        return Ok(Done::default());
    }
    match report.kind {
        Kind::Tests => junit::read(&text.text, gathered)?,
        Kind::Coverage => {
            let known = coverage::read(&text.text, gathered)?;
            // Of the usual names one may be another tool's.
            if !known && !paths.coverage.is_empty() {
                return Err("it is neither Cobertura XML nor LCOV".to_owned());
            }
        }
    }
    Ok(Done {
        bytes: text.bytes,
        written: Some(text.written),
    })
}

fn wanted(paths: &Paths) -> Result<Wanted, String> {
    let named = |named: &'_ [String]| -> Vec<String> { named.to_vec() };
    let usual = |usual: &[&str]| usual.iter().map(|pattern| (*pattern).to_owned()).collect();
    let (tests, coverage) = (named(&paths.junit), named(&paths.coverage));
    Wanted::new(
        &if tests.is_empty() {
            usual(&Paths::JUNIT)
        } else {
            tests
        },
        &if coverage.is_empty() {
            usual(&Paths::COVERAGE)
        } else {
            coverage
        },
    )
}

/// The steps that are over, by the journal.
fn spans(spec: &JobSpec, entries: &[JournalEntry]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for entry in entries {
        let at = SystemTime::from(entry.at);
        match &entry.body {
            JournalBody::StepStarted { index, id, .. } => {
                let step = spec.steps.iter().find(|step| step.id == *id);
                spans.push(Span {
                    index: *index,
                    began: at,
                    ended: at,
                    fetches: step.is_some_and(|step| fetches(&step.action)),
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

/// Whether an action brings files from elsewhere, reports among them.
fn fetches(action: &Action) -> bool {
    let Action::Uses { action, .. } = action else {
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

/// The only step that failed, if it did so by an exit code of its own.
fn failed(spans: &[Span]) -> Option<&Span> {
    let mut failed = spans.iter().filter(|span| {
        span.conclusion != Conclusion::Success && span.conclusion != Conclusion::Skipped
    });
    let only = failed.next().filter(|_| failed.next().is_none())?;
    let code = only.why.as_deref()?.strip_prefix("exit code ")?;
    let code: u32 = code.parse().ok()?;
    (1..EXIT_CODE_END).contains(&code).then_some(only)
}
