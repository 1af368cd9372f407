//! Matches a request to a route and chooses a release: pure functions of the snapshot and the request's head.
//!
//! # Invariants
//!
//! No connections and no clock: the choice follows from salt and user key alone. Two proxies with the same routes decide alike,
//! and so does a proxy after a restart.

use std::{borrow::Cow, collections::HashMap, net::IpAddr};

use http::HeaderMap;
use shipway_flags::{choose_variant, hash_key, scale_hash};

use crate::{
    match_rules::{CompiledRules, RuleError, cookie_value},
    protocol::{FULL, ServiceRoute, StickyBy},
};

/// Longest host name (RFC 1035); longer ones match no route.
const HOST_MAX: usize = 255;

/// Finds the route of a request: by port, otherwise by the most specific host, and within it by the longest path prefix.
#[derive(Debug, Default)]
pub(crate) struct RouteMatcher {
    ports: HashMap<u16, usize>,
    exact: HashMap<Box<[u8]>, Vec<usize>>,
    /// Suffixes including the dot, longest first.
    wildcard: Vec<(Box<[u8]>, Vec<usize>)>,
    any: Vec<usize>,
    /// Per route, the path prefix without a trailing slash.
    prefixes: Vec<Option<String>>,
    /// Per route, whether it matches only a bare IP address or `localhost`.
    local_only: Vec<bool>,
}

impl RouteMatcher {
    pub(crate) fn new(routes: &[ServiceRoute]) -> Self {
        let prefixes = routes.iter().map(normalize_prefix).collect();
        let mut router = Self {
            prefixes,
            local_only: routes.iter().map(|route| route.local_only).collect(),
            ..Self::default()
        };
        let mut wildcard: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            if let Some(port) = route.port {
                router.ports.insert(port, index);
            }
            for host in &route.hosts {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix('*') {
                    Some(suffix) => wildcard
                        .entry(suffix.as_bytes().into())
                        .or_default()
                        .push(index),
                    None => router
                        .exact
                        .entry(host.into_bytes().into())
                        .or_default()
                        .push(index),
                }
            }
            let by_port_only = route.port.is_some() && router.prefixes[index].is_none();
            if route.hosts.is_empty() && !by_port_only {
                router.any.push(index);
            }
        }
        router.wildcard = wildcard.into_iter().collect();
        router
            .wildcard
            .sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let prefixes = &router.prefixes;
        let longest_first = |routes: &mut Vec<usize>| {
            routes.sort_by_key(|index| {
                std::cmp::Reverse(prefixes[*index].as_ref().map_or(0, String::len))
            });
        };
        router.exact.values_mut().for_each(longest_first);
        router
            .wildcard
            .iter_mut()
            .for_each(|(_, routes)| longest_first(routes));
        longest_first(&mut router.any);
        router
    }

    /// The route of a request accepted at `port`. `host` is without its port.
    pub(crate) fn find_route(&self, port: u16, host: &str, path: &str) -> Option<usize> {
        if !self.ports.is_empty()
            && let Some(index) = self.ports.get(&port)
        {
            return Some(*index);
        }
        let mut lower = [0; HOST_MAX];
        let lower = &mut lower[..host.len().min(HOST_MAX)];
        lower.copy_from_slice(&host.as_bytes()[..lower.len()]);
        lower.make_ascii_lowercase();
        let host = RequestHost::classify(lower);
        let exact = self
            .exact
            .get(&*lower)
            .and_then(|routes| self.find_by_path(routes, path, host));
        if host == RequestHost::Local {
            // Services without a host share these hosts by path: the longest prefix wins.
            let any = self.find_by_path(&self.any, path, host);
            return exact.into_iter().chain(any).max_by_key(|index| {
                let length = self.prefixes[*index].as_ref().map_or(0, String::len);
                (length, Some(*index) == exact)
            });
        }
        exact
            .or_else(|| {
                let fitting = self
                    .wildcard
                    .iter()
                    .filter(|(suffix, _)| lower.len() > suffix.len() && lower.ends_with(suffix));
                fitting
                    .filter_map(|(_, routes)| self.find_by_path(routes, path, host))
                    .next()
            })
            .or_else(|| self.find_by_path(&self.any, path, host))
    }

    /// The path prefix of this route.
    pub(crate) fn path_prefix(&self, index: usize) -> Option<&str> {
        self.prefixes[index].as_deref()
    }

    fn find_by_path(&self, routes: &[usize], path: &str, host: RequestHost) -> Option<usize> {
        routes.iter().copied().find(|index| {
            let is_below = self.path_prefix(*index).is_none_or(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            is_below && (host == RequestHost::Local || !self.local_only[*index])
        })
    }
}

