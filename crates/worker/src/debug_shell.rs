//! The context of a failed step for a debug shell: its working directory and its variables. Read-only, runs nothing.
//!
//! With [`SecretAccess::Withheld`] no variable is included that contains a secret: neither from an expression nor from an
//! earlier step.

use std::path::PathBuf;

use shipway_workflow::{
    expr::Template,
    job::{JobSpec, ResumePoint},
    model::{StepAction, TemplateTable, WorkflowStep},
};

use crate::{
    action_stage::ActionStage,
    environment::{EnvVars, JobFolders},
    expression_error::ExpressionError,
    file_hash::WorkspaceFiles,
    job_scope::JobScope,
    job_secrets::build_masker,
    mask::Masker,
    previous_attempt::{PreviousAttempt, ResumeError},
    resume_state::SecretAccess,
    step_scope::StepScope,
};

/// The context of a step.
#[derive(Clone, Debug)]
pub struct DebugShellContext {
    /// The working directory of the step's command.
    pub folder: PathBuf,
    /// All environment variables.
    pub env: Vec<(String, String)>,
    /// The step's id.
    pub step: String,
    /// The step's title.
    pub name: String,
    /// The script or action that the step runs, with secrets masked.
    pub command: String,
    /// Names of the variables that are left out because they contain a secret.
    pub left_out: Vec<String>,
    /// How the shell differs from the step's own run, in sentences for the user.
    pub differs: Vec<String>,
}

/// The command files of a step. In a debug shell they are `/dev/null`.
const COMMAND_FILES: [&str; 5] = [
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
];

/// The context of the step that `resume` names, in the folder of the attempt itself.
pub fn build_debug_shell_context(
    spec: &JobSpec,
    resume: &ResumePoint,
    access: SecretAccess,
) -> Result<DebugShellContext, ResumeError> {
    let previous_attempt = PreviousAttempt::read(&spec.mounts.folder, resume, &spec.steps)?;
    let folders = JobFolders::at(&spec.mounts.folder, &previous_attempt.base);
    let step = &spec.steps[previous_attempt.position];
    let unknown = |error| ResumeError::Unreadable(ExpressionError::from(error).to_string());
    let files = WorkspaceFiles(&folders.workspace);
    let mut scope = JobScope::new(spec, &folders);
    scope.evaluate_env_layers(spec, &files).map_err(unknown)?;
    let (step_scope, mut left_out) = restore_steps(&previous_attempt, &mut scope, access);
    let identity = step_scope.step_identity(&step.id);
    let mut own = scope.env.clone();
    let contexts = scope.expression_contexts(spec, &step_scope, &identity, &own, &files);
    own.extend(step.env.resolve(&contexts).map_err(unknown)?);
    let contexts = scope.expression_contexts(spec, &step_scope, &identity, &own, &files);
    let text = |template: &Template| {
        let resolved = template.resolve_text(&contexts);
        resolved.unwrap_or_else(|_| template.text().to_owned())
    };
    let name = step.name.as_ref().map_or_else(|| step.title(), text);
    let mut masker = build_masker(spec);
    previous_attempt
        .masks
        .iter()
        .for_each(|mask| masker.add(mask));
    let masked = |text: &str| masker.mask(text).into_owned();
    let mut env = scope.process_environment(spec, &folders, &identity, &own);
    if access == SecretAccess::Withheld {
        let tables = spec.env.iter().chain([&step.env]);
        let secret: Vec<&str> = tables.flat_map(variables_with_secrets).collect();
        left_out.extend(remove_variables(&mut env, &secret, &previous_attempt.masks));
    }
    for name in COMMAND_FILES {
        env.set(name, "/dev/null");
    }
    left_out.sort();
    left_out.dedup();
    let workdir = working_directory(spec, step).map(text);
    let workdir = folders.workspace.join(workdir.unwrap_or_default());
    Ok(DebugShellContext {
        folder: if workdir.is_dir() {
            workdir
        } else {
            folders.workspace.clone()
        },
        env: env.into_vec(),
        step: step.id.clone(),
        name: masked(&name),
        command: masked(&describe_command(step, text)),
        left_out,
        differs: describe_differences(spec, step),
    })
}

