//! Sets of instances on this machine: their specification on disk, and their supervised slots.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shipway_core::target::{
    InstanceId, InstanceStatus, ReplicaSetKey, SetAvailability, Workload, WorkloadCommand,
};
use tokio::sync::watch;

use super::{
    ArtifactSource, SecretResolver,
    artifact::{self, APP},
    command::process_command,
    environment::{self, InstanceFolders},
    instance::{self, SupervisedSlot},
    instance_log::LOG,
    shim::write_json,
    target_state::TargetState,
};
use crate::{
    checks::exec::command_output,
    procfs,
    tail::stream_file,
    target::{
        CommandError, CommandRunner, LogEnd, LogError, LogStream, SetCommand, StopReport, Target,
        TargetError,
    },
};

/// Options of the process target.
pub struct ProcessTargetOptions {
    /// The folder of the sets.
    pub root: PathBuf,
    /// Root of the folders that services keep across releases (`DATA_DIR`): `SERVICE/ENVIRONMENT`.
    pub data: PathBuf,
    /// The shim's command; the instance's folder is appended.
    pub shim: Vec<OsString>,
    /// Source of artifacts.
    pub artifacts: Arc<dyn ArtifactSource>,
    /// Source of secrets.
    pub secrets: SecretResolver,
}

const SET: &str = "set.json";
/// Sibling of the folder of all sets, for folders of releases that are not in the log.
const SET_ASIDE: &str = "set-aside";
/// Sibling of the folder of all sets, for folders that are being deleted.
const DISCARDED: &str = "discarded";
/// Number of folders of stopped sets that are kept for their logs.
const STOPPED_MAX: usize = 30;

/// The specification of a set, as stored in `set.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredSet {
    key: ReplicaSetKey,
    launch: Workload,
    count: u32,
    /// Instances whose code is unpacked for a start to come; sets of earlier versions don't have it.
    #[serde(default)]
    prepared: u32,
    /// Boot id of the machine when the artifact was unpacked. Its files are not synced: after a power failure they may be empty,
    /// and are unpacked again.
    #[serde(default)]
    boot: String,
}

/// How many instances of a set run, and how many have their code.
#[derive(Clone, Copy, Debug)]
struct SetScale {
    running: u32,
    unpacked: u32,
}

/// Runs instances as processes on this machine.
///
/// Dropping it leaves the instances running; the next target resumes them.
pub struct ProcessTarget {
    root: PathBuf,
    artifacts: Arc<dyn ArtifactSource>,
    shared: Arc<TargetState>,
    boot: String,
    /// Number of folders that were discarded.
    discarded: AtomicU64,
    /// One lock per set: its operations run one after the other.
    sets: Mutex<BTreeMap<ReplicaSetKey, Arc<tokio::sync::Mutex<SlotMap>>>>,
}

type SlotMap = BTreeMap<u32, SupervisedSlot>;

impl ProcessTarget {
    /// Opens the target, resumes running instances and starts missing ones. When it returns, all of them are in
    /// [`Target::instances`]; an instance that was ready counts as ready until its probes fail.
    pub async fn open(options: ProcessTargetOptions) -> io::Result<Self> {
        fs::create_dir_all(&options.root)?;
        // Absolute, because instances run in another folder.
        let data = std::path::absolute(&options.data)?;
        let target = Self {
            root: fs::canonicalize(&options.root)?,
            artifacts: options.artifacts,
            shared: Arc::new(TargetState::new(options.shim, options.secrets, data)),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            discarded: AtomicU64::new(0),
            sets: Mutex::default(),
        };
        // What the last server did not finish to delete.
        let discarded = target.root.with_file_name(DISCARDED);
        tokio::task::spawn_blocking(move || fs::remove_dir_all(discarded));
        for entry in fs::read_dir(&target.root)?.flatten() {
            let Ok(bytes) = fs::read(entry.path().join(SET)) else {
                continue;
            };
            match serde_json::from_slice::<StoredSet>(&bytes) {
                Ok(set) => target.resume_set(set).await,
                Err(error) => {
                    tracing::error!(%error, folder = %entry.path().display(), "a set can't be read; its instances are not supervised")
                }
            }
        }
        Ok(target)
    }

