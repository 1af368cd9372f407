//! Forwards one request: finds its route, chooses a release and an instance, sends, counts. An attempt that failed before
//! anything was sent is repeated on another instance, or the request is held until an instance is available.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE,
        UPGRADE,
    },
};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    ProxyState,
    access_log::{AccessLog, AccessLogLine},
    attempt::{AttemptError, send_attempt},
    client_connection::{BusyGuard, ClientConnection},
    connection_pool::{ConnectionPool, InstanceConnection},
    counter_registry::InstanceState,
    headers::{request_id, strip_hop_by_hop},
    mirror::{MirrorCopy, MirrorSender},
    open_requests::{OpenRequest, OpenRequests},
    protocol::FaultEffect,
    release_counters::{CompletedResponse, WorkerIndex},
    request::{RequestRejection, ValidatedRequest},
    response_body::{ResponseBody, ResponseRecord},
    route_table::CompiledRoute,
    tunnel,
};

/// Limit of held requests; further ones get 503, so that a long outage uses bounded memory.
const HELD_MAX: u64 = 1_024;

/// A response: an instance's, or a text of the proxy's.
pub(crate) type ProxyResponse = Response<Either<ResponseBody, Full<Bytes>>>;

/// A fault injection closes the client's connection.
#[derive(Debug, thiserror::Error)]
#[error("a drill cuts this connection")]
pub(crate) struct DrillReset;

/// State shared by the requests of one worker.
pub(crate) struct RequestForwarder {
    pub(crate) shared: Arc<ProxyState>,
    pub(crate) worker: WorkerIndex,
    pub(crate) pool: ConnectionPool,
    pub(crate) log: Option<AccessLog>,
    /// The worker is stopping: responses ask clients to close their connections.
    pub(crate) stopping: Cell<bool>,
    /// Tasks that outlive their request.
    pub(crate) tasks: TaskTracker,
    mirror: MirrorSender,
    pub(crate) open: Rc<OpenRequests>,
    turn: Cell<usize>,
    random: Cell<u64>,
}

/// Where a request is sent.
enum ForwardTarget {
    Instance {
        open: OpenRequest,
        cookies: NewCookies,
    },
    /// The route has no instance that could be tried.
    NoInstance(Arc<CompiledRoute>, usize, Option<u32>),
    /// Redirect to the path with a trailing slash, below which relative links lead to the service.
    Redirect(HeaderValue),
    NoRoute,
}

/// The cookies to set: of the user, and of the instance that the user is kept on.
type NewCookies = [Option<HeaderValue>; 2];

impl RequestForwarder {
    pub(crate) fn new(
        shared: Arc<ProxyState>,
        worker: WorkerIndex,
        log: Option<AccessLog>,
    ) -> Self {
        let seed = shared.seed ^ (worker as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            shared,
            worker,
            pool: ConnectionPool::default(),
            log,
            stopping: Cell::new(false),
            tasks: TaskTracker::new(),
            mirror: MirrorSender::default(),
            open: Rc::default(),
            turn: Cell::new(0),
            random: Cell::new(seed | 1),
        }
    }

