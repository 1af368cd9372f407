//! Services that are rolled out together: who must know of it, and which rollouts are tied.

use std::collections::BTreeSet;

use super::{
    event::{RolloutGroups, ServiceEffect},
    state::ServiceState,
};
use crate::ids::{EnvironmentName, ServiceName};

impl ServiceState {
    /// The groups that this service's own configuration makes.
    fn groups(&self) -> RolloutGroups {
        let config = self.config.iter();
        let named = config.flat_map(|config| {
            let environments = config.environments.iter();
            environments.map(|it| (it.name.clone(), config.group(&it.name)))
        });
        named.filter(|(_, group)| !group.is_empty()).collect()
    }

    /// The other services whose rollouts into `environment` are promoted together with this one's.
    #[must_use]
    pub fn peers_in(&self, environment: &EnvironmentName) -> Vec<ServiceName> {
        let own = self.groups();
        let all = std::iter::once(&own).chain(self.promotion_groups.values());
        let others: BTreeSet<ServiceName> = all
            .filter_map(|groups| groups.get(environment))
            .flatten()
            .filter(|name| Some(*name) != self.name.as_ref())
            .cloned()
            .collect();
        others.into_iter().collect()
    }

    /// The notification of other services: those named now and those named before.
    pub(super) fn pending_peer_notification(&self) -> Option<ServiceEffect> {
        let groups = self.groups();
        if groups == self.notified_groups {
            return None;
        }
        let both = groups
            .values()
            .chain(self.notified_groups.values())
            .flatten();
        let peers = both
            .filter(|name| Some(*name) != self.name.as_ref())
            .cloned()
            .collect();
        Some(ServiceEffect::NotifyPeers { peers, groups })
    }
}
