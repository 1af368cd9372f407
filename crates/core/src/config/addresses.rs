//! The addresses that a configuration asks for.

use std::collections::BTreeMap;

use super::{EnvironmentConfig, ServiceConfig};
use crate::{
    address::{
        AddressKeys, EnvironmentAddresses,
        claims::{AddressesByEnvironment, ClaimRequest, ClaimStage, PortUse},
    },
    ids::ServiceName,
    target::ServiceEnvironment,
};

impl EnvironmentConfig {
    /// Where this environment is reached, as the environment `place`.
    #[must_use]
    pub fn addresses(&self, place: &ServiceEnvironment) -> EnvironmentAddresses {
        let keys = AddressKeys {
            hosts: &self.hosts,
            path: self.path.as_deref(),
            port: self.port,
            strip_prefix: self.strip_prefix,
        };
        EnvironmentAddresses::new(place, keys)
    }
}

impl ServiceConfig {
    /// The addresses of each environment.
    #[must_use]
    pub fn addresses(&self) -> AddressesByEnvironment {
        addresses_by_environment(&self.service, &self.environments)
    }

    /// A claim of the addresses of all environments.
    #[must_use]
    pub fn claim_request(
        &self,
        reserved: BTreeMap<u16, PortUse>,
        stage: ClaimStage,
    ) -> ClaimRequest {
        ClaimRequest {
            service: self.service.clone(),
            addresses: self.addresses(),
            named: self.environments.iter().map(|it| it.name.clone()).collect(),
            reserved,
            stage,
        }
    }
}

/// The addresses of some environments of a service.
#[must_use]
pub fn addresses_by_environment(
    service: &ServiceName,
    environments: &[EnvironmentConfig],
) -> AddressesByEnvironment {
    environments
        .iter()
        .map(|environment| {
            let place = ServiceEnvironment {
                service: service.clone(),
                environment: environment.name.clone(),
            };
            let claims = environment.addresses(&place).claims();
            (environment.name.clone(), claims)
        })
        .collect()
}
