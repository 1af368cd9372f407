//! Requests that never get an answer, or only half of one: what is counted, and when that is known.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use shipway_proxy::protocol::{FULL, ServiceRoute, StickyBy, UserCounting};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
};

use super::support::{
    Conversation, House, Proxy, Raw, Upstream, Wire, backend, client::ask, only, proxy::ProxyStart,
    route, snapshot, until, upstream::text,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
/// Long enough for a limit of 50 ms to be passed.
const LIMIT: Duration = Duration::from_millis(50);

/// An instance that answers one request for each permit.
async fn on_permit() -> (Upstream, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let waiting = permits.clone();
    let upstream = Upstream::start(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            text("at last")
        }
    })
    .await;
    (upstream, permits)
}

/// The shop's only release, with this limit for the head of an answer.
fn impatient(address: &str) -> ServiceRoute {
    ServiceRoute {
        answer_within_ms: u64::try_from(LIMIT.as_millis()).unwrap(),
        ..route(vec![backend(1, FULL, &[address])])
    }
}

#[tokio::test]
async fn a_request_that_its_client_gives_up_is_abandoned_at_its_age() {
    let (house, (silent, _permits)) = (House::new(), on_permit().await);
    let log = house.path("access.log");
    let start = ProxyStart {
        access_log: Some(log.clone()),
        ..house.usual()
    };
    let proxy = Proxy::start(&start).await.unwrap();
    proxy.put(&only(1, &[&silent.address])).await;
    for _ in 0..3 {
        let mut wire = Wire::to(proxy.address).await;
        wire.say(GET).await;
        until("it is old enough", async || {
            proxy.count(1).await.open_ages.count_above(LIMIT) == 1
        })
        .await;
        drop(wire);
        until("nothing is open", async || proxy.count(1).await.open == 0).await;
    }
    let entry = proxy.count(1).await;
    assert_eq!((entry.requests, entry.abandoned), (0, 3));
    assert_eq!(
        (
            entry.unfinished.count(),
            entry.unfinished.count_above(LIMIT)
        ),
        (3, 3)
    );
    assert!(entry.open_ages.is_empty() && entry.latency.is_empty());
    until("it is in the access log", async || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.matches("\"status\":499").count() == 3
    })
    .await;
}

#[tokio::test]
async fn an_open_request_is_known_when_counters_are_read_and_counts_once() {
    let (house, (slow, permits)) = (House::new(), on_permit().await);
    let proxy = house.proxy().await;
    proxy.put(&snapshot(vec![impatient(&slow.address)])).await;
    let address = proxy.address;
    let asking = tokio::spawn(async move { super::support::get(address, "/").await });
    // What is known to be slower than the limit, and what is known to have had no response in time.
    let known = async || {
        let entry = proxy.count(1).await;
        let slow = entry.latency.count_above(LIMIT) + entry.open_ages.count_above(LIMIT);
        (slow, entry.late + entry.overdue, entry.requests)
    };
    until("it is overdue", async || known().await.1 == 1).await;
    assert_eq!(known().await, (1, 1, 0), "nothing has been answered yet");
    permits.add_permits(1);
    assert_eq!(asking.await.unwrap().text(), "at last");
    until("it is over", async || proxy.count(1).await.open == 0).await;
    assert_eq!(known().await, (1, 1, 1), "it was counted already");
    let entry = proxy.count(1).await;
    assert_eq!((entry.late, entry.overdue, entry.abandoned), (1, 0, 0));
    assert_eq!(entry.responses["2xx"], 1);
}

