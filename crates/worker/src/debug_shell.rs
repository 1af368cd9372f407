//! The context of a failed step for a debug shell: its working directory and its variables. Read-only, runs nothing.
//!
//! With [`SecretAccess::Withheld`] no variable is included that contains a secret: neither from an expression nor from an
//! earlier step.

use std::path::PathBuf;

use shipway_workflow::{
    expr::{EvalError, Template},
    job::{JobSpec, Resume},
    model::{Action, Step, Table},
};

use crate::{
    environment::{EnvVars, JobFolders},
    file_hash::WorkspaceFiles,
    job_execution::build_masker,
    job_scope::JobScope,
    mask::Masker,
    previous_attempt::{PreviousAttempt, ResumeError},
    step_scope::{ActionStage, StepScope},
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
const CHANNEL: [&str; 5] = [
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
];

/// Whether variables with secrets are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAccess {
    /// SecretAccess of the spec and secrets that steps have set.
    Granted,
    /// No secrets. The spec should contain none either.
    Withheld,
}

/// The context of the step that `resume` names, in the job of `spec`.
pub fn build_debug_shell_context(
    spec: &JobSpec,
    resume: &Resume,
    secrets: SecretAccess,
) -> Result<DebugShellContext, ResumeError> {
    let past = PreviousAttempt::read(resume, &spec.steps)?;
    let secrets = secrets == SecretAccess::Granted;
    let folders = JobFolders::at(&spec.folder, &past.base);
    let step = &spec.steps[past.place];
    let unknown =
        |error: EvalError| ResumeError::Unreadable(format!("{error}\n{}", error.snippet()));
    let (mut scope, mut frame) = (JobScope::new(spec, &folders), StepScope::default());
    let files = WorkspaceFiles(&folders.workspace);
    scope.evaluate_env_layers(spec, &files).map_err(unknown)?;
    let mut left_out = Vec::new();
    for done in &past.done {
        let kept = done.kept.as_ref();
        if let Some(kept) = kept {
            kept.restore_into(&mut scope, secrets);
            left_out.extend(kept.secret.iter().filter(|_| !secrets).cloned());
        }
        if done.stage == ActionStage::Main {
            let hidden = kept.filter(|_| secrets).map_or(&[][..], |it| &it.outputs);
            let outputs: Vec<_> = done.outputs.iter().chain(hidden).cloned().collect();
            frame.add_finished_step(&done.id, done.outcome, done.conclusion, &outputs);
        }
    }
    let seen = frame.step_identity(&step.id);
    let mut own = scope.env.clone();
    let contexts = scope.expression_contexts(spec, &frame, &seen, &own, &files);
    own.extend(step.env.resolve(&contexts).map_err(unknown)?);
    let contexts = scope.expression_contexts(spec, &frame, &seen, &own, &files);
    let text = |template: &Template| {
        let resolved = template.resolve_text(&contexts);
        resolved.unwrap_or_else(|_| template.text().to_owned())
    };
    let name = step.name.as_ref().map_or_else(|| step.title(), text);
    let mut masker = build_masker(spec);
    past.masks.iter().for_each(|mask| masker.add(mask));
    let masked = |text: &str| masker.mask(text).into_owned();
    let mut env = scope.process_environment(spec, &folders, &seen, &own);
    if !secrets {
        let tables = spec.env.iter().chain([&step.env]);
        let of_secrets: Vec<&str> = tables.flat_map(variables_with_secrets).collect();
        left_out.extend(remove_variables(&mut env, &of_secrets, &past.masks));
    }
    for name in CHANNEL {
        env.set(name, "/dev/null");
    }
    let workdir = match &step.action {
        Action::Run {
            working_directory, ..
        } => working_directory
            .as_ref()
            .or(spec.defaults.working_directory.as_ref()),
        Action::Uses { .. } | Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. } => None,
    };
    let workdir = match workdir.map(text).as_deref() {
        None | Some("") => folders.workspace.clone(),
        Some(folder) => folders.workspace.join(folder),
    };
    left_out.sort();
    left_out.dedup();
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

/// The script or action that a step runs.
fn describe_command(step: &Step, text: impl Fn(&Template) -> String) -> String {
    match &step.action {
        Action::Run { script, .. } => text(script),
        Action::Uses { action, .. } => format!("uses: {action}"),
        Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. } => step.title(),
    }
}

fn describe_differences(spec: &JobSpec, step: &Step) -> Vec<String> {
    let mut differs = Vec::new();
    if let Some(container) = &spec.container {
        let image = container.image.text();
        differs.push(format!("the job ran in the container {image}, and this shell doesn't: its programs and its paths (/__w/…) are not here, the job's files are"));
    }
    if !spec.services.is_empty() {
        let names: Vec<&str> = spec
            .services
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        differs.push(format!("the job's services are gone: {}", names.join(", ")));
    }
    if matches!(step.action, Action::Uses { .. }) {
        differs.push(
            "the step is an action: its inputs (INPUT_…) are not among the variables".to_owned(),
        );
    }
    differs
}

/// Names of the variables whose expressions refer to secrets.
fn variables_with_secrets(table: &Table) -> impl Iterator<Item = &str> {
    let entries = match table {
        Table::Entries(entries) => entries.as_slice(),
        Table::Computed(_) => &[],
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
