//! Windows of the logs of jobs and searches in them: what a page or a script shows of a log of any size.
//!
//! # Why
//!
//! A log may have hundreds of megabytes. A page shows some hundred lines of it, at a line number or at the line that tells why the job
//! failed. An index of line numbers ([`log_index`]) is built by one pass over the log, which the page cache serves at more than a
//! gigabyte per second, and extended by what the log has grown since.
//!
//! # Failure modes
//!
//! - A log that the retention rule has removed has no window; its index is dropped.
//! - Indexes are caches: two requests that extend the same one do the same work twice, and the longer result is kept.

mod line_collector;
mod log_index;
mod log_search;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use shipway_api::{LogGrowth, LogMatches, LogPlace, LogStep, LogWindow};
use shipway_core::{
    access::JobIdentity,
    run::{RunStatus, telling_line_index},
};
use shipway_drivers::jobs::{JobError, JobExecutor, LoggedStep};
use shipway_workflow::job::Conclusion;

use self::{line_collector::LineCollector, log_index::LogIndex, log_search::LogSearch};
pub(crate) use log_search::SearchText;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Bytes before the end of a step in which the line is looked for that tells why it failed: room for some very long lines.
const FAILURE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of that part that are looked at, when each of its lines is cut.
const FAILURE_TEXT_BYTES: usize = 256 * 1024;
/// Bytes of a line that tell whether it is about the failure.
const FAILURE_LINE_BYTES: usize = 1_000;
/// Indexes that are kept: those of the logs that were read last.
const INDEXES_MAX: usize = 64;
/// Lines before the one that a window is about.
const LINES_BEFORE: u64 = 60;
/// The same before a failing line: few enough for the line to be seen without scrolling.
const LINES_BEFORE_FAILURE: u64 = 8;

/// What a window of a log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogWindowPosition {
    /// The lines from this number on.
    From(u64),
    /// This line, with those around it.
    Around(u64),
    /// The lines of the step with this index.
    Step(usize),
    /// A place that the log itself tells.
    Place(LogPlace),
}

/// Reads logs by line numbers.
#[derive(Clone)]
pub(crate) struct JobLogReader {
    job_executor: Arc<dyn JobExecutor>,
    indexes: Arc<LogIndexCache>,
}

impl JobLogReader {
    pub(crate) fn new(job_executor: Arc<dyn JobExecutor>) -> Self {
        Self {
            job_executor,
            indexes: Arc::default(),
        }
    }

    /// Some lines of a log; `None` if the job has none.
    pub(crate) async fn read_window(
        &self,
        job: &JobIdentity,
        position: LogWindowPosition,
        count: usize,
    ) -> Result<Option<LogWindow>, JobError> {
        let Some(mut index) = self.extended_index(job).await? else {
            return Ok(None);
        };
        let logged = self.job_executor.read_step_log(job).await;
        let steps = self.number_steps(job, &mut index, &logged).await?;
        let (first, focus) = self
            .resolve(job, &index, (&logged, &steps), position, count)
            .await?;
        let mark = index.mark_before_line(first);
        let mut collector = LineCollector::new(mark.number, first, count);
        self.for_each_block(job, mark.offset, |block| collector.add(block))
            .await?;
        let window = LogWindow {
            job: job.key.to_string(),
            attempt: job.attempt,
            total: index.lines(),
            bytes: index.bytes(),
            focus,
            lines: collector.finish(),
            steps,
        };
        self.indexes.store_index(job, index);
        Ok(Some(window))
    }

    /// The lines that contain a text; `None` if the job has no log.
    pub(crate) async fn search(
        &self,
        job: &JobIdentity,
        text: &SearchText,
    ) -> Result<Option<LogMatches>, JobError> {
        let mut search = LogSearch::new(text);
        let read = self.for_each_block(job, 0, |block| {
            search.add(block);
            ControlFlow::Continue(())
        });
        if read.await? == LogPresence::Missing {
            return Ok(None);
        }
        search.finish();
        Ok(Some(LogMatches {
            job: job.key.to_string(),
            attempt: job.attempt,
            count: search.count,
            lines: search.lines,
        }))
    }