    /// Answers a request; failures are responses too.
    pub(crate) async fn handle_request(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ClientConnection>,
    ) -> Result<ProxyResponse, DrillReset> {
        let busy = BusyGuard::new(connection.clone());
        let version = request.version();
        let mut answer =
            match ValidatedRequest::new(request, &connection.client, || self.next_random()) {
                Ok(validated) => self.forward_request(validated, connection, busy).await?,
                Err(refusal) => rejection_response(refusal),
            };
        let is_http1 = version < Version::HTTP_2;
        if self.stopping.get() && is_http1 && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn forward_request(
        &self,
        mut validated: ValidatedRequest,
        connection: &Rc<ClientConnection>,
        busy: BusyGuard,
    ) -> Result<ProxyResponse, DrillReset> {
        let (mut tried, mut died) = (Vec::new(), None);
        let mut attempts = AttemptHistory::default();
        loop {
            // No await between loading the table and `OpenRequest::start`: see `ProxyState::settled`.
            let (open, cookies) =
                match self.choose_target(&validated, connection, &tried, died.as_ref()) {
                    ForwardTarget::Instance { open, cookies } => (open, cookies),
                    ForwardTarget::NoRoute => return Ok(self.no_route_response()),
                    ForwardTarget::Redirect(location) => return Ok(redirect_response(location)),
                    ForwardTarget::NoInstance(route, backend, user) => {
                        let unavailable = (&route, backend, user);
                        let held = self
                            .hold_request(&validated, unavailable, &mut attempts)
                            .await;
                        match held {
                            HoldOutcome::CheckAgain => continue,
                            HoldOutcome::RoutesChanged => {
                                tried.clear();
                                continue;
                            }
                            HoldOutcome::Expired => {
                                return Ok(self.no_instance_response(
                                    &validated,
                                    &route,
                                    (backend, user),
                                    &attempts,
                                ));
                            }
                        }
                    }
                };
            if let Some(answer) = self.apply_faults(&open, &mut attempts).await? {
                return Ok(answer);
            }
            let copy = self.start_copy(&open, &mut validated, &attempts);
            attempts.made = true;
            open.set_log_line(self.access_log_line(&validated));
            match send_attempt(&self.shared, &self.pool, &open, &mut validated).await {
                Ok((answer, upstream)) => {
                    MirrorSender::send_with_body(copy, open.route(), &validated, &self.pool);
                    return Ok(
                        self.build_response(answer, upstream, open, validated, cookies, busy)
                    );
                }
                Err(AttemptError::NotSent) => {
                    open.backend().counters.record_retry(self.worker);
                    open.mark_repeated();
                    tried.push(open.instance().clone());
                }
                Err(AttemptError::ClosedBeforeResponse(_)) if validated.outgoing.is_some() => {
                    open.backend().counters.record_retry(self.worker);
                    open.mark_repeated();
                    died = Some(open.instance().clone());
                }
                Err(failed) => return Ok(failure_response(&failed, open)),
            }
        }
    }

    /// Holds a request that no instance can take now. If this is cancelled, the client went away and the request is counted as
    /// abandoned.
    async fn hold_request(
        &self,
        validated: &ValidatedRequest,
        (route, backend, user): (&Arc<CompiledRoute>, usize, Option<u32>),
        attempts: &mut AttemptHistory,
    ) -> HoldOutcome {
        let guard = HeldRequestGuard::new(route, backend, self.worker, user, validated.started_at);
        let outcome = attempts.wait_for_instance(&self.shared, route).await;
        guard.finish();
        outcome
    }

    fn no_route_response(&self) -> ProxyResponse {
        self.shared.registry.no_route.fetch_add(1, Relaxed);
        text_response(StatusCode::NOT_FOUND, "no service at this address\n")
    }

    /// Chooses route, release and instance; the request counts as open when this returns.
    fn choose_target(
        &self,
        validated: &ValidatedRequest,
        connection: &ClientConnection,
        tried: &[Arc<InstanceState>],
        died: Option<&Arc<InstanceState>>,
    ) -> ForwardTarget {
        let table = self.shared.table.load();
        let Some(headers) = validated.headers() else {
            return ForwardTarget::NoRoute;
        };
        let Some(route) = table.find_route(
            connection.port,
            validated.host_name(),
            validated.target.path(),
        ) else {
            return ForwardTarget::NoRoute;
        };
        if let Some(location) = validated.slash_redirect(route) {
            return ForwardTarget::Redirect(location);
        }
        let usable = |backend: usize| !route.backends[backend].instances.is_empty();
        let choice =
            route
                .chooser
                .choose_backend(headers, validated.client, validated.random, usable);
        let backend = choice.map(|choice| choice.backend);
        let user = choice.and_then(|choice| choice.user);
        let turn = self.advance_rotation();
        let is_excluded =
            |it: &Arc<InstanceState>| tried.iter().chain(died).any(|other| Arc::ptr_eq(it, other));
        let picked = route
            .pick_affine_instance(backend, headers, validated.client, is_excluded)
            .or_else(|| route.pick_sibling(backend, self.worker, turn, tried, died))
            .or_else(|| route.pick_instance(backend, self.worker, turn, tried));
        let Some(place) = picked else {
            return ForwardTarget::NoInstance(route.clone(), backend.unwrap_or(0), user);
        };
        let is_new = choice.is_some_and(|choice| choice.new_user);
        let cookie = is_new
            .then(|| route.chooser.sticky_cookie(validated.random))
            .flatten();
        let tag = route.backends[place.backend].instances[place.instance].tag;
        let affinity = route.affinity.as_ref();
        let cookies = [
            cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()),
            affinity.and_then(|it| it.set_cookie(headers, tag)),
        ];
        ForwardTarget::Instance {
            open: OpenRequest::start(
                &self.open,
                route.clone(),
                place,
                self.worker,
                user,
                validated.started_at,
                validated.upload.clone(),
            ),
            cookies,
        }
    }

    /// Starts a copy of the request for the mirrored release; once per request.
    fn start_copy(
        &self,
        open: &OpenRequest,
        validated: &mut ValidatedRequest,
        attempts: &AttemptHistory,
    ) -> Option<MirrorCopy> {
        if open.route().mirror.is_none() || attempts.made {
            return None;
        }
        let turn = self.advance_rotation();
        let random = || self.next_random();
        self.mirror
            .start_copy(open, validated, &self.pool, turn, random)
    }

