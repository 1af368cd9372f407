//! State that resuming a job needs and the journal must not contain: variables, `PATH` entries, outputs with secrets,
//! the state of actions, pending post steps, masks.
//!
//! # Why a separate file
//!
//! The journal is uploaded and shown. This file has mode 0600, is never served, and is deleted with the workspace.
//!
//! # Invariants
//!
//! - A step's line is on disk before the journal records the step as finished.
//! - Only workers of the same job, and the debug shell, read the file.
//!
//! # Failure modes
//!
//! - Disk full: the job continues. The journal records that the step had state, so resuming fails with
//!   [`crate::previous_attempt::ResumeError::StateMissing`] instead of running with missing state.
//! - Crash while writing: an incomplete last line is ignored when reading.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    environment::EnvVars,
    job_scope::{JobScope, StepChange},
    journal::Durability,
    mask::Masker,
    problem_matcher::ProblemMatchers,
    step_scope::PostStep,
};

/// File name of the resume state, in the job's folder.
pub const RESUME_STATE_FILE: &str = "kept.jsonl";

/// Whether variables with secrets are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAccess {
    /// SecretAccess of the spec and secrets that steps have set.
    Granted,
    /// No secrets. The spec should contain none either.
    Withheld,
}

/// The state that one step leaves to later steps.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StepResumeState {
    /// Index of the step in the journal; `None` for masks that belong to no step.
    pub(crate) index: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<StepChange>,
    /// Names of the variables in `changes` whose value contains a secret.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret: Vec<String>,
    /// Outputs that contain a secret; the others are in the journal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) outputs: Vec<(String, String)>,
    /// `GITHUB_STATE` of the action and of the actions nested in it, by step key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) states: BTreeMap<String, EnvVars>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) post: Option<PostStep>,
    /// Masks that were added by this step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) masks: Vec<String>,
    /// All active problem matchers, if this step changed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matchers: Option<Vec<Arc<str>>>,
}

impl StepResumeState {
    fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.outputs.is_empty()
            && self.states.is_empty()
            && self.post.is_none()
            && self.masks.is_empty()
            && self.matchers.is_none()
    }

    /// Applies the changes to `scope`; without access to secrets only those that contain none.
    pub(crate) fn restore_into(&self, scope: &mut JobScope, secrets: SecretAccess) {
        let may = |change: &&StepChange| match change {
            StepChange::Env(name, _) => {
                secrets == SecretAccess::Granted || !self.secret.contains(name)
            }
            StepChange::Path(_) => true,
        };
        scope.apply_changes(self.changes.iter().filter(may).cloned().collect());
        // `changes` collects what a background step changes itself: restored changes don't belong there.
        scope.changes.clear();
    }
}

/// What a finished step has changed.
pub(crate) struct StepChanges<'s> {
    /// Index of the step in the journal.
    pub(crate) index: usize,
    pub(crate) key: &'s str,
    pub(crate) changes: Vec<StepChange>,
    /// The saved state of all actions, by step key.
    pub(crate) states: &'s BTreeMap<String, EnvVars>,
    /// The pending post steps of the job.
    pub(crate) posts: &'s [PostStep],
    pub(crate) outputs: &'s [(String, String)],
    pub(crate) masker: &'s Masker,
    /// All active problem matchers.
    pub(crate) matchers: Vec<Arc<str>>,
}

/// Writes the resume state.
pub(crate) struct ResumeStateWriter {
    path: PathBuf,
    /// Created on the first write.
    file: Option<File>,
    keeping: Durability,
    /// How many of the masker's entries are not to be written: already in the file, or secrets of the spec.
    masks: usize,
    matchers: Vec<Arc<str>>,
    broken: bool,
}

impl ResumeStateWriter {
    /// The writer for the job in `folder`. The first `masks` entries of the masker are not written.
    pub(crate) fn new(folder: &Path, keeping: Durability, masks: usize) -> Self {
        Self {
            path: folder.join(RESUME_STATE_FILE),
            file: None,
            keeping,
            masks,
            matchers: Vec::new(),
            broken: false,
        }
    }

    /// Writes the state that a step leaves. Returns whether there was any.
    pub(crate) fn record_step(&mut self, step: StepChanges<'_>) -> bool {
        let StepChanges {
            index,
            key,
            changes,
            states,
            posts,
            outputs,
            masker,
            matchers,
        } = step;
        let secret = changes.iter().filter_map(|change| match change {
            StepChange::Env(name, value) if masker.contains_secret(value) => Some(name.clone()),
            StepChange::Env(..) | StepChange::Path(_) => None,
        });
        let is_own =
            |of: &str| of == key || of.strip_prefix(key).is_some_and(|it| it.starts_with('.'));
        let states = states.iter().filter(|(of, _)| is_own(of));
        let state = StepResumeState {
            index: Some(index),
            secret: secret.collect(),
            changes,
            outputs: outputs
                .iter()
                .filter(|(_, value)| masker.contains_secret(value))
                .cloned()
                .collect(),
            states: states
                .map(|(of, state)| (of.clone(), state.clone()))
                .collect(),
            post: posts.iter().find(|post| post.key == key).cloned(),
            masks: masker.added_since(self.masks),
            matchers: (matchers != self.matchers).then_some(matchers),
        };
        self.write_state(&state)
    }

    /// Writes the masks that were added since the last write.
    pub(crate) fn record_masks(&mut self, masker: &Masker) {
        self.write_state(&StepResumeState {
            masks: masker.added_since(self.masks),
            ..StepResumeState::default()
        });
    }

    /// Writes a state; returns whether there was any.
    pub(crate) fn write_state(&mut self, kept: &StepResumeState) -> bool {
        if kept.is_empty() {
            return false;
        }
        self.masks += kept.masks.len();
        if let Some(matchers) = &kept.matchers {
            self.matchers.clone_from(matchers);
        }
        if !self.broken
            && let Err(error) = self.append_line(kept)
        {
            // Nothing may follow the incomplete line that is left now.
            self.broken = true;
            eprintln!(
                "the state of a step could not be saved: {error}; the job can't be resumed from a step"
            );
        }
        true
    }

    fn append_line(&mut self, kept: &StepResumeState) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.path)?;
                if self.keeping == Durability::Durable {
                    // Also fsync the directory, which holds the file's name.
                    let folder = self.path.parent().unwrap_or(Path::new("."));
                    File::open(folder)?.sync_all()?;
                }
                self.file.insert(file)
            }
        };
        let mut line = serde_json::to_vec(kept)?;
        line.push(b'\n');
        file.write_all(&line)?;
        match self.keeping {
            Durability::Durable => file.sync_data(),
            Durability::Volatile => Ok(()),
        }
    }
}

/// Reads the resume state of the job in `folder`. An incomplete last line is ignored.
pub(crate) fn read_resume_states(folder: &Path) -> io::Result<Vec<StepResumeState>> {
    let text = match fs::read(folder.join(RESUME_STATE_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let whole = &text[..whole.map_or(0, |end| end + 1)];
    whole
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}

/// The problem matchers that are active after these steps.
pub(crate) fn restore_matchers<'k>(
    kept: impl IntoIterator<Item = &'k StepResumeState>,
) -> ProblemMatchers {
    let last = kept.into_iter().filter_map(|kept| kept.matchers.as_ref());
    let last = last.last().into_iter().flatten();
    ProblemMatchers::from_definitions(last.map(|text| &**text))
}