    /// How long a log is now; `None` if the job has none.
    pub(crate) async fn measure(&self, job: &JobIdentity) -> Result<Option<LogGrowth>, JobError> {
        let Some(index) = self.extended_index(job).await? else {
            return Ok(None);
        };
        let growth = LogGrowth {
            total: index.lines(),
            bytes: index.bytes(),
        };
        self.indexes.store_index(job, index);
        Ok(Some(growth))
    }

    /// The index of a log up to its present end; `None` if the job has no log.
    async fn extended_index(&self, job: &JobIdentity) -> Result<Option<LogIndex>, JobError> {
        let mut index = self.indexes.find(job).unwrap_or_default();
        let read = self.for_each_block(job, index.bytes(), |block| {
            index.add(block);
            ControlFlow::Continue(())
        });
        if read.await? == LogPresence::Missing {
            self.indexes.forget(job);
            return Ok(None);
        }
        Ok(Some(index))
    }

    /// Reads blocks from a byte on, until the end of the log or until `take` breaks.
    async fn for_each_block(
        &self,
        job: &JobIdentity,
        mut offset: u64,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<LogPresence, JobError> {
        loop {
            let block: Option<Bytes> = self
                .job_executor
                .read_log_block(job, offset, BLOCK_BYTES)
                .await?;
            let Some(block) = block else {
                return Ok(LogPresence::Missing);
            };
            if block.is_empty() || take(&block).is_break() {
                return Ok(LogPresence::Present);
            }
            offset += block.len() as u64;
        }
    }

    /// The number of the line that begins at a byte.
    async fn line_at(
        &self,
        job: &JobIdentity,
        index: &mut LogIndex,
        offset: u64,
    ) -> Result<u64, JobError> {
        if let Some(number) = index.number_at(offset) {
            return Ok(number);
        }
        let mark = index.mark_before_offset(offset);
        let (mut number, mut left) = (mark.number, offset - mark.offset);
        while left > 0 {
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let block = self
                .job_executor
                .read_log_block(job, offset - left, bytes)
                .await?
                .unwrap_or_default();
            if block.is_empty() {
                break;
            }
            number += memchr::memchr_iter(b'\n', &block).count() as u64;
            left -= block.len() as u64;
        }
        // Output may follow that was not flushed when the log was indexed.
        if offset < index.bytes() {
            index.remember_number(offset, number);
        }
        Ok(number)
    }

    /// Steps with the numbers of their lines.
    async fn number_steps(
        &self,
        job: &JobIdentity,
        index: &mut LogIndex,
        logged: &[LoggedStep],
    ) -> Result<Vec<LogStep>, JobError> {
        let mut steps = Vec::with_capacity(logged.len());
        for step in logged {
            let first = self.line_at(job, index, step.log_start).await?;
            let last = match step.end {
                Some(end) => Some(self.line_at(job, index, end.log_end).await? - 1),
                None => None,
            };
            steps.push(LogStep {
                index: step.index,
                name: step.name.clone(),
                status: (step.end).map_or(RunStatus::Running, |end| end.outcome.into()),
                started_at: step.started_at,
                took_ms: step.end.map(|end| end.took_ms),
                first,
                last,
            });
        }
        Ok(steps)
    }

    /// The first line of a window, and the line that it is about.
    async fn resolve(
        &self,
        job: &JobIdentity,
        index: &LogIndex,
        (logged, steps): (&[LoggedStep], &[LogStep]),
        position: LogWindowPosition,
        count: usize,
    ) -> Result<(u64, Option<u64>), JobError> {
        let count = count as u64;
        let around = |number: u64, before: u64| {
            let before = before.min(count / 3);
            let first = number.saturating_sub(before).max(1);
            (first, Some(number))
        };
        let end = index.lines().saturating_sub(count).saturating_add(1);
        Ok(match position {
            LogWindowPosition::From(number) => (number.max(1), None),
            LogWindowPosition::Around(number) => {
                around(number.clamp(1, index.lines().max(1)), LINES_BEFORE)
            }
            LogWindowPosition::Step(wanted) => {
                let step = steps.iter().rfind(|step| step.index == wanted);
                step.map_or((end, None), |step| (step.first, Some(step.first)))
            }
            LogWindowPosition::Place(LogPlace::End) => (end, None),
            LogWindowPosition::Place(LogPlace::Failure) => {
                let failing = self.failing_line(job, index, (logged, steps)).await?;
                failing.map_or((end, None), |number| around(number, LINES_BEFORE_FAILURE))
            }
        })
    }

    /// The line that tells why the job failed; `None` if no step has and the log has no such line.
    async fn failing_line(
        &self,
        job: &JobIdentity,
        index: &LogIndex,
        (logged, steps): (&[LoggedStep], &[LogStep]),
    ) -> Result<Option<u64>, JobError> {
        let has_failed = |step: &&LoggedStep| {
            step.end
                .is_some_and(|end| end.outcome == Conclusion::Failure)
        };
        // A step that was allowed to fail comes before the one that failed the job.
        let failed = logged.iter().rfind(has_failed);
        let (start, end) = match failed {
            Some(LoggedStep {
                log_start,
                end: Some(end),
                ..
            }) => (*log_start, end.log_end),
            Some(LoggedStep { end: None, .. }) | None => (0, index.bytes()),
        };
        let begin = start.max(end.saturating_sub(FAILURE_BYTES));
        let bytes = usize::try_from(end.saturating_sub(begin)).unwrap_or_default();
        let block = self.job_executor.read_log_block(job, begin, bytes).await?;
        let Some(place) = failing_line_of_block(&block.unwrap_or_default()) else {
            let failed =
                failed.and_then(|failed| steps.iter().rfind(|it| it.index == failed.index));
            return Ok(failed.and_then(|step| step.last));
        };
        let mut copy = index.clone();
        let first = self.line_at(job, &mut copy, begin).await?;
        Ok(Some(first + place as u64))
    }
}

/// The place, from 0, of the line in a block that tells why a step failed.
fn failing_line_of_block(block: &[u8]) -> Option<usize> {
    let block = block.strip_suffix(b"\n").unwrap_or(block);
    let lines: Vec<&[u8]> = block.split(|byte| *byte == b'\n').collect();
    let mut first = lines.len();
    let mut bytes = 0;
    while first > 0 && bytes < FAILURE_TEXT_BYTES {
        first -= 1;
        bytes += lines[first].len().min(FAILURE_LINE_BYTES) + 1;
    }
    let cut = |line: &&[u8]| line[..line.len().min(FAILURE_LINE_BYTES)].to_vec();
    let text: Vec<Vec<u8>> = lines[first..].iter().map(cut).collect();
    let text = String::from_utf8_lossy(&text.join(&b'\n')).into_owned();
    telling_line_index(&text).map(|place| first + place)
}

/// Whether a job has a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogPresence {
    Present,
    Missing,
}

