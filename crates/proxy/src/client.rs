//! The control socket from the other side.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_proxy::client::ControlError> {
//! let proxy = shipway_proxy::client::Control::new("/run/shipway/proxy.sock");
//! for entry in proxy.counters().await?.entries {
//!     println!("{} {}: {} requests", entry.service, entry.release, entry.requests);
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
    Accepted, Counters, DrainWait, Drained, Faults, Handover, Health, Inheritance, Inventory,
    Snapshot, Stop,
};

/// A running proxy, by its control socket. Each call is a connection of its own: they are few.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

/// Why a proxy could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers at the socket.
    #[error("the proxy does not answer at {socket}: {why}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// Why.
        why: String,
    },
    /// It refuses, with a reason.
    #[error("the proxy refuses: {0}")]
    Refused(String),
}

impl Control {
    /// A proxy by its socket; nothing is connected yet.
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
    pub async fn put_routes(&self, snapshot: &Snapshot) -> Result<Accepted, ControlError> {
        self.call("PUT", "/routes", snapshot).await
    }

    /// The routes in force.
    pub async fn routes(&self) -> Result<Snapshot, ControlError> {
        self.call("GET", "/routes", &()).await
    }

    /// The counts so far.
    pub async fn counters(&self) -> Result<Counters, ControlError> {
        self.call("GET", "/counters", &()).await
    }

    /// Waits until nothing is open, or for the time given.
    pub async fn drained(&self, wait: &DrainWait) -> Result<Drained, ControlError> {
        self.call("POST", "/drained", wait).await
    }

    /// Replaces all faults.
    pub async fn faults(&self, faults: &Faults) -> Result<Faults, ControlError> {
        self.call("POST", "/faults", faults).await
    }

    /// Whether it is there.
    pub async fn healthz(&self) -> Result<Health, ControlError> {
        self.call("GET", "/healthz", &()).await
    }

    /// Tells it to stop when what is open is over.
    pub async fn stop(&self, stop: Stop) -> Result<serde_json::Value, ControlError> {
        self.call("POST", "/stop", &stop).await
    }

    pub(crate) async fn hand_over(&self, handover: &Handover) -> Result<Inventory, ControlError> {
        self.call("POST", "/handover", handover).await
    }

    pub(crate) async fn inherit(
        &self,
        inheritance: &Inheritance,
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
        serde_json::from_slice(&bytes).map_err(|error| {
            ControlError::Refused(format!("an answer that can't be read: {error}"))
        })
    }
}

/// A call that is given up takes its connection along.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