    /// Applies injected faults; once per request.
    async fn apply_faults(
        &self,
        open: &OpenRequest,
        attempts: &mut AttemptHistory,
    ) -> Result<Option<ProxyResponse>, DrillReset> {
        let faults = self.shared.faults.load();
        if faults.is_empty() || std::mem::replace(&mut attempts.faulted, true) {
            return Ok(None);
        }
        let (route, release) = (&open.route().config, open.backend().release);
        let mine = faults.iter().filter(|fault| {
            fault.release == release
                && fault.service == route.service
                && fault.environment == route.environment
                && self.next_random() % u64::from(crate::protocol::FULL) < u64::from(fault.share)
        });
        let effects: Vec<FaultEffect> = mine.map(|fault| fault.effect).collect();
        drop(faults);
        for effect in effects {
            let status = match effect {
                FaultEffect::LatencyMs(latency) => {
                    tokio::time::sleep(Duration::from_millis(latency)).await;
                    continue;
                }
                FaultEffect::Status(status) => StatusCode::from_u16(status).ok(),
                FaultEffect::Reset => None,
            };
            let counted = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            open.finish_answered(counted.as_u16(), 0);
            let answer =
                status.map(|status| text_response(status, "this failure is part of a drill\n"));
            return answer.ok_or(DrillReset).map(Some);
        }
        Ok(None)
    }

