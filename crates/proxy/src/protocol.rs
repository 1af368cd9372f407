//! What the control socket speaks: one snapshot of routes in, counters out. JSON over HTTP/1.1 on a unix socket.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /routes` | [`Snapshot`] | [`Accepted`], once it is on disk and every worker uses it |
//! | `GET /routes` | | [`Snapshot`] |
//! | `GET /counters` | | [`Counters`] |
//! | `GET /healthz` | | [`Health`] |
//! | `POST /drained` | [`DrainWait`] | [`Drained`], when nothing is open or the time is over |
//! | `POST /faults` | [`Faults`] | the same; replaces those before |
//! | `POST /stop` | [`Stop`] | at once; the process ends when what is open has ended |
//!
//! A refusal is a status of 400 or more with a sentence. Two more requests, `POST /handover` and `POST /inherit`, are spoken
//! between a proxy and its successor only (see the module `takeover`).

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::latency::Latency;

/// The version of [`Snapshot`] this binary understands.
pub const VERSION: u32 = 1;

/// Everything, in basis points: what the weights of a route add up to.
pub const FULL: u32 = 10_000;

/// All routes at once; put by `PUT /routes`, swapped atomically, kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// The routes.
    pub routes: Vec<Route>,
    /// Ports to listen on although no route has them yet: requests there are answered with 404.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved_ports: Vec<u16>,
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
    /// The first path segments that lead here.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// Whether the path prefix is taken off before the request goes on.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub strip_prefix: bool,
    /// Whether only requests to a bare IP address or `localhost` lead here, unless a host or port says more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_only: bool,
    /// A port of its own that leads here, whatever host and path say. With neither hosts nor a path, only the port leads here.
    #[serde(default)]
    pub port: Option<u16>,
    /// What users are hashed with.
    #[serde(default)]
    pub salt: String,
    /// By what a user is known again.
    pub sticky: Sticky,
    /// Who answers, the newcomer first: raising the first weight only ever adds users to it.
    pub backends: Vec<Backend>,
    /// Copies of requests that go to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Count users who fail, each once; as long as this is here and the salt stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<CountUsers>,
    /// How long a request is held when nobody can answer.
    #[serde(default)]
    pub hold_ms: u64,
    /// How long a backend may take to the first byte of its answer.
    pub timeout_ms: u64,
    /// A request that waits longer for the head of its answer is counted as [`Entry::overdue`] and [`Entry::late`]; 0: none is.
    #[serde(default)]
    pub answer_within_ms: u64,
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
    /// Requests that fit a rule go to its release, even one without weight; all others by what follows.
    Matched {
        /// The first that fits wins.
        rules: Vec<Rule>,
        /// For requests that fit none.
        otherwise: Box<Sticky>,
    },
}

/// Sends requests with a certain header or cookie to one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which requests.
    pub only_if: Match,
    /// Where they go; passed over while the release has no instances.
    pub release: u32,
}

/// What a request must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// A header with this value.
    Header {
        /// Its name.
        name: String,
        /// What its value is compared with.
        value: String,
        /// And how.
        #[serde(default)]
        compared: Compared,
    },
    /// A cookie with this value.
    Cookie {
        /// Its name.
        name: String,
        /// What its value is compared with.
        value: String,
        /// And how.
        #[serde(default)]
        compared: Compared,
    },
    /// All of these.
    All(Vec<Match>),
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// It is the same.
    #[default]
    Exact,
    /// It begins so.
    Prefix,
    /// This regular expression fits all of it.
    Regex,
    /// It is there and not empty.
    Present,
}

/// Copies of requests: their answers are thrown away and counted apart, as [`Entry::mirror`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where they go, with `X-Shipway-Mirror: 1`; it must be behind the route.
    pub release: u32,
    /// Of how many of the requests that go elsewhere, in basis points.
    pub share: u32,
    /// Of which.
    #[serde(default)]
    pub methods: Methods,
}

/// Which requests are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Methods {
    /// GET, HEAD and OPTIONS without a body.
    #[default]
    Safe,
    /// All, with bodies of up to 64 KiB.
    All,
}

/// What users are counted by, beside errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountUsers {
    /// Limits of the time to the last byte, in microseconds: whoever waits longer is counted for each.
    pub slow_over_micros: Vec<u64>,
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
    /// `address:port`
    pub address: String,
}

/// The answer to `PUT /routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Snapshots so far.
    pub generation: u64,
    /// Services whose new routes make no sense: their routes before stay in force, and all other routes are new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRoutes>,
    /// Ports of routes that can't be listened on now, with the reason. The proxy tries them again and again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_ports: BTreeMap<u16, String>,
}

/// The routes of one service in one environment that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRoutes {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// Why.
    pub reason: String,
}

