//! `actions/setup-*`: the tool that is on this machine, and which version that is. Nothing is fetched.

use std::{fs, path::Path, process::Stdio};

use tokio::process::Command;

use super::{Call, Left, versions::fits};
use crate::shell::which;

/// What an action sets up: its programs, best first.
struct Tool {
    programs: &'static [&'static str],
    /// The input that names a version, and the output that tells it.
    input: &'static str,
    /// The input that names a file with a version.
    file: &'static str,
    /// How the program is asked for its version.
    ask: &'static str,
}

fn tool(name: &str) -> Option<Tool> {
    let (programs, input, file, ask): (&[_], _, _, _) = match name {
        "python" => (
            &["python3", "python"],
            "python-version",
            "python-version-file",
            "--version",
        ),
        "node" => (&["node"], "node-version", "node-version-file", "--version"),
        "go" => (&["go"], "go-version", "go-version-file", "version"),
        "java" => (&["java"], "java-version", "java-version-file", "-version"),
        "dotnet" => (
            &["dotnet"],
            "dotnet-version",
            "global-json-file",
            "--version",
        ),
        "ruby" => (&["ruby"], "ruby-version", "ruby-version-file", "--version"),
        "rust" => (&["rustc"], "rust-version", "rust-version-file", "--version"),
        "uv" => (&["uv"], "version", "version-file", "--version"),
        _ => return None,
    };
    Some(Tool {
        programs,
        input,
        file,
        ask,
    })
}

/// Whether a tool of this name can be set up.
pub(super) fn is_known(name: &str) -> bool {
    tool(name).is_some()
}

pub(super) async fn run(name: &str, call: &mut Call<'_>) -> Result<Left, String> {
    let Some(tool) = tool(name) else {
        return Err(format!(
            "actions/setup-{name} is not known here; have the tool on the machine and leave the step out"
        ));
    };
    let wanted = wanted(name, &tool, call)?;
    for program in tool.programs {
        let Some(version) = version(program, tool.ask, call).await else {
            continue;
        };
        match &wanted {
            Some(wanted) if !fits(&version, wanted) => {
                let wanted = wanted.lines().collect::<Vec<_>>().join(" or ");
                call.warn(&format!(
                    "{program} {version} is on this machine and is used; the workflow asks for {wanted}"
                ));
            }
            _ => call.say(&format!(
                "{program} {version} is on this machine and is used"
            )),
        }
        if name == "python" && call.container.is_none() {
            also_python(call)?;
        }
        let told = match name {
            "node" => format!("v{version}"),
            _ => version.clone(),
        };
        let more = (name == "java").then_some(("version", version));
        return Ok(Left::outputs(
            std::iter::once((tool.input, told)).chain(more),
        ));
    }
    let programs = tool.programs.join(" or ");
    let asked = wanted.map_or_else(String::new, |it| format!(" (the workflow asks for {it})"));
    Err(format!(
        "there is no {programs} on this machine{asked}, and this version of Shipway doesn't fetch tools; install it"
    ))
}

/// The version that the workflow asks for, by an input or by a file.
fn wanted(name: &str, tool: &Tool, call: &Call<'_>) -> Result<Option<String>, String> {
    if let Some(wanted) = call.get(tool.input) {
        return Ok(Some(wanted.to_owned()));
    }
    let Some(file) = call.get(tool.file) else {
        return Ok(None);
    };
    let path = call.inside(file)?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    Ok(in_file(name, &path, &text))
}

/// The version that a file asks for, when it is one of the usual.
fn in_file(name: &str, path: &Path, text: &str) -> Option<String> {
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

/// After `actions/setup-python` there is a `python`; many machines have it only as `python3`.
fn also_python(call: &mut Call<'_>) -> Result<(), String> {
    let path = call.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, path)| path);
    let (None, Some(python)) = (which("python", path), which("python3", path)) else {
        return Ok(());
    };
    let folder = call.folders.tools().join("python");
    let link = folder.join("python");
    let made = fs::create_dir_all(&folder).and_then(|()| match link.exists() {
        true => Ok(()),
        false => std::os::unix::fs::symlink(python, &link),
    });
    made.map_err(|error| format!("{}: {error}", link.display()))?;
    call.output.heard.paths.push(folder.display().to_string());
    Ok(())
}

async fn version(program: &str, ask: &str, call: &Call<'_>) -> Option<String> {
    if let Some(container) = call.container {
        return found(&container.ask(&[program, ask]).await?);
    }
    let env = call.env.iter().map(|(name, value)| (name, value));
    let path = call.env.iter().find(|(name, _)| name == "PATH");
    let file = which(program, path.map_or("", |(_, path)| path))?;
    let asked = Command::new(file)
        .arg(ask)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = asked.await.ok().filter(|output| output.status.success())?;
    let text = [output.stdout, output.stderr].concat();
    found(&String::from_utf8_lossy(&text))
}

/// The first version in a text.
fn found(text: &str) -> Option<String> {
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
            let found = in_file(tool, Path::new(file), text);
            assert_eq!(found.as_deref(), expected, "{file}");
        }
    }
}
