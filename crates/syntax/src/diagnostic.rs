//! What is wrong with a text, where, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::source::{Source, Span};

/// One mistake, or something that is legal but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of mistake, for machines: `unknown-key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where; none when it is about the whole text.
    pub span: Option<Span>,
    /// What to do.
    pub help: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The text can't be used.
    Error,
    /// It can, but look.
    Warning,
}

impl Diagnostic {
    /// A mistake.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            help: None,
        }
    }

    /// Something legal that is hardly meant.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the text can't be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `shipway.yaml:2:1: error: unknown key …; did you mean …?`
    #[must_use]
    pub fn one_line(&self, source: &Source) -> String {
        let place = self
            .span
            .map(|span| source.position(span.start))
            .map(|(line, column)| format!(":{line}:{column}"))
            .unwrap_or_default();
        let help = self
            .help
            .as_ref()
            .map(|help| format!("; {help}"))
            .unwrap_or_default();
        format!(
            "{}{place}: {}: {}{help}",
            source.path, self.severity, self.message
        )
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}
