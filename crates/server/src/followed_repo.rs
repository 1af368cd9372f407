//! `--repo PATH`: commits of a local repository, as if they had been pushed.

use std::path::Path;

use shipway_core::{
    access::Principal,
    ids::{CommitId, ServiceName},
};
use shipway_drivers::git::{GitError, GitRefs, GitRepository, RepositoryFollower};

use crate::push::{PushReceiver, PushTerminal};

/// Follows the repository until the server stops. The service is the one its `shipway.yaml` names.
pub(crate) async fn run(pushes: PushReceiver, path: &Path) -> Result<(), GitError> {
    let service = service_of(path).await?;
    let into = pushes.repositories.ensure(&service).await?;
    let seen = seen(
        &pushes,
        &service,
        &GitRepository::open_existing(path).await?,
    )
    .await?;
    let mut follower = RepositoryFollower::start(path, into, seen).await?;
    tracing::info!(%service, path = %path.display(), "following the repository");
    while let Some(updates) = follower.next_updates().await {
        let (terminal, mut lines) = PushTerminal::new();
        let log = tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                tracing::info!("{line}");
            }
        });
        let (pushes, service) = (pushes.clone(), service.clone());
        tokio::spawn(async move {
            let pusher = Principal::system().pusher();
            pushes.receive(&service, updates, &pusher, &terminal).await;
            drop(terminal);
            let _ = log.await;
        });
    }
    Ok(())
}

/// The references whose state is not a new push: those in the log, and for an empty log all branches except the checked-out one. A
/// branch that was deleted meanwhile is not among them, nor one that exists only as a pushed reference.
async fn seen(
    pushes: &PushReceiver,
    service: &ServiceName,
    followed: &GitRepository,
) -> Result<GitRefs, GitError> {
    let now = followed.refs().await?;
    let known = pushes.recorded_refs(service).await;
    if !known.is_empty() {
        let there = |(name, _): &(String, CommitId)| now.contains_key(name);
        return Ok(known.into_iter().filter(there).collect());
    }
    let head = followed.resolve("HEAD").await?;
    let elsewhere = |(_, id): &(String, CommitId)| Some(id) != head.as_ref();
    Ok(now.into_iter().filter(elsewhere).collect())
}

async fn service_of(path: &Path) -> Result<ServiceName, GitError> {
    let repo = GitRepository::open_existing(path).await?;
    let head = repo.resolve("HEAD").await?;
    let text = match head {
        Some(head) => repo.read_file(&head, "shipway.yaml", 1 << 20).await?,
        None => None,
    };
    let config = text.and_then(|bytes| {
        let source = shipway_syntax::SourceFile::new(
            "shipway.yaml",
            String::from_utf8_lossy(&bytes).into_owned(),
        );
        shipway_core::config::parse(&source)
            .ok()
            .map(|(config, _)| config.service)
    });
    let folder = path.canonicalize().ok().and_then(|path| {
        path.file_name()
            .map(|name| name.to_string_lossy().to_lowercase())
    });
    Ok(config
        .or_else(|| folder.and_then(|name| name.parse().ok()))
        .unwrap_or_else(|| "service".parse().expect("a plain word is a name")))
}
