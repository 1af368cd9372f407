//! Blocking work of actions.

use super::action_error::ActionError;

/// Runs blocking work on another thread, so that the job can be cancelled meanwhile.
pub(super) async fn run_blocking<T: Send + 'static, E: Into<ActionError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ActionError> {
    tokio::task::spawn_blocking(work).await?.map_err(Into::into)
}
