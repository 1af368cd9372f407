//! Mirrors requests: copies are sent to a release that gets no users yet, the responses are discarded and counted separately.
//!
//! # Invariants
//!
//! - A copy never delays or fails the user's request: it runs as a task of its own.
//! - At most [`COPIES_MAX`] copies are in flight per worker. Beyond that, and for bodies that are too large or late, no copy is
//!   sent, and that is counted.
//! - An unreachable instance is not ejected here: only users' requests decide that.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
};
use tokio::task::spawn_local;

use crate::{
    connection_pool::{ConnectionKind, ConnectionPool, InstanceConnection, RetrySafety},
    counter_registry::InstanceState,
    open_requests::OpenRequest,
    protocol::MirroredMethods,
    release_counters::{CompletedResponse, ReleaseCounters, WorkerIndex},
    request::ValidatedRequest,
    request_body::RequestBody,
    route_table::CompiledRoute,
};

/// Limit of copies in flight per worker; a release that is too slow for more would only be overloaded.
const COPIES_MAX: u32 = 64;
/// Timeout of a copy, counted as a gateway timeout.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of a response that are read so that its connection can be reused.
const DISCARDED_MAX: u64 = 1 << 20;
/// Tells the release that the response is discarded.
const MARK: HeaderName = HeaderName::from_static("x-shipway-mirror");

/// Sends the copies of one worker.
#[derive(Debug, Default)]
pub(crate) struct MirrorSender {
    in_flight: Rc<Cell<u32>>,
}

/// A copy that waits for its body.
pub(crate) struct MirrorCopy {
    request: Request<RequestBody>,
    sending: CopyInFlight,
}

/// Counts a copy as in flight until it is dropped.
struct CopyInFlight {
    in_flight: Rc<Cell<u32>>,
    instance: Arc<InstanceState>,
    counters: Arc<ReleaseCounters>,
    worker: WorkerIndex,
}

impl Drop for CopyInFlight {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.instance.open.decrement(self.worker);
        self.counters.open.decrement(self.worker);
    }
}

impl MirrorSender {
    /// Copies a request that is about to be forwarded. Without a body the copy is sent at once; otherwise the body is copied
    /// while it is forwarded, and [`MirrorSender::send_with_body`] sends it.
    pub(crate) fn start_copy(
        &self,
        open: &OpenRequest,
        validated: &mut ValidatedRequest,
        pool: &ConnectionPool,
        turn: usize,
        random: impl FnOnce() -> u64,
    ) -> Option<MirrorCopy> {
        let route = open.route().clone();
        let mirror = route.mirror.as_ref()?;
        let is_its_own = open.backend().release == route.backends[mirror.backend].release;
        let drawn = random() % u64::from(crate::protocol::FULL) < u64::from(mirror.share);
        if is_its_own || !drawn {
            return None;
        }
        let worker = open.worker();
        let copied = self.prepare_copy(&route, validated, worker, turn);
        let Some(copy) = copied else {
            mirror.counters.record_not_copied(worker);
            return None;
        };
        let Some(upload) = &validated.upload else {
            spawn_local(copy.send_and_discard(pool.clone(), copy_timeout(&route)));
            return None;
        };
        upload.start_copy();
        Some(copy)
    }

    fn prepare_copy(
        &self,
        route: &CompiledRoute,
        validated: &mut ValidatedRequest,
        worker: WorkerIndex,
        turn: usize,
    ) -> Option<MirrorCopy> {
        let mirror = route.mirror.as_ref()?;
        let method = validated.outgoing.as_ref()?.method();
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            && validated.upload.is_none();
        let wanted = is_safe || mirror.methods == MirroredMethods::All;
        if !wanted || validated.upgrade.is_some() || self.in_flight.get() >= COPIES_MAX {
            return None;
        }
        let backend = &route.backends[mirror.backend];
        let instance = backend.instances[backend.pick_instance(worker, turn, &[])?].clone();
        let request = validated.take_for_route(route)?;
        let mut copy = Request::new(RequestBody::None);
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        validated.outgoing = Some(request);
        copy.headers_mut()
            .insert(MARK, HeaderValue::from_static("1"));
        self.in_flight.set(self.in_flight.get() + 1);
        instance.open.increment(worker);
        mirror.counters.open.increment(worker);
        let sending = CopyInFlight {
            in_flight: self.in_flight.clone(),
            instance,
            counters: mirror.counters.clone(),
            worker,
        };
        Some(MirrorCopy {
            request: copy,
            sending,
        })
    }

