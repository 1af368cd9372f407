//! `actions/setup-*`: uses the tool that is installed on this machine if its version matches. Otherwise the real
//! action installs it ([`MissingTool`]); another version is used only if that is allowed.

use std::{fs, path::Path, process::Stdio};

use tokio::process::Command;

use super::{
    action_error::ActionError,
    python_venv,
    step_context::{StepContext, StepResult},
    tool_table::{MissingTool, SetupTool, find_tool},
    version_ranges::matches_range,
};
use crate::{environment::runner_arch, path_error::PathError, shell::find_program};

pub(super) async fn set_up_tool(
    name: &str,
    context: &mut StepContext<'_>,
) -> Result<StepResult, ActionError> {
    let Some(tool) = find_tool(name) else {
        return Err(ActionError::UnknownTool(name.to_owned()));
    };
    let wanted = requested_version(name, &tool, context)?;
    let described = wanted.as_deref().map(describe_versions);
    let allows_other = context.allow_other_versions;
    let mut present = None;
    for program in tool.programs {
        let Some(version) = installed_version(program, tool.ask, context).await else {
            continue;
        };
        let fits = wanted.as_ref().is_none_or(|it| matches_range(&version, it))
            && matches_architecture(context);
        if !fits && !allows_other {
            present.get_or_insert(format!("{program} {version}"));
            continue;
        }
        match &described {
            Some(wanted) if !fits => context.warn(&format!(
                "using {program} {version} from this machine; the workflow asked for {wanted} (--allow-other-versions)"
            )),
            _ => context.log_message(&format!("using {program} {version} from this machine")),
        }
        return provide_program(name, &tool, program, version, context).await;
    }
    let missing = MissingTool {
        programs: tool.programs.join(" or "),
        wanted: described,
        present,
    };
    Ok(StepResult {
        missing_tool: Some(missing),
        ..StepResult::default()
    })
}

/// Sets up a program of this machine.
async fn provide_program(
    name: &str,
    tool: &SetupTool,
    program: &str,
    version: String,
    context: &mut StepContext<'_>,
) -> Result<StepResult, ActionError> {
    let (mut more, mut result) = (Vec::new(), StepResult::default());
    if name == "python" && context.container.is_none() {
        let venv = python_venv::create_venv(program, &version, context).await?;
        more.push(("python-path", venv.python.display().to_string()));
        (result.env, result.paths) = (venv.env, venv.paths);
    }
    if name == "java" {
        more.push(("version", version.clone()));
    }
    let shown = match name {
        "node" => format!("v{version}"),
        _ => version,
    };
    let outputs = std::iter::once((tool.input, shown)).chain(more);
    Ok(StepResult {
        outputs: StepResult::with_outputs(outputs).outputs,
        ..result
    })
}

/// Formats several versions, one per line, as one text.
fn describe_versions(wanted: &str) -> String {
    let lines = wanted
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" and ")
}

/// Whether the machine has the architecture that the workflow asks for.
fn matches_architecture(context: &StepContext<'_>) -> bool {
    context
        .input("architecture")
        .is_none_or(|wanted| wanted.eq_ignore_ascii_case(runner_arch()))
}

/// The version that the workflow asks for, by an input or a version file.
fn requested_version(
    name: &str,
    tool: &SetupTool,
    context: &StepContext<'_>,
) -> Result<Option<String>, ActionError> {
    if let Some(wanted) = context.input(tool.input) {
        return Ok(Some(wanted.to_owned()));
    }
    let Some(file) = context.input(tool.file) else {
        return Ok(None);
    };
    let path = context.resolve_path(file)?;
    let text = fs::read_to_string(&path).map_err(PathError::at(Path::new(file)))?;
    Ok(version_in_file(name, &path, &text))
}

/// The version in a version file, if its format is known.
fn version_in_file(name: &str, path: &Path, text: &str) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let after = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
        Some(rest.trim_matches(['"', '\'']).to_owned())
    };
    match file {
        "go.mod" | "go.work" => lines.find_map(|line| after(line, "go ")),
        "pyproject.toml" => lines.find_map(|line| after(line, "requires-python")),
        ".tool-versions" => lines.find_map(|line| {
            let (tool, version) = line.split_once(char::is_whitespace)?;
            let tool = tool.trim_end_matches("js").trim_end_matches("lang");
            (tool == name).then(|| version.trim().to_owned())
        }),
        "package.json" | "global.json" => {
            let json: serde_json::Value = serde_json::from_str(text).ok()?;
            let places = ["/volta/node", "/engines/node", "/sdk/version"];
            let found = places
                .iter()
                .find_map(|place| json.pointer(place)?.as_str());
            found.map(str::to_owned)
        }
        _ => lines.find(|line| !line.is_empty()).map(str::to_owned),
    }
}

async fn installed_version(program: &str, ask: &str, context: &StepContext<'_>) -> Option<String> {
    if let Some(container) = context.container {
        return first_version_in(&container.query_program(&[program, ask]).await?);
    }
    let env = context.env.iter().map(|(name, value)| (name, value));
    let path = context.env.iter().find(|(name, _)| name == "PATH");
    let file = find_program(program, path.map_or("", |(_, path)| path))?;
    let asked = Command::new(file)
        .arg(ask)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = asked.await.ok().filter(|output| output.status.success())?;
    let text = [output.stdout, output.stderr].concat();
    first_version_in(&String::from_utf8_lossy(&text))
}

/// The first version number in a text.
fn first_version_in(text: &str) -> Option<String> {
    let digits = text.find(|c: char| c.is_ascii_digit())?;
    let end = |c: char| !(c.is_ascii_digit() || c == '.');
    let version = text[digits..].split(end).next()?.trim_end_matches('.');
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_the_usual_files() {
        for (tool, file, text, expected) in [
            ("node", ".nvmrc", "# ours\nlts/iron\n", Some("lts/iron")),
            ("go", "go.mod", "module x\n\ngo 1.22\n", Some("1.22")),
            (
                "node",
                "package.json",
                r#"{"engines": {"node": ">=18"}}"#,
                Some(">=18"),
            ),
            (
                "node",
                ".tool-versions",
                "python 3.11\nnodejs 20.1.0\n",
                Some("20.1.0"),
            ),
            ("go", ".tool-versions", "golang 1.22", Some("1.22")),
            (
                "python",
                "pyproject.toml",
                "[project]\nrequires-python = \">=3.9\"\n",
                Some(">=3.9"),
            ),
            ("python", ".python-version", "3.11\n", Some("3.11")),
            ("dotnet", "global.json", "{}", None),
        ] {
            let found = version_in_file(tool, Path::new(file), text);
            assert_eq!(found.as_deref(), expected, "{file}");
        }
    }
}
