//! From the route table to the routes of the proxy. Pure.

use std::time::Duration;

use shipway_core::{
    address::{EnvironmentAddresses, PublicAddress},
    config::{StickyKey, StickyScope},
    ids::ReleaseNumber,
    rollout::canary_match::{MirrorScope, RequestMatch, TextMatch},
    target::ServiceEnvironment,
};
use shipway_proxy::protocol::{
    self, BackendInstance, InstanceAffinity, MirroredMethods, RouteBackend, RouteRule,
    RouteSnapshot, ServiceRoute, UserCounting, ValueComparison,
};

use crate::router::{RoutingTable, TrafficRoute};

/// All routes: each traffic route by its addresses. Of traffic routes with the same address one gets the requests.
#[must_use]
pub fn compose(table: &RoutingTable) -> RouteSnapshot {
    let mut taken: Vec<PublicAddress> = Vec::new();
    let mut routes = Vec::new();
    let (last, first): (Vec<_>, Vec<_>) = table
        .routes
        .iter()
        .partition(|(_, traffic_route)| traffic_route.is_transferable);
    for (place, traffic_route) in first.into_iter().chain(last) {
        let is_taken = |address: &PublicAddress| taken.iter().any(|it| it.conflicts_with(address));
        let mut addresses = traffic_route.addresses.clone();
        addresses.retain(|address| !is_taken(address));
        routes.extend(routes_of(place, traffic_route, &addresses, table));
        taken.extend(addresses.claims());
    }
    RouteSnapshot {
        version: protocol::VERSION,
        routes,
        reserved_ports: table.reserved_ports.values().copied().collect(),
    }
}

