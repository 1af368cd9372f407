//! The parts of an action.

use serde::{Deserialize, Serialize};

/// The part of an action to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ActionStage {
    /// Before the job's first step.
    Pre,
    /// In place of the step itself.
    #[default]
    Main,
    /// After the job's last step.
    Post,
}

impl ActionStage {
    /// Adds the stage to the title of a step.
    pub(crate) fn title(self, name: String) -> String {
        match self {
            Self::Pre => format!("Pre {name}"),
            Self::Main => name,
            Self::Post => format!("Post {name}"),
        }
    }
}
