//! Why a run failed, in three lines: from its row and the end of the log of the job that failed first.

use shipway_core::{
    ids::RunId,
    run::{RunSite, RunView, blamed, three_lines},
};
use shipway_drivers::jobs::JobExecutor;
use shipway_engine::Store;

use crate::read_models::run_view;

/// The summary of a run; `None` unless it has failed.
pub(crate) async fn read_summary(
    log: &dyn Store,
    jobs: &dyn JobExecutor,
    id: &RunId,
) -> Option<[String; 3]> {
    summarize(jobs, &run_view(log, id).await.ok()?).await
}

/// The summary of a run whose row was read.
pub(crate) async fn summarize(jobs: &dyn JobExecutor, view: &RunView) -> Option<[String; 3]> {
    let log = match blamed(view).and_then(|job| job.identity(&view.id)) {
        Some(job) => jobs.read_log_end(&job).await,
        None => String::new(),
    };
    three_lines(view, &log, RunSite::Server)
}
