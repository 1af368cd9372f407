//! Deletes workspaces, homes and temporary files of jobs. Those of green jobs are deleted when their run has ended. Those of failed jobs
//! are kept for inspection, a shell or a re-run from a step: for the last [`KEPT_RUNS`] failed runs, and for [`KEPT_FOR`] in any case.
//! Logs, journals and summaries stay.
//!
//! Never deleted: folders of a run that has not ended, and folders that are the working directory of a process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use shipway_core::{
    aggregate::Event,
    ids::{RunId, RunNumber, ServiceName},
    run::{RunEvent, RunStatus, RunView},
};
use shipway_drivers::jobs::RESUME_STATE_FILE;
use shipway_engine::{Clock, Recorded, Store};

use crate::read_models::run_view;

/// Failed runs whose workspaces are kept however old they are.
const KEPT_RUNS: usize = 20;
/// How long those of the others are.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often it is looked whether something has become old.
const EACH: std::time::Duration = std::time::Duration::from_secs(3600);

/// How often, and how long apart, a folder is checked for processes. A folder still in use after that is kept like one of a failed job.
const LOOKS: u32 = 50;
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_millis(100);

/// The deleted parts of a job's folder.
const PARTS: [&str; 5] = ["workspace", "home", "temp", "artifacts", RESUME_STATE_FILE];
/// Suffix of a folder that is being deleted, so that a half-deleted one is never used.
const GONE: &str = ".gone";

/// Failed runs whose workspaces are there, by when they ended.
#[derive(Default)]
struct KeptWorkspaces(BTreeMap<(Timestamp, PathBuf), RunId>);

impl KeptWorkspaces {
    /// Removes entries that are too many and too old; returns each with the end of its run.
    fn expired(&mut self, now: Timestamp) -> Vec<(Timestamp, RunId)> {
        let mut expired = Vec::new();
        while self.0.len() > KEPT_RUNS
            && let Some(oldest) = self.0.first_entry()
            && now.duration_since(oldest.key().0) > KEPT_FOR
        {
            let ended_at = oldest.key().0;
            expired.push((ended_at, oldest.remove()));
        }
        expired
    }
}

/// The folders of runs, and the log that says which have ended.
pub(crate) struct RunFolders {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// `DATA/runs`
    pub(crate) root: PathBuf,
}

