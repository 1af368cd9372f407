//! Removes artifacts, reports, records of runs and git objects that the retention rule no longer covers.
//!
//! # Invariants
//!
//! - Blobs are listed before the log is read, and services are read before their runs: a reference that is recorded meanwhile is seen, or
//!   its blob was used meanwhile and stays.
//! - A request for a release renews its artifact before it is recorded ([`require_artifact`]): the request is refused, or the artifact
//!   stays.
//! - A state or row that can't be read stops the removal: its references are unknown.
//!
//! # Failure modes
//!
//! Every removal can be repeated: after a crash or an error the next one removes the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use shipway_api::{PruneReport, PrunedFiles, PrunedRelease};
use shipway_core::{
    config::ArtifactSource,
    ids::{CommitId, Digest, RunId, ServiceName},
    release::Release,
    retention::{
        BlobRecord, RecordedReferences, ReleaseRecord, RetainedFiles, RetentionPolicy, RunRecord,
    },
    run::RunView,
    service::{ReleaseView, ServiceState, ServiceView},
};
use shipway_drivers::{
    git::{GitError, GitRepositories, GitRepository},
    jobs::JobExecutor,
};
use shipway_engine::{BlobError, Blobs, Clock, RowQuery, RowScope, Store, StoreError};
use shipway_pages::FinishedRemoval;

use crate::delivery_engines::DeliveryEngines;

/// Time from one removal to the next.
const INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// Rows in memory at once.
const PAGE_ROWS: u32 = 200;
/// Time from one collection of unreachable git objects to the next: it rewrites the whole repository.
const COLLECTION_INTERVAL: SignedDuration = SignedDuration::from_hours(20);

/// Why files could not be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the row of {key} can't be read, so that nothing is removed: {error}; stop the server and rebuild it with `shipway admin rebuild`"
    )]
    UnreadableRow {
        key: String,
        error: serde_json::Error,
    },
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("old files are being removed already; try again in a minute")]
    InProgress,
}

/// Which repositories unreachable objects are removed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CollectedRepositories {
    All,
    /// Those where the last time is long ago.
    Due,
}

/// Removes old files: what it needs of the server.
#[derive(Clone)]
pub(crate) struct FilePruner {
    pub(crate) policy: RetentionPolicy,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) repositories: Arc<GitRepositories>,
    pub(crate) executor: Arc<dyn JobExecutor>,
    /// Two removals at once would count the same files.
    pub(crate) is_running: Arc<AtomicBool>,
    /// The last removal that has ended.
    pub(crate) last: Arc<Mutex<Option<FinishedRemoval>>>,
}

/// What the retention rule no longer covers.
struct PrunePlan {
    retained: RetainedFiles,
    /// All files that are stored.
    stored: PrunedFiles,
    blobs: Vec<BlobRecord>,
    runs: Vec<(RunId, u64)>,
    releases: Vec<ReleaseRecord>,
    /// Folders of runs that were claimed since are left alone.
    planned_at: Timestamp,
}

/// The log, read for its references to files.
struct ReadLog {
    services: BTreeMap<ServiceName, Arc<ServiceState>>,
    releases: Vec<ReleaseRecord>,
    runs: Vec<RunRecord>,
}

impl FilePruner {
    /// Removes old files at once and from time to time, for as long as the server runs.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.prune(CollectedRepositories::Due).await {
                tracing::warn!(%error, "old files can't be removed");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// What a removal would remove now; the size of git objects is unknown.
    pub(crate) async fn preview(&self) -> Result<PruneReport, PruneError> {
        let plan = self.plan().await?;
        let runs = plan.runs.iter().map(|(_, size)| *size);
        Ok(PruneReport {
            blobs: count_files(plan.blobs.iter().map(|blob| blob.size)),
            runs: count_files(runs),
            run_ids: plan.runs.iter().map(|(id, _)| id.to_string()).collect(),
            releases: lost_releases(&plan.releases, &plan.blobs),
            repositories: None,
        })
    }

