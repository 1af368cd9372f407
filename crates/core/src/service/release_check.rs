//! What a push is released as, or why it isn't.

use super::{ServiceDecider, rejection::ServiceRejection, state::OpenPush};
use crate::{
    config::ArtifactSource,
    ids::{Digest, EnvironmentName, RunNumber},
    release::Release,
};

/// Refuses an environment that the release doesn't have.
pub(super) fn require_environment(
    release: &Release,
    environment: &EnvironmentName,
) -> Result<(), ServiceRejection> {
    if release.environment(environment).is_some() {
        return Ok(());
    }
    let known = release
        .config
        .environments
        .iter()
        .map(|it| it.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    Err(ServiceRejection::UnknownEnvironment {
        release: release.number,
        environment: environment.to_string(),
        known,
    })
}

impl ServiceDecider {
    /// Refuses a release of a branch that the environment does not accept. The rules are those of the released branch, so that a
    /// branch can't admit itself.
    pub(super) fn refuse_branch(
        &self,
        environment: &EnvironmentName,
        release: &Release,
    ) -> Result<(), ServiceRejection> {
        let config = self.state.config.as_deref();
        let mut known = config.iter().flat_map(|config| &config.environments);
        let known = known.find(|it| it.name == *environment);
        let Some(rules) = known
            .or_else(|| release.environment(environment))
            .map(|it| &it.rules)
        else {
            return Ok(());
        };
        if rules.accept_branch(release.branch.as_deref()) {
            return Ok(());
        }
        Err(ServiceRejection::BranchNotAccepted {
            release: release.number,
            branch: release.branch.clone(),
            environment: environment.clone(),
            accepted: rules.branch_list(),
        })
    }
}

/// Why a settled push becomes no release.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReleasable {
    #[error("{0}")]
    Unconfigured(String),
    #[error("only commits on {released} are released (this is {pushed})")]
    OtherBranch { released: String, pushed: String },
    #[error("not successful: {}", .0.join(", "))]
    Red(Vec<String>),
    #[error("a step of its run deployed it")]
    DeployedByStep,
    #[error("its tree could not be stored")]
    SourceLost,
    #[error("images ({0}) can't be released yet")]
    Image(String),
    #[error(
        "no workflow was triggered by this push (no match, or it has errors), so there is no artifact"
    )]
    NoRun,
    #[error("no run has uploaded an artifact (actions/upload-artifact)")]
    NoArtifact,
    #[error("no run has uploaded an artifact {name:?}, only {}", .uploaded.join(", "))]
    ArtifactMissing { name: String, uploaded: Vec<String> },
    #[error("several runs have uploaded an artifact {0:?}")]
    SeveralArtifacts(String),
    #[error("several artifacts could be the release ({}): set `artifact` in shipway.yaml", .0.join(", "))]
    ArtifactUnnamed(Vec<String>),
}

/// The artifact of a settled push's release, with the run that uploaded it.
pub(super) fn release_of(push: &OpenPush) -> Result<(Digest, Option<RunNumber>), NotReleasable> {
    let Some(config) = push.push.config.as_deref() else {
        let why = push.push.unconfigured.as_deref();
        let why = why.unwrap_or("there is no shipway.yaml").to_owned();
        return Err(NotReleasable::Unconfigured(why));
    };
    if !push.push.is_released() {
        let pushed = push.push.branch().unwrap_or(&push.push.reference);
        return Err(NotReleasable::OtherBranch {
            released: config.branch.clone(),
            pushed: pushed.to_owned(),
        });
    }
    if !push.red.is_empty() {
        let red = push.red.iter().map(ToString::to_string);
        return Err(NotReleasable::Red(red.collect()));
    }
    if !push.deployed_by_step.is_empty() {
        return Err(NotReleasable::DeployedByStep);
    }
    match &config.artifact {
        ArtifactSource::Source => {
            let source = push.push.source.clone();
            source
                .map(|digest| (digest, None))
                .ok_or(NotReleasable::SourceLost)
        }
        ArtifactSource::Run { name } => run_artifact(push, name.as_deref()),
        ArtifactSource::Image { name } => Err(NotReleasable::Image(name.to_string())),
    }
}

fn run_artifact(
    push: &OpenPush,
    name: Option<&str>,
) -> Result<(Digest, Option<RunNumber>), NotReleasable> {
    let uploaded = || {
        push.artifacts
            .iter()
            .map(|(_, artifact)| artifact.name.clone())
            .collect()
    };
    let matching = push.artifacts.iter();
    let matching = matching.filter(|(_, artifact)| name.is_none_or(|name| artifact.name == name));
    let matching: Vec<_> = matching.collect();
    match (matching.as_slice(), name) {
        ([(run, artifact)], _) => Ok((artifact.digest.clone(), Some(*run))),
        ([], _) if push.runs == 0 => Err(NotReleasable::NoRun),
        ([], _) if push.artifacts.is_empty() => Err(NotReleasable::NoArtifact),
        ([], Some(name)) => Err(NotReleasable::ArtifactMissing {
            name: name.to_owned(),
            uploaded: uploaded(),
        }),
        (_, Some(name)) => Err(NotReleasable::SeveralArtifacts(name.to_owned())),
        (_, None) => Err(NotReleasable::ArtifactUnnamed(uploaded())),
    }
}
