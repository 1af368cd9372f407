//! Diagnostics: message, position and help.

use std::fmt;

use serde::Serialize;

use crate::source::{SourceFile, Span};

/// One mistake, or something that is legal but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of mistake, for machines: `unknown-key`.
    pub code: &'static str,
    /// The message.
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
    pub fn one_line(&self, source: &SourceFile) -> String {
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

/// Diagnostics of one file, at most: what a person reads, and what every place that shows them can bear.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Characters of one message, at most: it may repeat a key or a value of the file.
const MESSAGE_CHARS_MAX: usize = 500;

/// The diagnostics of one file, at most [`DIAGNOSTICS_MAX`]; errors are kept before warnings, and a last one says how many more
/// there are. Their order is kept.
#[must_use]
pub fn limit_diagnostics(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let total = diagnostics.len();
    if total > DIAGNOSTICS_MAX {
        let errors = diagnostics.iter().filter(|it| it.is_error()).count();
        let mut warnings = DIAGNOSTICS_MAX.saturating_sub(errors);
        diagnostics.retain(|it| {
            let kept = it.is_error() || warnings > 0;
            warnings -= usize::from(kept && !it.is_error());
            kept
        });
        diagnostics.truncate(DIAGNOSTICS_MAX);
        diagnostics.push(Diagnostic {
            severity: match errors > DIAGNOSTICS_MAX {
                true => Severity::Error,
                false => Severity::Warning,
            },
            code: "too-many-problems",
            message: format!("{} more problems are not shown", total - DIAGNOSTICS_MAX),
            span: None,
            help: None,
        });
    }
    for diagnostic in &mut diagnostics {
        let message = &mut diagnostic.message;
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
            message.push('…');
        }
    }
    diagnostics
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_kept_before_warnings_and_the_rest_is_counted() {
        let at = |start| Span::new(start, start + 1);
        let warnings = (0..150).map(|start| Diagnostic::warning("w", at(start), "w"));
        let errors = (200..260).map(|start| Diagnostic::error("e", at(start), "e"));
        let limited = limit_diagnostics(warnings.chain(errors).collect());
        assert_eq!(limited.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(limited.iter().filter(|it| it.is_error()).count(), 60);
        assert_eq!(
            limited.last().unwrap().message,
            "110 more problems are not shown"
        );
        assert!(limited[..100].is_sorted_by_key(|it| it.span.unwrap().start));
        let long = Diagnostic::error("e", at(0), "ä".repeat(1_000_000));
        let message = &limit_diagnostics(vec![long])[0].message;
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
