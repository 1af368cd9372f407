//! Tracks which run a folder below `runs/` belongs to.
//!
//! # Why
//!
//! Folders are named by a run's number. A log that lost its last events reuses a number, and the journals, logs and workspaces
//! of the lost run would be taken for those of the new one: jobs that never ran would have succeeded, with the lost run's
//! artifacts.
//!
//! # Invariants
//!
//! - The file [`OWNER_FILE`] in a folder contains the uid of its run, from the moment the folder exists.
//! - A folder of another run is moved aside completely, after the processes in it were killed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use shipway_core::ids::{RunId, RunUid};
use shipway_worker::remove_leftover_containers;

use super::{JobRunner, find_worker};
use shipway_targets::procfs::kill_session;

/// File name, in a run's folder, of its uid.
pub(super) const OWNER_FILE: &str = "run-uid";
/// Sibling of the folder of all runs, for folders of runs that are not in the log.
const SET_ASIDE: &str = "set-aside";

impl JobRunner {
    /// Claims the folder of a run; returns where the folder of another run with its number was moved. Idempotent. A crash in
    /// between leaves the folder to the other run, or missing.
    pub async fn claim_folder(&self, run: &RunId, uid: &RunUid) -> io::Result<Option<PathBuf>> {
        let folder = self.run_folder(run);
        let _only_one = self.shared.claims.lock().await;
        if is_owned_by(&folder, uid) {
            // A removal that was decided before leaves the folder alone.
            File::open(folder.join(OWNER_FILE))?.set_modified(SystemTime::now())?;
            return Ok(None);
        }
        let mut moved = None;
        if !is_empty(&folder) {
            for job in fs::read_dir(&folder)?.flatten() {
                kill_worker(&job.path()).await;
            }
            let aside = self.root.with_file_name(SET_ASIDE);
            private_folders().create(&aside)?;
            let to = unused_name(&aside, &format!("run-{}-{}", run.service, run.number.0));
            fs::rename(&folder, &to)?;
            moved = Some(to);
        }
        create_owned(&folder, uid)?;
        Ok(moved)
    }
}

fn private_folders() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

fn is_owned_by(folder: &Path, uid: &RunUid) -> bool {
    fs::read_to_string(folder.join(OWNER_FILE)).is_ok_and(|owner| owner.trim() == uid.as_str())
}

/// Whether the folder is empty or missing.
fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

/// Kills the worker and the steps of a run that is not in the log: they would write below its old path.
async fn kill_worker(job: &Path) {
    if let Some(worker) = find_worker(job).filter(|worker| worker.is_alive()) {
        tracing::warn!(job = %job.display(), "a job of a run that is not in the log is killed");
        kill_session(worker).await;
        remove_leftover_containers(job).await;
    }
}

fn unused_name(folder: &Path, name: &str) -> PathBuf {
    let candidates = (1_u32..).map(|count| folder.join(format!("{name}.{count}")));
    candidates
        .into_iter()
        .find(|path| !path.exists())
        .expect("there are more numbers than folders")
}

/// Creates the folder atomically with its owner file, created under a temporary name and renamed.
fn create_owned(folder: &Path, uid: &RunUid) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    private_folders().create(parent)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let beside = parent.join(format!(".{name}.{}", uid.as_str()));
    private_folders().create(&beside)?;
    let mut owner = File::create(beside.join(OWNER_FILE))?;
    owner.write_all(uid.as_str().as_bytes())?;
    owner.set_modified(SystemTime::now())?;
    owner.sync_all()?;
    fs::rename(&beside, folder)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UIDS: [&str; 2] = ["aaaaaaaa-1111", "bbbbbbbb-2222"];

    #[tokio::test]
    async fn a_folder_of_another_run_of_the_same_number_is_moved_aside() {
        let data = tempfile::tempdir().unwrap();
        let jobs = JobRunner::new("shipway".into(), data.path().join("runs"));
        let run: RunId = "shop/r1".parse().unwrap();
        let [one, other] = UIDS.map(|uid| uid.parse::<RunUid>().unwrap());
        assert_eq!(jobs.claim_folder(&run, &one).await.unwrap(), None);
        let folder = data.path().join("runs/shop/1");
        fs::create_dir(folder.join("build")).unwrap();
        fs::write(folder.join("build/journal.jsonl"), "{}\n").unwrap();
        assert_eq!(jobs.claim_folder(&run, &one).await.unwrap(), None);
        assert!(folder.join("build").exists(), "its own folder stays");
        let moved = jobs.claim_folder(&run, &other).await.unwrap().unwrap();
        assert_eq!(moved, data.path().join("set-aside/run-shop-1.1"));
        assert!(moved.join("build/journal.jsonl").exists());
        assert!(!folder.join("build").exists());
        assert!(is_owned_by(&folder, &other));
    }

    #[tokio::test]
    async fn the_folder_of_a_run_is_removed_unless_it_was_claimed_since() {
        let data = tempfile::tempdir().unwrap();
        let jobs = JobRunner::new("shipway".into(), data.path().join("runs"));
        let run: RunId = "shop/r1".parse().unwrap();
        let uid: RunUid = UIDS[0].parse().unwrap();
        let planned_at = jiff::Timestamp::now();
        assert_eq!(jobs.remove_run(&run, planned_at).await.unwrap(), None);
        jobs.claim_folder(&run, &uid).await.unwrap();
        let folder = data.path().join("runs/shop/1");
        fs::create_dir_all(folder.join("build/workspace")).unwrap();
        fs::write(folder.join("build/log"), "x".repeat(9_000)).unwrap();
        assert_eq!(jobs.remove_run(&run, planned_at).await.unwrap(), None);

        let planned_at = jiff::Timestamp::now();
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(folder.join("build/workspace"))
            .spawn()
            .unwrap();
        let while_used = jobs.remove_run(&run, planned_at).await;
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(while_used.unwrap(), None, "a person has a shell there");
        jobs.claim_folder(&run, &uid).await.unwrap();
        let removed = jobs.remove_run(&run, planned_at).await.unwrap();
        assert_eq!(removed, None, "a job was started again");

        let size = jobs.measure_run(&run).await;
        let removed = jobs.remove_run(&run, jiff::Timestamp::now()).await.unwrap();
        assert_eq!(removed, Some(size));
        assert!(size > 9_000 && !folder.exists());
        let left = fs::read_dir(data.path().join("discarded")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_folder_without_an_owner_is_moved_aside_unless_it_is_empty() {
        let data = tempfile::tempdir().unwrap();
        let jobs = JobRunner::new("shipway".into(), data.path().join("runs"));
        let run: RunId = "shop/r7".parse().unwrap();
        let uid: RunUid = UIDS[0].parse().unwrap();
        let folder = data.path().join("runs/shop/7");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(jobs.claim_folder(&run, &uid).await.unwrap(), None);
        fs::remove_file(folder.join(OWNER_FILE)).unwrap();
        fs::create_dir(folder.join("build")).unwrap();
        assert!(jobs.claim_folder(&run, &uid).await.unwrap().is_some());
        assert!(!folder.join("build").exists());
    }
}
