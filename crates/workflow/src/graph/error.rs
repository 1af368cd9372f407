//! What can go wrong when a graph is linked, or when a job is expanded. The texts end up as the reason of a failed run or job.

use std::fmt;

use super::{JOBS_MAX, MatrixError};
use crate::{
    expr::{EvalError, ExprValue},
    model::{InputType, WorkflowJob},
};

/// The calls of a workflow can't be linked. Displayed as one mistake per line, each with its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("\n"))]
pub struct LinkError {
    /// Lines of the form `FILE:LINE:COLUMN: error: MESSAGE`.
    pub mistakes: Vec<String>,
}

/// Why one call can't be linked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallLinkError {
    #[error("workflows can't call themselves: {chain} calls {target}")]
    Cycle { chain: String, target: String },
    #[error(
        "calls go more than {} levels deep: {chain} calls {target}",
        super::LEVELS_MAX
    )]
    TooDeep { chain: String, target: String },
    #[error("a run may call at most {} workflows", super::CALLED_MAX)]
    TooMany,
    #[error("{target} was not read when the run was created")]
    NotRead { target: String },
    #[error("{target} can't be called: {why}")]
    Unavailable { target: String, why: String },
    #[error("{target} can't be called: add `workflow_call` to its `on`")]
    NotCallable { target: String },
}

/// A setting of the whole run has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunSettingError {
    /// `concurrency` of the workflow.
    #[error("the `concurrency` of the workflow has no value: {0}")]
    Concurrency(#[source] EvalError),
    /// `run-name`
    #[error("the `run-name` has no value: {error}\n{}", error.snippet())]
    RunName {
        /// Shown with its snippet.
        error: EvalError,
    },
}

/// Why a job can't be expanded into cells; the job fails with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExpansionError {
    #[error("the `{setting}` of the job {job} has no value: {error}")]
    Setting {
        setting: &'static str,
        job: JobLabel,
        error: Box<EvalError>,
    },
    #[error("the matrix of the job {job}: {error}")]
    Matrix {
        job: JobLabel,
        error: Box<MatrixError>,
    },
    #[error("the job {job} can't call {workflow}: {error}")]
    Inputs {
        job: JobLabel,
        workflow: String,
        error: Box<CallInputsError>,
    },
    #[error("with the job {0} the run would have more than {JOBS_MAX} jobs")]
    TooManyJobs(JobLabel),
    #[error("the workflow it calls was not read")]
    CallNotRead,
}

impl ExpansionError {
    /// A setting of a job has no value.
    pub(super) fn setting(job: &WorkflowJob, setting: &'static str, error: EvalError) -> Self {
        Self::Setting {
            setting,
            job: job.into(),
            error: Box::new(error),
        }
    }
}

/// Displayed as `` `build` (line 4)``.
#[derive(Debug)]
pub(super) struct JobLabel {
    id: String,
    line: u32,
}

impl From<&WorkflowJob> for JobLabel {
    fn from(job: &WorkflowJob) -> Self {
        Self {
            id: job.id.clone(),
            line: job.at.line,
        }
    }
}

impl fmt::Display for JobLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (line {})", self.id, self.line)
    }
}

/// Why the inputs of a called workflow are not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallInputsError {
    /// `with` is one expression, and that has no value.
    #[error(transparent)]
    Table(EvalError),
    /// Inputs that the workflow doesn't declare, a sentence each.
    #[error("{}", .0.join("; "))]
    Unknown(Vec<String>),
    #[error("the input `{0}` is required")]
    Missing(String),
    #[error(transparent)]
    Invalid(#[from] InputValueError),
}

/// Why a value can't be used for an input of a called workflow.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputValueError {
    #[error("the input `{name}` has no value: {error}")]
    NoValue { name: String, error: EvalError },
    #[error("{}", describe_mismatch(name, *kind, value))]
    WrongType {
        name: String,
        kind: InputType,
        value: ExprValue,
    },
}

fn describe_mismatch(name: &str, kind: InputType, value: &ExprValue) -> String {
    let (expected, help) = match kind {
        InputType::Boolean => ("true or false", "; convert a string with `fromJSON(…)`"),
        InputType::Number => ("a number", "; convert a string with `fromJSON(…)`"),
        InputType::String | InputType::Choice | InputType::Environment => ("a string", ""),
    };
    let got = match value {
        ExprValue::Null => "empty".to_owned(),
        ExprValue::Array(_) | ExprValue::Object(_) => format!("an {}", value.kind()),
        _ => format!("'{}'", value.to_text().chars().take(80).collect::<String>()),
    };
    let help = if matches!(value, ExprValue::String(_)) {
        help
    } else {
        ""
    };
    format!("the input `{name}` must be {expected}, but is {got}{help}")
}
