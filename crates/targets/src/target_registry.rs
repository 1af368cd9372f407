//! The targets and routers of a server, by kind: an environment names its target, and the target has its router.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::select_all;
use shipway_core::target::{InstanceId, InstanceStatus, ReplicaSetKey, RouterKind, TargetKind};
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

/// The server has no target of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server has no target of the kind {0}")]
pub struct TargetMissing(pub TargetKind);

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

    /// The target of an environment that names this kind.
    ///
    /// # Errors
    /// When the server has none.
    pub fn target(&self, kind: TargetKind) -> Result<&Arc<dyn Target>, TargetMissing> {
        self.targets.get(&kind).ok_or(TargetMissing(kind))
    }

    /// The counts of the router that environments with this target have, see [`Router::read_totals`].
    ///
    /// # Errors
    /// When the server has no such router, or it has no answer.
    pub async fn read_totals(&self, kind: TargetKind) -> Result<TrafficReading, RouterError> {
        match self.routers.get(&kind.router()) {
            Some(router) => router.read_totals().await,
            None => Err(RouterError::NotCounted),
        }
    }

    /// The target that runs instances of a set.
    #[must_use]
    pub fn target_of_set(&self, set: &ReplicaSetKey) -> Option<&Arc<dyn Target>> {
        let runs =
            |target: &&Arc<dyn Target>| target.instances().iter().any(|it| it.id.set == *set);
        self.targets.values().find(runs)
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