    async fn resume_set(&self, mut set: StoredSet) {
        let folder = self.set_folder(&set.key);
        let running: Vec<u32> = slots_on_disk(&folder)
            .filter(|slot| instance::is_running(&folder.join(slot.to_string())))
            .collect();
        if set.count == 0 && set.prepared == 0 && running.is_empty() {
            self.retire_set(&set.key).await;
            return;
        }
        if set.boot != self.boot && running.is_empty() {
            self.unpack_after_boot(&mut set).await;
        }
        let slots = self.set_slots(&set.key);
        let mut slots = slots.lock().await;
        self.start_slots(&mut slots, &set).await;
        // The last server was killed while stopping these.
        let launch = Arc::new(set.launch.clone());
        for slot in running.into_iter().filter(|slot| *slot > set.count) {
            let slot = slots
                .entry(slot)
                .or_insert_with(|| self.supervise_slot(&set.key, slot, launch.clone()));
            slot.request_stop();
        }
    }

    async fn unpack_after_boot(&self, set: &mut StoredSet) {
        let folder = self.set_folder(&set.key);
        self.remove_code(&folder);
        match self
            .unpack_code(&folder, &set.launch, set.count.max(set.prepared))
            .await
        {
            Ok(()) => {
                set.boot.clone_from(&self.boot);
                if let Err(error) = write_json(&folder, SET, set) {
                    tracing::warn!(%error, folder = %folder.display(), "a set will be unpacked again");
                }
            }
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "the machine was restarted; using the unpacked artifact that is there")
            }
        }
    }

    /// Unpacks the artifact for each slot that has no code yet.
    async fn unpack_code(
        &self,
        folder: &Path,
        launch: &Workload,
        count: u32,
    ) -> Result<(), TargetError> {
        let WorkloadCommand { artifact, .. } = process_command(launch)?;
        for slot in 1..=count {
            let app = folder.join(slot.to_string()).join(APP);
            artifact::unpack_artifact(&*self.artifacts, artifact, &app).await?;
        }
        Ok(())
    }

    /// Where commands of a set run: the code of its first instance.
    fn command_folder(&self, set: &ReplicaSetKey) -> PathBuf {
        let folder = self.set_folder(set);
        let mut slots: Vec<u32> = slots_on_disk(&folder).collect();
        slots.sort_unstable();
        let of_slots = slots
            .into_iter()
            .map(|slot| folder.join(slot.to_string()).join(APP));
        let mut apps = of_slots.filter(|app| app.exists());
        apps.next().unwrap_or_else(|| folder.join(APP))
    }

    /// Moves the code of all slots away, and deletes it in the background: big folders take their time, and no rollout waits for it.
    fn remove_code(&self, folder: &Path) {
        let slots = slots_on_disk(folder).map(|slot| folder.join(slot.to_string()));
        for parent in slots.chain([folder.to_owned()]) {
            let _ = fs::remove_file(parent.join(APP).with_extension(artifact::UNPACKED));
            self.discard_folder(&parent.join(APP));
        }
    }

    /// Deletes a folder in the background.
    fn discard_folder(&self, folder: &Path) {
        if !folder.exists() {
            return;
        }
        let discarded = self.root.with_file_name(DISCARDED);
        let _ = fs::create_dir_all(&discarded);
        let number = self.discarded.fetch_add(1, Ordering::Relaxed);
        let to = discarded.join(format!("{}.{number}", std::process::id()));
        // Where it can't be moved it is deleted where it is.
        let doomed = match fs::rename(folder, &to) {
            Ok(()) => to,
            Err(_) => folder.to_owned(),
        };
        if doomed == folder {
            let _ = fs::remove_dir_all(doomed);
        } else {
            tokio::task::spawn_blocking(move || fs::remove_dir_all(doomed));
        }
    }

    fn set_folder(&self, set: &ReplicaSetKey) -> PathBuf {
        self.root.join(format!(
            "{}.{}.{}",
            set.place.service,
            set.place.environment,
            set.release.plain()
        ))
    }

    fn set_slots(&self, set: &ReplicaSetKey) -> Arc<tokio::sync::Mutex<SlotMap>> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.entry(set.clone()).or_default().clone()
    }

    /// Starts supervising the slots that aren't supervised.
    async fn start_slots(&self, slots: &mut SlotMap, set: &StoredSet) {
        let launch = Arc::new(set.launch.clone());
        for number in 1..=set.count {
            if let Some(slot) = slots.get_mut(&number) {
                if slot.is_desired() {
                    continue;
                }
                // Still stopping after a cancelled stop.
                slot.wait_until_gone().await;
            }
            slots.insert(
                number,
                self.supervise_slot(&set.key, number, launch.clone()),
            );
        }
    }

    fn supervise_slot(
        &self,
        set: &ReplicaSetKey,
        slot: u32,
        launch: Arc<Workload>,
    ) -> SupervisedSlot {
        let folder = self.set_folder(set);
        let id = InstanceId {
            set: set.clone(),
            slot,
        };
        SupervisedSlot::supervise(id, launch, &folder, self.shared.clone())
    }

    fn read_set(&self, set: &ReplicaSetKey) -> Option<StoredSet> {
        serde_json::from_slice(&fs::read(self.set_folder(set).join(SET)).ok()?).ok()
    }

    /// Stored before anything is stopped, so that the next server doesn't start it again. Must not fail: a full disk must not
    /// keep instances running.
    fn store_stop(&self, set: &ReplicaSetKey, keep: u32) {
        let Some(mut told) = self.read_set(set) else {
            return;
        };
        told.count = told.count.min(keep);
        told.prepared = told.count;
        let folder = self.set_folder(set);
        if let Err(error) = write_json(&folder, SET, &told) {
            tracing::warn!(%error, folder = %folder.display(), "the stop of a set could not be saved");
        }
    }

    /// Checks the workload, unpacks its code and saves the set, before anything is started or stopped.
    async fn store_set(
        &self,
        slots: &mut SlotMap,
        set: &ReplicaSetKey,
        launch: &Workload,
        scale: SetScale,
    ) -> Result<StoredSet, TargetError> {
        process_command(launch)?;
        let id = InstanceId {
            set: set.clone(),
            slot: 1,
        };
        // Check secrets now, before an instance fails to start.
        let folders = InstanceFolders::default();
        environment::instance_environment(&id, launch, &folders, 0, &self.shared.secrets)?;
        let found = self.read_set(set);
        let is_other = |known: &StoredSet| !is_same_release(&known.launch, launch);
        if found.as_ref().is_some_and(is_other) {
            let moved = self.set_aside(set, slots).await;
            moved.map_err(io_error("moving another release's instances aside"))?;
        }
        let known = found.filter(|known| !is_other(known));
        let folder = self.set_folder(set);
        fs::create_dir_all(&folder).map_err(io_error("creating the set's folder"))?;
        if known.is_none() {
            // This folder belongs to no set: it was never stored or was removed.
            self.remove_code(&folder);
        }
        let running = scale
            .running
            .max(known.as_ref().map_or(0, |known| known.count));
        let prepared = running.max(scale.unpacked);
        self.unpack_code(&folder, launch, prepared).await?;
        let stored = StoredSet {
            key: set.clone(),
            launch: launch.clone(),
            count: running,
            prepared,
            boot: known.map_or_else(|| self.boot.clone(), |known| known.boot),
        };
        write_json(&folder, SET, &stored).map_err(io_error("saving the spec of the set"))?;
        Ok(stored)
    }

    /// Stops the instances of another release of the same number, which the log has lost, and moves their folder aside.
    async fn set_aside(&self, set: &ReplicaSetKey, slots: &mut SlotMap) -> io::Result<()> {
        self.store_stop(set, 0);
        slots.values().for_each(SupervisedSlot::request_stop);
        while let Some(mut last) = slots.last_entry() {
            last.get_mut().wait_until_gone().await;
            last.remove();
        }
        let folder = self.set_folder(set);
        let aside = self.root.with_file_name(SET_ASIDE);
        fs::create_dir_all(&aside)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let to = (1_u32..)
            .map(|count| aside.join(format!("instances-{name}.{count}")))
            .find(|path| !path.exists())
            .expect("there are more numbers than folders");
        tracing::warn!(set = %name, to = %to.display(), "instances of a release that is not in the log were stopped and moved aside; has the event log lost its last events?");
        fs::rename(folder, to)
    }

    /// Removes the artifact; the logs stay for a while.
    async fn retire_set(&self, set: &ReplicaSetKey) {
        self.shared.remove_availability(set);
        let (root, folder) = (self.root.clone(), self.set_folder(set));
        let _ = fs::remove_file(folder.join(SET));
        self.remove_code(&folder);
        for slot in slots_on_disk(&folder) {
            for name in ["home", "tmp"] {
                self.discard_folder(&folder.join(slot.to_string()).join(name));
            }
        }
        // Failures are retried when the next set is removed.
        let _ = tokio::task::spawn_blocking(move || remove_oldest_stopped(&root)).await;
    }
}

