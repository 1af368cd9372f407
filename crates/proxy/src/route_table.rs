//! A snapshot compiled for requests: checked, with the counters and instances of each release resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::HeaderMap;

use crate::{
    counter_registry::{CounterRegistry, InstanceState},
    failed_users::FailedUsers,
    instance_affinity::{AffinityCandidate, CompiledAffinity},
    match_rules::RuleError,
    protocol::{
        BackendInstance, FULL, InstanceAffinity, MirroredMethods, RejectedRoutes, RouteBackend,
        RouteSnapshot, ServiceRoute, StickyBy, VERSION,
    },
    release_counters::{CompletedResponse, ReleaseCounters, ReleaseKey, WorkerIndex},
    route_matching::{BackendChooser, RouteMatcher},
};

/// The routes in force.
#[derive(Debug)]
pub(crate) struct RouteTable {
    pub(crate) generation: u64,
    pub(crate) snapshot: RouteSnapshot,
    router: RouteMatcher,
    routes: Vec<Arc<CompiledRoute>>,
}

/// A route with everything that its requests need.
#[derive(Debug)]
pub(crate) struct CompiledRoute {
    pub(crate) config: ServiceRoute,
    /// Prefix that is removed from request paths.
    pub(crate) prefix: Option<String>,
    pub(crate) chooser: BackendChooser,
    pub(crate) affinity: Option<CompiledAffinity>,
    pub(crate) backends: Vec<CompiledBackend>,
    pub(crate) mirror: Option<MirrorTarget>,
    /// A request that waits longer for the head of the response is overdue.
    pub(crate) answer_within: Option<Duration>,
}

/// The target of mirrored requests.
#[derive(Debug)]
pub(crate) struct MirrorTarget {
    /// Index among the backends.
    pub(crate) backend: usize,
    pub(crate) share: u32,
    pub(crate) methods: MirroredMethods,
    pub(crate) counters: Arc<ReleaseCounters>,
}

/// One release of a route.
#[derive(Debug)]
pub(crate) struct CompiledBackend {
    pub(crate) release: u32,
    pub(crate) weight: u32,
    pub(crate) counters: Arc<ReleaseCounters>,
    /// The users who failed on this route; shared by its backends.
    users: Option<Arc<FailedUsers>>,
    pub(crate) instances: Vec<Arc<InstanceState>>,
}

/// Why a snapshot or a route is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteTableError {
    #[error("unknown snapshot version {0}; this proxy supports {VERSION}")]
    Version(u32),
    #[error("the weights of {0} in {1} add up to {2}, not to 10000 or 0")]
    Weights(String, String, u64),
    #[error("a route of {0} in {1} has release {2} twice")]
    Twice(String, String, u32),
    #[error("a rule of {0} in {1} leads to release {2}, which is not behind its route")]
    Rule(String, String, u32),
    #[error("copies of {0} in {1} go to release {2}, which is not behind its route")]
    Mirror(String, String, u32),
    #[error("two routes use port {0}")]
    Port(u16),
    #[error("{0:?} is not an address of an instance, such as 127.0.0.1:8080")]
    Address(String),
    #[error("{0:?} is not a valid name of a sticky cookie or header")]
    Name(String),
    #[error(transparent)]
    ValueComparison(#[from] RuleError),
}

impl RouteTable {
    pub(crate) fn compile(
        snapshot: RouteSnapshot,
        generation: u64,
        registry: &CounterRegistry,
    ) -> Result<Self, RouteTableError> {
        check_snapshot(&snapshot)?;
        let router = RouteMatcher::new(&snapshot.routes);
        let route = |(index, route): (usize, &ServiceRoute)| {
            let prefix = router.path_prefix(index).filter(|_| route.strip_prefix);
            let prefix = prefix.map(str::to_owned);
            Ok(Arc::new(CompiledRoute::new(route, prefix, registry)?))
        };
        let routes = snapshot
            .routes
            .iter()
            .enumerate()
            .map(route)
            .collect::<Result<_, RouteTableError>>()?;
        Ok(Self {
            generation,
            snapshot,
            router,
            routes,
        })
    }

    /// The route of a request accepted at `port`.
    pub(crate) fn find_route(
        &self,
        port: u16,
        host: &str,
        path: &str,
    ) -> Option<&Arc<CompiledRoute>> {
        let index = self.router.find_route(port, host, path)?;
        let is_reserved = self.snapshot.reserved_ports.contains(&port);
        let route = &self.routes[index];
        (!is_reserved || route.config.port == Some(port)).then_some(route)
    }

