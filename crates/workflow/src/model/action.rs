//! `action.yml`: what an action takes, gives and does.

use serde::{Deserialize, Serialize};

use super::{TemplateTable, WorkflowStep};
use crate::expr::{IfCondition, Template};

/// A whole action file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionFile {
    /// `name:`
    pub name: Option<String>,
    /// What it takes, in the order of the file.
    pub inputs: Vec<ActionInput>,
    /// What it gives. Only those of a composite action have values; others set theirs as they run.
    pub outputs: Vec<ActionOutput>,
    /// Its action.
    pub runs: ActionRuns,
}

impl ActionFile {
    /// The input with this name, ignoring case.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&ActionInput> {
        self.inputs
            .iter()
            .find(|input| input.name.eq_ignore_ascii_case(name))
    }
}

/// What an action takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionInput {
    /// Its name.
    pub name: String,
    /// Default value.
    pub default: Option<Template>,
    /// Whether the caller should say; a remark for readers, as at GitHub.
    pub required: bool,
    /// Deprecation message.
    pub deprecation: Option<String>,
}

/// What an action gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionOutput {
    /// Its name.
    pub name: String,
    /// Its value in a composite action.
    pub value: Option<Template>,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionRuns {
    /// More steps.
    Composite {
        /// In order.
        steps: Vec<WorkflowStep>,
    },
    /// A program for node; the paths are seen from the action's folder.
    JavaScript {
        /// The major version of node that it was made for.
        node: u32,
        /// The program.
        main: String,
        /// What runs before the job's first step.
        pre: Option<ActionHook>,
        /// What runs after the job's last step.
        post: Option<ActionHook>,
    },
    /// A container.
    Docker {
        /// `docker://image`, or the path of a `Dockerfile`.
        image: String,
        /// What runs in it, when not what the image says.
        entrypoint: Option<String>,
        /// What runs before the job's first step.
        pre: Option<ActionHook>,
        /// What runs after the job's last step.
        post: Option<ActionHook>,
        /// The arguments.
        args: Vec<Template>,
        /// More variables.
        env: TemplateTable,
    },
}

/// What an action does before the job's first step or after its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionHook {
    /// A program for node, or what runs in the container.
    pub entry: String,
    /// Whether it runs; `always()` by default.
    pub condition: IfCondition,
}
