//! `actions/setup-*`: the tool that is on this machine, and which version that is.

use std::process::Stdio;

use tokio::process::Command;

use super::{Call, Left};

pub(super) async fn run(tool: &str, call: &mut Call<'_>) -> Result<Left, String> {
    let (programs, input): (&[&str], &str) = match tool {
        "python" => (&["python3", "python"], "python-version"),
        "node" => (&["node"], "node-version"),
        "go" => (&["go"], "go-version"),
        "java" => (&["java"], "java-version"),
        "dotnet" => (&["dotnet"], "dotnet-version"),
        "ruby" => (&["ruby"], "ruby-version"),
        other => {
            return Err(format!(
                "actions/setup-{other} is not known here; put the tool on the machine and leave the step out"
            ));
        }
    };
    for program in programs {
        if let Some(version) = version_of(program, call).await {
            match call.get(input).map(str::to_owned) {
                Some(wanted) if !matches_version(&version, &wanted) => {
                    call.say(format!("::warning::{program} {version} is on this machine; the workflow asks for {wanted}, which is not"));
                }
                _ => call.say(format!("{program} {version} is on this machine")),
            }
            return Ok(Left {
                outputs: vec![(input.to_owned(), version)],
                ..Left::default()
            });
        }
    }
    Err(format!(
        "{} is not on this machine; install it there",
        programs[0]
    ))
}

async fn version_of(program: &str, call: &Call<'_>) -> Option<String> {
    let argument = if program == "go" {
        "version"
    } else {
        "--version"
    };
    let output = Command::new(program)
        .arg(argument)
        .env_clear()
        .envs(call.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let digits = text
        .find(|c: char| c.is_ascii_digit())
        .filter(|_| output.status.success())?;
    Some(
        text[digits..]
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .next()?
            .trim_end_matches('.')
            .to_owned(),
    )
}

/// Whether a version is one of those asked for: `3`, `3.11`, `3.x`, `>=18`.
fn matches_version(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| {
        text.split('.')
            .map_while(|part| part.parse::<u64>().ok())
            .collect::<Vec<_>>()
    };
    let have = numbers(version);
    wanted
        .split("||")
        .map(str::trim)
        .any(|wanted| match wanted.strip_prefix(">=") {
            Some(least) => have >= numbers(least.trim()),
            None => {
                let asked = numbers(wanted.trim_start_matches(['^', '~', 'v']));
                have.starts_with(&asked) || matches!(wanted, "latest" | "lts/*" | "stable")
            }
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
            ("20.1.0", ">=18", true),
            ("20.1.0", "18 || 20", true),
        ] {
            assert_eq!(matches_version(version, wanted), fits, "{version} {wanted}");
        }
    }
}
