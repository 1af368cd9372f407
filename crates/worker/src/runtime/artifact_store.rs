//! The artifacts that a job can access: those of earlier jobs of the run, and its own, whether uploaded by built-in
//! or other actions.
//!
//! Every artifact is a tar file. Its id is derived from name and digest, so that all jobs of a run use the same one.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use shipway_workflow::job::{JournalBody, StoredArtifact};

use crate::job_inputs::{JobInputError, JobInputProvider};

/// GitHub's list of characters that some file system doesn't allow.
const FORBIDDEN: [char; 11] = ['/', '\\', '"', ':', '<', '>', '|', '*', '?', '\r', '\n'];
const NAME_BYTES_MAX: usize = 200;

/// Whether the jobs of this run have run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAttempt {
    First,
    /// An existing artifact may be this job's own, from an earlier attempt.
    Rerun,
}

#[derive(Clone)]
pub(crate) struct ArtifactStore {
    kept: Arc<Mutex<Vec<ArtifactEntry>>>,
    inputs: Arc<dyn JobInputProvider>,
    attempt: RunAttempt,
}

#[derive(Clone, Debug)]
pub(crate) struct ArtifactEntry {
    pub(crate) name: String,
    /// `sha256:…` of the tar file.
    pub(crate) digest: String,
    /// The tar file; empty for an artifact of an earlier job, which is an input ([`ArtifactStore::tar_file`]).
    pub(crate) path: PathBuf,
    /// Of the tar file, in bytes.
    pub(crate) size: u64,
    pub(crate) at: Timestamp,
    origin: ArtifactOrigin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArtifactOrigin {
    /// Of an earlier job.
    Earlier,
    /// Of this job, and recorded in the journal.
    Recorded,
    /// Of this job, and not yet in the journal.
    Fresh,
}

impl ArtifactEntry {
    /// An artifact of another run, to be downloaded to `path`.
    pub(crate) fn from_listing(name: String, path: PathBuf, digest: String, size: u64) -> Self {
        Self {
            name,
            digest,
            path,
            size,
            at: Timestamp::default(),
            origin: ArtifactOrigin::Earlier,
        }
    }

    /// Its id for GitHub's clients; exact as a JavaScript number.
    pub(crate) fn id(&self) -> u64 {
        let hash = Sha256::digest(format!("{}\n{}", self.name, self.digest));
        hash[..6]
            .iter()
            .fold(0, |id, byte| id << 8 | u64::from(*byte))
            .max(1)
    }
}

impl ArtifactStore {
    /// The artifacts of earlier jobs, whose files are inputs of the job.
    pub(crate) fn new(
        earlier: &[StoredArtifact],
        inputs: Arc<dyn JobInputProvider>,
        attempt: RunAttempt,
    ) -> Self {
        let now = Timestamp::now();
        let kept = earlier.iter().map(|artifact| ArtifactEntry {
            name: artifact.name.clone(),
            digest: artifact.digest.clone(),
            path: PathBuf::new(),
            size: artifact.size,
            // The spec doesn't say when it was stored: before this job.
            at: now,
            origin: ArtifactOrigin::Earlier,
        });
        Self {
            kept: Arc::new(Mutex::new(kept.collect())),
            inputs,
            attempt,
        }
    }

    /// The artifact's tar file, fetched if it isn't on this machine.
    pub(crate) async fn tar_file(&self, entry: &ArtifactEntry) -> Result<PathBuf, JobInputError> {
        match entry.path.as_os_str().is_empty() {
            true => self.inputs.artifact(&entry.digest).await,
            false => Ok(entry.path.clone()),
        }
    }

