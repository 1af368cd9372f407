//! Test reports of runs: stores, reads and compares them, and sends the results to the service. `core::testing` decides the
//! consequences.

use std::{
    collections::VecDeque,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::read::GzDecoder;
use shipway_api::{FailingTest, RunTests};
use shipway_core::{
    ids::{Digest, RunId, ServiceName},
    run::{JobTests, Run, RunInput, RunSpec, RunStatus, RunView},
    service,
    testing::{
        self, TestComparison, TestId, TestReport, TestResults, TestedAttempt, TestingState,
        against, excuse, sightings, too_many_fail,
    },
};
use shipway_drivers::git::{GitRepositories, RefUpdate};
use shipway_engine::{BlobError, Blobs, Clock, RowQuery, Store};
use shipway_workflow::{
    job::{Conclusion, JobKey},
    report::StoredReport,
};

use crate::delivery_engines::DeliveryEngines;

/// The longest report, unpacked. A worker's is shorter.
const REPORT_BYTES_MAX: u64 = 256 << 20;
/// TestReportCache that are kept read.
const KEPT: usize = 16;
/// Runs that are looked through for those of the same commit, and for the last green one.
const LOOKED_AT: u32 = 200;

/// Reports that were read last.
#[derive(Debug, Default)]
pub struct TestReportCache(Mutex<VecDeque<(Digest, Arc<TestReport>)>>);

impl TestReportCache {
    fn entries(&self) -> std::sync::MutexGuard<'_, VecDeque<(Digest, Arc<TestReport>)>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report from the blobs.
    async fn read(
        &self,
        blobs: &dyn Blobs,
        digest: &Digest,
    ) -> Result<Arc<TestReport>, TestReportError> {
        if let Some((_, report)) = self.entries().iter().find(|(kept, _)| kept == digest) {
            return Ok(report.clone());
        }
        let path = blobs.file(digest).await?;
        let report = Arc::new(tokio::task::spawn_blocking(move || unpack(&path)).await??);
        let mut kept = self.entries();
        kept.push_back((digest.clone(), report.clone()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(report)
    }
}

/// Why a stored report can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TestReportError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The reader panicked.
    #[error(transparent)]
    Panicked(#[from] tokio::task::JoinError),
}

fn unpack(path: &Path) -> Result<TestReport, TestReportError> {
    let file = std::fs::File::open(path)?;
    let text = GzDecoder::new(std::io::BufReader::new(file)).take(REPORT_BYTES_MAX);
    Ok(serde_json::from_reader(text)?)
}

/// Reads reports of tests.
#[derive(Clone)]
pub(crate) struct TestReports {
    /// Rows of runs.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn Blobs>,
    /// For the paths that a run's commit changes.
    pub(crate) repositories: Arc<GitRepositories>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Arc<TestReportCache>,
}

/// The most flaky tests of one run that are recorded.
const SIGHTINGS_MAX: usize = 100;
/// Tests of a run that are shown one by one.
const SHOWN_MAX: usize = 200;
/// Slow tests that are shown.
const SLOWEST_MAX: usize = 10;

impl TestReports {
    /// The input for a run about a worker's report, which is in the blobs as `digest`.
    pub(crate) async fn report_input(
        &self,
        engines: &DeliveryEngines,
        run: &RunSpec,
        key: &JobKey,
        stored: StoredReport,
        digest: Digest,
    ) -> Result<RunInput, TestReportError> {
        let report = self.read(&digest).await?;
        let quarantine = test_history(engines, &run.id.service).await;
        let excuse = if quarantine.quarantine.is_empty() || stored.summary.totals.bad() == 0 {
            testing::FailureExcuse::default()
        } else {
            let changed = self.changed_paths(engines, run).await;
            let changed = changed.as_deref();
            excuse(
                &report,
                &stored.summary,
                &quarantine,
                changed,
                self.clock.now(),
            )
        };
        Ok(RunInput::TestsReported {
            key: key.clone(),
            tests: Box::new(JobTests {
                digest,
                size: stored.size,
                summary: stored.summary,
                excuse,
                // The run knows.
                attempt: 0,
            }),
        })
    }

    /// Sends the test results of a finished run to its service. Unreadable reports are ignored.
    pub(crate) async fn record_history(&self, engines: &DeliveryEngines, run: &Run) {
        if run.tests.is_empty() {
            return;
        }
        let id = &run.spec.id;
        let quarantine = test_history(engines, &id.service).await;
        let jobs = run.tests.iter();
        let jobs: Vec<_> = jobs
            .map(|(key, tests)| (key.clone(), tests.clone()))
            .collect();
        let mine = self.read_reports(&jobs).await;
        let mut tried: Vec<(RunId, JobKey, Arc<TestReport>)> = mine
            .into_iter()
            .map(|(key, report)| (id.clone(), key, report))
            .collect();
        let mut seen = TestResults {
            run: id.number,
            reports: u32::try_from(run.tests.len()).unwrap_or(u32::MAX),
            commit: run.spec.commit.id.clone(),
            flaky: Vec::new(),
            clean: Vec::new(),
            failed: Vec::new(),
        };
        count(&quarantine, &tried, &mut seen);
        for other in self.latest_runs(&id.service).await {
            if other.commit != run.spec.commit.id || other.number == id.number {
                continue;
            }
            let jobs: Vec<_> = other.tests.iter().flat_map(|tests| &tests.jobs).collect();
            let jobs: Vec<_> = jobs
                .iter()
                .map(|job| (job.job.clone(), job.tests.clone()))
                .collect();
            let reports = self.read_reports(&jobs).await;
            tried.extend(
                reports
                    .into_iter()
                    .map(|(key, report)| (other.id.clone(), key, report)),
            );
        }
        let tried: Vec<TestedAttempt<'_>> = tried
            .iter()
            .map(|(run, key, report)| TestedAttempt {
                run: run.number,
                job: key.as_str(),
                report,
            })
            .collect();
        seen.flaky = sightings(&tried);
        seen.flaky.truncate(SIGHTINGS_MAX);
        let by = shipway_core::aggregate::Actor::Shipway(format!("run {}", id.number));
        let input = service::ServiceInput::TestsSeen(Box::new(seen));
        if let Err(error) = engines.send_to_service(&id.service, input, by).await {
            tracing::warn!(%error, run = %id, "its test results could not be recorded");
        }
    }

    /// The tests of a run; none when none reported.
    pub(crate) async fn run_tests(
        &self,
        engines: &DeliveryEngines,
        view: &RunView,
    ) -> Option<RunTests> {
        let summary = view.tests.clone()?;
        let jobs = |view: &RunView| -> Vec<(JobKey, JobTests)> {
            let jobs = view.tests.iter().flat_map(|tests| tests.latest());
            jobs.map(|job| (job.job.clone(), job.tests.clone()))
                .collect()
        };
        // What passed in one attempt and failed in another is flaky.
        let each = summary.jobs.iter();
        let each: Vec<_> = each
            .map(|job| (job.job.clone(), job.tests.clone()))
            .collect();
        let each = self.read_reports(&each).await;
        let mine = self.read_reports(&jobs(view)).await;
        let base = self.find_base(engines, view).await;
        let before = match &base {
            Some(base) => self.read_reports(&jobs(base)).await,
            None => Vec::new(),
        };
        let plain = |reports: &[(JobKey, Arc<TestReport>)]| -> Vec<TestReport> {
            reports
                .iter()
                .map(|(_, report)| (**report).clone())
                .collect()
        };
        let (now, then) = (plain(&mine), plain(&before));
        let compared = against(&now, &then);
        let memory = test_history(engines, &view.id.service).await;
        let tried: Vec<TestedAttempt<'_>> = each
            .iter()
            .map(|(key, report)| TestedAttempt {
                run: view.number,
                job: key.as_str(),
                report,
            })
            .collect();
        let slowest = testing::slowest(&now, SLOWEST_MAX);
        Some(RunTests {
            failing: failing_tests(
                &mine,
                base.as_ref().map(|_| &compared),
                &memory,
                self.clock.now(),
            ),
            slowest: slowest.into_iter().cloned().collect(),
            flaky: sightings(&tried),
            base: base.map(|base| base.id),
            summary,
            compared,
        })
    }

    /// The tests that a text may mean: known by name to the quarantine, among the flaky, or in the reports of the last runs.
    pub(crate) async fn find_test(
        &self,
        engines: &DeliveryEngines,
        service: &ServiceName,
        text: &str,
    ) -> Result<TestId, TestNameError> {
        let memory = test_history(engines, service).await;
        let mut known: Vec<TestId> = memory.quarantine.iter().map(|it| it.test.clone()).collect();
        known.extend(memory.flaky.iter().map(|it| it.test.clone()));
        if let Some(found) = match_test(&known, text)? {
            return Ok(found);
        }
        for view in self
            .latest_runs(service)
            .await
            .into_iter()
            .filter(|view| view.tests.is_some())
            .take(10)
        {
            let jobs = view.tests.iter().flat_map(|tests| &tests.jobs);
            let jobs: Vec<_> = jobs
                .map(|job| (job.job.clone(), job.tests.clone()))
                .collect();
            for (_, report) in self.read_reports(&jobs).await {
                let ids: Vec<TestId> = report.cases.iter().map(|case| case.id.clone()).collect();
                if let Some(found) = match_test(&ids, text)? {
                    return Ok(found);
                }
            }
        }
        Err(TestNameError::Unknown {
            name: text.to_owned(),
            service: service.clone(),
        })
    }

    /// The last run in which a test failed and whose change touches it.
    pub(crate) async fn touched_by(
        &self,
        engines: &DeliveryEngines,
        service: &ServiceName,
        test: &TestId,
    ) -> Option<shipway_core::ids::RunNumber> {
        for view in self.latest_runs(service).await.into_iter().take(20) {
            let jobs = view.tests.iter().flat_map(|tests| &tests.jobs);
            let jobs: Vec<_> = jobs
                .map(|job| (job.job.clone(), job.tests.clone()))
                .collect();
            for (_, report) in self.read_reports(&jobs).await {
                let mut cases = report.cases.iter();
                let Some(case) = cases.find(|case| case.id == *test && case.is_failure()) else {
                    continue;
                };
                let state = engines.runs.state(&view.id.stream()).await.ok().flatten();
                let spec = state.as_deref()?.0.as_deref()?.spec.clone();
                let changed = self.changed_paths(engines, &spec).await?;
                return testing::is_touched(case, &changed).then_some(view.number);
            }
        }
        None
    }

    /// A report from the blobs, or from the cache.
    async fn read(&self, digest: &Digest) -> Result<Arc<TestReport>, TestReportError> {
        self.cache.read(&*self.blobs, digest).await
    }

    /// The reports of a run's jobs; unreadable ones are skipped.
    async fn read_reports(&self, jobs: &[(JobKey, JobTests)]) -> Vec<(JobKey, Arc<TestReport>)> {
        let mut reports = Vec::new();
        for (key, tests) in jobs {
            match self.read(&tests.digest).await {
                Ok(report) => reports.push((key.clone(), report)),
                Err(error) => tracing::warn!(job = %key, %error, "a report of tests can't be read"),
            }
        }
        reports
    }

    /// The service's latest runs.
    async fn latest_runs(&self, service: &ServiceName) -> Vec<RunView> {
        let page = self.store.rows(RowQuery {
            service: Some(service.as_str()),
            limit: LOOKED_AT,
            ..RowQuery::new("run")
        });
        let rows = page.await.map(|page| page.rows).unwrap_or_default();
        let views = rows
            .into_iter()
            .filter_map(|row| serde_json::from_value(row.doc).ok());
        views.collect()
    }

    /// The last earlier green run of the workflow with tests: of the same branch, else of the released branch.
    async fn find_base(&self, engines: &DeliveryEngines, view: &RunView) -> Option<RunView> {
        let released = engines.released_branch(&view.id.service).await;
        let mut green: Vec<RunView> = self.latest_runs(&view.id.service).await;
        green.retain(|it| {
            it.number < view.number
                && it.workflow == view.workflow
                && it.conclusion == Some(Conclusion::Success)
                && it.status == RunStatus::Success
                && it.tests.is_some()
        });
        green.sort_by_key(|it| std::cmp::Reverse(it.number));
        let of = |branch: &str| green.iter().find(|it| it.branch == branch).cloned();
        of(&view.branch).or_else(|| of(&released))
    }

    /// The paths that a run's change touches: those of the push, else those of its commit.
    async fn changed_paths(&self, engines: &DeliveryEngines, run: &RunSpec) -> Option<Vec<String>> {
        let repo = self.repositories.get(&run.location().repository)?;
        let parent = format!("{}^", run.commit.id);
        let old = match &run.before {
            Some(before) => Some(before.clone()),
            None if run.event == "push" => None,
            None => repo.resolve(&parent).await.ok().flatten(),
        };
        let update = RefUpdate {
            name: run.reference.clone(),
            old,
            new: Some(run.commit.id.clone()),
        };
        let branch = engines.released_branch(&run.id.service).await;
        repo.changed_paths(&update, &branch).await.ok()
    }
}

/// What a service remembers of its tests.
pub(crate) async fn test_history(engines: &DeliveryEngines, service: &ServiceName) -> TestingState {
    let state = engines.service(service).await.ok().flatten();
    state.map(|state| state.testing.clone()).unwrap_or_default()
}

/// Which tests in quarantine were clean, and which were not.
fn count(
    quarantine: &TestingState,
    tried: &[(RunId, JobKey, Arc<TestReport>)],
    seen: &mut TestResults,
) {
    let judged = tried.iter().filter(|(.., report)| {
        too_many_fail(&testing::TestTotals::from_cases(&report.cases)).is_none()
    });
    let cases: Vec<_> = judged.flat_map(|(.., report)| &report.cases).collect();
    for entry in &quarantine.quarantine {
        let mut mine = cases.iter().filter(|case| case.id == entry.test).peekable();
        let ran = mine.peek().is_some();
        if mine
            .clone()
            .any(|case| case.is_failure() || case.is_flaky())
        {
            seen.failed.push(entry.test.clone());
        } else if ran && mine.any(|case| case.outcome == testing::TestOutcome::Passed) {
            seen.clean.push(entry.test.clone());
        }
    }
}

/// The failing tests; without a run to compare with none is new.
fn failing_tests(
    mine: &[(JobKey, Arc<TestReport>)],
    compared: Option<&TestComparison>,
    memory: &TestingState,
    now: jiff::Timestamp,
) -> Vec<FailingTest> {
    let mut failing: Vec<FailingTest> = Vec::new();
    for (job, report) in mine {
        for case in report.cases.iter().filter(|case| case.is_failure()) {
            let new = |it: &testing::NewFailure| it.test == case.id;
            let flaky = memory.flaky.iter().find(|it| it.test == case.id);
            let quarantine = memory.entry(&case.id).filter(|entry| entry.until > now);
            failing.push(FailingTest {
                test: case.id.clone(),
                job: job.clone(),
                message: case.message.clone(),
                is_new: compared.is_some_and(|compared| compared.new_failures.iter().any(new)),
                flaky_commits: flaky.map_or(0, |it| it.commits),
                quarantine: quarantine.cloned(),
            });
        }
    }
    // What blocks and is new comes first.
    failing.sort_by_key(|it| (it.quarantine.is_some(), !it.is_new));
    failing.truncate(SHOWN_MAX);
    failing
}

/// Why a name is not that of one test.
#[derive(Debug, thiserror::Error)]
pub enum TestNameError {
    #[error("unknown test {name:?}; list failed and flaky tests with `shipway tests {service}`")]
    Unknown { name: String, service: ServiceName },
    #[error("several tests match, name one: {0}")]
    Ambiguous(String),
}

/// The test that is called so, or whose name ends so.
fn match_test(known: &[TestId], text: &str) -> Result<Option<TestId>, TestNameError> {
    if let Some(found) = known.iter().find(|id| id.to_string() == text) {
        return Ok(Some(found.clone()));
    }
    let ends = |id: &&TestId| {
        let name = id.to_string();
        name.strip_suffix(text)
            .is_some_and(|rest| rest.ends_with(['/', '.', ':']))
    };
    let mut found: Vec<&TestId> = known.iter().filter(ends).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        several => {
            let names: Vec<String> = several
                .iter()
                .take(5)
                .map(|id| format!("{id:?}", id = id.to_string()))
                .collect();
            Err(TestNameError::Ambiguous(names.join(", ")))
        }
    }
}
