//! An earlier attempt at a job, as a later one goes on from it: which steps were done there, what they have left, and where the
//! job may begin again. Read from that attempt's journal and from what it has kept ([`crate::kept`]); nothing is changed there.

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

/// Why a job can't go on from an earlier attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It was tidied away, or somebody removed it.
    #[error(
        "its workspace is gone: it is kept for a week, and that of the last twenty failed runs in any case"
    )]
    Workspace,
    /// The file is gone, or the disk was full.
    #[error("what its steps had left for later ones is gone, or could not be kept")]
    Kept,
    /// A file can't be read.
    #[error("what it has left can't be read: {0}")]
    Unreadable(String),
    /// A newer version reads the workflow otherwise.
    #[error("its steps are not those that ran then")]
    Differs,
    /// There is no such step.
    #[error("it has no step {0:?} to begin at")]
    NoStep(String),
}

/// Where an attempt stood when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The step that it failed at; none: no step of the job itself failed.
    pub failed: Option<String>,
    /// The ids of the steps that the job may begin at again, in order: those up to the one that failed.
    pub steps: Vec<String>,
}

/// Where the attempt in `folder` at a job of these steps stood when it ended.
pub fn look_back(folder: &Path, steps: &[Step]) -> Result<Standing, Lost> {
    Ok(Record::read(folder)?.standing(steps))
}

/// A step that was done in an earlier attempt.
pub(crate) struct Done {
    /// Its place in the job.
    pub(crate) place: usize,
    pub(crate) stage: Stage,
    /// As the journal has it.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) outcome: Conclusion,
    pub(crate) conclusion: Conclusion,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) took_ms: u64,
    pub(crate) why: Option<String>,
    pub(crate) earlier: Earlier,
    /// Its number in the journal of that attempt.
    pub(crate) index: usize,
    pub(crate) summary: bool,
    pub(crate) kept: Option<Kept>,
}

/// What a job goes on from.
pub(crate) struct Past {
    /// The folder whose workspace, home and temporary files are used.
    pub(crate) base: PathBuf,
    /// The place of the step to begin at.
    pub(crate) place: usize,
    /// What is done, in the order in which it ended.
    pub(crate) done: Vec<Done>,
    /// All that was masked, by whatever step.
    pub(crate) masks: Vec<String>,
}

impl Past {
    /// What a job of these steps goes on from.
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

/// What there is of an attempt.
struct Record {
    base: PathBuf,
    ended: Vec<Ended>,
    kept: Vec<Kept>,
}

/// A step that has ended.
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
        // What failed before the first step isn't made good by beginning at a later one.
        let before = self
            .ended
            .iter()
            .any(|it| staged(&it.id).0 == Stage::Pre && !is_good(it));
        // None, for one that was under way when its worker was lost.
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

/// The steps that have ended, in that order.
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

/// Which part of a step an id of the journal names. Ids of steps have no dots.
fn staged(id: &str) -> (Stage, &str) {
    match id.rsplit_once('.') {
        Some((id, "pre")) => (Stage::Pre, id),
        Some((id, "post")) => (Stage::Post, id),
        _ => (Stage::Main, id),
    }
}