/// The kind of host that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestHost {
    /// Routes that are only for this machine match, too.
    Local,
    Domain,
}

impl RequestHost {
    fn classify(lower: &[u8]) -> Self {
        match is_local_host(lower) {
            true => Self::Local,
            false => Self::Domain,
        }
    }
}

/// Whether a host in lower case is `localhost`, a bare IP address, or empty (HTTP/1.0).
fn is_local_host(host: &[u8]) -> bool {
    let may_be_address = |byte: &u8| byte.is_ascii_digit() || *byte == b'[';
    if !host.first().is_some_and(may_be_address) {
        return host.is_empty() || host == b"localhost";
    }
    let text = std::str::from_utf8(host).unwrap_or_default();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().is_ok()
}

/// `/` matches everything, like no prefix; `/shop/` is `/shop`.
fn normalize_prefix(route: &ServiceRoute) -> Option<String> {
    let prefix = route.path_prefix.as_ref()?.trim_matches('/');
    (!prefix.is_empty()).then(|| format!("/{prefix}"))
}

/// Chooses among the releases of a route.
#[derive(Debug)]
pub(crate) struct BackendChooser {
    salt: String,
    /// Without its rules.
    sticky: StickyBy,
    rules: CompiledRules,
    weights: Vec<u32>,
    /// The release, if only one gets traffic: then the user doesn't matter.
    only: Option<usize>,
}

/// The release chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendChoice {
    /// Index among the backends.
    pub(crate) backend: usize,
    /// The user had no key; the random one is to be kept in a cookie.
    pub(crate) new_user: bool,
    /// Hash of the user; `None` where users aren't identified or it made no difference.
    pub(crate) user: Option<u32>,
}

impl BackendChoice {
    /// A choice that is independent of the user.
    const fn without_user(backend: usize) -> Self {
        Self {
            backend,
            new_user: false,
            user: None,
        }
    }
}

impl BackendChooser {
    /// # Errors
    /// When a rule has an invalid header name or pattern.
    pub(crate) fn new(route: &ServiceRoute) -> Result<Self, RuleError> {
        let (mut rules, mut sticky) = (CompiledRules::default(), &route.sticky);
        while let StickyBy::Matched {
            rules: more,
            otherwise,
        } = sticky
        {
            rules.add_rules(more, &route.backends)?;
            sticky = otherwise;
        }
        let weights: Vec<u32> = route
            .backends
            .iter()
            .map(|backend| backend.weight)
            .collect();
        let mut with_traffic = (0..weights.len()).filter(|index| weights[*index] > 0);
        let only = with_traffic
            .next()
            .filter(|_| with_traffic.next().is_none());
        Ok(Self {
            salt: route.salt.clone(),
            sticky: sticky.clone(),
            rules,
            weights,
            only,
        })
    }

    /// The release for this user; `None` if no release gets traffic. `random` replaces a missing user key; `usable`
    /// tells whether the backend of a rule has instances.
    pub(crate) fn choose_backend(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        random: u64,
        usable: impl Fn(usize) -> bool,
    ) -> Option<BackendChoice> {
        if let Some(backend) = self.rules.matching_backend(headers, usable) {
            return Some(BackendChoice::without_user(backend));
        }
        if let Some(backend) = self.only {
            return Some(BackendChoice::without_user(backend));
        }
        if matches!(self.sticky, StickyBy::None | StickyBy::Matched { .. }) {
            let bucket = u32::try_from(random % u64::from(FULL)).unwrap_or(0);
            return choose_variant(&self.weights, bucket).map(BackendChoice::without_user);
        }
        match self.user_key(headers, client) {
            Some(key) => self.choose_by_key(&key),
            None => Some(BackendChoice {
                new_user: matches!(self.sticky, StickyBy::Cookie(_)),
                ..self.choose_by_key(format_user_key(&mut [0; 16], random))?
            }),
        }
    }

