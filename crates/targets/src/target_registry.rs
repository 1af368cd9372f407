//! The targets and routers of a server, by kind: an environment names one of each.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::{join_all, select_all};
use shipway_core::target::{
    AvailableTargets, InstanceId, InstanceStatus, ReplicaSetKey, RouterKind, RouterMissing,
    TargetKind, TargetMissing, TargetsOwner,
};
use tokio::sync::watch;

use crate::{
    router::{Router, RouterError, TrafficReading},
    target::{LogEnd, LogError, LogStream, Target},
};

/// The targets and routers that a server has.
#[derive(Clone, Default)]
pub struct TargetRegistry {
    targets: BTreeMap<TargetKind, Arc<dyn Target>>,
    routers: BTreeMap<RouterKind, Arc<dyn Router>>,
}

impl TargetRegistry {
    /// The same with a target; replaces the one of its kind.
    #[must_use]
    pub fn with_target(mut self, kind: TargetKind, target: Arc<dyn Target>) -> Self {
        self.targets.insert(kind, target);
        self
    }

    /// The same with a router; replaces the one of its kind.
    #[must_use]
    pub fn with_router(mut self, kind: RouterKind, router: Arc<dyn Router>) -> Self {
        self.routers.insert(kind, router);
        self
    }

    /// The kinds that environments can name.
    #[must_use]
    pub fn available(&self) -> AvailableTargets {
        AvailableTargets {
            owner: TargetsOwner::Server,
            targets: self.targets.keys().copied().collect(),
            routers: self.routers.keys().copied().collect(),
        }
    }

    /// The target of an environment that names this kind.
    ///
    /// # Errors
    /// When the server has none.
    pub fn target(&self, kind: TargetKind) -> Result<&Arc<dyn Target>, TargetMissing> {
        self.targets.get(&kind).ok_or_else(|| TargetMissing {
            owner: TargetsOwner::Server,
            kind,
            available: self.targets.keys().copied().collect(),
        })
    }

    /// The router of an environment that names this kind.
    ///
    /// # Errors
    /// When the server has none.
    pub fn router(&self, kind: RouterKind) -> Result<&Arc<dyn Router>, RouterMissing> {
        self.routers
            .get(&kind)
            .ok_or_else(|| self.missing_router(kind))
    }

    pub(crate) fn missing_router(&self, kind: RouterKind) -> RouterMissing {
        RouterMissing {
            owner: TargetsOwner::Server,
            kind,
            available: self.routers.keys().copied().collect(),
        }
    }

    /// All routers.
    pub fn routers(&self) -> impl Iterator<Item = (RouterKind, &Arc<dyn Router>)> {
        self.routers.iter().map(|(kind, router)| (*kind, router))
    }

    /// The counts of a router, see [`Router::read_totals`].
    ///
    /// # Errors
    /// When the server has no such router, or it has no answer.
    pub async fn read_totals(&self, kind: RouterKind) -> Result<TrafficReading, RouterError> {
        match self.routers.get(&kind) {
            Some(router) => router.read_totals().await,
            None => Err(RouterError::NotCounted),
        }
    }

    /// The counts of all routers that answer; `None` if none does.
    pub async fn read_all_totals(&self) -> Option<TrafficReading> {
        let readings = join_all(self.routers.values().map(|router| router.read_totals())).await;
        let readings = readings.into_iter().filter_map(Result::ok);
        readings.reduce(TrafficReading::merge)
    }

    /// The ports of routes that can't be listened on now, with the reason, of all routers that answer.
    pub async fn unreachable_ports(&self) -> BTreeMap<u16, String> {
        let ports = join_all(
            self.routers
                .values()
                .map(|router| router.unreachable_ports()),
        );
        ports.await.into_iter().flatten().flatten().collect()
    }

    /// The routers that do not answer.
    pub async fn unhealthy_routers(&self) -> Vec<RouterKind> {
        let checks = self
            .routers()
            .map(|(kind, router)| async move { (kind, router.is_healthy().await) });
        let checks = join_all(checks).await;
        let unhealthy = checks.into_iter().filter(|(_, is_healthy)| !is_healthy);
        unhealthy.map(|(kind, _)| kind).collect()
    }

    /// The target that runs instances of a set.
    #[must_use]
    pub fn target_of_set(&self, set: &ReplicaSetKey) -> Option<&Arc<dyn Target>> {
        let runs =
            |target: &&Arc<dyn Target>| target.instances().iter().any(|it| it.id.set == *set);
        self.targets.values().find(runs)
    }

    /// Why the instances of a set keep exiting, see [`Target::crash_loop`].
    #[must_use]
    pub fn crash_loop(&self, set: &ReplicaSetKey) -> Option<String> {
        self.targets
            .values()
            .find_map(|target| target.crash_loop(set))
    }

    /// The status of the instances of all targets.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceStatus> {
        let targets = self.targets.values();
        targets.flat_map(|target| target.instances()).collect()
    }

    /// Follows [`TargetRegistry::instances`].
    #[must_use]
    pub fn watch(&self) -> InstanceChanges {
        InstanceChanges(self.targets.values().map(|target| target.watch()).collect())
    }

    /// The log of an instance of any target, see [`Target::read_log`].
    ///
    /// # Errors
    /// When no target has it, or reading fails.
    pub fn read_log(
        &self,
        instance: &InstanceId,
        offset: u64,
        end: LogEnd,
    ) -> Result<LogStream, LogError> {
        for target in self.targets.values() {
            match target.read_log(instance, offset, end) {
                Err(LogError::Missing(_)) => {}
                read => return read,
            }
        }
        Err(LogError::Missing(instance.clone()))
    }
}

/// The targets are gone: nothing changes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the targets were closed")]
pub struct TargetsClosed;

/// Wakes at changes of the instances of several targets.
pub struct InstanceChanges(Vec<watch::Receiver<u64>>);

impl InstanceChanges {
    /// Marks all changes so far as seen.
    pub fn mark_seen(&mut self) {
        for receiver in &mut self.0 {
            receiver.borrow_and_update();
        }
    }

    /// Waits for a change that was not seen. Cancel safe.
    ///
    /// # Errors
    /// When there is no target, or one was closed.
    pub async fn changed(&mut self) -> Result<(), TargetsClosed> {
        if self.0.is_empty() {
            return Err(TargetsClosed);
        }
        let waits = self
            .0
            .iter_mut()
            .map(|receiver| Box::pin(receiver.changed()));
        let (changed, _, _) = select_all(waits).await;
        changed.map_err(|_| TargetsClosed)
    }
}
