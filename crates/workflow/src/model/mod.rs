//! The model of a workflow file. Data only: [`crate::parse()`] reads it, [`crate::graph`] schedules it.
//!
//! The whole model is plain JSON under serde: it travels in job specs. What may hold an expression is a [`Template`], a
//! [`IfCondition`] or a [`DeferredSetting`], parsed already, with the place in the file where it stands.

use serde::{Deserialize, Serialize};

use crate::expr::{Contexts, EvalError, ExprValue, IfCondition, Template};

mod action;
mod container;
mod own_references;
mod templates;
mod triggers;

pub use action::{ActionFile, ActionHook, ActionInput, ActionOutput, ActionRuns};
pub use container::{ContainerDefinition, JobServices};
pub use own_references::{own_repository_path, qualify_own_actions};
pub use templates::{TemplateKey, TemplateTable, TemplateTree};
pub use triggers::{
    CallInput, DispatchInput, DispatchTrigger, FilterPattern, InputError, InputType, OtherEvent,
    PathFilter, PatternFilter, PushEvent, PushTrigger, RefFilter, RefKind, ScheduleTrigger,
    Triggers, WorkflowCall,
};

/// A place in the workflow's file; both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilePosition {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl std::fmt::Display for FilePosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A whole workflow file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// `name:`
    pub name: Option<String>,
    /// `run-name:`
    pub run_name: Option<Template>,
    /// Its triggers.
    pub on: Triggers,
    /// Environment variables of all jobs.
    pub env: TemplateTable,
    /// `defaults.run`
    pub defaults: RunDefaults,
    /// Which other runs it may not overlap with.
    pub concurrency: Option<ConcurrencyRule>,
    /// What its token may do; accepted, and without effect here.
    pub permissions: Option<Permissions>,
    /// In the order of the file; ids are unique ignoring case.
    pub jobs: Vec<WorkflowJob>,
}

impl Workflow {
    /// The job with this id.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<&WorkflowJob> {
        self.jobs.iter().find(|job| job.id.eq_ignore_ascii_case(id))
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// Its key under `jobs:`.
    pub id: String,
    /// Where that key stands.
    pub at: FilePosition,
    /// `name:`
    pub name: Option<Template>,
    /// The ids of the jobs that must be over before; spelled as those jobs are.
    pub needs: Vec<String>,
    /// `if:`
    pub if_: IfCondition,
    /// The runner it requires.
    pub runs_on: Option<RunsOn>,
    /// Environment variables of its steps.
    pub env: TemplateTable,
    /// Outputs that later jobs can read.
    pub outputs: TemplateTable,
    /// How often it runs, and with what.
    pub strategy: Option<JobStrategy>,
    /// Whether the run may be green although it failed.
    pub continue_on_error: DeferredSetting<bool>,
    /// How long it may take; 360 when not said.
    pub timeout_minutes: Option<DeferredSetting<f64>>,
    /// `defaults.run`
    pub defaults: RunDefaults,
    /// What it does, in order; empty when it calls a workflow.
    pub steps: Vec<WorkflowStep>,
    /// `environment:`
    pub environment: Option<JobEnvironment>,
    /// Which other jobs it may not overlap with.
    pub concurrency: Option<ConcurrencyRule>,
    /// What its token may do; accepted, and without effect here.
    pub permissions: Option<Permissions>,
    /// The container its steps run in.
    pub container: Option<ContainerDefinition>,
    /// Service containers.
    pub services: JobServices,
    /// The workflow it calls.
    pub calls: Option<ReusableCall>,
    /// When it begins anew by itself; Shipway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<JobRetry>,
}

/// `retry:` of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRetry {
    /// How often it begins anew, at most.
    pub max: u32,
    /// After what.
    pub when: RetryWhen,
}

/// After what a job begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryWhen {
    /// Only when its worker was lost: nothing is known about the job itself.
    WorkerLost,
    /// After every failure.
    #[default]
    Any,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowStep {
    /// `id:`, or the one that GitHub would give: `__run`, `__run_2`, `__actions_checkout`. Unique in its job.
    pub id: String,
    /// Where it stands.
    pub at: FilePosition,
    /// `name:`
    pub name: Option<Template>,
    /// `if:`
    pub if_: IfCondition,
    /// Its action.
    pub action: StepAction,
    /// Its environment variables.
    pub env: TemplateTable,
    /// Whether the run continues if this job fails.
    pub continue_on_error: DeferredSetting<bool>,
    /// How long it may take; as long as the job when not said.
    pub timeout_minutes: Option<DeferredSetting<f64>>,
    /// Whether later steps start before it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
}

/// Whether a step got this id because it has none of its own; written ids can't begin like it.
#[must_use]
pub fn is_default_step_id(id: &str) -> bool {
    id.starts_with("__")
}