    /// Sends a copy whose body is complete; drops it if the body was too large or is incomplete.
    pub(crate) fn send_with_body(
        copy: Option<MirrorCopy>,
        route: &CompiledRoute,
        validated: &ValidatedRequest,
        pool: &ConnectionPool,
    ) {
        let Some(mut copy) = copy else { return };
        let Some(body) = validated
            .upload
            .as_ref()
            .and_then(|upload| upload.take_copy())
        else {
            copy.sending.counters.record_not_copied(copy.sending.worker);
            return;
        };
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
            copy.request.headers_mut().remove(name);
        }
        *copy.request.body_mut() = RequestBody::Copy(Some(body));
        spawn_local(copy.send_and_discard(pool.clone(), copy_timeout(route)));
    }
}

fn copy_timeout(route: &CompiledRoute) -> Duration {
    Duration::from_millis(route.config.timeout_ms).min(ANSWER_MAX)
}

impl MirrorCopy {
    async fn send_and_discard(self, pool: ConnectionPool, limit: Duration) {
        let Self { request, sending } = self;
        let started_at = Instant::now();
        let bytes_in = match request.body() {
            RequestBody::Copy(Some(body)) => body.len() as u64,
            RequestBody::Copy(None) | RequestBody::None | RequestBody::Client(..) => 0,
        };
        let validated = send_copy(&pool, &sending.instance, request);
        let (status, bytes_out, answered) = match tokio::time::timeout(limit, validated).await {
            Ok(Some((status, bytes))) => (status, bytes, true),
            Ok(None) => (StatusCode::BAD_GATEWAY, 0, false),
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, 0, false),
        };
        if !answered {
            sending.counters.record_proxy_error(sending.worker);
        }
        let answered = CompletedResponse {
            status: status.as_u16(),
            took: started_at.elapsed(),
            is_late: false,
            bytes_in,
            bytes_out,
        };
        sending.counters.record_response(sending.worker, &answered);
    }
}

/// Status and size of the response; `None` if it was not complete.
async fn send_copy(
    pool: &ConnectionPool,
    instance: &InstanceState,
    request: Request<RequestBody>,
) -> Option<(StatusCode, u64)> {
    let is_alone = matches!(request.body(), RequestBody::None);
    // A pooled connection may have been closed; a request that can't be sent again gets a new one.
    if is_alone
        && let Some(upstream) = pool.take(instance.address, RetrySafety::Safe, Instant::now())
    {
        let mut again = Request::new(RequestBody::None);
        request.method().clone_into(again.method_mut());
        request.uri().clone_into(again.uri_mut());
        request.headers().clone_into(again.headers_mut());
        if let Some(answer) = read_response(pool, instance, upstream, again).await {
            return Some(answer);
        }
    }
    let mut upstream = InstanceConnection::connect(instance.address, ConnectionKind::Plain)
        .await
        .ok()?;
    if !is_alone {
        upstream.detach();
    }
    read_response(pool, instance, upstream, request).await
}

async fn read_response(
    pool: &ConnectionPool,
    instance: &InstanceState,
    mut upstream: InstanceConnection,
    request: Request<RequestBody>,
) -> Option<(StatusCode, u64)> {
    let answer = upstream.send_request(request).await.ok()?;
    let (status, mut body) = (answer.status(), answer.into_body());
    let mut bytes = 0;
    loop {
        let frame = std::future::poll_fn(|cx| upstream.poll_frame(&mut body, cx)).await;
        match frame {
            None => break,
            Some(Ok(frame)) => {
                bytes += frame.data_ref().map_or(0, |data: &Bytes| data.len() as u64)
            }
            Some(Err(_)) => return None,
        }
        if bytes > DISCARDED_MAX {
            // The status is known; the rest is not worth reading.
            return Some((status, bytes));
        }
    }
    pool.return_connection(instance.address, upstream);
    Some((status, bytes))
}
