//! The addresses that clients of the endpoints get.

use hyper::header::{self, HeaderMap};

use super::runtime_secret::RuntimeSecret;

/// First path segment of signed URLs: Azure's clients take it for the account.
pub(super) const ACCOUNT: &str = "blobs";

/// The address of this server from the client's point of view, which differs in containers.
pub(super) struct RequestAddress {
    /// E.g. `127.0.0.1:8080`.
    host: String,
}

impl RequestAddress {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        Self {
            host: host.unwrap_or_default().to_owned(),
        }
    }

    /// The signed URL of a file.
    pub(super) fn signed_url(&self, container: &str, id: u64, signature: &RuntimeSecret) -> String {
        format!(
            "http://{}/{ACCOUNT}/{container}/{id}?sig={}",
            self.host,
            signature.as_str()
        )
    }
}
