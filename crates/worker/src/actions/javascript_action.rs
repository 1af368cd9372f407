//! JavaScript actions: their Node.js and their command.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use shipway_workflow::job::AnnotationLevel;
use tokio::process::Command;

use super::{
    action_error::{ActionError, NodeProblem},
    action_library::{ActionLibrary, NodeProgram},
    resolved_action::ResolvedAction,
};
use crate::{
    containers::JobContainer,
    environment::EnvVars,
    output_processor::OutputProcessor,
    path_error::PathError,
    program_runner::{ProgramInvocation, RunOutcome},
    shell::{CommandLine, find_program},
};

/// The file that a part of the action runs.
pub(crate) fn find_entry(action: &ResolvedAction, entry: &str) -> Result<PathBuf, ActionError> {
    let program = action.folder.join(entry);
    match program.is_file() {
        true => Ok(program),
        false => Err(ActionError::NoEntryFile(entry.to_owned())),
    }
}

/// The command that runs a file.
pub(crate) fn build_invocation(
    node: &NodeProgram,
    file: &Path,
    workdir: PathBuf,
    env: EnvVars,
) -> ProgramInvocation {
    ProgramInvocation {
        line: CommandLine {
            program: node.program.display().to_string(),
            arguments: vec![file.display().to_string()],
        },
        workdir,
        env: env.into_vec(),
    }
}

/// Warns if the action asks for a newer Node.js.
pub(crate) fn warn_about_version(node: &NodeProgram, major: u32, output: &mut OutputProcessor) {
    if node.major_version() < major {
        let text = format!(
            "the action asks for node {major}; using node {}",
            node.version
        );
        output.annotate(AnnotationLevel::Warning, &text);
    }
}

/// Adds the version to the reason of a failure if the action asks for another one.
pub(crate) fn explain_failure(ended: RunOutcome, node: &NodeProgram, major: u32) -> RunOutcome {
    match ended {
        RunOutcome::Failed(why) if node.major_version() != major => RunOutcome::Failed(format!(
            "{why} (the action asks for node {major}, but ran with node {})",
            node.version
        )),
        ended => ended,
    }
}

impl ActionLibrary {
    /// The Node.js that runs actions: the machine's, not one that an earlier step has put into `PATH`.
    pub(crate) async fn find_node(
        &mut self,
        major: u32,
        container: Option<&JobContainer>,
        env: &EnvVars,
    ) -> Result<NodeProgram, ActionError> {
        if let Some(node) = &self.node {
            return Ok(node.clone());
        }
        let found = match container {
            Some(container) => container
                .query_program(&["node", "--version"])
                .await
                .map(|version| NodeProgram::parse("node".into(), &version))
                .ok_or(NodeProblem::NotInContainer),
            None => find_machine_node(env).await,
        };
        let node = found.map_err(|problem| ActionError::NoNode {
            wanted: major,
            problem,
        })?;
        Ok(self.node.insert(node).clone())
    }
}

async fn find_machine_node(env: &EnvVars) -> Result<NodeProgram, NodeProblem> {
    let machine_path = std::env::var("PATH").unwrap_or_default();
    let program = find_program("node", &machine_path)
        .or_else(|| find_program("node", env.get("PATH").unwrap_or_default()))
        .ok_or(NodeProblem::NotInstalled)?;
    let output = Command::new(&program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.map_err(PathError::at(&program))?;
    let node = NodeProgram::parse(program, &String::from_utf8_lossy(&output.stdout));
    if !output.status.success() || node.version.is_empty() {
        return Err(NodeProblem::NoVersion(node.program));
    }
    Ok(node)
}
