//! Messages of the control socket: JSON over HTTP/1.1 on a unix socket.
//!
//! | request | body | response |
//! |---|---|---|
//! | `PUT /routes` | [`RouteSnapshot`] | [`AcceptedRoutes`], once it is on disk and every worker uses it |
//! | `GET /routes` | | [`RouteSnapshot`] |
//! | `GET /counters` | | [`ProxyCounters`] |
//! | `GET /healthz` | | [`ProxyHealth`] |
//! | `POST /drained` | [`DrainRequest`] | [`DrainResponse`], when nothing is open or at the timeout |
//! | `POST /faults` | [`FaultList`] | the same; replaces the previous faults |
//! | `POST /stop` | [`StopRequest`] | immediately; the process exits when its open requests have ended |
//!
//! Errors are a status of 400 or more with a text. Two more requests, `POST /handover` and `POST /inherit`, are used only
//! between a proxy and its successor (see the module `takeover`).

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::{
    latency_histogram::LatencyHistogram,
    traffic_totals::{FailedUserCounts, TrafficTotals},
};

/// The version of [`RouteSnapshot`] that this binary understands.
pub const VERSION: u32 = 1;

/// The sum of the weights of a route, in basis points.
pub const FULL: u32 = 10_000;

/// All routes at once: sent by `PUT /routes`, swapped atomically, stored on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSnapshot {
    /// Format version, see [`VERSION`].
    pub version: u32,
    /// All routes.
    pub routes: Vec<ServiceRoute>,
    /// Ports to listen on although no route has them yet; requests there get 404.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved_ports: Vec<u16>,
}

/// A service in an environment: which requests lead to it, and the releases that answer them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// Hosts of this route, exact or `*.` before a suffix; empty matches any host.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Path prefix of this route, in whole segments.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// Whether the path prefix is removed before the request is forwarded.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub strip_prefix: bool,
    /// Whether only requests to a bare IP address or `localhost` match, unless a host or port says more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_only: bool,
    /// A dedicated port that leads here for any host and path. With neither hosts nor a path prefix, only the port leads here.
    #[serde(default)]
    pub port: Option<u16>,
    /// Salt for the hash of users.
    #[serde(default)]
    pub salt: String,
    /// How a user is identified across requests.
    pub sticky: StickyBy,
    /// Keeps a user on one instance of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_affinity: Option<InstanceAffinity>,
    /// The releases, the newest first: raising the first weight only ever adds users to it.
    pub backends: Vec<RouteBackend>,
    /// Copies of requests to send to another release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<RequestMirror>,
    /// Counts users who fail, each once, while this is present and the salt is unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UserCounting>,
    /// How long a request is held when no instance is available.
    #[serde(default)]
    pub hold_ms: u64,
    /// Timeout for the first byte of a response.
    pub timeout_ms: u64,
    /// Requests that wait longer for the head of the response are counted as [`TrafficTotals::overdue`] and
    /// [`TrafficTotals::late`]; 0 disables this.
    #[serde(default)]
    pub answer_within_ms: u64,
}

/// By what a user is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickyBy {
    /// By the cookie of this name, which is set if missing while traffic is split.
    Cookie(String),
    /// By the request header of this name.
    Header(String),
    /// By the client's address.
    Address,
    /// Not at all: each request is assigned independently.
    None,
    /// Requests that match a rule go to its release, even one without weight; the others are assigned by `otherwise`.
    Matched {
        /// The first match wins.
        rules: Vec<RouteRule>,
        /// For requests that match no rule.
        otherwise: Box<StickyBy>,
    },
}

/// By what a user is kept on one instance. An instance that is gone or refuses connections is replaced by another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceAffinity {
    /// By a cookie of this name, set by the proxy, which names the instance.
    Cookie(String),
    /// By the hash of the user's key, see [`ServiceRoute::sticky`]; requests without a key go to any instance. Adding or removing an
    /// instance moves only the users that it gets or had.
    UserKey,
}

/// Sends requests with certain headers or cookies to one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRule {
    /// Which requests match.
    pub only_if: RequestMatch,
    /// The release they go to; the rule is skipped while that release has no instances.
    pub release: u32,
}

/// A condition on the head of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestMatch {
    /// A header has this value.
    Header {
        /// Its name.
        name: String,
        /// What its value is compared with.
        value: String,
        /// And how.
        #[serde(default)]
        compared: ValueComparison,
    },
    /// A cookie has this value.
    Cookie {
        /// Its name.
        name: String,
        /// What its value is compared with.
        value: String,
        /// And how.
        #[serde(default)]
        compared: ValueComparison,
    },
    /// All of these conditions hold.
    All(Vec<RequestMatch>),
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueComparison {
    /// Equal.
    #[default]
    Exact,
    /// The value starts with the text.
    Prefix,
    /// The regular expression matches the whole value.
    Regex,
    /// The value is present and not empty.
    Present,
}

/// Copies of requests. Their responses are discarded and counted separately, as [`ReleaseTotals::mirror`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMirror {
    /// The release that gets the copies, marked with `X-Shipway-Mirror: 1`; it must be a backend of the route.
    pub release: u32,
    /// Share of the other releases' requests that are copied, in basis points.
    pub share: u32,
    /// The methods that are copied.
    #[serde(default)]
    pub methods: MirroredMethods,
}

