//! Prints results for people or as JSON. With `live.rs` the only module that writes to stdout and stderr: printed text may be
//! untrusted, and terminals obey control sequences.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use jiff::Timestamp;
use serde::Serialize;
use shipway_core::terminal::sanitize_for_terminal;
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
    /// Only the requested result.
    pub quiet: bool,
}

impl Output {
    /// Prints a document as JSON.
    pub fn document(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        line(&with_escapes(&text));
        Ok(())
    }
}

/// JSON whose strings hold no control characters but as escapes: JSON itself asks for that below U+0020 only.
fn with_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out
}

/// Prints a line on stdout, without control sequences other than colours. A reader that has gone away (`| head`) ends the program
/// quietly.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{}", sanitize_for_terminal(text)).is_err() {
        std::process::exit(0);
    }
}

/// Prints text on stdout at once, without control sequences other than colours. A closed pipe (`| head`)
/// does not end the command.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(sanitize_for_terminal(text).as_bytes())
        .and_then(|()| out.flush());
}

/// Prints text on stderr at once, without control sequences other than colours.
pub fn error_text(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out
        .write_all(sanitize_for_terminal(text).as_bytes())
        .and_then(|()| out.flush());
}

/// Prints a line on stderr, without control sequences other than colours.
pub fn error_line(text: &str) {
    error_text(&format!("{text}\n"));
}

/// Prints why a command failed, with its help on the line below, and returns the exit code.
#[must_use]
pub fn report_failure(failure: &Failure) -> ExitCode {
    error_line(&format!("shipway: {failure}"));
    if let Some(help) = failure.help() {
        error_line(&format!("  help: {help}"));
    }
    ExitCode::from(failure.exit_code())
}

/// Rows as a table without frames, columns as wide as they must be.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(head)
        .add_rows(rows);
    line(table.to_string().trim_end());
}

/// `1 error`, `2 errors`.
pub fn counted(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// `12 s ago`
#[must_use]
pub fn ago(at: Timestamp) -> String {
    match Timestamp::now().duration_since(at).as_secs() {
        seconds @ ..=89 => format!("{} s ago", seconds.max(0)),
        seconds @ 90..=5_399 => format!("{} min ago", seconds / 60),
        seconds @ 5_400..=129_599 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

/// A snake-case word as people read it.
#[must_use]
pub fn enum_text(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(|text| text.replace('_', " ")))
        .unwrap_or_default()
}

/// What a process that stays has to say: on stderr, what `SHIPWAY_LOG` lets through, coloured for people only.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("SHIPWAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
