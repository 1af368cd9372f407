//! Shells: the command line that runs a script, as GitHub's runner builds it.

use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// Why a script can't be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShellError {
    #[error(
        "unknown shell {0:?}; use bash, sh, python, pwsh, or a command with {{0}} for the script"
    )]
    Unknown(String),
    #[error("the shell {0:?}: a quote is not closed")]
    Quote(String),
    #[error("the shell {0:?} is not on this machine: {1} is in no folder of PATH")]
    Missing(String, String),
}

/// The command line for a script. Without `shell`: bash if it is installed, otherwise sh.
pub(crate) fn command_line(
    shell: Option<&str>,
    script: &Path,
    path: &str,
) -> Result<CommandLine, ShellError> {
    let has = |program: &str| find_program(program, path).is_some();
    let line = fill_template(shell, script, has)?;
    if find_program(&line.program, path).is_none() {
        let name = shell.unwrap_or("bash").to_owned();
        return Err(ShellError::Missing(name, line.program));
    }
    Ok(line)
}

/// The command line for a script in a container, where installed programs are unknown. Without `shell`: sh, like at
/// GitHub.
pub(crate) fn container_command_line(
    shell: Option<&str>,
    script: &Path,
) -> Result<CommandLine, ShellError> {
    fill_template(shell, script, |program| program == "python")
}

fn fill_template(
    shell: Option<&str>,
    script: &Path,
    has: impl Fn(&str) -> bool,
) -> Result<CommandLine, ShellError> {
    let template = match shell.map(str::trim).filter(|shell| !shell.is_empty()) {
        None if has("bash") => "bash -e {0}",
        None => "sh -e {0}",
        Some("bash") => "bash --noprofile --norc -e -o pipefail {0}",
        Some("sh") => "sh -e {0}",
        Some("python") if has("python") => "python {0}",
        // Many machines have no `python`.
        Some("python") => "python3 {0}",
        Some("pwsh") => "pwsh -command \". '{0}'\"",
        Some(custom) if custom.contains("{0}") => custom,
        Some(unknown) => return Err(ShellError::Unknown(unknown.to_owned())),
    };
    let words = split_template(template).ok_or_else(|| ShellError::Quote(template.to_owned()))?;
    let script = script.display().to_string();
    let mut words = words.into_iter().map(|word| word.replace("{0}", &script));
    Ok(CommandLine {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
    })
}

/// Looks up a program in `path`.
pub(crate) fn find_program(program: &str, path: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

/// The file extension that the shell expects.
pub(crate) fn script_extension(shell: Option<&str>) -> &'static str {
    match shell.map(str::trim) {
        Some("python") => "py",
        Some("pwsh") => "ps1",
        _ => "sh",
    }
}

/// The text of the script file. PowerShell only exits with the code of the last program if the script does it explicitly.
pub(crate) fn script_text(shell: Option<&str>, script: &str) -> String {
    match shell.map(str::trim) {
        Some("pwsh") => format!(
            "$ErrorActionPreference = 'stop'\n{script}\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) {{ exit $LASTEXITCODE }}\n"
        ),
        _ => format!("{script}\n"),
    }
}

/// Splits at whitespace outside of double quotes. Not `shlex`: GitHub's runner knows no single quotes and no escapes
/// here. `None` if a quote isn't closed.
fn split_template(template: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in template.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_githubs() {
        let folder = tempfile::tempdir().unwrap();
        for program in ["bash", "sh", "pwsh", "perl"] {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        let path = folder.path().display().to_string();
        let of = |shell| {
            let line = command_line(shell, Path::new("/t/s.sh"), &path)?;
            Ok([&[line.program], line.arguments.as_slice()]
                .concat()
                .join("|"))
        };
        for (shell, expected) in [
            (None, "bash|-e|/t/s.sh"),
            (
                Some("bash"),
                "bash|--noprofile|--norc|-e|-o|pipefail|/t/s.sh",
            ),
            (Some("sh"), "sh|-e|/t/s.sh"),
            (Some("pwsh"), "pwsh|-command|. '/t/s.sh'"),
            (Some("perl \"{0} x\" y"), "perl|/t/s.sh x|y"),
        ] {
            assert_eq!(of(shell), Ok(expected.to_owned()));
        }
        assert_eq!(
            of(Some("fish")),
            Err(ShellError::Unknown("fish".to_owned()))
        );
        assert!(matches!(of(Some("python")), Err(ShellError::Missing(..))));
        assert!(matches!(of(Some("sh \"{0}")), Err(ShellError::Quote(_))));
    }
}
