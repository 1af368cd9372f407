//! Addresses: where an environment is reached through the proxy, and which environment owns which address.
//!
//! # Why
//! Two environments with one address would take each other's traffic, so each address has one owner at a time. The owners are an
//! aggregate of their own ([`claims`]), because the decision must be the same for all services of a server.
//!
//! # Invariants
//! - The addresses of an environment follow from one release's own configuration and the names of service and environment. The
//!   order of environments and the newest push have no influence.
//! - Two addresses conflict only when the same request fits both equally well ([`PublicAddress::conflicts_with`]). Where one is more
//!   specific (a longer path, a host without wildcard), the more specific one wins and both are allowed.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::target::ServiceEnvironment;

pub mod claim_row;
pub mod claims;
pub mod view;

/// The environment whose default host is the service's name alone.
pub const PRODUCTION: &str = "production";

/// The port that a URL of plain HTTP doesn't name.
const HTTP_PORT: u16 = 80;

/// One address. As text: `shop.example.com`, `shop.example.com/admin`, `/shop`, `port 9000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PublicAddress {
    /// Requests to a host, below a path.
    Host {
        /// In lower case; may begin with `*.`.
        name: String,
        /// Without a slash at its end; empty for all paths.
        path: String,
    },
    /// Requests to any host that no host address fits, below a path.
    Path(String),
    /// All requests to a port.
    Port(u16),
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as shop.example.com, /shop or \"port 9000\"")]
pub struct ParseAddressError(String);

impl PublicAddress {
    /// A host and a path below it.
    #[must_use]
    pub fn host(name: &str, path: &str) -> Self {
        Self::Host {
            name: name.to_ascii_lowercase(),
            path: path.trim_end_matches('/').to_owned(),
        }
    }

    /// A path below any host.
    #[must_use]
    pub fn path(path: &str) -> Self {
        Self::Path(path.trim_end_matches('/').to_owned())
    }

    /// Whether the same request fits both equally well, so that they can't have two owners.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host { name, path }, Self::Path(any))
            | (Self::Path(any), Self::Host { name, path }) => is_local_host(name) && path == any,
            _ => self == other,
        }
    }

    /// Whether this is the more specific of two addresses that a request can fit: requests to it would reach `other` without it.
    #[must_use]
    pub fn lies_within(&self, other: &Self) -> bool {
        if self.conflicts_with(other) {
            return false;
        }
        match (self, other) {
            (Self::Path(mine), Self::Path(theirs)) => is_below(mine, theirs),
            (Self::Host { name, path }, Self::Path(any)) => {
                is_local_host(name) && is_below(path, any)
            }
            (Self::Path(any), Self::Host { name, path }) => {
                is_local_host(name) && is_below(any, path)
            }
            (
                Self::Host { name, path },
                Self::Host {
                    name: other_name,
                    path: other_path,
                },
            ) if name == other_name => is_below(path, other_path),
            (
                Self::Host { name, path },
                Self::Host {
                    name: suffix,
                    path: other_path,
                },
            ) => is_within_wildcard(name, suffix) && is_below(path, other_path),
            (Self::Port(_), _) | (_, Self::Port(_)) => false,
        }
    }

    /// The URL of this address by way of the proxy.
    #[must_use]
    pub fn url(&self, proxy: SocketAddr) -> String {
        match self {
            Self::Host { name, path } => {
                let port = match proxy.port() {
                    HTTP_PORT => String::new(),
                    port => format!(":{port}"),
                };
                format!("http://{name}{port}{path}/")
            }
            Self::Path(path) => format!("http://{}{path}/", authority(reachable(proxy))),
            Self::Port(port) => {
                let own = SocketAddr::new(proxy.ip(), *port);
                format!("http://{}/", authority(reachable(own)))
            }
        }
    }
}