fn routes_of(
    place: &ServiceEnvironment,
    traffic_route: &TrafficRoute,
    addresses: &EnvironmentAddresses,
    table: &RoutingTable,
) -> Vec<ServiceRoute> {
    let backend = |(release, weight): (ReleaseNumber, shipway_core::weight::Weight)| RouteBackend {
        release: release.0,
        weight: weight.basis_points(),
        instances: backend_instances(table, place, release),
    };
    let base = ServiceRoute {
        service: place.service.to_string(),
        environment: place.environment.to_string(),
        hosts: Vec::new(),
        path_prefix: None,
        strip_prefix: addresses.strip_prefix,
        local_only: false,
        port: None,
        salt: traffic_route.salt.clone(),
        sticky: sticky(traffic_route),
        instance_affinity: instance_affinity(traffic_route),
        backends: traffic_route.split.releases().map(backend).collect(),
        mirror: mirror(traffic_route),
        users: traffic_route
            .users()
            .map(|slow_over_micros| UserCounting { slow_over_micros }),
        hold_ms: millis(traffic_route.timeouts.hold),
        timeout_ms: millis(traffic_route.timeouts.response),
        answer_within_ms: millis(traffic_route.timeouts.answer_within),
    };
    let prefix = |path: &str| Some(path.to_owned()).filter(|path| !path.is_empty());
    let mut routes: Vec<ServiceRoute> = Vec::new();
    for address in &addresses.public {
        let mut route = base.clone();
        match address {
            PublicAddress::Host { name, path } => {
                route.hosts = vec![name.clone()];
                route.path_prefix = prefix(path);
            }
            PublicAddress::Path(path) => route.path_prefix = prefix(path),
            PublicAddress::Port(port) => route.port = Some(*port),
        }
        // Hosts with one path are one route.
        match routes.last_mut() {
            Some(last) if !last.hosts.is_empty() && last.path_prefix == route.path_prefix => {
                last.hosts.append(&mut route.hosts);
                last.port = route.port;
            }
            _ => routes.push(route),
        }
    }
    routes.extend(addresses.local_path.as_deref().map(|path| ServiceRoute {
        path_prefix: prefix(path),
        local_only: true,
        ..base.clone()
    }));
    routes
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The identity of users for sticky routing, and the requests that always go to the candidate.
fn sticky(traffic_route: &TrafficRoute) -> protocol::StickyBy {
    let otherwise = match &traffic_route.sticky {
        StickyKey::Cookie(name) => protocol::StickyBy::Cookie(name.clone()),
        StickyKey::Header(name) => protocol::StickyBy::Header(name.clone()),
        StickyKey::Address => protocol::StickyBy::Address,
        StickyKey::None => protocol::StickyBy::None,
    };
    match &traffic_route.split.reach {
        Some(reach) if !reach.matches.is_empty() => protocol::StickyBy::Matched {
            rules: reach
                .matches
                .iter()
                .map(|it| rule(it, reach.release))
                .collect(),
            otherwise: Box::new(otherwise),
        },
        Some(_) | None => otherwise,
    }
}

/// The cookie of an instance is another than that of the user, which may be the app's own.
fn instance_affinity(traffic_route: &TrafficRoute) -> Option<InstanceAffinity> {
    let affinity = match (traffic_route.sticky_to, &traffic_route.sticky) {
        (StickyScope::Release, _) | (_, StickyKey::None) => return None,
        (StickyScope::Instance, StickyKey::Cookie(name)) => {
            InstanceAffinity::Cookie(format!("{name}-instance"))
        }
        (StickyScope::Instance, StickyKey::Header(_) | StickyKey::Address) => {
            InstanceAffinity::UserKey
        }
    };
    Some(affinity)
}

fn rule(wanted: &RequestMatch, release: ReleaseNumber) -> RouteRule {
    let compared = |text: &TextMatch| match text {
        TextMatch::Is(value) => (value.clone(), ValueComparison::Exact),
        TextMatch::Prefix(value) => (value.clone(), ValueComparison::Prefix),
        TextMatch::Regex(value) => (value.clone(), ValueComparison::Regex),
        TextMatch::Present => (String::new(), ValueComparison::Present),
    };
    let header = |(name, text): (&String, &TextMatch)| {
        let (value, compared) = compared(text);
        let name = name.clone();
        protocol::RequestMatch::Header {
            name,
            value,
            compared,
        }
    };
    let cookie = |(name, text): (&String, &TextMatch)| {
        let (value, compared) = compared(text);
        let name = name.clone();
        protocol::RequestMatch::Cookie {
            name,
            value,
            compared,
        }
    };
    let headers = wanted.headers.iter().map(header);
    RouteRule {
        only_if: protocol::RequestMatch::All(
            headers.chain(wanted.cookies.iter().map(cookie)).collect(),
        ),
        release: release.0,
    }
}

fn mirror(traffic_route: &TrafficRoute) -> Option<protocol::RequestMirror> {
    let reach = traffic_route.split.reach.as_ref()?;
    let mirror = reach.mirror?;
    Some(protocol::RequestMirror {
        release: reach.release.0,
        share: mirror.share.basis_points(),
        methods: match mirror.methods {
            MirrorScope::Safe => MirroredMethods::Safe,
            MirrorScope::All => MirroredMethods::All,
        },
    })
}

fn backend_instances(
    table: &RoutingTable,
    place: &ServiceEnvironment,
    release: ReleaseNumber,
) -> Vec<BackendInstance> {
    table
        .ready_instances(place, release)
        .map(|status| BackendInstance {
            id: status.id.to_string(),
            address: status.address.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shipway_core::{
        config::RequestTimeouts,
        rollout::{
            canary_match::{TrafficMatch, TrafficMirror},
            plan::TrafficSplit,
        },
        weight::Weight,
    };

    use super::*;

    fn traffic_route(canary: u32) -> TrafficRoute {
        let weight = |points| Weight::from_basis_points(points).unwrap();
        let shares = vec![
            (ReleaseNumber(2).into(), weight(canary)),
            (ReleaseNumber(1).into(), weight(canary).rest()),
        ];
        TrafficRoute {
            addresses: EnvironmentAddresses::default(),
            is_transferable: false,
            sticky: StickyKey::Cookie("user".to_owned()),
            sticky_to: StickyScope::Release,
            timeouts: RequestTimeouts::default(),
            split: TrafficSplit {
                shares,
                reach: None,
            },
            salt: "shop/ro2".to_owned(),
            counted: Some(vec![300_000]),
            kept: BTreeMap::new(),
        }
    }

    #[test]
    fn users_are_counted_while_each_has_a_side_by_chance_alone() {
        let users = traffic_route(1_000).users();
        assert_eq!(users.unwrap(), [300_000]);
        let nobody_asks = TrafficRoute {
            counted: None,
            ..traffic_route(1_000)
        };
        let nobody_is_known = TrafficRoute {
            sticky: StickyKey::None,
            ..traffic_route(1_000)
        };
        let mut copied = traffic_route(1_000);
        copied.split.reach = Some(TrafficMatch {
            mirror: Some(TrafficMirror {
                share: Weight::from_basis_points(500).unwrap(),
                methods: shipway_core::rollout::canary_match::MirrorScope::Safe,
            }),
            ..TrafficMatch::default()
        });
        for traffic_route in [
            nobody_asks,
            nobody_is_known,
            copied,
            traffic_route(0),
            traffic_route(10_000),
        ] {
            assert_eq!(traffic_route.users(), None, "{traffic_route:?}");
        }
    }

    fn place(service: &str) -> ServiceEnvironment {
        ServiceEnvironment {
            service: service.parse().unwrap(),
            environment: "production".parse().unwrap(),
        }
    }

    /// `host/path:port` of each route.
    fn shown(traffic_routes: &BTreeMap<ServiceEnvironment, TrafficRoute>) -> Vec<String> {
        let snapshot = compose(&RoutingTable {
            routes: traffic_routes.clone(),
            ..RoutingTable::default()
        });
        let line = |route: &ServiceRoute| {
            let port = route
                .port
                .map_or_else(String::new, |port| format!(":{port}"));
            let path = route.path_prefix.as_deref().unwrap_or_default();
            let local = if route.local_only { " local" } else { "" };
            format!(
                "{}: {}{path}{port}{local}",
                route.service,
                route.hosts.join(",")
            )
        };
        snapshot.routes.iter().map(line).collect()
    }

    fn reached_at(addresses: &[&str], local_path: Option<&str>) -> TrafficRoute {
        let public = addresses.iter().map(|it| it.parse().unwrap()).collect();
        TrafficRoute {
            addresses: EnvironmentAddresses {
                public,
                local_path: local_path.map(str::to_owned),
                strip_prefix: true,
            },
            ..traffic_route(0)
        }
    }

    #[test]
    fn each_address_of_a_lane_has_a_route() {
        let table = [
            (
                reached_at(&["a.example", "b.example"], None),
                vec!["s: a.example,b.example"],
            ),
            (
                reached_at(&["a.example/x", "port 9000"], None),
                vec!["s: a.example/x", "s: :9000"],
            ),
            (
                reached_at(&["a.example", "port 9000"], None),
                vec!["s: a.example:9000"],
            ),
            (
                reached_at(&["/", "port 9000"], None),
                vec!["s: ", "s: :9000"],
            ),
            (
                reached_at(&["s.localhost"], Some("/s")),
                vec!["s: s.localhost", "s: /s local"],
            ),
        ];
        for (traffic_route, routes) in table {
            assert_eq!(
                shown(&BTreeMap::from([(place("s"), traffic_route)])),
                routes
            );
        }
    }

    #[test]
    fn an_environment_that_is_no_longer_named_gives_its_route_to_the_one_that_took_its_address() {
        let old = TrafficRoute {
            is_transferable: true,
            ..reached_at(&["a.example", "old.example"], None)
        };
        let mut traffic_routes = BTreeMap::from([(place("a-old"), old)]);
        assert_eq!(shown(&traffic_routes), ["a-old: a.example,old.example"]);
        traffic_routes.insert(place("b-new"), reached_at(&["a.example"], None));
        assert_eq!(
            shown(&traffic_routes),
            ["b-new: a.example", "a-old: old.example"]
        );
    }

    #[test]
    fn an_address_leads_to_one_lane_even_if_two_have_it() {
        let twice = BTreeMap::from([
            (place("one"), reached_at(&["port 9000"], None)),
            (
                place("two"),
                reached_at(&["port 9000", "two.example"], None),
            ),
        ]);
        assert_eq!(shown(&twice), ["one: :9000", "two: two.example"]);
    }
}
