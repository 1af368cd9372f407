//! `uses: ./path` and `uses: $/path`: files of the repository that the file itself belongs to.

use super::{StepAction, WorkflowStep};

/// The path of a file or folder that `uses` names in the repository of its own file: `./path` and `$/path`.
#[must_use]
pub fn own_repository_path(uses: &str) -> Option<&str> {
    let prefixes = ["./", "$/"].into_iter();
    prefixes
        .filter_map(|prefix| uses.strip_prefix(prefix))
        .next()
}

/// Names the repository of `uses: $/path` in steps of a file that comes from another repository.
pub fn qualify_own_actions(steps: &mut [WorkflowStep], repository: &str, reference: &str) {
    for step in steps {
        if let StepAction::Uses { action, .. } = &mut step.action
            && let Some(path) = action.strip_prefix("$/")
        {
            *action = format!("{repository}/{path}@{reference}");
        }
    }
}
