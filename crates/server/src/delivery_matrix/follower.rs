//! Follows the log and the instances, and publishes the overview.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use shipway_core::ids::ServiceName;
use shipway_engine::{Clock, Recorded, Store, StoreError};
use shipway_targets::target_registry::TargetRegistry;
use tokio::sync::watch;

use super::{model::MatrixModel, snapshot::MatrixSnapshot};

/// Events that are taken at once.
const CHUNK: usize = 500;
/// Between two attempts while the store fails.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Instances often change together: a change is shown after this time.
const INSTANCES_SETTLE: Duration = Duration::from_millis(50);

/// The newest overview, and its changes.
#[derive(Clone, Debug)]
pub(crate) struct MatrixFeed(Arc<watch::Sender<Option<Arc<MatrixSnapshot>>>>);

impl Default for MatrixFeed {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl MatrixFeed {
    /// The newest overview; waits for the first one after a start.
    pub(crate) async fn newest(&self) -> Result<Arc<MatrixSnapshot>, StoreError> {
        let mut receiver = self.watch();
        let found = receiver.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| found.clone());
        found.ok_or_else(|| StoreError("the server is stopping".to_owned()))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<MatrixSnapshot>>> {
        self.0.subscribe()
    }

    /// Publishes services that may have changed.
    fn publish(&self, model: &MatrixModel, changed: impl IntoIterator<Item = ServiceName>) {
        let services = changed.into_iter();
        let services = services.map(|name| {
            let service = model.service(&name);
            (name, service)
        });
        let services = services.collect();
        self.0.send_if_modified(|newest| {
            let before = newest.clone().unwrap_or_default();
            match before.changed(services) {
                Some(after) => {
                    *newest = Some(Arc::new(after));
                    true
                }
                None => false,
            }
        });
    }
}

/// Keeps the overview current for as long as the server runs.
pub(crate) async fn follow_matrix(
    feed: MatrixFeed,
    store: Arc<dyn Store>,
    targets: Arc<TargetRegistry>,
    clock: Arc<dyn Clock>,
) {
    loop {
        match follow_from_rows(&feed, &*store, &targets, &*clock).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "the overview is behind the log");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn follow_from_rows(
    feed: &MatrixFeed,
    store: &dyn Store,
    targets: &TargetRegistry,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let position = store.last_position().await?;
    let mut model = MatrixModel::load(store).await?;
    let mut instances = targets.watch();
    model.count_instances(&targets.instances());
    // Milliseconds since 1970: higher than every revision of an earlier server.
    let start = u64::try_from(clock.now().as_millisecond()).unwrap_or_default();
    let names: Vec<_> = model.names().cloned().collect();
    let services = names.iter().map(|name| (name.clone(), model.service(name)));
    let empty = MatrixSnapshot {
        revision: start,
        layout_revision: start,
        ..MatrixSnapshot::default()
    };
    let first = empty.changed(services.collect()).unwrap_or(empty);
    feed.0.send_replace(Some(Arc::new(first)));

    let mut log = store.subscribe(position).await?.ready_chunks(CHUNK);
    let mut has_targets = true;
    loop {
        tokio::select! {
            batch = log.next() => {
                let Some(batch) = batch else { return Ok(()) };
                let events = batch.into_iter().collect::<Result<Vec<Recorded>, _>>()?;
                let changed = model.read_changes(store, &events).await?;
                feed.publish(&model, changed);
            }
            seen = instances.changed(), if has_targets => {
                has_targets = seen.is_ok();
                tokio::time::sleep(INSTANCES_SETTLE).await;
                instances.mark_seen();
                let changed = model.count_instances(&targets.instances());
                feed.publish(&model, changed);
            }
        }
    }
}