/// `127.0.0.1:8080`, without the port that HTTP implies.
fn authority(address: SocketAddr) -> String {
    match (address.port(), address.ip()) {
        (HTTP_PORT, IpAddr::V4(ip)) => ip.to_string(),
        (HTTP_PORT, IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => address.to_string(),
    }
}

/// Where this machine reaches a listener: one that listens on all addresses is reached on the loopback address.
#[must_use]
pub const fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether a listener on this address is reached at `localhost`.
const fn is_localhost(listen: IpAddr) -> bool {
    match listen {
        IpAddr::V4(ip) => ip.is_unspecified() || matches!(ip.octets(), [127, 0, 0, 1]),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
    }
}

/// Whether a host is `localhost` or a bare IP address: there, services are reached by their path.
#[must_use]
pub fn is_local_host(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Whether `path` is `prefix` or below it, by whole segments.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_within_wildcard(name: &str, wildcard: &str) -> bool {
    wildcard
        .strip_prefix('*')
        .is_some_and(|suffix| name != wildcard && name.ends_with(suffix))
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, path } => write!(f, "{name}{path}"),
            Self::Path(path) if path.is_empty() => f.write_str("/"),
            Self::Path(path) => f.write_str(path),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

impl FromStr for PublicAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let refused = || ParseAddressError(text.chars().take(80).collect());
        if let Some(port) = text.strip_prefix("port ") {
            return port.parse().map(Self::Port).map_err(|_| refused());
        }
        if text.starts_with('/') {
            return Ok(Self::path(text));
        }
        if text.is_empty() {
            return Err(refused());
        }
        let (name, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        Ok(Self::host(name, path))
    }
}

impl TryFrom<String> for PublicAddress {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, ParseAddressError> {
        text.parse()
    }
}

impl From<PublicAddress> for String {
    fn from(address: PublicAddress) -> Self {
        address.to_string()
    }
}

/// The keys of an environment that say where it is reached.
#[derive(Clone, Copy, Debug)]
pub struct AddressKeys<'a> {
    pub hosts: &'a [String],
    pub path: Option<&'a str>,
    pub port: Option<u16>,
    pub strip_prefix: bool,
}

/// Where one environment is reached, by one release's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentAddresses {
    /// Public addresses; the first one is printed by `shipway status`.
    pub public: Vec<PublicAddress>,
    /// Path that reaches the environment by a bare IP address or `localhost`; only with the default host.
    pub local_path: Option<String>,
    /// Whether the path is taken off before an instance gets the request.
    pub strip_prefix: bool,
}

impl EnvironmentAddresses {
    /// The addresses that an environment asks for, or its default host and path.
    #[must_use]
    pub fn new(place: &ServiceEnvironment, keys: AddressKeys<'_>) -> Self {
        let AddressKeys {
            hosts,
            path,
            port,
            strip_prefix,
        } = keys;
        let mut public: Vec<PublicAddress> = hosts
            .iter()
            .map(|host| PublicAddress::host(host, path.unwrap_or_default()))
            .collect();
        if let Some(path) = path.filter(|_| hosts.is_empty()) {
            public.push(PublicAddress::path(path));
        }
        public.extend(port.map(PublicAddress::Port));
        let local_path = public.is_empty().then(|| default_path(place));
        if public.is_empty() {
            public.push(PublicAddress::host(&default_host(place), ""));
        }
        Self {
            public,
            local_path,
            strip_prefix: strip_prefix || path.is_none(),
        }
    }

    /// Every address that no other environment may claim.
    #[must_use]
    pub fn claims(&self) -> BTreeSet<PublicAddress> {
        let local = self.local_path.iter().map(|path| PublicAddress::path(path));
        self.public.iter().cloned().chain(local).collect()
    }

    /// Without those that don't meet a condition.
    pub fn retain(&mut self, meets: impl Fn(&PublicAddress) -> bool) {
        self.public.retain(&meets);
        self.local_path
            .take_if(|path| !meets(&PublicAddress::path(path)));
    }

    /// The port of its own, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.public.iter().find_map(|address| match address {
            PublicAddress::Port(port) => Some(*port),
            PublicAddress::Host { .. } | PublicAddress::Path(_) => None,
        })
    }

    /// The URL that is printed. Names below `localhost` lead to the loopback address: where the proxy doesn't listen there, the
    /// local path is printed instead of the default host.
    #[must_use]
    pub fn url(&self, proxy: SocketAddr) -> String {
        let local = self.local_url(proxy).filter(|_| !is_localhost(proxy.ip()));
        let first = || self.public.first().map(|address| address.url(proxy));
        local.or_else(first).unwrap_or_default()
    }

    /// A URL that needs no name resolution, where there is one: programs don't resolve names below `localhost` everywhere.
    #[must_use]
    pub fn local_url(&self, proxy: SocketAddr) -> Option<String> {
        let path = self.local_path.as_deref()?;
        Some(PublicAddress::path(path).url(proxy))
    }
}

impl fmt::Display for EnvironmentAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.public.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

/// `shop` for production, `shop-staging` for every other environment.
fn label(place: &ServiceEnvironment) -> String {
    if place.environment.as_str() == PRODUCTION {
        place.service.to_string()
    } else {
        format!("{}-{}", place.service, place.environment)
    }
}

fn default_host(place: &ServiceEnvironment) -> String {
    format!("{}.localhost", label(place))
}

fn default_path(place: &ServiceEnvironment) -> String {
    format!("/{}", label(place))
}

#[cfg(test)]
mod tests;
