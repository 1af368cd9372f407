//! A job followed to its end: what its worker journals becomes inputs of the run, what it logs is shown, both in the order in
//! which they happened.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use shipway_core::{
    aggregate::EffectKey,
    run::{ArtifactRecord, JobTests, RunInput, StepLine},
    testing::FailureExcuse,
};
use shipway_drivers::jobs::{JobError, JobJournal, JobLog, JobRunner};
use shipway_workflow::job::{Conclusion, JobKey, JournalBody, JournalEntry};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::show::Show;
use crate::print;

/// Lines of a failed step that are shown again at the end.
const LAST_LINES: usize = 20;

/// What a followed job reports.
pub(super) enum Report {
    /// Something happened to it.
    Said(RunInput),
    /// It stored an artifact.
    Stored { name: String, path: PathBuf },
    /// A step failed; what it printed last.
    LastWords(JobKey, Vec<String>),
    /// Nothing more comes.
    Over(EffectKey),
}

/// A job that is followed.
pub(super) struct Follower {
    pub(super) key: JobKey,
    pub(super) effect: EffectKey,
    pub(super) show: Show,
    pub(super) reports: mpsc::Sender<Report>,
}

impl Follower {
    /// Follows the job to its end.
    pub(super) async fn follow(self, runner: JobRunner, folder: PathBuf) {
        let end = match self.read(&runner, &folder).await {
            Ok(end) => end,
            Err(error @ JobError::WorkerLost(_)) => RunInput::WorkerLost {
                key: self.key.clone(),
                why: error.to_string(),
            },
            Err(error) => RunInput::JobEnded {
                key: self.key.clone(),
                conclusion: Conclusion::Failure,
                outputs: Vec::new(),
                why: Some(error.to_string()),
            },
        };
        self.report_input(end).await;
        self.report(Report::Over(self.effect.clone())).await;
    }

    async fn report(&self, report: Report) {
        // The receiver is dropped only at the end of the run.
        let _ = self.reports.send(report).await;
    }

    async fn report_input(&self, input: RunInput) {
        self.report(Report::Said(input)).await;
    }

    async fn read(&self, runner: &JobRunner, folder: &Path) -> Result<RunInput, JobError> {
        let mut journal = runner.journal(folder)?;
        let mut text = Text::new(runner.open_log(folder, 0)?, self);
        let (never, now) = (CancellationToken::new(), CancellationToken::new());
        now.cancel();
        loop {
            let end = tokio::select! {
                entry = journal.next(&never) => match entry? {
                    Some(entry) => self.handle_entry(entry, &mut text).await,
                    None => return Err(JobError::WorkerLost(": the journal has no end".to_owned())),
                },
                () = text.log.changed() => self.catch_up(&mut text, &mut journal, &now).await?,
            };
            if let Some(end) = end {
                text.rest();
                return Ok(end);
            }
        }
    }

    /// Shows new log lines; returns an input when the job has ended. A step is journaled before it prints, so the journal, read
    /// after the log, assigns the lines to steps.
    async fn catch_up(
        &self,
        text: &mut Text,
        journal: &mut JobJournal,
        now: &CancellationToken,
    ) -> Result<Option<RunInput>, JobError> {
        loop {
            let has_more = text.read();
            loop {
                match journal.next(now).await {
                    Ok(Some(entry)) => {
                        if let Some(end) = self.handle_entry(entry, text).await {
                            return Ok(Some(end));
                        }
                    }
                    Ok(None) | Err(JobError::Cancelled) => break,
                    Err(error) => return Err(error),
                }
            }
            // Shows buffered lines even if no new ones came.
            text.show(usize::MAX);
            if !has_more {
                return Ok(None);
            }
        }
    }

    /// What an entry means to the run; some input when it is the last.
    async fn handle_entry(&self, entry: JournalEntry, text: &mut Text) -> Option<RunInput> {
        let mut out = String::new();
        self.show.entry(&self.key, &entry, &mut out);
        let key = self.key.clone();
        match entry.body {
            JournalBody::Started { .. } => self.report_input(RunInput::JobStarted { key }).await,
            JournalBody::StepStarted {
                index,
                name,
                log_offset,
                ..
            } => {
                text.start_step(index, name, log_offset, &mut out);
            }
            JournalBody::StepFinished {
                index,
                outcome,
                conclusion,
                took_ms,
                log_offset,
                why,
                earlier,
                ..
            } => {
                text.show_to(log_offset);
                let step = StepLine {
                    index,
                    name: text.names.remove(&index).unwrap_or_default(),
                    conclusion,
                    outcome: (outcome != conclusion).then_some(outcome),
                    took_ms,
                    in_attempt: earlier.map(|earlier| earlier.attempt),
                };
                let why = why.as_deref();
                self.show.step_finished(&text.prefix, &step, why, &mut out);
                self.report_step(step, text).await;
            }
            JournalBody::Finished {
                conclusion,
                outputs,
                why,
            } => {
                print::text(&out);
                return Some(RunInput::JobEnded {
                    key,
                    conclusion,
                    outputs,
                    why,
                });
            }
            body @ (JournalBody::ArtifactSaved { .. } | JournalBody::Reports(_)) => {
                self.report_stored(body).await;
            }
            JournalBody::EnvironmentUrl { .. }
            | JournalBody::Annotation { .. }
            | JournalBody::Resumed { .. }
            | JournalBody::DeployAsked { .. } => {}
        }
        print::text(&out);
        None
    }

