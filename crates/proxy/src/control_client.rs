//! Client of the control socket.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_proxy::control_client::ControlError> {
//! let proxy = shipway_proxy::control_client::ControlClient::new("/run/shipway/proxy.sock");
//! for entry in proxy.counters().await?.entries {
//! println!("{} {}: {} requests", entry.service, entry.release, entry.totals.requests);
//! }
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::protocol::{
    AcceptedRoutes, DrainRequest, DrainResponse, FaultList, FinalCounters, HandoverInventory,
    HandoverRequest, ProxyCounters, ProxyHealth, RouteSnapshot, StopRequest,
};

/// A client for the proxy at a control socket. Each call opens a connection: calls are rare.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No proxy answers at the socket.
    #[error("the proxy does not respond at {socket}: {why}")]
    Unreachable {
        /// The path of the socket.
        socket: String,
        /// Why.
        why: String,
    },
    /// The proxy rejected the request with a reason.
    #[error("the proxy refuses: {0}")]
    Refused(String),
}

impl ControlClient {
    /// A client for the socket; does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Replaces all routes. When this returns they are on disk, and no request is sent by the old ones any more.
    pub async fn send_routes(
        &self,
        snapshot: &RouteSnapshot,
    ) -> Result<AcceptedRoutes, ControlError> {
        self.call("PUT", "/routes", snapshot).await
    }

    /// The routes in force.
    pub async fn routes(&self) -> Result<RouteSnapshot, ControlError> {
        self.call("GET", "/routes", &()).await
    }

    /// The counters so far.
    pub async fn counters(&self) -> Result<ProxyCounters, ControlError> {
        self.call("GET", "/counters", &()).await
    }

    /// Waits until no request is open, up to the given timeout.
    pub async fn wait_until_drained(
        &self,
        wait: &DrainRequest,
    ) -> Result<DrainResponse, ControlError> {
        self.call("POST", "/drained", wait).await
    }

    /// Replaces all injected faults.
    pub async fn send_faults(&self, faults: &FaultList) -> Result<FaultList, ControlError> {
        self.call("POST", "/faults", faults).await
    }

    /// Checks that the proxy answers.
    pub async fn health(&self) -> Result<ProxyHealth, ControlError> {
        self.call("GET", "/healthz", &()).await
    }

    /// Stops the proxy once its open requests have ended.
    pub async fn stop(&self, stop: StopRequest) -> Result<serde_json::Value, ControlError> {
        self.call("POST", "/stop", &stop).await
    }

    pub(crate) async fn hand_over(
        &self,
        handover: &HandoverRequest,
    ) -> Result<HandoverInventory, ControlError> {
        self.call("POST", "/handover", handover).await
    }

    pub(crate) async fn send_final_counters(
        &self,
        inheritance: &FinalCounters,
    ) -> Result<serde_json::Value, ControlError> {
        self.call("POST", "/inherit", inheritance).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let socket = || self.socket.display().to_string();
        let unreachable = |why: String| ControlError::Unreachable {
            socket: socket(),
            why,
        };
        let refused = |why: &dyn std::error::Error| ControlError::Refused(why.to_string());
        let body = serde_json::to_vec(body).map_err(|error| refused(&error))?;
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let _connection = AbortOnDrop(tokio::spawn(connection));
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "proxy")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| refused(&error))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await;
        let bytes = bytes
            .map_err(|error| unreachable(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            return Err(ControlError::Refused(
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| ControlError::Refused(format!("invalid response: {error}")))
    }
}

/// Closes the connection when a call is cancelled.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
