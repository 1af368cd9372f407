//! Documents that providers publish.

use serde::Deserialize;

/// What the discovery document says. Providers of tokens for machines have no endpoints for logins.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ProviderMetadata {
    pub(super) issuer: String,
    pub(super) jwks_uri: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) userinfo_endpoint: Option<String>,
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether every response of the authorization endpoint names its issuer (RFC 9207).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// The keys as they are published (RFC 7517).
#[derive(Debug, Deserialize)]
pub(super) struct PublishedKeys {
    pub(super) keys: Vec<serde_json::Value>,
}

/// The response of the token endpoint.
#[derive(Deserialize)]
pub(super) struct TokenDocument {
    pub(super) id_token: Option<String>,
    pub(super) access_token: Option<String>,
}

/// An error of the token endpoint (RFC 6749).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorDocument {
    pub(super) error: String,
    pub(super) error_description: String,
}