    /// Removes old files, and reports them.
    pub(crate) async fn prune(
        &self,
        collected: CollectedRepositories,
    ) -> Result<PruneReport, PruneError> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Err(PruneError::InProgress);
        }
        let _end = RunningRemoval(&self.is_running);
        let plan = self.plan().await?;
        let used_since = plan.retained.used_since.min(plan.planned_at);
        let removed = self.blobs.remove_unused(plan.blobs, used_since).await?;
        let mut report = PruneReport {
            blobs: count_files(removed.iter().map(|blob| blob.size)),
            releases: lost_releases(&plan.releases, &removed),
            ..PruneReport::default()
        };
        let mut sizes = Vec::new();
        for (id, _) in plan.runs {
            match self.executor.remove_run(&id, plan.planned_at).await {
                Ok(Some(size)) => {
                    sizes.push(size);
                    report.run_ids.push(id.to_string());
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, run = %id, "the files of a run can't be removed")
                }
            }
        }
        report.runs = count_files(sizes.into_iter());
        log_removal(&report);
        let repositories = self.collect(&plan.retained, collected).await?;
        if repositories.count > 0 {
            let PrunedFiles { count, bytes } = repositories;
            tracing::info!(count, bytes, "unreachable git objects were removed");
        }
        report.repositories = Some(repositories);
        let removal = FinishedRemoval {
            at: self.clock.now(),
            removed: report.clone(),
            kept: PrunedFiles {
                count: plan.stored.count.saturating_sub(report.blobs.count),
                bytes: plan.stored.bytes.saturating_sub(report.blobs.bytes),
            },
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(removal);
        Ok(report)
    }

    /// The last removal that has ended since the server was started.
    pub(crate) fn last_removal(&self) -> Option<FinishedRemoval> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    async fn plan(&self) -> Result<PrunePlan, PruneError> {
        let planned_at = Timestamp::now();
        let listed = self.blobs.list().await?;
        let folders = self.executor.list_runs().await;
        let log = self.read_log().await?;
        let services = log.services.iter();
        let recorded = RecordedReferences {
            services: services
                .map(|(name, state)| (name.clone(), &**state))
                .collect(),
            releases: log.releases.clone(),
            runs: log.runs.clone(),
        };
        // Files have the time of the system, events that of the server: the earlier one removes less.
        let now = self.clock.now().min(planned_at);
        let retained = self.policy.retain(&recorded, now);
        // A folder that the log doesn't know is not old: the log may have lost its run.
        let known: BTreeSet<&RunId> = log.runs.iter().map(|run| &run.id).collect();
        let mut runs = Vec::new();
        for id in folders {
            if known.contains(&id) && retained.may_remove_run(&id) {
                let size = self.executor.measure_run(&id).await;
                runs.push((id, size));
            }
        }
        runs.sort();
        let stored = count_files(listed.iter().map(|blob| blob.size));
        let unneeded = listed.into_iter();
        Ok(PrunePlan {
            stored,
            blobs: unneeded
                .filter(|blob| retained.may_remove_blob(blob))
                .collect(),
            retained,
            runs,
            releases: log.releases,
            planned_at,
        })
    }

    async fn read_log(&self) -> Result<ReadLog, PruneError> {
        let mut names: BTreeSet<ServiceName> = self.repositories.services()?.into_iter().collect();
        let views = RowQuery::new("service");
        names.extend(read_rows(&*self.store, views, |view: ServiceView| view.name).await?);
        let mut services = BTreeMap::new();
        for name in names {
            if let Some(state) = self.engines.service(&name).await? {
                services.insert(name, state);
            }
        }
        let releases = RowQuery::new("release");
        let release = |release: Release| ReleaseRecord::from(&release);
        Ok(ReadLog {
            runs: self.read_runs(&services).await?,
            releases: read_rows(&*self.store, releases, release).await?,
            services,
        })
    }

    /// All runs, those in progress first: a row that changes while pages are read moves before them, and is missed there.
    async fn read_runs(
        &self,
        services: &BTreeMap<ServiceName, Arc<ServiceState>>,
    ) -> Result<Vec<RunRecord>, PruneError> {
        let mut runs = BTreeMap::new();
        for scope in [RowScope::Live, RowScope::All] {
            let rows = RowQuery {
                scope,
                ..RowQuery::new("run")
            };
            let record = |run: RunView| (run.tests.is_some(), RunRecord::new(&run));
            for (has_reports, run) in read_rows(&*self.store, rows, record).await? {
                runs.insert(run.id.clone(), (has_reports, run));
            }
        }
        let (mut records, now) = (Vec::new(), self.clock.now());
        for (id, (has_reports, mut run)) in runs {
            let state = services.get(&id.service);
            let is_referred = state.is_some_and(|state| state.refers_to_run(id.number));
            // Those of other runs retain nothing.
            if has_reports && (is_referred || self.policy.covers(run.finished_at, now)) {
                run.blobs.extend(self.reports(&id).await?);
            }
            records.push(run);
        }
        Ok(records)
    }

    /// The reports of a run's tests, which its row doesn't name.
    async fn reports(&self, run: &RunId) -> Result<Vec<Digest>, StoreError> {
        let state = self.engines.runs.read(&run.stream()).await?;
        let run = state.and_then(|state| state.0);
        let tests = run.into_iter().flat_map(|run| run.tests);
        Ok(tests.map(|(_, tests)| tests.digest).collect())
    }

    /// Removes unreachable objects of repositories. The commits that the log refers to are reachable.
    async fn collect(
        &self,
        retained: &RetainedFiles,
        collected: CollectedRepositories,
    ) -> Result<PrunedFiles, PruneError> {
        let mut commits = self.commits_by_repository(retained).await?;
        let mut sizes = Vec::new();
        for service in self.repositories.services()? {
            let Some(repository) = self.repositories.get(&service) else {
                continue;
            };
            if collected == CollectedRepositories::Due && !self.is_due(&repository) {
                continue;
            }
            let needed = commits.remove(&service).unwrap_or_default();
            repository.retain_commits(&needed).await?;
            match repository.remove_unreachable().await {
                Ok(0) => {}
                Ok(size) => sizes.push(size),
                Err(error) => {
                    tracing::warn!(%error, %service, "unreachable git objects can't be removed")
                }
            }
        }
        Ok(count_files(sizes.into_iter()))
    }

    /// The commits that services need, by the repository that each service is in.
    async fn commits_by_repository(
        &self,
        retained: &RetainedFiles,
    ) -> Result<BTreeMap<ServiceName, BTreeSet<CommitId>>, StoreError> {
        let mut by_repository: BTreeMap<ServiceName, BTreeSet<CommitId>> = BTreeMap::new();
        for (service, commits) in &retained.commits {
            let state = self.engines.service(service).await?;
            let location = state.as_ref().and_then(|state| state.location.as_ref());
            let repository = location.map_or(service, |location| &location.repository);
            let needed = by_repository.entry(repository.clone()).or_default();
            needed.extend(commits.iter().cloned());
        }
        Ok(by_repository)
    }

    fn is_due(&self, repository: &GitRepository) -> bool {
        let collected_at = repository.collected_at();
        collected_at.is_none_or(|at| Timestamp::now().duration_since(at) > COLLECTION_INTERVAL)
    }
}

