//! Where an expression stands decides what it can see. The table is GitHub's.

use super::{
    Expr,
    ast::{BuiltinFunction, ExprKind},
    error::{ParseError, join_with_and, suggestion},
};

/// A place in a workflow file where an expression may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExprSite {
    /// `run-name`
    RunName,
    /// `concurrency` of the workflow.
    Concurrency,
    /// `env` of the workflow.
    Env,
    /// The default of an input of `workflow_call`.
    CallInput,
    /// `on.workflow_call.outputs.*.value`
    CallOutput,
    /// `jobs.*.if`
    JobIf,
    /// `jobs.*.strategy`
    Strategy,
    /// `name`, `runs-on`, `timeout-minutes`, `continue-on-error`, `environment`, `concurrency`, `container`, `services`,
    /// `with` of a job.
    Job,
    /// `jobs.*.secrets`
    JobSecrets,
    /// `jobs.*.env`
    JobEnv,
    /// `jobs.*.defaults.run`
    JobDefaults,
    /// `jobs.*.outputs`
    JobOutputs,
    /// `jobs.*.environment.url`
    EnvironmentUrl,
    /// `jobs.*.container.credentials`, and those of services.
    Credentials,
    /// `env` of a container.
    ContainerEnv,
    /// `jobs.*.snapshot.if`
    SnapshotIf,
    /// `jobs.*.steps.*.if`
    StepIf,
    /// All else in a step.
    Step,
    /// `runs.steps.*` of a composite action.
    ActionStep,
    /// `runs.steps.*.if` of a composite action.
    ActionStepIf,
    /// `pre-if` and `post-if` of an action.
    ActionIf,
    /// The default of an action's input.
    ActionInput,
    /// The value of a composite action's output.
    ActionOutput,
    /// `runs.args` and `runs.env` of an action that is a container.
    ActionArgs,
    /// Where no expression can stand.
    Nowhere,
}

/// All contexts that exist anywhere.
const CONTEXTS: [&str; 12] = [
    "github", "env", "vars", "job", "jobs", "steps", "runner", "secrets", "strategy", "matrix",
    "needs", "inputs",
];

impl ExprSite {
    /// The contexts that can be seen there.
    #[must_use]
    pub const fn contexts(self) -> &'static [&'static str] {
        match self {
            Self::RunName | Self::Concurrency | Self::CallInput => &["github", "inputs", "vars"],
            Self::Env => &["github", "inputs", "vars", "secrets"],
            Self::CallOutput => &["github", "inputs", "vars", "jobs"],
            Self::JobIf | Self::Strategy => &["github", "inputs", "vars", "needs"],
            Self::Job | Self::SnapshotIf => {
                &["github", "inputs", "vars", "needs", "strategy", "matrix"]
            }
            Self::JobSecrets | Self::JobEnv => &[
                "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets",
            ],
            Self::JobDefaults => &[
                "github", "inputs", "vars", "needs", "strategy", "matrix", "env",
            ],
            Self::Credentials => &[
                "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "env",
            ],
            Self::EnvironmentUrl | Self::StepIf => &[
                "github", "inputs", "vars", "needs", "strategy", "matrix", "steps", "job",
                "runner", "env",
            ],
            Self::JobOutputs | Self::ContainerEnv | Self::Step => &[
                "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps",
                "job", "runner", "env",
            ],
            Self::ActionStep | Self::ActionStepIf | Self::ActionOutput => &[
                "github", "inputs", "strategy", "matrix", "steps", "job", "runner", "env",
            ],
            Self::ActionIf => &[
                "github", "strategy", "matrix", "steps", "job", "runner", "env", "inputs",
            ],
            Self::ActionInput => &["github", "strategy", "matrix", "job", "runner"],
            Self::ActionArgs => &["inputs"],
            Self::Nowhere => &[],
        }
    }

    const fn takes(self, function: BuiltinFunction) -> bool {
        match function {
            BuiltinFunction::HashFiles => matches!(
                self,
                Self::StepIf
                    | Self::Step
                    | Self::ActionStep
                    | Self::ActionStepIf
                    | Self::ActionIf
                    | Self::ActionInput
            ),
            BuiltinFunction::Success
            | BuiltinFunction::Failure
            | BuiltinFunction::Always
            | BuiltinFunction::Cancelled => {
                matches!(
                    self,
                    Self::JobIf
                        | Self::StepIf
                        | Self::SnapshotIf
                        | Self::ActionStepIf
                        | Self::ActionIf
                )
            }
            _ => true,
        }
    }
}

impl Expr {
    /// Refuses names and functions that can't be seen from `place`.
    pub fn check(&self, place: ExprSite) -> Result<(), ParseError> {
        let known = place.contexts();
        let mut result = Ok(());
        self.root.walk(&mut |node| {
            let problem = match &node.kind {
                ExprKind::Context(name) if known.contains(&&**name) => return,
                ExprKind::Context(name) if CONTEXTS.contains(&&**name) => {
                    let mut help = format!("available here: {}", join_with_and(known.iter().copied()));
                    if &**name == "secrets" && place == ExprSite::StepIf {
                        help.push_str("; give the job `env: { TOKEN: ${{ secrets.… }} }` and test `env.TOKEN != ''`");
                    }
                    ParseError::new(format!("`{name}` can't be used here"), node.at.clone())
                        .help(help)
                }
                ExprKind::Context(name) => {
                    ParseError::new(format!("unknown name `{name}`"), node.at.clone())
                        .help(suggestion(name, known))
                }
                ExprKind::Call(function, _) if !place.takes(*function) => {
                    let help = match function {
                        BuiltinFunction::HashFiles => {
                            "it can only be used in steps, where there is a workspace"
                        }
                        _ => "it can only be used in the `if` of a job or a step",
                    };
                    ParseError::new(
                        format!("`{}` can't be used here", function.name()),
                        node.at.clone(),
                    )
                    .help(help)
                }
                ExprKind::Call(function, values)
                    if function.is_status() && !values.is_empty() && place != ExprSite::JobIf =>
                {
                    let message = format!("`{}` takes no arguments here", function.name());
                    ParseError::new(message, node.at.clone())
                        .help("only the `if` of a job can name some of the jobs that it needs")
                }
                _ => return,
            };
            if result.is_ok() {
                result = Err(problem);
            }
        });
        result
    }
}
