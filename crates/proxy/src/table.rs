//! Which route, which release, which instance: pure choices over a compiled snapshot.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::HeaderMap;
use shipway_flags::{bucket_of, choose};

use crate::{
    counters::{InstanceState, Registry, ReleaseCounters},
    protocol::{Route, Snapshot, Sticky, VERSION},
};

/// Everything, in basis points.
const FULL: u32 = 10_000;

/// A snapshot made ready for requests.
pub(crate) struct Table {
    pub(crate) generation: u64,
    pub(crate) snapshot: Snapshot,
    routes: Vec<Arc<Compiled>>,
}

/// A route with its counters and instances at hand.
pub(crate) struct Compiled {
    pub(crate) route: Route,
    pub(crate) backends: Vec<CompiledBackend>,
    weights: Vec<u32>,
    /// Whether more than one release gets traffic: only then it matters who a user is.
    split: bool,
}

pub(crate) struct CompiledBackend {
    pub(crate) counters: Arc<ReleaseCounters>,
    pub(crate) instances: Vec<Arc<InstanceState>>,
}

/// The release for a request, and the cookie to set where one is needed.
pub(crate) struct Choice {
    pub(crate) backend: usize,
    pub(crate) set_cookie: Option<String>,
}

/// Why a snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("snapshot version {0} is not known here; this proxy understands {VERSION}")]
    Version(u32),
    #[error("the weights of {0} in {1} add up to {2}, not to 10000 or 0")]
    Weights(String, String, u32),
    #[error("two routes ask for port {0}")]
    Port(u16),
    #[error("{0:?} is no address of an instance")]
    Address(String),
}

impl Table {
    pub(crate) fn compile(
        snapshot: Snapshot,
        generation: u64,
        registry: &Registry,
    ) -> Result<Self, TableError> {
        if snapshot.version != VERSION {
            return Err(TableError::Version(snapshot.version));
        }
        let mut ports = BTreeSet::new();
        for route in &snapshot.routes {
            let total: u32 = route
                .backends
                .iter()
                .map(|backend| backend.weight.min(FULL))
                .sum();
            if total != 0 && total != FULL {
                return Err(TableError::Weights(
                    route.service.clone(),
                    route.environment.clone(),
                    total,
                ));
            }
            if let Some(port) = route.port.filter(|port| !ports.insert(*port)) {
                return Err(TableError::Port(port));
            }
            if let Some(bad) = route
                .backends
                .iter()
                .flat_map(|backend| &backend.instances)
                .find(|instance| instance.address.parse::<std::net::SocketAddr>().is_err())
            {
                return Err(TableError::Address(bad.address.clone()));
            }
        }
        let mut routes: Vec<Arc<Compiled>> = snapshot
            .routes
            .iter()
            .map(|route| Arc::new(Compiled::new(route, registry)))
            .collect();
        // The longest prefix first, so that the first match is the best.
        routes.sort_by_key(|compiled| {
            std::cmp::Reverse(compiled.route.path_prefix.as_ref().map_or(0, String::len))
        });
        Ok(Self {
            generation,
            snapshot,
            routes,
        })
    }

    /// The route of a request that came in on `port`.
    pub(crate) fn find(&self, port: u16, host: &str, path: &str) -> Option<&Arc<Compiled>> {
        let own = self
            .routes
            .iter()
            .find(|compiled| compiled.route.port == Some(port));
        own.or_else(|| {
            self.routes
                .iter()
                .find(|compiled| compiled.route.matches(host, path))
        })
    }

    /// Ports beside the usual one.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.routes
            .iter()
            .filter_map(|compiled| compiled.route.port)
            .collect()
    }
}

