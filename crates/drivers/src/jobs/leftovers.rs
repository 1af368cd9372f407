//! Removes workspaces, homes and temporary files of ended jobs, and whole folders of old runs. Never removed: folders that are the
//! working directory of a process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use shipway_core::ids::{RunId, RunNumber, ServiceName};
use tokio::task::spawn_blocking;

use super::{JobRunner, RESUME_STATE_FILE, WorkspaceSelection, ownership::OWNER_FILE};
use crate::folder_size::folder_size;

/// How often, and how long apart, a folder is checked for processes. A folder still in use after that is kept like one of a failed job.
const USE_CHECKS: u32 = 50;
const USE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The deleted parts of a job's folder.
const REMOVED_PARTS: [&str; 5] = ["workspace", "home", "temp", "artifacts", RESUME_STATE_FILE];
/// Suffix of a folder that is being deleted, so that a half-deleted one is never used.
const REMOVED_SUFFIX: &str = ".gone";

/// Sibling of the folder of all runs for folders that are being deleted; emptied at each start.
const DISCARDED: &str = "discarded";

impl JobRunner {
    /// The size of a run's folder in bytes; 0 if it has none.
    pub(super) async fn measure_run(&self, run: &RunId) -> u64 {
        let folder = self.run_folder(run);
        let measured = spawn_blocking(move || folder_size(&folder)).await;
        measured.unwrap_or_default()
    }

    /// Removes the folder of a run, unless it was claimed since or a process is in it; returns its size in bytes. The folder is renamed
    /// first: after a crash it is there or gone.
    pub(super) async fn remove_run(
        &self,
        run: &RunId,
        claimed_since: Timestamp,
    ) -> io::Result<Option<u64>> {
        let folder = self.run_folder(run);
        let discarded = self.root.with_file_name(DISCARDED);
        fs::create_dir_all(&discarded)?;
        let to = discarded.join(format!(
            "run-{}-{}",
            run.service,
            Timestamp::now().as_nanosecond()
        ));
        {
            let _no_claim = self.shared.claims.lock().await;
            if !folder.exists() || last_claim(&folder)? >= claimed_since || is_in_use(&folder) {
                return Ok(None);
            }
            fs::rename(&folder, &to)?;
        }
        let removed = spawn_blocking(move || {
            let size = folder_size(&to);
            remove_all(&to).map(|()| Some(size))
        });
        removed.await.map_err(io::Error::other)?
    }
}

/// When a job of the run last started. A run of an older log has no owner.
fn last_claim(folder: &Path) -> io::Result<Timestamp> {
    let owner = fs::metadata(folder.join(OWNER_FILE)).or_else(|_| fs::metadata(folder))?;
    Timestamp::try_from(owner.modified()?).map_err(io::Error::other)
}

/// Removes the leftovers of the selected jobs in a run's folder; returns how many attempts at its jobs still have some. Blocks.
pub(super) fn remove_workspaces(run: &Path, jobs: &WorkspaceSelection) -> usize {
    let mut remaining = 0;
    for job in list_entries(run) {
        let name = job.file_name().unwrap_or_default().to_string_lossy();
        // `build@2`: another attempt at it.
        let key = name.split('@').next().unwrap_or_default();
        let is_selected = match jobs {
            WorkspaceSelection::All => true,
            WorkspaceSelection::Jobs(keys) => keys.iter().any(|it| it.as_str() == key),
        };
        if is_selected && wait_until_unused(&job) {
            remove_leftovers(&job);
        }
        let has_some = REMOVED_PARTS.iter().any(|part| job.join(part).exists());
        remaining += usize::from(has_some);
    }
    remaining
}

/// All runs that have a folder. Blocks.
pub(super) fn list_runs(root: &Path) -> Vec<RunId> {
    let mut runs = Vec::new();
    for service in list_entries(root) {
        let name = service.file_name().unwrap_or_default().to_string_lossy();
        let Ok(service_name) = name.parse::<ServiceName>() else {
            continue;
        };
        for run in list_entries(&service) {
            let number = run.file_name().unwrap_or_default().to_string_lossy();
            if let Ok(number) = number.parse::<RunNumber>() {
                let service = service_name.clone();
                runs.push(RunId { service, number });
            }
        }
    }
    runs
}

/// Removes what one job has left.
fn remove_leftovers(job: &Path) {
    for part in REMOVED_PARTS {
        let (path, renamed) = (job.join(part), job.join(format!("{part}{REMOVED_SUFFIX}")));
        // Renamed first; what an interrupted removal has left goes as well.
        if fs::rename(&path, &renamed).is_err() && !renamed.exists() {
            continue;
        }
        if let Err(error) = remove_all(&renamed) {
            tracing::debug!(%error, path = %renamed.display(), "what a job has left can't be removed");
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
        open.extend(list_entries(&folder).into_iter().filter(is_folder));
    }
    fs::remove_dir_all(path)
}

/// Waits until no process uses a folder; false if one still does. A worker exits shortly after its last journal entry.
fn wait_until_unused(job: &Path) -> bool {
    for _ in 0..USE_CHECKS {
        if !is_in_use(job) {
            return true;
        }
        std::thread::sleep(USE_CHECK_INTERVAL);
    }
    false
}

/// Whether a process has its working directory in a folder.
fn is_in_use(job: &Path) -> bool {
    let processes = list_entries(Path::new("/proc"));
    processes
        .iter()
        .filter_map(|process| fs::read_link(process.join("cwd")).ok())
        .any(|cwd| cwd.starts_with(job))
}

fn list_entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_has_left_goes_and_its_log_stays() {
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("build");
        fs::create_dir_all(job.join("workspace/read-only/below")).unwrap();
        fs::create_dir_all(job.join("temp.gone")).unwrap();
        fs::write(job.join("log"), "kept").unwrap();
        fs::write(job.join(RESUME_STATE_FILE), "with the workspace").unwrap();
        remove_leftovers(&job);
        let left: Vec<PathBuf> = list_entries(&job);
        assert_eq!(left, [job.join("log")]);
    }
}
