//! The values of a run: inputs, secrets, variables, the event's payload. They come from the command line and from files; a
//! missing secret is prompted for on a terminal.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use shipway_core::source_repository::SourceRepository;
use shipway_workflow::expr::ExprValue;

use super::{Args, dotenv};
use crate::{
    exit::Failure,
    print::{error_line, error_text},
};

/// All that is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) inputs: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) vars: BTreeMap<String, String>,
    pub(super) env: BTreeMap<String, String>,
    /// `github.event`
    pub(super) payload: Option<serde_json::Value>,
    /// `github.repository`
    pub(super) repository: Option<SourceRepository>,
}

/// Whether a missing secret may be prompted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    May,
    /// Nothing is going to run.
    Not,
}

impl Given {
    /// Reads all sources. The command line overrides files.
    pub(super) fn read(args: &Args, asking: Asking) -> Result<Self, Failure> {
        let payload = args.payload.as_deref().map(payload).transpose()?;
        let mut secrets = from_files(&args.secret_file)?;
        for text in &args.secret {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (text.as_str(), secret(text, &secrets, asking)?),
            };
            secrets.insert(name.to_owned(), value);
        }
        Ok(Self {
            inputs: over(&args.input_file, &args.input)?,
            secrets,
            vars: over(&args.var_file, &args.var)?,
            env: over(&args.env_file, &args.env)?,
            payload,
            repository: args.repository.clone(),
        })
    }

    /// The inputs of a run: for `workflow_dispatch` those of the payload too, below the given ones.
    pub(super) fn inputs_for(&self, event: &str) -> BTreeMap<String, String> {
        let payload = self
            .payload
            .as_ref()
            .filter(|_| event == "workflow_dispatch");
        let entries = payload.and_then(|payload| payload.get("inputs")?.as_object());
        let text = |value: &serde_json::Value| ExprValue::from(value).to_text().to_string();
        let entries = entries.into_iter().flatten();
        let mut inputs: BTreeMap<String, String> = entries
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        inputs.extend(self.inputs.clone());
        inputs
    }
}

fn payload(path: &Path) -> Result<serde_json::Value, Failure> {
    let shown = path.display();
    let wrong = |error: String| Failure::usage(format!("{shown}: {error}"));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Failure::usage_with(
        format!("{shown} is not a JSON object"),
        "it becomes `github.event`: {\"ref\": \"refs/heads/main\", …}",
    ))
}

fn from_files(files: &[PathBuf]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for file in files {
        all.extend(dotenv::read(file)?);
    }
    Ok(all)
}

fn over(files: &[PathBuf], texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = from_files(files)?;
    all.extend(pairs(texts, '=', "NAME=VALUE")?);
    Ok(all)
}

/// `NAME=VALUE` texts, or with another separator.
pub(super) fn pairs(
    texts: &[String],
    separator: char,
    form: &str,
) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match text.split_once(separator) {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{text:?} is not {form}"))),
    };
    texts.iter().map(pair).collect()
}

/// A secret that is only named: from the environment, from a file, or asked for.
fn secret(name: &str, known: &BTreeMap<String, String>, asking: Asking) -> Result<String, Failure> {
    if let Ok(value) = std::env::var(name) {
        return Ok(value);
    }
    if let Some(value) = known.get(name) {
        return Ok(value.clone());
    }
    if asking == Asking::Not {
        return Ok(String::new());
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() && std::io::stderr().is_terminal() {
        return prompt_for_secret(name)
            .map_err(|error| Failure::usage(format!("the secret {name}: {error}")));
    }
    Err(Failure::usage_with(
        format!("the secret {name} is not in the environment"),
        format!(
            "set it in the environment, in a file passed with --secret-file, or with --secret {name}=VALUE"
        ),
    ))
}

/// Prompts for a secret without echo.
fn prompt_for_secret(name: &str) -> std::io::Result<String> {
    // Echo is off before the prompt: the answer may come at once.
    let hidden = Hidden::hide_echo()?;
    error_text(&format!("Secret {name}: "));
    let typed = typed();
    drop(hidden);
    error_line("");
    typed
}

/// Reads a line. The terminal is in raw mode, so Ctrl-C is a key here: a signal would end the program and leave the terminal
/// without echo.
fn typed() -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut key = [0];
        if rustix::io::read(std::io::stdin(), &mut key)? == 0 {
            return Err(std::io::Error::other("none was given"));
        }
        match key[0] {
            b'\n' | b'\r' => break,
            CTRL_C | CTRL_D => return Err(std::io::Error::other("none was given")),
            BACKSPACE | DELETE => {
                // A character may be several bytes.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            CTRL_U => line.clear(),
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(std::io::Error::other)
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// Turns off the terminal's echo until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn hide_echo() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut hidden = before.clone();
        let modes = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        hidden.local_modes.remove(modes);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
