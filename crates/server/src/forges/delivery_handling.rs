//! Handles accepted webhooks: fetches the change, and starts its workflows.

use shipway_core::{
    forge::{ForgeChange, ForgeConnection, ForkPolicy, PullRequestChange, PullRequestOrigin},
    ids::ServiceName,
};
use shipway_drivers::git::{
    ForgeRemote, GitError, GitRepositories, PullRequestReferences, RefUpdate,
};

use super::{ForgeConnections, connections::ConnectionSecretError, git_authorization};
use crate::push::{PullRequestPush, PushError, PushReceiver, PushTerminal};

/// Handles the deliveries of one repository.
pub(crate) struct DeliveryHandler<'a> {
    pub(crate) pushes: &'a PushReceiver,
    pub(crate) connections: &'a ForgeConnections,
    pub(crate) repositories: &'a GitRepositories,
    pub(crate) repository: &'a ServiceName,
    pub(crate) connection: &'a ForgeConnection,
    /// The number of the delivery.
    pub(crate) number: u64,
}

/// Why a delivery could not be handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryHandlingError {
    #[error(transparent)]
    Secret(#[from] ConnectionSecretError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Push(#[from] PushError),
}

impl DeliveryHandlingError {
    /// Whether a retry may succeed: the forge may be down, and a secret may be set later.
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Secret(_)
            | Self::Git(_)
            | Self::Push(PushError::Git(_) | PushError::Store(_)) => true,
            Self::Push(_) => false,
        }
    }
}

impl DeliveryHandler<'_> {
    /// Handles a change; what followed, in words. Repeated, it changes nothing.
    pub(crate) async fn handle(
        &self,
        change: &ForgeChange,
    ) -> Result<String, DeliveryHandlingError> {
        match change {
            ForgeChange::Reference { reference, sender } => {
                self.follow_reference(reference, sender.as_deref()).await
            }
            ForgeChange::PullRequest(change) => self.start_runs(change).await,
        }
    }

    fn remote(&self) -> Result<ForgeRemote, DeliveryHandlingError> {
        let token = self.connections.token(self.repository, self.connection)?;
        let forge = self.connection.forge;
        Ok(ForgeRemote {
            url: self.connection.git_url(),
            authorization: token.map(|token| git_authorization(forge, &token)),
        })
    }

    /// Brings a branch or tag to where it is at the forge, and handles that as a push.
    async fn follow_reference(
        &self,
        reference: &str,
        sender: Option<&str>,
    ) -> Result<String, DeliveryHandlingError> {
        let repo = self.repositories.ensure(self.repository).await?;
        let recorded = self.pushes.recorded_refs(self.repository).await;
        let old = recorded.get(reference).cloned();
        let new = repo.fetch_reference(&self.remote()?, reference).await?;
        let commit = match &new {
            Some(object) => repo.resolve(object.as_str()).await?,
            None => None,
        };
        if commit == old {
            return Ok(format!("{reference} is where it was"));
        }
        let outcome = match &commit {
            Some(commit) => format!("{reference} is at {}", commit.short()),
            None => format!("{reference} is deleted"),
        };
        let update = RefUpdate {
            name: reference.to_owned(),
            old,
            new,
        };
        // No pusher is connected, so the lines are dropped.
        let (terminal, _) = PushTerminal::new();
        let pusher = self.connection.pusher(sender);
        self.pushes
            .receive(self.repository, vec![update], &pusher, &terminal)
            .await;
        Ok(outcome)
    }

    async fn start_runs(
        &self,
        change: &PullRequestChange,
    ) -> Result<String, DeliveryHandlingError> {
        let PullRequestChange { number, action, .. } = change;
        let is_from_fork = change.origin == PullRequestOrigin::Fork;
        if is_from_fork && self.connection.forks == ForkPolicy::Ignore {
            return Ok(format!(
                "pull request {number} {action}: nothing runs for forks, as this connection says"
            ));
        }
        let repo = self.repositories.ensure(self.repository).await?;
        let references = PullRequestReferences {
            number: *number,
            head: &self.connection.forge.pull_request_head(*number),
            base_branch: &change.base_branch,
        };
        let fetched = repo.fetch_pull_request(&self.remote()?, references).await;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            // A merged branch may be deleted: then there is nothing to run for.
            Err(error) if change.action == "closed" => {
                return Ok(format!(
                    "pull request {number} closed; not fetched: {error}"
                ));
            }
            Err(error) => return Err(error.into()),
        };
        if fetched.head != change.head {
            return Ok(format!(
                "pull request {number} {action}: its head has moved from {} to {} meanwhile",
                change.head.short(),
                fetched.head.short()
            ));
        }
        let Some(merge) = fetched.merge else {
            return Ok(format!(
                "pull request {number} {action}: nothing runs, because it conflicts with {}",
                change.base_branch
            ));
        };
        let push = PullRequestPush {
            change,
            base: fetched.base,
            merge,
            delivery: self.number,
            by: self.connection.pusher(change.sender.as_deref()),
        };
        let lines = self
            .pushes
            .start_pull_request(self.repository, &push)
            .await?;
        Ok(format!(
            "pull request {number} {action}: {}",
            lines.join(", ")
        ))
    }
}
