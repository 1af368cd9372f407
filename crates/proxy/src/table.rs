//! A snapshot made ready for requests: checked, with the counters and instances of each release at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    counters::{Answered, InstanceState, Registry, ReleaseCounters, ReleaseKey, Worker},
    protocol::{Backend, FULL, Instance, Methods, RefusedRoutes, Route, Snapshot, Sticky, VERSION},
    route::{Chooser, Router},
    rules::RuleError,
    users::Users,
};

/// The routes in force.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) generation: u64,
    pub(crate) snapshot: Snapshot,
    router: Router,
    lanes: Vec<Arc<Lane>>,
}

/// A route with all that a request on it needs.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) route: Route,
    /// What is taken off the paths of its requests.
    pub(crate) prefix: Option<String>,
    pub(crate) chooser: Chooser,
    pub(crate) backends: Vec<Side>,
    pub(crate) mirror: Option<Mirror>,
    /// A request that waits longer for the head of its answer is overdue.
    pub(crate) answer_within: Option<Duration>,
}

/// Where copies of requests go.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Its index among the backends.
    pub(crate) side: usize,
    pub(crate) share: u32,
    pub(crate) methods: Methods,
    pub(crate) counters: Arc<ReleaseCounters>,
}

/// One release on a lane.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) release: u32,
    pub(crate) weight: u32,
    pub(crate) counters: Arc<ReleaseCounters>,
    /// Who has failed already on this route; the same for all its sides.
    users: Option<Arc<Users>>,
    pub(crate) instances: Vec<Arc<InstanceState>>,
}

/// Why a snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("snapshot version {0} is not known here; this proxy understands {VERSION}")]
    Version(u32),
    #[error("the weights of {0} in {1} add up to {2}, not to 10000 or 0")]
    Weights(String, String, u64),
    #[error("a route of {0} in {1} has release {2} twice")]
    Twice(String, String, u32),
    #[error("a rule of {0} in {1} leads to release {2}, which is not behind its route")]
    Rule(String, String, u32),
    #[error("copies of {0} in {1} go to release {2}, which is not behind its route")]
    Mirror(String, String, u32),
    #[error("two routes ask for port {0}")]
    Port(u16),
    #[error("{0:?} is no address of an instance, such as 127.0.0.1:8080")]
    Address(String),
    #[error("{0:?} can't be the name of a sticky cookie or header")]
    Name(String),
    #[error(transparent)]
    Compared(#[from] RuleError),
}

impl Table {
    pub(crate) fn compile(
        snapshot: Snapshot,
        generation: u64,
        registry: &Registry,
    ) -> Result<Self, TableError> {
        check(&snapshot)?;
        let router = Router::new(&snapshot.routes);
        let lane = |(index, route): (usize, &Route)| {
            let prefix = router.prefix(index).filter(|_| route.strip_prefix);
            let prefix = prefix.map(str::to_owned);
            Ok(Arc::new(Lane::new(route, prefix, registry)?))
        };
        let lanes = snapshot
            .routes
            .iter()
            .enumerate()
            .map(lane)
            .collect::<Result<_, TableError>>()?;
        Ok(Self {
            generation,
            snapshot,
            router,
            lanes,
        })
    }

    /// The lane of a request that came in on `port`.
    pub(crate) fn find(&self, port: u16, host: &str, path: &str) -> Option<&Arc<Lane>> {
        let index = self.router.find(port, host, path)?;
        let is_reserved = self.snapshot.reserved_ports.contains(&port);
        let lane = &self.lanes[index];
        (!is_reserved || lane.route.port == Some(port)).then_some(lane)
    }

    /// Ports beside the usual ones.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let of_routes = self.snapshot.routes.iter().filter_map(|route| route.port);
        of_routes
            .chain(self.snapshot.reserved_ports.iter().copied())
            .collect()
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<InstanceState>> {
        self.lanes
            .iter()
            .flat_map(|lane| &lane.backends)
            .flat_map(|side| &side.instances)
    }
}

fn check(snapshot: &Snapshot) -> Result<(), TableError> {
    if snapshot.version != VERSION {
        return Err(TableError::Version(snapshot.version));
    }
    let mut ports = BTreeSet::new();
    for route in &snapshot.routes {
        check_route(route)?;
        check_port(route, &mut ports)?;
    }
    Ok(())
}

/// One port leads to one route.
fn check_port(route: &Route, ports: &mut BTreeSet<u16>) -> Result<(), TableError> {
    match route.port.filter(|port| !ports.insert(*port)) {
        Some(port) => Err(TableError::Port(port)),
        None => Ok(()),
    }
}

