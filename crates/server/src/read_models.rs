//! What the API, the pages and the pushes show of runs and rollouts, read from the log's read models and from files of jobs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use shipway_analysis::plot::MetricSeries;
use shipway_api::RunDetails;
use shipway_core::{
    aggregate::Event,
    ids::{RolloutId, RunId},
    rollout::{RolloutEvent, RolloutView, series},
    run::RunView,
};
use shipway_engine::{RowQuery, StoreError};

use crate::{app::App, step_summaries};

/// Why something can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadModelError {
    #[error("there is no run {0}")]
    NoRun(RunId),
    #[error("there is no rollout {id}; `shipway history {}` lists those there are", id.service)]
    NoRollout { id: RolloutId },
    /// A row of another version of Shipway.
    #[error("the row of {key} can't be read: {error}; `shipway admin rebuild` makes it anew")]
    UnreadableRow {
        key: String,
        error: serde_json::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The analysis of the log panicked.
    #[error("the analysis can't be read: {0}")]
    Analysis(#[from] tokio::task::JoinError),
}

/// The row of a run.
pub(crate) async fn run_view(app: &App, id: &RunId) -> Result<RunView, ReadModelError> {
    let key = format!("{}/{}", id.service, id.number.0);
    let row = app.store.row("run", &key).await?;
    let row = row.ok_or_else(|| ReadModelError::NoRun(id.clone()))?;
    serde_json::from_value(row.doc).map_err(|error| ReadModelError::UnreadableRow { key, error })
}

/// The row of a run, with the summaries in the folders of its jobs.
pub(crate) async fn run_details(app: &App, id: &RunId) -> Result<RunDetails, ReadModelError> {
    let run = run_view(app, id).await?;
    let mut summaries = BTreeMap::new();
    for job in &run.jobs {
        let Ok(key) = job.key.parse() else { continue };
        let folder = app.jobs.attempt_folder(id, &key, job.attempt());
        if let Some(summary) = step_summaries::read_job_summary(&folder) {
            summaries.insert(job.key.clone(), summary);
        }
    }
    Ok(RunDetails { run, summaries })
}

/// A rollout, from its state: its row may be behind an input that was just accepted.
pub(crate) async fn rollout_view(app: &App, id: &RolloutId) -> Result<RolloutView, ReadModelError> {
    let state = app.rollout(id).await;
    let rollout = state.as_ref().and_then(|state| state.0.as_deref());
    let mut view = rollout
        .map(RolloutView::from)
        .ok_or_else(|| ReadModelError::NoRollout { id: id.clone() })?;
    app.observations.live_evidence.show(&mut view);
    Ok(view)
}

/// The newest rows of a kind; unreadable rows are skipped.
pub(crate) async fn newest_rows<T: DeserializeOwned>(
    app: &App,
    kind: &str,
    service: &str,
    limit: u32,
) -> Result<Vec<T>, ReadModelError> {
    let page = app
        .store
        .rows(RowQuery {
            service: Some(service),
            limit,
            ..RowQuery::new(kind)
        })
        .await?;
    let rows = page.rows.into_iter();
    Ok(rows
        .filter_map(|row| serde_json::from_value(row.doc).ok())
        .collect())
}

/// The analysis of a rollout over time, read from its log: one series for each metric.
pub(crate) async fn analysis_series(
    app: &App,
    id: &RolloutId,
) -> Result<Vec<MetricSeries>, ReadModelError> {
    analysis_series_until(app, id, Timestamp::MAX).await
}

/// [`analysis_series`] as it was at a moment.
pub(crate) async fn analysis_series_until(
    app: &App,
    id: &RolloutId,
    until: Timestamp,
) -> Result<Vec<MetricSeries>, ReadModelError> {
    let log = app.store.read(&id.stream(), 0).await?;
    let read = move || {
        // An event that can't be read here could not be folded either, and there would be no rollout to show.
        let events: Vec<Event<RolloutEvent>> = log
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok())
            .filter(|event: &Event<RolloutEvent>| event.at <= until)
            .collect();
        series::series(&events)
    };
    // Thousands of measurements are milliseconds of work: too long for a thread of the async runtime.
    Ok(tokio::task::spawn_blocking(read).await?)
}