    /// The user's key, if the request has one.
    pub(crate) fn user_key<'h>(
        &self,
        headers: &'h HeaderMap,
        client: IpAddr,
    ) -> Option<Cow<'h, str>> {
        match &self.sticky {
            StickyBy::Cookie(name) => cookie_value(headers, name).map(Cow::Borrowed),
            StickyBy::Header(name) => headers.get(name)?.to_str().ok().map(Cow::Borrowed),
            StickyBy::Address => Some(Cow::Owned(client.to_canonical().to_string())),
            StickyBy::None | StickyBy::Matched { .. } => None,
        }
    }

    /// The cookie that keeps a new user on the same release; `None` if users are identified otherwise.
    pub(crate) fn sticky_cookie(&self, random: u64) -> Option<String> {
        let StickyBy::Cookie(name) = &self.sticky else {
            return None;
        };
        let mut cookie = String::with_capacity(name.len() + 54);
        cookie.push_str(name);
        cookie.push('=');
        cookie.push_str(format_user_key(&mut [0; 16], random));
        cookie.push_str("; Path=/; HttpOnly; SameSite=Lax");
        Some(cookie)
    }

    fn choose_by_key(&self, key: &str) -> Option<BackendChoice> {
        let user = hash_key(&self.salt, key);
        Some(BackendChoice {
            backend: choose_variant(&self.weights, scale_hash(user, FULL))?,
            new_user: false,
            user: Some(user),
        })
    }
}