fn check_route(route: &Route) -> Result<(), TableError> {
    let weights = route.backends.iter();
    let total: u64 = weights.map(|backend| u64::from(backend.weight)).sum();
    if total != 0 && total != u64::from(FULL) {
        let (service, environment) = (route.service.clone(), route.environment.clone());
        return Err(TableError::Weights(service, environment, total));
    }
    check_releases(route)?;
    check_name(&route.sticky)?;
    Chooser::new(route)?;
    Ok(())
}

/// The snapshot with routes that make sense: where those of a service in an environment don't, it keeps its routes of `current`.
/// One service's mistake must not hold back the routes of another.
///
/// # Errors
/// When the version is unknown: then nothing of it can be understood.
pub(crate) fn admit(
    snapshot: Snapshot,
    current: &Snapshot,
) -> Result<(Snapshot, Vec<RefusedRoutes>), TableError> {
    if snapshot.version != VERSION {
        return Err(TableError::Version(snapshot.version));
    }
    let mut by_place: BTreeMap<(String, String), Vec<Route>> = BTreeMap::new();
    let mut order = Vec::new();
    for route in snapshot.routes {
        let place = (route.service.clone(), route.environment.clone());
        if !by_place.contains_key(&place) {
            order.push(place.clone());
        }
        by_place.entry(place).or_default().push(route);
    }
    let (mut routes, mut refused, mut ports) = (Vec::new(), Vec::new(), BTreeSet::new());
    for place in order {
        let new = by_place.remove(&place).unwrap_or_default();
        let mut ports_then = ports.clone();
        let checked = new.iter().try_for_each(|route| {
            check_route(route)?;
            check_port(route, &mut ports_then)
        });
        match checked {
            Ok(()) => {
                ports = ports_then;
                routes.extend(new);
            }
            Err(error) => refused.push(RefusedRoutes {
                service: place.0,
                environment: place.1,
                reason: error.to_string(),
            }),
        }
    }
    for place in &refused {
        let before = current.routes.iter().filter(|route| {
            route.service == place.service && route.environment == place.environment
        });
        for route in before {
            let port = route.port.filter(|port| ports.insert(*port));
            routes.push(Route {
                port,
                ..route.clone()
            });
        }
    }
    let admitted = Snapshot { routes, ..snapshot };
    Ok((admitted, refused))
}

/// Each release is there once, rules lead to one of them, and instances have addresses.
fn check_releases(route: &Route) -> Result<(), TableError> {
    let mut releases = BTreeSet::new();
    for backend in &route.backends {
        if !releases.insert(backend.release) {
            let (service, environment) = (route.service.clone(), route.environment.clone());
            return Err(TableError::Twice(service, environment, backend.release));
        }
        for instance in &backend.instances {
            address_of(instance)?;
        }
    }
    if let Some(mirror) = route.mirror.filter(|it| !releases.contains(&it.release)) {
        let (service, environment) = (route.service.clone(), route.environment.clone());
        return Err(TableError::Mirror(service, environment, mirror.release));
    }
    let mut sticky = &route.sticky;
    while let Sticky::Matched { rules, otherwise } = sticky {
        let unknown = rules.iter().find(|rule| !releases.contains(&rule.release));
        if let Some(rule) = unknown {
            let (service, environment) = (route.service.clone(), route.environment.clone());
            return Err(TableError::Rule(service, environment, rule.release));
        }
        sticky = otherwise;
    }
    Ok(())
}

fn address_of(instance: &Instance) -> Result<SocketAddr, TableError> {
    let parsed = instance.address.parse();
    parsed.map_err(|_| TableError::Address(instance.address.clone()))
}

/// Names of cookies and headers are tokens; anything else would break the header they end up in.
fn check_name(sticky: &Sticky) -> Result<(), TableError> {
    match sticky {
        Sticky::Cookie(name) | Sticky::Header(name) => http::HeaderName::try_from(name.as_str())
            .map(drop)
            .map_err(|_| TableError::Name(name.clone())),
        Sticky::Matched { otherwise, .. } => check_name(otherwise),
        Sticky::Address | Sticky::None => Ok(()),
    }
}