/// Applies the state of the completed steps to `scope`; returns their scope, and the variables that are left out.
fn restore_steps(
    previous_attempt: &PreviousAttempt,
    scope: &mut JobScope,
    access: SecretAccess,
) -> (StepScope, Vec<String>) {
    let (mut step_scope, mut left_out) = (StepScope::default(), Vec::new());
    let has_access = access == SecretAccess::Granted;
    for done in &previous_attempt.done {
        let state = done.kept.as_ref();
        if let Some(state) = state {
            state.restore_into(scope, access);
            left_out.extend(state.secret.iter().filter(|_| !has_access).cloned());
        }
        if done.stage == ActionStage::Main {
            let state = state.filter(|_| has_access);
            let secret = state.map_or(&[][..], |it| &it.outputs);
            let outputs: Vec<_> = done.outputs.iter().chain(secret).cloned().collect();
            step_scope.add_finished_step(&done.id, done.outcome, done.conclusion, &outputs);
        }
    }
    (step_scope, left_out)
}

/// `working-directory` of a step, or the job's default.
fn working_directory<'s>(spec: &'s JobSpec, step: &'s WorkflowStep) -> Option<&'s Template> {
    match &step.action {
        StepAction::Run {
            working_directory, ..
        } => working_directory
            .as_ref()
            .or(spec.defaults.working_directory.as_ref()),
        StepAction::Uses { .. }
        | StepAction::Wait { .. }
        | StepAction::WaitAll
        | StepAction::Cancel { .. } => None,
    }
}

/// The script or action that a step runs.
fn describe_command(step: &WorkflowStep, text: impl Fn(&Template) -> String) -> String {
    match &step.action {
        StepAction::Run { script, .. } => text(script),
        StepAction::Uses { action, .. } => format!("uses: {action}"),
        StepAction::Wait { .. } | StepAction::WaitAll | StepAction::Cancel { .. } => step.title(),
    }
}

fn describe_differences(spec: &JobSpec, step: &WorkflowStep) -> Vec<String> {
    let mut differs = Vec::new();
    if let Some(container) = &spec.container {
        let image = container.image.text();
        differs.push(format!("the job ran in the container {image}, but this shell doesn't: the job's files are here, the container's programs and paths (/__w/…) aren't"));
    }
    if !spec.services.is_empty() {
        let names: Vec<&str> = spec
            .services
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        differs.push(format!(
            "the job's services have been stopped: {}",
            names.join(", ")
        ));
    }
    if matches!(step.action, StepAction::Uses { .. }) {
        differs.push(
            "the step is an action: its inputs (INPUT_…) are not among the variables".to_owned(),
        );
    }
    differs
}

/// Names of the variables whose expressions refer to secrets.
fn variables_with_secrets(table: &TemplateTable) -> impl Iterator<Item = &str> {
    let entries = match table {
        TemplateTable::Entries(entries) => entries.as_slice(),
        TemplateTable::Computed(_) | TemplateTable::Dynamic(_) => &[],
    };
    let of_secrets = |text: &str| text.contains("${{") && text.contains("secrets");
    let meant = entries.iter().filter(move |(_, it)| of_secrets(it.text()));
    meant.map(|(name, _)| name.as_str())
}

/// Removes the variables with one of these names or with a value that contains one of `masks`; returns their names.
fn remove_variables(env: &mut EnvVars, names: &[&str], masks: &[String]) -> Vec<String> {
    let masker = Masker::new(masks.iter().cloned());
    let all = std::mem::take(env).into_vec();
    let (hidden, shown): (Vec<_>, Vec<_>) = (all.into_iter())
        .partition(|(name, value)| names.contains(&name.as_str()) || masker.contains_secret(value));
    env.extend(shown);
    hidden.into_iter().map(|(name, _)| name).collect()
}