    /// Dedicated ports of routes, and reserved ports.
    pub(crate) fn route_ports(&self) -> BTreeSet<u16> {
        let of_routes = self.snapshot.routes.iter().filter_map(|route| route.port);
        of_routes
            .chain(self.snapshot.reserved_ports.iter().copied())
            .collect()
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<InstanceState>> {
        self.routes
            .iter()
            .flat_map(|route| &route.backends)
            .flat_map(|backend| &backend.instances)
    }
}

fn check_snapshot(snapshot: &RouteSnapshot) -> Result<(), RouteTableError> {
    if snapshot.version != VERSION {
        return Err(RouteTableError::Version(snapshot.version));
    }
    let mut ports = BTreeSet::new();
    for route in &snapshot.routes {
        check_route(route)?;
        check_port(route, &mut ports)?;
    }
    Ok(())
}

/// A port may lead to only one route.
fn check_port(route: &ServiceRoute, ports: &mut BTreeSet<u16>) -> Result<(), RouteTableError> {
    match route.port.filter(|port| !ports.insert(*port)) {
        Some(port) => Err(RouteTableError::Port(port)),
        None => Ok(()),
    }
}

fn check_route(route: &ServiceRoute) -> Result<(), RouteTableError> {
    let weights = route.backends.iter();
    let total: u64 = weights.map(|backend| u64::from(backend.weight)).sum();
    if total != 0 && total != u64::from(FULL) {
        let (service, environment) = (route.service.clone(), route.environment.clone());
        return Err(RouteTableError::Weights(service, environment, total));
    }
    check_releases(route)?;
    check_sticky_name(&route.sticky)?;
    if let Some(InstanceAffinity::Cookie(name)) = &route.instance_affinity {
        check_field_name(name)?;
    }
    BackendChooser::new(route)?;
    Ok(())
}

/// Removes invalid routes: if one route of a service in an environment is invalid, that service keeps its routes of `current`. A
/// mistake in one service must not hold back the routes of another.
///
/// # Errors
/// If the version is unknown: then nothing of the snapshot can be interpreted.
pub(crate) fn admit_snapshot(
    snapshot: RouteSnapshot,
    current: &RouteSnapshot,
) -> Result<(RouteSnapshot, Vec<RejectedRoutes>), RouteTableError> {
    if snapshot.version != VERSION {
        return Err(RouteTableError::Version(snapshot.version));
    }
    let mut by_service: BTreeMap<(String, String), Vec<ServiceRoute>> = BTreeMap::new();
    let mut order = Vec::new();
    for route in snapshot.routes {
        let place = (route.service.clone(), route.environment.clone());
        if !by_service.contains_key(&place) {
            order.push(place.clone());
        }
        by_service.entry(place).or_default().push(route);
    }
    let (mut routes, mut refused, mut ports) = (Vec::new(), Vec::new(), BTreeSet::new());
    for place in order {
        let new = by_service.remove(&place).unwrap_or_default();
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
            Err(error) => refused.push(RejectedRoutes {
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
            routes.push(ServiceRoute {
                port,
                ..route.clone()
            });
        }
    }
    let admitted = RouteSnapshot { routes, ..snapshot };
    Ok((admitted, refused))
}

/// Releases are unique, rules lead to one of them, and instances have addresses.
fn check_releases(route: &ServiceRoute) -> Result<(), RouteTableError> {
    let mut releases = BTreeSet::new();
    for backend in &route.backends {
        if !releases.insert(backend.release) {
            let (service, environment) = (route.service.clone(), route.environment.clone());
            return Err(RouteTableError::Twice(
                service,
                environment,
                backend.release,
            ));
        }
        for instance in &backend.instances {
            parse_address(instance)?;
        }
    }
    if let Some(mirror) = route.mirror.filter(|it| !releases.contains(&it.release)) {
        let (service, environment) = (route.service.clone(), route.environment.clone());
        return Err(RouteTableError::Mirror(
            service,
            environment,
            mirror.release,
        ));
    }
    let mut sticky = &route.sticky;
    while let StickyBy::Matched { rules, otherwise } = sticky {
        let unknown = rules.iter().find(|rule| !releases.contains(&rule.release));
        if let Some(rule) = unknown {
            let (service, environment) = (route.service.clone(), route.environment.clone());
            return Err(RouteTableError::Rule(service, environment, rule.release));
        }
        sticky = otherwise;
    }
    Ok(())
}

fn parse_address(instance: &BackendInstance) -> Result<SocketAddr, RouteTableError> {
    let parsed = instance.address.parse();
    parsed.map_err(|_| RouteTableError::Address(instance.address.clone()))
}

/// Names of cookies and headers must be tokens; anything else would break the header that contains them.
fn check_sticky_name(sticky: &StickyBy) -> Result<(), RouteTableError> {
    match sticky {
        StickyBy::Cookie(name) | StickyBy::Header(name) => check_field_name(name),
        StickyBy::Matched { otherwise, .. } => check_sticky_name(otherwise),
        StickyBy::Address | StickyBy::None => Ok(()),
    }
}

fn check_field_name(name: &str) -> Result<(), RouteTableError> {
    let parsed = http::HeaderName::try_from(name);
    parsed
        .map(drop)
        .map_err(|_| RouteTableError::Name(name.to_owned()))
}

impl CompiledRoute {
    fn new(
        route: &ServiceRoute,
        prefix: Option<String>,
        registry: &CounterRegistry,
    ) -> Result<Self, RouteTableError> {
        let asked = route.users.as_ref();
        let users = asked.map(|asked| registry.failed_users(route, &asked.slow_over_micros));
        let backend = |backend: &RouteBackend| -> Result<CompiledBackend, RouteTableError> {
            let instance = |it: &BackendInstance| -> Result<_, RouteTableError> {
                Ok(registry.instance_state(&it.id, parse_address(it)?))
            };
            let counters = registry.release_counters(ReleaseKey {
                service: route.service.clone(),
                environment: route.environment.clone(),
                release: backend.release,
                mirror: false,
            });
            if let Some(asked) = asked {
                counters.enable_user_counts(&asked.slow_over_micros);
            }
            Ok(CompiledBackend {
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
        let backends: Vec<CompiledBackend> = route
            .backends
            .iter()
            .map(backend)
            .collect::<Result<_, _>>()?;
        let mirror = route.mirror.and_then(|mirror| {
            let mut releases = backends.iter().map(|backend| backend.release);
            Some(MirrorTarget {
                backend: releases.position(|it| it == mirror.release)?,
                share: mirror.share,
                methods: mirror.methods,
                counters: registry.release_counters(ReleaseKey {
                    service: route.service.clone(),
                    environment: route.environment.clone(),
                    release: mirror.release,
                    mirror: true,
                }),
            })
        });
        Ok(Self {
            mirror,
            chooser: BackendChooser::new(route)?,
            affinity: CompiledAffinity::new(route),
            answer_within: (route.answer_within_ms > 0)
                .then(|| Duration::from_millis(route.answer_within_ms)),
            config: route.clone(),
            prefix,
            backends,
        })
    }

    /// The instance of the chosen release that the user is kept on, if there is one and it can be used.
    pub(crate) fn pick_affine_instance(
        &self,
        chosen: Option<usize>,
        headers: &HeaderMap,
        client: IpAddr,
        is_excluded: impl Fn(&Arc<InstanceState>) -> bool,
    ) -> Option<InstanceIndex> {
        let (affinity, backend) = (self.affinity.as_ref()?, chosen?);
        let key = self.chooser.user_key(headers, client);
        let instances = self.backends.get(backend)?.instances.iter();
        let candidates = instances.map(|it| AffinityCandidate {
            id: &it.id,
            tag: it.tag,
            is_usable: !it.ejected.load(Relaxed) && !is_excluded(it),
        });
        let instance = affinity.find_instance(headers, key.as_deref(), candidates)?;
        Some(InstanceIndex { backend, instance })
    }

    /// Another instance of the chosen release than the one that died during the request, if there is one.
    pub(crate) fn pick_sibling(
        &self,
        chosen: Option<usize>,
        worker: WorkerIndex,
        turn: usize,
        tried: &[Arc<InstanceState>],
        died: Option<&Arc<InstanceState>>,
    ) -> Option<InstanceIndex> {
        let (backend, died) = (chosen?, died?);
        let mut avoided = tried.to_vec();
        avoided.push(died.clone());
        let instance = self
            .backends
            .get(backend)?
            .pick_instance(worker, turn, &avoided)?;
        Some(InstanceIndex { backend, instance })
    }

    /// An instance of the chosen release, otherwise of another one that gets traffic: better than no response.
    pub(crate) fn pick_instance(
        &self,
        chosen: Option<usize>,
        worker: WorkerIndex,
        turn: usize,
        tried: &[Arc<InstanceState>],
    ) -> Option<InstanceIndex> {
        let others = (0..self.backends.len()).filter(|backend| self.backends[*backend].weight > 0);
        chosen.into_iter().chain(others).find_map(|backend| {
            let instance = self.backends[backend].pick_instance(worker, turn, tried)?;
            Some(InstanceIndex { backend, instance })
        })
    }
}

/// Indices of a backend and of one of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InstanceIndex {
    pub(crate) backend: usize,
    pub(crate) instance: usize,
}

impl CompiledBackend {
    /// Counts a response that has ended; `user` is the hash of the user, if known.
    pub(crate) fn record_response(
        &self,
        worker: WorkerIndex,
        answer: &CompletedResponse,
        user: Option<u32>,
    ) {
        self.counters.record_response(worker, answer);
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.record_response(user, answer, &self.counters);
        }
    }

    /// Counts a request that was abandoned at this age.
    pub(crate) fn record_abandoned(&self, worker: WorkerIndex, age: Duration, user: Option<u32>) {
        self.counters.record_abandoned(worker, age);
        self.record_overdue(user);
        self.record_waiting(age, user);
    }

    /// Counts the user of an open request of this age, if that is slow.
    pub(crate) fn record_waiting(&self, age: Duration, user: Option<u32>) {
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.record_wait(user, age, &self.counters);
        }
    }

    /// Counts the user of a request that was abandoned or is overdue as failed.
    pub(crate) fn record_overdue(&self, user: Option<u32>) {
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.record_failure(user, &self.counters);
        }
    }

    /// The reachable instance with the fewest open requests, ties broken by `turn`; if none is reachable, any that was not tried
    /// yet.
    pub(crate) fn pick_instance(
        &self,
        worker: WorkerIndex,
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
            (
                instance.ejected.load(Relaxed),
                instance.open.for_worker(worker),
            )
        })
    }
}

#[cfg(test)]
mod tests;
