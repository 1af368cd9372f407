//! A target and a router in memory, for tests: no process, no socket and no clock.
//!
//! Nothing happens by itself. A test starts instances through the executor, lets time pass with [`InMemoryTarget::advance`], sends
//! requests with [`InMemoryRouter::send_requests`] and reads from [`MemoryHistory`] what both did, in one order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use shipway_core::{
    ids::ReleaseNumber,
    rollout::plan::TrafficSplit,
    target::{
        InstanceId, InstancePhase, InstanceStatus, ReplicaSetKey, ServiceEnvironment,
        SetAvailability, Workload,
    },
};
use tokio::sync::watch;

use crate::{
    router::{RefusedRoutes, Router, RouterError, RoutingTable, TrafficReading, TrafficTotals},
    target::{
        CommandError, CommandRunner, LogEnd, LogError, LogStream, SetCommand, StopReport, Target,
        TargetError,
    },
};

/// One change of an instance or a route.
#[derive(Clone, Debug, PartialEq)]
pub enum MemoryEvent {
    /// An instance was started; it is not ready yet.
    Started(InstanceId),
    /// An instance became ready.
    Ready(InstanceId),
    /// An instance exited by itself.
    Crashed(InstanceId),
    /// An instance was stopped.
    Stopped(InstanceId),
    /// The route of an environment changed, or the instances behind it did.
    Routed {
        /// The environment.
        place: ServiceEnvironment,
        /// The share of each release.
        split: TrafficSplit,
        /// The ready instances behind each share.
        instances: BTreeMap<ReleaseNumber, Vec<InstanceId>>,
    },
    /// The router waited for open requests of the instances of a set beyond the first `keep`.
    Drained {
        /// The set.
        set: ReplicaSetKey,
        /// The number of instances that stay.
        keep: u32,
    },
}

/// What a target and a router did, in order; shared by both.
#[derive(Clone, Debug, Default)]
pub struct MemoryHistory(Arc<Mutex<Vec<MemoryEvent>>>);

impl MemoryHistory {
    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<MemoryEvent> {
        lock(&self.0).clone()
    }

    fn record(&self, event: MemoryEvent) {
        lock(&self.0).push(event);
    }
}

/// A fault of all instances of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseFault {
    /// They can't be started: the artifact is damaged, with this reason.
    DamagedArtifact(String),
    /// They never answer their readiness probe.
    NeverReady,
    /// They exit soon after their start, with this reason.
    Crashes(String),
    /// Their commands fail, with this last line; so do smoke tests that are commands.
    CommandsFail(String),
}

/// Instances that exist in a table alone.
#[derive(Debug)]
pub struct InMemoryTarget {
    history: MemoryHistory,
    table: Mutex<MemoryInstances>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct MemoryInstances {
    instances: BTreeMap<InstanceId, InstanceStatus>,
    faults: BTreeMap<ReleaseNumber, ReleaseFault>,
    /// Why a set is in a crash loop.
    crash_loops: BTreeMap<ReplicaSetKey, String>,
    logs: BTreeMap<InstanceId, String>,
}

impl MemoryInstances {
    fn check_artifact(&self, set: &ReplicaSetKey) -> Result<(), TargetError> {
        match self.faults.get(&set.release) {
            Some(ReleaseFault::DamagedArtifact(why)) => Err(TargetError::Artifact(why.clone())),
            _ => Ok(()),
        }
    }

    fn write_log(&mut self, id: &InstanceId, line: &str) {
        let log = self.logs.entry(id.clone()).or_default();
        log.push_str(line);
        log.push('\n');
    }
}

impl InMemoryTarget {
    /// A target without instances.
    #[must_use]
    pub fn new(history: MemoryHistory) -> Self {
        Self {
            history,
            table: Mutex::default(),
            revision: watch::Sender::new(0),
        }
    }

    /// Gives a release a fault.
    pub fn add_fault(&self, release: ReleaseNumber, fault: ReleaseFault) {
        lock(&self.table).faults.insert(release, fault);
    }

