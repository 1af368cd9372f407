//! One request: find its route, choose, send, count. What fails before anything was sent is tried elsewhere.

use std::{
    cell::Cell,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, SET_COOKIE, UPGRADE},
};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
};
use hyper_util::rt::TokioIo;

use crate::{
    Shared,
    counters::{InstanceState, ReleaseCounters},
    headers::{add_forwarding, strip_hop_by_hop, wanted_upgrade},
    table::{Choice, Compiled, CompiledBackend, Table},
    upstream::{Pool, connect},
};

/// Requests held at once, waiting for an instance; more are answered 503.
const HELD_MAX: u64 = 1_024;
/// An instance that can't be connected to is not asked for this long at first; doubles up to [`SHUN_MAX_MS`].
const SHUN_FIRST_MS: u64 = 200;
/// The longest such time.
const SHUN_MAX_MS: u64 = 10_000;

/// The body of an answer: an instance's, counted, or a sentence of ours.
pub(crate) type Answer = Response<Either<Counted, Full<Bytes>>>;

/// What a worker's requests share.
pub(crate) struct Forwarder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    turn: Cell<usize>,
    random: Cell<u64>,
}

/// Where a request came in.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) client: IpAddr,
    pub(crate) port: u16,
}

/// Why an instance gave no answer.
enum Failed {
    /// Nothing was sent: the request may go elsewhere.
    Unsent(Box<Request<Incoming>>),
    /// Something was, or may have been.
    Sent(String),
    TimedOut,
}

