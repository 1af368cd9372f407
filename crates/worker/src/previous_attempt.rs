//! A previous attempt at a job, for resuming it: which steps were completed, their state, and at which steps the job
//! may resume.
//!
//! Reads the journal and the resume state ([`crate::resume_state`]) of that attempt; never writes to its folder.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use shipway_workflow::{
    job::{Conclusion, EarlierStepRun, JournalBody, JournalEntry, ResumePoint},
    model::WorkflowStep,
};

use crate::{
    action_stage::ActionStage,
    journal::{JOURNAL_FILE, read_journal},
    resume_state::{StepResumeState, read_resume_states},
    step_task::IMPLICIT_WAIT,
};

/// Why a job can't be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The workspace was cleaned up.
    #[error(
        "its workspace was deleted: workspaces are kept for a week, those of the last twenty failed runs longer"
    )]
    WorkspaceGone,
    /// The resume state is missing, e.g. because the disk was full.
    #[error("the state that its steps left for later steps is missing, or could not be saved")]
    StateMissing,
    /// A file of the previous attempt can't be read.
    #[error("its state can't be read: {0}")]
    Unreadable(String),
    /// The workflow file is now parsed into other steps, e.g. by a newer version of Shipway.
    #[error("its steps have changed since")]
    StepsChanged,
    /// No step has this id, or it comes after the failed one.
    #[error("it has no step {0:?} to start at")]
    UnknownStep(String),
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptProgress {
    /// The id of the failed step; `None` if no step of the job itself failed.
    pub failed: Option<String>,
    /// The ids of the steps at which the job may be resumed: those up to the failed one, in order.
    pub steps: Vec<String>,
}

/// How far the attempt in `folder` got with these steps.
pub fn read_attempt_progress(
    folder: &Path,
    steps: &[WorkflowStep],
) -> Result<AttemptProgress, ResumeError> {
    Ok(AttemptRecord::read(folder)?.progress(steps))
}

/// A step that was completed in a previous attempt.
pub(crate) struct CompletedStep {
    /// Its position in the job.
    pub(crate) position: usize,
    pub(crate) stage: ActionStage,
    /// The id in the journal.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) outcome: Conclusion,
    pub(crate) conclusion: Conclusion,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) took_ms: u64,
    pub(crate) why: Option<String>,
    pub(crate) earlier: EarlierStepRun,
    /// Its index in that attempt's journal.
    pub(crate) index: usize,
    pub(crate) summary: bool,
    pub(crate) kept: Option<StepResumeState>,
}

/// The attempt that a job is resumed from.
pub(crate) struct PreviousAttempt {
    /// The folder whose workspace, home and temporary files are reused.
    pub(crate) base: PathBuf,
    /// The position of the step to resume at.
    pub(crate) position: usize,
    /// Completed steps, in the order in which they ended.
    pub(crate) done: Vec<CompletedStep>,
    /// All masks, of all steps.
    pub(crate) masks: Vec<String>,
}

impl PreviousAttempt {
    /// Reads the attempt that `resume` names from its folder, for a job with these steps.
    pub(crate) fn read(
        folder: &Path,
        resume: &ResumePoint,
        steps: &[WorkflowStep],
    ) -> Result<Self, ResumeError> {
        let record = AttemptRecord::read(folder)?;
        let standing = record.progress(steps);
        let missing = || ResumeError::UnknownStep(resume.step.clone());
        if !standing.steps.contains(&resume.step) {
            return Err(missing());
        }
        let at = |id: &str| steps.iter().position(|step| step.id == id);
        let position = at(&resume.step).ok_or_else(missing)?;
        let masks = record.kept.iter().flat_map(|kept| kept.masks.clone());
        let mut past = Self {
            base: record.base.clone(),
            position,
            done: Vec::new(),
            masks: masks.collect(),
        };
        let mut kept: BTreeMap<usize, StepResumeState> = (record.kept.into_iter())
            .filter_map(|kept| Some((kept.index?, kept)))
            .collect();
        for ended in record.ended {
            let (stage, id) = split_stage(&ended.id);
            let Some(of) = at(id) else {
                if ended.id == IMPLICIT_WAIT {
                    continue;
                }
                return Err(ResumeError::StepsChanged);
            };
            if stage == ActionStage::Post || (stage == ActionStage::Main && of >= position) {
                continue;
            }
            let mine = kept.remove(&ended.index);
            if ended.kept && mine.is_none() {
                return Err(ResumeError::StateMissing);
            }
            past.done
                .push(ended.into_completed(of, stage, resume.attempt, mine));
        }
        let mains = |past: &Self| {
            let mains = past
                .done
                .iter()
                .filter(|done| done.stage == ActionStage::Main);
            mains.count()
        };
        if mains(&past) != position {
            return Err(ResumeError::StepsChanged);
        }
        Ok(past)
    }
}

