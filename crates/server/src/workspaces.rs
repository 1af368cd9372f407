//! Deletes workspaces, homes and temporary files of jobs. Those of green jobs are deleted when their run has ended. Those of failed jobs
//! are kept for inspection, a shell or a re-run from a step, as long as [`RetentionPolicy::workspaces`] says.
//! Logs, journals and summaries stay.
//!
//! Never deleted: workspaces of a run that has not ended.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::StreamExt;
use jiff::Timestamp;
use shipway_core::{
    aggregate::Event,
    ids::RunId,
    retention::RetentionPolicy,
    run::{RunEvent, RunStatus, RunView},
};
use shipway_drivers::jobs::{JobExecutor, WorkspaceSelection};
use shipway_engine::{Clock, Recorded, Store};

use crate::read_models::run_view;

/// How often it is looked whether something has become old.
const EACH: std::time::Duration = std::time::Duration::from_secs(3600);

/// Failed runs whose workspaces are there, by when they ended.
#[derive(Default)]
struct KeptWorkspaces(BTreeSet<(Timestamp, RunId)>);

impl KeptWorkspaces {
    /// Removes entries that are too many and too old; returns each with the end of its run.
    fn expired(&mut self, policy: &RetentionPolicy, now: Timestamp) -> Vec<(Timestamp, RunId)> {
        let mut expired = Vec::new();
        while self.0.len() > policy.failed_runs_min
            && let Some((ended_at, _)) = self.0.first()
            && now.duration_since(*ended_at) > policy.workspaces
        {
            expired.extend(self.0.pop_first());
        }
        expired
    }
}

/// The storage of runs, and the log that says which have ended.
pub(crate) struct RunStorage {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Arc<dyn JobExecutor>,
    pub(crate) policy: RetentionPolicy,
}

/// Tidies up until the server stops.
pub(crate) async fn run(storage: RunStorage) {
    let Ok(now) = storage.store.last_position().await else {
        return;
    };
    let Ok(mut news) = storage.store.subscribe(now).await else {
        return;
    };
    let mut kept = KeptWorkspaces::default();
    for id in storage.executor.list_runs().await {
        tidy(&storage, &id, &mut kept).await;
    }
    loop {
        for (ended_at, id) in kept.expired(&storage.policy, storage.clock.now()) {
            // A run that was re-run in the meantime is kept by its new end, or has not ended.
            if ended(&*storage.store, &id)
                .await
                .is_some_and(|run| run.finished_at == Some(ended_at))
            {
                let executor = &storage.executor;
                executor
                    .remove_workspaces(&id, WorkspaceSelection::All)
                    .await;
            }
        }
        tokio::select! {
            recorded = news.next() => match recorded {
                Some(Ok(recorded)) => {
                    if let Some(id) = ended_run(&recorded) {
                        tidy(&storage, &id, &mut kept).await;
                    }
                }
                Some(Err(_)) | None => return,
            },
            () = tokio::time::sleep(EACH) => {}
        }
    }
}

/// The run that an event ends: its service has been notified, and nothing of the run is still to be stored.
fn ended_run(recorded: &Recorded) -> Option<RunId> {
    let id = run_of(&recorded.stream)?;
    let event: Event<RunEvent> = serde_json::from_str(&recorded.event).ok()?;
    matches!(event.body, RunEvent::ServiceNotified).then_some(id)
}

/// `run/shop/12`
fn run_of(stream: &str) -> Option<RunId> {
    let mut parts = stream.strip_prefix("run/")?.split('/');
    Some(RunId {
        service: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
    })
}

/// A run, if it has ended.
async fn ended(log: &dyn Store, id: &RunId) -> Option<RunView> {
    let run = run_view(log, id).await.ok()?;
    run.finished_at.is_some().then_some(run)
}

/// Deletes the files of a finished run's green jobs, and adds the run to `kept` if files of other jobs remain.
async fn tidy(storage: &RunStorage, id: &RunId, kept: &mut KeptWorkspaces) {
    let Some((run, ended_at)) = ended(&*storage.store, id).await.and_then(|run| {
        let ended_at = run.finished_at?;
        Some((run, ended_at))
    }) else {
        return;
    };
    let green = run
        .jobs
        .iter()
        .filter(|job| job.status == RunStatus::Success)
        .filter_map(|job| job.key.parse().ok())
        .collect();
    let left = storage
        .executor
        .remove_workspaces(id, WorkspaceSelection::Jobs(green))
        .await;
    if left > 0 {
        kept.0.insert((ended_at, id.clone()));
    }
}

#[cfg(test)]
mod tests {

    use shipway_core::ids::RunNumber;

    use super::*;

    fn run(number: u32) -> RunId {
        RunId {
            service: "shop".parse().unwrap(),
            number: RunNumber(number),
        }
    }

    #[test]
    fn failed_runs_are_kept_for_a_week_and_the_last_twenty_for_ever() {
        let policy = RetentionPolicy::default();
        let mut kept = KeptWorkspaces::default();
        let day = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        for number in 0..25 {
            let ended = day(i64::from(number));
            kept.0.insert((ended, run(number)));
        }
        let mut expired = |at| -> Vec<RunId> {
            let expired = kept.expired(&policy, day(at)).into_iter();
            expired.map(|(_, run)| run).collect()
        };
        assert_eq!(expired(7), [], "none is older than a week");
        assert_eq!(expired(10), [run(0), run(1), run(2)]);
        let rest = expired(1_000);
        assert_eq!(rest, [run(3), run(4)]);
        assert_eq!(kept.0.len(), policy.failed_runs_min);
    }

    #[test]
    fn only_the_last_event_of_a_run_ends_it() {
        let by = || shipway_core::access::Principal::person("service_notified").actor();
        let recorded = |stream: &str, body| Recorded {
            position: 1,
            stream: stream.to_owned(),
            version: 1,
            event: serde_json::to_string(&Event {
                at: Timestamp::UNIX_EPOCH,
                by: by(),
                body,
            })
            .unwrap(),
        };
        let end = recorded("run/shop/12", RunEvent::ServiceNotified);
        assert_eq!(ended_run(&end), Some(run(12)));
        let other_stream = recorded("rollout/shop/12", RunEvent::ServiceNotified);
        assert_eq!(ended_run(&other_stream), None);
        let cancelled = RunEvent::CancellationRequested {
            reason: "service_notified".to_owned(),
        };
        assert_eq!(ended_run(&recorded("run/shop/12", cancelled)), None);
    }
}
