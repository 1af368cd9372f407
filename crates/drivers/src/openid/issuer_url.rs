//! The identifier of a provider, which is the address that its discovery document is below.

use std::{fmt, net::IpAddr, str::FromStr};

use http::Uri;

/// The issuer of tokens: an HTTPS address, or an HTTP address of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuerUrl(String);

/// A text that is no issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an issuer: it must be an address that begins with https:// (http:// for this machine only), without user, query and fragment, exactly as the provider writes it in its tokens"
)]
pub struct ParseIssuerUrlError(String);

impl IssuerUrl {
    /// The issuer as tokens name it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, for people.
    #[must_use]
    pub fn host(&self) -> &str {
        let (_, rest) = self.0.split_once("://").unwrap_or_default();
        rest.split(['/', ':']).next().unwrap_or_default()
    }

    pub(super) fn discovery_address(&self) -> String {
        let base = self.0.trim_end_matches('/');
        format!("{base}/.well-known/openid-configuration")
    }
}

/// Whether an address may be sent a secret: TLS protects it, or it stays on this machine.
pub(super) fn is_protected(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_local = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    let is_tls = uri.scheme_str() == Some("https");
    let is_local_http = uri.scheme_str() == Some("http") && is_local;
    !host.is_empty() && !has_user && (is_tls || is_local_http)
}

impl FromStr for IssuerUrl {
    type Err = ParseIssuerUrlError;

    fn from_str(text: &str) -> Result<Self, ParseIssuerUrlError> {
        let is_valid = is_protected(text) && !text.contains(['?', '#']) && text.len() <= 500;
        match is_valid {
            true => Ok(Self(text.to_owned())),
            false => Err(ParseIssuerUrlError(text.chars().take(200).collect())),
        }
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_protected_by_tls_or_on_this_machine() {
        for right in [
            "https://login.example.com",
            "https://login.example.com/realms/acme/",
            "http://127.0.0.1:4000",
            "http://[::1]:4000/x",
            "http://localhost",
        ] {
            assert!(right.parse::<IssuerUrl>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "login.example.com",
            "http://login.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "https://user@login.example.com",
            "https://login.example.com/?x",
            "https://login.example.com/#x",
            "file:///etc/passwd",
            "https://",
        ] {
            assert!(wrong.parse::<IssuerUrl>().is_err(), "{wrong}");
        }
        let issuer: IssuerUrl = "https://login.example.com:8443/realms/".parse().unwrap();
        assert_eq!(issuer.host(), "login.example.com");
        let wanted = "https://login.example.com:8443/realms/.well-known/openid-configuration";
        assert_eq!(issuer.discovery_address(), wanted);
    }
}
