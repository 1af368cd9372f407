//! Handles pushes: reads the commit, sends the push to the service, and prints the progress to the pusher's terminal.
//!
//! Everything that matters is in the log before the first line is printed: a pusher who disconnects stops nothing.

mod progress;
mod read;
mod recovery;

pub(crate) use read::{commit_of, find_dispatchable};
use std::{borrow::Cow, path::PathBuf, sync::Arc};

use shipway_api::DEFAULT_SERVER_URL;
use shipway_core::{
    access::PushPrincipal,
    ids::ServiceName,
    service::{ServiceEvent, ServiceInput},
    target::AvailableTargets,
    terminal::sanitize_for_terminal,
};
use shipway_drivers::{
    git::{GitError, GitRepositories, GitRepository, RefUpdate},
    jobs::JobExecutor,
};
use shipway_engine::{Blobs, Store};
use tokio::sync::mpsc;

use crate::{capabilities::ServerAddresses, delivery_engines::DeliveryEngines};

/// Prints lines to the pusher's terminal. Lines for a disconnected pusher are dropped without an error.
#[derive(Clone)]
pub struct PushTerminal(mpsc::Sender<String>);

impl PushTerminal {
    /// A terminal whose lines come out of the receiver; bounded, so that a slow terminal holds its own story and nothing else.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), receiver)
    }

    /// Shows a line. Much of what it says is foreign: names of branches, subjects of commits, what instances print.
    pub async fn line(&self, text: impl Into<String>) {
        let text = text.into();
        let line = match sanitize_for_terminal(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(sanitized) => sanitized,
        };
        let _ = self.0.send(line).await;
    }

    /// Whether the pusher is still connected.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.0.is_closed()
    }

    /// Resolves when the pusher has disconnected.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// Pushes from one tidying of a repository to the next; each leaves a pack behind.
const MAINTAIN_EVERY: u64 = 50;

/// References of one push whose files are read. That takes some dozen calls of git each, and may start a run each.
const REFERENCES_MAX: usize = 500;

/// Receives pushes: what it needs of the server.
#[derive(Clone)]
pub(crate) struct PushReceiver {
    pub(crate) engines: Arc<DeliveryEngines>,
    /// The log.
    pub(crate) store: Arc<dyn Store>,
    /// Trees that are artifacts.
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) repositories: Arc<GitRepositories>,
    pub(crate) server: ServerAddresses,
    /// The targets and routers that a configuration can name.
    pub(crate) targets: AvailableTargets,
    /// Logs of jobs, for the summary of a failure.
    pub(crate) jobs: Arc<dyn JobExecutor>,
    /// A folder for temporary files.
    pub(crate) scratch: PathBuf,
}

