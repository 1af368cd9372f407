//! Routes, in as few words as a test needs.

use shipway_proxy::protocol::{
    BackendInstance, FULL, RouteBackend, RouteSnapshot, ServiceRoute, StickyBy, VERSION,
};

/// The service of most tests; its host is named like it.
pub const SHOP: &str = "shop";

pub fn snapshot(routes: Vec<ServiceRoute>) -> RouteSnapshot {
    RouteSnapshot {
        version: VERSION,
        routes,
        reserved_ports: Vec::new(),
    }
}

/// The shop's route, each request decided anew, nothing held.
pub fn route(backends: Vec<RouteBackend>) -> ServiceRoute {
    ServiceRoute {
        service: SHOP.to_owned(),
        environment: "production".to_owned(),
        hosts: vec![SHOP.to_owned()],
        path_prefix: None,
        strip_prefix: true,
        local_only: false,
        port: None,
        salt: "shop/1".to_owned(),
        sticky: StickyBy::None,
        instance_affinity: None,
        backends,
        mirror: None,
        users: None,
        hold_ms: 0,
        timeout_ms: 20_000,
        answer_within_ms: 0,
    }
}

/// A release with instances at these addresses.
pub fn backend(release: u32, weight: u32, addresses: &[&str]) -> RouteBackend {
    let instance = |address: &&str| BackendInstance {
        id: format!("shop.production.{release}@{address}"),
        address: (*address).to_owned(),
    };
    RouteBackend {
        release,
        weight,
        instances: addresses.iter().map(instance).collect(),
    }
}

/// All traffic of the shop to one release.
pub fn only(release: u32, addresses: &[&str]) -> RouteSnapshot {
    snapshot(vec![route(vec![backend(release, FULL, addresses)])])
}
