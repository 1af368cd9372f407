//! The exchange of an authorization code for tokens (RFC 6749, RFC 7636).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ureq::http::Request;

use super::provider_documents::ProviderMetadata;

/// This server as a client of a provider.
#[derive(Clone)]
pub struct OpenIdClient {
    /// The client id.
    pub id: String,
    /// None for a public client.
    pub secret: Option<String>,
}

impl fmt::Debug for OpenIdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenIdClient({:?})", self.id)
    }
}

/// A code that is exchanged.
#[derive(Clone, Copy)]
pub struct CodeExchange<'e> {
    /// The client that the code was issued to.
    pub client: &'e OpenIdClient,
    /// The code, which can be used once.
    pub code: &'e str,
    /// The address that the code was sent to.
    pub redirect_uri: &'e str,
    /// The secret whose hash the login was started with.
    pub verifier: &'e str,
}

/// The tokens for a code.
#[derive(Clone)]
pub struct TokenResponse {
    /// The token that identifies the person.
    pub id_token: String,
    /// For the userinfo endpoint.
    pub access_token: Option<String>,
}

impl CodeExchange<'_> {
    /// The request, with the way of authentication that the provider accepts.
    pub(super) fn to_request(
        self,
        metadata: &ProviderMetadata,
        address: &str,
    ) -> ureq::http::Result<Request<String>> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", self.code),
            ("redirect_uri", self.redirect_uri),
            ("code_verifier", self.verifier),
        ];
        let mut request = Request::post(address)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded");
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
        let has_basic = methods
            .is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        match &self.client.secret {
            Some(secret) if has_basic => {
                let login = format!("{}:{}", encode(&self.client.id), encode(secret));
                let login = format!("Basic {}", STANDARD.encode(login));
                request = request.header("authorization", login);
            }
            Some(secret) => {
                fields.extend([
                    ("client_id", self.client.id.as_str()),
                    ("client_secret", secret),
                ]);
            }
            None => fields.push(("client_id", &self.client.id)),
        }
        request.body(encode_form(&fields))
    }
}

/// Fields of a form or a query.
pub(super) fn encode_form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    fields.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
