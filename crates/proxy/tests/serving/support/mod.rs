//! What the tests share: a proxy to start, upstreams to put behind it, clients to ask, routes to put.

pub mod client;
pub mod proxy;
pub mod routes;
pub mod upstream;

use std::time::Duration;

pub use client::{Conversation, Got, Load, Wire, get};
pub use proxy::{House, Proxy};
pub use routes::{SHOP, backend, only, route, snapshot};
pub use upstream::{Raw, Upstream};

/// No wait in these tests is meant to take this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that will happen, and says what it was if it doesn't.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Asks again and again until it is so: for what nobody tells.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    })
    .await;
}
