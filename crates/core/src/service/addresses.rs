//! Which addresses a service asks for. Derived from its state alone, so that claims follow from the log after any crash.

use std::collections::BTreeSet;

use super::{
    event::{AutoPromotion, ServiceEffect},
    state::{EnvironmentState, ServiceState},
};
use crate::{
    address::{
        EnvironmentAddresses,
        claims::{AddressesByEnvironment, AskedAddresses},
    },
    config::{ServiceConfig, addresses_by_environment},
    ids::EnvironmentName,
    release::Release,
    target::ServiceEnvironment,
};

impl ServiceState {
    /// The addresses it asks for: those of the serving releases, of releases that are rolled out or queued, and of pushes whose
    /// runs have not ended. A push without a release asks for none.
    #[must_use]
    pub fn requested_addresses(&self) -> AskedAddresses {
        let mut addresses = AddressesByEnvironment::new();
        let mut add = |more: AddressesByEnvironment| {
            for (environment, all) in more {
                addresses.entry(environment).or_default().extend(all);
            }
        };
        for (name, environment) in &self.environments {
            for release in environment.releases() {
                add(addresses_in(release, name));
            }
            let active = environment.active.as_ref();
            let auto_promotion =
                active.filter(|active| active.auto_promotion == AutoPromotion::Next);
            if let Some(active) = auto_promotion {
                add(addresses_of(&active.spec.release().config));
            }
        }
        let open = self.open_pushes.values().map(|open| &open.push);
        let may_be_released = open.filter(|push| push.is_released());
        for config in may_be_released.filter_map(|push| push.config.as_deref()) {
            add(addresses_of(config));
        }
        let tested = self.in_tests.values();
        for release in tested.map(|(_, release)| release) {
            add(addresses_of(&release.config));
        }
        AskedAddresses {
            addresses,
            transferable: self.unnamed_environments(),
        }
    }

    /// Where an environment is reached: what its stable release says, or before there is one the release that is rolled out.
    #[must_use]
    pub fn served_addresses(&self, name: &EnvironmentName) -> Option<EnvironmentAddresses> {
        let environment = self.environments.get(name)?;
        if environment.deletion.is_some() {
            return None;
        }
        let place = ServiceEnvironment {
            service: self.name.clone()?,
            environment: name.clone(),
        };
        let configured = match (&environment.stable, &environment.active) {
            (Some(stable), _) => stable.environment(name)?,
            (None, Some(active)) => &active.spec.environment,
            (None, None) => return None,
        };
        Some(configured.addresses(&place))
    }

    /// Whether a release names the environment or was there. One that only a commit without a release names does not exist yet;
    /// before the first release all do.
    #[must_use]
    pub fn is_released_to(&self, name: &EnvironmentName) -> bool {
        let stable = self
            .environments
            .values()
            .filter_map(|it| it.stable.as_ref());
        let Some(newest) = stable.max_by_key(|release| release.number) else {
            return true;
        };
        let has_history = |it: &EnvironmentState| {
            let is_used = it.stable.is_some() || it.active.is_some() || !it.queue.is_empty();
            is_used || it.hold.is_some() || !it.blocked_releases.is_empty()
        };
        newest.environment(name).is_some() || self.environments.get(name).is_some_and(has_history)
    }

    /// Environments that serve although the newest release that is stable anywhere doesn't name them.
    #[must_use]
    pub fn unnamed_environments(&self) -> BTreeSet<EnvironmentName> {
        let stable = self
            .environments
            .values()
            .filter_map(|it| it.stable.as_ref());
        let Some(newest) = stable.max_by_key(|release| release.number) else {
            return BTreeSet::new();
        };
        let unnamed = self.environments.iter().filter(|(name, environment)| {
            let is_moving = environment.active.is_some() || !environment.queue.is_empty();
            !is_moving && environment.stable.is_some() && newest.environment(name).is_none()
        });
        unnamed.map(|(name, _)| name.clone()).collect()
    }

    /// The report that is due, once what it asks for has changed.
    pub(super) fn address_report(&self) -> Option<ServiceEffect> {
        let asked = self.requested_addresses();
        (asked != self.reported_addresses).then_some(ServiceEffect::ReportAddresses(asked))
    }
}

impl EnvironmentState {
    /// Releases that serve here, or may soon.
    fn releases(&self) -> impl Iterator<Item = &Release> {
        let active = self.active.iter().flat_map(|active| {
            let stable = active.spec.stable().map(|stable| &*stable.release);
            std::iter::once(&**active.spec.release()).chain(stable)
        });
        let queued = self.queue.iter().map(|request| &*request.release);
        self.stable
            .as_deref()
            .into_iter()
            .chain(active)
            .chain(queued)
    }
}

fn addresses_of(config: &ServiceConfig) -> AddressesByEnvironment {
    config.addresses()
}

fn addresses_in(release: &Release, name: &EnvironmentName) -> AddressesByEnvironment {
    let configured = release.environment(name);
    addresses_by_environment(
        &release.service,
        configured.map_or(&[], std::slice::from_ref),
    )
}