    /// All artifacts, sorted by name.
    pub(crate) fn list_artifacts(&self) -> Vec<ArtifactEntry> {
        let mut all = self.lock_entries().clone();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    pub(crate) fn find_artifact(&self, name: &str) -> Option<ArtifactEntry> {
        self.lock_entries()
            .iter()
            .find(|kept| kept.name == name)
            .cloned()
    }

    /// Whether the name can be used: like at GitHub, an artifact can't be uploaded twice.
    pub(crate) fn is_name_free(&self, name: &str) -> bool {
        let kept = self.find_artifact(name);
        kept.is_none_or(|kept| {
            kept.origin == ArtifactOrigin::Earlier && self.attempt == RunAttempt::Rerun
        })
    }

    /// Adds an artifact, replacing one with the same name.
    pub(crate) fn add_artifact(
        &self,
        name: String,
        path: PathBuf,
        digest: String,
        size: u64,
    ) -> ArtifactEntry {
        let new = ArtifactEntry {
            name,
            digest,
            path,
            size,
            at: Timestamp::now(),
            origin: ArtifactOrigin::Fresh,
        };
        let mut kept = self.lock_entries();
        kept.retain(|kept| kept.name != new.name);
        kept.push(new.clone());
        new
    }

    /// Removes an artifact for this job. An artifact in the journal stays in the run until another of its name is
    /// stored.
    pub(crate) fn remove_artifact(&self, name: &str) -> Option<ArtifactEntry> {
        let mut kept = self.lock_entries();
        let at = kept.iter().position(|kept| kept.name == name)?;
        Some(kept.remove(at))
    }

    /// Journal entries for artifacts that are not yet in the journal.
    pub(crate) fn take_unrecorded(&self) -> Vec<JournalBody> {
        let mut kept = self.lock_entries();
        let fresh = kept
            .iter_mut()
            .filter(|kept| kept.origin == ArtifactOrigin::Fresh);
        fresh
            .map(|kept| {
                kept.origin = ArtifactOrigin::Recorded;
                JournalBody::ArtifactSaved {
                    name: kept.name.clone(),
                    path: kept.path.clone(),
                    digest: kept.digest.clone(),
                    size: kept.size,
                }
            })
            .collect()
    }

    fn lock_entries(&self) -> MutexGuard<'_, Vec<ArtifactEntry>> {
        // A panic can't leave the list half-updated, so a poisoned lock is safe to use.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text that can't be the name of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid artifact name: 1 to {NAME_BYTES_MAX} bytes, no dot at the beginning, none of / \\ \" : < > | * ?"
)]
pub(crate) struct ArtifactNameError(String);

/// Validates a name.
pub(crate) fn check_name(name: &str) -> Result<&str, ArtifactNameError> {
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.starts_with('.')
        || name.contains(FORBIDDEN)
        || name.contains(char::is_control)
    {
        return Err(ArtifactNameError(name.to_owned()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_inputs::no_inputs;

    fn earlier() -> Vec<StoredArtifact> {
        vec![StoredArtifact {
            name: "shop".to_owned(),
            digest: "sha256:00".to_owned(),
            size: 7,
        }]
    }

    #[test]
    fn an_artifact_is_told_once_and_known_by_one_number_everywhere() {
        let artifact_store = ArtifactStore::new(&earlier(), no_inputs(), RunAttempt::First);
        assert!(artifact_store.take_unrecorded().is_empty());
        let put = |digest: &str| {
            artifact_store.add_artifact("a".to_owned(), "/a".into(), digest.to_owned(), 7)
        };
        let one = put("sha256:1");
        assert_eq!(artifact_store.find_artifact("a").unwrap().id(), one.id());
        assert_ne!(put("sha256:2").id(), one.id());
        assert_eq!(artifact_store.take_unrecorded().len(), 1);
        assert!(artifact_store.take_unrecorded().is_empty());
        let names: Vec<String> = artifact_store
            .list_artifacts()
            .into_iter()
            .map(|kept| kept.name)
            .collect();
        assert_eq!(names, ["a", "shop"]);
        assert!(
            artifact_store.remove_artifact("a").is_some()
                && artifact_store.remove_artifact("a").is_none()
        );
    }

    #[test]
    fn a_name_is_taken_once_unless_the_run_is_run_again() {
        assert!(
            !ArtifactStore::new(&earlier(), no_inputs(), RunAttempt::First).is_name_free("shop")
        );
        assert!(
            ArtifactStore::new(&earlier(), no_inputs(), RunAttempt::Rerun).is_name_free("shop")
        );
        assert!(
            ArtifactStore::new(&earlier(), no_inputs(), RunAttempt::First).is_name_free("other")
        );
    }

    #[test]
    fn names_that_would_be_paths_are_refused() {
        for bad in ["", ".", "..", ".a", "a/b", "a\\b", "a:b", "a\nb", "a\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_name("dist 1.2"), Ok("dist 1.2"));
    }
}
