//! Claims: which environment owns which address. One aggregate with one stream for the whole server, so that two services that
//! ask for one address at the same instant are put in order by the log.
//!
//! # How claims come and go
//! - A push to the released branch claims what its configuration asks for and is free ([`ClaimStage::Push`]). A conflict with another
//!   service refuses the push's configuration.
//! - A rollout claims the addresses of its release before it starts anything ([`ClaimStage::Rollout`]). This is the decision that counts.
//! - Each service derives from its own state what it asks for (`service::ServiceState::requested_addresses`) and reports it
//!   ([`ClaimsInput::Synchronize`]). What it asks for no longer is released. The report is derived, so a crash between two
//!   steps leaves nothing behind: it is sent again after the restart.
//!
//! # An environment that the configuration no longer names
//! It still serves, so it keeps its addresses until another environment claims them: the claim is *transferable*. Without this, an
//! environment could never be renamed, or its address never be used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PublicAddress, claim_row::AddressClaimView};
use crate::{
    aggregate::{self, Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::{EnvironmentName, ServiceName},
    target::ServiceEnvironment,
};

/// The addresses of each environment of one service.
pub type AddressesByEnvironment = BTreeMap<EnvironmentName, BTreeSet<PublicAddress>>;

/// The aggregate of claims.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct AddressClaims;

pub const STREAM: &str = "addresses/claims";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsState {
    /// The claim of each address.
    pub claims: BTreeMap<PublicAddress, AddressClaim>,
}

/// The claim of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressClaim {
    /// The environment that has it.
    pub owner: ServiceEnvironment,
    /// Whether another environment may take it over, because the owner's configuration no longer names the environment.
    pub is_transferable: bool,
}

/// The facts about claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimsEvent {
    /// Addresses have an owner.
    Claimed {
        owner: ServiceEnvironment,
        addresses: BTreeSet<PublicAddress>,
    },
    /// Addresses have no owner any more.
    Released {
        /// The owner until now.
        owner: ServiceEnvironment,
        addresses: BTreeSet<PublicAddress>,
    },
    /// The owner keeps its addresses until another environment claims them.
    MadeTransferable { owner: ServiceEnvironment },
    /// The owner asks for its addresses again.
    MadePermanent { owner: ServiceEnvironment },
}

/// What services report and ask for.
#[derive(Clone, Debug)]
pub enum ClaimsInput {
    /// A push or a rollout needs these addresses: all or none.
    Claim(ClaimRequest),
    /// A service asks for exactly these, and for nothing else any more.
    Synchronize {
        service: ServiceName,
        asked: AskedAddresses,
    },
    /// The time has come; it never is.
    TimerFired,
}

/// Addresses that a push or a rollout needs.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub service: ServiceName,
    pub addresses: AddressesByEnvironment,
    /// The environments that its configuration names: those of the same service that it doesn't name give way.
    pub named: BTreeSet<EnvironmentName>,
    /// Ports that no environment can have.
    pub reserved: BTreeMap<u16, PortUse>,
    pub stage: ClaimStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimStage {
    /// A configuration that may be released: it takes nothing from any environment, and may move addresses between its own.
    Push,
    /// A release that goes into an environment.
    Rollout,
}

/// What a port of this machine is used for by Shipway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortUse {
    /// The proxy listens there.
    Proxy,
    /// The API listens there.
    Api,
}

/// What a service asks for, derived from its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedAddresses {
    pub addresses: AddressesByEnvironment,
    /// Environments that no configuration in use names any more.
    pub transferable: BTreeSet<EnvironmentName>,
}

/// An address that can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimConflict {
    /// The environment that asks.
    pub environment: EnvironmentName,
    /// The address it asks for.
    pub address: PublicAddress,
    pub holder: ClaimHolder,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimHolder {
    Environment(ServiceEnvironment),
    Shipway(PortUse),
}

impl fmt::Display for ClaimConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.holder {
            ClaimHolder::Environment(owner) => write!(f, "{address} belongs to {owner}"),
            ClaimHolder::Shipway(PortUse::Proxy) => {
                write!(f, "{address} is used by the proxy itself")
            }
            ClaimHolder::Shipway(PortUse::Api) => write!(f, "{address} is used by the API"),
        }
    }
}