/// Reads rows page by page, and keeps only a part of each: all rows of a year don't fit into memory.
async fn read_rows<T: DeserializeOwned, R>(
    store: &dyn Store,
    query: RowQuery<'_>,
    part: impl Fn(T) -> R + Send + Sync,
) -> Result<Vec<R>, PruneError> {
    let mut parts = Vec::new();
    let mut page_query = RowQuery {
        limit: PAGE_ROWS,
        ..query
    };
    loop {
        let page = store.rows(page_query).await?;
        for row in page.rows {
            let unreadable = |error| PruneError::UnreadableRow {
                key: format!("{} {}", query.kind, row.key),
                error,
            };
            parts.push(part(serde_json::from_value(row.doc).map_err(unreadable)?));
        }
        match page.next {
            Some(next) => page_query.cursor = Some(next),
            None => return Ok(parts),
        }
    }
}

/// Ends the removal, also one whose request was dropped.
struct RunningRemoval<'a>(&'a AtomicBool);

impl Drop for RunningRemoval<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The number and size of files.
pub(crate) fn count_files(sizes: impl Iterator<Item = u64>) -> PrunedFiles {
    sizes.fold(PrunedFiles::default(), |sum, size| PrunedFiles {
        count: sum.count + 1,
        bytes: sum.bytes + size,
    })
}

/// The releases whose artifact is among the blobs.
fn lost_releases(releases: &[ReleaseRecord], blobs: &[BlobRecord]) -> Vec<PrunedRelease> {
    let digests: BTreeSet<&Digest> = blobs.iter().map(|blob| &blob.digest).collect();
    let lost = releases
        .iter()
        .filter(|release| digests.contains(&release.artifact));
    let mut lost: Vec<PrunedRelease> = lost
        .map(|release| PrunedRelease {
            service: release.service.clone(),
            number: release.number,
        })
        .collect();
    lost.sort();
    lost
}

