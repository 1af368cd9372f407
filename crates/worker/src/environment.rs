//! Environment variables and folders of a job. A step's variables are layered: a clean base, those of workflow, job
//! and step, then fixed ones (`GITHUB_*`, …) that nothing can override.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Default search path for programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// GitHub's names, below `runner.temp`.
const WORKFLOW: &str = "_github_workflow";
pub(crate) const COMMANDS: &str = "_runner_file_commands";

/// Environment variables in order of first appearance; the last value wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EnvVars(Vec<(String, String)>);

impl EnvVars {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = (String, String)>) {
        more.into_iter()
            .for_each(|(name, value)| self.set(name, value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    pub(crate) fn into_vec(self) -> Vec<(String, String)> {
        self.0
    }
}

/// The folders of a job.
#[derive(Clone, Debug)]
pub(crate) struct JobFolders {
    pub(crate) workspace: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) artifacts: PathBuf,
    pub(crate) summaries: PathBuf,
    /// The event payload, as JSON.
    pub(crate) event: PathBuf,
}

impl JobFolders {
    /// The folders of the job in `job`. Its steps work in `base`, which is the folder of the previous attempt for a
    /// resumed job: state of earlier steps contains absolute paths.
    pub(crate) fn at(job: &Path, base: &Path) -> Self {
        let temp = base.join("temp");
        Self {
            workspace: base.join("workspace"),
            home: base.join("home"),
            event: temp.join(WORKFLOW).join("event.json"),
            temp,
            // Created on first use: most jobs need neither.
            artifacts: job.join("artifacts"),
            summaries: job.join("summaries"),
        }
    }

    /// Creates the folders.
    pub(crate) fn create(job: &Path, base: &Path) -> std::io::Result<Self> {
        let folders = Self::at(job, base);
        for folder in [
            &folders.workspace,
            &folders.tools_folder(),
            &folders.actions_folder(),
            &folders.command_files_folder(),
            &folders.event_folder(),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }

    /// The folder of the event payload, which is mounted into containers.
    pub(crate) fn event_folder(&self) -> PathBuf {
        self.temp.join(WORKFLOW)
    }

    /// The folder of the command files.
    pub(crate) fn command_files_folder(&self) -> PathBuf {
        self.temp.join(COMMANDS)
    }

    /// The job's copies of fetched actions.
    pub(crate) fn actions_folder(&self) -> PathBuf {
        self.workspace.with_file_name("actions")
    }

    /// `runner.tool_cache`
    pub(crate) fn tools_folder(&self) -> PathBuf {
        self.home.join("tools")
    }
}

/// The architecture in GitHub's terms.
pub(crate) const fn runner_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "ARM64"
    } else {
        "X64"
    }
}
