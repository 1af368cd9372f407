//! Where the output of each step is in the log of a job, read from the job's journal.

use std::path::Path;

use jiff::Timestamp;
use shipway_worker::read_journal;
use shipway_workflow::job::{Conclusion, JournalBody};

use super::JOURNAL_FILE;

/// A step that has run in an attempt at a job, and where its output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedStep {
    /// Its place in the job, from 0.
    pub index: usize,
    /// Its display name, masked.
    pub name: String,
    /// When it began.
    pub started_at: Timestamp,
    /// The first byte of its output in the log.
    pub log_start: u64,
    /// How it ended; none while it runs.
    pub end: Option<LoggedStepEnd>,
}

/// How a logged step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedStepEnd {
    /// `continue-on-error` not counted.
    pub outcome: Conclusion,
    /// How long it took.
    pub took_ms: u64,
    /// The byte after its output in the log.
    pub log_end: u64,
}

/// The steps that have run in the attempt in this folder; empty if it has no readable journal.
pub(super) fn read_step_log(folder: &Path) -> Vec<LoggedStep> {
    let entries = read_journal(&folder.join(JOURNAL_FILE)).unwrap_or_default();
    let mut steps: Vec<LoggedStep> = Vec::new();
    for entry in entries {
        match entry.body {
            JournalBody::StepStarted {
                index,
                name,
                log_offset,
                ..
            } => steps.push(LoggedStep {
                index,
                name,
                started_at: entry.at,
                log_start: log_offset,
                end: None,
            }),
            JournalBody::StepFinished {
                index,
                outcome,
                took_ms,
                log_offset,
                ..
            } => {
                // Steps that an earlier attempt has finished have no start here, and no output.
                if let Some(step) = steps.iter_mut().rfind(|step| step.index == index) {
                    step.end = Some(LoggedStepEnd {
                        outcome,
                        took_ms,
                        log_end: log_offset,
                    });
                }
            }
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_says_where_the_output_of_each_step_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_step_log(folder.path()).is_empty());
        let text = concat!(
            r#"{"seq":1,"at":"2026-11-21T04:18:58Z","body":{"step_started":{"index":0,"id":"a","name":"Build","log_offset":10}}}"#,
            "\n",
            r#"{"seq":2,"at":"2026-11-21T04:18:59Z","body":{"step_finished":{"index":0,"id":"a","outcome":"failure","conclusion":"success","outputs":[],"took_ms":7,"log_offset":90}}}"#,
            "\n",
            r#"{"seq":3,"at":"2026-11-21T04:19:00Z","body":{"step_started":{"index":1,"id":"b","name":"Test","log_offset":90}}}"#,
            "\n",
        );
        std::fs::write(folder.path().join(JOURNAL_FILE), text).unwrap();
        let steps = read_step_log(folder.path());
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].name.as_str(), steps[0].log_start), ("Build", 10));
        assert_eq!(
            steps[0].end,
            Some(LoggedStepEnd {
                outcome: Conclusion::Failure,
                took_ms: 7,
                log_end: 90
            })
        );
        assert_eq!((steps[1].log_start, steps[1].end), (90, None));
    }
}