/// The answer to `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`
    pub status: String,
    /// Names whoever counts: counters begin anew with each. A proxy that took over goes on under its predecessor's name.
    pub boot: String,
    /// The version of the binary.
    pub version: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// See [`Accepted::unreachable_ports`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_ports: BTreeMap<u16, String>,
    /// Its process.
    pub pid: u32,
}

/// What `GET /counters` answers. All counts but `held`, `open`, `open_ages` and `overdue` only grow while `boot` stays the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Names whoever counted, see [`Health::boot`].
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// These are the copies of requests that it got, not requests of users.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirror: bool,
    /// Requests answered, by an instance or in its place by the proxy.
    pub requests: u64,
    /// Answers by status class: `2xx`.
    pub responses: BTreeMap<String, u64>,
    /// How long answers took to their last byte.
    pub latency: Latency,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests and upgraded connections open at this moment.
    pub open: u64,
    /// Requests that the proxy answered with 502, 503 or 504 because no instance did; they are in `requests` and `5xx` too.
    pub proxy_errors: u64,
    /// Requests that were sent again because nothing had been sent the first time, or because it does no harm.
    pub retries: u64,
    /// Users who failed for the first time since the route's users were drawn, by the release where they did; absent when nobody
    /// asked to count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Users>,
    /// Requests that should have been copied and were not: too many at once, a body, a method that changes something.
    #[serde(default, skip_serializing_if = "is_none")]
    pub not_copied: u64,
    /// Requests that their client gave up without an answer, or with half of one that had stopped; not in `requests`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub abandoned: u64,
    /// How old requests were that ended without an answer: those that were abandoned, and those that were open when a proxy
    /// before this one died. Their answers would have taken at least as long.
    #[serde(default, skip_serializing_if = "Latency::is_empty")]
    pub unfinished: Latency,
    /// Answers below 5xx whose head came later than [`Route::answer_within_ms`]; they are in `requests` too.
    #[serde(default, skip_serializing_if = "is_none")]
    pub late: u64,
    /// How old the requests are that are open at this moment, without upgraded connections. Of the same moment as the counts: an
    /// open request that is older than a limit now is counted beyond it when it ends.
    #[serde(default, skip_serializing_if = "Latency::is_empty")]
    pub open_ages: Latency,
    /// Open requests that waited for the head of their answer for longer than [`Route::answer_within_ms`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub overdue: u64,
}

impl Entry {
    /// The process that counted ended: what it had open ended without an answer.
    pub(crate) fn end_open(&mut self) {
        self.open = 0;
        let ages = std::mem::take(&mut self.open_ages);
        self.unfinished.merge(&ages);
        self.late += std::mem::take(&mut self.overdue);
    }
}

/// Users who failed, each counted once. These only grow, like all counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Those who were answered with 5xx, too late or not at all.
    pub errors: u64,
    /// By the limit in microseconds: those who waited longer.
    pub slow: BTreeMap<u64, u64>,
}

impl Users {
    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.errors += other.errors;
        for (limit, count) in &other.slow {
            *self.slow.entry(*limit).or_default() += count;
        }
    }

    /// What came since `earlier`; zero where `earlier` has more.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |limit| earlier.slow.get(limit).copied().unwrap_or(0);
        Self {
            errors: self.errors.saturating_sub(earlier.errors),
            slow: (self.slow.iter())
                .map(|(limit, count)| (*limit, count.saturating_sub(before(limit))))
                .collect(),
        }
    }
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_none(count: &u64) -> bool {
    *count == 0
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
    /// Requests and upgraded connections still open; 0 when all is done.
    pub open: u64,
}

/// The body of `POST /faults`: all faults there shall be. They live as long as the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// The faults; each decides for itself about each request.
    pub faults: Vec<Fault>,
}

/// Something that is made to go wrong, for a drill. It counts as the release's own doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The release.
    pub release: u32,
    /// How many of its requests, in basis points.
    pub share: u32,
    /// What happens to them.
    pub effect: Effect,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The request goes on later, by these milliseconds.
    LatencyMs(u64),
    /// It is answered with this status and goes nowhere.
    Status(u16),
    /// The client's connection is cut; counted as `5xx`.
    Reset,
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

/// The body of `POST /handover`: a successor asks for the listening sockets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The unix socket they are to be sent to.
    pub(crate) socket: std::path::PathBuf,
}

/// What comes with the listening sockets, in their order; then the lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inventory {
    pub(crate) boot: String,
    pub(crate) pid: u32,
    pub(crate) generation: u64,
    /// Processes before that one that have something open still.
    pub(crate) predecessors: Vec<u32>,
    pub(crate) listeners: Vec<Listening>,
}

/// One listening socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// The address that was asked for; its port may be 0.
    pub(crate) wanted: std::net::SocketAddr,
    /// Whether it belongs to a route.
    pub(crate) of_route: bool,
}

/// The body of `POST /inherit`: the last counts of a process that ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inheritance {
    pub(crate) pid: u32,
    pub(crate) counters: Counters,
}
