//! Why a run failed, in three lines: from its row and the end of the log of the job that failed first.

use shipway_core::{
    ids::RunId,
    run::{RunSite, RunView, blamed, three_lines},
};
use shipway_drivers::jobs::JobRunner;
use shipway_engine::Store;
use shipway_targets::tail;

use crate::read_models::run_view;

/// The summary of a run; `None` unless it has failed.
pub(crate) async fn read_summary(
    log: &dyn Store,
    jobs: &JobRunner,
    id: &RunId,
) -> Option<[String; 3]> {
    summarize(jobs, &run_view(log, id).await.ok()?).await
}

/// The summary of a run whose row was read.
pub(crate) async fn summarize(jobs: &JobRunner, view: &RunView) -> Option<[String; 3]> {
    let log = blamed(view).and_then(|job| {
        let key = job.key.parse().ok()?;
        Some(jobs.attempt_log_path(&view.id, &key, job.attempt()))
    });
    let read = tokio::task::spawn_blocking(move || {
        log.and_then(|log| tail::read_last_lines(&log).ok())
            .unwrap_or_default()
    });
    let log = read.await.unwrap_or_default();
    three_lines(view, &log, RunSite::Server)
}
