//! Releases: commit + artifact digest + configuration digest of one service; immutable; numbered per service.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::graph::{CALLED_MAX, find_called_workflows};

use crate::{
    aggregate::Actor,
    config::{ArtifactSource, EnvironmentConfig, ServiceConfig},
    ids::{CommitId, Digest, EnvironmentName, ReleaseNumber, RunNumber, ServiceName},
    target::{ImageReference, ServiceEnvironment, Workload, WorkloadCommand, WorkloadProgram},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub service: ServiceName,
    /// Its number, from 1.
    pub number: ReleaseNumber,
    /// The order of the push that made it: a release of an older push never replaces one of a newer push by itself.
    pub sequence: u64,
    pub commit: Commit,
    /// The branch that it was made of; none in logs from before this was recorded, and for runs that no push started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    pub artifact: Digest,
    /// The run that built them; none when the artifact is the commit's own tree.
    pub run: Option<RunNumber>,
    /// `shipway.yaml` as of the commit.
    pub config: ServiceConfig,
    /// The workflows that test an environment after this release went in, as of the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<WorkflowFile>,
    /// Who pushed it, or started what made it; none in logs of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    pub created_at: Timestamp,
}

/// A workflow file as of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowFile {
    /// Its path in the repository.
    pub path: String,
    pub text: String,
    /// The workflows that it calls, and that those call: read together with it, so that nothing is read again later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub called: Vec<CalledFile>,
}

/// A workflow that was looked for because another one calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledFile {
    /// Its path in the run's own repository, or `owner/repo/path@ref`.
    pub name: String,
    /// Its text; none when it can't be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The commit that the ref of another repository pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

impl CalledFile {
    /// A file of the run's own commit: its text, or why it can't be read.
    #[must_use]
    pub fn new(name: String, read: Result<String, impl fmt::Display>) -> Self {
        let (text, why) = match read {
            Ok(text) => (Some(text), None),
            Err(why) => (None, Some(why.to_string())),
        };
        Self {
            name,
            text,
            why,
            commit: None,
        }
    }
}

impl WorkflowFile {
    /// A file alone: what it calls is still to be read.
    #[must_use]
    pub const fn new(path: String, text: String) -> Self {
        Self {
            path,
            text,
            called: Vec::new(),
        }
    }

    /// What it calls and was not read yet, to be read one after the other.
    pub fn calls(&mut self) -> CalledFileReader<'_> {
        let mut open = find_called_workflows(&self.path, &self.text);
        for called in &self.called {
            let text = called.text.as_deref();
            open.extend(
                text.into_iter()
                    .flat_map(|text| find_called_workflows(&called.name, text)),
            );
        }
        CalledFileReader { open, file: self }
    }
}

/// The workflows that are to be read because they are called.
///
/// ```
/// use shipway_core::release::{CalledFile, WorkflowFile};
/// let text = "on: push\njobs: { a: { uses: ./.github/workflows/b.yml } }\n";
/// let mut file = WorkflowFile::new("ci.yml".to_owned(), text.to_owned());
/// let mut calls = file.calls();
/// while let Some(name) = calls.next() {
///     calls.give(CalledFile::new(name, Err("no such file")));
/// }
/// assert_eq!(file.called[0].name, ".github/workflows/b.yml");
/// ```
#[derive(Debug)]
pub struct CalledFileReader<'f> {
    file: &'f mut WorkflowFile,
    open: Vec<String>,
}

impl CalledFileReader<'_> {
    /// The name of the next file to read; `None` when all are read or there are more than [`CALLED_MAX`], which planning
    /// rejects. A file that isn't passed to `give` after it was named is left out.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives next depends on what it was given"
    )]
    pub fn next(&mut self) -> Option<String> {
        while self.file.called.len() <= CALLED_MAX {
            let name = self.open.pop()?;
            if !self.file.called.iter().any(|file| file.name == name) {
                return Some(name);
            }
        }
        None
    }

    pub fn give(&mut self, called: CalledFile) {
        if let Some(text) = &called.text {
            self.open.extend(find_called_workflows(&called.name, text));
        }
        self.file.called.push(called);
    }
}

/// A commit, as far as people ask about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it: `Ada <ada@example.com>`.
    pub author: String,
    /// Who committed it, in the same form; none in logs from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<String>,
    pub at: Timestamp,
}

impl Release {
    /// Its configuration of `environment`.
    #[must_use]
    pub fn environment(&self, environment: &EnvironmentName) -> Option<&EnvironmentConfig> {
        self.config
            .environments
            .iter()
            .find(|it| it.name == *environment)
    }

    /// The environment after `environment` in order of promotion.
    #[must_use]
    pub fn environment_after(&self, environment: &EnvironmentName) -> Option<&EnvironmentConfig> {
        self.config
            .environments
            .iter()
            .skip_while(|it| it.name != *environment)
            .nth(1)
    }

    /// The workload of one instance in `environment`.
    #[must_use]
    pub fn workload(&self, environment: &EnvironmentConfig) -> Workload {
        let run = &self.config.run;
        let mut env = run.env.clone();
        env.extend(environment.env.clone());
        env.entry("SHIPWAY_COMMIT".to_owned())
            .or_insert_with(|| self.commit.id.to_string());
        Workload {
            program: self.program(),
            env,
            health: run.health.clone(),
            limits: run.limits.clone(),
            grace: run.grace,
            stop_signal: run.stop_signal,
            host: environment.request_host().map(str::to_owned),
            url: None,
        }
    }

    /// What its instances run: its command in the unpacked artifact, or its command in the image whose digest the artifact is.
    fn program(&self) -> WorkloadProgram {
        let command = self.config.run.command.clone();
        match &self.config.artifact {
            ArtifactSource::Run { .. } | ArtifactSource::Source => {
                let artifact = self.artifact.clone();
                WorkloadProgram::Command(WorkloadCommand { artifact, command })
            }
            ArtifactSource::Image { name } => WorkloadProgram::Image {
                image: ImageReference {
                    name: name.clone(),
                    digest: self.artifact.clone(),
                },
                command: Some(command),
            },
        }
    }

    /// Where it runs when it is in `environment`.
    #[must_use]
    pub fn service_environment(&self, environment: &EnvironmentName) -> ServiceEnvironment {
        ServiceEnvironment {
            service: self.service.clone(),
            environment: environment.clone(),
        }
    }
}
