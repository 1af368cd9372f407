//! What the control socket speaks: one snapshot of routes in, counters out. JSON over HTTP/1.1 on a unix socket.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::latency::Latency;

/// The version of [`Snapshot`] this binary understands.
pub const VERSION: u32 = 1;

/// All routes at once; put by `PUT /routes`, swapped atomically, kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// The routes.
    pub routes: Vec<Route>,
}

/// What leads to a service in an environment, and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// Hosts that lead here, exact or `*.` before a suffix; none: any.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The first path segments that lead here; taken off before the request goes on.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// A port of its own that leads here, whatever host and path say.
    #[serde(default)]
    pub port: Option<u16>,
    /// What users are hashed with.
    #[serde(default)]
    pub salt: String,
    /// By what a user is known again.
    pub sticky: Sticky,
    /// Who answers, the newcomer first.
    pub backends: Vec<Backend>,
    /// How long a request is held when nobody can answer.
    #[serde(default)]
    pub hold_ms: u64,
    /// How long a backend may take to the first byte of its answer.
    pub timeout_ms: u64,
}

/// By what a user is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// A cookie of this name; set where it is missing while traffic is split.
    Cookie(String),
    /// A request header of this name.
    Header(String),
    /// The client's address.
    Address,
    /// Nothing: each request is decided anew.
    None,
}

/// One release behind a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its number.
    pub release: u32,
    /// Its share in basis points; those of a route add up to 10,000, or to 0.
    pub weight: u32,
    /// Its ready instances.
    pub instances: Vec<Instance>,
}

/// One instance behind a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name; the same for the same process.
    pub id: String,
    /// `host:port`
    pub address: String,
}

/// The answer to `PUT /routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Snapshots so far.
    pub generation: u64,
}

/// The answer to `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`
    pub status: String,
    /// Names this process: counters begin anew with each.
    pub boot: String,
    /// The version of the binary.
    pub version: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Its process.
    pub pid: u32,
}

/// What `GET /counters` answers. All counts only grow while `boot` stays the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Names the process that counted.
    pub boot: String,
    /// When it was read.
    pub at: jiff::Timestamp,
    /// Requests that no route led anywhere.
    pub no_route: u64,
    /// Requests held at this moment.
    pub held: u64,
    /// One for each release.
    pub entries: Vec<Entry>,
}

/// The counts of one release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// Requests answered.
    pub requests: u64,
    /// Answers by status class: `2xx`.
    pub responses: BTreeMap<String, u64>,
    /// How long answers took to their last byte.
    pub latency: Latency,
    /// Bytes of request bodies, as far as their length was said.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests and upgraded connections open at this moment.
    pub open: u64,
    /// Requests that failed in the proxy: no connection, no answer in time.
    pub proxy_errors: u64,
    /// Requests that were sent again because nothing had been sent the first time.
    pub retries: u64,
}

/// The body of `POST /drained`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainWait {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// Only these instances; none: all of the release.
    #[serde(default)]
    pub instances: Vec<String>,
    /// How long to wait.
    pub timeout_ms: u64,
}

/// The answer to `POST /drained`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Requests still open; 0 when all is done.
    pub open: u64,
}

/// The body of `POST /stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// How long open requests may take to finish.
    pub grace_ms: u64,
}

impl Stop {
    /// The grace.
    #[must_use]
    pub const fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}
