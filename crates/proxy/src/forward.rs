//! One request: find its route, choose, send, count. What fails before anything was sent is tried elsewhere, or held until somebody
//! can answer.

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
    Shared,
    access::{Line, Log},
    asked::{Asked, Refusal},
    body::{Download, Record},
    connection::{Arrival, Busy},
    counters::{Answered, InstanceState, Worker},
    exchange::{Failed, exchange},
    headers::{request_id, strip_hop_by_hop},
    mirror::{Copies, Copy},
    open::{OpenRequest, OpenRequests},
    protocol::Effect,
    table::Lane,
    tunnel,
    upstream::{Link, Pool},
};

/// Requests held at once, waiting for an instance; more are answered 503, so that a long outage costs bounded memory.
const HELD_MAX: u64 = 1_024;

/// The body of an answer: an instance's, counted, or a sentence of ours.
pub(crate) type Answer = Response<Either<Download, Full<Bytes>>>;

/// The client's connection is cut: a drill asked for it.
#[derive(Debug, thiserror::Error)]
#[error("a drill cuts this connection")]
pub(crate) struct Reset;

/// What a worker's requests share.
pub(crate) struct Forwarder {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker,
    pub(crate) pool: Pool,
    pub(crate) log: Option<Log>,
    /// The worker stops: clients are asked to close their connections.
    pub(crate) stopping: Cell<bool>,
    /// What goes on when a request is answered.
    pub(crate) tasks: TaskTracker,
    copies: Copies,
    pub(crate) open: Rc<OpenRequests>,
    turn: Cell<usize>,
    random: Cell<u64>,
}

/// Where a request goes.
enum Aim {
    At {
        open: OpenRequest,
        cookie: Option<HeaderValue>,
    },
    /// The route is there, but nobody on it.
    Nobody(Arc<Lane>, usize, Option<u32>),
    /// To the path with a slash at its end, below which relative links lead to the service.
    Redirect(HeaderValue),
    Nowhere,
}

impl Forwarder {
    pub(crate) fn new(shared: Arc<Shared>, worker: Worker, log: Option<Log>) -> Self {
        let seed = shared.seed ^ (worker as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            shared,
            worker,
            pool: Pool::default(),
            log,
            stopping: Cell::new(false),
            tasks: TaskTracker::new(),
            copies: Copies::default(),
            open: Rc::default(),
            turn: Cell::new(0),
            random: Cell::new(seed | 1),
        }
    }

