//! Passwords: typed without an echo, or the first line of standard input.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{exit::Failure, print::error_text};

/// Where a password comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// The first line of standard input.
    StandardInput,
    /// The terminal.
    Terminal,
}

impl PasswordSource {
    /// The terminal, or standard input where that is none.
    pub fn from_environment() -> Self {
        match io::stdin().is_terminal() {
            true => Self::Terminal,
            false => Self::StandardInput,
        }
    }

    /// Reads a password. On a terminal `prompt` asks for it.
    pub fn read(self, prompt: &str) -> Result<String, Failure> {
        let read = match self {
            Self::StandardInput => read_line(),
            Self::Terminal => read_hidden(prompt),
        };
        let password = read.map_err(|error| Failure::usage(format!("no password: {error}")))?;
        match password.is_empty() {
            true => Err(Failure::usage_with(
                "the password is empty",
                "type it, or pass it as the first line of standard input with --password-stdin",
            )),
            false => Ok(password),
        }
    }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_hidden(prompt: &str) -> io::Result<String> {
    error_text(prompt);
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let line = read_line();
    tcsetattr(&stdin, OptionalActions::Now, &shown)?;
    error_text("\n");
    line
}
