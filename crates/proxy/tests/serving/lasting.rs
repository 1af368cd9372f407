//! A proxy that is killed, stopped, started again or replaced.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use shipway_proxy::protocol::{FULL, StopRequest};
use tokio::{net::TcpStream, sync::Semaphore};

use super::support::{
    Conversation, House, Load, Proxy, Upstream, Wire, backend, get, only, proxy::ProxyStart, route,
    snapshot, until, upstream::text, within,
};

/// Answers when it is allowed to.
async fn slow() -> (Upstream, Arc<Semaphore>) {
    let go_on = Arc::new(Semaphore::new(0));
    let allowed = go_on.clone();
    let upstream = Upstream::start(move |request| {
        let allowed = allowed.clone();
        async move {
            if request.uri().path() == "/slow" {
                allowed.acquire().await.unwrap().forget();
            }
            text("done")
        }
    })
    .await;
    (upstream, go_on)
}

#[tokio::test]
async fn a_killed_proxy_serves_its_last_routes_again_though_nobody_controls_it() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    let boot = proxy.health().await.unwrap().boot;
    for release in 1..=5 {
        proxy.put(&only(release, &[&shop.address])).await;
    }
    let start = ProxyStart {
        listen: proxy.address,
        ..house.usual()
    };
    proxy.kill();
    // It left its socket behind; that hinders nobody.
    let proxy = Proxy::start(&start).await.unwrap();
    assert_eq!(get(proxy.address, "/").await.text(), "shop");
    assert_eq!(proxy.routes().await.unwrap(), only(5, &[&shop.address]));
    assert_ne!(proxy.health().await.unwrap().boot, boot, "it counts anew");
}

#[tokio::test]
async fn a_proxy_killed_at_any_moment_has_whole_routes() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let mut last = 0;
    for round in 0..10 {
        let proxy = house.proxy().await;
        let routes = proxy.routes().await.unwrap();
        let release = routes.routes.first().map_or(0, |it| it.backends[0].release);
        assert!(release >= last, "{release} after {last}");
        assert!(!proxy.log().contains("WARN"), "{}", proxy.log());
        let control = (*proxy).clone();
        let address = shop.address.clone();
        let putting = tokio::spawn(async move {
            let mut put = release;
            while control
                .send_routes(&only(put + 1, &[&address]))
                .await
                .is_ok()
            {
                put += 1;
            }
            put
        });
        tokio::time::sleep(Duration::from_millis(5 + 7 * round)).await;
        proxy.kill();
        last = within("the putting fails", putting).await.unwrap();
    }
    assert!(last > 0);
}

#[tokio::test]
async fn damaged_routes_are_named_and_a_proxy_starts_without_them() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let path = house.path("state/routes.json");
    let whole = serde_json::to_string(&only(1, &[&shop.address])).unwrap();
    std::fs::create_dir(house.path("state")).unwrap();
    for (damage, says) in [
        (whole[..whole.len() / 2].to_owned(), "it may be damaged"),
        ("\0\0\0\0\0\0".to_owned(), "it may be damaged"),
        (String::new(), "it may be damaged"),
        (whole.replacen("10000", "9999", 1), "add up to 9999"),
        (
            whole.replacen("\"version\":1", "\"version\":9", 1),
            "newer version (format 9",
        ),
    ] {
        std::fs::write(&path, &damage).unwrap();
        let proxy = house.proxy().await;
        let log = proxy.log();
        assert!(log.contains(says) && log.contains("routes.json"), "{log}");
        assert_eq!(get(proxy.address, "/").await.status, 404);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            damage,
            "it is kept to be looked at"
        );
        proxy.put(&only(1, &[&shop.address])).await;
        assert_eq!(get(proxy.address, "/").await.text(), "shop");
        proxy.kill();
        let proxy = house.proxy().await;
        assert_eq!(get(proxy.address, "/").await.text(), "shop");
        proxy.kill();
    }
}