/// An address that lies within another environment's, or the other way round: both are allowed, the more specific one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimOverlap {
    /// The more specific address.
    pub inner: PublicAddress,
    /// The environment that gets requests to it.
    pub inner_owner: ServiceEnvironment,
    /// The less specific address.
    pub outer: PublicAddress,
    /// The environment that gets all other requests to that.
    pub outer_owner: ServiceEnvironment,
}

impl fmt::Display for ClaimOverlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lies within {} of {}: the more specific address wins, requests to it go to {}",
            self.inner, self.outer, self.outer_owner, self.inner_owner
        )
    }
}

/// Other addresses than those that an environment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressMove {
    pub environment: EnvironmentName,
    pub from: BTreeSet<PublicAddress>,
    /// Those it asks for.
    pub to: BTreeSet<PublicAddress>,
}

impl fmt::Display for AddressMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &BTreeSet<PublicAddress>| {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            all.join(", ")
        };
        write!(
            f,
            "the address of {} changes from {} to {} when this is promoted there",
            self.environment,
            list(&self.from),
            list(&self.to)
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsRejection {
    /// Addresses have other owners; nothing was claimed.
    #[error("{}", conflict_list(.0))]
    Taken(Vec<ClaimConflict>),
}

fn conflict_list(conflicts: &[ClaimConflict]) -> String {
    let all: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    all.join("; ")
}

impl ClaimRequest {
    fn service_environment(&self, environment: &EnvironmentName) -> ServiceEnvironment {
        ServiceEnvironment {
            service: self.service.clone(),
            environment: environment.clone(),
        }
    }

    /// Whether `claim` belongs to another environment and is not transferable to this one.
    fn is_blocked_by(&self, environment: &EnvironmentName, claim: &AddressClaim) -> bool {
        let owner = &claim.owner;
        let is_own_service = owner.service == self.service;
        if is_own_service && owner.environment == *environment || claim.is_transferable {
            return false;
        }
        match self.stage {
            ClaimStage::Push => !is_own_service,
            ClaimStage::Rollout => !is_own_service || self.named.contains(&owner.environment),
        }
    }

    fn each(&self) -> impl Iterator<Item = (&EnvironmentName, &PublicAddress)> {
        let environments = self.addresses.iter();
        environments.flat_map(|(name, addresses)| addresses.iter().map(move |it| (name, it)))
    }
}

impl ClaimsState {
    /// What can't be had of a request.
    #[must_use]
    pub fn conflicts(&self, request: &ClaimRequest) -> Vec<ClaimConflict> {
        let mut conflicts = Vec::new();
        for (environment, address) in request.each() {
            let reserved = match address {
                PublicAddress::Port(port) => request.reserved.get(port).copied(),
                PublicAddress::Host { .. } | PublicAddress::Path(_) => None,
            };
            let owner = || {
                let claims = self.conflicting(address);
                let mut blocking = claims.filter(|(_, it)| request.is_blocked_by(environment, it));
                blocking.next().map(|(_, claim)| claim.owner.clone())
            };
            let holder = reserved
                .map(ClaimHolder::Shipway)
                .or_else(|| owner().map(ClaimHolder::Environment));
            conflicts.extend(holder.map(|holder| ClaimConflict {
                environment: environment.clone(),
                address: address.clone(),
                holder,
            }));
        }
        conflicts
    }

    /// Where the addresses of a request and those of others lie within each other.
    #[must_use]
    pub fn overlaps(&self, request: &ClaimRequest) -> Vec<ClaimOverlap> {
        let mut overlaps = Vec::new();
        for (environment, address) in request.each() {
            let place = request.service_environment(environment);
            for (other, claim) in &self.claims {
                if claim.owner == place {
                    continue;
                }
                let (inner, outer) = match (address.lies_within(other), other.lies_within(address))
                {
                    (true, _) => ((address, &place), (other, &claim.owner)),
                    (_, true) => ((other, &claim.owner), (address, &place)),
                    (false, false) => continue,
                };
                overlaps.push(ClaimOverlap {
                    inner: inner.0.clone(),
                    inner_owner: inner.1.clone(),
                    outer: outer.0.clone(),
                    outer_owner: outer.1.clone(),
                });
            }
        }
        overlaps
    }

    /// Environments that have other addresses than those they ask for.
    #[must_use]
    pub fn moves(&self, request: &ClaimRequest) -> Vec<AddressMove> {
        let environments = request.addresses.iter();
        let changed = environments.filter_map(|(environment, to)| {
            let from = self.owned_by(&request.service_environment(environment));
            (!from.is_empty() && from != *to).then(|| AddressMove {
                environment: environment.clone(),
                from,
                to: to.clone(),
            })
        });
        changed.collect()
    }

    /// Claims of what can't be had twice.
    fn conflicting<'a>(
        &'a self,
        address: &'a PublicAddress,
    ) -> impl Iterator<Item = (&'a PublicAddress, &'a AddressClaim)> {
        let claims = self.claims.iter();
        claims.filter(move |(claimed, _)| claimed.conflicts_with(address))
    }

    /// Whether an environment has this very address.
    #[must_use]
    pub fn is_owned_by(&self, address: &PublicAddress, owner: &ServiceEnvironment) -> bool {
        let claim = self.claims.get(address);
        claim.is_some_and(|claim| claim.owner == *owner)
    }

    /// Whether nothing has it or conflicts with it.
    #[must_use]
    pub fn is_free(&self, address: &PublicAddress) -> bool {
        self.conflicting(address).next().is_none()
    }

    fn owned_by(&self, owner: &ServiceEnvironment) -> BTreeSet<PublicAddress> {
        let claims = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.owner == *owner);
        claims.map(|(address, _)| address.clone()).collect()
    }
}

