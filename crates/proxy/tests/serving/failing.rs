//! Instances that fail: what is held, what is sent again, what never is, and what a client sees.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::Method;
use shipway_proxy::protocol::{FULL, RouteSnapshot, ServiceRoute};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{
    Conversation, House, Proxy, Raw, Upstream, Wire, backend,
    client::ask,
    get, only, route, snapshot, until,
    upstream::{Nobody, text},
};

/// Like [`only`], and requests are held for so long.
fn held(milliseconds: u64, addresses: &[&str]) -> RouteSnapshot {
    snapshot(vec![ServiceRoute {
        hold_ms: milliseconds,
        ..route(vec![backend(1, FULL, addresses)])
    }])
}

/// Answers once a request is there to its end, if it ends; how much of it came.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|it| it.strip_prefix("content-length: "));
            if length.map_or(0, |it| it.parse().unwrap()) <= body.len() {
                return text;
            }
        }
        match stream.read(&mut piece).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return text,
        }
    }
}

/// Answers each request of a connection with the next of these; then it closes the connection, having read one more.
async fn scripted(answers: &'static [&'static str]) -> (Raw, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let raw = Raw::start(move |mut stream| {
        let counted = counted.clone();
        async move {
            for answer in answers.iter().copied().map(Some).chain([None]) {
                if read_request(&mut stream).await.is_empty() {
                    return;
                }
                counted.fetch_add(1, SeqCst);
                if let Some(answer) = answer {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    (raw, seen)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn before(house: &House, address: &str) -> Proxy {
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[address])).await;
    proxy
}

#[tokio::test]
async fn a_request_is_held_until_somebody_can_answer() {
    let (house, shop) = (House::new(), Upstream::named("open").await);
    let proxy = house.proxy().await;
    proxy.put(&held(20_000, &[])).await;
    let address = proxy.address;
    let asking: Vec<_> = (0..10)
        .map(|_| tokio::spawn(async move { get(address, "/").await }))
        .collect();
    until("all are held", async || {
        proxy.counters().await.unwrap().held == 10
    })
    .await;
    // Routes that help nobody let nobody go.
    proxy.put(&held(20_000, &[])).await;
    assert_eq!(proxy.counters().await.unwrap().held, 10);
    proxy.put(&held(20_000, &[&shop.address])).await;
    for asked in asking {
        assert_eq!(asked.await.unwrap().text(), "open");
    }
    assert_eq!(proxy.counters().await.unwrap().held, 0);
    let entry = proxy.count(1).await;
    assert_eq!(
        (entry.requests, entry.proxy_errors, entry.retries),
        (10, 0, 0)
    );
}

#[tokio::test]
async fn nobody_is_held_for_longer_than_the_route_says() {
    let house = House::new();
    let proxy = house.proxy().await;
    proxy.put(&held(150, &[])).await;
    let begun = Instant::now();
    let got = get(proxy.address, "/").await;
    assert_eq!((got.status, got.text()), (503, "no instance is ready\n"));
    assert_eq!(got.headers["retry-after"], "1");
    assert!(begun.elapsed() >= Duration::from_millis(150));
    proxy.put(&held(0, &[])).await;
    assert_eq!(get(proxy.address, "/").await.status, 503);
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.proxy_errors), (2, 2));
    // Who goes away is held no longer.
    proxy.put(&held(600_000, &[])).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until("it is held", async || {
        proxy.counters().await.unwrap().held == 1
    })
    .await;
    drop(wire);
    until("it is let go", async || {
        proxy.counters().await.unwrap().held == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_waits_for_an_instance_that_can_not_be_reached_yet() {
    let (house, nobody) = (House::new(), Nobody::new());
    let proxy = house.proxy().await;
    proxy.put(&held(20_000, &[&nobody.address])).await;
    let address = proxy.address;
    let asking = tokio::spawn(async move {
        let mut conversation = Conversation::with(address).await;
        conversation
            .send(ask(Method::POST, "/", "order"))
            .await
            .unwrap()
    });
    until("it is held", async || {
        proxy.counters().await.unwrap().held == 1
    })
    .await;
    let shop = Upstream::on(nobody.listen(), |_| async { text("taken") });
    assert_eq!(asking.await.unwrap().text(), "taken");
    assert_eq!(shop.requests(), 1);
}

#[tokio::test]
async fn an_instance_that_can_not_be_reached_costs_nobody_an_answer_and_comes_back() {
    let (house, good, bad) = (House::new(), Upstream::named("good").await, Nobody::new());
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&bad.address, &good.address])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for _ in 0..100 {
        let got = conversation
            .send(ask(Method::POST, "/", "order"))
            .await
            .unwrap();
        assert_eq!(got.text(), "good");
    }
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.proxy_errors), (100, 0));
    assert!(
        (1..=5).contains(&entry.retries),
        "{} retries",
        entry.retries
    );
    let back = Upstream::on(bad.listen(), |_| async { text("back") });
    until("it is asked again", async || {
        conversation.get("/").await;
        back.requests() > 0
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_nobody_can_reach_is_a_502() {
    let (house, nobody) = (House::new(), Nobody::new());
    let proxy = before(&house, &nobody.address).await;
    for _ in 0..3 {
        let got = get(proxy.address, "/").await;
        assert_eq!(
            (got.status, got.text()),
            (502, "no instance could be reached\n")
        );
    }
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.proxy_errors), (3, 3));
    assert_eq!(entry.responses["5xx"], 3);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let house = House::new();
    for (method, body) in [
        (Method::POST, "order"),
        (Method::POST, ""),
        (Method::PATCH, ""),
        (Method::PUT, "all of it"),
    ] {
        // The second request over a kept connection is read, and then the connection breaks.
        let (raw, seen) = scripted(&[OK]).await;
        let proxy = before(&house, &raw.address).await;
        let mut conversation = Conversation::with(proxy.address).await;
        assert_eq!(conversation.get("/").await.text(), "ok");
        let got = conversation
            .send(ask(method.clone(), "/", body))
            .await
            .unwrap();
        assert_eq!(got.status, 502, "{method} {body:?}");
        assert_eq!(seen.load(SeqCst), 2, "{method} {body:?}");
        assert_eq!(raw.connections(), 1, "it went over the kept one");
        let entry = proxy.count(1).await;
        assert_eq!((entry.retries, entry.proxy_errors), (0, 1));
        proxy.kill();
    }
}

#[tokio::test]
async fn what_does_no_harm_twice_is_sent_again_over_a_new_connection() {
    let (house, (raw, seen)) = (House::new(), scripted(&[OK]).await);
    let proxy = before(&house, &raw.address).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for _ in 0..4 {
        assert_eq!(conversation.get("/").await.text(), "ok");
    }
    // Each but the first broke over the kept connection.
    assert_eq!((seen.load(SeqCst), raw.connections()), (7, 4));
    let entry = proxy.count(1).await;
    assert_eq!(
        (entry.requests, entry.retries, entry.proxy_errors),
        (4, 3, 0)
    );
}

#[tokio::test]
async fn a_get_is_not_sent_on_and_on() {
    let (house, (raw, seen)) = (House::new(), scripted(&[]).await);
    let proxy = before(&house, &raw.address).await;
    assert_eq!(get(proxy.address, "/").await.status, 502);
    assert_eq!(seen.load(SeqCst), 2, "it is sent again once");
    let entry = proxy.count(1).await;
    assert_eq!((entry.retries, entry.proxy_errors), (1, 1));
}

#[tokio::test]
async fn a_get_whose_instance_dies_is_answered_by_another_and_a_post_is_not() {
    let (house, (dying, seen)) = (House::new(), scripted(&[]).await);
    let well = Upstream::named("well").await;
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&dying.address, &well.address])).await;
    let mut retries = 0;
    for _ in 0..4 {
        assert_eq!(get(proxy.address, "/").await.text(), "well");
        let now = proxy.count(1).await.retries;
        assert!(now <= retries + 1, "no request is sent more than twice");
        retries = now;
    }
    assert!(retries > 0, "some went to the one that dies");
    assert_eq!(seen.load(SeqCst) as u64, retries);
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut conversation = Conversation::with(proxy.address).await;
        let got = conversation.send(ask(Method::POST, "/", "")).await.unwrap();
        statuses.insert(got.status);
    }
    assert_eq!(Vec::from_iter(statuses), [200, 502]);
    assert_eq!(proxy.count(1).await.retries, retries);
}