/// The indexes of the logs that were read last.
#[derive(Default)]
struct LogIndexCache(Mutex<KeptIndexes>);

#[derive(Default)]
struct KeptIndexes {
    uses: u64,
    /// With the number of its last use.
    indexes: BTreeMap<JobIdentity, (u64, LogIndex)>,
}

impl LogIndexCache {
    fn lock_indexes(&self) -> MutexGuard<'_, KeptIndexes> {
        // No panic is possible while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, job: &JobIdentity) -> Option<LogIndex> {
        let kept = self.lock_indexes();
        kept.indexes.get(job).map(|(_, index)| index.clone())
    }

    fn store_index(&self, job: &JobIdentity, index: LogIndex) {
        let mut kept = self.lock_indexes();
        kept.uses += 1;
        let uses = kept.uses;
        let is_shorter = |(_, known): &(u64, LogIndex)| known.bytes() <= index.bytes();
        if kept.indexes.get(job).is_none_or(is_shorter) {
            kept.indexes.insert(job.clone(), (uses, index));
        }
        if kept.indexes.len() > INDEXES_MAX {
            let oldest = kept.indexes.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(job, _)| job.clone()) {
                kept.indexes.remove(&oldest);
            }
        }
    }

    fn forget(&self, job: &JobIdentity) {
        self.lock_indexes().indexes.remove(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_line_is_found_before_a_very_long_one() {
        let long = "x".repeat(1_100_000);
        let log = format!(
            "test 1 ... ok\nFAILED tests/a.py::b - AssertionError: no\n{long}\ncleaning up\n##[error]exit code 2\n"
        );
        assert_eq!(failing_line_of_block(log.as_bytes()), Some(1));
        let many = "ok\n".repeat(400_000) + "error: broken\nbye\n";
        assert_eq!(failing_line_of_block(many.as_bytes()), Some(400_000));
        assert_eq!(failing_line_of_block(b""), None);
    }
}
