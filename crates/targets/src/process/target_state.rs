//! State shared by the target and the supervisors of its slots: instance statuses and reserved ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use shipway_core::target::{InstanceId, InstanceStatus, ReplicaSetKey, SetAvailability};
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
    /// Root of the folders that services keep across releases.
    pub(super) data: PathBuf,
    table: Mutex<InstanceTable>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct InstanceTable {
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    crashes: BTreeMap<ReplicaSetKey, SetCrashes>,
    /// Includes stopped slots while their set exists: totals never fall.
    availability: BTreeMap<InstanceId, AvailabilityRecord>,
    /// Reserved for instances that may not listen yet.
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

    /// Publishes a status and notifies subscribers.
    pub(super) fn publish_status(&self, status: InstanceStatus) {
        self.update_status(status);
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Updates a status without notifying subscribers.
    pub(super) fn update_status(&self, status: InstanceStatus) {
        self.lock_table().statuses.insert(status.id.clone(), status);
    }

    /// Removes an instance that has ended.
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

    /// Records an unplanned exit. The next published status wakes the tasks that wait for a crash loop.
    pub(super) fn record_crash(&self, id: &InstanceId, why: String) {
        let mut table = self.lock_table();
        let crashes = table.crashes.entry(id.set.clone()).or_default();
        crashes.add_exit(id.slot, why, Instant::now());
    }

    /// Records that the instance became ready.
    pub(super) fn record_ready(&self, id: &InstanceId) {
        let mut table = self.lock_table();
        let crashes = table.crashes.entry(id.set.clone()).or_default();
        crashes.set_ready(id.slot);
    }

    /// The reason, if the set is in a crash loop.
    pub(super) fn crash_loop(&self, set: &ReplicaSetKey) -> Option<String> {
        let table = self.lock_table();
        table.crashes.get(set)?.crash_loop(Instant::now())
    }

    /// Loads the slot's record of an earlier server.
    pub(super) fn load_availability(&self, id: &InstanceId, folder: &Path) {
        let record = AvailabilityRecord::load(folder);
        self.lock_table().availability.insert(id.clone(), record);
    }

    /// Changes the slot's record in memory and on disk.
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

    /// Availability totals of the set.
    pub(super) fn set_availability(&self, set: &ReplicaSetKey) -> SetAvailability {
        let now = Timestamp::now();
        let table = self.lock_table();
        let records = table.availability.iter().filter(|(id, _)| id.set == *set);
        records
            .map(|(_, record)| record.totals(now))
            .fold(SetAvailability::default(), |sum, each| sum + each)
    }

    /// Removes the records of a set that was removed.
    pub(super) fn remove_availability(&self, set: &ReplicaSetKey) {
        self.lock_table()
            .availability
            .retain(|id, _| id.set != *set);
    }

    /// Reserves a free port that no other instance has.
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

    pub(super) fn has_instance(&self, id: &InstanceId) -> bool {
        self.lock_table().statuses.contains_key(id)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn lock_table(&self) -> MutexGuard<'_, InstanceTable> {
        // Every change is one insertion or removal: a panic can't leave the table half-updated.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
