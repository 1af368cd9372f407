//! What a step leaves to later ones that the journal may not hold: variables, folders in `PATH`, outputs that hold a secret,
//! the state of actions and what they have left to do, what is masked. In a file beside the journal that only its owner may
//! read, a line for each step that leaves something, on the disk before the journal says that the step is over. So a job can
//! go on from its failed step, and a shell can be opened where that step stood.
//!
//! It goes with the workspace, and nothing ever serves it. A disk that is full costs the going on, never the job: the journal
//! says that there was something to keep, and whoever misses it says so.

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
    environment::Env,
    frame::Post,
    hand::Hand,
    journal::Keeping,
    mask::Masker,
    matcher::Matchers,
    scope::{Change, Scope},
};

/// The file, in the job's folder.
pub const KEPT_FILE: &str = "kept.jsonl";

/// What one step has left.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The step, by its place in the journal; none: what is masked whatever step said so.
    pub(crate) index: Option<usize>,
    /// What it changed for later ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<Change>,
    /// The variables among them that hold a secret.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret: Vec<String>,
    /// Its outputs that hold a secret: the others are in the journal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) outputs: Vec<(String, String)>,
    /// What its action keeps for its later parts, and those of the steps of that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) states: BTreeMap<String, Env>,
    /// What its action has left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) post: Option<Post>,
    /// What must not be seen from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) masks: Vec<String>,
    /// The problem matchers from now on, when they are others than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matchers: Option<Vec<Arc<str>>>,
}

impl Kept {
    fn is_nothing(&self) -> bool {
        self.changes.is_empty()
            && self.outputs.is_empty()
            && self.states.is_empty()
            && self.post.is_none()
            && self.masks.is_empty()
            && self.matchers.is_none()
    }

    /// Later steps have what it left. Without `secrets` nothing that holds one.
    pub(crate) fn apply(&self, scope: &mut Scope, secrets: bool) {
        let may = |change: &&Change| match change {
            Change::Env(name, _) => secrets || !self.secret.contains(name),
            Change::Path(_) => true,
        };
        scope.change(self.changes.iter().filter(may).cloned().collect());
        // Nobody beside waits for them.
        scope.changes.clear();
    }
}

/// Writes down what steps leave.
pub(crate) struct Keeper {
    path: PathBuf,
    /// There once something was kept.
    file: Option<File>,
    keeping: Keeping,
    /// How many masks are kept, or are secrets that are given anew.
    masks: usize,
    matchers: Vec<Arc<str>>,
    broken: bool,
}

impl Keeper {
    /// For the job in `folder`. The first `masks` masks are not for the file.
    pub(crate) fn new(folder: &Path, keeping: Keeping, masks: usize) -> Self {
        Self {
            path: folder.join(KEPT_FILE),
            file: None,
            keeping,
            masks,
            matchers: Vec::new(),
            broken: false,
        }
    }

    /// Keeps what the step `key` of the job has left, which is the `index`-th of its journal; whether that was anything.
    pub(crate) fn keep(
        &mut self,
        (index, key): (usize, &str),
        hand: &mut Hand,
        posts: &[Post],
        outputs: &[(String, String)],
    ) -> bool {
        let masker = &hand.output.masker;
        let changes = std::mem::take(&mut hand.scope.changes);
        let secret = changes.iter().filter_map(|change| match change {
            Change::Env(name, value) if masker.finds(value) => Some(name.clone()),
            Change::Env(..) | Change::Path(_) => None,
        });
        let mine =
            |of: &str| of == key || of.strip_prefix(key).is_some_and(|it| it.starts_with('.'));
        let states = hand.states.iter().filter(|(of, _)| mine(of));
        let matchers = hand.output.matchers.texts();
        let kept = Kept {
            index: Some(index),
            secret: secret.collect(),
            changes,
            outputs: outputs
                .iter()
                .filter(|(_, value)| masker.finds(value))
                .cloned()
                .collect(),
            states: states
                .map(|(of, state)| (of.clone(), state.clone()))
                .collect(),
            post: posts.iter().find(|post| post.key == key).cloned(),
            masks: masker.added(self.masks),
            matchers: (matchers != self.matchers).then_some(matchers),
        };
        self.write(&kept)
    }

    /// Keeps what must not be seen from now on.
    pub(crate) fn keep_masks(&mut self, masker: &Masker) {
        self.write(&Kept {
            masks: masker.added(self.masks),
            ..Kept::default()
        });
    }

    /// Keeps what is already told; whether there was anything.
    pub(crate) fn write(&mut self, kept: &Kept) -> bool {
        if kept.is_nothing() {
            return false;
        }
        self.masks += kept.masks.len();
        if let Some(matchers) = &kept.matchers {
            self.matchers.clone_from(matchers);
        }
        if !self.broken
            && let Err(error) = self.append(kept)
        {
            // What is left is a torn line, after which nothing may come.
            self.broken = true;
            eprintln!(
                "what a step has left could not be kept: {error}; the job can't go on from a step"
            );
        }
        true
    }

    fn append(&mut self, kept: &Kept) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.path)?;
                if self.keeping == Keeping::Durable {
                    // The name of it as well.
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
            Keeping::Durable => file.sync_data(),
            Keeping::Volatile => Ok(()),
        }
    }
}

/// What the steps of the job in `folder` have left; a torn last line is left out.
pub(crate) fn read_kept(folder: &Path) -> io::Result<Vec<Kept>> {
    let text = match fs::read(folder.join(KEPT_FILE)) {
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

/// The matchers that are in force after what was kept.
pub(crate) fn matchers<'k>(kept: impl IntoIterator<Item = &'k Kept>) -> Matchers {
    let last = kept.into_iter().filter_map(|kept| kept.matchers.as_ref());
    let last = last.last().into_iter().flatten();
    Matchers::of_texts(last.map(|text| &**text))
}
