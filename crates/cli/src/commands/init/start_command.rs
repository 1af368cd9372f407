//! The command of a `Procfile` or a `Dockerfile`, made one for a process of this machine: with `$PORT` instead of a fixed
//! port, and Python's programs as modules, because programs that `pip install --target` installs name the Python of the job.

use super::{project::quote_for_shell, repository::RepositoryFacts};

/// A command with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartCommand {
    pub(super) command: String,
    /// Where it is from.
    pub(super) comment: String,
}

/// Python programs, each with its module.
const PYTHON_PROGRAMS: [(&str, &str); 10] = [
    ("celery", "celery"),
    ("daphne", "daphne"),
    ("django-admin", "django"),
    ("fastapi", "fastapi"),
    ("flask", "flask"),
    ("gunicorn", "gunicorn"),
    ("hypercorn", "hypercorn"),
    ("streamlit", "streamlit"),
    ("uvicorn", "uvicorn"),
    ("waitress-serve", "waitress"),
];

/// The process `web` of the `Procfile`.
pub(super) fn procfile_command(facts: &RepositoryFacts) -> Option<StartCommand> {
    let mut lines = facts.text("Procfile")?.lines();
    let command = lines.find_map(|line| line.trim().strip_prefix("web:"))?;
    Some(StartCommand {
        command: adapt_command(command.trim()),
        comment: "As `web` in the Procfile says.".to_owned(),
    })
}

/// The command of the `Dockerfile`.
pub(super) fn dockerfile_command(facts: &RepositoryFacts) -> Option<StartCommand> {
    let command = parse_dockerfile(facts.text("Dockerfile")?)?;
    Some(StartCommand {
        command: adapt_command(&command),
        comment: "A guess: the command of the Dockerfile, listening on $PORT.".to_owned(),
    })
}

/// What the last `ENTRYPOINT` and `CMD` start together, as a shell command.
fn parse_dockerfile(text: &str) -> Option<String> {
    let text = text.replace("\\\n", " ");
    let last = |instruction: &str| {
        let mut lines = text.lines().rev();
        lines.find_map(|line| {
            let (name, rest) = line.trim().split_once(char::is_whitespace)?;
            name.eq_ignore_ascii_case(instruction)
                .then(|| rest.trim().to_owned())
        })
    };
    let parsed = |value: String| match serde_json::from_str::<Vec<String>>(&value) {
        Ok(words) if matches!(words.as_slice(), [shell, flag, _] if shell.ends_with("sh") && flag == "-c") => {
            words[2].clone()
        }
        Ok(words) => {
            let words = words.iter().map(|word| quote_for_shell(word));
            words.collect::<Vec<_>>().join(" ")
        }
        Err(_) => value,
    };
    let words = [last("ENTRYPOINT"), last("CMD")].map(|it| it.map(parsed));
    let command = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    (!command.is_empty()).then_some(command)
}

/// Replaces Python's programs by modules, and fixed ports and addresses by those of an instance.
pub(super) fn adapt_command(command: &str) -> String {
    let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let mut port_follows = false;
    for (index, word) in words.iter_mut().enumerate() {
        let is_port = |text: &str| text.len() >= 2 && text.bytes().all(|b| b.is_ascii_digit());
        if index == 0 {
            let program = word.rsplit('/').next().unwrap_or_default();
            if let Some((_, module)) = PYTHON_PROGRAMS.iter().find(|(name, _)| *name == program) {
                *word = format!("python3 -m {module}");
            } else if program == "python" {
                *word = "python3".to_owned();
            }
        } else if port_follows && is_port(word) {
            *word = "$PORT".to_owned();
        } else if let Some((flag, value)) = word.split_once('=')
            && flag.ends_with("port")
            && is_port(value)
        {
            *word = format!("{flag}=$PORT");
        } else if let Some((host, port)) = word.rsplit_once(':')
            && is_port(port)
            && host
                .split('.')
                .all(|part| part.parse::<u8>().is_ok() || part.is_empty())
        {
            *word = "127.0.0.1:$PORT".to_owned();
        } else if word == "0.0.0.0" {
            *word = "127.0.0.1".to_owned();
        }
        port_follows = word == "--port" || word == "-p";
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_listen_on_the_port_of_the_instance() {
        for (command, expected) in [
            (
                "uvicorn shop:app --host 0.0.0.0 --port 80",
                "python3 -m uvicorn shop:app --host 127.0.0.1 --port $PORT",
            ),
            (
                "gunicorn shop.wsgi -b 0.0.0.0:8000 --workers 3",
                "python3 -m gunicorn shop.wsgi -b 127.0.0.1:$PORT --workers 3",
            ),
            ("python web.py", "python3 web.py"),
            ("./serve --port=3000", "./serve --port=$PORT"),
            ("puma -p ${PORT:-3000}", "puma -p ${PORT:-3000}"),
            ("node dist/main.js", "node dist/main.js"),
        ] {
            assert_eq!(adapt_command(command), expected);
        }
    }

    #[test]
    fn a_dockerfile_starts_its_last_entry_point_with_its_last_command() {
        for (text, expected) in [
            (
                "FROM a\nCMD [\"node\", \"a b.js\"]\n",
                Some("node 'a b.js'"),
            ),
            (
                "FROM a\nENTRYPOINT [\"./shop\"]\nCMD [\"--port\", \"80\"]",
                Some("./shop --port 80"),
            ),
            (
                "FROM a\nCMD [\"sh\", \"-c\", \"exec ./shop $X\"]",
                Some("exec ./shop $X"),
            ),
            (
                "FROM a AS b\nCMD ./one\nFROM c\nCMD ./two \\\n  --fast\n",
                Some("./two    --fast"),
            ),
            ("FROM a\n", None),
        ] {
            assert_eq!(parse_dockerfile(text).as_deref(), expected, "{text}");
        }
    }
}
