//! All claims of a server as the API shows them, and what they mean for a configuration that is not pushed yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Address, addresses_by_environment,
    claims::{self, AddressMove, Claim, ClaimRequest, Conflict, Overlap, PortUse, Stage},
};
use crate::{
    config::Config,
    ids::{EnvironmentName, ServiceName},
    target::Place,
};

/// All claims of a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AddressClaimsView {
    /// One for each address, in the order of addresses.
    pub items: Vec<AddressClaimView>,
    /// Ports of Shipway itself.
    pub reserved_ports: BTreeMap<u16, PortUse>,
}

/// The addresses of a configuration beside those that are claimed.
#[derive(Clone, Debug)]
pub struct AddressComparison {
    /// What a push would be refused for.
    pub conflicts: Vec<Conflict>,
    /// What would change.
    pub moves: Vec<AddressMove>,
    /// Where the more specific address wins.
    pub overlaps: Vec<Overlap>,
}

/// The claim of one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddressClaimView {
    /// The address.
    pub address: Address,
    /// The service that has it.
    pub service: ServiceName,
    /// The environment that has it.
    pub environment: EnvironmentName,
    /// Whether another environment may take it over, because no configuration names this one any more.
    pub transferable: bool,
}

impl AddressClaimsView {
    /// The claims of `state`.
    #[must_use]
    pub fn new(state: &claims::State, reserved_ports: BTreeMap<u16, PortUse>) -> Self {
        let view = |(address, claim): (&Address, &Claim)| AddressClaimView {
            address: address.clone(),
            service: claim.owner.service.clone(),
            environment: claim.owner.environment.clone(),
            transferable: claim.is_transferable,
        };
        Self {
            items: state.claims.iter().map(view).collect(),
            reserved_ports,
        }
    }

    /// What a push of `config` would mean.
    #[must_use]
    pub fn compare(self, config: &Config) -> AddressComparison {
        let claims = self.items.into_iter().map(|it| {
            let owner = Place {
                service: it.service,
                environment: it.environment,
            };
            let claim = Claim {
                owner,
                is_transferable: it.transferable,
            };
            (it.address, claim)
        });
        let state = claims::State {
            claims: claims.collect(),
        };
        let request = ClaimRequest::new(config, self.reserved_ports, Stage::Push);
        AddressComparison {
            conflicts: state.conflicts(&request),
            moves: state.moves(&request),
            overlaps: state.overlaps(&request),
        }
    }
}

impl ClaimRequest {
    /// The addresses of all environments of a configuration.
    #[must_use]
    pub fn new(config: &Config, reserved: BTreeMap<u16, PortUse>, stage: Stage) -> Self {
        Self {
            service: config.service.clone(),
            addresses: addresses_by_environment(&config.service, &config.environments),
            named: config
                .environments
                .iter()
                .map(|it| it.name.clone())
                .collect(),
            reserved,
            stage,
        }
    }

    /// The same for one environment alone.
    #[must_use]
    pub fn only_for(mut self, environment: &EnvironmentName) -> Self {
        self.addresses.retain(|name, _| name == environment);
        self
    }
}
