//! Runs the action of a step: resolves it, evaluates its inputs, and hands it its data.
//!
//! Actions are functions that return a [`StepResult`]. The steps of a composite action are returned to the caller,
//! [`crate::step_runner`], which runs them: nothing here depends on it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use crate::{
    action_stage::ActionStage,
    actions::{
        ActionError, StepContext, StepResult,
        action_library::ActionLibrary,
        action_reference::{ActionReference, BuiltInActions},
        built_in::run_built_in,
        docker_action,
        fetch_actions::{DEPTH_MAX, too_deep},
        javascript_action,
        resolved_action::ResolvedAction,
        tool_table::MissingTool,
    },
    cancellation::StopMode,
    command_files::CommandFiles,
    environment::EnvVars,
    file_hash::WorkspaceFiles,
    program_runner::RunOutcome,
    runtime::EndpointError,
    step_resources::StepResources,
    step_scope::{PostStep, StepIdentity, StepScope},
    step_task::{PlannedStep, StepTask},
};
use shipway_workflow::{
    expr::ExprValue,
    job::{AnnotationLevel, WithoutEngine},
    model::{ActionFile, ActionRuns, TemplateTable, WorkflowStep},
};

/// The `uses:` part of a step.
pub(crate) struct ActionUse<'u> {
    pub(crate) action: &'u str,
    pub(crate) with: &'u TemplateTable,
    pub(crate) command_files: &'u CommandFiles,
}

/// An action with its evaluated inputs.
struct PreparedAction<'m> {
    action: &'m Arc<ResolvedAction>,
    inputs: Vec<(String, String)>,
    identity: StepIdentity,
    command_files: &'m CommandFiles,
}

/// Where the processes of an action run, which connect to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndpointClient {
    Machine,
    Container,
}

/// How far an action was run.
pub(crate) enum ActionProgress {
    Finished(Box<StepResult>),
    /// The steps of a composite action are steps: the caller runs them.
    Composite(Box<CompositeAction>),
}

/// A composite action with its evaluated inputs.
pub(crate) struct CompositeAction {
    pub(crate) action: Arc<ResolvedAction>,
    pub(crate) steps: Vec<WorkflowStep>,
    pub(crate) task: StepTask,
    pub(crate) inputs: Vec<(String, String)>,
    pub(crate) identity: StepIdentity,
    /// Set if the action runs in place of a built-in one.
    pub(crate) replacement: Option<ToolReplacement>,
}

/// A real action that runs instead of the built-in one, to install a tool that this machine lacks.
pub(crate) struct ToolReplacement {
    missing: MissingTool,
    action: String,
}

impl ToolReplacement {
    /// Adds to a failure of the real action why it was run.
    pub(crate) fn explain_failure(self, result: StepResult) -> StepResult {
        match result.ended {
            RunOutcome::Failed(reason) => {
                let error = ActionError::ToolNotProvided {
                    missing: self.missing,
                    action: self.action,
                    reason,
                };
                StepResult {
                    ended: RunOutcome::Failed(error.to_string()),
                    ..result
                }
            }
            _ => result,
        }
    }
}

impl From<Result<Self, ActionError>> for ActionProgress {
    fn from(result: Result<Self, ActionError>) -> Self {
        result
            .unwrap_or_else(|error| Self::Finished(Box::new(StepResult::failed(error.to_string()))))
    }
}

/// Runs the action of one step. It can't run steps.
pub(crate) struct ActionRunner<'r> {
    resources: &'r mut StepResources,
}

impl<'r> ActionRunner<'r> {
    pub(crate) const fn new(resources: &'r mut StepResources) -> Self {
        Self { resources }
    }
}

