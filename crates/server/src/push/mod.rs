//! Handles pushes: reads the commit, sends the push to the service, and prints the progress to the pusher's terminal.
//!
//! Everything that matters is in the log before the first line is printed: a pusher who disconnects stops nothing.

mod commit_files;
mod dispatchable;
mod progress;
mod pull_request;
mod pushed_workflows;
mod read;
mod recovery;
mod repository_push;
mod repository_services;

pub(crate) use dispatchable::find_dispatchable;
pub(crate) use pull_request::PullRequestPush;
pub(crate) use read::commit_of;
use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, sync::Arc};

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
use shipway_engine::{Blobs, Store, StoreError};
use tokio::sync::mpsc;

use crate::{
    capabilities::ServerAddresses, delivery_engines::DeliveryEngines,
    read_models::services_in_repository,
};

/// Prints lines to the pusher's terminal. Lines for a disconnected pusher are dropped without an error.
#[derive(Clone)]
pub struct PushTerminal {
    lines: mpsc::Sender<String>,
    /// The service that the lines are about, where a push has several.
    service: Option<ServiceName>,
}

impl PushTerminal {
    /// A terminal whose lines come out of the receiver; bounded, so that a slow terminal holds its own story and nothing else.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<String>) {
        let (lines, receiver) = mpsc::channel(64);
        let service = None;
        (Self { lines, service }, receiver)
    }

    /// The same terminal, for lines about one of several services.
    fn for_service(&self, service: &ServiceName) -> Self {
        Self {
            lines: self.lines.clone(),
            service: Some(service.clone()),
        }
    }

    /// Shows a line. Much of what it says is foreign: names of branches, subjects of commits, what instances print.
    pub async fn line(&self, text: impl Into<String>) {
        let text = match &self.service {
            Some(service) => format!("{service}: {}", text.into()),
            None => text.into(),
        };
        let line = match sanitize_for_terminal(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(sanitized) => sanitized,
        };
        let _ = self.lines.send(line).await;
    }

    /// Whether the pusher is still connected.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.lines.is_closed()
    }

    /// Resolves when the pusher has disconnected.
    pub async fn gone(&self) {
        self.lines.closed().await;
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

/// What a [`PushReceiver`] needs apart from the engines, for drivers: the engines hold them.
#[derive(Clone)]
pub(crate) struct PushSources {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) repositories: Arc<GitRepositories>,
    pub(crate) server: ServerAddresses,
    pub(crate) targets: AvailableTargets,
    pub(crate) jobs: Arc<dyn JobExecutor>,
    pub(crate) scratch: PathBuf,
}

impl PushSources {
    pub(crate) fn receiver(&self, engines: Arc<DeliveryEngines>) -> PushReceiver {
        let sources = self.clone();
        PushReceiver {
            engines,
            store: sources.store,
            blobs: sources.blobs,
            repositories: sources.repositories,
            server: sources.server,
            targets: sources.targets,
            jobs: sources.jobs,
            scratch: sources.scratch,
        }
    }
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

    /// Takes in what moved in a repository, one reference after the other, and prints the progress.
    pub(crate) async fn receive(
        &self,
        repository: &ServiceName,
        updates: Vec<RefUpdate>,
        pusher: &PushPrincipal,
        terminal: &PushTerminal,
    ) {
        let before = self.store.last_position().await.unwrap_or_default();
        let mut outcome = PushOutcome::default();
        let updates = self.released_branch_first(repository, updates).await;
        for update in updates.iter().take(REFERENCES_MAX) {
            let taken = self.take_in(repository, update, pusher, terminal, &mut outcome);
            if let Err(why) = taken.await {
                outcome.print(terminal, format!("✗ {}: {why}", update.name));
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
            outcome.print(terminal, text);
            for update in rest {
                if let Err(error) = self.record(repository, update, pusher).await {
                    tracing::warn!(%error, reference = %update.name, "a reference could not be recorded");
                }
            }
        }
        let PushOutcome { lines, followed } = outcome;
        for (terminal, line) in lines {
            terminal.line(line).await;
        }
        let mut numbers = followed.values().flat_map(|pushes| &pushes.numbers);
        if numbers.any(|number| number % MAINTAIN_EVERY == 0) {
            self.maintain(repository);
        }
        if !followed.is_empty() && terminal.is_watched() {
            let url = &self.server.url;
            if url != DEFAULT_SERVER_URL {
                let line = format!("commands for this server: export SHIPWAY_URL={url}");
                terminal.line(line).await;
            }
            progress::print_until_done(self, &followed, before, terminal).await;
        }
    }

    /// In the order of the push, but the branch that is released first: a limit never leaves it out.
    async fn released_branch_first(
        &self,
        repository: &ServiceName,
        mut updates: Vec<RefUpdate>,
    ) -> Vec<RefUpdate> {
        let mut released = vec![self.engines.released_branch(repository).await];
        let services = services_in_repository(&*self.store, repository).await;
        let services = services.unwrap_or_default();
        released.extend(services.into_iter().map(|view| view.branch));
        let is_released = |branch: &str| released.iter().any(|it| it == branch);
        updates.sort_by_key(|update| !update.branch().is_some_and(is_released));
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
}

/// What became of a push.
#[derive(Default)]
pub(crate) struct PushOutcome {
    /// Printed when all services know of the push: a terminal that is not read delays none of them.
    lines: Vec<(PushTerminal, String)>,
    followed: FollowedPushes,
}

/// The pushes that something follows from, by service.
pub(crate) type FollowedPushes = BTreeMap<ServiceName, FollowedPush>;

/// The pushes of one service.
pub(crate) struct FollowedPush {
    /// Their numbers.
    numbers: Vec<u64>,
    /// Where their progress is printed.
    terminal: PushTerminal,
}

impl PushOutcome {
    fn print(&mut self, terminal: &PushTerminal, line: impl Into<String>) {
        self.lines.push((terminal.clone(), line.into()));
    }

    /// Follows the push with this number of a service.
    fn follow(&mut self, service: &ServiceName, terminal: &PushTerminal, number: u64) {
        let pushes = self.followed.entry(service.clone());
        let pushes = pushes.or_insert_with(|| FollowedPush {
            numbers: Vec::new(),
            terminal: terminal.clone(),
        });
        pushes.numbers.push(number);
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
    /// The log can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
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
