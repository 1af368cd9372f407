//! The control socket: routes in, counters out.

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
    Shared,
    client::Control,
    counters::ReleaseKey,
    open::OpenReport,
    protocol::{
        Counters, DrainWait, Drained, Faults, Handover, Health, Inheritance, Inventory, Snapshot,
        Stop,
    },
    takeover,
};

/// No snapshot is larger.
const BODY_MAX: usize = 16 << 20;
/// Somebody who begins a request sends it at once.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A worker reports between two polls of its tasks.
const REPORTS_MAX: Duration = Duration::from_secs(1);
/// A predecessor answers from memory.
const PREDECESSOR_MAX: Duration = Duration::from_secs(1);
/// A successor that doesn't say stop for so long is dead: new routes are taken again.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// The control socket, held by this process.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    inode: u64,
    /// Shared with a successor, so that it holds without a gap.
    lock: OwnedFd,
}

/// Locks and binds the socket; one that nobody answers at any more is replaced.
pub(crate) fn bind(path: &Path) -> io::Result<(Socket, StdListener)> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(takeover::beside(path, "lock"))?;
    if lock.try_lock().is_err() {
        let why = "another proxy is running there (stop it, or start this one to take over)";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    Ok((Socket::new(path, lock.into())?, listener))
}

/// Puts a new socket in the place of the predecessor's, which stays reachable under a name with its pid.
pub(crate) fn replace(
    path: &Path,
    predecessor: u32,
    lock: OwnedFd,
) -> io::Result<(Socket, StdListener)> {
    let aside = takeover::beside(path, &predecessor.to_string());
    let beside = takeover::beside(path, &format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&aside);
    let _ = std::fs::remove_file(&beside);
    let listener = StdListener::bind(&beside)?;
    let socket = Socket::new(&beside, lock)?;
    std::fs::hard_link(path, &aside)?;
    std::fs::rename(&beside, path)?;
    Ok((
        Socket {
            path: path.to_owned(),
            ..socket
        },
        listener,
    ))
}

impl Socket {
    fn new(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        // Whoever can connect decides where requests go.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            inode: std::fs::metadata(path)?.ino(),
            lock,
        })
    }

    /// Whether the name still leads here, and not to a successor.
    pub(crate) fn is_mine(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Removes whatever name leads here.
    pub(crate) fn remove(&self) {
        for path in [
            self.path.clone(),
            takeover::beside(&self.path, &std::process::id().to_string()),
        ] {
            if std::fs::metadata(&path).is_ok_and(|found| found.ino() == self.inode) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// Who answers there now.
    pub(crate) fn successor(&self) -> Control {
        Control::new(&self.path)
    }

    fn predecessor(&self, pid: u32) -> Control {
        Control::new(takeover::beside(&self.path, &pid.to_string()))
    }
}

/// Answers at the socket until this process ends: while it stops, its successor asks for its counts.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, shared.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the control socket can't accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, shared.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "a control connection broke off");
    }
}

type Answer = Response<Full<Bytes>>;

/// The connection is closed without an answer: a successor will give one.
#[derive(Debug, thiserror::Error)]
#[error("ask my successor")]
struct Superseded;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Superseded> {
    let (parts, body) = request.into_parts();
    let outcome = match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/routes") => put_routes(&shared, body).await?,
        (&Method::GET, "/routes") => json(&shared.table.load().snapshot),
        (&Method::GET, "/counters") => counters(&shared).await.and_then(|it| json(&it)),
        (&Method::GET, "/healthz") => json(&health(&shared)),
        (&Method::POST, "/drained") => match read::<DrainWait>(body).await {
            Ok(wait) => json(&Drained {
                open: drained(&shared, &wait).await,
            }),
            Err(why) => Err(why),
        },
        (&Method::POST, "/faults") => read::<Faults>(body).await.and_then(|faults| {
            shared.faults.store(Arc::new(faults.faults.clone()));
            json(&faults)
        }),
        (&Method::POST, "/stop") => match read::<Stop>(body).await {
            Ok(stop) => {
                shared.stop(stop.grace()).await;
                json(&serde_json::json!({ "stopping": true }))
            }
            Err(why) => Err(why),
        },
        (&Method::POST, "/handover") => match read::<Handover>(body).await {
            Ok(handover) => match hand_over(&shared, &handover).await {
                Ok(inventory) => json(&inventory),
                Err(error) => Err(error.to_string()),
            },
            Err(why) => Err(why),
        },
        (&Method::POST, "/inherit") => read::<Inheritance>(body).await.and_then(|it| {
            shared
                .registry
                .inherit(it.pid, it.counters.no_route, it.counters.entries);
            buried(&shared, it.pid);
            json(&serde_json::json!({ "inherited": true }))
        }),
        _ => {
            let known = "PUT or GET /routes, GET /counters, GET /healthz, POST /drained, POST /faults, POST /stop";
            return Ok(refused(StatusCode::NOT_FOUND, known.to_owned()));
        }
    };
    Ok(outcome.unwrap_or_else(|why| refused(StatusCode::BAD_REQUEST, why)))
}