impl WorkflowStep {
    /// What pages call it when it has no name, or its name has no value yet: `Run make test`, `Run actions/checkout@v4`.
    #[must_use]
    pub fn title(&self) -> String {
        match (&self.name, &self.action) {
            (Some(name), _) => name.text().to_owned(),
            (None, StepAction::Run { script, .. }) => {
                let line = script
                    .text()
                    .lines()
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or_default();
                format!("Run {}", line.trim())
            }
            (None, StepAction::Uses { action, .. }) => format!("Run {action}"),
            (None, StepAction::Wait { ids }) => format!("Wait for {}", ids.join(", ")),
            (None, StepAction::WaitAll) => "Wait for all background steps".to_owned(),
            (None, StepAction::Cancel { id }) => format!("Cancel {id}"),
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// A script.
    Run {
        /// `run:`
        script: Template,
        /// `shell:`
        shell: Option<String>,
        /// `working-directory:`
        working_directory: Option<Template>,
    },
    /// An action: `actions/checkout@v4`, `./path`, `docker://image`.
    Uses {
        /// `uses:`
        action: String,
        /// `with:`
        with: TemplateTable,
    },
    /// Waits for these background steps.
    Wait {
        /// Their ids.
        ids: Vec<String>,
    },
    /// Waits for all background steps.
    WaitAll,
    /// It ends a step that runs in the background.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// A setting that is a literal, or an expression to be resolved later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeferredSetting<T> {
    /// Known.
    Value(T),
    /// Evaluated when the job is planned.
    Expr(Template),
}

impl Default for DeferredSetting<bool> {
    fn default() -> Self {
        Self::Value(false)
    }
}

impl DeferredSetting<bool> {
    /// Resolves it; an expression must give a boolean.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<bool, EvalError> {
        match self {
            Self::Value(value) => Ok(*value),
            Self::Expr(template) => {
                match template.resolve(contexts)? {
                    ExprValue::Bool(value) => Ok(value),
                    ExprValue::String(text) if matches!(&*text, "true" | "false") => {
                        Ok(&*text == "true")
                    }
                    other => Err(template
                        .error(format!("expected true or false, got {}", described(&other)))),
                }
            }
        }
    }
}

impl DeferredSetting<f64> {
    /// Resolves it; an expression must give a number that isn't negative.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<f64, EvalError> {
        match self {
            Self::Value(value) => Ok(*value),
            Self::Expr(template) => {
                let value = template.resolve(contexts)?;
                let number = if value.is_primitive() {
                    value.to_number()
                } else {
                    f64::NAN
                };
                if number.is_finite() && number >= 0.0 {
                    return Ok(number);
                }
                Err(template.error(format!(
                    "expected a number that isn't negative, got {}",
                    described(&value)
                )))
            }
        }
    }
}

fn described(value: &ExprValue) -> String {
    match value {
        ExprValue::String(text) => {
            format!("the text '{}'", text.chars().take(80).collect::<String>())
        }
        ExprValue::Number(_) | ExprValue::Bool(_) => value.to_text().to_string(),
        ExprValue::Null => "null".to_owned(),
        ExprValue::Array(_) => "an array".to_owned(),
        ExprValue::Object(_) => "an object".to_owned(),
    }
}

/// `defaults.run`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunDefaults {
    /// `shell:`
    pub shell: Option<Template>,
    /// `working-directory:`
    pub working_directory: Option<Template>,
}

impl RunDefaults {
    /// These, completed by those of `outer`.
    #[must_use]
    pub fn or(&self, outer: &Self) -> Self {
        Self {
            shell: self.shell.clone().or_else(|| outer.shell.clone()),
            working_directory: self
                .working_directory
                .clone()
                .or_else(|| outer.working_directory.clone()),
        }
    }
}

/// `strategy:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStrategy {
    /// The combinations; none when only the other two are given.
    pub matrix: Option<JobMatrix>,
    /// Whether one failed job cancels the others of the matrix.
    pub fail_fast: DeferredSetting<bool>,
    /// How many of them run at once; all when not said.
    pub max_parallel: Option<DeferredSetting<f64>>,
}

/// `strategy.matrix:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobMatrix {
    /// An expression that gives the whole.
    Computed(Template),
    /// Written out with names that are expressions; gives an object.
    Dynamic(TemplateTree),
    /// Written out; each part may still be an expression.
    Written {
        /// Each name with its values, in the order of the file.
        axes: Vec<(String, TemplateTree)>,
        /// `include:`
        include: Option<TemplateTree>,
        /// `exclude:`
        exclude: Option<TemplateTree>,
    },
}

/// `runs-on:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunsOn {
    /// The labels a runner must have.
    pub labels: Vec<Template>,
    /// The group a runner must be in.
    pub group: Option<Template>,
}

/// `concurrency:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConcurrencyRule {
    /// Runs or jobs of one group don't overlap.
    pub group: Template,
    /// Whether the newer one cancels the running one.
    pub cancel_in_progress: DeferredSetting<bool>,
    /// How many wait.
    pub queue: QueueMode,
}

/// How many wait for a concurrency group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueMode {
    /// One; a newer one takes its place.
    #[default]
    Single,
    /// All, in order.
    Max,
}

/// `permissions:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// `read-all`
    ReadAll,
    /// `write-all`
    WriteAll,
    /// Scope by scope: `read`, `write`, `none`.
    Scopes(Vec<(String, String)>),
}

/// `environment:` of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEnvironment {
    /// Its name.
    pub name: Template,
    /// The address that pages show.
    pub url: Option<Template>,
}

/// A job that is another workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReusableCall {
    /// `./.github/workflows/x.yml` or `owner/repo/.github/workflows/x.yml@ref`
    pub workflow: String,
    /// Where that stands.
    #[serde(default)]
    pub at: FilePosition,
    /// `with:`
    pub with: TemplateTable,
    /// The entries of `with` that are written as text: `'true'` is none of the values that a boolean has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// `secrets:`; none given is an empty table.
    pub secrets: CallSecrets,
}

/// The secrets that a called workflow gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallSecrets {
    /// All that the caller has.
    Inherit,
    /// These.
    Named(TemplateTable),
}