/// Whether two launches with the same release number are the same release. A log that lost its last events reuses a number, and
/// instances of the lost release must not be taken for the new one.
fn is_same_release(one: &Workload, other: &Workload) -> bool {
    one.program == other.program && one.env == other.env
}

fn slots_on_disk(folder: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn remove_oldest_stopped(root: &Path) {
    let mut stopped: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !entry.path().join(SET).exists())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    stopped.sort();
    let too_many = stopped.len().saturating_sub(STOPPED_MAX);
    for (_, path) in stopped.into_iter().take(too_many) {
        let _ = fs::remove_dir_all(path);
    }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> TargetError {
    let what = what.to_owned();
    move |source| TargetError::Io { what, source }
}

#[async_trait]
impl Target for ProcessTarget {
    async fn prepare(
        &self,
        set: &ReplicaSetKey,
        launch: &Workload,
        count: u32,
    ) -> Result<(), TargetError> {
        let slots = self.set_slots(set);
        let mut slots = slots.lock().await;
        let scale = SetScale {
            running: 0,
            unpacked: count,
        };
        self.store_set(&mut slots, set, launch, scale).await?;
        Ok(())
    }

    async fn ensure(
        &self,
        set: &ReplicaSetKey,
        launch: &Workload,
        count: u32,
    ) -> Result<(), TargetError> {
        let slots = self.set_slots(set);
        let mut slots = slots.lock().await;
        let scale = SetScale {
            running: count,
            unpacked: count,
        };
        let stored = self.store_set(&mut slots, set, launch, scale).await?;
        self.start_slots(&mut slots, &stored).await;
        Ok(())
    }

    async fn stop(&self, set: &ReplicaSetKey, keep: u32) -> Result<StopReport, TargetError> {
        let slots = self.set_slots(set);
        let mut slots = slots.lock().await;
        let told = self.read_set(set);
        let mut report = StopReport {
            request: told.map(|told| (told.launch.stop_signal, told.launch.grace)),
            ..StopReport::default()
        };
        self.store_stop(set, keep);
        let beyond = keep.saturating_add(1);
        // Stop all at once, then wait for each: together they take as long as the slowest.
        slots
            .range(beyond..)
            .for_each(|(_, slot)| slot.request_stop());
        while let Some(mut last) = slots.last_entry().filter(|last| *last.key() >= beyond) {
            let slot = *last.key();
            if last
                .get_mut()
                .wait_until_gone()
                .await
                .is_some_and(|end| end.grace_exceeded)
            {
                report.killed.push(InstanceId {
                    set: set.clone(),
                    slot,
                });
            }
            last.remove();
        }
        report.killed.sort();
        if keep == 0 {
            report.written_files = self.written_files(set).await;
            self.retire_set(set).await;
        }
        Ok(report)
    }

    async fn written_files(&self, set: &ReplicaSetKey) -> Vec<String> {
        let folder = self.set_folder(set);
        // Big folders take their time.
        let found = tokio::task::spawn_blocking(move || {
            let slots = slots_on_disk(&folder).map(|slot| folder.join(slot.to_string()));
            let folders = slots.chain([folder.clone()]).map(|it| it.join(APP));
            let all: BTreeSet<String> = folders
                .flat_map(|app| artifact::find_written_files(&app))
                .collect();
            all.into_iter().collect()
        });
        found.await.unwrap_or_default()
    }

    fn instances(&self) -> Vec<InstanceStatus> {
        self.shared.statuses()
    }

    fn measure(&self, instances: &mut [InstanceStatus]) {
        let pids: Vec<u32> = instances.iter().filter_map(|status| status.pid).collect();
        let usage = procfs::measure_usage(&pids);
        for status in instances {
            status.usage = status.pid.and_then(|pid| usage.get(&pid)).copied();
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.subscribe()
    }

    fn crash_loop(&self, set: &ReplicaSetKey) -> Option<String> {
        self.shared.crash_loop(set)
    }

    fn availability(&self, set: &ReplicaSetKey) -> SetAvailability {
        self.shared.set_availability(set)
    }

    fn read_log(
        &self,
        instance: &InstanceId,
        offset: u64,
        end: LogEnd,
    ) -> Result<LogStream, LogError> {
        let slot = self
            .set_folder(&instance.set)
            .join(instance.slot.to_string());
        let path = slot.join(LOG);
        if !path.exists() {
            return Err(LogError::Missing(instance.clone()));
        }
        let is_over = {
            let (shared, instance) = (self.shared.clone(), instance.clone());
            move || std::future::ready(!shared.has_instance(&instance))
        };
        let follow = (end == LogEnd::Stopped).then_some(is_over);
        Ok(stream_file(&path, offset, follow)?)
    }
}

#[async_trait]
impl CommandRunner for ProcessTarget {
    async fn run_command(
        &self,
        set: &ReplicaSetKey,
        command: &SetCommand<'_>,
    ) -> Result<String, CommandError> {
        command_output(command, &self.command_folder(set)).await
    }
}
