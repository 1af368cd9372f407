//! The addresses at which the environments of a service are served.

use shipway_core::{address::claims, service, target::ServiceEnvironment};
use shipway_targets::traffic_control::{PortReservation, ServedAt};

/// Where the environments of a service are reached, by the log alone: the same after a restart.
pub(crate) fn served_at(
    state: &service::ServiceState,
    claims: &claims::ClaimsState,
) -> Vec<ServedAt> {
    let Some(name) = &state.name else {
        return Vec::new();
    };
    let unnamed = state.unnamed_environments();
    let environments = state.environments.iter();
    environments
        .map(|(environment, current)| {
            let mut addresses = state.served_addresses(environment);
            let is_transferable = unnamed.contains(environment);
            if let Some(addresses) = addresses.as_mut().filter(|_| is_transferable) {
                // What another environment has claimed is served here until it is served there; what nothing has, is not.
                addresses.retain(|address| !claims.is_free(address));
            }
            let served_port = addresses.as_ref().and_then(|it| it.port());
            let claiming = current.active.as_ref().map(|it| &it.spec.environment);
            let claimed_port = claiming.and_then(|environment| {
                Some(PortReservation {
                    router: environment.router,
                    port: environment.port?,
                })
            });
            ServedAt {
                place: ServiceEnvironment {
                    service: name.clone(),
                    environment: environment.clone(),
                },
                addresses,
                is_transferable,
                reserved_port: claimed_port.filter(|it| served_port != Some(it.port)),
            }
        })
        .collect()
}