#[tokio::test]
async fn counts_of_open_and_ended_requests_together_never_fall() {
    let house = House::new();
    let shop = Upstream::start(|_| async {
        tokio::time::sleep(LIMIT + Duration::from_millis(20)).await;
        text("slow")
    })
    .await;
    let proxy = house.proxy().await;
    proxy.put(&snapshot(vec![impatient(&shop.address)])).await;
    let load = super::support::Load::on(proxy.address, 16);
    let (mut slow, mut failed, mut known) = (0, 0, 0);
    while slow <= 100 {
        let entry = proxy.count(1).await;
        let now = entry.latency.count_above(LIMIT) + entry.open_ages.count_above(LIMIT);
        assert!(now >= slow, "slow: {slow}, then {now}");
        slow = now;
        assert!(entry.late + entry.overdue >= failed, "{entry:?}");
        failed = entry.late + entry.overdue;
        assert!(entry.requests + entry.overdue >= known, "{entry:?}");
        known = entry.requests + entry.overdue;
    }
    load.stop().await;
}

#[tokio::test]
async fn users_who_wait_are_counted_while_they_wait_and_once() {
    let (house, (silent, _permits)) = (House::new(), on_permit().await);
    let proxy = house.proxy().await;
    let split = ServiceRoute {
        sticky: StickyBy::Header("x-user".to_owned()),
        users: Some(UserCounting {
            slow_over_micros: vec![u64::try_from(LIMIT.as_micros()).unwrap()],
        }),
        backends: vec![
            backend(2, FULL / 2, &[&silent.address]),
            backend(1, FULL / 2, &[&silent.address]),
        ],
        ..impatient(&silent.address)
    };
    proxy.put(&snapshot(vec![split])).await;
    let told = async || {
        let (new, old) = (proxy.count(2).await.users, proxy.count(1).await.users);
        let (new, old) = (new.unwrap(), old.unwrap());
        let slow =
            |users: &shipway_proxy::protocol::FailedUserCounts| users.slow.values().sum::<u64>();
        (new.errors + old.errors, slow(&new) + slow(&old))
    };
    let mut waiting = Vec::new();
    for user in ["ada", "ada", "grace"] {
        let mut wire = Wire::to(proxy.address).await;
        wire.say(format!(
            "GET / HTTP/1.1\r\nHost: shop\r\nX-User: {user}\r\n\r\n"
        ))
        .await;
        waiting.push(wire);
    }
    until("both users are counted", async || told().await == (2, 2)).await;
    drop(waiting);
    until("all have given up", async || {
        proxy.count(1).await.abandoned + proxy.count(2).await.abandoned == 3
    })
    .await;
    assert_eq!(told().await, (2, 2));
}

