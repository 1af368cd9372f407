//! Rewrites commands of `run.command` so that no shell stays between the shim and the server process.
//!
//! # Why
//! A shell that waits for its last command receives the stop signal instead of that command, and exits while the command still
//! runs. With `exec` the last command replaces the shell. Debian's `/bin/sh` does not do that by itself.
//!
//! # Invariants
//! The line does the same with and without `exec`. Lines that this small parser is not sure about (compound commands, pipelines,
//! traps, here-documents, builtins) are left unchanged; the exit watcher then handles the shell in between.

/// The shell that runs commands.
pub(super) const SHELL: &str = "/bin/sh";

/// Words that are not programs, or whose program differs from the shell's builtin of that name.
const NOT_PROGRAMS: &[&str] = &[
    "!", "[", "[[", ".", ":", "alias", "bg", "break", "builtin", "case", "cd", "command",
    "continue", "coproc", "declare", "do", "done", "echo", "elif", "else", "esac", "eval", "exec",
    "exit", "export", "false", "fc", "fg", "fi", "for", "function", "getopts", "hash", "if",
    "jobs", "kill", "let", "local", "popd", "printf", "pushd", "pwd", "read", "readonly", "return",
    "select", "set", "shift", "shopt", "source", "test", "then", "time", "times", "trap", "true",
    "type", "typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while", "{", "}",
];
/// If one of these occurs anywhere, replacing the shell may change the meaning of the line.
const KEEPS_THE_SHELL: &[&str] = &[
    "!", "[[", "alias", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "select", "then", "time", "trap", "until", "while", "{", "}",
];

/// Inserts `exec` before the last command; `None` if that might change the meaning or is not possible.
pub(super) fn with_exec(command: &str) -> Option<String> {
    let commands = simple_commands(command)?;
    let (last, before) = commands.split_last()?;
    let keeps_the_shell = |words: &SimpleCommand| KEEPS_THE_SHELL.contains(&words.program);
    if last.piped || before.iter().any(keeps_the_shell) {
        return None;
    }
    let program = last.program;
    let may_be_a_builtin = program.contains('$') && !program.contains('/');
    let is_plain = !program.is_empty()
        && !program.contains(['"', '\'', '\\', '<', '>', '*', '?', '~'])
        && !may_be_a_builtin;
    if !is_plain || NOT_PROGRAMS.contains(&program) {
        return None;
    }
    let (assignments, rest) = command.split_at(last.program_at);
    Some(format!("{assignments}exec {rest}"))
}

/// One simple command of a line.
struct SimpleCommand<'c> {
    /// The first word that is not an assignment; empty if there is none.
    program: &'c str,
    /// Byte offset of that word in the line.
    program_at: usize,
    /// It is part of a pipeline.
    piped: bool,
}

/// The simple commands of a line; `None` for anything but a list of them.
fn simple_commands(line: &str) -> Option<Vec<SimpleCommand<'_>>> {
    let bytes = line.as_bytes();
    let mut commands = Vec::new();
    let (mut start, mut at, mut after_pipe) = (0, 0, false);
    while at < bytes.len() {
        let next = bytes.get(at + 1);
        let length = match (bytes[at], next) {
            (b'&', Some(b'&')) | (b'|', Some(b'|')) => 2,
            // A redirection such as `2>&1`.
            (b'&', _) if at > 0 && matches!(bytes[at - 1], b'>' | b'<') => 0,
            (b'&' | b'|' | b';' | b'\n', _) => 1,
            _ => 0,
        };
        if length == 0 {
            at = skip_token(line, at)?;
            continue;
        }
        let is_pipe = length == 1 && bytes[at] == b'|';
        let (program, program_at) = find_program(line, start, at);
        commands.push(SimpleCommand {
            program,
            program_at,
            piped: after_pipe || is_pipe,
        });
        after_pipe = is_pipe;
        at += length;
        start = at;
    }
    let (program, program_at) = find_program(line, start, bytes.len());
    let ends_with_separator = program.is_empty() && program_at == bytes.len();
    // `server;` is `server`, but `server &` runs in the background.
    let ended_by = line.trim_end().as_bytes().last();
    if !ends_with_separator {
        commands.push(SimpleCommand {
            program,
            program_at,
            piped: after_pipe,
        });
    } else if matches!(ended_by, Some(b'&' | b'|')) {
        return None;
    }
    Some(commands)
}

