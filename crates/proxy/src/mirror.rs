//! Copies of requests for a release that gets no users yet: sent to it, their answers thrown away, counted apart.
//!
//! What it must never do: keep a user waiting, or fail them. A copy goes its own way on the worker's thread; beyond
//! [`COPIES_MAX`] at once, and where a body is too large or comes too late, there is none, and that is counted. What can't be
//! reached is not ejected: only users' requests decide that.

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
    asked::Asked,
    body::Upload,
    counters::{Answered, InstanceState, ReleaseCounters, Worker},
    open::OpenRequest,
    protocol::Methods,
    table::Lane,
    upstream::{Again, Kind, Link, Pool},
};

/// Copies under way at once for each worker; a release that is too slow for more would only be buried.
const COPIES_MAX: u32 = 64;
/// A copy that takes longer is given up, and counted as not answered in time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read, so that its connection can be used again.
const DISCARDED_MAX: u64 = 1 << 20;
/// Says to the release that nobody waits for the answer.
const MARK: HeaderName = HeaderName::from_static("x-shipway-mirror");

/// The copies of one worker.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    under_way: Rc<Cell<u32>>,
}

/// A copy that isn't sent yet, since its body isn't there.
pub(crate) struct Copy {
    request: Request<Upload>,
    sending: Sending,
}

/// What a copy on its way holds on to.
struct Sending {
    under_way: Rc<Cell<u32>>,
    instance: Arc<InstanceState>,
    counters: Arc<ReleaseCounters>,
    worker: Worker,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.under_way.set(self.under_way.get() - 1);
        self.instance.open.end(self.worker);
        self.counters.open.end(self.worker);
    }
}

impl Copies {
    /// Copies a request that is about to go to somebody else. What has no body is sent at once; a body is copied on its way, and
    /// [`Copies::complete`] sends it.
    pub(crate) fn copy(
        &self,
        open: &OpenRequest,
        asked: &mut Asked,
        pool: &Pool,
        turn: usize,
        random: impl FnOnce() -> u64,
    ) -> Option<Copy> {
        let lane = open.lane().clone();
        let mirror = lane.mirror.as_ref()?;
        let is_its_own = open.side().release == lane.backends[mirror.side].release;
        let drawn = random() % u64::from(crate::protocol::FULL) < u64::from(mirror.share);
        if is_its_own || !drawn {
            return None;
        }
        let worker = open.worker();
        let copied = self.prepared(&lane, asked, worker, turn);
        let Some(copy) = copied else {
            mirror.counters.passed_over(worker);
            return None;
        };
        let Some(upload) = &asked.upload else {
            spawn_local(copy.run(pool.clone(), within(&lane)));
            return None;
        };
        upload.copy_from_here();
        Some(copy)
    }

    fn prepared(
        &self,
        lane: &Lane,
        asked: &mut Asked,
        worker: Worker,
        turn: usize,
    ) -> Option<Copy> {
        let mirror = lane.mirror.as_ref()?;
        let method = asked.request.as_ref()?.method();
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            && asked.upload.is_none();
        let wanted = is_safe || mirror.methods == Methods::All;
        if !wanted || asked.upgrade.is_some() || self.under_way.get() >= COPIES_MAX {
            return None;
        }
        let side = &lane.backends[mirror.side];
        let instance = side.instances[side.pick(worker, turn, &[])?].clone();
        let request = asked.aimed_at(lane)?;
        let mut copy = Request::new(Upload::None);
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        asked.request = Some(request);
        copy.headers_mut()
            .insert(MARK, HeaderValue::from_static("1"));
        self.under_way.set(self.under_way.get() + 1);
        instance.open.begin(worker);
        mirror.counters.open.begin(worker);
        let sending = Sending {
            under_way: self.under_way.clone(),
            instance,
            counters: mirror.counters.clone(),
            worker,
        };
        Some(Copy {
            request: copy,
            sending,
        })
    }

    /// Sends a copy whose body is there by now; there is none where it was too large or isn't all there.
    pub(crate) fn complete(copy: Option<Copy>, lane: &Lane, asked: &Asked, pool: &Pool) {
        let Some(mut copy) = copy else { return };
        let Some(body) = asked.upload.as_ref().and_then(|upload| upload.copied()) else {
            copy.sending.counters.passed_over(copy.sending.worker);
            return;
        };
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
            copy.request.headers_mut().remove(name);
        }
        *copy.request.body_mut() = Upload::Copy(Some(body));
        spawn_local(copy.run(pool.clone(), within(lane)));
    }
}

fn within(lane: &Lane) -> Duration {
    Duration::from_millis(lane.route.timeout_ms).min(ANSWER_MAX)
}

impl Copy {
    async fn run(self, pool: Pool, limit: Duration) {
        let Self { request, sending } = self;
        let begun = Instant::now();
        let bytes_in = match request.body() {
            Upload::Copy(Some(body)) => body.len() as u64,
            Upload::Copy(None) | Upload::None | Upload::Client(..) => 0,
        };
        let asked = ask(&pool, &sending.instance, request);
        let (status, bytes_out, answered) = match tokio::time::timeout(limit, asked).await {
            Ok(Some((status, bytes))) => (status, bytes, true),
            Ok(None) => (StatusCode::BAD_GATEWAY, 0, false),
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, 0, false),
        };
        if !answered {
            sending.counters.proxy_error(sending.worker);
        }
        let answered = Answered {
            status: status.as_u16(),
            took: begun.elapsed(),
            is_late: false,
            bytes_in,
            bytes_out,
        };
        sending.counters.answered(sending.worker, &answered);
    }
}

/// The status of the answer and how many bytes it had; none where there was no answer to its end.
async fn ask(
    pool: &Pool,
    instance: &InstanceState,
    request: Request<Upload>,
) -> Option<(StatusCode, u64)> {
    let is_alone = matches!(request.body(), Upload::None);
    // A kept connection may have been closed by now; what can't be sent again gets a new one.
    if is_alone && let Some(link) = pool.take(instance.address, Again::Yes, Instant::now()) {
        let mut again = Request::new(Upload::None);
        request.method().clone_into(again.method_mut());
        request.uri().clone_into(again.uri_mut());
        request.headers().clone_into(again.headers_mut());
        if let Some(answer) = over(pool, instance, link, again).await {
            return Some(answer);
        }
    }
    let mut link = Link::connect(instance.address, Kind::Plain).await.ok()?;
    if !is_alone {
        link.detach();
    }
    over(pool, instance, link, request).await
}

async fn over(
    pool: &Pool,
    instance: &InstanceState,
    mut link: Link,
    request: Request<Upload>,
) -> Option<(StatusCode, u64)> {
    let answer = link.send(request).await.ok()?;
    let (status, mut body) = (answer.status(), answer.into_body());
    let mut bytes = 0;
    loop {
        let frame = std::future::poll_fn(|cx| link.poll_frame(&mut body, cx)).await;
        match frame {
            None => break,
            Some(Ok(frame)) => {
                bytes += frame.data_ref().map_or(0, |data: &Bytes| data.len() as u64)
            }
            Some(Err(_)) => return None,
        }
        if bytes > DISCARDED_MAX {
            // It answers, that is known; the rest is not worth reading.
            return Some((status, bytes));
        }
    }
    pool.put(instance.address, link);
    Some((status, bytes))
}
