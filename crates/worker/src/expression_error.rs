//! Errors of expressions, with the text that they are about.

use shipway_workflow::expr::EvalError;

/// An error with the expression below it.
#[derive(Debug, thiserror::Error)]
#[error("{error}\n{}", error.snippet())]
pub(crate) struct ExpressionError {
    error: EvalError,
}

impl From<EvalError> for ExpressionError {
    fn from(error: EvalError) -> Self {
        Self { error }
    }
}
