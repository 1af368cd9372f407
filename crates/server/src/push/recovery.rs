//! Pushes that git took in while no server could hear of them: it was killed between the two, or somebody works on the repository
//! itself. What a repository holds beyond what the log knows is a push.

use std::sync::Arc;

use shipway_core::ids::ServiceName;
use shipway_drivers::git::{GitError, GitRefs, RefUpdate, changed_refs};

use super::{PushTerminal, receive};
use crate::app::{App, service_stream};

/// Takes in what was missed. To be called before anybody can push: what comes then is no longer missed.
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
        // Nobody looks on: it is only taken in.
        let (terminal, _) = PushTerminal::new();
        receive(app, &service, missed, None, &terminal).await;
    }
    Ok(())
}

/// Where the log says that branches and tags stand.
pub(crate) async fn recorded_refs(app: &App, service: &ServiceName) -> GitRefs {
    let state = app.services.state(&service_stream(service)).await;
    match state.ok().flatten() {
        Some(state) => state.references.clone(),
        None => GitRefs::new(),
    }
}
