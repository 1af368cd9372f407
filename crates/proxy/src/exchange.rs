//! One attempt: a request goes to one instance, and the head of its answer comes back.
//!
//! Trip: an instance that can't be connected to is ejected, and asked again only when nobody else is there. Recovery: it is
//! connected to after a while, again and again with growing pauses, and readmitted when that works. A request is sent again when
//! nothing of it was sent; and once, when the connection ended before a byte of the answer came, if it is a GET or HEAD without a
//! body (RFC 9110, 9.2.1: these change nothing).

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    Shared,
    asked::Asked,
    body::{Progress, Upload},
    counters::InstanceState,
    open::OpenRequest,
    upstream::{Again, Kind, Link, Pool},
};

/// An instance that can't be connected to is tried again after this pause; it doubles up to the last.
const PROBE_FIRST: Duration = Duration::from_millis(25);
const PROBE_LAST: Duration = Duration::from_secs(2);
/// An instance that takes longer to accept a connection is not well yet.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Why an instance gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The request is back in `Asked` and may go elsewhere.
    #[error("nothing was sent")]
    Unsent,
    /// The connection ended before anything of an answer came. When the request may be sent again, it is back in `Asked`.
    #[error("the connection ended before an answer: {0}")]
    Died(String),
    /// Something was sent, or may have been.
    #[error("the connection broke: {0}")]
    Broke(String),
    #[error("no answer in time")]
    Late,
    #[error("the client broke off before all of its request was there")]
    ClientGone,
}

/// Sends the request to the instance it is open at.
pub(crate) async fn exchange(
    shared: &Arc<Shared>,
    pool: &Pool,
    open: &OpenRequest,
    asked: &mut Asked,
) -> Result<(Response<Incoming>, Link), Failed> {
    let Some(mut request) = asked.aimed_at(open.lane()) else {
        return Err(Failed::ClientGone);
    };
    let instance = open.instance();
    let limit = Duration::from_millis(open.lane().route.timeout_ms);
    let kind = if asked.upgrade.is_some() {
        Kind::Upgradable
    } else {
        Kind::Plain
    };
    let is_harmless = kind == Kind::Plain
        && asked.upload.is_none()
        && matches!(*request.method(), Method::GET | Method::HEAD);
    let again = if is_harmless { Again::Yes } else { Again::No };
    if kind == Kind::Plain
        && let Some(link) = pool.take(instance.address, again, Instant::now())
    {
        match repeatable(link, request, asked, limit, again).await {
            Err(Failed::Unsent) => {}
            Err(Failed::Died(_)) if asked.request.is_some() => {}
            outcome => return outcome,
        }
        open.side().counters.retry(open.worker());
        request = asked.request.take().ok_or(Failed::ClientGone)?;
    }
    match Link::connect(instance.address, kind).await {
        Ok(link) => repeatable(link, request, asked, limit, again).await,
        Err(error) => {
            tracing::debug!(%error, instance = instance.id, "an instance can't be reached");
            asked.request = Some(request);
            eject(shared, instance);
            Err(Failed::Unsent)
        }
    }
}

/// Sends the request. When the instance dies before it answers, the request is back in `Asked` if it may be sent again.
async fn repeatable(
    link: Link,
    request: Request<Upload>,
    asked: &mut Asked,
    limit: Duration,
    again: Again,
) -> Result<(Response<Incoming>, Link), Failed> {
    let copy = (again == Again::Yes && !asked.is_repeated).then(|| copy_of(&request));
    let outcome = over(link, request, asked, limit).await;
    if let (Err(Failed::Died(_)), Some(copy)) = (&outcome, copy) {
        asked.request = Some(copy);
        asked.is_repeated = true;
    }
    outcome
}

async fn over(
    mut link: Link,
    request: Request<Upload>,
    asked: &mut Asked,
    limit: Duration,
) -> Result<(Response<Incoming>, Link), Failed> {
    let sent = match &asked.upload {
        None => tokio::time::timeout(limit, link.send(request)).await.ok(),
        Some(progress) => {
            link.detach();
            patiently(limit, progress, link.send(request)).await
        }
    };
    match sent {
        Some(Ok(answer)) => Ok((answer, link)),
        Some(Err(mut error)) => {
            asked.request = error.take_message();
            if asked.request.is_some() {
                return Err(Failed::Unsent);
            }
            if asked
                .upload
                .as_ref()
                .is_some_and(|upload| upload.broken.get())
            {
                return Err(Failed::ClientGone);
            }
            let why = error.into_error().to_string();
            Err(if link.has_received() {
                Failed::Broke(why)
            } else {
                Failed::Died(why)
            })
        }
        None => Err(Failed::Late),
    }
}

/// Like a timeout, but an upload that gets on is given time.
async fn patiently<T>(
    limit: Duration,
    upload: &Rc<Progress>,
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

/// The same request, for a second try; it has no body.
fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::None);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    copy
}

/// Marks the instance, and has one task connect to it until that works or it is in no route any more.
fn eject(shared: &Arc<Shared>, instance: &Arc<InstanceState>) {
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
                shared.wake();
                return;
            }
            pause = (pause * 2).min(PROBE_LAST);
        }
    });
}
