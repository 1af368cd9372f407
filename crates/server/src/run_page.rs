//! Gathers what the page of a run shows: the run, the part of a log that the address names, tests, and the releases that it made.

use std::sync::Arc;

use serde::Deserialize;
use shipway_api::LogPlace;
use shipway_core::{
    access::JobIdentity,
    ids::RunId,
    release::Release,
    rollout::RolloutView,
    run::{JobView, RunStatus, RunView},
};
use shipway_drivers::jobs::JobError;
use shipway_engine::Store;
use shipway_pages::{LogSearchOutcome, LogSearchResults, RunPage, ShownLog, default_job};

use crate::{
    capabilities::JobLogs,
    delivery_engines::DeliveryEngines,
    failure_summary,
    job_logs::{JobLogReader, LogWindowPosition, SearchText},
    read_models::{ReadModelError, newest_rows, run_details},
    test_reports::TestReports,
};

/// Lines of a log that a page has.
const PAGE_LINES: u32 = 300;
const PAGE_LINES_MAX: u32 = 2_000;
/// Releases and rollouts in which those of the run are looked for.
const NEWEST_ROWS: u32 = 200;

/// The part of a log that an address names.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RunLogQuery {
    /// The key of the job; by default the one that a failure is blamed on.
    job: Option<String>,
    attempt: Option<u32>,
    from: Option<u64>,
    line: Option<u64>,
    step: Option<usize>,
    at: Option<LogPlace>,
    count: Option<u32>,
    /// A text to look for.
    pub(crate) search: Option<String>,
}

/// What a page of a run is gathered from.
#[derive(Clone)]
pub(crate) struct RunPageSources {
    pub(crate) logs: JobLogs,
    pub(crate) reader: JobLogReader,
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) test_reports: TestReports,
}

/// Why the log of a page can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunPageError {
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
    #[error(transparent)]
    Log(#[from] JobError),
}

impl RunPageSources {
    pub(crate) async fn gather(
        &self,
        id: &RunId,
        query: &RunLogQuery,
    ) -> Result<RunPage, RunPageError> {
        let store = &*self.logs.store;
        let details = run_details(store, &*self.logs.job_executor, id).await?;
        let (log, search) = match self.named_job(&details.run, query) {
            Some((view, job)) => (
                self.shown_log(&details.run, view, &job, query).await?,
                self.search_results(&job, query).await?,
            ),
            None => (ShownLog::NoJob, None),
        };
        Ok(RunPage {
            failure_summary: failure_summary::summarize(&*self.logs.job_executor, &details.run)
                .await,
            tests: (self.test_reports)
                .run_tests(&self.engines, &details.run)
                .await,
            log,
            search,
            releases: made_releases(store, id).await?,
            run: details,
            now: self.logs.clock.now(),
        })
    }

    /// The job and the attempt whose log is shown.
    pub(crate) fn named_job<'r>(
        &self,
        run: &'r RunView,
        query: &RunLogQuery,
    ) -> Option<(&'r JobView, JobIdentity)> {
        let named = query.job.as_deref();
        let named = named.and_then(|key| run.jobs.iter().find(|job| job.key == key));
        let view = named.or_else(|| default_job(run))?;
        let mut job = view.identity(&run.id)?;
        if let Some(attempt) = query.attempt {
            job.attempt = attempt.clamp(1, job.attempt);
        }
        Some((view, job))
    }

    /// The lines that the address names; without a place those around the failure, or the last ones.
    pub(crate) async fn shown_log(
        &self,
        run: &RunView,
        view: &JobView,
        job: &JobIdentity,
        query: &RunLogQuery,
    ) -> Result<ShownLog, JobError> {
        let place = query.at.unwrap_or(LogPlace::Failure);
        let position = (query.from.map(LogWindowPosition::From))
            .or(query.line.map(LogWindowPosition::Around))
            .or(query.step.map(LogWindowPosition::Step))
            .unwrap_or(LogWindowPosition::Place(place));
        let count = query.count.unwrap_or(PAGE_LINES).clamp(1, PAGE_LINES_MAX) as usize;
        let position = match position {
            LogWindowPosition::Place(LogPlace::Failure)
                if view.status != RunStatus::Failure && job.attempt == view.attempt() =>
            {
                LogWindowPosition::Place(LogPlace::End)
            }
            position => position,
        };
        Ok(match self.reader.read_window(job, position, count).await? {
            Some(window) => ShownLog::Lines(window),
            None => ShownLog::Missing {
                job: view.key.clone(),
                attempt: job.attempt,
                reason: self.missing_reason(run, view),
            },
        })
    }

    fn missing_reason(&self, run: &RunView, job: &JobView) -> String {
        let is_kept = (self.logs.retention).covers(run.finished_at, self.logs.clock.now());
        match job.status {
            RunStatus::Waiting | RunStatus::Queued => {
                "This job has not started: its log begins when it does.".to_owned()
            }
            RunStatus::Skipped => "This job was skipped: it has no log.".to_owned(),
            RunStatus::Running => "This job has not printed anything yet.".to_owned(),
            _ if job.started_at.is_none() => "This job never started: it has no log.".to_owned(),
            _ if is_kept => format!(
                "The log is missing in the data directory, though it is not old enough for the retention rule. Restore it from a backup, or run the job again: shipway retry {} --job {}",
                run.id, job.key
            ),
            _ => format!(
                "The log was removed by the retention rule. Results and annotations stay; run the job again for a new log: shipway retry {} --job {}",
                run.id, job.key
            ),
        }
    }

    /// What a search finds; `None` if the address asks for none.
    pub(crate) async fn search_results(
        &self,
        job: &JobIdentity,
        query: &RunLogQuery,
    ) -> Result<Option<LogSearchResults>, JobError> {
        let Some(text) = query.search.clone().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let outcome = match SearchText::parse(&text) {
            Err(error) => LogSearchOutcome::Refused(error.to_string()),
            Ok(parsed) => match self.reader.search(job, &parsed).await? {
                Some(matches) => LogSearchOutcome::Found(matches),
                None => LogSearchOutcome::Refused("This job has no log to search.".to_owned()),
            },
        };
        Ok(Some(LogSearchResults { text, outcome }))
    }
}

/// The releases that a run made, each with its rollouts.
async fn made_releases(
    store: &dyn Store,
    id: &RunId,
) -> Result<Vec<(Release, Vec<RolloutView>)>, ReadModelError> {
    let service = id.service.as_str();
    let mut releases: Vec<Release> = newest_rows(store, "release", service, NEWEST_ROWS).await?;
    releases.retain(|release| release.run == Some(id.number));
    if releases.is_empty() {
        return Ok(Vec::new());
    }
    let rollouts: Vec<RolloutView> = newest_rows(store, "rollout", service, NEWEST_ROWS).await?;
    let with_rollouts = releases.into_iter().map(|release| {
        let its = rollouts
            .iter()
            .filter(|rollout| rollout.release == release.number);
        let its = its.cloned().collect();
        (release, its)
    });
    Ok(with_rollouts.collect())
}