/// The offset after the character or quoted text at `at`; `None` for syntax that is not parsed.
fn skip_token(line: &str, at: usize) -> Option<usize> {
    let rest = &line[at..];
    let is_word_start = at == 0 || line.as_bytes()[at - 1].is_ascii_whitespace();
    match rest.as_bytes()[0] {
        b'\\' => Some(at + 1 + rest[1..].chars().next()?.len_utf8()),
        b'\'' => Some(at + 2 + rest[1..].find('\'')?),
        b'"' => {
            let mut quoted = rest.char_indices().skip(1);
            while let Some((offset, character)) = quoted.next() {
                match character {
                    '"' => return Some(at + offset + 1),
                    '\\' => drop(quoted.next()?),
                    '`' => return None,
                    '$' if rest[offset..].starts_with("$(") => return None,
                    _ => {}
                }
            }
            None
        }
        b'$' if rest.starts_with("$(") => {
            let inside = &rest[2..];
            let end = inside.find(')')?;
            // Nested or quoted parentheses are not parsed.
            (!inside[..end].contains(['(', '\'', '"', '\\', '`'])).then_some(at + 2 + end + 1)
        }
        b'(' | b')' | b'`' => None,
        b'<' if rest.starts_with("<<") => None,
        b'#' if is_word_start => None,
        _ => Some(at + rest.chars().next()?.len_utf8()),
    }
}

/// Finds the first word of `line[start..end]` that is not an assignment; returns it, empty if there is none, and its offset.
fn find_program(line: &str, start: usize, end: usize) -> (&str, usize) {
    let mut at = start;
    loop {
        let text = &line[at..end];
        let program_at = at + (text.len() - text.trim_start().len());
        let mut word_end = program_at;
        while word_end < end && !line.as_bytes()[word_end].is_ascii_whitespace() {
            // Parsed before: text that can't be skipped was rejected.
            word_end = skip_token(line, word_end).unwrap_or(end);
        }
        let word = &line[program_at..word_end];
        if !is_assignment(word) {
            return (word, program_at);
        }
        at = word_end;
    }
}

/// `NAME=value`.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_program_of_a_line_takes_the_shells_place() {
        for (command, wanted) in [
            ("python3 app.py", "exec python3 app.py"),
            ("  ./server --port $PORT ", "  exec ./server --port $PORT "),
            ("cd web && npm start", "cd web && exec npm start"),
            (
                "set -e; ./migrate; ./serve",
                "set -e; ./migrate; exec ./serve",
            ),
            (
                "A=1 B='x y' node server.js 2>&1",
                "A=1 B='x y' exec node server.js 2>&1",
            ),
            ("./sidecar & ./serve", "./sidecar & exec ./serve"),
            (
                "./check || echo bad; ./serve > out",
                "./check || echo bad; exec ./serve > out",
            ),
            ("serve -w $(nproc)", "exec serve -w $(nproc)"),
            (
                "$JAVA_HOME/bin/java -jar app.jar",
                "exec $JAVA_HOME/bin/java -jar app.jar",
            ),
            ("./prepare\n./serve\n", "./prepare\nexec ./serve\n"),
            ("cat a | wc -l; ./serve;", "cat a | wc -l; exec ./serve;"),
            (
                "echo '; not a command' \"&& | ü\" && ./serve",
                "echo '; not a command' \"&& | ü\" && exec ./serve",
            ),
            ("sh -c 'trap x TERM; y'", "exec sh -c 'trap x TERM; y'"),
        ] {
            assert_eq!(with_exec(command).as_deref(), Some(wanted), "{command}");
        }
    }

    #[test]
    fn what_needs_its_shell_keeps_it() {
        for command in [
            "",
            "exec python3 app.py",
            "cd x && exec ./serve",
            "./serve &",
            "setsid ./serve > /dev/null 2>&1 &",
            "./serve | tee log",
            "trap 'kill $!' TERM; ./serve & wait",
            "trap x EXIT; ./serve",
            "while true; do ./serve; done",
            "if x; then ./serve; fi",
            "(cd x; ./serve)",
            "{ ./serve; }",
            "serve() { ./x; }; serve",
            ". ./env.sh",
            "$COMMAND now",
            "\"./my serve\"",
            "A=1",
            "cat <<END\nx\nEND",
            "./serve # the server",
            "./serve $(a $(b))",
            "./serve `nproc`",
            "./serve \"$(nproc)\"",
            "'never closed",
            "./serve \\",
            "alias a=b; a",
            "! ./serve",
            "> log ./serve",
            "./serve; echo ended",
            "./serve; true",
        ] {
            assert_eq!(with_exec(command), None, "{command}");
        }
    }

    #[test]
    fn a_shell_agrees() {
        for (command, wanted) in [
            ("A=1 env", "A=1"),
            ("cd / && ls -d $PWD", "/"),
            ("false || cat /dev/null && seq 3", "1\n2\n3"),
            ("A=2; A=3 printenv A", "3"),
            (
                "set -e; seq 2 || seq 3; printenv B || seq 4",
                "1\n2\n1\n2\n3\n4",
            ),
        ] {
            let rewritten = with_exec(command).unwrap();
            let output = |text: &str| {
                let output = std::process::Command::new("/bin/sh")
                    .args(["-c", text])
                    .output()
                    .unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            assert_eq!(output(&rewritten), output(command), "{rewritten}");
            assert!(output(&rewritten).contains(wanted), "{rewritten}");
        }
    }
}
