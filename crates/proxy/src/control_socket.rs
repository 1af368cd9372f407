//! Server side of the control socket: routes in, counters out.
//!
//! # Why
//!
//! The controller is another process that may be restarted at any moment. Everything it needs goes through this unix socket, and
//! the proxy keeps serving when no client is connected.
//!
//! # Invariants
//!
//! - One process owns the path: its lock file is held from the start, and is passed to a successor together with the
//!   sockets.
//! - Only the owner of the socket (mode 0600) can connect: a client of this socket decides where requests go.
//! - After a handover new routes wait for the successor, so that no snapshot is acknowledged by a process that is about to stop.
//!
//! # Failure modes
//!
//! - A successor that never sends `/stop` is considered dead after [`HANDOVER_TIMEOUT`]; routes are accepted again.
//! - A predecessor that doesn't answer in time keeps the counters that it reported last; one that exited is retired.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

use crate::{
    ApplyRoutesError, ProxyState,
    control_client::ControlClient,
    protocol::{
        DrainRequest, DrainResponse, FaultList, FinalCounters, HandoverInventory, HandoverRequest,
        ProxyCounters, ProxyHealth, RouteSnapshot, StopRequest,
    },
    release_counters::{OpenRequestReport, ReleaseKey},
    takeover,
};

/// Upper bound for a request body; the largest snapshots are far smaller.
const BODY_MAX: usize = 16 << 20;
/// Timeout for the head of a request on a local socket.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Timeout for the workers' reports. A worker answers between two polls of its tasks.
const REPORTS_MAX: Duration = Duration::from_secs(1);
/// Timeout for a predecessor's counters, which it answers from memory.
const PREDECESSOR_MAX: Duration = Duration::from_secs(1);
/// A successor that does not send `/stop` within this time is considered dead: new routes are accepted again.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// The control socket that this process listens on.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    inode: u64,
    /// The lock's descriptor. A successor gets a copy, so that the lock is held without a gap.
    lock: OwnedFd,
}

/// Locks and binds the socket. A stale socket file is replaced.
pub(crate) fn bind_socket(path: &Path) -> io::Result<(ControlSocket, StdListener)> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(takeover::path_with_suffix(path, "lock"))?;
    if lock.try_lock().is_err() {
        let why = "another proxy is running there; stop it first";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    Ok((ControlSocket::new(path, lock.into())?, listener))
}

/// Binds a new socket at the predecessor's path. The predecessor stays reachable at a path with its pid.
pub(crate) fn replace_socket(
    path: &Path,
    predecessor: u32,
    lock: OwnedFd,
) -> io::Result<(ControlSocket, StdListener)> {
    let aside = takeover::path_with_suffix(path, &predecessor.to_string());
    let beside = takeover::path_with_suffix(path, &format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&aside);
    let _ = std::fs::remove_file(&beside);
    let listener = StdListener::bind(&beside)?;
    let socket = ControlSocket::new(&beside, lock)?;
    std::fs::hard_link(path, &aside)?;
    std::fs::rename(&beside, path)?;
    Ok((
        ControlSocket {
            path: path.to_owned(),
            ..socket
        },
        listener,
    ))
}