fn health(shared: &Shared) -> Health {
    Health {
        status: "ok".to_owned(),
        boot: shared.boot.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: shared.listen.iter().map(ToString::to_string).collect(),
        unreachable_ports: shared.unreachable_ports(),
        pid: std::process::id(),
    }
}

async fn put_routes(
    shared: &Arc<Shared>,
    body: Incoming,
) -> Result<Result<Answer, String>, Superseded> {
    let snapshot = match read::<Snapshot>(body).await {
        Ok(snapshot) => snapshot,
        Err(why) => return Ok(Err(why)),
    };
    let deadline = shared.handed_over().map(|at| at + HANDOVER_MAX);
    if let Some(deadline) = deadline
        && tokio::time::timeout_at(deadline.into(), shared.stopping.cancelled())
            .await
            .is_ok()
    {
        return Err(Superseded);
    }
    let put = shared.put(snapshot).await;
    Ok(put.and_then(|accepted| json(&accepted)))
}

/// The counts of this process and all before it.
async fn counters(shared: &Shared) -> Result<Counters, String> {
    for pid in to_be_asked(shared) {
        let theirs = shared.socket.predecessor(pid);
        match tokio::time::timeout(PREDECESSOR_MAX, theirs.counters()).await {
            Ok(Ok(counters)) => shared
                .registry
                .inherit(pid, counters.no_route, counters.entries),
            // It ended, and has said its last counts if it could.
            Ok(Err(_)) => buried(shared, pid),
            Err(_) => tracing::warn!(pid, "the proxy before this one does not say its counts"),
        }
    }
    let reports = tokio::time::timeout(REPORTS_MAX, open_reports(shared)).await;
    let reports = reports.map_err(|_| "a worker does not report its open requests".to_owned())?;
    Ok(totals(shared, &reports))
}

/// What each worker has open; nothing of one that has ended.
async fn open_reports(shared: &Shared) -> Vec<Vec<OpenReport>> {
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

pub(crate) fn totals(shared: &Shared, reports: &[Vec<OpenReport>]) -> Counters {
    let others = match shared.is_superseded() {
        true => shared.predecessors(),
        false => Vec::new(),
    };
    let (no_route, entries) = shared.registry.totals(&others, reports);
    Counters {
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

/// The processes before this one, which a successor asks itself once it is there.
fn to_be_asked(shared: &Shared) -> Vec<u32> {
    match shared.is_superseded() {
        true => Vec::new(),
        false => shared.predecessors(),
    }
}

fn buried(shared: &Shared, pid: u32) {
    shared.registry.bury(pid);
    shared.forget_predecessor(pid);
}

async fn drained(shared: &Shared, wait: &DrainWait) -> u64 {
    let mut before = Vec::new();
    for pid in to_be_asked(shared) {
        let (theirs, wait) = (shared.socket.predecessor(pid), wait.clone());
        // One that ended has nothing open.
        before.push(tokio::spawn(async move {
            theirs.drained(&wait).await.map_or(0, |it| it.open)
        }));
    }
    let mut open = drained_here(shared, wait).await;
    for theirs in before {
        open += theirs.await.unwrap_or(0);
    }
    open
}

async fn drained_here(shared: &Shared, wait: &DrainWait) -> u64 {
    let timeout = Duration::from_millis(wait.timeout_ms);
    if !wait.instances.is_empty() {
        let instances = shared.registry.instances_named(&wait.instances);
        let all = async {
            for instance in &instances {
                instance.open.none().await;
            }
        };
        // Over time is no error: the answer says what is left.
        let _ = tokio::time::timeout(timeout, all).await;
        return instances.iter().map(|instance| instance.open.get()).sum();
    }
    let key = ReleaseKey {
        service: wait.service.clone(),
        environment: wait.environment.clone(),
        release: wait.release,
        mirror: false,
    };
    let Some(release) = shared.registry.release_named(&key) else {
        return 0;
    };
    let _ = tokio::time::timeout(timeout, release.open.none()).await;
    release.open.get()
}

/// Sends the sockets to a successor; from now on new routes wait for it.
async fn hand_over(shared: &Arc<Shared>, handover: &Handover) -> io::Result<Inventory> {
    // Whoever ended meanwhile is ours to tell of.
    let _ = counters(shared).await;
    let listeners = shared.listeners.lock().await;
    let inventory = Inventory {
        boot: shared.boot.clone(),
        pid: std::process::id(),
        generation: shared.table.load().generation,
        predecessors: shared.predecessors(),
        listeners: listeners
            .all()
            .map(|(listening, _)| listening.clone())
            .collect(),
    };
    let mut descriptors: Vec<_> = listeners.all().map(|(_, socket)| socket.as_fd()).collect();
    descriptors.push(shared.socket.lock.as_fd());
    takeover::give(&handover.socket, &inventory, &descriptors)?;
    shared.hand_over();
    Ok(inventory)
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let bytes = Limited::new(body, BODY_MAX).collect().await;
    let bytes = bytes.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn json(value: &impl Serialize) -> Result<Answer, String> {
    let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    Ok(Response::new(Full::new(Bytes::from(bytes))))
}

fn refused(status: StatusCode, why: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(why)));
    *answer.status_mut() = status;
    answer
}
