//! Releases: commit + artifact digest + configuration digest of one service; immutable; numbered per service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Actor,
    config::{Config, Environment},
    ids::{CommitId, Digest, EnvironmentName, ReleaseNumber, RunNumber, ServiceName},
    target::{Launch, Place},
};

/// What can be rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// Its number, from 1.
    pub number: ReleaseNumber,
    /// The order of the push that made it: a release of an older push never replaces one of a newer push by itself.
    pub sequence: u64,
    /// What was committed.
    pub commit: Commit,
    /// The built bytes.
    pub artifact: Digest,
    /// The run that built them; none when the artifact is the commit's own tree.
    pub run: Option<RunNumber>,
    /// `shipway.yaml` as of the commit.
    pub config: Config,
    /// The workflows that test an environment after this release went in, as of the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<WorkflowFile>,
    /// Who pushed it, or started what made it; none in logs of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A workflow file as of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowFile {
    /// Its path in the repository.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A commit, as far as people ask about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it: `Ada <ada@example.com>`.
    pub author: String,
    /// When it was committed.
    pub at: Timestamp,
}

impl Release {
    /// Its configuration of `environment`.
    #[must_use]
    pub fn environment(&self, environment: &EnvironmentName) -> Option<&Environment> {
        self.config
            .environments
            .iter()
            .find(|it| it.name == *environment)
    }

    /// The environment after `environment` in order of promotion.
    #[must_use]
    pub fn environment_after(&self, environment: &EnvironmentName) -> Option<&Environment> {
        self.config
            .environments
            .iter()
            .skip_while(|it| it.name != *environment)
            .nth(1)
    }

    /// How one instance is launched in `environment`.
    #[must_use]
    pub fn launch(&self, environment: &Environment) -> Launch {
        let run = &self.config.run;
        let mut env = run.env.clone();
        env.extend(environment.env.clone());
        Launch {
            artifact: self.artifact.clone(),
            command: run.command.clone(),
            env,
            health: run.health.clone(),
            limits: run.limits.clone(),
            grace: run.grace,
        }
    }

    /// Where it runs when it is in `environment`.
    #[must_use]
    pub fn place(&self, environment: &EnvironmentName) -> Place {
        Place {
            service: self.service.clone(),
            environment: environment.clone(),
        }
    }
}