impl Lane {
    fn new(route: &Route, prefix: Option<String>, registry: &Registry) -> Result<Self, TableError> {
        let asked = route.users.as_ref();
        let users = asked.map(|asked| registry.users(route, &asked.slow_over_micros));
        let side = |backend: &Backend| -> Result<Side, TableError> {
            let instance = |it: &Instance| -> Result<_, TableError> {
                Ok(registry.instance(&it.id, address_of(it)?))
            };
            let counters = registry.release(ReleaseKey {
                service: route.service.clone(),
                environment: route.environment.clone(),
                release: backend.release,
                mirror: false,
            });
            if let Some(asked) = asked {
                counters.count_users(&asked.slow_over_micros);
            }
            Ok(Side {
                release: backend.release,
                weight: backend.weight,
                counters,
                users: users.clone(),
                instances: backend
                    .instances
                    .iter()
                    .map(instance)
                    .collect::<Result<_, _>>()?,
            })
        };
        let backends: Vec<Side> = route.backends.iter().map(side).collect::<Result<_, _>>()?;
        let mirror = route.mirror.and_then(|mirror| {
            let mut releases = backends.iter().map(|side| side.release);
            Some(Mirror {
                side: releases.position(|it| it == mirror.release)?,
                share: mirror.share,
                methods: mirror.methods,
                counters: registry.release(ReleaseKey {
                    service: route.service.clone(),
                    environment: route.environment.clone(),
                    release: mirror.release,
                    mirror: true,
                }),
            })
        });
        Ok(Self {
            mirror,
            chooser: Chooser::new(route)?,
            answer_within: (route.answer_within_ms > 0)
                .then(|| Duration::from_millis(route.answer_within_ms)),
            route: route.clone(),
            prefix,
            backends,
        })
    }

    /// Another instance of the side chosen than the one that died under the request, where there is one.
    pub(crate) fn pick_sibling(
        &self,
        chosen: Option<usize>,
        worker: Worker,
        turn: usize,
        tried: &[Arc<InstanceState>],
        died: Option<&Arc<InstanceState>>,
    ) -> Option<Place> {
        let (side, died) = (chosen?, died?);
        let mut avoided = tried.to_vec();
        avoided.push(died.clone());
        let instance = self.backends.get(side)?.pick(worker, turn, &avoided)?;
        Some(Place { side, instance })
    }

    /// An instance of the side chosen, or else of another one that gets traffic: better than no answer.
    pub(crate) fn pick(
        &self,
        chosen: Option<usize>,
        worker: Worker,
        turn: usize,
        tried: &[Arc<InstanceState>],
    ) -> Option<Place> {
        let others = (0..self.backends.len()).filter(|side| self.backends[*side].weight > 0);
        chosen.into_iter().chain(others).find_map(|side| {
            let instance = self.backends[side].pick(worker, turn, tried)?;
            Some(Place { side, instance })
        })
    }
}

/// One instance on a lane, by its indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) side: usize,
    pub(crate) instance: usize,
}

