//! What expressions of a job see, and what its steps have changed about it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::{Contexts, EvalError, Names, Object, Status, Value},
    job::{Conclusion, JobSpec},
};

use crate::{
    containers::Paths,
    environment::{Env, Folders, arch, base, fixed},
    frame::{Frame, Seen},
    hash::Workspace,
};

/// The state of a job between its steps.
#[derive(Clone)]
pub(crate) struct Scope {
    /// The workflow's and the job's variables, and what steps added through `GITHUB_ENV`.
    pub(crate) env: Env,
    /// What steps put before `PATH`, the newest last.
    pub(crate) paths: Vec<String>,
    pub(crate) verdict: Verdict,
    /// What steps have changed, for those who began with what was before.
    pub(crate) changes: Vec<Change>,
    /// What the `job` context says of its containers.
    pub(crate) job: Vec<(&'static str, Value)>,
    /// Where folders are for steps, when that isn't where they are here.
    places: Option<Paths>,
    github: Value,
    runner: Value,
}

/// What a step leaves to later ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A variable.
    Env(String, String),
    /// A folder put before `PATH`.
    Path(String),
}

/// How a job stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Why it has failed, once it has.
    pub(crate) failed: Option<String>,
    /// Why it was cut short, once it was.
    pub(crate) cut: Option<String>,
    /// Why it, or a step of it, was left out, when that happened.
    pub(crate) left_out: Option<String>,
}

impl Verdict {
    /// Cut short counts more than failed; GitHub's order.
    pub(crate) const fn conclusion(&self) -> Conclusion {
        if self.cut.is_some() {
            Conclusion::Cancelled
        } else if self.failed.is_some() {
            Conclusion::Failure
        } else if self.left_out.is_some() {
            Conclusion::Incomplete
        } else {
            Conclusion::Success
        }
    }

    /// What conditions of steps see. A step that was left out does not keep later ones from running.
    pub(crate) const fn status(&self) -> Status {
        let (cut, failed) = (self.cut.is_some(), self.failed.is_some());
        Status {
            success: !cut && !failed,
            failure: !cut && failed,
            cancelled: cut,
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
        let mut runner = vec![
            ("name", Value::from("shipway")),
            ("os", Value::from("Linux")),
            ("arch", Value::from(arch())),
            ("environment", Value::from("self-hosted")),
            ("temp", text(&folders.temp)),
            ("tool_cache", text(&folders.tools())),
            ("workspace", workspace),
        ];
        if shows_debug(spec) {
            runner.push(("debug", Value::from("1")));
        }
        let runner = Value::object(runner);
        Self {
            env: Env::default(),
            paths: Vec::new(),
            verdict: Verdict::default(),
            changes: Vec::new(),
            job: Vec::new(),
            places: None,
            github: Value::Object(Arc::new(github)),
            runner,
        }
    }

    /// Takes over what steps have changed.
    pub(crate) fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::Env(name, value) => self.env.set(name.as_str(), value.as_str()),
                Change::Path(folder) => self.paths.push(folder.clone()),
            }
        }
        self.changes.extend(changes);
    }

    /// Resolves the workflow's and the job's variables, each layer seeing those before it.
    pub(crate) fn begin(&mut self, spec: &JobSpec, files: &Workspace<'_>) -> Result<(), EvalError> {
        let frame = Frame::default();
        for layer in &spec.env {
            let resolved =
                layer.resolve(&self.contexts(spec, &frame, &Seen::default(), &self.env, files))?;
            self.env.extend(resolved);
        }
        Ok(())
    }

    /// What expressions of `frame` see where `env` is in force.
    pub(crate) fn contexts<'c>(
        &self,
        spec: &JobSpec,
        frame: &Frame,
        seen: &Seen,
        env: &Env,
        files: &'c Workspace<'c>,
    ) -> Contexts<'c> {
        let mut contexts = Contexts::new();
        for (name, value) in spec.contexts.iter() {
            contexts.set(name, value.clone());
        }
        if let Some(inputs) = frame.inputs() {
            contexts.set("inputs", inputs.clone());
        }
        contexts.set("github", self.github(seen));
        contexts.set("runner", self.runner.clone());
        let mut variables = Object::new(Names::Exact);
        for (name, value) in env.iter() {
            variables.insert(name.as_str(), Value::from(value.as_str()));
        }
        contexts.set("env", Value::Object(Arc::new(variables)));
        contexts.set("steps", frame.steps());
        let status = Value::from(self.verdict.conclusion().in_expressions());
        let job = [("status", status)].into_iter().chain(self.job.clone());
        contexts.set("job", Value::object(job));
        contexts
            .with_status(frame.status(&self.verdict))
            .with_files(files)
    }

    /// Paths become those in the container that steps run in.
    pub(crate) fn relocate(&mut self, places: &Paths) {
        for context in [&mut self.github, &mut self.runner] {
            let entries = object_of(context);
            let entries = entries.iter().map(|(name, value)| {
                let value = match value {
                    Value::String(text) => Value::from(places.inside(text)),
                    other => other.clone(),
                };
                (name.clone(), value)
            });
            *context = Value::object(entries);
        }
        self.places = Some(places.clone());
    }

    /// The `github` context of what is `seen`.
    pub(crate) fn github(&self, seen: &Seen) -> Value {
        let mut github = object_of(&self.github);
        for (name, value) in seen.iter() {
            let value = match &self.places {
                Some(places) => places.inside(&value),
                None => value,
            };
            github.insert(name, Value::from(value));
        }
        Value::Object(Arc::new(github))
    }

    /// The `runner` context.
    pub(crate) const fn runner(&self) -> &Value {
        &self.runner
    }

    /// The whole environment of a step's processes, but for the files through which it speaks to the job.
    pub(crate) fn environment(
        &self,
        spec: &JobSpec,
        folders: &Folders,
        seen: &Seen,
        own: &Env,
    ) -> Env {
        let mut env = base(folders);
        env.extend(own.iter().cloned());
        if !self.paths.is_empty() {
            let path = env.get("PATH").unwrap_or_default().to_owned();
            let added = self.paths.iter().rev().map(String::as_str);
            let all: Vec<&str> = added.chain([path.as_str()]).collect();
            env.set("PATH", all.join(":"));
        }
        env.extend(fixed(spec, &self.github(seen), self.runner()).into_vec());
        env
    }

    /// The job's variables with those of the steps around `frame` over them.
    pub(crate) fn env_of(&self, frame: &Frame) -> Env {
        let mut env = self.env.clone();
        env.extend(frame.env.iter().cloned());
        env
    }
}

/// Whether steps are to say what helps in looking for a mistake: the secret or variable `ACTIONS_STEP_DEBUG`.
pub(crate) fn shows_debug(spec: &JobSpec) -> bool {
    let contexts = &spec.contexts;
    [&contexts.secrets, &contexts.vars]
        .into_iter()
        .any(|context| {
            context
                .get("ACTIONS_STEP_DEBUG")
                .to_text()
                .eq_ignore_ascii_case("true")
        })
}

fn object_of(value: &Value) -> Object {
    match value {
        Value::Object(object) => Object::clone(object),
        _ => Object::default(),
    }
}
