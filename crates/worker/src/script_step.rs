//! Prepares the script of a `run:` step: its text, its shell and its working directory.

use std::{fs, path::PathBuf};

use shipway_workflow::expr::Template;

use crate::{
    command_files::CommandFiles,
    containers::JobContainer,
    expression_error::ExpressionError,
    file_hash::WorkspaceFiles,
    output_processor::OutputProcessor,
    path_error::PathError,
    program_runner::ProgramInvocation,
    shell::{self, ShellError},
    step_resources::StepResources,
    step_scope::StepScope,
    step_task::{PlannedStep, StepTask},
};

/// Why a script can't be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("the working directory {} does not exist", .0.display())]
    NoWorkdir(PathBuf),
    #[error(transparent)]
    File(#[from] PathError),
}

/// The parts of a `run:` step.
pub(crate) struct RunStep<'s> {
    pub(crate) text: &'s Template,
    pub(crate) shell: Option<&'s str>,
    pub(crate) folder: Option<&'s Template>,
}

/// Evaluates a script, writes its file and logs its head.
pub(crate) fn prepare_script(
    resources: &mut StepResources,
    step_scope: &StepScope,
    task: &StepTask,
    plan: &PlannedStep,
    channel: &CommandFiles,
    script: RunStep<'_>,
    number: usize,
) -> Result<ProgramInvocation, ScriptError> {
    let workspace = resources.folders.workspace.clone();
    let mut identity = step_scope.step_identity(&task.step.id);
    // GitHub sets `github.action_repository` and `github.action_ref` for action steps only, not for scripts
    // inside an action.
    identity.remote = None;
    let env = resources.step_environment(&identity, &plan.env, channel);
    let files = WorkspaceFiles(&workspace);
    let contexts = resources.expression_contexts(step_scope, &identity, &plan.env, &files);
    let text = |template: &Template| {
        let text = template.resolve_text(&contexts);
        text.map_err(ExpressionError::from)
    };
    // `defaults.run` of a job doesn't apply to the steps of composite actions.
    let defaults = (step_scope.depth == 0).then_some(&resources.spec.defaults);
    let default_shell = defaults.and_then(|it| it.shell.as_ref());
    let shell_name = match script.shell {
        Some(shell) => Some(shell.to_owned()),
        None => default_shell.map(text).transpose()?,
    };
    let default_folder = defaults.and_then(|it| it.working_directory.as_ref());
    let folder = script.folder.or(default_folder);
    let folder = folder.map(text).transpose()?.unwrap_or_default();
    let workdir = workspace.join(folder);
    let script = text(script.text)?;
    let shell_name = shell_name.as_deref();
    let file = format!("step-{number}.{}", shell::script_extension(shell_name));
    let file = resources.folders.temp.join(file);
    let path = env.get("PATH").unwrap_or_default();
    let line = match resources.containers.job_container() {
        Some(inside) => inside.script_command_line(shell_name, &file),
        None => shell::command_line(shell_name, &file, path),
    }?;
    log_script_head(&mut resources.output, &script, &line);
    let may = |inside: &JobContainer| inside.may_have_folder(&workdir);
    let inside = resources.containers.job_container();
    if !inside.map_or_else(|| workdir.is_dir(), may) {
        return Err(ScriptError::NoWorkdir(workdir));
    }
    fs::write(&file, shell::script_text(shell_name, &script)).map_err(PathError::at(&file))?;
    Ok(ProgramInvocation {
        line,
        workdir,
        env: env.into_vec(),
    })
}

/// Logs the script and its shell.
fn log_script_head(output: &mut OutputProcessor, script: &str, line: &shell::CommandLine) {
    let mut head: Vec<String> = script.lines().map(|line| format!("  {line}")).collect();
    head.push(format!(
        "  shell: {} {}",
        line.program,
        line.arguments.join(" ")
    ));
    output.log_message(&head.join("\n"));
    output.log_message("##[endgroup]");
}