    async fn report_step(&self, step: StepLine, text: &mut Text) {
        let key = self.key.clone();
        if step.conclusion == Conclusion::Failure {
            let last_lines = text.last.drain(..).collect();
            self.report(Report::LastWords(key.clone(), last_lines))
                .await;
        }
        self.report_input(RunInput::StepFinished { key, step })
            .await;
    }

    /// Reports an artifact or test reports that the job stored.
    async fn report_stored(&self, body: JournalBody) {
        match body {
            JournalBody::ArtifactSaved {
                name,
                path,
                digest,
                size,
            } => {
                let Ok(digest) = digest.parse() else { return };
                let artifact = ArtifactRecord { name, digest, size };
                let name = artifact.name.clone();
                self.report(Report::Stored { name, path }).await;
                self.report_input(RunInput::ArtifactStored { artifact })
                    .await;
            }
            JournalBody::Reports(stored) => {
                let Ok(digest) = stored.digest.parse() else {
                    return;
                };
                let tests = Box::new(JobTests {
                    attempt: 0,
                    digest,
                    size: stored.size,
                    summary: stored.summary,
                    excuse: FailureExcuse::default(),
                });
                let key = self.key.clone();
                self.report_input(RunInput::TestsReported { key, tests })
                    .await;
            }
            JournalBody::Started { .. }
            | JournalBody::StepStarted { .. }
            | JournalBody::StepFinished { .. }
            | JournalBody::Finished { .. }
            | JournalBody::EnvironmentUrl { .. }
            | JournalBody::Annotation { .. }
            | JournalBody::Resumed { .. }
            | JournalBody::DeployAsked { .. } => {}
        }
    }
}

/// A job's log on its way to the terminal.
struct Text {
    log: JobLog,
    show: Show,
    prefix: String,
    /// Read and not shown, whole lines and the beginning of one.
    pending: Vec<u8>,
    /// Names of steps under way.
    names: BTreeMap<usize, String>,
    /// Whether the next lines are the head of a step, which repeats its script.
    in_head: bool,
    last: VecDeque<String>,
}

impl Text {
    fn new(log: JobLog, follower: &Follower) -> Self {
        Self {
            log,
            show: follower.show,
            prefix: follower.show.prefix(&follower.key),
            pending: Vec::new(),
            names: BTreeMap::new(),
            in_head: false,
            last: VecDeque::new(),
        }
    }

    /// Shows the log of the steps before, and the name of this one into `out`.
    fn start_step(&mut self, index: usize, name: String, log_offset: u64, out: &mut String) {
        self.show_to(log_offset);
        self.show.step_started(&self.prefix, &name, out);
        self.names.insert(index, name);
        self.last.clear();
        self.in_head = true;
    }

    /// Reads some more; false when there is none.
    fn read(&mut self) -> bool {
        let bytes = self.log.read().unwrap_or_default();
        self.pending.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    /// Shows the log up to this byte of it, all of which is written.
    fn show_to(&mut self, offset: u64) {
        while self.log.offset() < offset && self.read() {}
        let behind = self.log.offset().saturating_sub(offset);
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        self.show(self.pending.len().saturating_sub(behind));
    }

    /// Shows all that is left.
    fn rest(&mut self) {
        while self.read() {}
        self.show(usize::MAX);
    }

    /// Shows the whole lines among the first bytes that are pending.
    fn show(&mut self, bytes: usize) {
        let pending = &self.pending[..bytes.min(self.pending.len())];
        let end = pending
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let text: Vec<u8> = self.pending.drain(..end).collect();
        let text = String::from_utf8_lossy(&text);
        let mut out = String::with_capacity(text.len());
        for line in text.lines() {
            // `2026-11-21T04:18:58.123Z ` stands before each.
            let line = line.get(25..).unwrap_or_default();
            if self.in_head {
                self.in_head = line != "##[endgroup]";
                continue;
            }
            if self.last.len() >= LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(line.to_owned());
            if self.show.shows_output() {
                self.show.line(&self.prefix, line, &mut out);
            }
        }
        print::text(&out);
    }
}
