//! The scope of a list of steps: the job's own, or those of one composite action.
//!
//! Each scope has its own `steps` and `inputs` contexts, and its own result of `success()`.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::{ExprObject, ExprValue, StatusChecks},
    job::Conclusion,
    model::{WorkflowStep, is_default_step_id},
};
use tokio::time::Instant;

use crate::{
    action_stage::ActionStage, actions::resolved_action::ResolvedAction, environment::EnvVars,
    job_verdict::JobVerdict,
};

/// The state of a list of steps. Serialised, because a composite action with pending post steps must survive a
/// resumed job.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct StepScope {
    /// Variables of the enclosing `uses` steps.
    pub(crate) env: EnvVars,
    pub(crate) stage: ActionStage,
    /// Pending post steps; the last one runs first.
    pub(crate) posts: Vec<PostStep>,
    /// When the steps time out.
    #[serde(skip)]
    pub(crate) deadline: Option<Instant>,
    /// Nesting depth: 0 for the job itself.
    pub(crate) depth: usize,
    /// Prefix of the keys of its steps, e.g. `2.0.` for those of the first step of the third step.
    pub(crate) key: String,
    /// Why a step failed. Always `None` for the job itself, which has its verdict.
    pub(crate) failed: Option<String>,
    /// Whether a step was cancelled.
    #[serde(rename = "cut")]
    pub(crate) cancelled: bool,
    /// Whether a step ran past the deadline.
    #[serde(rename = "late")]
    pub(crate) timed_out: bool,
    /// Whether its steps keep running when the job is cancelled.
    #[serde(rename = "goes_on")]
    pub(crate) survives_cancellation: bool,
    #[serde(with = "as_value")]
    steps: ExprObject,
    within: Option<EnclosingAction>,
}

/// What the steps of an action see of that action.
#[derive(Clone, Serialize, Deserialize)]
struct EnclosingAction {
    inputs: ExprValue,
    seen: StepIdentity,
}

/// The fields of the `github` context that differ between steps.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct StepIdentity {
    /// `github.action`
    pub(crate) id: String,
    /// `github.action_path`
    pub(crate) path: Option<PathBuf>,
    /// `github.action_repository` and `github.action_ref`
    pub(crate) remote: Option<(String, String)>,
}

impl StepIdentity {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, String)> {
        let id = (!self.id.is_empty()).then(|| ("action", self.id.clone()));
        let path = self.path.as_ref();
        let path = path.map(|path| ("action_path", path.display().to_string()));
        let (repository, reference) = self.remote.clone().unzip();
        id.into_iter()
            .chain(path)
            .chain(repository.map(|it| ("action_repository", it)))
            .chain(reference.map(|it| ("action_ref", it)))
    }
}

/// A post step of an action.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PostStep {
    /// Key of the step that uses the action.
    pub(crate) key: String,
    pub(crate) step: WorkflowStep,
    /// `None` for a built-in action.
    pub(crate) action: Option<Arc<ResolvedAction>>,
    /// The scope of a composite action.
    pub(crate) inner: Option<Box<StepScope>>,
}

impl StepScope {
    /// The scope of the composite action that the step `key` uses.
    pub(crate) fn for_action(
        &self,
        key: &str,
        env: EnvVars,
        inputs: ExprValue,
        seen: StepIdentity,
    ) -> Self {
        Self {
            env,
            stage: self.stage,
            depth: self.depth + 1,
            key: format!("{key}."),
            within: Some(EnclosingAction { inputs, seen }),
            ..Self::default()
        }
    }

    /// The key of the step at `index`.
    pub(crate) fn step_key(&self, index: usize) -> String {
        format!("{}{index}", self.key)
    }

    /// The inputs of the action; `None` for the job itself, whose `inputs` are those of the workflow.
    pub(crate) fn action_inputs(&self) -> Option<&ExprValue> {
        self.within.as_ref().map(|within| &within.inputs)
    }

    /// The `github` fields for the step `id`. Steps of an action have those of the step that uses the action.
    pub(crate) fn step_identity(&self, id: &str) -> StepIdentity {
        match &self.within {
            Some(within) => within.seen.clone(),
            None => StepIdentity {
                id: id.to_owned(),
                ..StepIdentity::default()
            },
        }
    }

    /// The `steps` context.
    pub(crate) fn steps_context(&self) -> ExprValue {
        ExprValue::Object(Arc::new(self.steps.clone()))
    }

    /// The results of `success()`, `failure()` and `cancelled()`. Steps of an action refer to the earlier steps of
    /// that action; pre and post steps refer to the job.
    pub(crate) fn expression_status(&self, job: &JobVerdict) -> StatusChecks {
        if self.within.is_none() || self.stage != ActionStage::Main {
            return job.status();
        }
        StatusChecks {
            success: self.failed.is_none(),
            failure: self.failed.is_some(),
            cancelled: job.cancelled.is_some(),
        }
    }

    /// Adds a post step, unless the step has one.
    pub(crate) fn register_post_step(&mut self, post: PostStep) {
        if !self.posts.iter().any(|known| known.key == post.key) {
            self.posts.push(post);
        }
    }

    /// Takes the pending post steps of the composite action that the step `key` uses.
    pub(crate) fn take_post_steps(&mut self, key: &str) -> Vec<PostStep> {
        let post = self.posts.iter_mut().find(|post| post.key == key);
        let inner = post.and_then(|post| post.inner.as_mut());
        inner.map_or_else(Vec::new, |inner| std::mem::take(&mut inner.posts))
    }

    /// Adds a post step, or replaces that of the same step.
    pub(crate) fn set_post_step(&mut self, post: PostStep) {
        match self.posts.iter_mut().find(|known| known.key == post.key) {
            Some(known) => *known = post,
            None => self.posts.push(post),
        }
    }

    /// Adds a finished step to the `steps` context. As at GitHub, one without an id of its own is not there.
    pub(crate) fn add_finished_step(
        &mut self,
        id: &str,
        outcome: Conclusion,
        conclusion: Conclusion,
        outputs: &[(String, String)],
    ) {
        if is_default_step_id(id) {
            return;
        }
        let outputs = outputs
            .iter()
            .map(|(name, value)| (name.as_str(), ExprValue::from(value.as_str())));
        let step = ExprValue::object([
            ("outputs", ExprValue::object(outputs)),
            ("outcome", ExprValue::from(outcome.in_expressions())),
            ("conclusion", ExprValue::from(conclusion.in_expressions())),
        ]);
        self.steps.insert(id, step);
    }
}

/// Serialises an [`ExprObject`] as the [`ExprValue`] that it is.
mod as_value {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use shipway_workflow::expr::{ExprObject, ExprValue};

    pub(super) fn serialize<S: Serializer>(
        object: &ExprObject,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        ExprValue::Object(Arc::new(object.clone())).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ExprObject, D::Error> {
        match ExprValue::deserialize(deserializer)? {
            ExprValue::Object(object) => Ok(ExprObject::clone(&object)),
            _ => Ok(ExprObject::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resume_state_keeps_its_field_names() {
        let scope = serde_json::to_value(StepScope::default()).unwrap();
        let names: Vec<&str> = scope
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            names,
            [
                "env", "stage", "posts", "depth", "key", "failed", "cut", "late", "goes_on",
                "steps", "within"
            ]
        );
    }
}
