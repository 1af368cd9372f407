//! Fetches the actions of repositories before the job's first step, and before a composite action of the workspace.
//! Each is pinned to one commit for the job.

use std::{pin::Pin, sync::Arc};

use shipway_workflow::{
    job::AnnotationLevel,
    model::{ActionRuns, StepAction, WorkflowStep},
};

use super::{
    action_error::ActionError,
    action_library::ActionLibrary,
    action_reference::{ActionReference, RemoteAction},
    resolved_action::ResolvedAction,
};
use crate::{
    cancellation::{JobCancellation, WhenCancelled},
    output_processor::OutputProcessor,
};

/// GitHub's limit for nested actions.
pub(crate) const DEPTH_MAX: usize = 9;

impl ActionLibrary {
    /// Fetches all actions that the job's steps use. Returns early, without an error, when the job is cancelled.
    pub(crate) async fn fetch_job_actions(
        &mut self,
        steps: &[WorkflowStep],
        output: &mut OutputProcessor,
        cancel: &mut JobCancellation,
    ) -> Result<(), ActionError> {
        tokio::select! {
            result = fetch_recursively(self, output, steps, 0) => result,
            _ = cancel.wait_for_stop(WhenCancelled::Stop) => Ok(()),
        }
    }

    /// Fetches the actions that the steps of a composite action use.
    pub(crate) async fn fetch_nested_actions(
        &mut self,
        action: &ResolvedAction,
        depth: usize,
        output: &mut OutputProcessor,
        cancel: &mut JobCancellation,
    ) -> Result<(), ActionError> {
        let ActionRuns::Composite { steps } = &action.file.runs else {
            return Ok(());
        };
        tokio::select! {
            result = fetch_recursively(self, output, steps, depth) => result,
            _ = cancel.wait_for_stop(WhenCancelled::Stop) => Err(ActionError::Cancelled),
        }
    }

    /// Fetches an action of a repository.
    pub(crate) async fn fetch_action(
        &mut self,
        remote: &RemoteAction,
        output: &mut OutputProcessor,
        cancel: &mut JobCancellation,
    ) -> Result<Arc<ResolvedAction>, ActionError> {
        tokio::select! {
            result = fetch_into_library(self, output, remote) => result,
            _ = cancel.wait_for_stop(WhenCancelled::Stop) => Err(ActionError::Cancelled),
        }
    }
}

pub(crate) fn too_deep(action: &str) -> ActionError {
    ActionError::TooDeep {
        action: action.to_owned(),
        max: DEPTH_MAX,
    }
}

/// Fetches the actions that `steps` use, recursively.
fn fetch_recursively<'f>(
    library: &'f mut ActionLibrary,
    output: &'f mut OutputProcessor,
    steps: &'f [WorkflowStep],
    depth: usize,
) -> Pin<Box<dyn Future<Output = Result<(), ActionError>> + 'f>> {
    Box::pin(async move {
        for step in steps {
            let StepAction::Uses { action, .. } = &step.action else {
                continue;
            };
            let ActionReference::Remote(remote) = ActionReference::parse(action, library.built_in)?
            else {
                continue;
            };
            if depth > DEPTH_MAX {
                return Err(too_deep(action));
            }
            let known = fetch_into_library(library, output, &remote).await?;
            if let ActionRuns::Composite { steps } = &known.file.runs {
                fetch_recursively(library, output, steps, depth + 1).await?;
            }
        }
        Ok(())
    })
}

async fn fetch_into_library(
    library: &mut ActionLibrary,
    output: &mut OutputProcessor,
    remote: &RemoteAction,
) -> Result<Arc<ResolvedAction>, ActionError> {
    if let Some(known) = library.fetched.get(remote) {
        return Ok(Arc::clone(known));
    }
    let fetched = library.store.fetch_copy(remote).await?;
    if let Some(why) = &fetched.stale {
        let text = format!(
            "{} does not respond ({why}); using the last fetched copy of {remote}",
            library.store.forge.address()
        );
        output.annotate(AnnotationLevel::Warning, &text);
    }
    output.log_message(&match fetched.commit.as_str() {
        "" => remote.to_string(),
        commit => format!("{remote} ({commit})"),
    });
    output.log.flush();
    let folder = fetched.folder.join(&remote.path);
    let known = ResolvedAction::read_action(folder, &remote.to_string(), Some(remote.clone()))?;
    let known = Arc::new(known);
    library.fetched.insert(remote.clone(), Arc::clone(&known));
    Ok(known)
}