impl ActionRunner<'_> {
    /// Runs the action of a step.
    pub(crate) async fn run_action(
        &mut self,
        scope: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: ActionUse<'_>,
    ) -> ActionProgress {
        let resolved = match &task.action {
            Some(action) => Ok(Some(Arc::clone(action))),
            None => self.resolve_action(scope, uses.action).await,
        };
        match resolved {
            Ok(Some(action)) => {
                let progress = self.run_resolved_action(scope, task, plan, &uses, &action);
                progress.await.into()
            }
            Ok(None) => {
                let mut result = self.run_built_in_action(scope, &task, plan, &uses).await;
                match result.missing_tool.take() {
                    None => ActionProgress::Finished(Box::new(result)),
                    Some(missing) => {
                        self.run_real_action(scope, task, plan, &uses, missing)
                            .await
                    }
                }
            }
            Err(error) => Err(error).into(),
        }
    }

    /// Runs the real action instead of the built-in one, to install a tool that this machine lacks.
    async fn run_real_action(
        &mut self,
        scope: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
        missing: MissingTool,
    ) -> ActionProgress {
        let name = uses.action;
        self.resources
            .output
            .log_message(&format!("{missing}; running {name}, which downloads it"));
        self.resources.output.log.flush();
        let progress = match self.fetch_real_action(name).await {
            Ok(action) => {
                let progress = self.run_resolved_action(scope, task, plan, uses, &action);
                ActionProgress::from(progress.await)
            }
            Err(error) => Err(error).into(),
        };
        let replacement = ToolReplacement {
            missing,
            action: name.to_owned(),
        };
        match progress {
            ActionProgress::Finished(result) => {
                ActionProgress::Finished(Box::new(replacement.explain_failure(*result)))
            }
            ActionProgress::Composite(composite) => {
                ActionProgress::Composite(Box::new(CompositeAction {
                    replacement: Some(replacement),
                    ..*composite
                }))
            }
        }
    }

    async fn fetch_real_action(&mut self, name: &str) -> Result<Arc<ResolvedAction>, ActionError> {
        match ActionReference::parse(name, BuiltInActions::Disabled)? {
            ActionReference::Remote(remote) => {
                let (output, cancel) = (&mut self.resources.output, &mut self.resources.cancel);
                self.resources
                    .library
                    .fetch_action(&remote, output, cancel)
                    .await
            }
            _ => Err(ActionError::NotOfRepository),
        }
    }

    /// Resolves `uses:` of a step; `None` for a built-in action.
    async fn resolve_action(
        &mut self,
        scope: &StepScope,
        name: &str,
    ) -> Result<Option<Arc<ResolvedAction>>, ActionError> {
        let reference = ActionReference::parse(name, self.resources.library.built_in)?;
        if reference != ActionReference::BuiltIn && scope.depth > DEPTH_MAX {
            return Err(too_deep(name));
        }
        let (output, cancel) = (&mut self.resources.output, &mut self.resources.cancel);
        match reference {
            ActionReference::BuiltIn => Ok(None),
            ActionReference::Docker(image) => {
                let action =
                    docker_action::action_from_image(&image, &self.resources.folders.workspace);
                Ok(Some(Arc::new(action)))
            }
            ActionReference::Local(path) => {
                let action = ActionLibrary::read_local(&self.resources.folders.workspace, &path)?;
                let depth = scope.depth + 1;
                let fetched = self
                    .resources
                    .library
                    .fetch_nested_actions(&action, depth, output, cancel);
                fetched.await?;
                Ok(Some(action))
            }
            ActionReference::Remote(remote) => {
                let fetched = self.resources.library.fetch_action(&remote, output, cancel);
                fetched.await.map(Some)
            }
        }
    }

    /// Runs a built-in action.
    async fn run_built_in_action(
        &mut self,
        scope: &mut StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
    ) -> StepResult {
        let identity = scope.step_identity(&task.step.id);
        let env = self
            .resources
            .step_environment(&identity, &plan.env, uses.command_files);
        let env = env.into_vec();
        let workspace = self.resources.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let contexts = self
            .resources
            .expression_contexts(scope, &identity, &plan.env, &files);
        let with = match uses.with.resolve(&contexts) {
            Ok(with) => self.resources.containers.translate_input_paths(with),
            Err(error) => return Err(ActionError::in_expression("with")(error)).into(),
        };
        for (name, value) in &with {
            self.resources
                .output
                .log_message(&format!("  {name}: {value}"));
        }
        self.resources.output.log_message("##[endgroup]");
        self.resources.output.log.flush();
        let runtime = &self.resources.runtime;
        let context = StepContext::new(
            &self.resources.spec,
            &self.resources.folders,
            &*self.resources.inputs,
            (&runtime.artifact_store, runtime.caches.as_ref()),
            with,
            &env,
            &mut self.resources.output,
        );
        let context = context
            .for_stage(scope.stage, self.resources.states.get(&task.key))
            .in_container(self.resources.containers.job_container());
        let late = tokio::time::sleep(plan.timeout.unwrap_or(Duration::MAX));
        let mut result: StepResult = tokio::select! {
            result = run_built_in(uses.action, context) => result.into(),
            // Built-in actions need no grace period.
            StopMode::Graceful | StopMode::Immediate = self.resources.cancel.wait_for_stop(plan.when_cancelled) => {
                RunOutcome::Cancelled.into()
            }
            () = late => RunOutcome::TimedOut.into(),
        };
        let effects = &mut self.resources.output.effects;
        effects.env.append(&mut result.env);
        effects.paths.append(&mut result.paths);
        if !result.state.is_empty() {
            let states = self.resources.states.entry(task.key.clone()).or_default();
            states.extend(result.state.drain(..));
        }
        if result.has_post_part {
            scope.register_post_step(PostStep {
                key: task.key.clone(),
                step: task.step.clone(),
                action: None,
                inner: None,
            });
        }
        result
    }

    async fn run_resolved_action(
        &mut self,
        scope: &mut StepScope,
        task: StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
        action: &Arc<ResolvedAction>,
    ) -> Result<ActionProgress, ActionError> {
        let mut identity = scope.step_identity(&task.step.id);
        identity.remote = action.remote.as_ref().map(|remote| {
            let github = &self.resources.spec.contexts.github;
            let text = |name: &str| github.get(name).to_text().to_string();
            match remote.is_own() {
                true => (text("repository"), text("sha")),
                false => (remote.repository.clone(), remote.reference.clone()),
            }
        });
        let inputs = self.evaluate_inputs(scope, &identity, plan, uses.with, &action.file)?;
        if scope.stage == ActionStage::Main
            && action.remote.is_none()
            && self.resources.library.has_pre_part(action)
        {
            let text = format!(
                "`pre` of {} is skipped: an action in the workspace is not known before the first step of the job",
                uses.action
            );
            self.resources
                .output
                .annotate(AnnotationLevel::Warning, &text);
        }
        let prepared = PreparedAction {
            action,
            inputs,
            identity,
            command_files: uses.command_files,
        };
        let result = match &action.file.runs {
            ActionRuns::Composite { steps } => {
                return Ok(ActionProgress::Composite(Box::new(CompositeAction {
                    action: Arc::clone(action),
                    steps: steps.clone(),
                    task,
                    inputs: prepared.inputs,
                    identity: prepared.identity,
                    replacement: None,
                })));
            }
            ActionRuns::JavaScript { node, main, .. } => {
                let entry = match scope.stage {
                    ActionStage::Main => Some(main.as_str()),
                    stage => action.stage_part(stage).map(|part| part.entry.as_str()),
                };
                match entry {
                    None => Ok(StepResult::default()),
                    Some(entry) => {
                        register_post_part(scope, &task, action);
                        self.run_javascript(&task, plan, prepared, *node, entry)
                            .await
                    }
                }
            }
            ActionRuns::Docker { .. } => self.run_docker(scope, &task, plan, prepared).await,
        };
        result.map(|result| ActionProgress::Finished(Box::new(result)))
    }

    async fn run_javascript(
        &mut self,
        task: &StepTask,
        plan: &PlannedStep,
        prepared: PreparedAction<'_>,
        node_major: u32,
        entry: &str,
    ) -> Result<StepResult, ActionError> {
        let program = javascript_action::find_entry(prepared.action, entry)?;
        let mut env =
            self.resources
                .step_environment(&prepared.identity, &plan.env, prepared.command_files);
        let client = match self.resources.containers.job_container() {
            Some(_) => EndpointClient::Container,
            None => EndpointClient::Machine,
        };
        env.extend(self.endpoint_variables(client).await);
        let container = self.resources.containers.job_container();
        let node = self
            .resources
            .library
            .find_node(node_major, container, &env);
        let node = node.await?;
        javascript_action::warn_about_version(&node, node_major, &mut self.resources.output);
        env.add_action_variables(&prepared.inputs, self.resources.states.get(&task.key));
        let workspace = self.resources.folders.workspace.clone();
        let invocation = javascript_action::build_invocation(&node, &program, workspace, env);
        let ended = self.resources.run_program(&invocation, plan).await;
        Ok(javascript_action::explain_failure(ended, &node, node_major).into())
    }

    async fn run_docker(
        &mut self,
        scope: &mut StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        prepared: PreparedAction<'_>,
    ) -> Result<StepResult, ActionError> {
        let PreparedAction { action, inputs, .. } = prepared;
        let entrypoint = match docker_action::find_entrypoint(action, &inputs, scope.stage) {
            Some(entrypoint) => entrypoint,
            None => return Ok(StepResult::default()),
        };
        register_post_part(scope, task, action);
        let mut env =
            self.resources
                .step_environment(&prepared.identity, &plan.env, prepared.command_files);
        let workspace = self.resources.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let values = inputs.iter();
        let values = values.map(|(name, value)| (name.as_str(), ExprValue::from(value.as_str())));
        let own_env = plan.own_env.clone();
        let action_scope = scope.for_action(
            &task.key,
            own_env,
            ExprValue::object(values),
            prepared.identity,
        );
        let contexts = self.resources.expression_contexts(
            &action_scope,
            &action_scope.step_identity(""),
            &plan.env,
            &files,
        );
        let arguments = docker_action::evaluate(action, &inputs, &contexts, &mut env)?;
        env.add_action_variables(&inputs, self.resources.states.get(&task.key));
        if let Err(absent) = self.resources.containers.require_engine().await {
            return match self.resources.spec.without_engine {
                WithoutEngine::Refuse => Err(docker_action::without_engine(action, absent).into()),
                WithoutEngine::LeaveOut => {
                    let image = docker_action::image_name(action);
                    let why =
                        format!("left out: the action is the container {image}, but {absent}");
                    Ok(RunOutcome::Unsupported(why).into())
                }
            };
        }
        env.extend(self.endpoint_variables(EndpointClient::Container).await);
        let container = docker_action::build(action, entrypoint, arguments, env);
        let limits = plan.limits(&mut self.resources.cancel);
        let (pipe, output) = (&mut self.resources.pipe, &mut self.resources.output);
        let ended = self.resources.containers.run_action(
            &container,
            &self.resources.spec,
            &self.resources.folders,
            limits,
            pipe,
            output,
        );
        Ok(ended.await?.into())
    }

    /// The inputs of the action: `with:` and the defaults of the others.
    fn evaluate_inputs(
        &mut self,
        scope: &StepScope,
        identity: &StepIdentity,
        plan: &PlannedStep,
        with: &TemplateTable,
        file: &ActionFile,
    ) -> Result<Vec<(String, String)>, ActionError> {
        let workspace = self.resources.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let contexts = self
            .resources
            .expression_contexts(scope, identity, &plan.env, &files);
        let inputs = with.resolve(&contexts);
        let mut inputs = inputs.map_err(ActionError::in_expression("with"))?;
        let given: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        for input in &file.inputs {
            if given.iter().any(|it| it.eq_ignore_ascii_case(&input.name)) {
                continue;
            }
            let value = match &input.default {
                Some(default) => {
                    let value = default.resolve_text(&contexts);
                    let what = format!("the input {}", input.name);
                    value.map_err(ActionError::in_expression(what))?
                }
                None => String::new(),
            };
            inputs.push((input.name.clone(), value));
        }
        let is_image = matches!(&file.runs, ActionRuns::Docker { image, .. } if image.starts_with("docker://"));
        if scope.stage == ActionStage::Main && !(is_image && file.inputs.is_empty()) {
            self.warn_about_inputs(&given, file);
        }
        let shown = inputs.iter().filter(|(_, value)| !value.is_empty());
        let head: Vec<String> = shown
            .map(|(name, value)| format!("  {name}: {value}"))
            .collect();
        if !head.is_empty() {
            self.resources.output.log_message(&head.join("\n"));
        }
        self.resources.output.log_message("##[endgroup]");
        self.resources.output.log.flush();
        Ok(inputs)
    }

    /// Warns of unknown and deprecated inputs.
    fn warn_about_inputs(&mut self, given: &[String], file: &ActionFile) {
        let docker = matches!(file.runs, ActionRuns::Docker { .. });
        let is_odd = |name: &str| !(docker && matches!(name, "entrypoint" | "args"));
        for name in given {
            match file.input(name) {
                Some(input) => {
                    if let Some(message) = &input.deprecation {
                        let text = format!("the input {name} is deprecated: {message}");
                        self.resources
                            .output
                            .annotate(AnnotationLevel::Warning, &text);
                    }
                }
                None if is_odd(&name.to_ascii_lowercase()) => {
                    let known: Vec<&str> = file.inputs.iter().map(|it| it.name.as_str()).collect();
                    let known = match known.as_slice() {
                        [] => "it has none".to_owned(),
                        known => format!("the known ones are {}", known.join(", ")),
                    };
                    let text = format!("the action has no input {name}; {known}");
                    self.resources
                        .output
                        .annotate(AnnotationLevel::Warning, &text);
                }
                None => {}
            }
        }
    }

    /// The variables of the runtime endpoints. Like GitHub's runner, only actions get them, not scripts.
    async fn endpoint_variables(&mut self, client: EndpointClient) -> Vec<(String, String)> {
        let address = match client {
            EndpointClient::Machine => Some(Ipv4Addr::LOCALHOST),
            EndpointClient::Container => self.resources.containers.gateway_address().await,
        };
        let masker = &mut self.resources.output.masker;
        let variables = match address {
            Some(address) => self.resources.runtime.endpoint_variables(address, masker),
            None => Err(EndpointError::NoGateway),
        };
        variables.unwrap_or_else(|error| {
            // Not an error: few actions need the endpoints.
            self.resources.output.log_message(&format!(
                "The action can't store artifacts or caches: {error}"
            ));
            Vec::new()
        })
    }
}

/// Registers the post part before the main part starts, so that it also runs if that fails.
fn register_post_part(scope: &mut StepScope, task: &StepTask, action: &Arc<ResolvedAction>) {
    if scope.stage != ActionStage::Post && action.stage_part(ActionStage::Post).is_some() {
        scope.register_post_step(PostStep {
            key: task.key.clone(),
            step: task.step.clone(),
            action: Some(Arc::clone(action)),
            inner: None,
        });
    }
}

impl EnvVars {
    /// Adds the inputs and the saved state of an action, as its processes expect them.
    fn add_action_variables(&mut self, inputs: &[(String, String)], state: Option<&Self>) {
        for (name, value) in inputs {
            let name = name.replace(' ', "_").to_uppercase();
            self.set(format!("INPUT_{name}"), value.as_str());
        }
        for (name, value) in state.into_iter().flat_map(Self::iter) {
            self.set(format!("STATE_{name}"), value.as_str());
        }
    }
}
