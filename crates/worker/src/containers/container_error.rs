//! Why a container can't be run.

use super::engine::{ContainerEngineError, EngineUnavailable, INSTALL};
use crate::{expression_error::ExpressionError, path_error::PathError};

/// Why a container can't be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("container: {0}")]
    Job(Box<Self>),
    #[error("the service {name}: {source}")]
    Service { name: String, source: Box<Self> },
    #[error(transparent)]
    Engine(#[from] ContainerEngineError),
    #[error(transparent)]
    EngineUnavailable(#[from] EngineUnavailable),
    #[error("the action is the container {image}, but {source}; {INSTALL}")]
    ActionWithoutEngine {
        image: String,
        source: EngineUnavailable,
    },
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    #[error("`{option}`: a quote is not closed: {text}")]
    UnclosedQuote { option: &'static str, text: String },
    #[error("the service {name} is {state}{output}")]
    ServiceFailed {
        name: String,
        state: String,
        /// Its last output.
        output: String,
    },
    #[error("the action has no file {0}")]
    NoDockerfile(String),
    #[error("{client}: {source}")]
    Client {
        client: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    File(#[from] PathError),
}

impl From<shipway_workflow::expr::EvalError> for ContainerError {
    fn from(error: shipway_workflow::expr::EvalError) -> Self {
        Self::Expression(error.into())
    }
}