impl PushReceiver {
    /// Runs git's maintenance for the repository of a service in the background.
    fn maintain(&self, service: &ServiceName) {
        let Some(repo) = self.repositories.get(service) else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = repo.maintain().await {
                tracing::warn!(%error, repository = %repo.git_dir().display(), "a repository could not be cleaned up");
            }
        });
    }

    /// Takes in what moved in the repository of `service`, one reference after the other, and prints the progress.
    pub(crate) async fn receive(
        &self,
        service: &ServiceName,
        updates: Vec<RefUpdate>,
        pusher: &PushPrincipal,
        terminal: &PushTerminal,
    ) {
        let before = self.store.last_position().await.unwrap_or_default();
        let mut followed = Vec::new();
        let updates = self.released_branch_first(service, updates).await;
        for update in updates.iter().take(REFERENCES_MAX) {
            match self.take_in(service, update, pusher, terminal).await {
                Ok(Some(sequence)) => followed.push(sequence),
                Ok(None) => {}
                Err(why) => terminal.line(format!("✗ {}: {why}", update.name)).await,
            }
        }
        if let Some(rest) = updates
            .get(REFERENCES_MAX..)
            .filter(|rest| !rest.is_empty())
        {
            let text = format!(
                "✗ this push updates {} references, but only {REFERENCES_MAX} are processed: nothing runs for the other {}, such as {}",
                updates.len(),
                rest.len(),
                rest[0].name
            );
            terminal.line(text).await;
            for update in rest {
                if let Err(error) = self.record(service, update, pusher).await {
                    tracing::warn!(%error, reference = %update.name, "a reference could not be recorded");
                }
            }
        }
        if followed
            .iter()
            .any(|sequence| sequence % MAINTAIN_EVERY == 0)
        {
            self.maintain(service);
        }
        if !followed.is_empty() && terminal.is_watched() {
            let url = &self.server.url;
            if url != DEFAULT_SERVER_URL {
                let line = format!("commands for this server: export SHIPWAY_URL={url}");
                terminal.line(line).await;
            }
            progress::print_until_done(self, service, &followed, before, terminal).await;
        }
    }

    /// In the order of the push, but the branch that is released first: a limit never leaves it out.
    async fn released_branch_first(
        &self,
        service: &ServiceName,
        mut updates: Vec<RefUpdate>,
    ) -> Vec<RefUpdate> {
        let released = self.engines.released_branch(service).await;
        updates.sort_by_key(|update| update.branch() != Some(released.as_str()));
        updates
    }

    /// Tells the service where a reference is, and reads none of its files: the log knows it, so that it is not taken for a missed push.
    async fn record(
        &self,
        service: &ServiceName,
        update: &RefUpdate,
        pusher: &PushPrincipal,
    ) -> Result<(), PushError> {
        let repo: GitRepository = self.repositories.ensure(service).await?;
        let commit = match &update.new {
            Some(pushed) => repo.resolve(pushed.as_str()).await?,
            None => None,
        };
        let input = match commit {
            None => ServiceInput::Deleted {
                reference: update.name.clone(),
            },
            Some(commit) => ServiceInput::Pushed {
                service: service.clone(),
                push: Box::new(read::without_files(&repo, update, &commit).await?),
                workflows: Vec::new(),
                standing: None,
            },
        };
        let by = pusher.actor("someone");
        self.engines
            .send_to_service(service, input, by)
            .await
            .map(drop)
            .map_err(|error| PushError::Refused(error.to_string()))
    }

    /// Tells the service of one reference; gives the number of the push when something follows from it.
    async fn take_in(
        &self,
        service: &ServiceName,
        update: &RefUpdate,
        pusher: &PushPrincipal,
        terminal: &PushTerminal,
    ) -> Result<Option<u64>, PushError> {
        let repo: GitRepository = self.repositories.ensure(service).await?;
        let Some(pushed) = &update.new else {
            self.record_deletion(service, update, pusher, terminal)
                .await?;
            return Ok(None);
        };
        // An annotated tag is about the commit it points at.
        let Some(commit) = repo.resolve(pushed.as_str()).await? else {
            return Err(PushError::NoCommit);
        };
        let contents = read::read_commit(self, &repo, service, update, &commit).await?;
        for problem in &contents.problems {
            terminal.line(problem.clone()).await;
        }
        let by = pusher.actor(&contents.push.commit.author);
        let input = ServiceInput::Pushed {
            service: service.clone(),
            push: Box::new(contents.push),
            workflows: contents.workflows,
            standing: contents.standing,
        };
        let outcome = self
            .engines
            .send_to_service(service, input, by)
            .await
            .map_err(|error| PushError::Refused(error.to_string()))?;
        let mut sequence = None;
        let mut has_followers = false;
        for event in &outcome.events {
            match &event.body {
                ServiceEvent::Pushed {
                    sequence: number, ..
                } => sequence = Some(*number),
                ServiceEvent::RunOrdered { .. } | ServiceEvent::ReleaseCreated { .. } => {
                    has_followers = true;
                }
                _ => {}
            }
            if let Some(line) = describe_push_event(&self.server.url, service, &event.body) {
                terminal.line(line).await;
            }
        }
        Ok(sequence.filter(|_| has_followers))
    }

    async fn record_deletion(
        &self,
        service: &ServiceName,
        update: &RefUpdate,
        pusher: &PushPrincipal,
        terminal: &PushTerminal,
    ) -> Result<(), PushError> {
        let input = ServiceInput::Deleted {
            reference: update.name.clone(),
        };
        let by = pusher.actor("someone");
        self.engines
            .send_to_service(service, input, by)
            .await
            .map_err(|error| PushError::Refused(error.to_string()))?;
        let gone = format!(
            "{} deleted; releases and running instances are not affected",
            update.name
        );
        terminal.line(gone).await;
        Ok(())
    }
}

/// Why a pushed reference sets nothing off.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The repository can't be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The commit's tree can't be stored as an artifact.
    #[error("the commit's tree could not be stored: {0}")]
    Artifact(String),
    /// A tag of something else.
    #[error("it points to no commit: nothing is run or released")]
    NoCommit,
    /// The log refuses.
    #[error("{0}")]
    Refused(String),
}

/// The line that the pusher sees of an event that the push caused.
fn describe_push_event(url: &str, service: &ServiceName, event: &ServiceEvent) -> Option<String> {
    Some(match event {
        ServiceEvent::Pushed { push, .. } => format!(
            "{} {} {}",
            push.branch().unwrap_or(&push.reference),
            push.commit.id.short(),
            push.commit.subject
        ),
        ServiceEvent::RunOrdered { order } => format!(
            "run {} · {} · {url}/runs/{service}/{}",
            order.number, order.workflow.path, order.number.0
        ),
        ServiceEvent::ReleaseCreated { release, .. } => {
            format!("release {} created from the commit's tree", release.number)
        }
        ServiceEvent::PushNotReleased { why, .. } => format!("not released: {why}"),
        _ => return None,
    })
}
