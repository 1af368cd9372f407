//! Where a list of steps stands: the job itself, or an action made of steps. Each sees its own steps and inputs, and asks
//! after its own success.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::{Condition, Object, Status, Value},
    job::Conclusion,
    model::Step,
};
use tokio::time::Instant;

use crate::{actions::known::Known, environment::Env, hand::Task, scope::Verdict};

/// Which part of an action runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Before the job's first step.
    Pre,
    /// In its place.
    #[default]
    Main,
    /// After the job's last step.
    Post,
}

/// A list of steps under way. What an action made of steps has left to do is kept with its own: hence serialised.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// The variables of the `uses` steps around.
    pub(crate) env: Env,
    pub(crate) stage: Stage,
    /// What is to run after the job's last step, the last first.
    pub(crate) posts: Vec<Post>,
    /// Until when it may run.
    #[serde(skip)]
    pub(crate) deadline: Option<Instant>,
    /// How many actions are around.
    pub(crate) depth: usize,
    /// Names its steps within the job: `2.0.` for those of the first step of the third.
    pub(crate) key: String,
    /// Why it has failed, once it has. The job's own is in its verdict.
    pub(crate) failed: Option<String>,
    /// Whether a step was cut short.
    pub(crate) cut: bool,
    /// Whether a step took longer than the whole may.
    pub(crate) late: bool,
    /// Whether what runs in it goes on when the job is cancelled.
    pub(crate) goes_on: bool,
    #[serde(with = "as_value")]
    steps: Object,
    within: Option<Within>,
}

/// What the steps of an action see of it.
#[derive(Clone, Serialize, Deserialize)]
struct Within {
    inputs: Value,
    seen: Seen,
}

/// What the `github` context says of the step that runs.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// `github.action`
    pub(crate) id: String,
    /// `github.action_path`: the folder of the action around.
    pub(crate) path: Option<PathBuf>,
    /// `github.action_repository` and `github.action_ref`
    pub(crate) remote: Option<(String, String)>,
}

impl Seen {
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

/// What an action has left to do after the job's last step.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Post {
    /// Names the step within the job.
    pub(crate) key: String,
    pub(crate) step: Step,
    /// None: it is built in.
    pub(crate) action: Option<Arc<Known>>,
    /// The steps of an action that is made of them.
    pub(crate) inner: Option<Box<Frame>>,
}

impl From<Post> for Task {
    fn from(post: Post) -> Self {
        Self {
            condition: match &post.action {
                Some(action) => action.condition(Stage::Post),
                // `success()`: what is built in only saves what went well.
                None => Condition::default(),
            },
            key: post.key,
            step: post.step,
            known: post.action,
            inner: post.inner,
        }
    }
}

impl Frame {
    /// The steps of the action that the step `key` of `self` uses.
    pub(crate) fn within(&self, key: &str, env: Env, inputs: Value, seen: Seen) -> Self {
        Self {
            env,
            stage: self.stage,
            depth: self.depth + 1,
            key: format!("{key}."),
            within: Some(Within { inputs, seen }),
            ..Self::default()
        }
    }

    /// Names the step at `index` within the job.
    pub(crate) fn key(&self, index: usize) -> String {
        format!("{}{index}", self.key)
    }

    /// The inputs of the action; none: those of the job are seen.
    pub(crate) fn inputs(&self) -> Option<&Value> {
        self.within.as_ref().map(|within| &within.inputs)
    }

    /// What the step `id` is seen as: the steps of an action are seen as the step that uses it.
    pub(crate) fn seen(&self, id: &str) -> Seen {
        match &self.within {
            Some(within) => within.seen.clone(),
            None => Seen {
                id: id.to_owned(),
                ..Seen::default()
            },
        }
    }

    /// The `steps` context.
    pub(crate) fn steps(&self) -> Value {
        Value::Object(Arc::new(self.steps.clone()))
    }

    /// What `success()` and its sisters answer. The steps of an action ask after those before them in the action; before the
    /// job's first step and after its last they ask after the job.
    pub(crate) fn status(&self, job: &Verdict) -> Status {
        if self.within.is_none() || self.stage != Stage::Main {
            return job.status();
        }
        Status {
            success: self.failed.is_none(),
            failure: self.failed.is_some(),
            cancelled: job.cut.is_some(),
        }
    }

    /// Notes what is left to do, once.
    pub(crate) fn register(&mut self, post: Post) {
        if !self.posts.iter().any(|known| known.key == post.key) {
            self.posts.push(post);
        }
    }

    /// What the steps of the action of the step `key` have noted before.
    pub(crate) fn take_posts(&mut self, key: &str) -> Vec<Post> {
        let post = self.posts.iter_mut().find(|post| post.key == key);
        let inner = post.and_then(|post| post.inner.as_mut());
        inner.map_or_else(Vec::new, |inner| std::mem::take(&mut inner.posts))
    }

    /// Notes what the steps of an action have left to do; in its place, when it has one.
    pub(crate) fn put_post(&mut self, post: Post) {
        match self.posts.iter_mut().find(|known| known.key == post.key) {
            Some(known) => *known = post,
            None => self.posts.push(post),
        }
    }

    /// A step is over: later ones see how it went.
    pub(crate) fn add_step(
        &mut self,
        id: &str,
        outcome: Conclusion,
        conclusion: Conclusion,
        outputs: &[(String, String)],
    ) {
        let outputs = outputs
            .iter()
            .map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        let step = Value::object([
            ("outputs", Value::object(outputs)),
            ("outcome", Value::from(outcome.in_expressions())),
            ("conclusion", Value::from(conclusion.in_expressions())),
        ]);
        self.steps.insert(id, step);
    }
}

/// An object as the value that it is.
mod as_value {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use shipway_workflow::expr::{Object, Value};

    pub(super) fn serialize<S: Serializer>(
        object: &Object,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Value::Object(Arc::new(object.clone())).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Object, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(object) => Ok(Object::clone(&object)),
            _ => Ok(Object::default()),
        }
    }
}
