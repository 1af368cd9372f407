//! How others are asked over HTTP and HTTPS: providers of metrics, receivers of notifications.

use ureq::{
    config::ConfigBuilder,
    tls::{RootCerts, TlsConfig},
    typestate::AgentScope,
};

/// An agent that trusts the certificates the machine trusts, takes every status for an answer and follows nobody: a redirect
/// would carry keys, bodies and signatures to whoever is named in it.
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
