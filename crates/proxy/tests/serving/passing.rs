//! What passes through whole: upgrades, streams, large bodies with back-pressure, and every corner of HTTP/1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use super::support::{
    Conversation, House, Proxy, Upstream, Wire,
    client::{Body, ask, whole},
    get, only, until,
    upstream::{Answer, text},
    within,
};

/// A proxy with one upstream behind it.
async fn before(house: &House, upstream: &Upstream) -> Proxy {
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&upstream.address])).await;
    proxy
}

/// A body whose pieces are sent through the channel.
fn piecewise() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let frame: Frame<Bytes> = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

async fn piece(body: &mut Incoming) -> Bytes {
    let frame = within("a piece comes", body.frame())
        .await
        .unwrap()
        .unwrap();
    frame.into_data().unwrap()
}

/// Says back in capitals what comes over an upgraded connection.
async fn shouting() -> Upstream {
    Upstream::start(|mut request| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let key = request.headers()["sec-websocket-key"].clone();
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut io = TokioIo::new(upgraded);
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                buffer[..count].make_ascii_uppercase();
                io.write_all(&buffer[..count]).await.unwrap();
            }
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let answer = answer.header("connection", "Upgrade");
        let answer = answer.header("upgrade", "websocket");
        let answer = answer.header("sec-websocket-accept", key);
        answer.body(whole("")).unwrap()
    })
    .await
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[tokio::test]
async fn a_websocket_goes_through_and_survives_new_routes() {
    let (house, chat, other) = (
        House::new(),
        shouting().await,
        Upstream::named("other").await,
    );
    let proxy = before(&house, &chat).await;
    let mut wire = Wire::to(proxy.address).await;
    // What is sent along with the request isn't lost.
    wire.say(format!("{UPGRADE}early ")).await;
    let head = wire.head().await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"));
    assert!(head.contains("sec-websocket-accept: k\r\n"), "{head}");
    wire.say("hello").await;
    assert_eq!(wire.bytes(11).await, "EARLY HELLO");
    proxy.put(&only(2, &[&other.address])).await;
    assert_eq!(get(proxy.address, "/").await.text(), "other");
    wire.say("still here").await;
    assert_eq!(wire.bytes(10).await, "STILL HERE");
    let short = Duration::from_millis(20);
    assert_eq!(proxy.open_after(1, short).await, 1, "it counts as open");
    drop(wire);
    assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
    let entry = proxy.count(1).await;
    assert_eq!(entry.responses.get("1xx"), Some(&1));
    assert_eq!((entry.bytes_in, entry.bytes_out), (21, 21));
}

#[tokio::test]
async fn an_upgrade_that_the_service_refuses_is_an_answer_like_any_other() {
    let (house, plain) = (House::new(), Upstream::named("no chat here").await);
    let proxy = before(&house, &plain).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say(UPGRADE).await;
    let head = wire.head().await;
    assert!(
        head.starts_with("http/1.1 200 ") && !head.contains("upgrade"),
        "{head}"
    );
    assert_eq!(wire.bytes(12).await, "no chat here");
    wire.say("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(
        wire.head().await.starts_with("http/1.1 200 "),
        "the connection goes on"
    );
}

