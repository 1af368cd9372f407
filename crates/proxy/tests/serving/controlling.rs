//! The control socket: what makes no sense is refused with a sentence, and the routes before stay.

use std::os::unix::fs::PermissionsExt as _;

use http::Method;
use shipway_proxy::protocol::{
    FULL, RequestMatch, RouteBackend, RouteRule, RouteSnapshot, ServiceRoute, StickyBy,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    task::JoinSet,
};

use super::support::{
    House, SHOP, Upstream, Wire, backend,
    client::{Body, ask},
    get, only, route, snapshot, until, within,
};

/// Says it to the control socket; the whole answer.
async fn control(house: &House, request: impl AsRef<[u8]>) -> String {
    let mut stream = UnixStream::connect(house.path("control")).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    let mut answer = String::new();
    within(
        "the control socket answers",
        stream.read_to_string(&mut answer),
    )
    .await
    .unwrap();
    answer
}

fn put(body: &str) -> String {
    let length = body.len();
    format!(
        "PUT /routes HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn what_is_no_snapshot_is_refused_with_a_sentence_and_the_routes_stay() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let good = only(1, &[&shop.address]);
    proxy.put(&good).await;
    let whole = serde_json::to_string(&good).unwrap();
    for (body, says) in [
        ("", "EOF while parsing"),
        ("garbage", "expected value"),
        ("{\"version\":1}", "missing field `routes`"),
        ("[]", "invalid"),
        (&whole[..whole.len() - 9], "EOF while parsing"),
        (&whole.replacen("10000", "-1", 1), "-1"),
        (&whole.replacen("10000", "\"all\"", 1), "expected u32"),
        (
            &whole.replacen("\"none\"", "\"sometimes\"", 1),
            "unknown variant `sometimes`",
        ),
        (
            &whole.replacen("\"version\":1", "\"version\":2", 1),
            "snapshot version 2",
        ),
    ] {
        let answer = control(&house, put(body)).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains(says),
            "{body}: {answer}"
        );
        assert_eq!(get(proxy.address, "/").await.text(), "shop");
    }
    assert_eq!(proxy.routes().await.unwrap(), good);
    let answer = control(
        &house,
        "GET /nothing HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("PUT or GET /routes"),
        "{answer}"
    );
    let large = control(&house, put(&" ".repeat(17 << 20)[..(16 << 20) + 1])).await;
    assert!(
        large.starts_with("HTTP/1.1 400 ") && large.contains("length limit"),
        "{large}"
    );
}

#[tokio::test]
async fn a_snapshot_that_makes_no_sense_is_refused_and_the_routes_stay() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let good = only(1, &[&shop.address]);
    proxy.put(&good).await;
    let kept = std::fs::read(house.path("state/routes.json")).unwrap();
    let with = |backends: Vec<RouteBackend>| snapshot(vec![route(backends)]);
    let of = |route: ServiceRoute| snapshot(vec![route]);
    let full = || vec![backend(2, FULL, &[&shop.address])];
    let rule = RouteRule {
        only_if: RequestMatch::Header {
            name: "x-preview".to_owned(),
            value: "yes".to_owned(),
            compared: Default::default(),
        },
        release: 77,
    };
    let cases: Vec<(RouteSnapshot, &str)> = vec![
        (
            with(vec![backend(2, 9_999, &[])]),
            "add up to 9999, not to 10000 or 0",
        ),
        (
            with(vec![backend(2, FULL, &[]), backend(1, 1, &[])]),
            "add up to 10001",
        ),
        (
            with(vec![backend(2, u32::MAX, &[]), backend(1, u32::MAX, &[])]),
            "add up to 8589934590",
        ),
        (
            with(vec![backend(2, FULL, &["shop:80"])]),
            "\"shop:80\" is not an address",
        ),
        (
            with(vec![backend(2, FULL, &["127.0.0.1"])]),
            "\"127.0.0.1\" is not an address",
        ),
        (
            with(vec![backend(2, 5_000, &[]), backend(2, 5_000, &[])]),
            "release 2 twice",
        ),
        (
            of(ServiceRoute {
                sticky: StickyBy::Cookie("a=b".to_owned()),
                ..route(full())
            }),
            "\"a=b\" is not a valid name",
        ),
        (
            of(ServiceRoute {
                sticky: StickyBy::Header(String::new()),
                ..route(full())
            }),
            "\"\" is not a valid name",
        ),
        (
            of(ServiceRoute {
                sticky: StickyBy::Matched {
                    rules: vec![rule],
                    otherwise: Box::new(StickyBy::None),
                },
                ..route(full())
            }),
            "release 77",
        ),
        (
            snapshot(vec![
                ServiceRoute {
                    port: Some(81),
                    ..route(full())
                },
                ServiceRoute {
                    port: Some(81),
                    hosts: vec![],
                    ..route(full())
                },
            ]),
            "two routes use port 81",
        ),
    ];
    for (wrong, says) in cases {
        let refused = proxy.send_routes(&wrong).await.unwrap().refused;
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].service, SHOP);
        assert!(refused[0].reason.contains(says), "{refused:?}");
        assert_eq!(get(proxy.address, "/").await.text(), "shop");
    }
    assert_eq!(proxy.routes().await.unwrap(), good);
    assert_eq!(
        std::fs::read(house.path("state/routes.json")).unwrap(),
        kept
    );
    assert_eq!(
        proxy.counted(2).await,
        None,
        "what was refused isn't counted"
    );
}

