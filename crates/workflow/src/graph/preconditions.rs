//! What a run or a job waits for in addition to its `needs`: `concurrency` and `environment`, with their expressions resolved.
//! Queueing and approval are decided in `shipway-core`.

use serde::{Deserialize, Serialize};

use super::{RunContexts, RunSettingError, error::ExpansionError};
use crate::{
    expr::{Contexts, EvalError, ExprValue},
    model::{ConcurrencyRule, QueueMode, Workflow, WorkflowJob},
};

/// A concurrency group that a run or a job wants to be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyGroup {
    /// Its name; case doesn't matter.
    pub name: String,
    /// Whether the running member of the group is cancelled.
    #[serde(default)]
    pub cancel_in_progress: bool,
    /// How many wait.
    #[serde(default)]
    pub queue: QueueMode,
}

/// What a job waits for before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPreconditions {
    /// Its turn in a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<ConcurrencyGroup>,
    /// The gates of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// The workflow that a job calls, with the inputs of the call.
#[derive(Clone, Copy)]
pub(super) struct CalledWorkflow<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) inputs: &'a ExprValue,
}

impl JobPreconditions {
    /// Whether the job can start immediately.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.group.is_none() && self.environment.is_none()
    }

    /// What a job waits for; `contexts` are those of its cell. A job that calls a workflow waits for its own group, or for that
    /// of the workflow.
    pub(super) fn resolve(
        job: &WorkflowJob,
        called: Option<CalledWorkflow<'_>>,
        contexts: &Contexts<'_>,
    ) -> Result<Self, ExpansionError> {
        let group = match (&job.concurrency, called) {
            (Some(concurrency), _) => group(concurrency, contexts),
            (None, Some(called)) => match &called.workflow.concurrency {
                Some(concurrency) => {
                    let contexts = contexts.clone().with("inputs", called.inputs.clone());
                    group(concurrency, &contexts)
                }
                None => Ok(None),
            },
            (None, None) => Ok(None),
        };
        let group = group.map_err(|error| ExpansionError::setting(job, "concurrency", error))?;
        let environment = job
            .environment
            .as_ref()
            .map(|environment| environment.name.resolve_text(contexts))
            .transpose()
            .map_err(|error| ExpansionError::setting(job, "environment", error))?;
        Ok(Self {
            group,
            environment: environment
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty()),
        })
    }
}

/// The group that a run as a whole wants to be in.
pub fn resolve_run_group(
    concurrency: &ConcurrencyRule,
    ground: &RunContexts,
) -> Result<Option<ConcurrencyGroup>, RunSettingError> {
    let contexts = Contexts::new()
        .with("github", ground.github.clone())
        .with("inputs", ground.inputs.clone())
        .with("vars", ground.vars.clone());
    group(concurrency, &contexts).map_err(RunSettingError::Concurrency)
}

/// An empty name means no group, so an expression can opt out.
fn group(
    concurrency: &ConcurrencyRule,
    contexts: &Contexts<'_>,
) -> Result<Option<ConcurrencyGroup>, EvalError> {
    let name = concurrency.group.resolve_text(contexts)?.trim().to_owned();
    if name.is_empty() {
        return Ok(None);
    }
    Ok(Some(ConcurrencyGroup {
        name,
        cancel_in_progress: concurrency.cancel_in_progress.resolve(contexts)?,
        queue: concurrency.queue,
    }))
}