#[tokio::test]
async fn an_answer_that_stops_halfway_is_no_success_when_its_client_leaves() {
    for (head, abandoned) in [
        ("Content-Length: 10\r\n\r\nhalf", 1),
        // Perhaps a stream of events that its client is done with.
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0),
    ] {
        let house = House::new();
        let raw = Raw::start(move |mut stream| async move {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes())
                .await;
            let _ = stream.read(&mut request).await;
        })
        .await;
        let proxy = house.proxy().await;
        proxy.put(&only(1, &[&raw.address])).await;
        let mut wire = Wire::to(proxy.address).await;
        wire.say(GET).await;
        assert!(wire.head().await.starts_with("http/1.1 200"));
        let stalled = Duration::from_millis(1_200);
        until("it has stopped for long enough", async || {
            proxy.count(1).await.open_ages.count_above(stalled) == 1
        })
        .await;
        drop(wire);
        until("it is over", async || proxy.count(1).await.open == 0).await;
        let entry = proxy.count(1).await;
        assert_eq!(
            (entry.abandoned, entry.requests),
            (abandoned, 1 - abandoned),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_own_upload_says_nothing_about_the_release() {
    let (house, (silent, _permits)) = (House::new(), on_permit().await);
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&silent.address])).await;
    let mut half = Wire::to(proxy.address).await;
    half.say("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    let mut whole = Wire::to(proxy.address).await;
    whole
        .say("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nfull")
        .await;
    until("both are there", async || silent.requests() == 2).await;
    drop((half, whole));
    until("nothing is open", async || proxy.count(1).await.open == 0).await;
    let entry = proxy.count(1).await;
    assert_eq!(
        (entry.abandoned, entry.requests, entry.responses["4xx"]),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn the_time_of_an_upload_is_the_clients() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let patient = ServiceRoute {
        answer_within_ms: 1_500,
        ..impatient(&shop.address)
    };
    proxy.put(&snapshot(vec![patient])).await;
    let longer = Duration::from_secs(2);
    let mut wire = Wire::to(proxy.address).await;
    wire.say("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 8\r\n\r\nhalf")
        .await;
    until("it takes its time", async || {
        proxy.count(1).await.open_ages.count_above(longer) == 1
    })
    .await;
    assert_eq!(proxy.count(1).await.overdue, 0);
    wire.say("half").await;
    assert!(wire.head().await.starts_with("http/1.1 200"));
    assert_eq!(wire.bytes(4).await, "shop");
    let entry = proxy.count(1).await;
    assert_eq!((entry.late, entry.latency.count_above(longer)), (0, 1));
}

#[tokio::test]
async fn a_client_that_leaves_while_its_request_is_held_is_counted() {
    let house = House::new();
    let proxy = house.proxy().await;
    let held = ServiceRoute {
        hold_ms: 600_000,
        ..route(vec![backend(1, FULL, &[])])
    };
    proxy.put(&snapshot(vec![held])).await;
    let mut wire = Wire::to(proxy.address).await;
    wire.say(GET).await;
    until("it is held", async || {
        proxy.counters().await.unwrap().held == 1
    })
    .await;
    drop(wire);
    until("it is let go", async || proxy.count(1).await.abandoned == 1).await;
    assert_eq!(proxy.count(1).await.requests, 0);
}

#[tokio::test]
async fn what_a_proxy_had_open_is_known_to_its_successor_whether_it_ends_well_or_dies() {
    let (house, (slow, permits)) = (House::new(), on_permit().await);
    let first = house.proxy().await;
    first.put(&snapshot(vec![impatient(&slow.address)])).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(first.address).await;
        wire.say(GET).await;
        waiting.push(wire);
    }
    until("they are overdue", async || {
        first.count(1).await.overdue == 2
    })
    .await;
    let second = house.successor().await;
    until("they are overdue there, too", async || {
        second.count(1).await.overdue == 2
    })
    .await;
    permits.add_permits(1);
    until("one is answered late", async || {
        let entry = second.count(1).await;
        (entry.late, entry.overdue) == (1, 1)
    })
    .await;
    first.kill();
    until("the other has ended without an answer", async || {
        let entry = second.count(1).await;
        (entry.late, entry.overdue, entry.unfinished.count()) == (2, 0, 1)
    })
    .await;
    let entry = second.count(1).await;
    assert_eq!(
        (entry.requests, entry.open_ages.count(), entry.open),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn a_websocket_is_no_request_that_waits() {
    let (house, chat) = (
        House::new(),
        Upstream::start(
            |mut request: http::Request<hyper::body::Incoming>| async move {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut open = TokioIo::new(upgrade.await.unwrap());
                    let _ = open.read(&mut [0]).await;
                });
                let mut answer = text("");
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = answer.headers_mut();
                headers.insert("connection", "upgrade".parse().unwrap());
                headers.insert("upgrade", "websocket".parse().unwrap());
                answer
            },
        )
        .await,
    );
    let proxy = house.proxy().await;
    proxy.put(&snapshot(vec![impatient(&chat.address)])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let mut request = ask(Method::GET, "/", "");
    let headers = request.headers_mut();
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    let mut answer = conversation.begin(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let socket = hyper::upgrade::on(&mut answer).await.unwrap();
    tokio::time::sleep(2 * LIMIT).await;
    let entry = proxy.count(1).await;
    assert_eq!(
        (entry.open, entry.open_ages.count(), entry.overdue),
        (1, 0, 0)
    );
    drop(socket);
    until("it is over", async || proxy.count(1).await.open == 0).await;
    assert_eq!(proxy.count(1).await.abandoned, 0);
}
