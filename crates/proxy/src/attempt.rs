//! One attempt: sends a request to one instance and waits for the head of the response.
//!
//! # Invariants
//!
//! - A request is sent again when nothing of it was sent; and once more when the connection closed before the first byte of a
//!   response, if it is a GET or HEAD without a body (RFC 9110, 9.2.1: these change nothing).
//!
//! # Failure modes
//!
//! - An instance that refuses connections is ejected: it is used only if no other instance is left.
//! - A task connects to it again with increasing pauses and readmits it once that succeeds.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    ProxyState,
    connection_pool::{ConnectionKind, ConnectionPool, InstanceConnection, RetrySafety},
    counter_registry::InstanceState,
    open_requests::OpenRequest,
    request::ValidatedRequest,
    request_body::{RequestBody, UploadProgress},
};

/// First and last pause between two attempts to connect to an ejected instance; it doubles in between.
const PROBE_FIRST: Duration = Duration::from_millis(25);
const PROBE_LAST: Duration = Duration::from_secs(2);
/// An instance that takes longer to accept a connection stays ejected.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Why an instance gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// The request is back in `ValidatedRequest` and may go to another instance.
    #[error("nothing was sent")]
    NotSent,
    /// The connection closed before any byte of a response. If the request may be sent again, it is back in `ValidatedRequest`.
    #[error("the connection ended before a response: {0}")]
    ClosedBeforeResponse(String),
    /// The request was sent, or may have been.
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no response in time")]
    TimedOut,
    #[error("the client aborted before its request was complete")]
    ClientGone,
}

/// Sends the request to the instance that `open` was started at.
pub(crate) async fn send_attempt(
    shared: &Arc<ProxyState>,
    pool: &ConnectionPool,
    open: &OpenRequest,
    validated: &mut ValidatedRequest,
) -> Result<(Response<Incoming>, InstanceConnection), AttemptError> {
    let Some(mut request) = validated.take_for_route(open.route()) else {
        return Err(AttemptError::ClientGone);
    };
    let instance = open.instance();
    let limit = Duration::from_millis(open.route().config.timeout_ms);
    let kind = if validated.upgrade.is_some() {
        ConnectionKind::Upgradable
    } else {
        ConnectionKind::Plain
    };
    let is_harmless = kind == ConnectionKind::Plain
        && validated.upload.is_none()
        && matches!(*request.method(), Method::GET | Method::HEAD);
    let retry = if is_harmless {
        RetrySafety::Safe
    } else {
        RetrySafety::Unsafe
    };
    if kind == ConnectionKind::Plain
        && let Some(upstream) = pool.take(instance.address, retry, Instant::now())
    {
        match send_with_retry(upstream, request, validated, limit, retry).await {
            Err(AttemptError::NotSent) => {}
            Err(AttemptError::ClosedBeforeResponse(_)) if validated.outgoing.is_some() => {}
            outcome => return outcome,
        }
        open.backend().counters.record_retry(open.worker());
        request = validated.outgoing.take().ok_or(AttemptError::ClientGone)?;
    }
    match InstanceConnection::connect(instance.address, kind).await {
        Ok(upstream) => send_with_retry(upstream, request, validated, limit, retry).await,
        Err(error) => {
            tracing::debug!(%error, instance = instance.id, "an instance can't be reached");
            validated.outgoing = Some(request);
            eject_instance(shared, instance);
            Err(AttemptError::NotSent)
        }
    }
}

/// Sends the request. If the connection closes before a response and the request may be sent again, it is back in
/// `ValidatedRequest`.
async fn send_with_retry(
    upstream: InstanceConnection,
    request: Request<RequestBody>,
    validated: &mut ValidatedRequest,
    limit: Duration,
    retry: RetrySafety,
) -> Result<(Response<Incoming>, InstanceConnection), AttemptError> {
    let copy = (retry == RetrySafety::Safe && !validated.is_repeated)
        .then(|| clone_without_body(&request));
    let outcome = send_once(upstream, request, validated, limit).await;
    if let (Err(AttemptError::ClosedBeforeResponse(_)), Some(copy)) = (&outcome, copy) {
        validated.outgoing = Some(copy);
        validated.is_repeated = true;
    }
    outcome
}

async fn send_once(
    mut upstream: InstanceConnection,
    request: Request<RequestBody>,
    validated: &mut ValidatedRequest,
    limit: Duration,
) -> Result<(Response<Incoming>, InstanceConnection), AttemptError> {
    let sent = match &validated.upload {
        None => tokio::time::timeout(limit, upstream.send_request(request))
            .await
            .ok(),
        Some(progress) => {
            upstream.detach();
            timeout_without_progress(limit, progress, upstream.send_request(request)).await
        }
    };
    match sent {
        Some(Ok(answer)) => Ok((answer, upstream)),
        Some(Err(mut error)) => {
            validated.outgoing = error.take_message();
            if validated.outgoing.is_some() {
                return Err(AttemptError::NotSent);
            }
            if validated
                .upload
                .as_ref()
                .is_some_and(|upload| upload.broken.get())
            {
                return Err(AttemptError::ClientGone);
            }
            let why = error.into_error().to_string();
            Err(if upstream.has_received_bytes() {
                AttemptError::Broken(why)
            } else {
                AttemptError::ClosedBeforeResponse(why)
            })
        }
        None => Err(AttemptError::TimedOut),
    }
}

/// A timeout that restarts while the upload makes progress.
async fn timeout_without_progress<T>(
    limit: Duration,
    upload: &Rc<UploadProgress>,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let mut sent = std::pin::pin!(sent);
    let mut seen = None;
    loop {
        let now = (upload.bytes.get(), upload.complete.get());
        if seen == Some(now) {
            return None;
        }
        seen = Some(now);
        if let Ok(done) = tokio::time::timeout(limit, &mut sent).await {
            return Some(done);
        }
    }
}

/// Clones a request that has no body.
fn clone_without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::None);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    copy
}

/// Ejects the instance, and starts the task that readmits it once it accepts connections or is in no route any more.
fn eject_instance(shared: &Arc<ProxyState>, instance: &Arc<InstanceState>) {
    if instance.ejected.swap(true, Relaxed) {
        return;
    }
    let (shared, instance) = (shared.clone(), instance.clone());
    spawn_local(async move {
        let mut pause = PROBE_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            let routed = shared
                .table
                .load()
                .instances()
                .any(|it| Arc::ptr_eq(it, &instance));
            let connected = TcpStream::connect(instance.address);
            let well =
                routed && matches!(tokio::time::timeout(PROBE_MAX, connected).await, Ok(Ok(_)));
            if well || !routed {
                instance.ejected.store(false, Relaxed);
                shared.wake_held_requests();
                return;
            }
            pause = (pause * 2).min(PROBE_LAST);
        }
    });
}
