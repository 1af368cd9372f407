//! The Python environment of a job, like that of `actions/setup-python`: `pip install` never changes the machine's
//! Python.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{action_error::ActionError, step_context::StepContext};
use crate::{environment::runner_arch, shell::find_program};

/// A virtual environment, with what later steps need to use it.
pub(super) struct PythonVenv {
    pub(super) python: PathBuf,
    pub(super) env: Vec<(String, String)>,
    pub(super) paths: Vec<String>,
}

/// Creates a virtual environment with `program`, unless there is one.
pub(super) async fn create_venv(
    program: &str,
    version: &str,
    context: &StepContext<'_>,
) -> Result<PythonVenv, ActionError> {
    let root = context.folders.tools_folder().join("Python").join(version);
    let root = root.join(runner_arch().to_ascii_lowercase());
    let python = root.join("bin/python");
    if !python.exists() {
        let path = context.env.iter().find(|(name, _)| name == "PATH");
        let base = find_program(program, path.map_or("", |(_, path)| path))
            .ok_or_else(|| ActionError::NoProgram(program.to_owned()))?;
        run_venv_script(&base, &root, context).await?;
    }
    let env = ["pythonLocation", "Python_ROOT_DIR", "Python3_ROOT_DIR"]
        .map(|name| (name.to_owned(), root.display().to_string()));
    Ok(PythonVenv {
        python,
        env: env.into(),
        paths: vec![root.join("bin").display().to_string()],
    })
}

const SCRIPT: &str = include_str!("make_venv.py");

async fn run_venv_script(
    base: &Path,
    root: &Path,
    context: &StepContext<'_>,
) -> Result<(), ActionError> {
    let env = context.env.iter().map(|(name, value)| (name, value));
    let output = Command::new(base)
        .args(["-I", "-c", SCRIPT])
        .arg(root)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| ActionError::VirtualEnvironment {
            program: base.to_owned(),
            reason: error.to_string(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    Err(ActionError::VirtualEnvironment {
        program: base.to_owned(),
        reason: last.unwrap_or("it failed").to_owned(),
    })
}