impl Forwarder {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        Self {
            shared,
            pool: Pool::default(),
            turn: Cell::new(0),
            random: Cell::new(seed | 1),
        }
    }

    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> Result<Answer, Infallible> {
        let begun = Instant::now();
        let host = host_of(&request);
        let table = self.shared.table.load();
        let Some(compiled) = table.find(arrival.port, &host, request.uri().path()) else {
            self.shared.registry.no_route.fetch_add(1, Relaxed);
            return Ok(sentence(
                StatusCode::NOT_FOUND,
                "no service is routed here\n",
            ));
        };
        let compiled = compiled.clone();
        let generation = table.generation;
        drop(table);
        let chosen = compiled.choose(request.headers(), arrival.client, || self.next_random());
        let usable = chosen
            .as_ref()
            .is_some_and(|choice| !compiled.backends[choice.backend].instances.is_empty())
            || fallback(&compiled).is_some();
        if usable {
            return Ok(self
                .send(request, &compiled, chosen, &host, arrival, begun)
                .await);
        }
        Ok(self
            .hold(request, compiled, generation, &host, arrival, begun)
            .await)
    }

    /// Waits until somebody can answer, as while a `recreate` switches.
    async fn hold(
        &self,
        request: Request<Incoming>,
        compiled: Arc<Compiled>,
        seen: u64,
        host: &str,
        arrival: Arrival,
        begun: Instant,
    ) -> Answer {
        let registry = &self.shared.registry;
        if compiled.route.hold_ms == 0 || registry.held.load(Relaxed) >= HELD_MAX {
            return unavailable(&compiled);
        }
        registry.held.fetch_add(1, Relaxed);
        let mut generations = self.shared.generations.subscribe();
        let path = request.uri().path().to_owned();
        let wait = async {
            let mut seen = seen;
            loop {
                if generations.wait_for(|now| *now > seen).await.is_err() {
                    return None;
                }
                let table: arc_swap::Guard<Arc<Table>> = self.shared.table.load();
                seen = table.generation;
                let compiled = table.find(arrival.port, host, &path)?.clone();
                let choice =
                    compiled.choose(request.headers(), arrival.client, || self.next_random());
                if choice
                    .as_ref()
                    .is_some_and(|choice| !compiled.backends[choice.backend].instances.is_empty())
                {
                    return Some((compiled, choice));
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_millis(compiled.route.hold_ms), wait).await;
        registry.held.fetch_sub(1, Relaxed);
        match found {
            Ok(Some((compiled, choice))) => {
                self.send(request, &compiled, choice, host, arrival, begun)
                    .await
            }
            Ok(None) | Err(_) => unavailable(&compiled),
        }
    }

    async fn send(
        &self,
        mut request: Request<Incoming>,
        compiled: &Compiled,
        chosen: Option<Choice>,
        host: &str,
        arrival: Arrival,
        begun: Instant,
    ) -> Answer {
        let (mut backend, set_cookie) = match chosen {
            Some(choice) => (choice.backend, choice.set_cookie),
            None => match fallback(compiled) {
                Some(backend) => (backend, None),
                None => return unavailable(compiled),
            },
        };
        if compiled.backends[backend].instances.is_empty() {
            backend = fallback(compiled).unwrap_or(backend);
        }
        let upgrade = wanted_upgrade(request.headers());
        prepare(
            &mut request,
            compiled,
            host,
            arrival.client,
            upgrade.as_ref(),
            || self.next_random(),
        );
        let bytes_in = request.body().size_hint().exact().unwrap_or(0);
        let mut tried: Vec<Arc<InstanceState>> = Vec::new();
        loop {
            let target = &compiled.backends[backend];
            let Some(instance) = target
                .pick(self.shared.now_ms(), self.next_turn(), &tried)
                .cloned()
            else {
                // All instances of the release are tried. Nothing was sent, so another release may answer.
                match compiled
                    .backends
                    .iter()
                    .position(|other| other.pick(self.shared.now_ms(), 0, &tried).is_some())
                {
                    Some(other) => {
                        backend = other;
                        continue;
                    }
                    None => {
                        return failed(
                            target,
                            StatusCode::BAD_GATEWAY,
                            "no instance could be reached\n",
                        );
                    }
                }
            };
            let open = OpenRequest::begin(&target.counters, &instance);
            match self
                .exchange(
                    &instance,
                    request,
                    Duration::from_millis(compiled.route.timeout_ms),
                    upgrade.is_some(),
                )
                .await
            {
                Ok(answer) => return finish(answer, open, target, begun, bytes_in, set_cookie),
                Err(Failed::Unsent(back)) => {
                    target.counters.retries.fetch_add(1, Relaxed);
                    request = *back;
                    tried.push(instance);
                }
                Err(Failed::Sent(why)) => {
                    tracing::debug!(why, instance = instance.id, "an instance broke off");
                    return failed(
                        target,
                        StatusCode::BAD_GATEWAY,
                        "the service broke off before it answered\n",
                    );
                }
                Err(Failed::TimedOut) => {
                    return failed(
                        target,
                        StatusCode::GATEWAY_TIMEOUT,
                        "the service did not answer in time\n",
                    );
                }
            }
        }
    }

    /// Sends to one instance: over a kept connection, or a new one when that was closed before anything was sent.
    async fn exchange(
        &self,
        instance: &InstanceState,
        request: Request<Incoming>,
        timeout: Duration,
        upgrade: bool,
    ) -> Result<Response<Incoming>, Failed> {
        let address: SocketAddr = instance
            .address
            .parse()
            .expect("checked when the snapshot was accepted");
        let mut request = request;
        // A kept connection may just be closing; a request that must not be repeated gets a new one.
        let repeatable = request.method().is_idempotent() && request.body().is_end_stream();
        if !upgrade
            && repeatable
            && let Some(sender) = self.pool.take(address)
        {
            match self.over(sender, address, request, timeout, upgrade).await {
                Err(Failed::Unsent(back)) => request = *back,
                other => return other,
            }
        }
        match connect(address).await {
            Ok(sender) => {
                instance.failures.store(0, Relaxed);
                self.over(sender, address, request, timeout, upgrade).await
            }
            Err(error) => {
                let failures = instance.failures.fetch_add(1, Relaxed);
                let shun = (SHUN_FIRST_MS << failures.min(6)).min(SHUN_MAX_MS);
                instance
                    .shunned_until_ms
                    .store(self.shared.now_ms() + shun, Relaxed);
                tracing::debug!(%error, instance = instance.id, "an instance can't be reached");
                Err(Failed::Unsent(Box::new(request)))
            }
        }
    }

    async fn over(
        &self,
        mut sender: SendRequest<Incoming>,
        address: SocketAddr,
        mut request: Request<Incoming>,
        timeout: Duration,
        upgrade: bool,
    ) -> Result<Response<Incoming>, Failed> {
        let client = upgrade.then(|| hyper::upgrade::on(&mut request));
        let sent = tokio::time::timeout(timeout, sender.try_send_request(request)).await;
        match sent {
            Ok(Ok(mut answer)) => {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    if let Some(client) = client {
                        let instance = hyper::upgrade::on(&mut answer);
                        answer
                            .extensions_mut()
                            .insert(Tunnel::new(client, instance));
                    }
                } else {
                    self.pool.put(address, sender);
                }
                Ok(answer)
            }
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Failed::Unsent(Box::new(request))),
                None => Err(Failed::Sent(error.into_error().to_string())),
            },
            Err(_) => Err(Failed::TimedOut),
        }
    }

    fn next_turn(&self) -> usize {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        turn
    }

    /// xorshift64*: who gets which side at random need not be a secret.
    fn next_random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Another release that gets traffic and has instances: better than no answer.
fn fallback(compiled: &Compiled) -> Option<usize> {
    let gets_traffic = |index: usize| compiled.route.backends[index].weight > 0;
    (0..compiled.backends.len())
        .find(|index| gets_traffic(*index) && !compiled.backends[*index].instances.is_empty())
}

