//! Sets of instances on this machine.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shipway_core::target::{InstanceId, InstanceStatus, Launch, Place, SetKey};
use tokio::sync::watch;

use super::{
    Artifacts, SecretResolver, artifact,
    instance::{Slot, Supervisor},
    proc::usage_by_group,
    shim::{LOG, write_whole},
};
use crate::target::{Target, TargetError};

/// How the target is opened.
pub struct Options {
    /// The folder of the sets.
    pub root: PathBuf,
    /// The shim's command; the instance's folder is added to it.
    pub shim: Vec<OsString>,
    /// Where artifacts come from.
    pub artifacts: Arc<dyn Artifacts>,
    /// Where secrets come from.
    pub secrets: SecretResolver,
}

const SET: &str = "set.json";
const APP: &str = "app";
/// Folders of stopped sets that are kept for their logs.
const STOPPED_MAX: usize = 30;

/// What a set was told, as it stands on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Set {
    key: SetKey,
    launch: Launch,
    count: u32,
}

/// What supervisors share with the target.
pub(super) struct Shared {
    pub(super) shim: Vec<OsString>,
    secrets: SecretResolver,
    statuses: Mutex<BTreeMap<String, InstanceStatus>>,
    crashes: Mutex<BTreeMap<String, (SetKey, String)>>,
    revision: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn set(&self, status: InstanceStatus) {
        lock(&self.statuses).insert(status.id.to_string(), status);
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(super) fn forget(&self, id: &InstanceId) {
        lock(&self.statuses).remove(&id.to_string());
        lock(&self.crashes).remove(&id.to_string());
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(super) fn crash(&self, id: &InstanceId, why: Option<String>) {
        let mut crashes = lock(&self.crashes);
        match why {
            Some(why) => crashes.insert(id.to_string(), (id.set.clone(), why)),
            None => crashes.remove(&id.to_string()),
        };
    }

    /// `text` with each `$NAME` of a known secret replaced. `$PORT` and the like are the shell's.
    pub(super) fn expand(&self, place: &Place, text: &str) -> Result<String, TargetError> {
        let Some(name) = text.strip_prefix('$') else {
            return Ok(text.to_owned());
        };
        (self.secrets)(place, name).ok_or_else(|| TargetError::Secret(name.to_owned()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Instances as processes on this machine.
pub struct ProcessTarget {
    root: PathBuf,
    artifacts: Arc<dyn Artifacts>,
    shared: Arc<Shared>,
    /// One lock for each set: what is told of it happens in order.
    sets: Mutex<BTreeMap<SetKey, Arc<tokio::sync::Mutex<Slots>>>>,
}

type Slots = BTreeMap<u32, Slot>;

impl ProcessTarget {
    /// Opens the target and takes over what runs; what should run and doesn't is started.
    pub async fn open(options: Options) -> io::Result<Self> {
        fs::create_dir_all(&options.root)?;
        let shared = Shared {
            shim: options.shim,
            secrets: options.secrets,
            statuses: Mutex::default(),
            crashes: Mutex::default(),
            revision: watch::Sender::new(0),
        };
        let target = Self {
            root: fs::canonicalize(&options.root)?,
            artifacts: options.artifacts,
            shared: Arc::new(shared),
            sets: Mutex::default(),
        };
        for entry in fs::read_dir(&target.root)?.flatten() {
            let Ok(bytes) = fs::read(entry.path().join(SET)) else {
                continue;
            };
            match serde_json::from_slice::<Set>(&bytes) {
                Ok(set) => target.supervise(&set).await,
                Err(error) => {
                    tracing::error!(%error, folder = %entry.path().display(), "a set can't be read; its instances are not supervised")
                }
            }
        }
        Ok(target)
    }

    fn folder(&self, set: &SetKey) -> PathBuf {
        self.root.join(format!(
            "{}.{}.{}",
            set.place.service, set.place.environment, set.release.0
        ))
    }

    fn slots(&self, set: &SetKey) -> Arc<tokio::sync::Mutex<Slots>> {
        lock(&self.sets).entry(set.clone()).or_default().clone()
    }

    async fn supervise(&self, set: &Set) {
        let slots = self.slots(&set.key);
        let mut slots = slots.lock().await;
        self.fill(&mut slots, set);
    }

    /// Starts supervising the slots that aren't yet.
    fn fill(&self, slots: &mut Slots, set: &Set) {
        let launch = Arc::new(set.launch.clone());
        for slot in 1..=set.count {
            if slots
                .get(&slot)
                .is_some_and(|slot| !slot.task.is_finished())
            {
                continue;
            }
            let (wanted, receiver) = watch::channel(true);
            let folder = self.folder(&set.key);
            let supervisor = Supervisor {
                id: InstanceId {
                    set: set.key.clone(),
                    slot,
                },
                launch: launch.clone(),
                workdir: folder.join(APP),
                folder: folder.join(slot.to_string()),
                shared: self.shared.clone(),
                wanted: receiver,
            };
            slots.insert(
                slot,
                Slot {
                    wanted,
                    task: tokio::spawn(supervisor.run()),
                },
            );
        }
    }

    fn read_set(&self, set: &SetKey) -> Option<Set> {
        serde_json::from_slice(&fs::read(self.folder(set).join(SET)).ok()?).ok()
    }

    /// The artifact goes, the logs stay for a while.
    fn retire(&self, set: &SetKey) {
        let folder = self.folder(set);
        let _ = fs::remove_file(folder.join(SET));
        let _ = fs::remove_dir_all(folder.join(APP));
        let mut stopped: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !entry.path().join(SET).exists())
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        stopped.sort();
        for (_, path) in stopped
            .iter()
            .take(stopped.len().saturating_sub(STOPPED_MAX))
        {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> TargetError {
    let what = what.to_owned();
    move |source| TargetError::Io { what, source }
}

#[async_trait]
impl Target for ProcessTarget {
    async fn ensure(&self, set: &SetKey, launch: &Launch, count: u32) -> Result<(), TargetError> {
        let slots = self.slots(set);
        let mut slots = slots.lock().await;
        let folder = self.folder(set);
        fs::create_dir_all(&folder).map_err(io_error("making the set's folder"))?;
        artifact::unpack(&*self.artifacts, &launch.artifact, &folder.join(APP)).await?;
        for value in launch.env.values() {
            self.shared.expand(&set.place, value)?;
        }
        let count = count.max(self.read_set(set).map_or(0, |known| known.count));
        let told = Set {
            key: set.clone(),
            launch: launch.clone(),
            count,
        };
        write_whole(&folder, SET, &told).map_err(io_error("keeping what the set was told"))?;
        self.fill(&mut slots, &told);
        Ok(())
    }

    async fn stop(&self, set: &SetKey, keep: u32) -> Result<(), TargetError> {
        let slots = self.slots(set);
        let mut slots = slots.lock().await;
        if let Some(mut told) = self.read_set(set) {
            told.count = told.count.min(keep);
            write_whole(&self.folder(set), SET, &told)
                .map_err(io_error("keeping what the set was told"))?;
        }
        let gone = slots.split_off(&(keep + 1));
        for slot in gone.values() {
            slot.wanted.send_replace(false);
        }
        for slot in gone.into_values() {
            // A panic in a supervisor is in the log; its instance is found by the next one.
            let _ = slot.task.await;
        }
        if keep == 0 {
            self.retire(set);
        }
        Ok(())
    }

    fn instances(&self) -> Vec<InstanceStatus> {
        lock(&self.shared.statuses).values().cloned().collect()
    }

    fn measure(&self, instances: &mut [InstanceStatus]) {
        let usage = usage_by_group();
        for status in instances {
            status.usage = status.pid.and_then(|pid| usage.get(&pid)).copied();
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn crash_loop(&self, set: &SetKey) -> Option<String> {
        lock(&self.shared.crashes)
            .values()
            .find(|(of, _)| of == set)
            .map(|(_, why)| why.clone())
    }

    fn workdir(&self, set: &SetKey) -> PathBuf {
        self.folder(set).join(APP)
    }

    fn log(&self, instance: &str) -> Option<PathBuf> {
        let (set, slot) = instance.rsplit_once('.')?;
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
                && !text.contains("..")
        };
        let path = self.root.join(set).join(slot).join(LOG);
        (plain(set) && plain(slot) && Path::exists(&path)).then_some(path)
    }
}
