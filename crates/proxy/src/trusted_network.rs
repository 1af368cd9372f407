//! Networks of trusted proxies: their forwarding headers are accepted.

use std::{fmt, net::IpAddr, str::FromStr};

/// A network in CIDR notation whose hosts are trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedNetwork {
    address: IpAddr,
    prefix_bits: u8,
}

/// The text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network in CIDR notation, such as 10.0.0.0/8, 127.0.0.1 or fd00::/8")]
pub struct ParseNetworkError(String);

impl TrustedNetwork {
    /// Whether the network contains an address. An IPv4 address mapped into IPv6 is treated as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let host_bits = |width: u8| u32::from(width - self.prefix_bits);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(host_bits(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(host_bits(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for TrustedNetwork {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let refused = || ParseNetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| refused())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            Some(bits) => bits.trim().parse().map_err(|_| refused())?,
            None => width,
        };
        if prefix_bits > width {
            return Err(refused());
        }
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl fmt::Display for TrustedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_hosts_and_no_others() {
        let contains = |network: &str, address: &str| {
            let network: TrustedNetwork = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(
            contains("127.0.0.1", "::ffff:127.0.0.1"),
            "the same host over IPv6"
        );
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "host",
        ] {
            let why = bad.parse::<TrustedNetwork>().unwrap_err().to_string();
            assert!(why.contains("10.0.0.0/8"), "{why}");
        }
        let text = |text: &str| text.parse::<TrustedNetwork>().unwrap().to_string();
        assert_eq!(
            (text("10.0.0.0/8"), text("::1")),
            ("10.0.0.0/8".to_owned(), "::1/128".to_owned())
        );
    }
}
