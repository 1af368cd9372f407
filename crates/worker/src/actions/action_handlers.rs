//! Runs actions that are not built in: composite and JavaScript actions, with their pre and post parts.

use std::{net::Ipv4Addr, process::Stdio, sync::Arc};

use shipway_workflow::{
    expr::Value,
    job::Level,
    model::{ActionFile, ActionOutput, Runs, Step, Table},
};
use tokio::{process::Command, time::Instant};

use super::{
    ActionEffects, ActionError, ActionUse, EndpointError, MissingTool, NodeProblem,
    action_resolver::{ActionLibrary, ActionReference, NodeProgram, ResolvedAction},
};
use crate::{
    command_files::CommandFiles,
    environment::EnvVars,
    file_hash::WorkspaceFiles,
    path_error::PathError,
    program_runner::{ProgramInvocation, RunOutcome},
    shell::{CommandLine, find_program},
    step_runner::{PlannedStep, StepRunner, StepTask},
    step_scope::{ActionStage, PostStep, StepIdentity, StepScope},
};

/// GitHub's limit for nested actions.
pub(crate) const DEPTH_MAX: usize = 9;

/// An action that is about to run.
pub(super) struct PreparedAction<'m> {
    pub(super) action: &'m Arc<ResolvedAction>,
    pub(super) inputs: Vec<(String, String)>,
    pub(super) seen: StepIdentity,
    pub(super) channel: &'m CommandFiles,
}

impl StepRunner {
    /// Runs the action of a step.
    pub(crate) async fn run_action(
        &mut self,
        frame: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: ActionUse<'_>,
        left: &mut ActionEffects,
    ) -> RunOutcome {
        let found = match &task.known {
            Some(known) => Ok(Some(Arc::clone(known))),
            None => self.resolve_action(frame, uses.action).await,
        };
        let known = match found {
            Ok(Some(known)) => known,
            Ok(None) => {
                let ended = self
                    .run_built_in_action(frame, &task, plan, &uses, left)
                    .await;
                return match left.missing_tool.take() {
                    None => ended,
                    Some(missing) => {
                        self.run_real_action(frame, task, plan, &uses, missing, left)
                            .await
                    }
                };
            }
            Err(error) => return RunOutcome::Failed(error.to_string()),
        };
        match self
            .run_resolved_action(frame, task, plan, &uses, &known, left)
            .await
        {
            Ok(ended) => ended,
            Err(error) => RunOutcome::Failed(error.to_string()),
        }
    }

    /// Runs the real action instead of the built-in one, to install a tool that this machine lacks.
    async fn run_real_action(
        &mut self,
        frame: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
        missing: MissingTool,
        left: &mut ActionEffects,
    ) -> RunOutcome {
        let action = uses.action;
        self.output
            .log_message(&format!("{missing}; {action} is run, which downloads it"));
        self.output.log.flush();
        let failed = |reason: String| {
            let error = ActionError::ToolNotProvided {
                missing: missing.clone(),
                action: action.to_owned(),
                reason,
            };
            RunOutcome::Failed(error.to_string())
        };
        let known = match ActionReference::parse(action, false) {
            Ok(ActionReference::Remote(remote)) => match self.fetch_action(&remote).await {
                Ok(known) => known,
                Err(error) => return failed(error.to_string()),
            },
            Ok(_) => return failed(ActionError::NotOfRepository.to_string()),
            Err(error) => return failed(error.to_string()),
        };
        match self
            .run_resolved_action(frame, task, plan, uses, &known, left)
            .await
        {
            Ok(RunOutcome::Failed(reason)) => failed(reason),
            Err(error) => failed(error.to_string()),
            Ok(ended) => ended,
        }
    }

