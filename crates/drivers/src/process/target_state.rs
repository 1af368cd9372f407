//! What the supervisors of all slots share with the target: what there is to see, and which ports are given out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use shipway_core::target::{InstanceId, InstanceStatus, SetAvailability, SetKey};
use tokio::sync::watch;

use super::{
    SecretResolver,
    availability::{AVAILABILITY, AvailabilityRecord},
    crash_loop::SetCrashes,
    ports,
    shim::write_json,
};

pub(super) struct TargetState {
    pub(super) shim: Vec<OsString>,
    pub(super) secrets: SecretResolver,
    /// Below it are the folders that services keep over releases.
    pub(super) data: PathBuf,
    table: Mutex<InstanceTable>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct InstanceTable {
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    crashes: BTreeMap<SetKey, SetCrashes>,
    /// Of stopped slots, too, as long as their set is there: what is counted never falls.
    availability: BTreeMap<InstanceId, AvailabilityRecord>,
    /// Given to an instance that may not have begun to listen.
    ports: BTreeMap<InstanceId, u16>,
}

impl TargetState {
    pub(super) fn new(shim: Vec<OsString>, secrets: SecretResolver, data: PathBuf) -> Self {
        Self {
            shim,
            secrets,
            data,
            table: Mutex::default(),
            revision: watch::Sender::new(0),
        }
    }

    /// Shows an instance, and tells those who watch.
    pub(super) fn publish_status(&self, status: InstanceStatus) {
        self.update_status(status);
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Shows it in fresher words that nobody needs to be woken for.
    pub(super) fn update_status(&self, status: InstanceStatus) {
        self.lock_table().statuses.insert(status.id.clone(), status);
    }

    /// The instance is gone.
    pub(super) fn remove_instance(&self, id: &InstanceId) {
        let mut table = self.lock_table();
        table.statuses.remove(id);
        if let Some(crashes) = table.crashes.get_mut(&id.set)
            && !crashes.remove_slot(id.slot)
        {
            table.crashes.remove(&id.set);
        }
        table.ports.remove(id);
        drop(table);
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// The instance has ended unasked. What is shown next wakes those who wait for a crash loop.
    pub(super) fn record_crash(&self, id: &InstanceId, why: String) {
        let mut table = self.lock_table();
        let crashes = table.crashes.entry(id.set.clone()).or_default();
        crashes.add_exit(id.slot, why, Instant::now());
    }

    /// The instance has become ready.
    pub(super) fn record_ready(&self, id: &InstanceId) {
        let mut table = self.lock_table();
        let crashes = table.crashes.entry(id.set.clone()).or_default();
        crashes.set_ready(id.slot);
    }

    /// Why the set is in a crash loop, if it is.
    pub(super) fn crash_loop(&self, set: &SetKey) -> Option<String> {
        let table = self.lock_table();
        table.crashes.get(set)?.crash_loop(Instant::now())
    }

    /// Takes over what an earlier server counted for this slot.
    pub(super) fn load_availability(&self, id: &InstanceId, folder: &Path) {
        let record = AvailabilityRecord::load(folder);
        self.lock_table().availability.insert(id.clone(), record);
    }

    /// Changes the slot's record, in memory and in its folder.
    pub(super) fn record_availability(
        &self,
        id: &InstanceId,
        folder: &Path,
        change: impl FnOnce(&mut AvailabilityRecord),
    ) {
        let mut table = self.lock_table();
        let record = table.availability.entry(id.clone()).or_default();
        let before = record.clone();
        change(record);
        let record = record.clone();
        drop(table);
        if record == before {
            return;
        }
        if let Err(error) = write_json(folder, AVAILABILITY, &record) {
            tracing::warn!(%error, instance = %id, "the instance's availability could not be written; the next server continues from an older count");
        }
    }

    /// What was counted for the set.
    pub(super) fn set_availability(&self, set: &SetKey) -> SetAvailability {
        let now = Timestamp::now();
        let table = self.lock_table();
        let records = table.availability.iter().filter(|(id, _)| id.set == *set);
        records
            .map(|(_, record)| record.totals(now))
            .fold(SetAvailability::default(), |sum, each| sum + each)
    }

    /// The set is gone, and its counts with it.
    pub(super) fn remove_availability(&self, set: &SetKey) {
        self.lock_table()
            .availability
            .retain(|id, _| id.set != *set);
    }

    /// A port that no other instance has, free at this moment.
    pub(super) fn reserve_port(&self, id: &InstanceId) -> io::Result<u16> {
        let mut table = self.lock_table();
        let mut taken: BTreeSet<u16> = table.ports.values().copied().collect();
        let ports = table.statuses.values().filter_map(|status| {
            let (_, port) = status.address.rsplit_once(':')?;
            port.parse::<u16>().ok()
        });
        taken.extend(ports);
        let port = ports::find_free_port(&taken)?;
        table.ports.insert(id.clone(), port);
        Ok(port)
    }

    pub(super) fn statuses(&self) -> Vec<InstanceStatus> {
        self.lock_table().statuses.values().cloned().collect()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn lock_table(&self) -> MutexGuard<'_, InstanceTable> {
        // Every change is one insertion or removal: a panic in between leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