#[tokio::test]
async fn a_file_that_was_half_written_beside_the_routes_is_no_matter() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    proxy.kill();
    std::fs::write(house.path("state/routes.json.new"), "{\"version\":1,\"rou").unwrap();
    let proxy = house.proxy().await;
    assert_eq!(get(proxy.address, "/").await.text(), "shop");
    assert!(!proxy.log().contains("WARN"), "{}", proxy.log());
}

#[tokio::test]
async fn a_second_proxy_in_the_same_place_is_refused_unless_it_takes_over() {
    let house = House::new();
    let proxy = house.proxy().await;
    let why = Proxy::start(&house.usual()).await.err().unwrap();
    assert!(why.contains("another proxy is running there"), "{why}");
    let elsewhere = House::new();
    let start = ProxyStart {
        listen: proxy.address,
        ..elsewhere.usual()
    };
    let why = Proxy::start(&start).await.err().unwrap();
    assert!(
        why.contains(&format!("can't listen on {}", proxy.address)),
        "{why}"
    );
    assert!(proxy.health().await.is_ok());
}

#[tokio::test]
async fn sigterm_lets_requests_finish_and_closes_connections_politely() {
    let (house, (shop, go_on)) = (House::new(), slow().await);
    let mut proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    let mut idle = Conversation::with(proxy.address).await;
    assert_eq!(idle.get("/").await.text(), "done");
    let mut busy = Wire::to(proxy.address).await;
    busy.say("GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until("it is open", async || proxy.count(1).await.open == 1).await;
    proxy.signal(Signal::TERM);
    until("nobody is accepted any more", async || {
        TcpStream::connect(proxy.address).await.is_err()
    })
    .await;
    // A request over a connection that is still there is answered, and is the last on it.
    let last = idle.get("/").await;
    assert_eq!(
        (last.text(), &last.headers["connection"]),
        ("done", &"close".parse().unwrap())
    );
    until("it is closed", async || idle.is_over()).await;
    go_on.add_permits(1);
    let answer = busy.rest().await.to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 200 ") && answer.ends_with("done"),
        "{answer}"
    );
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(proxy.ended().await.success());
    let mut left: Vec<_> = std::fs::read_dir(house.path(""))
        .unwrap()
        .map(|it| it.unwrap())
        .collect();
    left.retain(|it| it.file_name().to_str().unwrap().starts_with("control"));
    let names: Vec<_> = left.iter().map(|it| it.file_name()).collect();
    assert_eq!(names, ["control.lock"]);
    // The next one has the place to itself.
    assert_eq!(get(house.proxy().await.address, "/").await.text(), "done");
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let (house, shop) = (House::new(), Upstream::named("shop").await);
    let mut proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    let mut idle = Conversation::with(proxy.address).await;
    idle.get("/").await;
    let silent = Wire::to(proxy.address).await;
    proxy.stop(StopRequest { grace_ms: 2_000 }).await.unwrap();
    assert!(proxy.ended().await.success());
    drop((idle, silent));
}