#[tokio::test]
async fn a_get_is_not_sent_again_once_something_of_its_answer_came() {
    let (house, (half, seen)) = (
        House::new(),
        scripted(&["HTTP/1.1 200 OK\r\nContent-"]).await,
    );
    let proxy = before(&house, &half.address).await;
    let asking = tokio::spawn({
        let address = proxy.address;
        async move { get(address, "/").await.status }
    });
    until("half a head is there", async || seen.load(SeqCst) == 1).await;
    drop(half);
    assert_eq!(asking.await.unwrap(), 502);
    assert_eq!(proxy.count(1).await.retries, 0);
}

#[tokio::test]
async fn an_answer_in_the_place_of_an_instance_never_resets_an_upload() {
    let (house, (dying, _)) = (House::new(), scripted(&[]).await);
    let proxy = house.proxy().await;
    let nobody = ServiceRoute {
        hosts: vec!["nobody".to_owned()],
        ..route(vec![backend(2, FULL, &[])])
    };
    let broken = route(vec![backend(1, FULL, &[&dying.address])]);
    proxy.put(&snapshot(vec![broken, nobody])).await;
    let body = vec![b'x'; 3 << 20];
    for (host, status) in [("nowhere", 404), ("nobody", 503)] {
        let mut wire = Wire::to(proxy.address).await;
        // The second request of the connection shows that the first was read to its end.
        for _ in 0..2 {
            let length = body.len();
            wire.say(format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
            ))
            .await;
            wire.say(&body).await;
            let head = wire.head().await;
            assert!(
                head.starts_with(&format!("http/1.1 {status} ")),
                "{host}: {head:?}"
            );
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            wire.bytes(length).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let house = House::new();
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = closed.clone();
    let raw = Raw::start(move |mut stream| {
        let counted = counted.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            drop(stream);
            counted.fetch_add(1, SeqCst);
        }
    })
    .await;
    let proxy = before(&house, &raw.address).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for number in 1..=20 {
        let got = conversation
            .send(ask(Method::POST, "/", "order"))
            .await
            .unwrap();
        assert_eq!(got.text(), "ok");
        until("it is closed", async || closed.load(SeqCst) == number).await;
    }
    assert_eq!(proxy.count(1).await.requests, 20);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_broken_for_the_client_and_counted() {
    let house = House::new();
    for begun in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let raw = Raw::start(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(begun.as_bytes()).await.unwrap();
        })
        .await;
        let proxy = before(&house, &raw.address).await;
        let mut conversation = Conversation::with(proxy.address).await;
        let got = conversation.send(ask(Method::GET, "/", "")).await;
        assert!(got.is_err(), "{got:?}");
        assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
        let entry = proxy.count(1).await;
        assert_eq!((entry.requests, entry.responses["5xx"]), (1, 1));
        assert_eq!(entry.proxy_errors, 0, "the release did answer");
        assert_eq!(entry.bytes_out, 4);
        proxy.kill();
    }
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_given_up() {
    let (house, silent) = (
        House::new(),
        Upstream::start(|_| std::future::pending()).await,
    );
    let proxy = house.proxy().await;
    let holds_skipped = ServiceRoute {
        timeout_ms: 100,
        ..route(vec![backend(1, FULL, &[&silent.address])])
    };
    proxy.put(&snapshot(vec![holds_skipped])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    assert_eq!(conversation.get("/").await.status, 504);
    let late = conversation
        .send(ask(Method::POST, "/", "order"))
        .await
        .unwrap();
    assert_eq!(late.status, 504);
    assert_eq!(silent.requests(), 2, "neither is sent again");
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.proxy_errors), (2, 2));
}