fn log_removal(removed: &PruneReport) {
    if removed.blobs.count == 0 && removed.runs.count == 0 {
        return;
    }
    tracing::info!(
        blobs = removed.blobs.count,
        blob_bytes = removed.blobs.bytes,
        runs = removed.runs.count,
        run_bytes = removed.runs.bytes,
        "old files were removed"
    );
}

/// Why a release can't be deployed any more, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactRequestError {
    #[error(
        "release {number} can't be deployed: its artifact was removed by the retention rule on {}; deploy a newer release, or build it again: git checkout -B again {commit} && git commit --allow-empty -m 'Release {commit} again', and merge that (`shipway server --keep-releases` retains more releases)",
        at.strftime("%Y-%m-%d"), number = release.number, commit = release.commit.id.short()
    )]
    Removed {
        release: Box<Release>,
        at: Timestamp,
    },
    #[error(
        "release {0} can't be deployed: its artifact is missing in the data directory; restore it from a backup (blobs/), or deploy another release"
    )]
    Missing(shipway_core::ids::ReleaseNumber),
    #[error(transparent)]
    Blob(BlobError),
}

/// A release, with whether its artifact is gone.
pub(crate) async fn release_view(blobs: &dyn Blobs, release: &Release) -> ReleaseView {
    let is_image = matches!(release.config.artifact, ArtifactSource::Image { .. });
    let size = blobs.size(&release.artifact).await;
    ReleaseView {
        is_artifact_removed: !is_image && matches!(size, Ok(None)),
        ..ReleaseView::from(release)
    }
}

/// [`release_view`] of each, their artifacts looked up at the same time.
pub(crate) async fn release_views(blobs: &dyn Blobs, releases: &[Release]) -> Vec<ReleaseView> {
    join_all(releases.iter().map(|release| release_view(blobs, release))).await
}

/// Before a request for a release is recorded: its artifact is there, and stays until the request is recorded.
pub(crate) async fn require_artifact(
    blobs: &dyn Blobs,
    release: &Release,
) -> Result<(), ArtifactRequestError> {
    if matches!(release.config.artifact, ArtifactSource::Image { .. }) {
        return Ok(());
    }
    let renewed = match blobs.renew(&release.artifact).await {
        Ok(true) => return Ok(()),
        Ok(false) => blobs.open(&release.artifact).await.map(drop),
        Err(error) => Err(error),
    };
    match renewed {
        // Stored again at this moment.
        Ok(()) => Ok(()),
        Err(BlobError::Removed { at, .. }) => Err(ArtifactRequestError::Removed {
            release: Box::new(release.clone()),
            at,
        }),
        Err(BlobError::Missing(_)) => Err(ArtifactRequestError::Missing(release.number)),
        Err(error @ (BlobError::Damaged { .. } | BlobError::Io { .. })) => {
            Err(ArtifactRequestError::Blob(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shipway_core::aggregate::ViewRow;
    use shipway_store::{SqliteOptions, SqliteStore};

    use super::*;

    async fn store_with_rows(count: u32, doc: Value) -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shipway.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let rows = (0..count).map(|number| ViewRow {
            kind: "run".to_owned(),
            key: format!("shop/{number}"),
            service: "shop".to_owned(),
            live: number == 7,
            doc: doc.clone(),
        });
        store.replace_rows("run", rows.collect()).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn rows_of_all_pages_are_read() {
        let count = 2 * PAGE_ROWS + 1;
        let (_folder, store) = store_with_rows(count, json!({ "number": 1 })).await;
        let number = |doc: Value| doc["number"].as_u64().unwrap();
        let read = read_rows(&store, RowQuery::new("run"), number)
            .await
            .unwrap();
        assert_eq!(read.len(), count as usize);
        let live = RowQuery {
            scope: RowScope::Live,
            ..RowQuery::new("run")
        };
        assert_eq!(read_rows(&store, live, number).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn a_row_that_cant_be_read_stops_the_removal() {
        let (_folder, store) = store_with_rows(1, json!({ "odd": true })).await;
        let name = |view: ServiceView| view.name;
        let error = read_rows(&store, RowQuery::new("run"), name).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("run shop/0 can't be read"), "{error}");
        assert!(error.contains("shipway admin rebuild"), "{error}");
    }
}
