//! Keeps the projections of the log up to date.

use std::{sync::Arc, time::Duration};

use shipway_core::{audit::AuditLog, delivery::DeliveryCounts, projection::LogProjection};
use shipway_engine::{ProjectionError, ProjectionRunner, Store};

/// Between two attempts while the store fails.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Keeps all projections up to date for as long as the server runs.
pub(crate) async fn follow_projections(store: Arc<dyn Store>) {
    let audit = follow_log::<AuditLog>(store.clone());
    tokio::join!(audit, follow_log::<DeliveryCounts>(store));
}

/// Folds the log for as long as the server runs. A projection that can't be folded stays as it is; nothing else depends on it.
async fn follow_log<P: LogProjection>(store: Arc<dyn Store>) {
    loop {
        match follow_from_checkpoint::<P>(&*store).await {
            Ok(()) => return,
            Err(error @ ProjectionError::Unreadable { .. }) => {
                tracing::error!(%error, projection = P::NAME, "a projection has stopped");
                return;
            }
            Err(error @ ProjectionError::Store(_)) => {
                tracing::warn!(%error, projection = P::NAME, "a projection is behind the log");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn follow_from_checkpoint<P: LogProjection>(
    store: &dyn Store,
) -> Result<(), ProjectionError> {
    ProjectionRunner::<P>::load(store)
        .await?
        .follow(store)
        .await
}