#[tokio::test]
async fn what_is_no_http_is_a_502() {
    let house = House::new();
    for nonsense in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nokmore",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let raw = Raw::start(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(nonsense.as_bytes()).await;
        })
        .await;
        let proxy = before(&house, &raw.address).await;
        assert_eq!(get(proxy.address, "/").await.status, 502, "{nonsense:?}");
        proxy.kill();
    }
}

#[tokio::test]
async fn an_answer_nobody_asked_for_reaches_nobody() {
    let house = House::new();
    let poisoned = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let raw = Raw::start(move |mut stream| async move {
        while !read_request(&mut stream).await.is_empty() {
            let _ = stream.write_all(poisoned.as_bytes()).await;
        }
    })
    .await;
    let proxy = before(&house, &raw.address).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for _ in 0..10 {
        assert_eq!(conversation.get("/").await.text(), "ok");
    }
    assert_eq!(raw.connections(), 10, "none was used again");
}

#[tokio::test]
async fn a_client_that_breaks_off_its_request_is_to_blame_itself() {
    let (house, (raw, seen)) = (House::new(), scripted(&[OK]).await);
    let proxy = before(&house, &raw.address).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    until("it is on its way", async || raw.connections() == 1).await;
    wire.finish().await;
    drop(wire);
    assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
    let entry = proxy.count(1).await;
    assert!(!entry.responses.contains_key("5xx"), "{entry:?}");
    assert_eq!(entry.proxy_errors, 0);
    until("the instance knows", async || seen.load(SeqCst) <= 1).await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_complete() {
    let house = House::new();
    let full = Raw::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let answer =
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfull";
        let _ = stream.write_all(answer.as_bytes()).await;
        let mut rest = vec![0; 1 << 16];
        while let Ok(1..) = stream.read(&mut rest).await {}
    })
    .await;
    let proxy = before(&house, &full.address).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\nbegins")
        .await;
    assert!(wire.head().await.starts_with("http/1.1 413 "));
    assert_eq!(wire.bytes(4).await, "full");
    drop(wire);
    assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.responses["4xx"]), (1, 1));
}
