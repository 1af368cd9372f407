//! Container actions, of a repository or from an image (`uses: docker://…`): their entrypoint, arguments and variables.
//! [`crate::containers`] runs them.

use std::path::Path;

use shipway_workflow::{
    expr::Contexts,
    model::{ActionFile, ActionRuns, TemplateTable},
};

use super::{action_error::ActionError, resolved_action::ResolvedAction};
use crate::{
    action_stage::ActionStage,
    containers::{ContainerAction, ContainerError, EngineUnavailable},
    environment::EnvVars,
};

/// The action for `uses: docker://image`.
pub(crate) fn action_from_image(image: &str, folder: &Path) -> ResolvedAction {
    ResolvedAction {
        folder: folder.to_owned(),
        file: ActionFile {
            name: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            runs: ActionRuns::Docker {
                image: format!("docker://{image}"),
                entrypoint: None,
                pre: None,
                post: None,
                args: Vec::new(),
                env: TemplateTable::default(),
            },
        },
        remote: None,
    }
}

/// `docker://image`, or the path of a Dockerfile.
pub(crate) fn image_name(action: &ResolvedAction) -> &str {
    match &action.file.runs {
        ActionRuns::Docker { image, .. } => image,
        ActionRuns::Composite { .. } | ActionRuns::JavaScript { .. } => "",
    }
}

/// The entrypoint of a part; the outer `None` if the action has no such part, the inner one for the image's own entrypoint.
pub(crate) fn find_entrypoint(
    action: &ResolvedAction,
    inputs: &[(String, String)],
    stage: ActionStage,
) -> Option<Option<String>> {
    match (&action.file.runs, stage) {
        (ActionRuns::Docker { entrypoint, .. }, ActionStage::Main) => Some(
            entrypoint
                .clone()
                .or_else(|| find_input(inputs, "entrypoint")),
        ),
        (_, stage) => Some(Some(action.stage_part(stage)?.entry.clone())),
    }
}

/// Evaluates the arguments, and adds the action's variables to `env`.
pub(crate) fn evaluate(
    action: &ResolvedAction,
    inputs: &[(String, String)],
    contexts: &Contexts<'_>,
    env: &mut EnvVars,
) -> Result<Vec<String>, ActionError> {
    let ActionRuns::Docker { args, env: own, .. } = &action.file.runs else {
        return Ok(Vec::new());
    };
    let own = own.resolve(contexts);
    for (name, value) in own.map_err(ActionError::in_expression("runs.env"))? {
        // Variables of the workflow take precedence.
        if env.get(&name).is_none() {
            env.set(name, value);
        }
    }
    if args.is_empty() {
        let text = find_input(inputs, "args").unwrap_or_default();
        return Ok(ContainerAction::split_arguments(&text)?);
    }
    let arguments = args.iter().map(|argument| argument.resolve_text(contexts));
    let arguments: Result<_, _> = arguments.collect();
    arguments.map_err(ActionError::in_expression("runs.args"))
}

/// The container to run.
pub(crate) fn build(
    action: &ResolvedAction,
    entrypoint: Option<String>,
    arguments: Vec<String>,
    env: EnvVars,
) -> ContainerAction {
    ContainerAction {
        image: image_name(action).to_owned(),
        folder: action.folder.clone(),
        entrypoint,
        arguments,
        env,
    }
}

pub(crate) fn without_engine(action: &ResolvedAction, source: EngineUnavailable) -> ContainerError {
    ContainerError::ActionWithoutEngine {
        image: image_name(action).to_owned(),
        source,
    }
}

/// A non-empty input.
fn find_input(inputs: &[(String, String)], name: &str) -> Option<String> {
    let mut inputs = inputs.iter();
    let found = inputs.find(|(known, _)| known.eq_ignore_ascii_case(name));
    let value = found.map(|(_, value)| value.clone());
    value.filter(|value| !value.is_empty())
}
