//! What the API, the pages and the pushes show of runs and rollouts, read from the log's read models and from records of jobs.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use shipway_analysis::{Observation, plot::MetricSeries};
use shipway_api::RunDetails;
use shipway_core::{
    aggregate::Event,
    ids::{ReleaseNumber, RolloutId, RunId, ServiceName},
    release::Release,
    rollout::{RolloutEvent, RolloutHistory, RolloutView, series},
    run::RunView,
    service::ServiceView,
};
use shipway_drivers::jobs::JobExecutor;
use shipway_engine::{RowQuery, Store, StoreError};

use crate::{delivery_engines::DeliveryEngines, live_evidence::LiveEvidence};

/// Why something can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadModelError {
    #[error("no such run: {0}")]
    NoRun(RunId),
    #[error("no such rollout: {id}; list rollouts with `shipway history {}`", id.service)]
    NoRollout { id: RolloutId },
    /// A row of another version of Shipway.
    #[error("the row of {key} can't be read: {error}; rebuild it with `shipway admin rebuild`")]
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

/// The services of a repository that had a configuration on their released branch.
pub(crate) async fn services_in_repository(
    log: &dyn Store,
    repository: &ServiceName,
) -> Result<Vec<ServiceView>, StoreError> {
    let rows = log.all_rows("service").await?;
    let views = rows.into_iter().filter_map(|row| {
        let view = serde_json::from_value::<ServiceView>(row.doc);
        view.inspect_err(
            |error| tracing::warn!(%error, key = row.key, "the row of a service can't be read"),
        )
        .ok()
    });
    let is_here = |view: &ServiceView| view.location().repository == *repository;
    Ok(views.filter(is_here).collect())
}

/// The row of a run.
pub(crate) async fn run_view(log: &dyn Store, id: &RunId) -> Result<RunView, ReadModelError> {
    let key = format!("{}/{}", id.service, id.number.0);
    let row = log.row("run", &key).await?;
    let row = row.ok_or_else(|| ReadModelError::NoRun(id.clone()))?;
    serde_json::from_value(row.doc).map_err(|error| ReadModelError::UnreadableRow { key, error })
}

/// The row of a run, with the summaries of its jobs.
pub(crate) async fn run_details(
    log: &dyn Store,
    jobs: &dyn JobExecutor,
    id: &RunId,
) -> Result<RunDetails, ReadModelError> {
    let run = run_view(log, id).await?;
    let mut summaries = BTreeMap::new();
    for job in &run.jobs {
        let Some(attempt) = job.identity(id) else {
            continue;
        };
        if let Some(summary) = jobs.read_summary(&attempt).await {
            summaries.insert(job.key.clone(), summary);
        }
    }
    Ok(RunDetails { run, summaries })
}

/// A rollout, from its state: its row may be behind an input that was just accepted.
pub(crate) async fn rollout_view(
    engines: &DeliveryEngines,
    live_evidence: &LiveEvidence,
    id: &RolloutId,
) -> Result<RolloutView, ReadModelError> {
    let state = engines.rollout(id).await;
    let rollout = state.as_ref().and_then(|state| state.0.as_deref());
    let mut view = rollout
        .map(RolloutView::from)
        .ok_or_else(|| ReadModelError::NoRollout { id: id.clone() })?;
    live_evidence.show(&mut view);
    Ok(view)
}

/// A release, from its row; none when there is no such row.
pub(crate) async fn release(
    log: &dyn Store,
    service: &ServiceName,
    number: ReleaseNumber,
) -> Option<Arc<Release>> {
    let key = format!("{service}/{}", number.0);
    let row = log.row("release", &key).await.ok()??;
    serde_json::from_value(row.doc).ok().map(Arc::new)
}

/// The newest rows of a kind; unreadable rows are skipped.
pub(crate) async fn newest_rows<T: DeserializeOwned>(
    log: &dyn Store,
    kind: &str,
    service: &str,
    limit: u32,
) -> Result<Vec<T>, ReadModelError> {
    let page = log
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
    log: &dyn Store,
    id: &RolloutId,
) -> Result<Vec<MetricSeries>, ReadModelError> {
    analysis_series_until(log, id, Timestamp::MAX).await
}

/// The analysis of a rollout over time, and its course, from one reading of its log. `newest` is its last observation.
pub(crate) async fn rollout_course(
    log: &dyn Store,
    id: &RolloutId,
    newest: Option<Observation>,
) -> Result<(Vec<MetricSeries>, RolloutHistory), ReadModelError> {
    let log = log.read(&id.stream(), 0).await?;
    let read = move || {
        let events: Vec<Event<RolloutEvent>> = log
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect();
        let history = RolloutHistory::read(&events, newest.as_ref());
        (series::series(&events), history)
    };
    Ok(tokio::task::spawn_blocking(read).await?)
}

/// [`analysis_series`] as it was at a moment.
pub(crate) async fn analysis_series_until(
    log: &dyn Store,
    id: &RolloutId,
    until: Timestamp,
) -> Result<Vec<MetricSeries>, ReadModelError> {
    let log = log.read(&id.stream(), 0).await?;
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
