//! What expressions of a job see, and what its steps have changed about it.

use std::sync::Arc;

use shipway_workflow::{
    expr::{Contexts, EvalError, Names, Object, Status, Value},
    job::{Conclusion, JobSpec},
};

use crate::{
    environment::{Env, Folders, arch},
    hash::Workspace,
};

/// The state of a job between its steps.
pub(crate) struct Scope {
    /// The workflow's and the job's variables, and what steps added through `GITHUB_ENV`.
    pub(crate) env: Env,
    /// What steps put before `PATH`, the newest last.
    pub(crate) paths: Vec<String>,
    pub(crate) verdict: Verdict,
    steps: Object,
    github: Value,
    runner: Value,
}

/// How a job stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Why it has failed, once it has.
    pub(crate) failed: Option<String>,
    /// Why it was cut short, once it was.
    pub(crate) cut: Option<String>,
}

impl Verdict {
    /// Cut short counts more than failed; GitHub's order.
    pub(crate) const fn conclusion(&self) -> Conclusion {
        if self.cut.is_some() {
            Conclusion::Cancelled
        } else if self.failed.is_some() {
            Conclusion::Failure
        } else {
            Conclusion::Success
        }
    }

    fn status(&self) -> Status {
        let conclusion = self.conclusion();
        Status {
            success: conclusion == Conclusion::Success,
            failure: conclusion == Conclusion::Failure,
            cancelled: conclusion == Conclusion::Cancelled,
        }
    }
}

impl Scope {
    pub(crate) fn new(spec: &JobSpec, folders: &Folders) -> Self {
        let text = |path: &std::path::Path| Value::from(path.display().to_string());
        let workspace = text(&folders.workspace);
        let mut github = object_of(&spec.contexts.github);
        github.insert("workspace", workspace.clone());
        github.insert("event_path", text(&folders.event));
        github.insert("job", Value::from(spec.job_id.as_str()));
        if let Some(server) = &spec.server {
            github.insert("server_url", Value::from(server.url.as_str()));
        }
        let runner = Value::object([
            ("name", Value::from("shipway")),
            ("os", Value::from("Linux")),
            ("arch", Value::from(arch())),
            ("environment", Value::from("self-hosted")),
            ("temp", text(&folders.temp)),
            ("tool_cache", text(&folders.home.join("tools"))),
            ("workspace", workspace),
        ]);
        Self {
            env: Env::default(),
            paths: Vec::new(),
            verdict: Verdict::default(),
            steps: Object::default(),
            github: Value::Object(Arc::new(github)),
            runner,
        }
    }

    /// Resolves the workflow's and the job's variables, each layer seeing those before it.
    pub(crate) fn begin(&mut self, spec: &JobSpec, files: &Workspace<'_>) -> Result<(), EvalError> {
        for layer in &spec.env {
            let resolved = layer.resolve(&self.contexts(spec, &self.env, files))?;
            self.env.extend(resolved);
        }
        Ok(())
    }

    /// What expressions see where `env` is in force.
    pub(crate) fn contexts<'c>(
        &self,
        spec: &JobSpec,
        env: &Env,
        files: &'c Workspace<'c>,
    ) -> Contexts<'c> {
        let mut contexts = Contexts::new();
        for (name, value) in spec.contexts.iter() {
            contexts.set(name, value.clone());
        }
        contexts.set("github", self.github.clone());
        contexts.set("runner", self.runner.clone());
        let mut variables = Object::new(Names::Exact);
        for (name, value) in env.iter() {
            variables.insert(name.as_str(), Value::from(value.as_str()));
        }
        contexts.set("env", Value::Object(Arc::new(variables)));
        contexts.set("steps", Value::Object(Arc::new(self.steps.clone())));
        let status = Value::from(self.verdict.conclusion().as_str());
        contexts.set("job", Value::object([("status", status)]));
        contexts
            .with_status(self.verdict.status())
            .with_files(files)
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
            ("outcome", Value::from(outcome.as_str())),
            ("conclusion", Value::from(conclusion.as_str())),
        ]);
        self.steps.insert(id, step);
    }

    /// The `github` and `runner` contexts, with the step that runs.
    pub(crate) fn machine(&self, step: &str) -> (Value, Value) {
        let mut github = object_of(&self.github);
        github.insert("action", Value::from(step));
        (Value::Object(Arc::new(github)), self.runner.clone())
    }
}

fn object_of(value: &Value) -> Object {
    match value {
        Value::Object(object) => Object::clone(object),
        _ => Object::default(),
    }
}
