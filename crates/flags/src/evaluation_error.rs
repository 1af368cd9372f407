//! Why an evaluation or a context gives no result.

use std::fmt;

use serde::{Deserialize, Serialize};

/// OpenFeature's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EvaluationErrorCode {
    /// There is no such flag.
    FlagNotFound,
    /// The flag's rule can't be evaluated.
    ParseError,
    /// The context names no subject, and the caller requires one.
    TargetingKeyMissing,
    /// The flag's values are of another type than the caller asks for.
    TypeMismatch,
    /// The context is not a JSON object within the limits.
    InvalidContext,
    /// The rule named no variant of the flag, or took too many steps.
    General,
}

impl EvaluationErrorCode {
    /// As OpenFeature writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EvaluationErrorCode::FlagNotFound => "FLAG_NOT_FOUND",
            EvaluationErrorCode::ParseError => "PARSE_ERROR",
            EvaluationErrorCode::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            EvaluationErrorCode::TypeMismatch => "TYPE_MISMATCH",
            EvaluationErrorCode::InvalidContext => "INVALID_CONTEXT",
            EvaluationErrorCode::General => "GENERAL",
        }
    }
}

impl fmt::Display for EvaluationErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An evaluation without a result. Callers use their own default.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct EvaluationError {
    /// What went wrong, for programs.
    pub code: EvaluationErrorCode,
    /// The same for people.
    pub message: String,
}

impl EvaluationError {
    pub(crate) fn new(code: EvaluationErrorCode, message: impl Into<String>) -> EvaluationError {
        EvaluationError {
            code,
            message: message.into(),
        }
    }
}
