//! Progress lines for a person who follows a run: on a pusher's terminal, in `shipway run`.

use shipway_workflow::{
    graph::RerunSelection,
    job::{AnnotationLevel, Conclusion, JobKey},
};

use super::{event::RunEvent, gate, test_results::in_short};
use crate::testing::TestSummary;

/// Error lines per job; the page has the others.
const TOLD_MAX: usize = 5;

/// The lines that a fact is worth; most are worth none.
#[must_use]
pub fn story_lines(body: &RunEvent) -> Vec<String> {
    let because = |why: &Option<String>| {
        why.as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default()
    };
    match body {
        RunEvent::JobStarted { key } => vec![format!("· {key} started")],
        RunEvent::StepFinished { key, step } if step.conclusion == Conclusion::Failure => {
            vec![format!(
                "✗ {key}: {} failed after {} ms",
                step.name, step.took_ms
            )]
        }
        RunEvent::Annotated { key, annotations } => annotations
            .iter()
            .filter(|annotation| annotation.level == AnnotationLevel::Error)
            .take(TOLD_MAX)
            .map(|annotation| format!("  {key}: {}", annotation.in_one_line()))
            .collect(),
        RunEvent::ArtifactStored { .. }
        | RunEvent::StorageDelayed { .. }
        | RunEvent::TestsReported { .. } => storage_lines(body),
        RunEvent::JobEnded {
            key,
            conclusion,
            why,
            ..
        } => vec![job_end(key, *conclusion, &because(why))],
        RunEvent::JobRetried { key, why } => vec![format!("· {key} starts again: {why}")],
        RunEvent::RerunStarted {
            attempt,
            again,
            from,
        } => rerun_lines(*attempt, again, from),
        RunEvent::SecretsShown { key, .. } => {
            vec![format!("· a shell was given the secrets of {key}")]
        }
        // A call ends with its jobs, which have been printed.
        RunEvent::JobCompleted {
            job,
            result: Conclusion::Skipped,
            why,
        } => vec![format!("- {job} skipped{}", because(why))],
        RunEvent::Gate(fact) => gate::story_lines(fact),
        RunEvent::CancellationRequested { reason } => vec![format!("cancelling: {reason}")],
        RunEvent::Ended {
            conclusion: Conclusion::Success,
            ..
        } => vec!["✓ all jobs succeeded".to_owned()],
        RunEvent::Ended { conclusion, why } => vec![format!("✗ {conclusion}{}", because(why))],
        RunEvent::Opened { .. }
        | RunEvent::JobReady { .. }
        | RunEvent::StepFinished { .. }
        | RunEvent::StopRequested { .. }
        | RunEvent::JobCompleted { .. }
        | RunEvent::ServiceNotified => Vec::new(),
    }
}

/// Files and reports that a job left.
fn storage_lines(body: &RunEvent) -> Vec<String> {
    match body {
        RunEvent::ArtifactStored { artifact } => {
            vec![format!(
                "· artifact {} stored: {} bytes, {}",
                artifact.name,
                artifact.size,
                artifact.digest.short()
            )]
        }
        RunEvent::StorageDelayed { key, reason } => match reason {
            Some(reason) => vec![format!("· {key}: {reason}")],
            None => vec![format!("· {key}: stored")],
        },
        RunEvent::TestsReported { key, tests } => test_lines(key, &tests.summary),
        _ => Vec::new(),
    }
}

fn job_end(key: &JobKey, conclusion: Conclusion, because: &str) -> String {
    match conclusion {
        Conclusion::Success => format!("✓ {key}{because}"),
        Conclusion::Failure => format!("✗ {key}{because}"),
        Conclusion::Cancelled => format!("✗ {key} cancelled{because}"),
        Conclusion::Skipped => format!("- {key} skipped{because}"),
        Conclusion::Incomplete => format!("✗ {key} incomplete{because}"),
    }
}

fn rerun_lines(attempt: u32, again: &RerunSelection, resumed: &[(JobKey, String)]) -> Vec<String> {
    let what = match again {
        RerunSelection::All => "all jobs".to_owned(),
        RerunSelection::Failed => "the failed jobs".to_owned(),
        RerunSelection::Job(key) => key.to_string(),
    };
    let resumed = resumed.iter();
    let resumed = resumed.map(|(key, step)| format!("  {key} resumes at its step {step}"));
    let title = format!("· attempt {attempt}: re-running {what}");
    std::iter::once(title).chain(resumed).collect()
}

/// The totals of a job's tests, and the reports that could not be read.
fn test_lines(key: &JobKey, summary: &TestSummary) -> Vec<String> {
    let short = in_short(&summary.totals, summary.coverage.as_ref());
    let short = (!short.is_empty()).then(|| format!("· {key}: {short}"));
    let warnings = summary.warnings.iter();
    let warnings = warnings.map(|warning| format!("· {key}: report {warning}"));
    short.into_iter().chain(warnings).collect()
}