impl Side {
    /// An answer is over; `user` is who got it, where that is known.
    pub(crate) fn answered(&self, worker: Worker, answer: &Answered, user: Option<u32>) {
        self.counters.answered(worker, answer);
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.answered(user, answer, &self.counters);
        }
    }

    /// A client went away after this time, without an answer.
    pub(crate) fn abandoned(&self, worker: Worker, age: Duration, user: Option<u32>) {
        self.counters.abandoned(worker, age);
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.met(user, true, age, &self.counters);
        }
    }

    /// A request is open for so long already.
    pub(crate) fn waiting(&self, age: Duration, is_overdue: bool, user: Option<u32>) {
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.met(user, is_overdue, age, &self.counters);
        }
    }

    /// The instance with the fewest open requests among those that can be reached, `turn` breaking ties; if none can, any that was
    /// not tried yet.
    pub(crate) fn pick(
        &self,
        worker: Worker,
        turn: usize,
        tried: &[Arc<InstanceState>],
    ) -> Option<usize> {
        let count = self.instances.len();
        if count == 1 && tried.is_empty() {
            return Some(0);
        }
        let untried = (0..count)
            .map(|offset| (turn % count + offset) % count)
            .filter(|index| {
                !tried
                    .iter()
                    .any(|it| Arc::ptr_eq(it, &self.instances[*index]))
            });
        untried.min_by_key(|index| {
            let instance = &self.instances[*index];
            (instance.ejected.load(Relaxed), instance.open.of(worker))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(addresses: &[&[&str]]) -> Route {
        let backend = |(index, addresses): (usize, &&[&str])| Backend {
            release: u32::try_from(addresses.len()).unwrap() + 100 * u32::try_from(index).unwrap(),
            weight: if index == 0 { FULL } else { 0 },
            instances: addresses
                .iter()
                .map(|address| Instance {
                    id: format!("i-{address}"),
                    address: (*address).into(),
                })
                .collect(),
        };
        Route {
            service: "shop".into(),
            environment: "production".into(),
            hosts: vec!["h".into()],
            path_prefix: None,
            strip_prefix: true,
            local_only: false,
            port: None,
            salt: "shop/ro7".into(),
            sticky: Sticky::None,
            backends: addresses.iter().enumerate().map(backend).collect(),
            mirror: None,
            users: None,
            hold_ms: 0,
            timeout_ms: 1_000,
            answer_within_ms: 0,
        }
    }

    fn table(routes: Vec<Route>) -> Result<Table, TableError> {
        Table::compile(
            Snapshot {
                version: VERSION,
                routes,
                reserved_ports: Vec::new(),
            },
            1,
            &Registry::new(1),
        )
    }

    #[test]
    fn a_snapshot_that_makes_no_sense_is_refused() {
        let mut uneven = route(&[&["127.0.0.1:9"]]);
        uneven.backends[0].weight = u32::MAX;
        assert!(matches!(table(vec![uneven]), Err(TableError::Weights(..))));
        assert!(matches!(
            table(vec![route(&[&["nowhere"]])]),
            Err(TableError::Address(_))
        ));
        let port = Route {
            port: Some(80),
            ..route(&[&[]])
        };
        assert!(matches!(
            table(vec![port.clone(), port]),
            Err(TableError::Port(80))
        ));
        let cookie = Route {
            sticky: Sticky::Cookie("a b\r\n".into()),
            ..route(&[&[]])
        };
        assert!(matches!(table(vec![cookie]), Err(TableError::Name(_))));
        let newer = Snapshot {
            version: 2,
            routes: vec![],
            reserved_ports: vec![],
        };
        let refused = Table::compile(newer, 1, &Registry::new(1));
        assert!(matches!(refused, Err(TableError::Version(2))));
    }

    #[test]
    fn routes_that_make_no_sense_hold_back_no_other_services_routes() {
        let named = |service: &str, port: Option<u16>, address: &str| Route {
            service: service.into(),
            port,
            ..route(&[&[address]])
        };
        let snapshot = |routes| Snapshot {
            version: VERSION,
            routes,
            reserved_ports: vec![9_001],
        };
        let current = snapshot(vec![
            named("bad", Some(80), "127.0.0.1:1"),
            named("gone", None, "127.0.0.1:2"),
        ]);
        let new = snapshot(vec![
            named("good", None, "127.0.0.1:3"),
            named("bad", None, "nowhere"),
            named("first", Some(80), "127.0.0.1:4"),
            named("second", Some(80), "127.0.0.1:5"),
        ]);
        let (admitted, refused) = admit(new, &current).unwrap();
        let said: Vec<String> = refused
            .iter()
            .map(|it| format!("{}: {}", it.service, it.reason))
            .collect();
        assert_eq!(
            said,
            [
                "bad: \"nowhere\" is no address of an instance, such as 127.0.0.1:8080",
                "second: two routes ask for port 80"
            ]
        );
        let in_force: Vec<_> = admitted
            .routes
            .iter()
            .map(|it| {
                (
                    it.service.as_str(),
                    it.port,
                    it.backends[0].instances[0].address.as_str(),
                )
            })
            .collect();
        assert_eq!(
            in_force,
            [
                ("good", None, "127.0.0.1:3"),
                ("first", Some(80), "127.0.0.1:4"),
                ("bad", None, "127.0.0.1:1"),
            ]
        );
        let table = Table::compile(admitted, 1, &Registry::new(1)).unwrap();
        assert_eq!(table.ports(), BTreeSet::from([80, 9_001]));
        assert!(
            table.find(9_001, "h", "/").is_none(),
            "reserved, without a route"
        );
        assert!(table.find(80, "h", "/").is_some());
    }

    #[test]
    fn who_is_ejected_or_busy_is_asked_last() {
        let table = table(vec![route(&[&[
            "127.0.0.1:1",
            "127.0.0.1:2",
            "127.0.0.1:3",
        ]])])
        .unwrap();
        let lane = table.find(80, "h", "/").unwrap();
        let port = |turn, tried: &[Arc<InstanceState>]| {
            let place = lane.pick(Some(0), 0, turn, tried)?;
            Some(
                lane.backends[place.side].instances[place.instance]
                    .address
                    .port(),
            )
        };
        assert_eq!(
            (0..3)
                .map(|turn| port(turn, &[]).unwrap())
                .collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let instances = &lane.backends[0].instances;
        instances[0].ejected.store(true, Relaxed);
        instances[1].open.begin(0);
        assert_eq!(
            (0..3)
                .map(|turn| port(turn, &[]).unwrap())
                .collect::<Vec<_>>(),
            [3, 3, 3]
        );
        assert_eq!(port(0, &instances[1..]), Some(1));
        assert_eq!(port(0, instances), None);
    }

    #[test]
    fn a_release_without_weight_stands_in_for_nobody() {
        let table = table(vec![route(&[&[], &["127.0.0.1:1"]])]).unwrap();
        let lane = table.find(80, "h", "/").unwrap();
        assert!(lane.pick(Some(0), 0, 0, &[]).is_none());
        assert_eq!(
            lane.pick(Some(1), 0, 0, &[]),
            Some(Place {
                side: 1,
                instance: 0
            })
        );
    }
}