/// The key of a new user: 16 hexadecimal digits.
fn format_user_key(buffer: &mut [u8; 16], random: u64) -> &str {
    crate::headers::write_hex(buffer, random);
    std::str::from_utf8(buffer).expect("hexadecimal digits are ASCII")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::{RequestMatch, RouteBackend, RouteRule, ValueComparison};

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn route(hosts: &[&str], path: Option<&str>) -> ServiceRoute {
        let backend = |release, weight| RouteBackend {
            release,
            weight,
            instances: Vec::new(),
        };
        ServiceRoute {
            service: "shop".into(),
            environment: "production".into(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path.map(str::to_owned),
            strip_prefix: true,
            local_only: false,
            port: None,
            salt: "shop/ro7".into(),
            sticky: StickyBy::Header("x-user".into()),
            instance_affinity: None,
            backends: vec![backend(4, 1_000), backend(3, 9_000)],
            mirror: None,
            users: None,
            hold_ms: 0,
            timeout_ms: 1_000,
            answer_within_ms: 0,
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_most_specific_host_wins_and_there_the_longest_path() {
        let routes = [
            route(&["Shop.example.com"], None),
            route(&["*.example.com"], Some("/a")),
            route(&["*.example.com"], Some("/a/b/")),
            route(&["*.eu.example.com"], None),
            route(&[], Some("/a")),
        ];
        let router = RouteMatcher::new(&routes);
        let found = |host: &str, path: &str| router.find_route(80, host, path);
        assert_eq!(found("shop.EXAMPLE.com", "/a"), Some(0));
        assert_eq!(found("x.example.com", "/a/c"), Some(1));
        assert_eq!(found("x.example.com", "/a/b"), Some(2));
        assert_eq!(found("x.eu.example.com", "/a"), Some(3));
        assert_eq!(found("elsewhere", "/a/x"), Some(4));
        assert_eq!(found("elsewhere", "/ab"), None);
        assert_eq!(found(".example.com", "/"), None);
        assert_eq!(found(&"x".repeat(300), "/a"), Some(4));
    }

    #[test]
    fn a_port_leads_to_its_route_whatever_host_and_path_say() {
        let only_port = ServiceRoute {
            port: Some(8_081),
            ..route(&[], None)
        };
        let router = RouteMatcher::new(&[only_port, route(&["h"], None)]);
        assert_eq!(router.find_route(8_081, "h", "/"), Some(0));
        assert_eq!(router.find_route(80, "h", "/"), Some(1));
        assert_eq!(router.find_route(80, "other", "/"), None);
        assert_eq!(
            RouteMatcher::new(&[route(&[], None)]).find_route(80, "any", "/"),
            Some(0)
        );
    }

    #[test]
    fn a_path_for_local_hosts_alone_is_reached_by_a_bare_address_and_by_no_name() {
        let local = |path| ServiceRoute {
            local_only: true,
            ..route(&[], Some(path))
        };
        let routes = [
            route(&["shop.localhost"], None),
            local("/shop"),
            route(&["localhost"], None),
            route(&[], Some("/shop/admin")),
        ];
        let router = RouteMatcher::new(&routes);
        let found = |host: &str, path: &str| router.find_route(8_080, host, path);
        for host in ["127.0.0.1", "[::1]", "192.0.2.7", "LocalHost", ""] {
            assert_eq!(found(host, "/shop/x"), Some(1), "{host}");
            assert_eq!(found(host, "/shop/admin"), Some(3), "{host}");
        }
        assert_eq!(found("localhost", "/elsewhere"), Some(2));
        assert_eq!(found("127.0.0.1", "/elsewhere"), None);
        assert_eq!(found("shop.localhost", "/shop/admin"), Some(0));
        for host in [
            "shop.example.com",
            "127.0.0.1.example.com",
            "localhost.example.com",
        ] {
            assert_eq!(found(host, "/shop/x"), None, "{host}");
            assert_eq!(found(host, "/shop/admin"), Some(3), "{host}");
        }
    }

    fn canaries(weight: u32, users: &[HeaderMap]) -> BTreeSet<usize> {
        let mut split = route(&["h"], None);
        (split.backends[0].weight, split.backends[1].weight) = (weight, FULL - weight);
        let chooser = BackendChooser::new(&split).unwrap();
        let is_canary = |headers| {
            chooser
                .choose_backend(headers, HOME, 0, |_| true)
                .unwrap()
                .backend
                == 0
        };
        (0..users.len())
            .filter(|user| is_canary(&users[*user]))
            .collect()
    }

    #[test]
    fn ten_thousand_users_are_split_within_half_a_point_and_none_moves_back() {
        let user = |user| headers("x-user", &format!("user-{user}"));
        let users: Vec<HeaderMap> = (0..10_000).map(user).collect();
        let mut before = BTreeSet::new();
        for weight in [100, 1_000, 5_000, 9_900] {
            let now = canaries(weight, &users);
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
    fn a_new_user_keeps_the_side_of_the_cookie_it_is_given() {
        let mut split = route(&["h"], None);
        split.sticky = StickyBy::Cookie("shipway".into());
        let chooser = BackendChooser::new(&split).unwrap();
        for random in (0..1_000u64).map(|user| user.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let first = chooser
                .choose_backend(&HeaderMap::new(), HOME, random, |_| true)
                .unwrap();
            assert!(first.new_user);
            let cookie = chooser.sticky_cookie(random).unwrap();
            let sent_back = headers(
                "cookie",
                &format!("a=b; {}", cookie.split(';').next().unwrap()),
            );
            let again = chooser
                .choose_backend(&sent_back, HOME, 1, |_| true)
                .unwrap();
            assert_eq!(
                again,
                BackendChoice {
                    new_user: false,
                    ..first
                },
                "the same side, and the same user"
            );
        }
    }

    #[test]
    fn a_rule_goes_before_the_weights_while_its_release_can_answer() {
        let mut split = route(&["h"], None);
        split.backends[0].weight = 0;
        split.backends[1].weight = FULL;
        let only_if = RequestMatch::Cookie {
            name: "beta".into(),
            value: "yes".into(),
            compared: ValueComparison::Exact,
        };
        let rules = vec![RouteRule {
            only_if,
            release: 4,
        }];
        split.sticky = StickyBy::Matched {
            rules,
            otherwise: Box::new(StickyBy::Address),
        };
        let chooser = BackendChooser::new(&split).unwrap();
        let beta = headers("cookie", "beta=yes");
        let backend = |headers, usable: bool| {
            chooser
                .choose_backend(headers, HOME, 0, |_| usable)
                .unwrap()
                .backend
        };
        assert_eq!(backend(&beta, true), 0);
        assert_eq!(backend(&beta, false), 1);
        assert_eq!(backend(&headers("cookie", "beta=no"), true), 1);
    }

    #[test]
    fn without_weights_nobody_is_chosen() {
        let mut nobody = route(&["h"], None);
        nobody
            .backends
            .iter_mut()
            .for_each(|backend| backend.weight = 0);
        assert_eq!(
            BackendChooser::new(&nobody).unwrap().choose_backend(
                &HeaderMap::new(),
                HOME,
                5,
                |_| true
            ),
            None
        );
    }
}
