//! Fetches the actions of repositories before the job's first step, and before a composite action of the workspace.
//! Each is pinned to one commit for the job.

use std::{pin::Pin, sync::Arc};

use shipway_workflow::{
    job::Level,
    model::{Action, Runs, Step},
};

use super::action_resolver::ActionLibrary;
use super::{
    ActionError,
    action_handlers::{DEPTH_MAX, too_deep},
    action_resolver::{ActionReference, RemoteAction, ResolvedAction},
};
use crate::{output_processor::OutputProcessor, step_runner::StepRunner};

impl StepRunner {
    /// Fetches all actions that the job's steps use.
    pub(crate) async fn fetch_job_actions(&mut self) -> Result<(), ActionError> {
        let spec = Arc::clone(&self.spec);
        tokio::select! {
            result = fetch_recursively(&mut self.library, &mut self.output, &spec.steps, 0) => result,
            _ = self.cancel.wait_for_stop(false) => Ok(()),
        }
    }

    /// Fetches the actions that the steps of a composite action use.
    pub(crate) async fn fetch_nested_actions(
        &mut self,
        known: &ResolvedAction,
        depth: usize,
    ) -> Result<(), ActionError> {
        let Runs::Composite { steps } = &known.file.runs else {
            return Ok(());
        };
        tokio::select! {
            result = fetch_recursively(&mut self.library, &mut self.output, steps, depth) => result,
            _ = self.cancel.wait_for_stop(false) => Err(ActionError::Cancelled),
        }
    }

    /// Fetches an action of a repository.
    pub(crate) async fn fetch_action(
        &mut self,
        remote: &RemoteAction,
    ) -> Result<Arc<ResolvedAction>, ActionError> {
        tokio::select! {
            result = fetch_into_library(&mut self.library, &mut self.output, remote) => result,
            _ = self.cancel.wait_for_stop(false) => Err(ActionError::Cancelled),
        }
    }
}

/// Fetches the actions that `steps` use, recursively.
fn fetch_recursively<'f>(
    library: &'f mut ActionLibrary,
    output: &'f mut OutputProcessor,
    steps: &'f [Step],
    depth: usize,
) -> Pin<Box<dyn Future<Output = Result<(), ActionError>> + 'f>> {
    Box::pin(async move {
        for step in steps {
            let Action::Uses { action, .. } = &step.action else {
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
            if let Runs::Composite { steps } = &known.file.runs {
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
            "{} does not answer ({why}); {remote} is the one that was fetched last",
            library.store.forge.address()
        );
        output.annotate(Level::Warning, &text);
    }
    output.log_message(&format!("{remote} ({})", fetched.commit));
    output.log.flush();
    let folder = fetched.folder.join(&remote.path);
    let known = ResolvedAction::read_action(folder, &remote.to_string(), Some(remote.clone()))?;
    let known = Arc::new(known);
    library.fetched.insert(remote.clone(), Arc::clone(&known));
    Ok(known)
}