/// Both halves of a connection that changes its protocol; taken once the answer is on its way.
#[derive(Clone)]
struct Tunnel(
    Arc<std::sync::Mutex<Option<(hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade)>>>,
);

impl Tunnel {
    fn new(client: hyper::upgrade::OnUpgrade, instance: hyper::upgrade::OnUpgrade) -> Self {
        Self(Arc::new(std::sync::Mutex::new(Some((client, instance)))))
    }

    fn run(&self, open: OpenRequest) {
        let halves = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let Some((client, instance)) = halves else {
            return;
        };
        tokio::task::spawn_local(async move {
            let _open = open;
            if let (Ok(client), Ok(instance)) = tokio::join!(client, instance) {
                // Either side may end it at any time; that is how such connections end.
                let _ = tokio::io::copy_bidirectional(
                    &mut TokioIo::new(client),
                    &mut TokioIo::new(instance),
                )
                .await;
            }
        });
    }
}

fn host_of(request: &Request<Incoming>) -> String {
    let from_header = request
        .headers()
        .get(HOST)
        .and_then(|value| value.to_str().ok());
    let authority = request
        .uri()
        .authority()
        .map(http::uri::Authority::as_str)
        .or(from_header)
        .unwrap_or_default();
    // An IPv6 address keeps its brackets; a port goes.
    let end = authority
        .rfind(':')
        .filter(|colon| !authority[*colon..].contains(']'))
        .unwrap_or(authority.len());
    authority[..end].to_owned()
}

fn prepare(
    request: &mut Request<Incoming>,
    compiled: &Compiled,
    host: &str,
    client: IpAddr,
    upgrade: Option<&HeaderValue>,
    random: impl Fn() -> u64,
) {
    strip_hop_by_hop(request.headers_mut());
    if let Some(protocol) = upgrade {
        request
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, protocol.clone());
    }
    let prefix = compiled.route.path_prefix.as_deref();
    add_forwarding(request.headers_mut(), client, host, prefix, random);
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let rest = prefix
        .and_then(|prefix| path.strip_prefix(prefix))
        .unwrap_or(path);
    let origin = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    // A part of a valid path is one.
    *request.uri_mut() = origin.parse().unwrap_or_else(|_| Uri::from_static("/"));
    *request.version_mut() = Version::HTTP_11;
}

fn finish(
    mut answer: Response<Incoming>,
    open: OpenRequest,
    backend: &CompiledBackend,
    begun: Instant,
    bytes_in: u64,
    set_cookie: Option<String>,
) -> Answer {
    let tunnel = answer.extensions_mut().remove::<Tunnel>();
    let status = answer.status().as_u16();
    if tunnel.is_none() {
        strip_hop_by_hop(answer.headers_mut());
    }
    if let Some(cookie) = set_cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    let (parts, body) = answer.into_parts();
    let mut counted = Counted {
        body,
        record: Some(Record {
            counters: backend.counters.clone(),
            status,
            begun,
            bytes_in,
            bytes_out: 0,
        }),
        open: None,
    };
    match tunnel {
        Some(tunnel) => tunnel.run(open),
        None => counted.open = Some(open),
    }
    Response::from_parts(parts, Either::Left(counted))
}

fn failed(backend: &CompiledBackend, status: StatusCode, why: &'static str) -> Answer {
    backend.counters.proxy_errors.fetch_add(1, Relaxed);
    sentence(status, why)
}

fn unavailable(compiled: &Compiled) -> Answer {
    if let Some(backend) = compiled.backends.first() {
        backend.counters.proxy_errors.fetch_add(1, Relaxed);
    }
    let mut answer = sentence(StatusCode::SERVICE_UNAVAILABLE, "no instance is ready\n");
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn sentence(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from_static(
        text.as_bytes(),
    ))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    answer
}

/// A request that is open: counted from before it is sent until its last byte has gone, or nobody wants it any more.
pub(crate) struct OpenRequest {
    counters: Arc<ReleaseCounters>,
    instance: Arc<InstanceState>,
}

impl OpenRequest {
    fn begin(counters: &Arc<ReleaseCounters>, instance: &Arc<InstanceState>) -> Self {
        counters.open.begin();
        instance.open.begin();
        Self {
            counters: counters.clone(),
            instance: instance.clone(),
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.instance.open.end();
        self.counters.open.end();
    }
}

/// What is counted when an answer is over.
struct Record {
    counters: Arc<ReleaseCounters>,
    status: u16,
    begun: Instant,
    bytes_in: u64,
    bytes_out: u64,
}

/// An instance's answer, counted to its last byte.
pub(crate) struct Counted {
    body: Incoming,
    record: Option<Record>,
    open: Option<OpenRequest>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.counters.answered(
                record.status,
                record.begun.elapsed(),
                record.bytes_in,
                record.bytes_out,
            );
        }
        drop(self.open.take());
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(record)) = (&polled, &mut self.record) {
            record.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
