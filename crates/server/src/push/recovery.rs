//! Recovers pushes that git accepted while no server was running: the server was killed before it recorded the push, or a program
//! changed the repository directly. Every reference that differs from the log is handled as a push.

use shipway_core::{access::Principal, ids::ServiceName};
use shipway_drivers::git::{GitError, GitRefs, RefUpdate, changed_refs};

use super::{PushReceiver, PushTerminal};

impl PushReceiver {
    /// Handles missed pushes. Call it before new pushes are accepted.
    pub(crate) async fn recover_missed_pushes(&self) -> Result<(), GitError> {
        for service in self.repositories.services()? {
            let Some(repo) = self.repositories.get(&service) else {
                continue;
            };
            let missed: Vec<RefUpdate> =
                changed_refs(&self.recorded_refs(&service).await, &repo.refs().await?)
                    .into_iter()
                    .filter(|update| update.new.is_some())
                    .collect();
            if missed.is_empty() {
                continue;
            }
            tracing::info!(%service, references = missed.len(), "recording pushes that arrived while no server was running");
            // No pusher is connected, so the lines are dropped.
            let (terminal, _) = PushTerminal::new();
            let pusher = Principal::system().pusher();
            self.receive(&service, missed, &pusher, &terminal).await;
        }
        Ok(())
    }

    /// The commits of branches and tags, by the log.
    pub(crate) async fn recorded_refs(&self, service: &ServiceName) -> GitRefs {
        match self.engines.service(service).await.ok().flatten() {
            Some(state) => state.references.clone(),
            None => GitRefs::new(),
        }
    }
}
