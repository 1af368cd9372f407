//! The three lines that matter of a failed run, from its row and the end of the log of the job that is blamed.

use shipway_core::{
    ids::RunId,
    run::{Place, RunView, blamed, three_lines},
};
use shipway_drivers::tail;

use crate::{api, app::App};

/// The three lines of a run; none when it hasn't failed.
pub(crate) async fn lines(app: &App, id: &RunId) -> Option<[String; 3]> {
    let doc = api::run_doc(app, id).await.ok()?;
    of(app, &serde_json::from_value(doc).ok()?).await
}

/// The three lines of a run that was read.
pub(crate) async fn of(app: &App, view: &RunView) -> Option<[String; 3]> {
    let log = blamed(view).and_then(|job| {
        let key = job.key.parse().ok()?;
        Some(app.jobs.log_of(&view.id, &key, job.attempt()))
    });
    let read = tokio::task::spawn_blocking(move || {
        log.and_then(|log| tail::last(&log).ok())
            .unwrap_or_default()
    });
    let log = read.await.unwrap_or_default();
    three_lines(view, &log, Place::Server)
}
