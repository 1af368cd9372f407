//! How results are printed: for people, or as JSON.

use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As JSON.
    pub json: bool,
    /// Only what was asked for.
    pub quiet: bool,
}

impl Output {
    /// Prints a document as JSON.
    pub fn document(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        line(&text);
        Ok(())
    }
}

/// Prints a line. A reader that has gone away (`| head`) ends the program quietly.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(0);
    }
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
pub fn words(value: &impl Serialize) -> String {
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
