//! Inputs that are on this machine.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use shipway_workflow::job::JobMounts;

use super::{JobInputError, JobInputProvider};

/// The inputs that the executor of the job has mounted.
pub(crate) struct MountedInputs {
    source: PathBuf,
    artifacts: BTreeMap<String, PathBuf>,
}

impl MountedInputs {
    pub(crate) fn new(mounts: &JobMounts) -> Self {
        Self {
            source: mounts.source.clone(),
            artifacts: mounts.artifacts.clone(),
        }
    }
}

#[async_trait]
impl JobInputProvider for MountedInputs {
    async fn source(&self) -> Result<PathBuf, JobInputError> {
        Ok(self.source.clone())
    }

    async fn artifact(&self, digest: &str) -> Result<PathBuf, JobInputError> {
        let path = self.artifacts.get(digest).cloned();
        path.ok_or_else(|| JobInputError::NotMounted(digest.to_owned()))
    }
}