/// The contents of an attempt's folder.
struct AttemptRecord {
    base: PathBuf,
    ended: Vec<EndedStep>,
    kept: Vec<StepResumeState>,
}

struct EndedStep {
    index: usize,
    id: String,
    name: String,
    outcome: Conclusion,
    conclusion: Conclusion,
    outputs: Vec<(String, String)>,
    took_ms: u64,
    why: Option<String>,
    summary: bool,
    kept: bool,
    began: jiff::Timestamp,
    at: jiff::Timestamp,
    earlier: Option<EarlierStepRun>,
}

impl EndedStep {
    fn into_completed(
        self,
        position: usize,
        stage: ActionStage,
        attempt: u32,
        kept: Option<StepResumeState>,
    ) -> CompletedStep {
        CompletedStep {
            position,
            stage,
            id: self.id,
            name: self.name,
            outcome: self.outcome,
            conclusion: self.conclusion,
            outputs: self.outputs,
            took_ms: self.took_ms,
            why: self.why,
            earlier: self.earlier.unwrap_or(EarlierStepRun {
                attempt,
                began: self.began,
                ended: self.at,
            }),
            index: self.index,
            summary: self.summary,
            kept,
        }
    }
}

impl AttemptRecord {
    fn read(folder: &Path) -> Result<Self, ResumeError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ResumeError::WorkspaceGone,
            _ => ResumeError::Unreadable(error.to_string()),
        };
        let entries = read_journal(&folder.join(JOURNAL_FILE)).map_err(failed)?;
        let mut base = folder.to_owned();
        for entry in &entries {
            if let JournalBody::Resumed { base: of, .. } = &entry.body {
                base.clone_from(of);
            }
        }
        if !base.join("workspace").is_dir() {
            return Err(ResumeError::WorkspaceGone);
        }
        Ok(Self {
            base,
            ended: ended_steps(entries),
            kept: read_resume_states(folder).map_err(failed)?,
        })
    }

    fn progress(&self, steps: &[WorkflowStep]) -> AttemptProgress {
        let ended = |id: &str| self.ended.iter().find(|ended| ended.id == id);
        let is_good =
            |it: &EndedStep| matches!(it.conclusion, Conclusion::Success | Conclusion::Skipped);
        // A failed pre step can't be repeated alone: such a job can only start again from its first step.
        let before = self
            .ended
            .iter()
            .any(|it| split_stage(&it.id).0 == ActionStage::Pre && !is_good(it));
        // A step that was running when its worker was killed has no end: it counts as failed.
        let first_bad = steps
            .iter()
            .position(|step| !ended(&step.id).is_some_and(is_good));
        let failed = first_bad.filter(|_| !before);
        let may = match (before, failed) {
            (true, _) => 0,
            (false, Some(failed)) => failed + 1,
            (false, None) => steps.len(),
        };
        AttemptProgress {
            failed: failed.map(|at| steps[at].id.clone()),
            steps: steps[..may].iter().map(|step| step.id.clone()).collect(),
        }
    }
}

/// The finished steps, in the order in which they ended.
fn ended_steps(entries: Vec<JournalEntry>) -> Vec<EndedStep> {
    let mut begun = BTreeMap::new();
    let mut all = Vec::new();
    for entry in entries {
        match entry.body {
            JournalBody::StepStarted { index, name, .. } => {
                begun.insert(index, (name, entry.at));
            }
            JournalBody::StepFinished {
                index,
                id,
                outcome,
                conclusion,
                outputs,
                took_ms,
                why,
                summary,
                kept,
                earlier,
                ..
            } => {
                let (name, began) = begun
                    .remove(&index)
                    .unwrap_or_else(|| (id.clone(), entry.at));
                all.push(EndedStep {
                    index,
                    id,
                    name,
                    outcome,
                    conclusion,
                    outputs,
                    took_ms,
                    why,
                    summary,
                    kept,
                    began,
                    at: entry.at,
                    earlier,
                });
            }
            _ => {}
        }
    }
    all
}

/// Splits an id of the journal into stage and step id. Step ids contain no dots.
fn split_stage(id: &str) -> (ActionStage, &str) {
    match id.rsplit_once('.') {
        Some((id, "pre")) => (ActionStage::Pre, id),
        Some((id, "post")) => (ActionStage::Post, id),
        _ => (ActionStage::Main, id),
    }
}