#[tokio::test]
async fn pieces_of_an_answer_arrive_before_its_end() {
    let house = House::new();
    let (hand, mut bodies) = mpsc::channel(1);
    let events = Upstream::start(move |_| {
        let hand = hand.clone();
        async move {
            let (sender, body) = piecewise();
            hand.send(sender).await.unwrap();
            let answer = Response::builder().header("content-type", "text/event-stream");
            answer.body(body).unwrap()
        }
    })
    .await;
    let proxy = before(&house, &events).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let answer = conversation
        .begin(ask(Method::GET, "/events", ""))
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let (sender, mut body) = (bodies.recv().await.unwrap(), answer.into_body());
    for number in 0..20 {
        let event = format!("data: {number}\n\n");
        sender.send(data(event.clone())).await.unwrap();
        assert_eq!(piece(&mut body).await, event);
    }
    // Routes may change meanwhile.
    proxy.put(&only(2, &[&events.address])).await;
    sender.send(data("data: last\n\n")).await.unwrap();
    assert_eq!(piece(&mut body).await, "data: last\n\n");
    drop(sender);
    assert!(within("the end comes", body.frame()).await.is_none());
    assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
    // An instance notices that nobody listens any more.
    let answer = conversation
        .begin(ask(Method::GET, "/events", ""))
        .await
        .unwrap();
    let sender = bodies.recv().await.unwrap();
    drop((answer, conversation));
    within("the instance notices", async {
        while sender.send(data("?")).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn pieces_of_a_request_arrive_before_its_end() {
    let house = House::new();
    let echo = Upstream::start(|request: Request<Incoming>| async move {
        let answer: Body = BodyExt::boxed(request.into_body().map_err(std::io::Error::other));
        Response::new(answer)
    })
    .await;
    let proxy = before(&house, &echo).await;
    let (sender, body) = piecewise();
    let request = Request::post("/")
        .header("host", "shop")
        .body(body)
        .unwrap();
    sender.send(data("first")).await.unwrap();
    let mut conversation = Conversation::with(proxy.address).await;
    let mut answer = conversation.begin(request).await.unwrap().into_body();
    assert_eq!(piece(&mut answer).await, "first");
    for number in 0..20 {
        let text = number.to_string();
        sender.send(data(text.clone())).await.unwrap();
        assert_eq!(piece(&mut answer).await, text);
    }
}

/// So many pieces of 64 KiB.
fn large(pieces: usize) -> Body {
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let frames = futures_util::stream::repeat_with(move || Ok(data(piece.clone()))).take(pieces);
    BodyExt::boxed(StreamBody::new(frames))
}

async fn length(mut body: Incoming) -> usize {
    let mut length = 0;
    while let Some(frame) = within("the next piece", body.frame()).await {
        length += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    length
}

#[tokio::test]
async fn large_bodies_go_both_ways_in_little_memory() {
    const PIECES: usize = 1_024;
    let house = House::new();
    let mirror = Upstream::start(|request: Request<Incoming>| async move {
        let got = length(request.into_body()).await;
        let mut answer = Response::new(large(got / (64 << 10)));
        answer.headers_mut().insert("x-got", got.into());
        answer
    })
    .await;
    let proxy = before(&house, &mirror).await;
    let before = proxy.memory("VmHWM");
    let mut conversation = Conversation::with(proxy.address).await;
    let request = Request::put("/")
        .header("host", "shop")
        .body(large(PIECES))
        .unwrap();
    let answer = conversation.begin(request).await.unwrap();
    assert_eq!(answer.headers()["x-got"], (PIECES << 16).to_string());
    assert_eq!(length(answer.into_body()).await, PIECES << 16);
    let more = proxy.memory("VmHWM") - before;
    assert!(more < 8 << 20, "{more} bytes more for bodies of 64 MiB");
    let entry = proxy.count(1).await;
    assert_eq!((entry.bytes_in, entry.bytes_out), (64 << 20, 64 << 20));
}

#[tokio::test]
async fn who_is_slow_holds_up_the_other_side() {
    let house = House::new();
    let pieces = Arc::new(AtomicUsize::new(0));
    let counted = pieces.clone();
    let endless = Upstream::start(move |_| {
        let counted = counted.clone();
        let frames = futures_util::stream::repeat_with(move || {
            counted.fetch_add(1, SeqCst);
            Ok(data(Bytes::from(vec![b'x'; 64 << 10])))
        });
        let body: Body = BodyExt::boxed(StreamBody::new(frames));
        async move { Response::new(body) }
    })
    .await;
    let proxy = before(&house, &endless).await;
    let mut conversations = Vec::new();
    for _ in 0..8 {
        let mut conversation = Conversation::with(proxy.address).await;
        let answer = conversation.begin(ask(Method::GET, "/", "")).await.unwrap();
        conversations.push((conversation, answer));
    }
    // Nobody reads: what is under way fills the sockets, and then it stands still.
    let mut seen = 0;
    until("it stands still", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::mem::replace(&mut seen, pieces.load(SeqCst)) == seen && seen > 0
    })
    .await;
    let more = proxy.memory("VmRSS");
    assert!(
        more < 64 << 20,
        "{more} bytes for 8 clients that don't read"
    );
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let house = House::new();
    let summing = Upstream::start(|request: Request<Incoming>| async move {
        let asked = request.headers()["te"] == "trailers";
        let got = request.into_body().collect().await.unwrap();
        let sum = got.trailers().and_then(|it| it.get("x-sum")).cloned();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", sum.unwrap());
        let (sender, body) = piecewise();
        tokio::spawn(async move {
            sender.send(data("summed")).await.unwrap();
            sender.send(Frame::trailers(trailers)).await.unwrap();
        });
        assert!(asked);
        Response::builder()
            .header("trailer", "x-sum")
            .body(body)
            .unwrap()
    })
    .await;
    let proxy = before(&house, &summing).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say("POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        .await;
    wire.say("3\r\nabc\r\n0\r\nx-sum: 900150\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(
        answer.ends_with("6\r\nsummed\r\n0\r\nx-sum: 900150\r\n\r\n"),
        "{answer}"
    );
}

/// Answers as its path says.
async fn obeying() -> Upstream {
    Upstream::start(|request: Request<Incoming>| async move {
        let answer = Response::builder();
        let answer: Answer = match request.uri().path() {
            "/204" => answer.status(204).body(whole("")).unwrap(),
            "/304" => {
                let answer = answer.status(304).header("etag", "\"1\"");
                answer
                    .header("content-length", "5")
                    .body(whole(""))
                    .unwrap()
            }
            "/chunked" => {
                let (sender, body) = piecewise();
                tokio::spawn(async move { sender.send(data("hello")).await });
                answer.body(body).unwrap()
            }
            "/host" => text(request.headers()["host"].as_bytes().to_vec()),
            "/read" => {
                let got = request.into_body().collect().await;
                text(got.map_or(Bytes::from("broken"), |got| got.to_bytes()))
            }
            _ => text("hello"),
        };
        answer
    })
    .await
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let (house, upstream) = (House::new(), obeying().await);
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    let ask = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    for _ in 0..3 {
        wire.say(ask("HEAD", "/")).await;
        let head = wire.head().await;
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: 5\r\n"));
        wire.say(ask("HEAD", "/chunked")).await;
        let head = wire.head().await;
        assert!(
            head.starts_with("http/1.1 200 ") && !head.contains("content-length"),
            "{head}"
        );
        wire.say(ask("GET", "/204")).await;
        let head = wire.head().await;
        assert!(
            head.starts_with("http/1.1 204 ") && !head.contains("content-length"),
            "{head}"
        );
        assert!(!head.contains("transfer-encoding"), "{head}");
        wire.say(ask("GET", "/304")).await;
        let head = wire.head().await;
        assert!(
            head.starts_with("http/1.1 304 ") && head.contains("etag: \"1\"\r\n"),
            "{head}"
        );
        wire.say(ask("GET", "/")).await;
        let head = wire.head().await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(wire.bytes(5).await, "hello");
    }
    assert_eq!(proxy.count(1).await.requests, 15);
    assert_eq!(upstream.connections(), 1, "kept on the other side, too");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (house, upstream) = (House::new(), obeying().await);
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    let mut all = String::new();
    for number in 0..50 {
        let text = number.to_string();
        let length = text.len();
        all +=
            &format!("POST /read HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{text}");
    }
    wire.say(all).await;
    for number in 0..50 {
        assert!(wire.head().await.starts_with("http/1.1 200 "));
        let text = number.to_string();
        assert_eq!(wire.bytes(text.len()).await, text);
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_next_one() {
    let house = House::new();
    let upstream = Upstream::start(|request: Request<Incoming>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        text("hello")
    })
    .await;
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    wire.say(ask("/") + &ask("/never")).await;
    assert!(wire.head().await.starts_with("http/1.1 200 "));
    assert_eq!(wire.bytes(5).await, "hello");
}

#[tokio::test]
async fn who_waits_for_100_continue_gets_it_when_an_instance_reads() {
    let (house, upstream) = (House::new(), obeying().await);
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    for _ in 0..2 {
        wire.say(
            "PUT /read HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )
        .await;
        assert!(wire.head().await.starts_with("http/1.1 100 "));
        wire.say("body").await;
        assert!(wire.head().await.starts_with("http/1.1 200 "));
        assert_eq!(wire.bytes(4).await, "body");
    }
    // Nobody is told to go on for a service that isn't there.
    let nowhere =
        "PUT / HTTP/1.1\r\nHost: nobody\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    wire.say(nowhere).await;
    assert!(wire.head().await.starts_with("http/1.1 404 "));
}

#[tokio::test]
async fn clients_of_1996_are_served() {
    let (house, upstream) = (House::new(), obeying().await);
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say("GET /chunked HTTP/1.0\r\nHost: shop\r\n\r\n")
        .await;
    let answer = wire.rest().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.0 200 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nhello") && !answer.contains("chunked"),
        "{answer}"
    );
    let mut wire = Wire::to(proxy.address).await;
    for _ in 0..2 {
        wire.say("GET / HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let head = wire.head().await;
        assert!(head.contains("connection: keep-alive\r\n"), "{head}");
        assert_eq!(wire.bytes(5).await, "hello");
    }
    // Without a host, only a route for any host fits.
    let mut wire = Wire::to(proxy.address).await;
    wire.say("GET / HTTP/1.0\r\n\r\n").await;
    assert!(wire.rest().await.starts_with("HTTP/1.0 404 "));
}

#[tokio::test]
async fn connections_are_kept_and_closed_as_the_client_asks() {
    let (house, upstream) = (House::new(), obeying().await);
    let proxy = before(&house, &upstream).await;
    let mut wire = Wire::to(proxy.address).await;
    for _ in 0..20 {
        wire.say("GET /host HTTP/1.1\r\nHost: shop:81\r\n\r\n")
            .await;
        assert!(wire.head().await.starts_with("http/1.1 200 "));
        assert_eq!(wire.bytes(7).await, "shop:81");
    }
    wire.say("GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .await;
    let answer = wire.rest().await.to_ascii_lowercase();
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with("hello"),
        "{answer}"
    );
    assert_eq!(upstream.connections(), 1, "the client's wish is its own");
}

#[tokio::test]
async fn an_answer_may_have_a_thousand_headers_and_no_more() {
    let house = House::new();
    for (count, status) in [(999, 200), (1_001, 502)] {
        let many = Upstream::start(move |_| async move {
            let mut answer = text("many");
            // Content-Length and Date are the others.
            for number in 0..count - 2 {
                let value = number.to_string().parse().unwrap();
                answer.headers_mut().append("set-cookie", value);
            }
            answer
        })
        .await;
        let proxy = house.proxy().await;
        proxy.put(&only(1, &[&many.address])).await;
        let mut wire = Wire::to(proxy.address).await;
        wire.say("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let head = wire.head().await;
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{count}: {head}"
        );
        if status == 200 {
            assert_eq!(head.matches("set-cookie").count(), count - 2);
        }
        proxy.kill();
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_in_front_says_for_whom_it_asks() {
    let house = House::new();
    let shop = Upstream::start(|request: http::Request<hyper::body::Incoming>| async move {
        let said = |name: &str| {
            let value = request.headers().get(name).map(|it| it.to_str().unwrap());
            value.unwrap_or("-").to_owned()
        };
        let names = [
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-for",
        ];
        text(names.map(said).join(" "))
    })
    .await;
    for (trusted, seen) in [
        (
            vec!["127.0.0.0/8"],
            "https shop.example 443 203.0.113.9, 127.0.0.1",
        ),
        (vec!["10.0.0.0/8"], "http shop - 127.0.0.1"),
        (vec![], "http shop - 127.0.0.1"),
    ] {
        let start = super::support::proxy::ProxyStart {
            trusted: trusted.into_iter().map(str::to_owned).collect(),
            ..house.usual()
        };
        let proxy = super::support::Proxy::start(&start).await.unwrap();
        proxy.put(&only(1, &[&shop.address])).await;
        let mut request = super::support::client::ask(http::Method::GET, "/", "");
        for (name, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-for", "203.0.113.9"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let mut conversation = super::support::Conversation::with(proxy.address).await;
        assert_eq!(conversation.send(request).await.unwrap().text(), seen);
        proxy.kill();
    }
}