    /// Answers a request; what goes wrong is an answer too.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        arrival: &Rc<Arrival>,
    ) -> Result<Answer, Reset> {
        let busy = Busy::new(arrival.clone());
        let version = request.version();
        let mut answer = match Asked::new(request, &arrival.client, || self.next_random()) {
            Ok(asked) => self.forward(asked, arrival, busy).await?,
            Err(refusal) => refused(refusal),
        };
        let is_http1 = version < Version::HTTP_2;
        if self.stopping.get() && is_http1 && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn forward(
        &self,
        mut asked: Asked,
        arrival: &Rc<Arrival>,
        busy: Busy,
    ) -> Result<Answer, Reset> {
        let (mut tried, mut died) = (Vec::new(), None);
        let mut attempts = Attempts::default();
        loop {
            // Nothing may be awaited between looking at the table and `OpenRequest::begin`: see `Shared::settled`.
            let (open, cookie) = match self.aim(&asked, arrival, &tried, died.as_ref()) {
                Aim::At { open, cookie } => (open, cookie),
                Aim::Nowhere => {
                    self.shared.registry.no_route.fetch_add(1, Relaxed);
                    return Ok(sentence(
                        StatusCode::NOT_FOUND,
                        "no service is routed here\n",
                    ));
                }
                Aim::Redirect(location) => return Ok(redirect(location)),
                Aim::Nobody(lane, side, user) => {
                    let holding = HeldRequest::new(&lane, side, self.worker, user, asked.begun);
                    let held = attempts.hold(&self.shared, &lane).await;
                    holding.ends();
                    match held {
                        Held::LookAgain => continue,
                        Held::SomethingChanged => {
                            tried.clear();
                            continue;
                        }
                        Held::Enough => {
                            return Ok(self.nobody(&asked, &lane, (side, user), &attempts));
                        }
                    }
                }
            };
            if let Some(answer) = self.faults(&open, &mut attempts).await? {
                return Ok(answer);
            }
            let copy = self.copy(&open, &mut asked, &attempts);
            attempts.made = true;
            open.log(self.line(&asked));
            match exchange(&self.shared, &self.pool, &open, &mut asked).await {
                Ok((answer, link)) => {
                    Copies::complete(copy, open.lane(), &asked, &self.pool);
                    return Ok(self.finish(answer, link, open, asked, cookie, busy));
                }
                Err(Failed::Unsent) => {
                    open.side().counters.retry(self.worker);
                    open.is_repeated();
                    tried.push(open.instance().clone());
                }
                Err(Failed::Died(_)) if asked.request.is_some() => {
                    open.side().counters.retry(self.worker);
                    open.is_repeated();
                    died = Some(open.instance().clone());
                }
                Err(failed) => return Ok(failure(&failed, open)),
            }
        }
    }

    /// Chooses; the request is open when this returns.
    fn aim(
        &self,
        asked: &Asked,
        arrival: &Arrival,
        tried: &[Arc<InstanceState>],
        died: Option<&Arc<InstanceState>>,
    ) -> Aim {
        let table = self.shared.table.load();
        let Some(headers) = asked.headers() else {
            return Aim::Nowhere;
        };
        let Some(lane) = table.find(arrival.port, asked.host_name(), asked.target.path()) else {
            return Aim::Nowhere;
        };
        if let Some(location) = asked.with_slash(lane) {
            return Aim::Redirect(location);
        }
        let usable = |side: usize| !lane.backends[side].instances.is_empty();
        let choice = lane
            .chooser
            .choose(headers, asked.client, asked.random, usable);
        let side = choice.map(|choice| choice.backend);
        let user = choice.and_then(|choice| choice.user);
        let turn = self.next_turn();
        let picked = lane
            .pick_sibling(side, self.worker, turn, tried, died)
            .or_else(|| lane.pick(side, self.worker, turn, tried));
        let Some(place) = picked else {
            return Aim::Nobody(lane.clone(), side.unwrap_or(0), user);
        };
        let is_new = choice.is_some_and(|choice| choice.new_user);
        let cookie = is_new
            .then(|| lane.chooser.cookie_for(asked.random))
            .flatten();
        Aim::At {
            open: OpenRequest::begin(
                &self.open,
                lane.clone(),
                place,
                self.worker,
                user,
                asked.begun,
                asked.upload.clone(),
            ),
            cookie: cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()),
        }
    }

    /// A copy of the request for a release that gets no users yet; once for each request.
    fn copy(&self, open: &OpenRequest, asked: &mut Asked, attempts: &Attempts) -> Option<Copy> {
        if open.lane().mirror.is_none() || attempts.made {
            return None;
        }
        let turn = self.next_turn();
        let random = || self.next_random();
        self.copies.copy(open, asked, &self.pool, turn, random)
    }

    /// Makes go wrong what a drill asks for; once for each request.
    async fn faults(
        &self,
        open: &OpenRequest,
        attempts: &mut Attempts,
    ) -> Result<Option<Answer>, Reset> {
        let faults = self.shared.faults.load();
        if faults.is_empty() || std::mem::replace(&mut attempts.faulted, true) {
            return Ok(None);
        }
        let (route, release) = (&open.lane().route, open.side().release);
        let mine = faults.iter().filter(|fault| {
            fault.release == release
                && fault.service == route.service
                && fault.environment == route.environment
                && self.next_random() % u64::from(crate::protocol::FULL) < u64::from(fault.share)
        });
        let effects: Vec<Effect> = mine.map(|fault| fault.effect).collect();
        drop(faults);
        for effect in effects {
            let status = match effect {
                Effect::LatencyMs(latency) => {
                    tokio::time::sleep(Duration::from_millis(latency)).await;
                    continue;
                }
                Effect::Status(status) => StatusCode::from_u16(status).ok(),
                Effect::Reset => None,
            };
            let counted = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            open.answered(counted.as_u16(), 0);
            let answer = status.map(|status| sentence(status, "this failure is a drill\n"));
            return answer.ok_or(Reset).map(Some);
        }
        Ok(None)
    }

    fn finish(
        &self,
        mut answer: Response<Incoming>,
        link: Link,
        open: OpenRequest,
        asked: Asked,
        cookie: Option<HeaderValue>,
        busy: Busy,
    ) -> Answer {
        open.head_came();
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = if switches {
            answer.headers().get(UPGRADE).cloned()
        } else {
            None
        };
        if switches && (asked.upgrade.is_none() || protocol.is_none()) {
            return failure(&Failed::Broke("an upgrade nobody asked for".into()), open);
        }
        strip_hop_by_hop(answer.headers_mut());
        if let Some(cookie) = cookie {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        *answer.version_mut() = Version::HTTP_11;
        if let (Some(protocol), Some(client)) = (protocol, asked.upgrade) {
            busy.switches();
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            answer.headers_mut().insert(UPGRADE, protocol);
            let instance = hyper::upgrade::on(&mut answer);
            self.tasks
                .spawn_local(tunnel::run(client, instance, open.for_tunnel()));
        }
        let record = Record::new(open, answer.status().as_u16());
        let pool = self.pool.clone();
        answer.map(|body| Either::Left(Download::new(body, link, pool, record, busy)))
    }

    /// Nobody could be reached, or nobody was there, for as long as the route allows.
    fn nobody(
        &self,
        asked: &Asked,
        lane: &Arc<Lane>,
        (side, user): (usize, Option<u32>),
        attempts: &Attempts,
    ) -> Answer {
        let (status, why) = if attempts.made {
            (StatusCode::BAD_GATEWAY, "no instance could be reached\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "no instance is ready\n")
        };
        if let Some(side) = lane.backends.get(side) {
            let answered = over(status, asked);
            side.answered(self.worker, &answered, user);
            side.counters.proxy_error(self.worker);
            if let Some(mut line) = self.line(asked) {
                line.proxy_error = true;
                line.write(&lane.route, side.release, "", &answered);
            }
        }
        let mut answer = sentence(status, why);
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    fn line(&self, asked: &Asked) -> Option<Box<Line>> {
        let log = self.log.as_ref()?;
        let request = asked.request.as_ref()?;
        Some(Box::new(Line {
            log: log.clone(),
            client: asked.client,
            method: request.method().clone(),
            host: asked.host.clone(),
            path: asked.target.path().to_owned(),
            request_id: request_id(request.headers()),
            proxy_error: false,
        }))
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

/// What has been tried for one request.
#[derive(Default)]
struct Attempts {
    made: bool,
    faulted: bool,
    holding: Option<Holding>,
}

/// A request that waits for an instance. When it is dropped without an end, its client went away.
struct HeldRequest<'a> {
    lane: &'a Lane,
    side: usize,
    worker: Worker,
    user: Option<u32>,
    begun: Instant,
    is_over: Cell<bool>,
}

impl<'a> HeldRequest<'a> {
    const fn new(
        lane: &'a Lane,
        side: usize,
        worker: Worker,
        user: Option<u32>,
        begun: Instant,
    ) -> Self {
        Self {
            lane,
            side,
            worker,
            user,
            begun,
            is_over: Cell::new(false),
        }
    }

    fn ends(&self) {
        self.is_over.set(true);
    }
}

impl Drop for HeldRequest<'_> {
    fn drop(&mut self) {
        if !self.is_over.get()
            && let Some(side) = self.lane.backends.get(self.side)
        {
            side.abandoned(self.worker, self.begun.elapsed(), self.user);
        }
    }
}

/// A request that is held.
struct Holding {
    changes: watch::Receiver<u64>,
    until: tokio::time::Instant,
    shared: Arc<Shared>,
}

enum Held {
    /// From now on every change is seen; there may have been one just before.
    LookAgain,
    SomethingChanged,
    Enough,
}

impl Attempts {
    /// Waits until somebody may be able to answer, as while a `recreate` switches.
    async fn hold(&mut self, shared: &Arc<Shared>, lane: &Lane) -> Held {
        if let Some(holding) = &mut self.holding {
            let changed = tokio::time::timeout_at(holding.until, holding.changes.changed()).await;
            return if matches!(changed, Ok(Ok(()))) {
                Held::SomethingChanged
            } else {
                Held::Enough
            };
        }
        let limit = Duration::from_millis(lane.route.hold_ms);
        if limit.is_zero() || shared.registry.held.fetch_add(1, Relaxed) >= HELD_MAX {
            if !limit.is_zero() {
                shared.registry.held.fetch_sub(1, Relaxed);
            }
            return Held::Enough;
        }
        self.holding = Some(Holding {
            changes: shared.changes.subscribe(),
            until: tokio::time::Instant::now() + limit,
            shared: shared.clone(),
        });
        Held::LookAgain
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shared.registry.held.fetch_sub(1, Relaxed);
    }
}

fn over(status: StatusCode, asked: &Asked) -> Answered {
    Answered {
        status: status.as_u16(),
        took: Instant::now().duration_since(asked.begun),
        is_late: false,
        bytes_in: asked.upload.as_ref().map_or(0, |upload| upload.bytes.get()),
        bytes_out: 0,
    }
}

/// The answer in the place of an instance's; counted as the release's, and as the proxy's unless the client is to blame.
fn failure(failed: &Failed, open: OpenRequest) -> Answer {
    let (status, why) = match failed {
        Failed::Late => (
            StatusCode::GATEWAY_TIMEOUT,
            "the service did not answer in time\n",
        ),
        Failed::ClientGone => (StatusCode::BAD_REQUEST, "the request broke off\n"),
        Failed::Unsent | Failed::Died(_) | Failed::Broke(_) => (
            StatusCode::BAD_GATEWAY,
            "the service broke off before it answered\n",
        ),
    };
    tracing::debug!(%failed, instance = open.instance().id, "an instance gave no answer");
    if status.is_server_error() {
        open.is_proxy_error();
    }
    open.answered(status.as_u16(), 0);
    sentence(status, why)
}

fn refused(refusal: Refusal) -> Answer {
    let (status, why) = match refusal {
        Refusal::Connect => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not offered\n"),
        Refusal::Target => (
            StatusCode::BAD_REQUEST,
            "a target is a path or an absolute address\n",
        ),
        Refusal::Host => (
            StatusCode::BAD_REQUEST,
            "a request needs exactly one valid Host\n",
        ),
        Refusal::TransferEncoding => (
            StatusCode::NOT_IMPLEMENTED,
            "chunked is the only transfer coding understood\n",
        ),
    };
    let mut answer = sentence(status, why);
    // Where the next request begins would be a guess.
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Browsers would keep a permanent redirect for good, but routes change.
fn redirect(location: HeaderValue) -> Answer {
    let mut answer = sentence(
        StatusCode::PERMANENT_REDIRECT,
        "the address ends in a slash\n",
    );
    answer.headers_mut().insert(LOCATION, location);
    let fresh = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, fresh);
    answer
}

fn sentence(status: StatusCode, text: &'static str) -> Answer {
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