#[tokio::test]
async fn a_port_of_a_route_that_is_taken_keeps_no_other_route_waiting() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let with_port = ServiceRoute {
        port: Some(port),
        ..route(vec![backend(1, FULL, &[&shop.address])])
    };
    proxy.put(&snapshot(vec![with_port.clone()])).await;
    assert_eq!(get(proxy.address, "/").await.text(), "shop");
    let unreachable = proxy.health().await.unwrap().unreachable_ports;
    assert!(unreachable[&port].contains("in use"), "{unreachable:?}");
    assert!(proxy.log().contains("can't listen on"));
    // Once another program has freed it, the proxy opens it by itself.
    drop(taken);
    until("the port is listened on", async || {
        let health = proxy.health().await.unwrap();
        health.unreachable_ports.is_empty()
    })
    .await;
    let beside = std::net::SocketAddr::new(proxy.address.ip(), port);
    assert_eq!(get(beside, "/").await.text(), "shop");
}

#[tokio::test]
async fn a_reserved_port_is_listened_on_and_leads_to_no_service() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let routes = |port_of_route, reserved_ports| RouteSnapshot {
        reserved_ports,
        ..snapshot(vec![ServiceRoute {
            port: port_of_route,
            ..route(vec![backend(1, FULL, &[&shop.address])])
        }])
    };
    proxy.put(&routes(None, vec![port])).await;
    let beside = std::net::SocketAddr::new(proxy.address.ip(), port);
    assert_eq!(get(beside, "/").await.status, 404);
    proxy.put(&routes(Some(port), vec![])).await;
    assert_eq!(get(beside, "/").await.text(), "shop");
}

#[tokio::test]
async fn routes_that_can_not_be_kept_are_not_used() {
    let (house, one, two) = (
        House::new(),
        Upstream::named("one").await,
        Upstream::named("two").await,
    );
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&one.address])).await;
    // A folder in the place of the file: as good as a full disk.
    std::fs::create_dir(house.path("state/routes.json.new")).unwrap();
    let error = proxy
        .send_routes(&only(2, &[&two.address]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the routes can't be saved"),
        "{error}"
    );
    assert_eq!(get(proxy.address, "/").await.text(), "one");
    std::fs::remove_dir(house.path("state/routes.json.new")).unwrap();
    proxy.put(&only(2, &[&two.address])).await;
    assert_eq!(get(proxy.address, "/").await.text(), "two");
}

#[tokio::test]
async fn only_the_owner_can_reach_the_control_socket() {
    let house = House::new();
    let _proxy = house.proxy().await;
    let mode = std::fs::metadata(house.path("control"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn whoever_asks_for_the_sockets_and_vanishes_changes_nothing() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    for socket in ["nowhere", "control.lock"] {
        let body = serde_json::json!({ "socket": house.path(socket) }).to_string();
        let length = body.len();
        let asked = format!(
            "POST /handover HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        assert!(control(&house, asked).await.starts_with("HTTP/1.1 400 "));
    }
    proxy.put(&only(2, &[&shop.address])).await;
    assert_eq!(get(proxy.address, "/").await.text(), "shop");
    // This one gets them, and dies before it serves.
    let listener = tokio::net::UnixListener::bind(house.path("grave")).unwrap();
    let body = serde_json::json!({ "socket": house.path("grave") }).to_string();
    let length = body.len();
    let asked = format!(
        "POST /handover HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    assert!(control(&house, asked).await.starts_with("HTTP/1.1 200 "));
    drop(listener);
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/").await.text(), "shop");
    }
    assert_eq!(proxy.count(2).await.requests, 21);
    // The next one really takes over.
    let next = house.successor().await;
    assert_eq!(get(next.address, "/").await.text(), "shop");
    assert_eq!(next.count(2).await.requests, 22);
}

/// Requests over HTTP/2 on one connection.
async fn multiplexed(address: std::net::SocketAddr, count: usize) -> JoinSet<hyper::Result<u16>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let shaken = hyper::client::conn::http2::handshake::<_, _, Body>(executor, io).await;
    let (sender, connection) = shaken.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        let (mut parts, body) = ask(Method::GET, "/", "").into_parts();
        parts.headers.clear();
        parts.uri = "http://shop/".parse().unwrap();
        asking.spawn(async move {
            sender.ready().await?;
            let answer = sender
                .send_request(http::Request::from_parts(parts, body))
                .await?;
            Ok(answer.status().as_u16())
        });
    }
    asking
}

#[tokio::test]
async fn no_more_than_1024_requests_are_held() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let holding = |addresses: &[&str]| {
        let backends = vec![backend(1, FULL, addresses)];
        snapshot(vec![ServiceRoute {
            hold_ms: 60_000,
            ..route(backends)
        }])
    };
    proxy.put(&holding(&[])).await;
    let mut asking = Vec::new();
    for _ in 0..6 {
        asking.push(multiplexed(proxy.address, 200).await);
    }
    // 176 too many are turned away at once, the others wait.
    until("all are held", async || {
        let refused = proxy.counted(1).await.map_or(0, |entry| entry.requests);
        (proxy.counters().await.unwrap().held, refused) == (1_024, 176)
    })
    .await;
    proxy.put(&holding(&[&shop.address])).await;
    let mut answers = std::collections::BTreeMap::new();
    for asked in asking {
        for status in within("all are answered", asked.join_all()).await {
            *answers.entry(status.unwrap()).or_insert(0) += 1;
        }
    }
    assert_eq!(answers, [(200, 1_024), (503, 176)].into());
    assert_eq!(proxy.counters().await.unwrap().held, 0);
    let mut wire = Wire::to(proxy.address).await;
    wire.say("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(wire.head().await.starts_with("http/1.1 200 "));
}
