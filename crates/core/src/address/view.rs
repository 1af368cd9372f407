//! All claims of a server as the API shows them, and what they mean for a configuration that is not pushed yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    claim_row::AddressClaimView,
    claims::{self, AddressClaim, AddressMove, ClaimConflict, ClaimOverlap, ClaimRequest, PortUse},
};
use crate::{ids::EnvironmentName, target::ServiceEnvironment};

/// All claims of a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AddressClaimsView {
    /// One for each address.
    pub items: Vec<AddressClaimView>,
    /// Ports of Shipway itself.
    pub reserved_ports: BTreeMap<u16, PortUse>,
}

/// The addresses that a configuration asks for, compared with the claimed ones.
#[derive(Clone, Debug)]
pub struct AddressComparison {
    /// What a push would be refused for.
    pub conflicts: Vec<ClaimConflict>,
    pub moves: Vec<AddressMove>,
    /// Where the more specific address wins.
    pub overlaps: Vec<ClaimOverlap>,
}

impl AddressClaimsView {
    /// The result that this request would have.
    #[must_use]
    pub fn compare(self, request: &ClaimRequest) -> AddressComparison {
        let claims = self.items.into_iter().map(|it| {
            let owner = ServiceEnvironment {
                service: it.service,
                environment: it.environment,
            };
            let claim = AddressClaim {
                owner,
                is_transferable: it.transferable,
            };
            (it.address, claim)
        });
        let state = claims::ClaimsState {
            claims: claims.collect(),
        };
        AddressComparison {
            conflicts: state.conflicts(request),
            moves: state.moves(request),
            overlaps: state.overlaps(request),
        }
    }
}

impl ClaimRequest {
    /// The same for one environment alone.
    #[must_use]
    pub fn only_for(mut self, environment: &EnvironmentName) -> Self {
        self.addresses.retain(|name, _| name == environment);
        self
    }
}