type ClaimsDecider = aggregate::Decider<AddressClaims>;

impl ClaimsDecider {
    fn claim(&mut self, request: &ClaimRequest) {
        for (environment, addresses) in &request.addresses {
            let owner = request.service_environment(environment);
            if request.stage == ClaimStage::Rollout {
                self.take_over(&owner, addresses);
            }
            self.claim_free(owner, addresses);
        }
    }

    /// Takes transferable claims away from their owners.
    fn take_over(&mut self, owner: &ServiceEnvironment, addresses: &BTreeSet<PublicAddress>) {
        let mut taken: BTreeMap<ServiceEnvironment, BTreeSet<PublicAddress>> = BTreeMap::new();
        for address in addresses {
            for (claimed, claim) in self.state.conflicting(address) {
                if claim.owner != *owner {
                    let from = taken.entry(claim.owner.clone()).or_default();
                    from.insert(claimed.clone());
                }
            }
        }
        for (owner, addresses) in taken {
            self.emit(ClaimsEvent::Released { owner, addresses });
        }
    }

    fn claim_free(&mut self, owner: ServiceEnvironment, addresses: &BTreeSet<PublicAddress>) {
        let free = addresses.iter().filter(|it| self.state.is_free(it));
        let addresses: BTreeSet<PublicAddress> = free.cloned().collect();
        if !addresses.is_empty() {
            self.emit(ClaimsEvent::Claimed { owner, addresses });
        }
    }

    fn synchronize(&mut self, service: &ServiceName, asked: &AskedAddresses) {
        let claims = self.state.claims.values();
        let owners: BTreeSet<ServiceEnvironment> = claims
            .filter(|claim| claim.owner.service == *service)
            .map(|claim| claim.owner.clone())
            .collect();
        let nothing = BTreeSet::new();
        for owner in owners {
            let wanted = asked.addresses.get(&owner.environment).unwrap_or(&nothing);
            let owned = self.state.owned_by(&owner);
            let addresses: BTreeSet<PublicAddress> = owned.difference(wanted).cloned().collect();
            if !addresses.is_empty() {
                self.emit(ClaimsEvent::Released { owner, addresses });
            }
        }
        for (environment, addresses) in &asked.addresses {
            let owner = ServiceEnvironment {
                service: service.clone(),
                environment: environment.clone(),
            };
            // A lost address must not return to it when the environment that took it is removed.
            if asked.transferable.contains(environment) {
                self.make_transferable(owner);
            } else {
                self.claim_free(owner.clone(), addresses);
                self.make_permanent(owner);
            }
        }
    }

    fn make_transferable(&mut self, owner: ServiceEnvironment) {
        let mut claims = self.state.claims_of(&owner);
        if claims.any(|claim| !claim.is_transferable) {
            drop(claims);
            self.emit(ClaimsEvent::MadeTransferable { owner });
        }
    }

