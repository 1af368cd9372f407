//! A step on its way: the task, the plan once its expressions are evaluated, and the outcome.

use std::{sync::Arc, time::Duration};

use shipway_workflow::{
    expr::{EvalError, IfCondition},
    job::{Conclusion, JournalBody},
    model::WorkflowStep,
};

use crate::{
    action_stage::ActionStage,
    actions::resolved_action::ResolvedAction,
    cancellation::{JobCancellation, WhenCancelled},
    environment::EnvVars,
    expression_error::ExpressionError,
    program_runner::RunLimits,
    step_scope::{PostStep, StepScope},
};

/// Id of the step that waits for the remaining background steps at the end of a job.
pub(crate) const IMPLICIT_WAIT: &str = "__implicit_wait_all";

/// A step to run.
pub(crate) struct StepTask {
    /// Unique within the job, e.g. `2.0` for the first step of the action of the third step.
    pub(crate) key: String,
    pub(crate) step: WorkflowStep,
    /// The condition to check: the step's own, or `pre-if` or `post-if` of its action.
    pub(crate) condition: IfCondition,
    /// The resolved action, if an earlier stage resolved it.
    pub(crate) action: Option<Arc<ResolvedAction>>,
    /// The scope of its composite action, if an earlier stage created it.
    pub(crate) action_scope: Option<Box<StepScope>>,
}

/// `continue-on-error` of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnFailure {
    #[default]
    Fail,
    Continue,
}

/// A step with its evaluated condition, name, variables and limits.
pub(crate) struct PlannedStep {
    pub(crate) runs: bool,
    /// Whether the step also runs, or keeps running, in a cancelled job (`if: always()`).
    pub(crate) when_cancelled: WhenCancelled,
    pub(crate) name: String,
    /// All variables: those of the job, of the enclosing steps and of the step itself.
    pub(crate) env: EnvVars,
    /// The variables of the step itself and of the enclosing steps.
    pub(crate) own_env: EnvVars,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_failure: OnFailure,
}

impl PlannedStep {
    /// The limits for the step's programs.
    pub(crate) fn limits<'c>(&self, cancel: &'c mut JobCancellation) -> RunLimits<'c> {
        RunLimits {
            timeout: self.timeout,
            cancel,
            when_cancelled: self.when_cancelled,
        }
    }
}

/// A started step, as the journal knows it.
pub(crate) struct StartedStep {
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) key: String,
}

/// How a step ended, before `continue-on-error` is applied.
#[derive(Debug)]
pub(crate) struct StepOutcome {
    pub(crate) outcome: Conclusion,
    pub(crate) why: Option<String>,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) entries: Vec<JournalBody>,
    pub(crate) summary: Option<String>,
}

impl StepOutcome {
    pub(crate) fn without_output(outcome: Conclusion, why: Option<String>) -> Self {
        Self {
            outcome,
            why,
            outputs: Vec::new(),
            entries: Vec::new(),
            summary: None,
        }
    }

    /// A step whose expressions can't be evaluated has failed.
    pub(crate) fn from_eval_error(step: &WorkflowStep, error: EvalError) -> Self {
        let why = format!("line {}: {}", step.at.line, ExpressionError::from(error));
        Self::without_output(Conclusion::Failure, Some(why))
    }

    /// The first line of the reason, for messages that refer to this step.
    pub(crate) fn short_reason(&self) -> &str {
        let why = self.why.as_deref().unwrap_or("failed");
        why.lines().next().unwrap_or(why)
    }

    /// The conclusion of the step: `continue-on-error` turns a failure into a success.
    pub(crate) fn conclusion(&self, on_failure: OnFailure) -> Conclusion {
        match (self.outcome, on_failure) {
            (Conclusion::Failure, OnFailure::Continue) => Conclusion::Success,
            (outcome, _) => outcome,
        }
    }
}

impl StepTask {
    pub(crate) fn new(key: String, step: &WorkflowStep) -> Self {
        Self {
            key,
            condition: step.if_.clone(),
            step: step.clone(),
            action: None,
            action_scope: None,
        }
    }

    /// The pre part of a step's action.
    pub(crate) fn for_pre_part(
        key: String,
        step: &WorkflowStep,
        action: Arc<ResolvedAction>,
    ) -> Self {
        Self {
            condition: action.stage_condition(ActionStage::Pre),
            action: Some(action),
            ..Self::new(key, step)
        }
    }

    /// The title with its stage, for a step whose `name` can't be evaluated.
    pub(crate) fn title(&self, stage: ActionStage) -> String {
        stage.title(self.step.title())
    }
}

impl From<PostStep> for StepTask {
    fn from(post: PostStep) -> Self {
        Self {
            condition: match &post.action {
                Some(action) => action.stage_condition(ActionStage::Post),
                // `success()`: built-in actions only save their results (caches) when all went well.
                None => IfCondition::default(),
            },
            key: post.key,
            step: post.step,
            action: post.action,
            action_scope: post.inner,
        }
    }
}
