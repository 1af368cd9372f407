//! `actions/setup-*`: the tool that is on this machine, and which version that is.

use std::process::Stdio;

use tokio::process::Command;

use super::{Call, Left};
use crate::shell::which;

/// What an action sets up: its programs, best first, and the input that names a version.
struct Tool {
    programs: &'static [&'static str],
    input: &'static str,
    /// How the program is asked for its version.
    ask: &'static str,
}

fn tool(name: &str) -> Option<Tool> {
    let (programs, input, ask): (&[_], _, _) = match name {
        "python" => (&["python3", "python"], "python-version", "--version"),
        "node" => (&["node"], "node-version", "--version"),
        "go" => (&["go"], "go-version", "version"),
        "java" => (&["java"], "java-version", "-version"),
        "dotnet" => (&["dotnet"], "dotnet-version", "--version"),
        "ruby" => (&["ruby"], "ruby-version", "--version"),
        "uv" => (&["uv"], "version", "--version"),
        _ => return None,
    };
    Some(Tool {
        programs,
        input,
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
    for program in tool.programs {
        let Some(version) = version(program, tool.ask, call).await else {
            continue;
        };
        match call.get(tool.input).map(str::to_owned) {
            Some(wanted) if !matches_version(&version, &wanted) => {
                let text = format!(
                    "{program} {version} is on this machine and is used; the workflow asks for {wanted}"
                );
                call.warn(&text);
            }
            _ => call.say(&format!(
                "{program} {version} is on this machine and is used"
            )),
        }
        return Ok(Left::outputs([(tool.input, version)]));
    }
    let programs = tool.programs.join(" or ");
    Err(format!(
        "there is no {programs} on this machine, and this version of Shipway doesn't fetch tools; install it"
    ))
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

/// Whether a version is one of those asked for: `3`, `3.11`, `3.x`, `>=18`, a line each.
fn matches_version(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| {
        let parts = text.split('.').map_while(|part| part.parse::<u64>().ok());
        parts.collect::<Vec<_>>()
    };
    let have = numbers(version);
    let each = wanted.split("||").flat_map(str::lines).map(str::trim);
    each.filter(|wanted| !wanted.is_empty()).any(|wanted| {
        if let Some(least) = wanted.strip_prefix(">=") {
            return have >= numbers(least.trim());
        }
        let asked = numbers(wanted.trim_start_matches(['^', '~', 'v', '=']));
        let by_name = matches!(wanted, "latest" | "lts/*" | "stable" | "*" | "x");
        by_name || (!asked.is_empty() && have.starts_with(&asked))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_as_setup_actions_mean_them() {
        for (version, wanted, fits) in [
            ("3.11.7", "3.11", true),
            ("3.11.7", "3.x", true),
            ("3.11.7", "3.12", false),
            ("3.11.7", "3.1", false),
            ("20.1.0", ">=18", true),
            ("20.1.0", "18 || 20", true),
            ("20.1.0", "18\n20\n", true),
            ("20.1.0", "lts/*", true),
            ("20.1.0", "nonsense", false),
        ] {
            assert_eq!(matches_version(version, wanted), fits, "{version} {wanted}");
        }
    }
}
