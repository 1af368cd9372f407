//! `--repo PATH`: commits of a local repository, as if they had been pushed.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use shipway_core::ids::ServiceName;
use shipway_drivers::git::{Follower, GitError, Repo};

use crate::{
    app::App,
    push::{self, Terminal},
};

/// Follows the repository until the server stops. The service is the one its `shipway.yaml` names.
pub(crate) async fn run(app: Arc<App>, path: &Path) -> Result<(), GitError> {
    let service = service_of(path).await?;
    let into = app.repos.ensure(&service).await?;
    // What was pushed or followed before is known: only what moved since is new.
    let seen = if app
        .store
        .row("service", service.as_str())
        .await
        .ok()
        .flatten()
        .is_some()
    {
        into.refs().await?
    } else {
        BTreeMap::default()
    };
    let mut follower = Follower::start(path, into, seen).await?;
    tracing::info!(%service, path = %path.display(), "following the repository");
    while let Some(updates) = follower.next().await {
        let (terminal, mut lines) = Terminal::new();
        let log = tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                tracing::info!("{line}");
            }
        });
        let (app, service) = (app.clone(), service.clone());
        tokio::spawn(async move {
            push::receive(&app, &service, updates, None, &terminal).await;
            drop(terminal);
            let _ = log.await;
        });
    }
    Ok(())
}

async fn service_of(path: &Path) -> Result<ServiceName, GitError> {
    let repo = Repo::at(path).await?;
    let head = repo.resolve("HEAD").await?;
    let text = match head {
        Some(head) => repo.read_file(&head, "shipway.yaml", 1 << 20).await?,
        None => None,
    };
    let config = text.and_then(|bytes| {
        let source = shipway_syntax::Source::new(
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
