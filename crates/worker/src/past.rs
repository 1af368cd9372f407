//! A previous attempt at a job, for resuming it: which steps were completed, their state, and at which steps the job
//! may resume.
//!
//! Reads the journal and the resume state ([`crate::kept`]) of that attempt; never writes to its folder.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use shipway_workflow::{
    job::{Conclusion, Earlier, JournalBody, JournalEntry, Resume},
    model::Step,
};

use crate::{
    background::IMPLICIT_WAIT,
    frame::Stage,
    job::JOURNAL_FILE,
    journal::read_journal,
    kept::{Kept, read_kept},
};

/// Why a job can't be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The workspace was cleaned up.
    #[error(
        "its workspace is gone: it is kept for a week, and that of the last twenty failed runs in any case"
    )]
    Workspace,
    /// The resume state is missing, e.g. because the disk was full.
    #[error("what its steps had left for later ones is gone, or could not be kept")]
    Kept,
    /// A file of the previous attempt can't be read.
    #[error("what it has left can't be read: {0}")]
    Unreadable(String),
    /// The workflow file is now parsed into other steps, e.g. by a newer version of Shipway.
    #[error("its steps are not those that ran then")]
    Differs,
    /// No step has this id, or it comes after the failed one.
    #[error("it has no step {0:?} to begin at")]
    NoStep(String),
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The id of the failed step; `None` if no step of the job itself failed.
    pub failed: Option<String>,
    /// The ids of the steps at which the job may be resumed: those up to the failed one, in order.
    pub steps: Vec<String>,
}

/// How far the attempt in `folder` got with these steps.
pub fn look_back(folder: &Path, steps: &[Step]) -> Result<Standing, Lost> {
    Ok(Record::read(folder)?.standing(steps))
}

/// A step that was completed in a previous attempt.
pub(crate) struct Done {
    /// Its position in the job.
    pub(crate) place: usize,
    pub(crate) stage: Stage,
    /// The id in the journal.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) outcome: Conclusion,
    pub(crate) conclusion: Conclusion,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) took_ms: u64,
    pub(crate) why: Option<String>,
    pub(crate) earlier: Earlier,
    /// Its index in that attempt's journal.
    pub(crate) index: usize,
    pub(crate) summary: bool,
    pub(crate) kept: Option<Kept>,
}

/// The attempt that a job is resumed from.
pub(crate) struct Past {
    /// The folder whose workspace, home and temporary files are reused.
    pub(crate) base: PathBuf,
    /// The position of the step to resume at.
    pub(crate) place: usize,
    /// Completed steps, in the order in which they ended.
    pub(crate) done: Vec<Done>,
    /// All masks, of all steps.
    pub(crate) masks: Vec<String>,
}

impl Past {
    /// Reads the attempt that `resume` names, for a job with these steps.
    pub(crate) fn read(resume: &Resume, steps: &[Step]) -> Result<Self, Lost> {
        let record = Record::read(&resume.folder)?;
        let standing = record.standing(steps);
        let missing = || Lost::NoStep(resume.step.clone());
        if !standing.steps.contains(&resume.step) {
            return Err(missing());
        }
        let at = |id: &str| steps.iter().position(|step| step.id == id);
        let place = at(&resume.step).ok_or_else(missing)?;
        let masks = record.kept.iter().flat_map(|kept| kept.masks.clone());
        let mut past = Self {
            base: record.base.clone(),
            place,
            done: Vec::new(),
            masks: masks.collect(),
        };
        let mut kept: BTreeMap<usize, Kept> = (record.kept.into_iter())
            .filter_map(|kept| Some((kept.index?, kept)))
            .collect();
        for ended in record.ended {
            let (stage, id) = staged(&ended.id);
            let Some(of) = at(id) else {
                if ended.id == IMPLICIT_WAIT {
                    continue;
                }
                return Err(Lost::Differs);
            };
            if stage == Stage::Post || (stage == Stage::Main && of >= place) {
                continue;
            }
            let mine = kept.remove(&ended.index);
            if ended.kept && mine.is_none() {
                return Err(Lost::Kept);
            }
            past.done.push(ended.done(of, stage, resume.attempt, mine));
        }
        let mains = |past: &Self| {
            let mains = past.done.iter().filter(|done| done.stage == Stage::Main);
            mains.count()
        };
        if mains(&past) != place {
            return Err(Lost::Differs);
        }
        Ok(past)
    }
}

/// The contents of an attempt's folder.
struct Record {
    base: PathBuf,
    ended: Vec<Ended>,
    kept: Vec<Kept>,
}

struct Ended {
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
    earlier: Option<Earlier>,
}

impl Ended {
    fn done(self, place: usize, stage: Stage, attempt: u32, kept: Option<Kept>) -> Done {
        Done {
            place,
            stage,
            id: self.id,
            name: self.name,
            outcome: self.outcome,
            conclusion: self.conclusion,
            outputs: self.outputs,
            took_ms: self.took_ms,
            why: self.why,
            earlier: self.earlier.unwrap_or(Earlier {
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

impl Record {
    fn read(folder: &Path) -> Result<Self, Lost> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Lost::Workspace,
            _ => Lost::Unreadable(error.to_string()),
        };
        let entries = read_journal(&folder.join(JOURNAL_FILE)).map_err(failed)?;
        let mut base = folder.to_owned();
        for entry in &entries {
            if let JournalBody::Resumed { base: of, .. } = &entry.body {
                base.clone_from(of);
            }
        }
        if !base.join("workspace").is_dir() {
            return Err(Lost::Workspace);
        }
        Ok(Self {
            base,
            ended: ended(entries),
            kept: read_kept(folder).map_err(failed)?,
        })
    }

    fn standing(&self, steps: &[Step]) -> Standing {
        let ended = |id: &str| self.ended.iter().find(|ended| ended.id == id);
        let is_good =
            |it: &Ended| matches!(it.conclusion, Conclusion::Success | Conclusion::Skipped);
        // A failed pre step can't be repeated alone: such a job can only start again from its first step.
        let before = self
            .ended
            .iter()
            .any(|it| staged(&it.id).0 == Stage::Pre && !is_good(it));
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
        Standing {
            failed: failed.map(|at| steps[at].id.clone()),
            steps: steps[..may].iter().map(|step| step.id.clone()).collect(),
        }
    }
}

/// The finished steps, in the order in which they ended.
fn ended(entries: Vec<JournalEntry>) -> Vec<Ended> {
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
                all.push(Ended {
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
fn staged(id: &str) -> (Stage, &str) {
    match id.rsplit_once('.') {
        Some((id, "pre")) => (Stage::Pre, id),
        Some((id, "post")) => (Stage::Post, id),
        _ => (Stage::Main, id),
    }
}
