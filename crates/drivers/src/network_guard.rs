//! Addresses that no destination may reach.
//!
//! # Why
//!
//! Anyone with the right to push chooses URLs in `shipway.yaml`, and the server sends the requests. Link-local addresses belong to cloud metadata
//! services, which give out credentials without asking; the server's own ports on the loopback interface may trust
//! processes of this machine. Other private addresses are allowed: chats and mail servers are there.
//!
//! # Invariants
//!
//! - The addresses that a name resolves to are checked, and the connection goes to exactly those: a name can't change in between.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// The metadata service of EC2 over IPv6.
const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Decides which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub struct NetworkGuard {
    /// Ports of this server on the loopback interface.
    own_ports: Vec<u16>,
}

impl NetworkGuard {
    /// Refuses these ports of the loopback interface too.
    #[must_use]
    pub fn new(own_ports: Vec<u16>) -> Self {
        Self { own_ports }
    }

    /// Whether a connection to the address is allowed.
    #[must_use]
    pub fn allows(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_local = ip.is_loopback() || ip.is_unspecified();
        let is_metadata = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == EC2_METADATA,
        };
        let is_own = is_local && self.own_ports.contains(&address.port());
        !is_metadata && !is_own && !ip.is_multicast()
    }
}

/// Resolves names to allowed addresses.
#[derive(Debug)]
pub(crate) struct GuardedResolver {
    pub(crate) guard: NetworkGuard,
    pub(crate) names: DefaultResolver,
}

/// The text of the error for an address that is refused.
pub(crate) const REFUSED_ADDRESS: &str =
    "its address is link-local or this server's own: Shipway sends nothing there";

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let resolved = self.names.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in resolved.iter().filter(|it| self.guard.allows(**it)) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            let refused =
                std::io::Error::new(std::io::ErrorKind::PermissionDenied, REFUSED_ADDRESS);
            return Err(Error::Io(refused));
        }
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_and_own_ports_are_refused_in_every_spelling() {
        let guard = NetworkGuard::new(vec![7878]);
        for refused in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "127.0.0.1:7878",
            "127.9.9.9:7878",
            "[::1]:7878",
            "0.0.0.0:7878",
            "[::ffff:127.0.0.1]:7878",
            "224.0.0.1:80",
        ] {
            assert!(!guard.allows(refused.parse().unwrap()), "{refused}");
        }
        for allowed in ["127.0.0.1:25", "10.0.0.1:80", "192.168.1.2:443", "[::1]:25"] {
            assert!(guard.allows(allowed.parse().unwrap()), "{allowed}");
        }
    }
}
