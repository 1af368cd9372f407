//! Copies of requests: the release gets them, users never notice, and they are counted apart.

use std::{sync::Arc, time::Duration};

use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use shipway_proxy::protocol::{
    FULL, MirroredMethods, ReleaseTotals, RequestMirror, RouteSnapshot, ServiceRoute,
};
use tokio::sync::Semaphore;

use super::support::{
    Conversation, House, Proxy, Upstream, backend,
    client::ask,
    get, route, snapshot, until,
    upstream::{Nobody, text},
};

/// Everything to release 1, and copies of all of it to release 2.
pub fn mirrored(old: &str, new: &str, methods: MirroredMethods) -> RouteSnapshot {
    let backends = vec![backend(2, 0, &[new]), backend(1, FULL, &[old])];
    let mirror = Some(RequestMirror {
        release: 2,
        share: FULL,
        methods,
    });
    snapshot(vec![ServiceRoute {
        mirror,
        ..route(backends)
    }])
}

/// What the copies for release 2 came to.
pub async fn copies(proxy: &Proxy) -> ReleaseTotals {
    let entries = proxy.counters().await.unwrap().entries;
    entries.into_iter().find(|it| it.mirror).unwrap()
}

#[tokio::test]
async fn a_copy_says_that_it_is_one_and_its_errors_are_its_own() {
    let house = House::new();
    let old = Upstream::named("old").await;
    let new = Upstream::start(|request| async move {
        let marked = request
            .headers()
            .get("x-shipway-mirror")
            .is_some_and(|it| it == "1");
        let status = if marked && request.uri() == "/items?a=1" {
            500
        } else {
            418
        };
        let body = Full::new("new".into()).map_err(|never| match never {});
        Response::builder()
            .status(status)
            .body(body.boxed())
            .unwrap()
    })
    .await;
    let proxy = house.proxy().await;
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::Safe))
        .await;
    for _ in 0..20 {
        let got = get(proxy.address, "/items?a=1").await;
        assert_eq!((got.status, got.text()), (200, "old"));
    }
    until("copies are counted", async || {
        copies(&proxy).await.totals.requests == 20
    })
    .await;
    assert_eq!(copies(&proxy).await.totals.responses["5xx"], 20);
    let users = proxy.count(1).await;
    assert_eq!(users.requests, 20);
    let entries = proxy.counters().await.unwrap().entries;
    let own = entries
        .iter()
        .find(|it| it.release == 2 && !it.mirror)
        .unwrap();
    assert_eq!(own.totals.requests, 0, "no user was there");
    // Without the mirror there are no copies any more.
    let mut plain = mirrored(&old.address, &new.address, MirroredMethods::Safe);
    plain.routes[0].mirror = None;
    proxy.put(&plain).await;
    get(proxy.address, "/").await;
    assert_eq!(new.requests(), 20);
}

#[tokio::test]
async fn what_changes_something_is_copied_only_where_that_is_asked_for_and_with_a_body_of_bounded_size()
 {
    let house = House::new();
    let old = Upstream::named("old").await;
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let new = Upstream::start(move |request| {
        let said = said.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            said.send(body).unwrap();
            text("new")
        }
    })
    .await;
    let proxy = house.proxy().await;
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::Safe))
        .await;
    let mut conversation = Conversation::with(proxy.address).await;
    let post = |body: Vec<u8>| ask(Method::POST, "/order", body);
    let got = conversation.send(post(b"one".to_vec())).await.unwrap();
    assert_eq!(got.text(), "old");
    assert_eq!(copies(&proxy).await.not_copied, 1);
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::All))
        .await;
    conversation.send(post(b"two".to_vec())).await.unwrap();
    let body = super::support::within("a copy comes", heard.recv()).await;
    assert_eq!(body.unwrap(), "two");
    let got = conversation.send(post(vec![b'x'; 65_537])).await.unwrap();
    assert_eq!(got.text(), "old");
    assert_eq!(copies(&proxy).await.not_copied, 2);
    until("the copy is counted", async || {
        copies(&proxy).await.totals.requests == 1
    })
    .await;
    assert!(heard.try_recv().is_err(), "the large one was not sent");
}

#[tokio::test]
async fn a_release_that_hangs_or_is_not_there_keeps_no_user_waiting_and_copies_are_bounded() {
    let house = House::new();
    let old = Upstream::named("old").await;
    let gate = Arc::new(Semaphore::new(0));
    let new = Upstream::start({
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                drop(gate.acquire().await);
                text("new")
            }
        }
    })
    .await;
    let proxy = house.proxy().await;
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::Safe))
        .await;
    let begun = std::time::Instant::now();
    let mut conversation = Conversation::with(proxy.address).await;
    for _ in 0..300 {
        assert_eq!(conversation.get("/").await.text(), "old");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "nobody waited for a copy to be given up"
    );
    until("the bound is reached", async || {
        let copies = copies(&proxy).await;
        copies.totals.open == 64 && copies.not_copied == 236
    })
    .await;
    gate.close();
    until("they end", async || {
        copies(&proxy).await.totals.requests == 64
    })
    .await;
    // Where nobody listens, that is the copy's error.
    let nobody = Nobody::new();
    proxy
        .put(&mirrored(
            &old.address,
            &nobody.address,
            MirroredMethods::Safe,
        ))
        .await;
    assert_eq!(conversation.get("/").await.text(), "old");
    until("it is counted", async || {
        copies(&proxy).await.totals.proxy_errors == 1
    })
    .await;
    assert_eq!(copies(&proxy).await.totals.responses["5xx"], 1);
}
