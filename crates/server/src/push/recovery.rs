//! Recovers pushes that git accepted while no server was running: the server was killed before it recorded the push, or a program
//! changed the repository directly. Every reference that differs from the log is handled as a push.

use std::sync::Arc;

use shipway_core::{access::Principal, ids::ServiceName};
use shipway_drivers::git::{GitError, GitRefs, RefUpdate, changed_refs};

use super::{PushTerminal, receive};
use crate::app::{App, service_stream};

/// Handles missed pushes. Call it before new pushes are accepted.
pub(crate) async fn recover_missed_pushes(app: &Arc<App>) -> Result<(), GitError> {
    for service in app.repos.services()? {
        let Some(repo) = app.repos.get(&service) else {
            continue;
        };
        let missed: Vec<RefUpdate> =
            changed_refs(&recorded_refs(app, &service).await, &repo.refs().await?)
                .into_iter()
                .filter(|update| update.new.is_some())
                .collect();
        if missed.is_empty() {
            continue;
        }
        tracing::info!(%service, references = missed.len(), "taking in what was pushed when no server heard it");
        // No pusher is connected, so the lines are dropped.
        let (terminal, _) = PushTerminal::new();
        let pusher = Principal::system().pusher();
        receive(app, &service, missed, &pusher, &terminal).await;
    }
    Ok(())
}

/// Where the log says that branches and tags stand.
pub(crate) async fn recorded_refs(app: &App, service: &ServiceName) -> GitRefs {
    let state = app.engines.services.state(&service_stream(service)).await;
    match state.ok().flatten() {
        Some(state) => state.references.clone(),
        None => GitRefs::new(),
    }
}
