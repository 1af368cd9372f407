//! Container actions, of a repository or from an image (`uses: docker://…`): their inputs, arguments and variables.
//! [`crate::containers`] runs them.

use shipway_workflow::{
    expr::Value,
    model::{ActionFile, Runs, Table},
};

use super::{
    ActionError,
    action_handlers::{PreparedAction, register_post_part},
    action_resolver::ResolvedAction,
};
use crate::{
    containers::ContainerAction,
    environment::EnvVars,
    file_hash::WorkspaceFiles,
    program_runner::RunOutcome,
    step_runner::{PlannedStep, StepRunner, StepTask},
    step_scope::{ActionStage, StepScope},
};

/// The action for `uses: docker://image`.
pub(super) fn action_from_image(image: &str, folder: &std::path::Path) -> ResolvedAction {
    ResolvedAction {
        folder: folder.to_owned(),
        file: ActionFile {
            name: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            runs: Runs::Docker {
                image: format!("docker://{image}"),
                entrypoint: None,
                pre: None,
                post: None,
                args: Vec::new(),
                env: Table::default(),
            },
        },
        remote: None,
    }
}

impl StepRunner {
    /// Runs a container action, or its pre or post part.
    pub(super) async fn run_docker_action(
        &mut self,
        frame: &mut StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        made: PreparedAction<'_>,
    ) -> Result<RunOutcome, ActionError> {
        let known = made.action;
        let Runs::Docker {
            image,
            entrypoint,
            args,
            env: more,
            ..
        } = &known.file.runs
        else {
            return Ok(RunOutcome::Succeeded);
        };
        let input = |wanted: &str| {
            let mut inputs = made.inputs.iter();
            let found = inputs.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found
                .map(|(_, value)| value.clone())
                .filter(|it| !it.is_empty())
        };
        let entrypoint = match frame.stage {
            ActionStage::Main => entrypoint.clone().or_else(|| input("entrypoint")),
            stage => match known.stage_part(stage) {
                Some(part) => Some(part.entry.clone()),
                None => return Ok(RunOutcome::Succeeded),
            },
        };
        register_post_part(frame, task, known);
        let mut env = self.step_environment(&made.seen, &plan.env, made.channel);
        let workspace = self.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let inputs = made.inputs.iter();
        let inputs = inputs.map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        let within = frame.for_action(
            &task.key,
            plan.own.clone(),
            Value::object(inputs),
            made.seen,
        );
        let contexts =
            self.expression_contexts(&within, &within.step_identity(""), &plan.env, &files);
        let more = more
            .resolve(&contexts)
            .map_err(ActionError::in_expression("runs.env"))?;
        for (name, value) in more {
            // Variables of the workflow take precedence.
            if env.get(&name).is_none() {
                env.set(name, value);
            }
        }
        let arguments = args.iter().map(|arg| arg.resolve_text(&contexts));
        let mut arguments = arguments
            .collect::<Result<Vec<_>, _>>()
            .map_err(ActionError::in_expression("runs.args"))?;
        if args.is_empty() {
            arguments = ContainerAction::split_arguments(&input("args").unwrap_or_default())?;
        }
        for (name, value) in &made.inputs {
            let name = name.replace(' ', "_").to_uppercase();
            env.set(format!("INPUT_{name}"), value.as_str());
        }
        for (name, value) in self
            .states
            .get(&task.key)
            .into_iter()
            .flat_map(EnvVars::iter)
        {
            env.set(format!("STATE_{name}"), value.as_str());
        }
        let action = ContainerAction {
            image: image.clone(),
            folder: known.folder.clone(),
            entrypoint,
            arguments,
            env,
        };
        Ok(self.run_container(plan, action).await?)
    }
}