    /// Lets time pass: each starting instance becomes ready, or has the fault of its release.
    pub fn advance(&self) {
        let mut table = lock(&self.table);
        let is_starting =
            |status: &&InstanceStatus| matches!(status.phase, InstancePhase::Starting { .. });
        let statuses = table.instances.values();
        let starting: Vec<InstanceId> = statuses
            .filter(is_starting)
            .map(|status| status.id.clone())
            .collect();
        let mut has_changed = false;
        for id in starting {
            let phase = match table.faults.get(&id.set.release) {
                Some(ReleaseFault::NeverReady) => continue,
                Some(ReleaseFault::Crashes(why)) => InstancePhase::Backoff {
                    why: why.clone(),
                    until: Timestamp::UNIX_EPOCH,
                },
                Some(ReleaseFault::DamagedArtifact(_) | ReleaseFault::CommandsFail(_)) | None => {
                    InstancePhase::Ready
                }
            };
            has_changed = true;
            if let InstancePhase::Backoff { why, .. } = &phase {
                table.crash_loops.insert(id.set.clone(), why.clone());
                table.write_log(&id, why);
                self.history.record(MemoryEvent::Crashed(id.clone()));
            } else {
                self.history.record(MemoryEvent::Ready(id.clone()));
            }
            if let Some(status) = table.instances.get_mut(&id) {
                status.phase = phase;
            }
        }
        drop(table);
        if has_changed {
            self.publish();
        }
    }