/// Which requests are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirroredMethods {
    /// GET, HEAD and OPTIONS without a body.
    #[default]
    Safe,
    /// All methods, with bodies of up to 64 KiB.
    All,
}

/// Which failures of users are counted, in addition to errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCounting {
    /// Limits for the time to the last byte, in microseconds: a user whose request takes longer is counted once per limit.
    pub slow_over_micros: Vec<u64>,
}

/// One release of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// The release's number.
    pub release: u32,
    /// Weight in basis points; those of a route add up to 10,000 or to 0.
    pub weight: u32,
    /// The ready instances.
    pub instances: Vec<BackendInstance>,
}

/// One instance of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInstance {
    /// Stable for the life of the process.
    pub id: String,
    /// `address:port`
    pub address: String,
}

/// Response to `PUT /routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRoutes {
    /// Number of snapshots applied so far.
    pub generation: u64,
    /// Services whose new routes are invalid: their previous routes stay in force, all other routes are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RejectedRoutes>,
    /// Route ports that can't be opened now, each with the reason. The proxy keeps retrying them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_ports: BTreeMap<u16, String>,
}

/// The invalid routes of one service in one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRoutes {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// Why.
    pub reason: String,
}

/// Response to `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHealth {
    /// `ok`
    pub status: String,
    /// Identifies a sequence of counters: they restart at zero with each new id. A proxy that took over keeps its predecessor's
    /// id.
    pub boot: String,
    /// Version of the binary.
    pub version: String,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// See [`AcceptedRoutes::unreachable_ports`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_ports: BTreeMap<u16, String>,
    /// Process id.
    pub pid: u32,
}

/// Response to `GET /counters`. All counts except `held`, `open`, `open_ages` and `overdue` only grow while `boot` is unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyCounters {
    /// Identifies the sequence of counters, see [`ProxyHealth::boot`].
    pub boot: String,
    /// When the counters were read.
    pub at: jiff::Timestamp,
    /// Requests that matched no route.
    pub no_route: u64,
    /// Requests held now.
    pub held: u64,
    /// One entry per release.
    pub entries: Vec<ReleaseTotals>,
}

/// The counter totals of one release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseTotals {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// Whether these count copies of requests instead of users' requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirror: bool,
    /// Requests that should have been copied and were not: too many at once, a large body, or an unsafe method.
    #[serde(default, skip_serializing_if = "is_none")]
    pub not_copied: u64,
    /// Counts of requests, responses and bytes.
    pub totals: TrafficTotals,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Body of `POST /drained`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// Only these instances; empty means all of the release.
    #[serde(default)]
    pub instances: Vec<String>,
    /// Timeout.
    pub timeout_ms: u64,
}

/// Response to `POST /drained`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainResponse {
    /// Requests and upgraded connections that are still open; 0 when drained.
    pub open: u64,
}

/// Body of `POST /faults`: replaces all faults. They are lost when the process exits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultList {
    /// Each fault applies to a request independently of the others.
    pub faults: Vec<InjectedFault>,
}

/// A fault that is injected for a drill. It is counted as the release's own failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InjectedFault {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// Share of the release's requests, in basis points.
    pub share: u32,
    /// The effect on these requests.
    pub effect: FaultEffect,
}

/// The effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultEffect {
    /// The request is delayed by this many milliseconds.
    LatencyMs(u64),
    /// The request is answered with this status and not forwarded.
    Status(u16),
    /// The client's connection is closed; counted as `5xx`.
    Reset,
}

/// Body of `POST /stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Grace for open requests.
    pub grace_ms: u64,
}

impl StopRequest {
    /// `grace_ms` as a duration.
    #[must_use]
    pub const fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

/// Body of `POST /handover`: a successor asks for the listening sockets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandoverRequest {
    /// The unix socket to send them to.
    pub(crate) socket: std::path::PathBuf,
}

/// Sent with the descriptors: first the listening sockets in this order, then the lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandoverInventory {
    pub(crate) boot: String,
    pub(crate) pid: u32,
    pub(crate) generation: u64,
    /// Its own predecessors that still have open requests.
    pub(crate) predecessors: Vec<u32>,
    pub(crate) listeners: Vec<ListeningSocket>,
}

/// A listening socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ListeningSocket {
    /// The requested address; its port may be 0.
    pub(crate) wanted: std::net::SocketAddr,
    /// Whether it is the port of a route.
    pub(crate) of_route: bool,
}

impl ListeningSocket {
    /// An address of the proxy itself, not of a route.
    pub(crate) const fn for_proxy(wanted: std::net::SocketAddr) -> Self {
        Self {
            wanted,
            of_route: false,
        }
    }

    /// The port of a route.
    pub(crate) const fn for_route(wanted: std::net::SocketAddr) -> Self {
        Self {
            wanted,
            of_route: true,
        }
    }
}

/// Body of `POST /inherit`: the final counters of a process that exits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FinalCounters {
    pub(crate) pid: u32,
    pub(crate) counters: ProxyCounters,
}
