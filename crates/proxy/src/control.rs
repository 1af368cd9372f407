//! The control socket: routes in, counters out.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{UnixListener, UnixStream};

use crate::{
    Shared,
    protocol::{Accepted, Counters, DrainWait, Drained, Health, Snapshot, Stop},
};

/// No snapshot is larger.
const BODY_MAX: usize = 16 << 20;

/// Answers at the socket until the proxy stops.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, shared.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the control socket can't accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, shared.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a control connection broke off");
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    Ok(match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/routes") => match read::<Snapshot>(body).await {
            Ok(snapshot) => match shared.accept(snapshot) {
                Ok(generation) => json(&Accepted { generation }),
                Err(why) => refused(StatusCode::BAD_REQUEST, why),
            },
            Err(why) => refused(StatusCode::BAD_REQUEST, why),
        },
        (&Method::GET, "/routes") => json(&shared.table.load().snapshot),
        (&Method::GET, "/counters") => json(&counters(&shared)),
        (&Method::GET, "/healthz") => json(&Health {
            status: "ok".to_owned(),
            boot: shared.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: shared.listen.iter().map(ToString::to_string).collect(),
            pid: std::process::id(),
        }),
        (&Method::POST, "/drained") => match read::<DrainWait>(body).await {
            Ok(wait) => json(&Drained {
                open: drained(&shared, &wait).await,
            }),
            Err(why) => refused(StatusCode::BAD_REQUEST, why),
        },
        (&Method::POST, "/stop") => match read::<Stop>(body).await {
            Ok(stop) => {
                shared.stop(stop.grace());
                json(&serde_json::json!({ "stopping": true }))
            }
            Err(why) => refused(StatusCode::BAD_REQUEST, why),
        },
        _ => refused(
            StatusCode::NOT_FOUND,
            "PUT /routes, GET /routes, GET /counters, POST /drained, GET /healthz, POST /stop"
                .to_owned(),
        ),
    })
}

fn counters(shared: &Shared) -> Counters {
    use std::sync::atomic::Ordering::Relaxed;
    Counters {
        boot: shared.boot.clone(),
        at: shared.now(),
        no_route: shared.registry.no_route.load(Relaxed),
        held: shared.registry.held.load(Relaxed),
        entries: shared.registry.entries(),
    }
}

async fn drained(shared: &Shared, wait: &DrainWait) -> u64 {
    let Some(release) =
        shared
            .registry
            .release_named(&wait.service, &wait.environment, wait.release)
    else {
        return 0;
    };
    let timeout = Duration::from_millis(wait.timeout_ms);
    if wait.instances.is_empty() {
        let _ = tokio::time::timeout(timeout, release.open.none()).await;
        return release.open.get();
    }
    let instances = shared.registry.instances_named(&wait.instances);
    let all = async {
        for instance in &instances {
            instance.open.none().await;
        }
    };
    let _ = tokio::time::timeout(timeout, all).await;
    instances.iter().map(|instance| instance.open.get()).sum()
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let bytes = Limited::new(body, BODY_MAX)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => Response::new(Full::new(Bytes::from(bytes))),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn refused(status: StatusCode, why: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(why)));
    *answer.status_mut() = status;
    answer
}

/// Binds the socket; one that nobody answers at any more is replaced.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                "another proxy answers there",
            ));
        }
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}