    /// Resolves `uses:` of a step; `None` for a built-in action.
    async fn resolve_action(
        &mut self,
        frame: &StepScope,
        action: &str,
    ) -> Result<Option<Arc<ResolvedAction>>, ActionError> {
        let reference = ActionReference::parse(action, self.library.built_in)?;
        if reference != ActionReference::BuiltIn && frame.depth > DEPTH_MAX {
            return Err(too_deep(action));
        }
        match reference {
            ActionReference::BuiltIn => Ok(None),
            ActionReference::Docker(image) => {
                let action = super::docker_action::action_from_image(&image, self.workspace());
                Ok(Some(Arc::new(action)))
            }
            ActionReference::Local(path) => {
                let known = ActionLibrary::read_local(self.workspace(), &path)?;
                self.fetch_nested_actions(&known, frame.depth + 1).await?;
                Ok(Some(known))
            }
            ActionReference::Remote(remote) => self.fetch_action(&remote).await.map(Some),
        }
    }

    async fn run_resolved_action(
        &mut self,
        frame: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
        known: &Arc<ResolvedAction>,
        left: &mut ActionEffects,
    ) -> Result<RunOutcome, ActionError> {
        let mut seen = frame.step_identity(&task.step.id);
        seen.remote = known
            .remote
            .as_ref()
            .map(|it| (it.repository.clone(), it.reference.clone()));
        let inputs = self.evaluate_inputs(frame, &seen, plan, uses.with, &known.file)?;
        if frame.stage == ActionStage::Main
            && known.remote.is_none()
            && self.library.has_pre_part(known)
        {
            let text = format!(
                "`pre` of {} is left out: it can't be known before the job's first step what an action of the workspace is",
                uses.action
            );
            self.output.annotate(Level::Warning, &text);
        }
        let made = PreparedAction {
            action: known,
            inputs,
            seen,
            channel: uses.channel,
        };
        match &known.file.runs {
            Runs::Composite { steps } => {
                self.run_composite(frame, task, plan, steps, made, left)
                    .await
            }
            Runs::JavaScript { node, main, .. } => {
                let entry = match frame.stage {
                    ActionStage::Main => Some(main.as_str()),
                    stage => known.stage_part(stage).map(|part| part.entry.as_str()),
                };
                let Some(entry) = entry else {
                    return Ok(RunOutcome::Succeeded);
                };
                register_post_part(frame, &task, known);
                self.run_javascript(&task, plan, made, *node, entry).await
            }
            Runs::Docker { .. } => self.run_docker_action(frame, &task, plan, made).await,
        }
    }

    /// The inputs of the action: `with:` and the defaults of the others.
    fn evaluate_inputs(
        &mut self,
        frame: &StepScope,
        seen: &StepIdentity,
        plan: &PlannedStep,
        with: &Table,
        file: &ActionFile,
    ) -> Result<Vec<(String, String)>, ActionError> {
        let workspace = self.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let contexts = self.expression_contexts(frame, seen, &plan.env, &files);
        let mut inputs = with
            .resolve(&contexts)
            .map_err(ActionError::in_expression("with"))?;
        let given: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        for input in &file.inputs {
            if given.iter().any(|it| it.eq_ignore_ascii_case(&input.name)) {
                continue;
            }
            let value = match &input.default {
                Some(default) => {
                    default
                        .resolve_text(&contexts)
                        .map_err(ActionError::in_expression(format!(
                            "the input {}",
                            input.name
                        )))?
                }
                None => String::new(),
            };
            inputs.push((input.name.clone(), value));
        }
        let is_image =
            matches!(&file.runs, Runs::Docker { image, .. } if image.starts_with("docker://"));
        if frame.stage == ActionStage::Main && !(is_image && file.inputs.is_empty()) {
            self.warn_about_inputs(&given, file);
        }
        let shown = inputs.iter().filter(|(_, value)| !value.is_empty());
        let head: Vec<String> = shown
            .map(|(name, value)| format!("  {name}: {value}"))
            .collect();
        if !head.is_empty() {
            self.output.log_message(&head.join("\n"));
        }
        self.output.log_message("##[endgroup]");
        self.output.log.flush();
        Ok(inputs)
    }

