//! What a push is released as, or why it isn't.

use super::{rejection::ServiceRejection, state::OpenPush};
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

/// The artifact that a settled push is released by, or why there is none.
pub(super) fn release_of(push: &OpenPush) -> Result<(Digest, Option<RunNumber>), String> {
    let Some(config) = push.push.config.as_deref() else {
        let why = push.push.unconfigured.as_deref();
        return Err(why.unwrap_or("there is no shipway.yaml").to_owned());
    };
    if !push.push.is_released() {
        let what = push.push.branch().unwrap_or(&push.push.reference);
        return Err(format!(
            "only the branch {} is released, not {what}",
            config.branch
        ));
    }
    if !push.red.is_empty() {
        let red: Vec<String> = push.red.iter().map(ToString::to_string).collect();
        return Err(format!("not green: {}", red.join(", ")));
    }
    if !push.deployed_by_step.is_empty() {
        return Err("a step of its run deployed it".to_owned());
    }
    match &config.artifact {
        ArtifactSource::Source => push
            .push
            .source
            .clone()
            .map(|digest| (digest, None))
            .ok_or_else(|| "its tree could not be stored".to_owned()),
        ArtifactSource::Run { name } => run_artifact(push, name.as_deref()),
        ArtifactSource::Image { name } => Err(format!("images ({name}) can't be released yet")),
    }
}

fn run_artifact(
    push: &OpenPush,
    name: Option<&str>,
) -> Result<(Digest, Option<RunNumber>), String> {
    let all: Vec<&str> = push
        .artifacts
        .iter()
        .map(|(_, artifact)| artifact.name.as_str())
        .collect();
    let found: Vec<_> = push
        .artifacts
        .iter()
        .filter(|(_, artifact)| name.is_none_or(|name| artifact.name == name))
        .collect();
    match (found.as_slice(), name) {
        ([(run, artifact)], _) => Ok((artifact.digest.clone(), Some(*run))),
        ([], _) if push.runs == 0 => Err(
            "no workflow ran to make an artifact: none matches this push, or it has mistakes"
                .to_owned(),
        ),
        ([], _) if all.is_empty() => {
            Err("no run has uploaded an artifact (actions/upload-artifact)".to_owned())
        }
        ([], Some(name)) => Err(format!(
            "no run has uploaded an artifact {name:?}, only {}",
            all.join(", ")
        )),
        (_, Some(name)) => Err(format!("several runs have uploaded an artifact {name:?}")),
        (_, None) => Err(format!(
            "which artifact is the release? name one of {} as `artifact` in shipway.yaml",
            all.join(", ")
        )),
    }
}