    fn publish(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

#[async_trait]
impl Target for InMemoryTarget {
    async fn prepare(
        &self,
        set: &ReplicaSetKey,
        _workload: &Workload,
        _count: u32,
    ) -> Result<(), TargetError> {
        lock(&self.table).check_artifact(set)
    }

    async fn ensure(
        &self,
        set: &ReplicaSetKey,
        workload: &Workload,
        count: u32,
    ) -> Result<(), TargetError> {
        let mut table = lock(&self.table);
        table.check_artifact(set)?;
        for slot in 1..=count {
            let id = InstanceId {
                set: set.clone(),
                slot,
            };
            if table.instances.contains_key(&id) {
                continue;
            }
            let status = InstanceStatus {
                id: id.clone(),
                phase: InstancePhase::Starting {
                    why: "not probed yet".to_owned(),
                },
                address: id.to_string(),
                pid: None,
                restarts: 0,
                since: Timestamp::UNIX_EPOCH,
                usage: None,
            };
            table.instances.insert(id.clone(), status);
            table.write_log(&id, &workload.program.to_string());
            self.history.record(MemoryEvent::Started(id));
        }
        drop(table);
        self.publish();
        Ok(())
    }

    async fn stop(&self, set: &ReplicaSetKey, keep: u32) -> Result<StopReport, TargetError> {
        let mut table = lock(&self.table);
        let is_stopped = |id: &&InstanceId| id.set == *set && id.slot > keep;
        let stopped: Vec<InstanceId> = table.instances.keys().filter(is_stopped).cloned().collect();
        for id in stopped {
            table.instances.remove(&id);
            self.history.record(MemoryEvent::Stopped(id));
        }
        if keep == 0 {
            table.crash_loops.remove(set);
        }
        drop(table);
        self.publish();
        Ok(StopReport::default())
    }

    async fn written_files(&self, _set: &ReplicaSetKey) -> Vec<String> {
        Vec::new()
    }

    fn instances(&self) -> Vec<InstanceStatus> {
        lock(&self.table).instances.values().cloned().collect()
    }

    fn measure(&self, _instances: &mut [InstanceStatus]) {}

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn crash_loop(&self, set: &ReplicaSetKey) -> Option<String> {
        lock(&self.table).crash_loops.get(set).cloned()
    }

    fn availability(&self, _set: &ReplicaSetKey) -> SetAvailability {
        SetAvailability::default()
    }

    fn read_log(
        &self,
        instance: &InstanceId,
        offset: u64,
        _end: LogEnd,
    ) -> Result<LogStream, LogError> {
        let table = lock(&self.table);
        let log = table.logs.get(instance);
        let log = log.ok_or_else(|| LogError::Missing(instance.clone()))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = log.as_bytes().get(offset..).unwrap_or_default();
        let rest = Bytes::copy_from_slice(rest);
        Ok(stream::iter([Ok(rest)]).boxed())
    }
}

#[async_trait]
impl CommandRunner for InMemoryTarget {
    async fn run_command(
        &self,
        set: &ReplicaSetKey,
        _command: &SetCommand<'_>,
    ) -> Result<String, CommandError> {
        match lock(&self.table).faults.get(&set.release) {
            Some(ReleaseFault::CommandsFail(last)) => Err(CommandError::Failed {
                how: "exit code 1".to_owned(),
                last: Some(last.clone()),
            }),
            Some(
                ReleaseFault::DamagedArtifact(_)
                | ReleaseFault::NeverReady
                | ReleaseFault::Crashes(_),
            )
            | None => Ok(String::new()),
        }
    }
}

/// Routes that exist in a table alone, and requests that are counted as if they had been sent.
#[derive(Debug)]
pub struct InMemoryRouter {
    history: MemoryHistory,
    state: Mutex<RouterState>,
}

#[derive(Debug, Default)]
struct RouterState {
    routes: BTreeMap<ServiceEnvironment, RoutedRelease>,
    totals: BTreeMap<ReplicaSetKey, TrafficTotals>,
    counted_at: Timestamp,
    faults: BTreeSet<ReleaseNumber>,
    refused: RefusedRoutes,
}

/// A split and the ready instances behind it.
#[derive(Clone, Debug, PartialEq)]
struct RoutedRelease {
    split: TrafficSplit,
    instances: BTreeMap<ReleaseNumber, Vec<InstanceId>>,
}

impl InMemoryRouter {
    /// A router without routes.
    #[must_use]
    pub fn new(history: MemoryHistory) -> Self {
        Self {
            history,
            state: Mutex::default(),
        }
    }

    /// Makes every request to a release fail from now on.
    pub fn add_fault(&self, release: ReleaseNumber) {
        lock(&self.state).faults.insert(release);
    }

    /// Refuses the routes of an environment from now on.
    pub fn refuse_routes(&self, place: &ServiceEnvironment, reason: &str) {
        let mut state = lock(&self.state);
        state.refused.insert(place.clone(), reason.to_owned());
    }

    /// The split of an environment; no shares before it has a route.
    #[must_use]
    pub fn split(&self, place: &ServiceEnvironment) -> TrafficSplit {
        let state = lock(&self.state);
        let route = state.routes.get(place);
        route.map(|route| route.split.clone()).unwrap_or_default()
    }

    /// Counts so many requests for an environment, shared between its releases by their weights. Requests to a release without a ready
    /// instance fail, as those to one with a fault. Without a route nothing is counted.
    pub fn send_requests(&self, place: &ServiceEnvironment, requests: u64, now: Timestamp) {
        let mut state = lock(&self.state);
        state.counted_at = now;
        let Some(route) = state.routes.get(place).cloned() else {
            return;
        };
        for (release, weight) in route.split.releases() {
            let share = requests * u64::from(weight.basis_points()) / 10_000;
            if share == 0 {
                continue;
            }
            let is_served = route
                .instances
                .get(&release)
                .is_some_and(|it| !it.is_empty());
            let has_failed = !is_served || state.faults.contains(&release);
            let set = ReplicaSetKey {
                place: place.clone(),
                release,
            };
            let totals = state.totals.entry(set).or_default();
            totals.requests += share;
            let class = if has_failed { "5xx" } else { "2xx" };
            *totals.responses.entry(class.to_owned()).or_default() += share;
        }
    }
}

#[async_trait]
impl Router for InMemoryRouter {
    async fn apply_routes(&self, table: &RoutingTable) -> Result<RefusedRoutes, RouterError> {
        let mut state = lock(&self.state);
        state
            .routes
            .retain(|place, _| table.routes.contains_key(place));
        for (place, route) in &table.routes {
            if state.refused.contains_key(place) {
                continue;
            }
            let instances = |release: ReleaseNumber| {
                let ready = table.ready_instances(place, release);
                ready.map(|status| status.id.clone()).collect()
            };
            let releases = route.split.releases().map(|(release, _)| release);
            let routed = RoutedRelease {
                split: route.split.clone(),
                instances: releases.map(|it| (it, instances(it))).collect(),
            };
            if state.routes.get(place) == Some(&routed) {
                continue;
            }
            self.history.record(MemoryEvent::Routed {
                place: place.clone(),
                split: routed.split.clone(),
                instances: routed.instances.clone(),
            });
            state.routes.insert(place.clone(), routed);
        }
        let is_routed = |place: &ServiceEnvironment| table.routes.contains_key(place);
        let mut refused = state.refused.clone();
        refused.retain(|place, _| is_routed(place));
        Ok(refused)
    }

    async fn wait_until_drained(&self, set: &ReplicaSetKey, keep: u32, _limit: Duration) -> u64 {
        self.history.record(MemoryEvent::Drained {
            set: set.clone(),
            keep,
        });
        0
    }

    async fn read_totals(&self) -> Result<TrafficReading, RouterError> {
        let state = lock(&self.state);
        Ok(TrafficReading::new(state.counted_at, state.totals.clone()))
    }

    async fn unreachable_ports(&self) -> Option<BTreeMap<u16, String>> {
        Some(BTreeMap::new())
    }

    async fn routed_instances(&self) -> BTreeSet<InstanceId> {
        let state = lock(&self.state);
        let routes = state.routes.values();
        let instances = routes.flat_map(|route| route.instances.values().flatten());
        instances.cloned().collect()
    }

    async fn is_healthy(&self) -> bool {
        true
    }
}

/// Every change is complete before its lock is released: a panic of a test leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