#[tokio::test]
async fn what_takes_longer_than_the_grace_is_cut() {
    let (house, (shop, _go_on)) = (House::new(), slow().await);
    let mut proxy = house.proxy().await;
    proxy.put(&only(1, &[&shop.address])).await;
    let mut busy = Wire::to(proxy.address).await;
    busy.say("GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until("it is open", async || proxy.count(1).await.open == 1).await;
    proxy.stop(StopRequest { grace_ms: 200 }).await.unwrap();
    assert_eq!(busy.rest().await, "");
    assert!(proxy.ended().await.success());
    assert!(
        proxy.log().contains("the grace period has expired"),
        "{}",
        proxy.log()
    );
}

#[tokio::test]
async fn a_proxy_is_replaced_under_load_again_and_again_and_nothing_is_lost() {
    let house = House::new();
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let routes = snapshot(vec![route(vec![
        backend(2, FULL / 4, &[&two.address]),
        backend(1, FULL - FULL / 4, &[&one.address]),
    ])]);
    let mut proxy = house.proxy().await;
    proxy.put(&routes).await;
    let boot = proxy.health().await.unwrap().boot;
    let load = Load::on(proxy.address, 16);
    for _ in 0..12 {
        load.goes_on(200).await;
        let next = house.successor().await;
        assert_eq!(next.address, proxy.address);
        let health = next.health().await.unwrap();
        assert_eq!((health.pid, &health.boot), (next.pid(), &boot));
        assert!(proxy.ended().await.success(), "{}", proxy.log());
        proxy = next;
        proxy.put(&routes).await;
    }
    load.goes_on(200).await;
    let tally = load.stop().await;
    tally.assert_only(&["one", "two"]);
    let counts = (proxy.count(1).await, proxy.count(2).await);
    assert_eq!(
        counts.0.requests,
        tally.of("one"),
        "not one is counted twice or lost"
    );
    assert_eq!(counts.1.requests, tally.of("two"));
    assert_eq!(counts.0.latency.count(), tally.of("one"));
    assert_eq!((counts.0.open, counts.0.proxy_errors), (0, 0));
    assert_eq!(
        usize::try_from(tally.total()).unwrap(),
        one.requests() + two.requests()
    );
}

#[tokio::test]
async fn what_a_replaced_proxy_has_open_is_counted_drained_and_finished() {
    let (house, (shop, go_on)) = (House::new(), slow().await);
    let first = house.proxy().await;
    first.put(&only(1, &[&shop.address])).await;
    let mut open = Vec::new();
    let mut proxies = vec![first];
    for number in 1..=3 {
        let address = proxies[0].address;
        open.push(tokio::spawn(async move { get(address, "/slow").await }));
        let newest = proxies.last().unwrap();
        until("it is open", async || newest.count(1).await.open == number).await;
        proxies.push(house.successor().await);
    }
    let newest = proxies.last().unwrap();
    assert_eq!(newest.count(1).await.open, 3, "in three processes");
    assert_eq!(newest.open_after(1, Duration::from_millis(50)).await, 3);
    newest.put(&only(2, &[&shop.address])).await;
    assert_eq!(get(newest.address, "/").await.text(), "done");
    go_on.add_permits(3);
    assert_eq!(newest.open_after(1, Duration::from_secs(20)).await, 0);
    for asked in open {
        assert_eq!(asked.await.unwrap().text(), "done");
    }
    let mut newest = proxies.pop().unwrap();
    for mut old in proxies {
        assert!(old.ended().await.success());
    }
    let entry = newest.count(1).await;
    assert_eq!((entry.requests, entry.open), (3, 0));
    assert_eq!(newest.count(2).await.requests, 1);
    newest.stop(StopRequest { grace_ms: 1_000 }).await.unwrap();
    assert!(newest.ended().await.success());
    assert!(!house.path("control").exists());
}

#[tokio::test]
async fn counts_of_a_replaced_proxy_that_dies_are_kept_as_they_were_last_known() {
    let (house, (shop, _go_on)) = (House::new(), slow().await);
    let first = house.proxy().await;
    first.put(&only(1, &[&shop.address])).await;
    let mut conversation = Conversation::with(first.address).await;
    for _ in 0..5 {
        conversation.get("/").await;
    }
    let mut busy = Wire::to(first.address).await;
    busy.say("GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until("it is open", async || first.count(1).await.open == 1).await;
    let second = house.successor().await;
    let entry = second.count(1).await;
    assert_eq!((entry.requests, entry.open), (5, 1));
    first.kill();
    let entry = second.count(1).await;
    assert_eq!((entry.requests, entry.open), (5, 0));
    assert_eq!(second.open_after(1, Duration::from_secs(20)).await, 0);
}
