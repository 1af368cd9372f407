//! Who gets which traffic: the shares that rollouts decide, the instances that are ready, and one snapshot of both for the data plane.
//!
//! One lane for each service and environment. A lane's shares change only by [`Traffic::shift`]; its instances follow their
//! readiness by themselves. Every change composes the whole snapshot anew ([`compose`], pure) and puts it; the data plane
//! swaps it atomically.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shipway_core::{
    config::Environment,
    ids::ReleaseNumber,
    rollout::plan::Split,
    target::{InstanceStatus, Place, SetKey},
};
use shipway_drivers::{data_plane::DataPlane, target::Target};
use shipway_proxy::protocol::Snapshot;
use tokio::sync::{Notify, watch};

use crate::routes::{Lane, compose};

/// How long adopted instances may take to answer their first probe before the snapshot of the last server is replaced.
const ADOPTION_MAX: Duration = Duration::from_secs(3);

/// What became of the last lane change.
#[derive(Clone, Default)]
struct Applied {
    revision: u64,
    refused: Option<String>,
}

/// The traffic of all lanes; cheap to share.
pub struct Traffic {
    lanes: Mutex<BTreeMap<Place, Lane>>,
    changed: Notify,
    /// The number of the last lane change that was put, with the problem if the data plane refused it.
    applied: watch::Sender<Applied>,
    revision: watch::Sender<u64>,
    plane: Arc<DataPlane>,
    target: Arc<dyn Target>,
}

impl Traffic {
    /// Without lanes yet. [`Traffic::run`] must be running for anything to happen.
    #[must_use]
    pub fn new(plane: Arc<DataPlane>, target: Arc<dyn Target>) -> Self {
        Self {
            lanes: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
            applied: watch::Sender::new(Applied::default()),
            revision: watch::Sender::new(1),
            plane,
            target,
        }
    }

    /// Takes over the lanes as the log tells them, before [`Traffic::run`].
    pub fn restore(&self, lanes: BTreeMap<Place, Lane>) {
        *self.lanes() = lanes;
    }

    /// Gives each release its share, and returns when the data plane has it.
    ///
    /// # Errors
    /// When the data plane refuses the routes, with its reason; the shares before stay in force.
    pub async fn shift(
        &self,
        place: &Place,
        environment: &Environment,
        is_last: bool,
        split: &Split,
        salt: &str,
    ) -> Result<(), String> {
        let revision = self.change(|lanes| {
            let lane = lanes
                .entry(place.clone())
                .or_insert_with(|| Lane::new(place, environment, is_last));
            lane.configure(place, environment, is_last);
            lane.split = split.clone();
            salt.clone_into(&mut lane.salt);
        });
        self.applied(revision).await
    }

    /// Takes the instances of `release` beyond `keep` out of the routes and waits until their open requests are over, `grace` at most.
    /// Returns how many requests were still open.
    ///
    /// # Errors
    /// When the data plane refuses the routes, with its reason: the instances still get requests.
    pub async fn drain(
        &self,
        place: &Place,
        release: ReleaseNumber,
        keep: u32,
        grace: Duration,
    ) -> Result<u64, String> {
        let revision = self.change(|lanes| {
            if let Some(lane) = lanes.get_mut(place) {
                lane.kept.insert(release, keep);
                if keep == 0 {
                    lane.split.remove(release);
                }
            }
        });
        self.applied(revision).await?;
        Ok(self.plane.drained(place, release, keep, grace).await)
    }

    /// Instances beyond `keep` are gone: a later start may use their slots again.
    pub fn undrain(&self, place: &Place, release: ReleaseNumber) {
        self.change(|lanes| {
            if let Some(lane) = lanes.get_mut(place) {
                lane.kept.remove(&release);
            }
        });
    }

    /// The shares of a lane.
    #[must_use]
    pub fn split(&self, place: &Place) -> Split {
        self.lanes()
            .get(place)
            .map(|lane| lane.split.clone())
            .unwrap_or_default()
    }

    /// The sets that have traffic.
    #[must_use]
    pub fn serving(&self) -> Vec<SetKey> {
        let lanes = self.lanes();
        let of_lane = |(place, lane): (&Place, &Lane)| {
            let shares = lane.split.shares.iter();
            let served = shares.filter(|(_, weight)| !weight.is_zero());
            served
                .map(|(release, _)| SetKey {
                    place: place.clone(),
                    release: *release,
                })
                .collect::<Vec<_>>()
        };
        lanes.iter().flat_map(of_lane).collect()
    }

    /// A lane, for pages.
    #[must_use]
    pub fn lane(&self, place: &Place) -> Option<Lane> {
        self.lanes().get(place).cloned()
    }

    /// Keeps the data plane up to date, for ever.
    pub async fn run(&self) {
        let mut instances = self.target.watch();
        self.await_adoption(&mut instances).await;
        let mut last: Option<Snapshot> = None;
        loop {
            // What changes while a snapshot is composed and put is seen in the next round.
            instances.borrow_and_update();
            let revision = *self.revision.borrow();
            let snapshot = compose(&self.lanes(), &self.target.instances());
            let mut refused = None;
            if last.as_ref() != Some(&snapshot) {
                match self.plane.put(snapshot.clone()).await {
                    Ok(()) => last = Some(snapshot),
                    Err(error) => {
                        tracing::error!(%error, "the proxy does not take the routes; those before stay in force");
                        refused = Some(error.to_string());
                    }
                }
            }
            self.applied.send_replace(Applied { revision, refused });
            tokio::select! {
                () = self.changed.notified() => {}
                changed = instances.changed() => if changed.is_err() { return },
            }
        }
    }

    /// After a restart the instances are there, but nobody has asked them yet: until they have answered, the data plane keeps
    /// the routes of the last server.
    async fn await_adoption(&self, instances: &mut watch::Receiver<u64>) {
        let routed: BTreeSet<String> = self.plane.routed_instances().await;
        let settled = |statuses: &[InstanceStatus]| {
            statuses
                .iter()
                .filter(|status| routed.contains(&status.id.to_string()))
                .all(|status| status.is_ready())
        };
        let wait = async {
            while !settled(&self.target.instances()) {
                if instances.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whoever hasn't answered by then is not ready.
        let _ = tokio::time::timeout(ADOPTION_MAX, wait).await;
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, BTreeMap<Place, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Place, Lane>)) -> u64 {
        change(&mut self.lanes());
        let mut revision = 0;
        self.revision.send_modify(|it| {
            *it += 1;
            revision = *it;
        });
        self.changed.notify_one();
        revision
    }

    async fn applied(&self, revision: u64) -> Result<(), String> {
        let mut applied = self.applied.subscribe();
        let done = applied.wait_for(|done| done.revision >= revision).await;
        // The sender lives as long as `self`.
        match done.ok().and_then(|done| done.refused.clone()) {
            Some(why) => Err(format!("the proxy does not take the routes: {why}")),
            None => Ok(()),
        }
    }
}