    /// Warns of unknown and deprecated inputs.
    fn warn_about_inputs(&mut self, given: &[String], file: &ActionFile) {
        let docker = matches!(file.runs, Runs::Docker { .. });
        let is_odd = |name: &str| !(docker && matches!(name, "entrypoint" | "args"));
        for name in given {
            match file.input(name) {
                Some(input) => {
                    if let Some(message) = &input.deprecation {
                        let text = format!("the input {name} is deprecated: {message}");
                        self.output.annotate(Level::Warning, &text);
                    }
                }
                None if is_odd(&name.to_ascii_lowercase()) => {
                    let known: Vec<&str> = file.inputs.iter().map(|it| it.name.as_str()).collect();
                    let known = match known.as_slice() {
                        [] => "it has none".to_owned(),
                        known => format!("there are {}", known.join(", ")),
                    };
                    let text = format!("the action has no input {name}; {known}");
                    self.output.annotate(Level::Warning, &text);
                }
                None => {}
            }
        }
    }

    async fn run_composite(
        &mut self,
        frame: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        steps: &[Step],
        made: PreparedAction<'_>,
        left: &mut ActionEffects,
    ) -> Result<RunOutcome, ActionError> {
        let inputs = made.inputs.iter();
        let inputs = inputs.map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        let mut seen = made.seen;
        seen.path = Some(made.action.folder.clone());
        let mut inner = match task.inner {
            Some(inner) => *inner,
            None => frame.for_action(&task.key, plan.own.clone(), Value::object(inputs), seen),
        };
        inner.stage = frame.stage;
        inner.goes_on = plan.goes_on;
        inner.deadline = plan.timeout.and_then(|it| Instant::now().checked_add(it));
        let mut ended = None;
        match frame.stage {
            ActionStage::Pre => self.run_pre_parts(&mut inner, steps, left).await,
            ActionStage::Post => self.run_post_parts(&mut inner, left).await,
            ActionStage::Main => {
                inner.posts = frame.take_post_steps(&task.key);
                for (index, step) in steps.iter().enumerate() {
                    let task = StepTask::new(inner.step_key(index), step);
                    self.run_nested_step(&mut inner, task, left).await;
                }
                ended = self
                    .evaluate_composite_outputs(&inner, made.action, left)
                    .err()
                    .map(|error| error.to_string());
            }
        }
        let ended = match (inner.cut, inner.late, inner.failed.take(), ended) {
            (true, ..) => RunOutcome::Cancelled,
            (_, true, ..) => RunOutcome::TimedOut,
            (_, _, Some(why), _) | (.., Some(why)) => RunOutcome::Failed(why),
            _ => RunOutcome::Succeeded,
        };
        if !inner.posts.is_empty() {
            frame.set_post_step(PostStep {
                key: task.key,
                step: task.step,
                action: Some(Arc::clone(made.action)),
                inner: Some(Box::new(inner)),
            });
        }
        Ok(ended)
    }

    /// Runs the pre parts of a composite action's steps.
    async fn run_pre_parts(
        &mut self,
        inner: &mut StepScope,
        steps: &[Step],
        left: &mut ActionEffects,
    ) {
        for (index, step) in steps.iter().enumerate() {
            if let Some(known) = self.library.action_with_pre_part(step) {
                let mut task = StepTask::new(inner.step_key(index), step);
                task.condition = known.stage_condition(ActionStage::Pre);
                task.known = Some(known);
                self.run_nested_step(inner, task, left).await;
            }
        }
    }

    /// Runs the pending post parts of a composite action's steps.
    async fn run_post_parts(&mut self, inner: &mut StepScope, left: &mut ActionEffects) {
        while let Some(post) = inner.posts.pop() {
            self.run_nested_step(inner, StepTask::from(post), left)
                .await;
        }
    }

    fn evaluate_composite_outputs(
        &self,
        inner: &StepScope,
        action: &ResolvedAction,
        left: &mut ActionEffects,
    ) -> Result<(), ActionError> {
        let workspace = self.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let env = self.scope.scope_env(inner);
        let contexts = self.expression_contexts(inner, &inner.step_identity(""), &env, &files);
        for ActionOutput { name, value } in &action.file.outputs {
            if let Some(value) = value {
                let value = value.resolve_text(&contexts);
                let value =
                    value.map_err(ActionError::in_expression(format!("the output {name}")))?;
                left.outputs.push((name.clone(), value));
            }
        }
        Ok(())
    }

