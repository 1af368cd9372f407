//! Requests to providers.

use std::{io::Read as _, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use ureq::http::{Request, StatusCode};

use super::issuer_url::is_protected;
use crate::http_client::http_client_config;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a response at most.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// Requests at once; each blocks a thread.
const REQUESTS_MAX: usize = 8;

/// Why a provider can't be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProviderHttpError {
    #[error("{address} can't be reached: {why}")]
    Unreachable { address: String, why: String },
    #[error("{address} responded with {status}")]
    Status { address: String, status: u16 },
    #[error("{address} did not return the expected JSON")]
    Content { address: String },
    #[error("{0:?} is not protected by TLS")]
    Unprotected(String),
}

/// The HTTP client of a provider.
#[derive(Clone, Debug)]
pub(super) struct ProviderHttp {
    agent: ureq::Agent,
    room: Arc<Semaphore>,
}

impl ProviderHttp {
    pub(super) fn new() -> Self {
        let config = http_client_config().timeout_global(Some(TIMEOUT));
        Self {
            agent: config.build().new_agent(),
            room: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// A document that everyone may read.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        address: &str,
    ) -> Result<T, ProviderHttpError> {
        let request = Request::get(address).header("accept", "application/json");
        self.fetch_success(address, request.body(String::new()))
            .await
    }

    /// Sends a request; the document of a successful response.
    pub(super) async fn fetch_success<T: DeserializeOwned>(
        &self,
        address: &str,
        request: ureq::http::Result<Request<String>>,
    ) -> Result<T, ProviderHttpError> {
        let (status, body) = self.send(address, request).await?;
        if !status.is_success() {
            return Err(ProviderHttpError::Status {
                address: address.to_owned(),
                status: status.as_u16(),
            });
        }
        serde_json::from_slice(&body).map_err(|_| ProviderHttpError::Content {
            address: address.to_owned(),
        })
    }

    /// Sends a request; status and body of the response.
    pub(super) async fn send(
        &self,
        address: &str,
        request: ureq::http::Result<Request<String>>,
    ) -> Result<(StatusCode, Vec<u8>), ProviderHttpError> {
        if !is_protected(address) {
            return Err(ProviderHttpError::Unprotected(address.to_owned()));
        }
        let unreachable = |why: String| ProviderHttpError::Unreachable {
            address: address.to_owned(),
            why,
        };
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let _room = self.room.acquire().await;
        let agent = self.agent.clone();
        let sent = tokio::task::spawn_blocking(move || {
            let response = agent.run(request)?;
            let status = response.status();
            let mut body = Vec::new();
            let reader = response.into_body().into_reader();
            reader.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            Ok::<_, ureq::Error>((status, body))
        });
        let response = sent.await.map_err(|error| unreachable(error.to_string()))?;
        response.map_err(|error| unreachable(error.to_string()))
    }
}
