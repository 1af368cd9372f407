//! Which route a request takes, and which of its releases: pure functions of the snapshot and the request's head.
//!
//! It must never know about connections or clocks: who is on which side follows from salt and key alone, so two proxies with the
//! same routes decide alike, and so does the same proxy after a restart.

use std::{collections::HashMap, net::IpAddr};

use http::HeaderMap;
use shipway_flags::{choose, hash_of, scale};

use crate::{
    protocol::{FULL, Route, Sticky},
    rules::{RuleError, Rules, cookie},
};

/// The longest host name there is (RFC 1035); longer ones match no name.
const HOST_MAX: usize = 255;

/// Finds the route of a request: by port, else by the most specific host, and there by the longest path.
#[derive(Debug, Default)]
pub(crate) struct Router {
    ports: HashMap<u16, usize>,
    exact: HashMap<Box<[u8]>, Vec<usize>>,
    /// Suffixes with their dot, longest first.
    wildcard: Vec<(Box<[u8]>, Vec<usize>)>,
    any: Vec<usize>,
    /// By route: the prefix without a slash at its end.
    prefixes: Vec<Option<String>>,
    /// By route: whether only a bare IP address or `localhost` leads there.
    local_only: Vec<bool>,
}

impl Router {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let prefixes = routes.iter().map(prefix).collect();
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

    /// The route of a request that came in on `port`. `host` is without its port.
    pub(crate) fn find(&self, port: u16, host: &str, path: &str) -> Option<usize> {
        if !self.ports.is_empty()
            && let Some(index) = self.ports.get(&port)
        {
            return Some(*index);
        }
        let mut lower = [0; HOST_MAX];
        let lower = &mut lower[..host.len().min(HOST_MAX)];
        lower.copy_from_slice(&host.as_bytes()[..lower.len()]);
        lower.make_ascii_lowercase();
        let is_local = is_local_host(lower);
        let exact = self
            .exact
            .get(&*lower)
            .and_then(|routes| self.by_path(routes, path, is_local));
        if is_local {
            // Services without a host share these hosts by their paths: the longest path wins.
            let any = self.by_path(&self.any, path, is_local);
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
                    .filter_map(|(_, routes)| self.by_path(routes, path, is_local))
                    .next()
            })
            .or_else(|| self.by_path(&self.any, path, is_local))
    }

    /// The prefix that leads to this route.
    pub(crate) fn prefix(&self, index: usize) -> Option<&str> {
        self.prefixes[index].as_deref()
    }

    fn by_path(&self, routes: &[usize], path: &str, is_local: bool) -> Option<usize> {
        routes.iter().copied().find(|index| {
            let is_below = self.prefix(*index).is_none_or(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            is_below && (is_local || !self.local_only[*index])
        })
    }
}

/// Whether a host in lower case is `localhost` or a bare IP address; HTTP/1.0 may name none.
fn is_local_host(host: &[u8]) -> bool {
    let may_be_address = |byte: &u8| byte.is_ascii_digit() || *byte == b'[';
    if !host.first().is_some_and(may_be_address) {
        return host.is_empty() || host == b"localhost";
    }
    let text = std::str::from_utf8(host).unwrap_or_default();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().is_ok()
}

/// `/` leads everywhere, like no prefix; `/shop/` is `/shop`.
fn prefix(route: &Route) -> Option<String> {
    let prefix = route.path_prefix.as_ref()?.trim_matches('/');
    (!prefix.is_empty()).then(|| format!("/{prefix}"))
}

/// The releases of a route, ready to choose among.
#[derive(Debug)]
pub(crate) struct Chooser {
    salt: String,
    /// Without rules around it.
    sticky: Sticky,
    rules: Rules,
    weights: Vec<u32>,
    /// The only release that gets traffic, if it is one: then it doesn't matter who a user is.
    only: Option<usize>,
}

/// The release for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its index among the backends.
    pub(crate) backend: usize,
    /// The user had no key and was given the random one, to be kept in a cookie.
    pub(crate) new_user: bool,
    /// Who it is, by a hash; `None` where users aren't known, or it made no difference.
    pub(crate) user: Option<u32>,
}

impl Choice {
    /// Whoever asks.
    const fn of_anybody(backend: usize) -> Self {
        Self {
            backend,
            new_user: false,
            user: None,
        }
    }
}