    async fn run_javascript(
        &mut self,
        task: &StepTask,
        plan: &PlannedStep,
        made: PreparedAction<'_>,
        wanted: u32,
        entry: &str,
    ) -> Result<RunOutcome, ActionError> {
        let program = made.action.folder.join(entry);
        if !program.is_file() {
            return Err(ActionError::NoEntryFile(entry.to_owned()));
        }
        let mut env = self.step_environment(&made.seen, &plan.env, made.channel);
        let contained = self.containers.job_container().is_some();
        env.extend(self.endpoint_variables(contained).await);
        let node = self.node_for_action(wanted, &env).await?;
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
        let invocation = ProgramInvocation {
            line: CommandLine {
                program: node.program.display().to_string(),
                arguments: vec![program.display().to_string()],
            },
            workdir: self.folders.workspace.clone(),
            env: env.into_vec(),
        };
        let ended = self.run_program(&invocation, plan).await;
        Ok(match ended {
            RunOutcome::Failed(why) if node.major_version() != wanted => {
                RunOutcome::Failed(format!(
                    "{why} (the action asks for node {wanted}, and was run by node {})",
                    node.version
                ))
            }
            ended => ended,
        })
    }

    /// The variables of the runtime endpoints. Like GitHub's runner, only actions get them, not scripts.
    pub(crate) async fn endpoint_variables(&mut self, contained: bool) -> Vec<(String, String)> {
        let at = if contained {
            self.containers.gateway_address().await
        } else {
            Some(Ipv4Addr::LOCALHOST)
        };
        let env = match at {
            Some(at) => self.runtime.endpoint_variables(at, &mut self.output.masker),
            None => Err(EndpointError::NoGateway),
        };
        env.unwrap_or_else(|why| {
            // Not an error: few actions need the endpoints.
            self.output.log_message(&format!(
                "The action can't store artifacts or caches: {why}"
            ));
            Vec::new()
        })
    }

    /// The Node.js that runs actions: the machine's, not one that an earlier step has put into `PATH`.
    async fn node_for_action(
        &mut self,
        wanted: u32,
        env: &EnvVars,
    ) -> Result<NodeProgram, ActionError> {
        let node = match &self.library.node {
            Some(node) => node.clone(),
            None => {
                let found = match self.containers.job_container() {
                    Some(inside) => inside
                        .query_program(&["node", "--version"])
                        .await
                        .map(|version| NodeProgram::parse("node".into(), &version))
                        .ok_or(NodeProblem::NotInContainer),
                    None => find_machine_node(env).await,
                };
                let node = found.map_err(|problem| ActionError::NoNode { wanted, problem })?;
                self.library.node.insert(node).clone()
            }
        };
        if node.major_version() < wanted {
            let text = format!(
                "the action asks for node {wanted}; node {} is there and is used",
                node.version
            );
            self.output.annotate(Level::Warning, &text);
        }
        Ok(node)
    }
}

/// Registers the post part before the main part starts, so that it also runs if that fails.
pub(super) fn register_post_part(
    frame: &mut StepScope,
    task: &StepTask,
    known: &Arc<ResolvedAction>,
) {
    if frame.stage != ActionStage::Post && known.stage_part(ActionStage::Post).is_some() {
        frame.register_post_step(PostStep {
            key: task.key.clone(),
            step: task.step.clone(),
            action: Some(Arc::clone(known)),
            inner: None,
        });
    }
}

pub(super) fn too_deep(action: &str) -> ActionError {
    ActionError::TooDeep {
        action: action.to_owned(),
        max: DEPTH_MAX,
    }
}

async fn find_machine_node(env: &EnvVars) -> Result<NodeProgram, NodeProblem> {
    let of_machine = std::env::var("PATH").unwrap_or_default();
    let program = find_program("node", &of_machine)
        .or_else(|| find_program("node", env.get("PATH").unwrap_or_default()))
        .ok_or(NodeProblem::NotInstalled)?;
    let asked = Command::new(&program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = asked.map_err(PathError::at(&program))?;
    let node = NodeProgram::parse(program, &String::from_utf8_lossy(&output.stdout));
    if !output.status.success() || node.version.is_empty() {
        return Err(NodeProblem::NoVersion(node.program));
    }
    Ok(node)
}