impl Route {
    fn matches(&self, host: &str, path: &str) -> bool {
        if self.hosts.is_empty() && self.path_prefix.is_none() {
            return false;
        }
        let host_fits =
            self.hosts.is_empty() || self.hosts.iter().any(|pattern| host_fits(pattern, host));
        let path_fits = self.path_prefix.as_ref().is_none_or(|prefix| {
            path.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        host_fits && path_fits
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            host.len() > suffix.len()
                && host.is_char_boundary(host.len() - suffix.len())
                && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        None => host.eq_ignore_ascii_case(pattern),
    }
}

impl Compiled {
    fn new(route: &Route, registry: &Registry) -> Self {
        let compiled = |backend| CompiledBackend {
            counters: registry.release(route, backend),
            instances: backend
                .instances
                .iter()
                .map(|instance| registry.instance(instance))
                .collect(),
        };
        let weights: Vec<u32> = route
            .backends
            .iter()
            .map(|backend| backend.weight)
            .collect();
        let split = weights.iter().filter(|weight| **weight > 0).count() > 1;
        Self {
            route: route.clone(),
            backends: route.backends.iter().map(compiled).collect(),
            weights,
            split,
        }
    }

    /// The release for this user; `None` when nobody gets traffic.
    pub(crate) fn choose(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        random: impl FnOnce() -> u64,
    ) -> Option<Choice> {
        if !self.split {
            return self
                .weights
                .iter()
                .position(|weight| *weight > 0)
                .map(|backend| Choice {
                    backend,
                    set_cookie: None,
                });
        }
        let by = |key: &str| choose(&self.weights, bucket_of(&self.route.salt, key, FULL));
        let stay = |backend: Option<usize>| {
            backend.map(|backend| Choice {
                backend,
                set_cookie: None,
            })
        };
        match &self.route.sticky {
            Sticky::Cookie(name) => match cookie(headers, name) {
                Some(key) => stay(by(key)),
                None => {
                    let key = format!("{:016x}", random());
                    let backend = by(&key)?;
                    Some(Choice {
                        backend,
                        set_cookie: Some(format!("{name}={key}; Path=/; HttpOnly; SameSite=Lax")),
                    })
                }
            },
            Sticky::Header(name) => match headers.get(name).and_then(|value| value.to_str().ok()) {
                Some(key) => stay(by(key)),
                None => stay(by(&format!("{:016x}", random()))),
            },
            Sticky::Address => stay(by(&client.to_string())),
            Sticky::None => stay(choose(
                &self.weights,
                u32::try_from(random() % u64::from(FULL)).unwrap_or(0),
            )),
        }
    }
}

impl CompiledBackend {
    /// The instance with the fewest open requests among those not shunned, `turn` breaking ties; when all are shunned, any.
    pub(crate) fn pick(
        &self,
        now_ms: u64,
        turn: usize,
        tried: &[Arc<InstanceState>],
    ) -> Option<&Arc<InstanceState>> {
        let count = self.instances.len();
        let rotated = (0..count).map(|offset| &self.instances[(turn + offset) % count]);
        let fresh = rotated.filter(|instance| !tried.iter().any(|it| Arc::ptr_eq(it, instance)));
        fresh.min_by_key(|instance| {
            (
                instance.shunned_until_ms.load(Relaxed) > now_ms,
                instance.open.get(),
            )
        })
    }
}

/// The value of a cookie among those of a request.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(it, value)| *it == name && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Backend, Instance};

    fn route(hosts: &[&str], path: Option<&str>) -> Route {
        let backend = |release, weight| Backend {
            release,
            weight,
            instances: vec![Instance {
                id: format!("i{release}"),
                address: "127.0.0.1:9".into(),
            }],
        };
        Route {
            service: "shop".into(),
            environment: "production".into(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path.map(str::to_owned),
            port: None,
            salt: "shop/ro7".into(),
            sticky: Sticky::Header("x-user".into()),
            backends: vec![backend(4, 1_000), backend(3, 9_000)],
            hold_ms: 0,
            timeout_ms: 1_000,
        }
    }

    fn table(routes: Vec<Route>) -> Result<Table, TableError> {
        Table::compile(
            Snapshot {
                version: VERSION,
                routes,
            },
            1,
            &Registry::default(),
        )
    }

    #[test]
    fn hosts_ignore_case_and_the_longest_path_wins() {
        let table = table(vec![
            route(&["Shop.example.com"], None),
            route(&["*.example.com"], Some("/a")),
            route(&[], Some("/a/b")),
        ])
        .unwrap();
        let found = |host: &str, path: &str| {
            table
                .find(80, host, path)
                .map(|compiled| compiled.route.path_prefix.clone())
        };
        assert_eq!(found("shop.EXAMPLE.com", "/"), Some(None));
        assert_eq!(found("x.example.com", "/a/c"), Some(Some("/a".into())));
        assert_eq!(found("x.example.com", "/a/b/c"), Some(Some("/a/b".into())));
        assert_eq!(found("elsewhere", "/ab"), None);
        assert_eq!(found("example.com", "/a"), None);
    }

    #[test]
    fn ten_thousand_users_are_split_within_half_a_point_and_none_moves_back() {
        let users: Vec<HeaderMap> = (0..10_000)
            .map(|user| {
                HeaderMap::from_iter([(
                    "x-user".parse().unwrap(),
                    format!("user-{user}").parse().unwrap(),
                )])
            })
            .collect();
        let canaries = |weight: u32| -> BTreeSet<usize> {
            let mut split = route(&["h"], None);
            (split.backends[0].weight, split.backends[1].weight) = (weight, FULL - weight);
            let table = table(vec![split]).unwrap();
            let compiled = table.find(80, "h", "/").unwrap();
            let is_canary = |headers: &HeaderMap| {
                compiled
                    .choose(headers, IpAddr::from([127, 0, 0, 1]), || 0)
                    .unwrap()
                    .backend
                    == 0
            };
            users
                .iter()
                .enumerate()
                .filter(|(_, headers)| is_canary(headers))
                .map(|(user, _)| user)
                .collect()
        };
        let mut before = BTreeSet::new();
        for weight in [100, 1_000, 5_000, 9_900] {
            let now = canaries(weight);
            assert!(
                now.len().abs_diff(weight as usize) <= 50,
                "{weight}: {}",
                now.len()
            );
            assert!(before.is_subset(&now), "raising the weight only adds users");
            before = now;
        }
    }

    #[test]
    fn a_snapshot_that_makes_no_sense_is_refused() {
        let mut uneven = route(&["h"], None);
        uneven.backends[0].weight = 5;
        assert!(matches!(table(vec![uneven]), Err(TableError::Weights(..))));
        let mut nowhere = route(&["h"], None);
        nowhere.backends[0].instances[0].address = "nowhere".into();
        assert!(matches!(table(vec![nowhere]), Err(TableError::Address(_))));
        assert!(matches!(
            Table::compile(
                Snapshot {
                    version: 2,
                    routes: vec![]
                },
                1,
                &Registry::default()
            ),
            Err(TableError::Version(2))
        ));
    }
}