    fn build_response(
        &self,
        mut answer: Response<Incoming>,
        upstream: InstanceConnection,
        open: OpenRequest,
        validated: ValidatedRequest,
        cookies: NewCookies,
        busy: BusyGuard,
    ) -> ProxyResponse {
        open.record_head();
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = if switches {
            answer.headers().get(UPGRADE).cloned()
        } else {
            None
        };
        if switches && (validated.upgrade.is_none() || protocol.is_none()) {
            return failure_response(
                &AttemptError::Broken("an upgrade that was not requested".into()),
                open,
            );
        }
        strip_hop_by_hop(answer.headers_mut());
        for cookie in cookies.into_iter().flatten() {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        *answer.version_mut() = Version::HTTP_11;
        if let (Some(protocol), Some(client)) = (protocol, validated.upgrade) {
            busy.mark_upgraded();
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            answer.headers_mut().insert(UPGRADE, protocol);
            let instance = hyper::upgrade::on(&mut answer);
            self.tasks
                .spawn_local(tunnel::run_tunnel(client, instance, open.for_tunnel()));
        }
        let record = ResponseRecord::new(open, answer.status().as_u16());
        let pool = self.pool.clone();
        answer.map(|body| Either::Left(ResponseBody::new(body, upstream, pool, record, busy)))
    }

    /// The response when no instance was reachable or available within the hold time.
    fn no_instance_response(
        &self,
        validated: &ValidatedRequest,
        route: &Arc<CompiledRoute>,
        (backend, user): (usize, Option<u32>),
        attempts: &AttemptHistory,
    ) -> ProxyResponse {
        let (status, why) = if attempts.made {
            (StatusCode::BAD_GATEWAY, "no instance could be reached\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "no instance is ready\n")
        };
        if let Some(backend) = route.backends.get(backend) {
            let answered = proxy_outcome(status, validated);
            backend.record_response(self.worker, &answered, user);
            backend.counters.record_proxy_error(self.worker);
            if let Some(mut line) = self.access_log_line(validated) {
                line.proxy_error = true;
                line.write_response(&route.config, backend.release, "", &answered);
            }
        }
        let mut answer = text_response(status, why);
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    fn access_log_line(&self, validated: &ValidatedRequest) -> Option<Box<AccessLogLine>> {
        let log = self.log.as_ref()?;
        let request = validated.outgoing.as_ref()?;
        Some(Box::new(AccessLogLine {
            log: log.clone(),
            client: validated.client,
            method: request.method().clone(),
            host: validated.host.clone(),
            path: validated.target.path().to_owned(),
            request_id: request_id(request.headers()),
            proxy_error: false,
        }))
    }

    fn advance_rotation(&self) -> usize {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        turn
    }

    /// xorshift64*: the choice of a release needn't be unpredictable.
    fn next_random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The attempts so far for one request.
#[derive(Default)]
struct AttemptHistory {
    made: bool,
    faulted: bool,
    holding: Option<HoldSlot>,
}

/// A held request. If it is dropped before `finish`, its client went away.
struct HeldRequestGuard<'a> {
    route: &'a CompiledRoute,
    backend: usize,
    worker: WorkerIndex,
    user: Option<u32>,
    started_at: Instant,
    is_over: Cell<bool>,
}

impl<'a> HeldRequestGuard<'a> {
    const fn new(
        route: &'a CompiledRoute,
        backend: usize,
        worker: WorkerIndex,
        user: Option<u32>,
        started_at: Instant,
    ) -> Self {
        Self {
            route,
            backend,
            worker,
            user,
            started_at,
            is_over: Cell::new(false),
        }
    }

    fn finish(&self) {
        self.is_over.set(true);
    }
}

impl Drop for HeldRequestGuard<'_> {
    fn drop(&mut self) {
        if !self.is_over.get()
            && let Some(backend) = self.route.backends.get(self.backend)
        {
            backend.record_abandoned(self.worker, self.started_at.elapsed(), self.user);
        }
    }
}

/// A place among the held requests, see [`HELD_MAX`].
struct HoldSlot {
    changes: watch::Receiver<u64>,
    until: tokio::time::Instant,
    shared: Arc<ProxyState>,
}

enum HoldOutcome {
    /// Subscribed to changes; one may have happened just before.
    CheckAgain,
    RoutesChanged,
    Expired,
}

impl AttemptHistory {
    /// Waits until an instance may be available, for example while `recreate` switches releases.
    async fn wait_for_instance(
        &mut self,
        shared: &Arc<ProxyState>,
        route: &CompiledRoute,
    ) -> HoldOutcome {
        if let Some(holding) = &mut self.holding {
            let changed = tokio::time::timeout_at(holding.until, holding.changes.changed()).await;
            return if matches!(changed, Ok(Ok(()))) {
                HoldOutcome::RoutesChanged
            } else {
                HoldOutcome::Expired
            };
        }
        let limit = Duration::from_millis(route.config.hold_ms);
        if limit.is_zero() || shared.registry.held.fetch_add(1, Relaxed) >= HELD_MAX {
            if !limit.is_zero() {
                shared.registry.held.fetch_sub(1, Relaxed);
            }
            return HoldOutcome::Expired;
        }
        self.holding = Some(HoldSlot {
            changes: shared.changes.subscribe(),
            until: tokio::time::Instant::now() + limit,
            shared: shared.clone(),
        });
        HoldOutcome::CheckAgain
    }
}

impl Drop for HoldSlot {
    fn drop(&mut self) {
        self.shared.registry.held.fetch_sub(1, Relaxed);
    }
}

fn proxy_outcome(status: StatusCode, validated: &ValidatedRequest) -> CompletedResponse {
    CompletedResponse {
        status: status.as_u16(),
        took: Instant::now().duration_since(validated.started_at),
        is_late: false,
        bytes_in: validated
            .upload
            .as_ref()
            .map_or(0, |upload| upload.bytes.get()),
        bytes_out: 0,
    }
}

/// The response on behalf of an instance. Counted as the release's, and as a proxy error unless the client caused it.
fn failure_response(failed: &AttemptError, open: OpenRequest) -> ProxyResponse {
    let (status, why) = match failed {
        AttemptError::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "the service did not respond in time\n",
        ),
        AttemptError::ClientGone => (StatusCode::BAD_REQUEST, "the request was interrupted\n"),
        AttemptError::NotSent | AttemptError::ClosedBeforeResponse(_) | AttemptError::Broken(_) => {
            (
                StatusCode::BAD_GATEWAY,
                "the service closed the connection before it responded\n",
            )
        }
    };
    tracing::debug!(%failed, instance = open.instance().id, "an instance did not respond");
    if status.is_server_error() {
        open.mark_proxy_error();
    }
    open.finish_answered(status.as_u16(), 0);
    text_response(status, why)
}

fn rejection_response(refusal: RequestRejection) -> ProxyResponse {
    let (status, why) = match refusal {
        RequestRejection::Connect => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported\n"),
        RequestRejection::Target => (
            StatusCode::BAD_REQUEST,
            "the request target must be a path or an absolute URL\n",
        ),
        RequestRejection::Host => (
            StatusCode::BAD_REQUEST,
            "a request must have exactly one valid Host\n",
        ),
        RequestRejection::TransferEncoding => (
            StatusCode::NOT_IMPLEMENTED,
            "chunked is the only supported transfer coding\n",
        ),
    };
    let mut answer = text_response(status, why);
    // The start of the next request can't be known for sure.
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// `no-store`: browsers cache permanent redirects forever, but routes change.
fn redirect_response(location: HeaderValue) -> ProxyResponse {
    let mut answer = text_response(
        StatusCode::PERMANENT_REDIRECT,
        "the address ends in a slash\n",
    );
    answer.headers_mut().insert(LOCATION, location);
    let fresh = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, fresh);
    answer
}

fn text_response(status: StatusCode, text: &'static str) -> ProxyResponse {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from_static(
        text.as_bytes(),
    ))));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    answer
}