impl Chooser {
    /// # Errors
    /// When a rule asks for what can't be compared.
    pub(crate) fn new(route: &Route) -> Result<Self, RuleError> {
        let (mut rules, mut sticky) = (Rules::default(), &route.sticky);
        while let Sticky::Matched {
            rules: more,
            otherwise,
        } = sticky
        {
            rules.add(more, &route.backends)?;
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

    /// The release for this user; `None` when nobody gets traffic. `random` stands for a user who has no key yet; `usable` says
    /// whether the backend of a rule has instances.
    pub(crate) fn choose(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        random: u64,
        usable: impl Fn(usize) -> bool,
    ) -> Option<Choice> {
        if let Some(backend) = self.rules.backend(headers, usable) {
            return Some(Choice::of_anybody(backend));
        }
        if let Some(backend) = self.only {
            return Some(Choice::of_anybody(backend));
        }
        let key = match &self.sticky {
            Sticky::Cookie(name) => cookie(headers, name),
            Sticky::Header(name) => headers.get(name).and_then(|value| value.to_str().ok()),
            Sticky::Address => return self.by_key(&client.to_canonical().to_string()),
            Sticky::None | Sticky::Matched { .. } => {
                let bucket = u32::try_from(random % u64::from(FULL)).unwrap_or(0);
                return choose(&self.weights, bucket).map(Choice::of_anybody);
            }
        };
        match key {
            Some(key) => self.by_key(key),
            None => Some(Choice {
                new_user: matches!(self.sticky, Sticky::Cookie(_)),
                ..self.by_key(key_text(&mut [0; 16], random))?
            }),
        }
    }

    /// The cookie that keeps a new user on the same side; `None` when users are known by something else.
    pub(crate) fn cookie_for(&self, random: u64) -> Option<String> {
        let Sticky::Cookie(name) = &self.sticky else {
            return None;
        };
        let mut cookie = String::with_capacity(name.len() + 54);
        cookie.push_str(name);
        cookie.push('=');
        cookie.push_str(key_text(&mut [0; 16], random));
        cookie.push_str("; Path=/; HttpOnly; SameSite=Lax");
        Some(cookie)
    }

    fn by_key(&self, key: &str) -> Option<Choice> {
        let user = hash_of(&self.salt, key);
        Some(Choice {
            backend: choose(&self.weights, scale(user, FULL))?,
            new_user: false,
            user: Some(user),
        })
    }
}

/// The key of a new user: 16 hexadecimal digits.
fn key_text(buffer: &mut [u8; 16], random: u64) -> &str {
    crate::headers::hex(buffer, random);
    std::str::from_utf8(buffer).expect("hexadecimal digits are ASCII")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::{Backend, Compared, Match, Rule};

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn route(hosts: &[&str], path: Option<&str>) -> Route {
        let backend = |release, weight| Backend {
            release,
            weight,
            instances: Vec::new(),
        };
        Route {
            service: "shop".into(),
            environment: "production".into(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path.map(str::to_owned),
            strip_prefix: true,
            local_only: false,
            port: None,
            salt: "shop/ro7".into(),
            sticky: Sticky::Header("x-user".into()),
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
        let router = Router::new(&routes);
        let found = |host: &str, path: &str| router.find(80, host, path);
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
        let only_port = Route {
            port: Some(8_081),
            ..route(&[], None)
        };
        let router = Router::new(&[only_port, route(&["h"], None)]);
        assert_eq!(router.find(8_081, "h", "/"), Some(0));
        assert_eq!(router.find(80, "h", "/"), Some(1));
        assert_eq!(router.find(80, "other", "/"), None);
        assert_eq!(
            Router::new(&[route(&[], None)]).find(80, "any", "/"),
            Some(0)
        );
    }

    #[test]
    fn a_path_for_local_hosts_alone_is_reached_by_a_bare_address_and_by_no_name() {
        let local = |path| Route {
            local_only: true,
            ..route(&[], Some(path))
        };
        let routes = [
            route(&["shop.localhost"], None),
            local("/shop"),
            route(&["localhost"], None),
            route(&[], Some("/shop/admin")),
        ];
        let router = Router::new(&routes);
        let found = |host: &str, path: &str| router.find(8_080, host, path);
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
        let chooser = Chooser::new(&split).unwrap();
        let is_canary = |headers| chooser.choose(headers, HOME, 0, |_| true).unwrap().backend == 0;
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
        split.sticky = Sticky::Cookie("shipway".into());
        let chooser = Chooser::new(&split).unwrap();
        for random in (0..1_000u64).map(|user| user.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let first = chooser
                .choose(&HeaderMap::new(), HOME, random, |_| true)
                .unwrap();
            assert!(first.new_user);
            let cookie = chooser.cookie_for(random).unwrap();
            let sent_back = headers(
                "cookie",
                &format!("a=b; {}", cookie.split(';').next().unwrap()),
            );
            let again = chooser.choose(&sent_back, HOME, 1, |_| true).unwrap();
            assert_eq!(
                again,
                Choice {
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
        let only_if = Match::Cookie {
            name: "beta".into(),
            value: "yes".into(),
            compared: Compared::Exact,
        };
        let rules = vec![Rule {
            only_if,
            release: 4,
        }];
        split.sticky = Sticky::Matched {
            rules,
            otherwise: Box::new(Sticky::Address),
        };
        let chooser = Chooser::new(&split).unwrap();
        let beta = headers("cookie", "beta=yes");
        let backend = |headers, usable: bool| {
            chooser
                .choose(headers, HOME, 0, |_| usable)
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
            Chooser::new(&nobody)
                .unwrap()
                .choose(&HeaderMap::new(), HOME, 5, |_| true),
            None
        );
    }
}