impl ControlSocket {
    fn new(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        // A client of this socket decides where requests go: only the owner may connect.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            inode: std::fs::metadata(path)?.ino(),
            lock,
        })
    }

    /// Whether the path still refers to this process's socket, not to a successor's.
    pub(crate) fn is_current(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Removes the paths that refer to this process's socket.
    pub(crate) fn remove_paths(&self) {
        for path in [
            self.path.clone(),
            takeover::path_with_suffix(&self.path, &std::process::id().to_string()),
        ] {
            if std::fs::metadata(&path).is_ok_and(|found| found.ino() == self.inode) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// A client for the process that answers at the path now.
    pub(crate) fn successor_client(&self) -> ControlClient {
        ControlClient::new(&self.path)
    }

    fn predecessor_client(&self, pid: u32) -> ControlClient {
        ControlClient::new(takeover::path_with_suffix(&self.path, &pid.to_string()))
    }
}

/// Serves the socket until this process exits: while it stops, its successor asks for its counters.
pub(crate) async fn serve_control(listener: UnixListener, shared: Arc<ProxyState>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, shared.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the control socket can't accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, shared: Arc<ProxyState>) {
    let service = service_fn(move |request| handle_request(request, shared.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "a control connection was interrupted");
    }
}

type ControlResponse = Response<Full<Bytes>>;

/// Why a request is refused; the text is the response.
#[derive(Debug, thiserror::Error)]
enum ControlRequestError {
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Routes(#[from] ApplyRoutesError),
    #[error("a worker does not report its open requests")]
    SilentWorker,
    /// The sockets could not be sent to the successor.
    #[error(transparent)]
    HandOver(#[from] io::Error),
}

/// The connection is closed without a response; the client retries at the successor.
#[derive(Debug, thiserror::Error)]
#[error("ask my successor")]
struct SupersededProxy;

async fn handle_request(
    request: Request<Incoming>,
    shared: Arc<ProxyState>,
) -> Result<ControlResponse, SupersededProxy> {
    let (parts, body) = request.into_parts();
    let outcome = match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/routes") => handle_routes(&shared, body).await?,
        (&Method::GET, "/routes") => json_response(&shared.table.load().snapshot),
        (&Method::GET, "/counters") => collect_counters(&shared)
            .await
            .and_then(|it| json_response(&it)),
        (&Method::GET, "/healthz") => json_response(&health_report(&shared)),
        (&Method::POST, "/drained") => match read_json::<DrainRequest>(body).await {
            Ok(wait) => json_response(&DrainResponse {
                open: wait_until_drained(&shared, &wait).await,
            }),
            Err(why) => Err(why),
        },
        (&Method::POST, "/faults") => read_json::<FaultList>(body).await.and_then(|faults| {
            shared.faults.store(Arc::new(faults.faults.clone()));
            json_response(&faults)
        }),
        (&Method::POST, "/stop") => match read_json::<StopRequest>(body).await {
            Ok(stop) => {
                shared.stop(stop.grace()).await;
                json_response(&serde_json::json!({ "stopping": true }))
            }
            Err(why) => Err(why),
        },
        (&Method::POST, "/handover") => match read_json::<HandoverRequest>(body).await {
            Ok(handover) => match hand_over_sockets(&shared, &handover).await {
                Ok(inventory) => json_response(&inventory),
                Err(error) => Err(error.into()),
            },
            Err(why) => Err(why),
        },
        (&Method::POST, "/inherit") => read_json::<FinalCounters>(body).await.and_then(|it| {
            shared
                .registry
                .replace_inherited(it.pid, it.counters.no_route, it.counters.entries);
            retire_predecessor(&shared, it.pid);
            json_response(&serde_json::json!({ "inherited": true }))
        }),
        _ => {
            let known = "PUT or GET /routes, GET /counters, GET /healthz, POST /drained, POST /faults, POST /stop";
            return Ok(error_response(StatusCode::NOT_FOUND, known.to_owned()));
        }
    };
    Ok(outcome.unwrap_or_else(|error| error_response(StatusCode::BAD_REQUEST, error.to_string())))
}

fn health_report(shared: &ProxyState) -> ProxyHealth {
    ProxyHealth {
        status: "ok".to_owned(),
        boot: shared.boot.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: shared.listen.iter().map(ToString::to_string).collect(),
        unreachable_ports: shared.unreachable_ports(),
        pid: std::process::id(),
    }
}

async fn handle_routes(
    shared: &Arc<ProxyState>,
    body: Incoming,
) -> Result<Result<ControlResponse, ControlRequestError>, SupersededProxy> {
    let snapshot = match read_json::<RouteSnapshot>(body).await {
        Ok(snapshot) => snapshot,
        Err(why) => return Ok(Err(why)),
    };
    let deadline = shared.handed_over_at().map(|at| at + HANDOVER_MAX);
    if let Some(deadline) = deadline
        && tokio::time::timeout_at(deadline.into(), shared.stopping.cancelled())
            .await
            .is_ok()
    {
        return Err(SupersededProxy);
    }
    let applied = shared.apply_routes(snapshot).await;
    Ok(applied
        .map_err(ControlRequestError::from)
        .and_then(|accepted| json_response(&accepted)))
}

/// The counters of this process and its predecessors.
async fn collect_counters(shared: &ProxyState) -> Result<ProxyCounters, ControlRequestError> {
    for pid in live_predecessors(shared) {
        let theirs = shared.socket.predecessor_client(pid);
        match tokio::time::timeout(PREDECESSOR_MAX, theirs.counters()).await {
            Ok(Ok(counters)) => {
                shared
                    .registry
                    .replace_inherited(pid, counters.no_route, counters.entries)
            }
            // The process has exited; it has sent its final counters if it could.
            Ok(Err(_)) => retire_predecessor(shared, pid),
            Err(_) => tracing::warn!(pid, "the previous proxy does not report its counters"),
        }
    }
    let reports = tokio::time::timeout(REPORTS_MAX, collect_open_requests(shared)).await;
    let reports = reports.map_err(|_| ControlRequestError::SilentWorker)?;
    Ok(sum_counters(shared, &reports))
}

/// The open requests of each worker; empty for one that has exited.
async fn collect_open_requests(shared: &ProxyState) -> Vec<Vec<OpenRequestReport>> {
    let mut asked = Vec::new();
    for worker in &shared.reports {
        let (sender, report) = oneshot::channel();
        let _ = worker.send(sender).await;
        asked.push(report);
    }
    let mut reports = Vec::new();
    for report in asked {
        reports.push(report.await.unwrap_or_default());
    }
    reports
}

pub(crate) fn sum_counters(
    shared: &ProxyState,
    reports: &[Vec<OpenRequestReport>],
) -> ProxyCounters {
    let others = match shared.is_superseded() {
        true => shared.predecessor_pids(),
        false => Vec::new(),
    };
    let (no_route, entries) = shared.registry.sum_totals(&others, reports);
    ProxyCounters {
        boot: shared.boot.clone(),
        at: jiff::Timestamp::now(),
        no_route,
        held: shared
            .registry
            .held
            .load(std::sync::atomic::Ordering::Relaxed),
        entries,
    }
}

/// The predecessors to ask; none once a successor exists, because it asks them itself.
fn live_predecessors(shared: &ProxyState) -> Vec<u32> {
    match shared.is_superseded() {
        true => Vec::new(),
        false => shared.predecessor_pids(),
    }
}

fn retire_predecessor(shared: &ProxyState, pid: u32) {
    shared.registry.end_inherited(pid);
    shared.forget_predecessor(pid);
}

async fn wait_until_drained(shared: &ProxyState, wait: &DrainRequest) -> u64 {
    let mut before = Vec::new();
    for pid in live_predecessors(shared) {
        let (theirs, wait) = (shared.socket.predecessor_client(pid), wait.clone());
        // A process that has exited has no open requests.
        before.push(tokio::spawn(async move {
            theirs
                .wait_until_drained(&wait)
                .await
                .map_or(0, |it| it.open)
        }));
    }
    let mut open = wait_until_drained_here(shared, wait).await;
    for theirs in before {
        open += theirs.await.unwrap_or(0);
    }
    open
}

async fn wait_until_drained_here(shared: &ProxyState, wait: &DrainRequest) -> u64 {
    let timeout = Duration::from_millis(wait.timeout_ms);
    if !wait.instances.is_empty() {
        let instances = shared.registry.find_instances(&wait.instances);
        let all = async {
            for instance in &instances {
                instance.open.wait_until_zero().await;
            }
        };
        // A timeout is not an error: the response tells how many are open.
        let _ = tokio::time::timeout(timeout, all).await;
        return instances.iter().map(|instance| instance.open.total()).sum();
    }
    let key = ReleaseKey {
        service: wait.service.clone(),
        environment: wait.environment.clone(),
        release: wait.release,
        mirror: false,
    };
    let Some(release) = shared.registry.find_release(&key) else {
        return 0;
    };
    let _ = tokio::time::timeout(timeout, release.open.wait_until_zero()).await;
    release.open.total()
}

/// Sends the sockets to a successor. From now on new routes wait for it.
async fn hand_over_sockets(
    shared: &Arc<ProxyState>,
    handover: &HandoverRequest,
) -> io::Result<HandoverInventory> {
    // Collect the counters of predecessors that exited meanwhile: the successor doesn't know them.
    let _ = collect_counters(shared).await;
    let listeners = shared.listeners.lock().await;
    let inventory = HandoverInventory {
        boot: shared.boot.clone(),
        pid: std::process::id(),
        generation: shared.table.load().generation,
        predecessors: shared.predecessor_pids(),
        listeners: listeners
            .iter_sockets()
            .map(|(listening, _)| listening.clone())
            .collect(),
    };
    let mut descriptors: Vec<_> = listeners
        .iter_sockets()
        .map(|(_, socket)| socket.as_fd())
        .collect();
    descriptors.push(shared.socket.lock.as_fd());
    takeover::send_sockets(&handover.socket, &inventory, &descriptors)?;
    shared.mark_handed_over();
    Ok(inventory)
}

async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, ControlRequestError> {
    let bytes = Limited::new(body, BODY_MAX).collect().await;
    let bytes = bytes.map_err(ControlRequestError::Body)?.to_bytes();
    Ok(serde_json::from_slice(&bytes)?)
}

fn json_response(value: &impl Serialize) -> Result<ControlResponse, ControlRequestError> {
    let bytes = serde_json::to_vec(value)?;
    Ok(Response::new(Full::new(Bytes::from(bytes))))
}

fn error_response(status: StatusCode, why: String) -> ControlResponse {
    let mut answer = Response::new(Full::new(Bytes::from(why)));
    *answer.status_mut() = status;
    answer
}