    fn make_permanent(&mut self, owner: ServiceEnvironment) {
        let mut claims = self.state.claims_of(&owner);
        if claims.any(|claim| claim.is_transferable) {
            drop(claims);
            self.emit(ClaimsEvent::MadePermanent { owner });
        }
    }
}

impl Aggregate for AddressClaims {
    const KIND: &'static str = "addresses";
    type State = ClaimsState;
    type Body = ClaimsEvent;
    type Input = ClaimsInput;
    type Effect = std::convert::Infallible;
    type Rejection = ClaimsRejection;

    fn decide(
        state: &ClaimsState,
        input: ClaimsInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<ClaimsEvent>>, ClaimsRejection> {
        let mut decider = ClaimsDecider::new(state, by, now);
        match input {
            ClaimsInput::Claim(request) => {
                let conflicts = state.conflicts(&request);
                if !conflicts.is_empty() {
                    return Err(ClaimsRejection::Taken(conflicts));
                }
                decider.claim(&request);
            }
            ClaimsInput::Synchronize { service, asked } => decider.synchronize(&service, &asked),
            ClaimsInput::TimerFired => {}
        }
        Ok(decider.decided())
    }

    fn apply(state: &mut ClaimsState, event: &Event<ClaimsEvent>) {
        match &event.body {
            ClaimsEvent::Claimed { owner, addresses } => {
                let claim = AddressClaim {
                    owner: owner.clone(),
                    is_transferable: false,
                };
                let claimed = addresses.iter().map(|it| (it.clone(), claim.clone()));
                state.claims.extend(claimed);
            }
            ClaimsEvent::Released { owner, addresses } => {
                let is_released = |address: &PublicAddress, it: &AddressClaim| {
                    it.owner == *owner && addresses.contains(address)
                };
                state.claims.retain(|address, it| !is_released(address, it));
            }
            ClaimsEvent::MadeTransferable { owner } => {
                (state.claims_of_mut(owner)).for_each(|claim| claim.is_transferable = true);
            }
            ClaimsEvent::MadePermanent { owner } => {
                (state.claims_of_mut(owner)).for_each(|claim| claim.is_transferable = false);
            }
        }
    }

    fn pending(_state: &ClaimsState, _now: Timestamp) -> PendingWork<std::convert::Infallible> {
        PendingWork::nothing()
    }

    fn rows(state: &ClaimsState, events: &[Event<ClaimsEvent>]) -> Vec<ViewRow> {
        let changed = events
            .iter()
            .flat_map(|event| state.changed_by(&event.body));
        let changed: BTreeSet<PublicAddress> = changed.collect();
        changed.iter().map(|address| state.row(address)).collect()
    }

    fn timer_fired() -> ClaimsInput {
        ClaimsInput::TimerFired
    }
}

impl ClaimsState {
    /// The addresses whose claims a fact concerns.
    fn changed_by(&self, fact: &ClaimsEvent) -> BTreeSet<PublicAddress> {
        match fact {
            ClaimsEvent::Claimed { addresses, .. } | ClaimsEvent::Released { addresses, .. } => {
                addresses.clone()
            }
            ClaimsEvent::MadeTransferable { owner } | ClaimsEvent::MadePermanent { owner } => {
                self.owned_by(owner)
            }
        }
    }

    /// The row of an address; deleted where it is not claimed.
    fn row(&self, address: &PublicAddress) -> ViewRow {
        let Some(claim) = self.claims.get(address) else {
            return ViewRow::deleted(AddressClaimView::KIND, &address.to_string());
        };
        let view = AddressClaimView {
            address: address.clone(),
            service: claim.owner.service.clone(),
            environment: claim.owner.environment.clone(),
            transferable: claim.is_transferable,
        };
        view.to_row()
    }

    fn claims_of(&self, owner: &ServiceEnvironment) -> impl Iterator<Item = &AddressClaim> {
        self.claims.values().filter(move |it| it.owner == *owner)
    }

    fn claims_of_mut(
        &mut self,
        owner: &ServiceEnvironment,
    ) -> impl Iterator<Item = &mut AddressClaim> {
        self.claims
            .values_mut()
            .filter(move |it| it.owner == *owner)
    }
}
