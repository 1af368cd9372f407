//! Configuration of the HTTP client for metric providers and webhooks.

use ureq::{
    config::ConfigBuilder,
    tls::{RootCerts, TlsConfig},
    typestate::AgentScope,
};

/// Trusts the system's certificates, returns every status as a response, and follows no redirect: a redirect would send keys,
/// bodies and signatures to another host.
pub(crate) fn http_client_config() -> ConfigBuilder<AgentScope> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("shipway/", env!("CARGO_PKG_VERSION")))
}
