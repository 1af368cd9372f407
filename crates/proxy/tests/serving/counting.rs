//! What the proxy says about itself: counts, durations, the access log; and drills, which count as the release's own failures.

use std::time::Duration;

use http::{Method, Response};
use shipway_proxy::protocol::{
    FULL, FaultEffect, FaultList, InjectedFault, ServiceRoute, StickyBy, UserCounting,
};
use tokio::task::JoinSet;

use super::support::{
    Conversation, House, Proxy, SHOP, Upstream, backend,
    client::{Body, ask, whole},
    get, only,
    proxy::ProxyStart,
    route, snapshot, until,
    upstream::text,
    within,
};

/// Answers `/<status>` with that status, after `?<ms>` milliseconds.
async fn obeying() -> Upstream {
    Upstream::start(|request| async move {
        let wait = request.uri().query().map_or(0, |it| it.parse().unwrap());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let status: u16 = request.uri().path()[1..].parse().unwrap_or(200);
        Response::builder()
            .status(status)
            .body(whole("12345"))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn counts_are_exact_after_load() {
    let (house, one, two) = (House::new(), obeying().await, obeying().await);
    let proxy = house.proxy().await;
    proxy
        .put(&snapshot(vec![route(vec![
            backend(2, FULL / 5, &[&two.address]),
            backend(1, FULL - FULL / 5, &[&one.address]),
        ])]))
        .await;
    let mut clients = JoinSet::new();
    let address = proxy.address;
    for _ in 0..8 {
        clients.spawn(async move {
            let mut conversation = Conversation::with(address).await;
            for path in ["/200", "/201", "/301", "/404", "/500"].repeat(40) {
                let request = ask(Method::POST, path, "abc");
                assert_eq!(conversation.send(request).await.unwrap().body, "12345");
            }
        });
    }
    within("clients are done", clients.join_all()).await;
    get(proxy.address, "/").await;
    let (first, second) = (proxy.count(1).await, proxy.count(2).await);
    assert_eq!(first.requests, u64::try_from(one.requests()).unwrap());
    assert_eq!(second.requests, u64::try_from(two.requests()).unwrap());
    assert_eq!(first.requests + second.requests, 1_601);
    for (class, count) in [("2xx", 641), ("3xx", 320), ("4xx", 320), ("5xx", 320)] {
        assert_eq!(
            first.responses[class] + second.responses[class],
            count,
            "{class}"
        );
    }
    assert_eq!(first.bytes_in + second.bytes_in, 3 * 1_600);
    assert_eq!(first.bytes_out + second.bytes_out, 5 * 1_601);
    for entry in [&first, &second] {
        assert_eq!(entry.latency.count(), entry.requests);
        assert_eq!((entry.open, entry.proxy_errors, entry.retries), (0, 0, 0));
    }
    assert_eq!(proxy.counters().await.unwrap().no_route, 0);
}

#[tokio::test]
async fn durations_are_what_the_client_waited() {
    let (house, shop) = (House::new(), obeying().await);
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for number in 0..40 {
        conversation
            .get(if number % 4 == 0 {
                "/200?120"
            } else {
                "/200?20"
            })
            .await;
    }
    let latency = proxy.count(1).await.latency;
    let at = |share| latency.quantile(share).unwrap();
    assert!(
        at(0.0) >= Duration::from_millis(20) && at(0.7) < Duration::from_millis(100),
        "{latency:?}"
    );
    assert!(
        at(0.8) >= Duration::from_millis(120) && at(1.0) < Duration::from_secs(5),
        "{latency:?}"
    );
    // A duration counts to the last byte.
    let slow = Upstream::start(|_| async {
        let frames = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Ok(hyper::body::Frame::data("late".into()))
        });
        Response::new(http_body_util::BodyExt::boxed(
            http_body_util::StreamBody::new(frames),
        ))
    })
    .await;
    proxy.put(&only(2, &[&slow.address])).await;
    assert_eq!(conversation.get("/").await.text(), "late");
    let latency = proxy.count(2).await.latency;
    assert!(
        latency.quantile(0.0).unwrap() >= Duration::from_millis(150),
        "{latency:?}"
    );
}

#[tokio::test]
async fn counts_go_on_when_routes_and_instances_change() {
    let (house, shop, other) = (House::new(), obeying().await, obeying().await);
    let proxy = house.proxy().await;
    for number in 1..=10 {
        let address = if number % 2 == 0 {
            &shop.address
        } else {
            &other.address
        };
        proxy.put(&only(1, &[address])).await;
        get(proxy.address, "/").await;
        assert_eq!(proxy.count(1).await.requests, number);
    }
    // A release that is in no route any more isn't forgotten.
    proxy.put(&only(2, &[&shop.address])).await;
    assert_eq!(proxy.count(1).await.requests, 10);
    assert_eq!(proxy.counted(3).await, None);
}

fn drill(share: u32, effect: FaultEffect) -> FaultList {
    let fault = InjectedFault {
        service: SHOP.to_owned(),
        environment: "production".to_owned(),
        release: 1,
        share,
        effect,
    };
    FaultList {
        faults: vec![fault],
    }
}

#[tokio::test]
async fn a_drill_fails_as_ordered_and_counts_as_the_releases_own_failure() {
    let (house, shop) = (House::new(), obeying().await);
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    proxy
        .send_faults(&drill(FULL, FaultEffect::Status(503)))
        .await
        .unwrap();
    assert_eq!(conversation.get("/").await.status, 503);
    proxy
        .send_faults(&drill(FULL, FaultEffect::LatencyMs(80)))
        .await
        .unwrap();
    assert_eq!(conversation.get("/").await.status, 200);
    proxy
        .send_faults(&drill(FULL, FaultEffect::Reset))
        .await
        .unwrap();
    assert!(conversation.send(ask(Method::GET, "/", "")).await.is_err());
    assert_eq!(shop.requests(), 1, "only the late one got there");
    let entry = proxy.count(1).await;
    assert_eq!(
        (entry.requests, entry.responses["5xx"], entry.proxy_errors),
        (3, 2, 0)
    );
    assert!(entry.latency.quantile(1.0).unwrap() >= Duration::from_millis(80));
    proxy
        .send_faults(&drill(FULL / 2, FaultEffect::Status(500)))
        .await
        .unwrap();
    let mut conversation = Conversation::with(proxy.address).await;
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(conversation.get("/").await.status == 500);
    }
    assert!((60..=140).contains(&failed), "{failed} of 200");
    proxy.send_faults(&FaultList::default()).await.unwrap();
    assert_eq!(conversation.get("/").await.status, 200);
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request() {
    let (house, shop) = (House::new(), obeying().await);
    let path = house.path("access.log");
    let start = ProxyStart {
        access_log: Some(path.clone()),
        ..house.usual()
    };
    let proxy = Proxy::start(&start).await.unwrap();
    proxy.put(&only(1, &[&shop.address])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for number in 0..20 {
        let mut request = ask(Method::POST, "/404", "abc");
        let id = format!("id-{number}").parse().unwrap();
        request.headers_mut().insert("x-request-id", id);
        conversation.send(request).await.unwrap();
    }
    proxy.put(&only(1, &[])).await;
    assert_eq!(conversation.get("/gone?secret").await.status, 503);
    let lines = || -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(&path).unwrap();
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    until("all is written", async || lines().len() == 21).await;
    let lines = lines();
    for (number, line) in lines[..20].iter().enumerate() {
        assert_eq!(line["request_id"], format!("id-{number}"));
        let said = [
            &line["status"],
            &line["bytes_in"],
            &line["bytes_out"],
            &line["release"],
        ];
        assert_eq!(said.map(|it| it.as_u64().unwrap()), [404, 3, 5, 1]);
        let said = [
            &line["method"],
            &line["host"],
            &line["path"],
            &line["client"],
        ];
        assert_eq!(
            said.map(|it| it.as_str().unwrap()),
            ["POST", SHOP, "/404", "127.0.0.1"]
        );
        assert_eq!(line["proxy_error"], false);
    }
    assert_eq!(
        (&lines[20]["status"], &lines[20]["proxy_error"]),
        (&503.into(), &true.into())
    );
    assert_eq!(lines[20]["path"], "/gone", "what follows may be a secret");
}

#[tokio::test]
async fn who_is_too_slow_with_a_head_is_let_go() {
    let (house, shop) = (
        House::new(),
        Upstream::start(|_| async { text("shop") }).await,
    );
    let start = ProxyStart {
        head_within: Some(Duration::from_secs(1)),
        ..house.usual()
    };
    let proxy = Proxy::start(&start).await.unwrap();
    proxy.put(&only(1, &[&shop.address])).await;
    let mut wire = super::support::Wire::to(proxy.address).await;
    wire.say("GET / HTTP/1.1\r\nHost: sh").await;
    let mut idle = Conversation::with(proxy.address).await;
    // On a busy machine these clients may be too slow themselves now and then.
    let _ = idle.send(ask(Method::GET, "/", "")).await;
    assert_eq!(wire.rest().await, "");
    until("so is who says nothing", async || idle.is_over()).await;
    until("who is quick enough is served", async || {
        let mut quick = Conversation::with(proxy.address).await;
        let answer = quick.send(ask(Method::GET, "/", "")).await;
        answer.is_ok_and(|answer| answer.text() == "shop")
    })
    .await;
}

/// A request of the user of this name.
fn of_user(user: &str, path: &str) -> http::Request<Body> {
    let mut request = ask(Method::GET, path, "");
    request
        .headers_mut()
        .insert("x-user", user.parse().unwrap());
    request
}

#[tokio::test]
async fn users_who_fail_are_counted_once_whatever_the_weights_become() {
    let (house, one, two) = (House::new(), obeying().await, obeying().await);
    let proxy = house.proxy().await;
    let split = |share: u32, salt: &str| ServiceRoute {
        sticky: StickyBy::Header("x-user".to_owned()),
        salt: salt.to_owned(),
        users: Some(UserCounting {
            slow_over_micros: vec![200_000],
        }),
        ..route(vec![
            backend(2, share, &[&two.address]),
            backend(1, FULL - share, &[&one.address]),
        ])
    };
    proxy.put(&snapshot(vec![split(FULL / 2, "shop/1")])).await;
    assert_eq!(proxy.count(1).await.users.unwrap().slow[&200_000], 0);
    let mut conversation = Conversation::with(proxy.address).await;
    for round in 0..3 {
        for user in 0..100 {
            // Every fourth fails, and goes on failing; one waits too long.
            let path = match user % 4 {
                0 => "/503",
                _ if user == 1 && round == 0 => "/200?250",
                _ => "/200",
            };
            let asked = of_user(&format!("user-{user}"), path);
            conversation.send(asked).await.unwrap();
        }
        // All who were on the other side move over, and are no news.
        let share = [FULL - 1, 1, FULL / 2][round];
        proxy.put(&snapshot(vec![split(share, "shop/1")])).await;
    }
    let users = async || {
        let (old, new) = (proxy.count(1).await, proxy.count(2).await);
        let (old, new) = (old.users.unwrap(), new.users.unwrap());
        let slow = old.slow[&200_000] + new.slow[&200_000];
        (old.errors, new.errors, slow)
    };
    let (old, new, slow) = users().await;
    assert_eq!((old + new, slow), (25, 1));
    assert!(old > 3 && new > 3, "{old} and {new} of both sides");

    // The next rollout draws anew.
    proxy.put(&snapshot(vec![split(FULL / 2, "shop/2")])).await;
    conversation.send(of_user("user-0", "/500")).await.unwrap();
    let (old, new, _) = users().await;
    assert_eq!(old + new, 26);

    // Where nobody asks, nobody is counted.
    let mut silent = split(FULL / 2, "shop/2");
    silent.users = None;
    proxy.put(&snapshot(vec![silent])).await;
    conversation.send(of_user("user-4", "/500")).await.unwrap();
    let (old, new, _) = users().await;
    assert_eq!(old + new, 26);
}