/// Tidies up until the server stops.
pub(crate) async fn run(folders: RunFolders) {
    let Ok(now) = folders.store.last_position().await else {
        return;
    };
    let Ok(mut news) = folders.store.subscribe(now).await else {
        return;
    };
    let mut kept = KeptWorkspaces::default();
    for id in runs_below(&folders.root).await {
        tidy(&folders, &id, &mut kept).await;
    }
    loop {
        for (ended_at, id) in kept.expired(folders.clock.now()) {
            // A run that was re-run in the meantime is kept by its new end, or has not ended.
            if ended(&*folders.store, &id)
                .await
                .is_some_and(|run| run.finished_at == Some(ended_at))
            {
                remove_in(folder_of(&folders.root, &id), |_| true).await;
            }
        }
        tokio::select! {
            recorded = news.next() => match recorded {
                Some(Ok(recorded)) => {
                    if let Some(id) = ended_run(&recorded) {
                        tidy(&folders, &id, &mut kept).await;
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

fn folder_of(root: &Path, id: &RunId) -> PathBuf {
    let runs = root.join(id.service.as_str());
    runs.join(id.number.0.to_string())
}

/// A run, if it has ended.
async fn ended(log: &dyn Store, id: &RunId) -> Option<RunView> {
    let run = run_view(log, id).await.ok()?;
    run.finished_at.is_some().then_some(run)
}

/// Deletes the files of a finished run's green jobs, and adds the run to `kept` if files of other jobs remain.
async fn tidy(folders: &RunFolders, id: &RunId, kept: &mut KeptWorkspaces) {
    let Some((run, ended_at)) = ended(&*folders.store, id).await.and_then(|run| {
        let ended_at = run.finished_at?;
        Some((run, ended_at))
    }) else {
        return;
    };
    let green: Vec<String> = run
        .jobs
        .iter()
        .filter(|job| job.status == RunStatus::Success)
        .map(|job| job.key.clone())
        .collect();
    let folder = folder_of(&folders.root, id);
    let left = remove_in(folder.clone(), move |job| {
        green.iter().any(|key| key == job)
    })
    .await;
    if left > 0 {
        kept.0.insert((ended_at, folder), id.clone());
    }
}

/// Removes what the jobs in a run's folder have left that are to go; how many are left with something.
async fn remove_in(run: PathBuf, goes: impl Fn(&str) -> bool + Send + 'static) -> usize {
    let work = tokio::task::spawn_blocking(move || {
        let mut left = 0;
        for job in entries(&run) {
            let name = job.file_name().unwrap_or_default().to_string_lossy();
            // `build@2`: another attempt at it.
            let key = name.split('@').next().unwrap_or_default();
            if goes(key) && has_leftovers(&job) {
                remove(&job);
            }
            left += usize::from(PARTS.iter().any(|part| job.join(part).exists()));
        }
        left
    });
    work.await.unwrap_or(0)
}

/// Removes what one job has left.
fn remove(job: &Path) {
    for part in PARTS {
        let (path, gone) = (job.join(part), job.join(format!("{part}{GONE}")));
        // Renamed first; what an interrupted removal has left goes as well.
        if fs::rename(&path, &gone).is_err() && !gone.exists() {
            continue;
        }
        if let Err(error) = remove_all(&gone) {
            tracing::debug!(%error, path = %gone.display(), "what a job has left can't be removed");
        }
    }
}

/// Removes a folder; steps like to leave folders that may not be written to.
fn remove_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.symlink_metadata()?.is_file() {
        return fs::remove_file(path);
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
        let is_folder = |path: &PathBuf| path.symlink_metadata().is_ok_and(|it| it.is_dir());
        open.extend(entries(&folder).into_iter().filter(is_folder));
    }
    fs::remove_dir_all(path)
}

/// Waits until no process uses a folder; false if one still does. A worker exits shortly after its last journal entry.
fn has_leftovers(job: &Path) -> bool {
    for _ in 0..LOOKS {
        if !is_in_use(job) {
            return true;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    false
}

/// Whether a process has its working directory in a folder.
fn is_in_use(job: &Path) -> bool {
    let processes = entries(Path::new("/proc"));
    processes
        .iter()
        .filter_map(|process| fs::read_link(process.join("cwd")).ok())
        .any(|cwd| cwd.starts_with(job))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// All runs that have a folder.
async fn runs_below(root: &Path) -> Vec<RunId> {
    let root = root.to_owned();
    let work = tokio::task::spawn_blocking(move || {
        let mut runs = Vec::new();
        for service in entries(&root) {
            let name = service.file_name().unwrap_or_default().to_string_lossy();
            let Ok(service_name) = name.parse::<ServiceName>() else {
                continue;
            };
            for run in entries(&service) {
                let number = run.file_name().unwrap_or_default().to_string_lossy();
                if let Ok(number) = number.parse::<RunNumber>() {
                    let service = service_name.clone();
                    runs.push(RunId { service, number });
                }
            }
        }
        runs
    });
    work.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {

    use super::*;

    fn run(number: u32) -> RunId {
        RunId {
            service: "shop".parse().unwrap(),
            number: RunNumber(number),
        }
    }

    #[test]
    fn failed_runs_are_kept_for_a_week_and_the_last_twenty_for_ever() {
        let mut kept = KeptWorkspaces::default();
        let day = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        for number in 0..25 {
            let ended = day(i64::from(number));
            kept.0
                .insert((ended, number.to_string().into()), run(number));
        }
        let mut expired = |at| -> Vec<RunId> {
            let expired = kept.expired(day(at)).into_iter();
            expired.map(|(_, run)| run).collect()
        };
        assert_eq!(expired(7), [], "none is older than a week");
        assert_eq!(expired(10), [run(0), run(1), run(2)]);
        let rest = expired(1_000);
        assert_eq!(rest, [run(3), run(4)]);
        assert_eq!(kept.0.len(), KEPT_RUNS);
    }

    #[test]
    fn what_a_job_has_left_goes_and_its_log_stays() {
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("build");
        fs::create_dir_all(job.join("workspace/read-only/below")).unwrap();
        fs::create_dir_all(job.join("temp.gone")).unwrap();
        fs::write(job.join("log"), "kept").unwrap();
        fs::write(job.join(RESUME_STATE_FILE), "with the workspace").unwrap();
        remove(&job);
        let left: Vec<PathBuf> = entries(&job);
        assert_eq!(left, [job.join("log")]);
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
