//! Routes that change under load: no request is lost, and what is drained is idle.

use std::{sync::Arc, time::Duration};

use shipway_proxy::protocol::{FULL, RouteSnapshot};
use tokio::sync::Semaphore;

use super::support::{
    Conversation, House, Load, Upstream, backend, get, only, route, snapshot, until,
    upstream::text, within,
};

const NOW: Duration = Duration::ZERO;

fn split(share: u32, one: &Upstream, two: &Upstream) -> RouteSnapshot {
    snapshot(vec![route(vec![
        backend(2, share, &[&two.address]),
        backend(1, FULL - share, &[&one.address]),
    ])])
}

#[tokio::test]
async fn no_request_is_lost_while_routes_are_swapped_hundreds_of_times() {
    let (house, one, two) = (
        House::new(),
        Upstream::named("one").await,
        Upstream::named("two").await,
    );
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&one.address])).await;
    let load = Load::on(proxy.address, 16);
    for number in 0..400 {
        match number % 4 {
            0 => proxy.put(&split(FULL / 4, &one, &two)).await,
            1 => proxy.put(&only(2, &[&two.address])).await,
            2 => proxy.put(&split(FULL / 2, &one, &two)).await,
            _ => proxy.put(&only(1, &[&one.address])).await,
        }
    }
    load.goes_on(50).await;
    let tally = load.stop().await;
    tally.assert_only(&["one", "two"]);
    assert!(tally.of("one") > 0 && tally.of("two") > 0, "{tally:?}");
    let (first, second) = (proxy.count(1).await, proxy.count(2).await);
    assert_eq!(first.requests, tally.of("one"));
    assert_eq!(second.requests, tally.of("two"));
    assert_eq!(first.proxy_errors + second.proxy_errors, 0);
}

#[tokio::test]
async fn a_release_that_is_drained_under_load_can_be_removed_without_loss() {
    let house = House::new();
    let proxy = house.proxy().await;
    let mut old = Upstream::named("0").await;
    proxy.put(&only(1, &[&old.address])).await;
    let load = Load::on(proxy.address, 16);
    for release in 2..=40 {
        let new = Upstream::named("next").await;
        proxy.put(&only(release, &[&new.address])).await;
        let open = proxy.open_after(release - 1, Duration::from_secs(20)).await;
        assert_eq!(open, 0);
        // It was idle, so nobody misses it: nothing is sent there any more.
        let asked = old.requests();
        drop(std::mem::replace(&mut old, new));
        load.goes_on(20).await;
        assert_eq!(
            u64::try_from(asked).unwrap(),
            proxy.count(release - 1).await.requests
        );
    }
    load.stop().await.assert_only(&["0", "next"]);
}

#[tokio::test]
async fn drained_is_said_only_when_nothing_is_in_flight() {
    let (house, go_on) = (House::new(), Arc::new(Semaphore::new(0)));
    let allowed = go_on.clone();
    let slow = Upstream::start(move |_| {
        let allowed = allowed.clone();
        async move {
            allowed.acquire().await.unwrap().forget();
            text("slow")
        }
    })
    .await;
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&slow.address])).await;
    let address = proxy.address;
    let asking: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { get(address, "/").await }))
        .collect();
    until("all are open", async || proxy.count(1).await.open == 3).await;
    proxy.put(&only(2, &[&slow.address])).await;
    assert_eq!(proxy.open_after(1, NOW).await, 3);
    go_on.add_permits(2);
    until("one is left", async || proxy.open_after(1, NOW).await == 1).await;
    let drained = tokio::spawn({
        let control = (*proxy).clone();
        async move {
            let wait = shipway_proxy::protocol::DrainRequest {
                service: "shop".into(),
                environment: "production".into(),
                release: 1,
                instances: Vec::new(),
                timeout_ms: 20_000,
            };
            control.wait_until_drained(&wait).await.unwrap().open
        }
    });
    assert_eq!(proxy.open_after(1, Duration::from_millis(50)).await, 1);
    assert!(!drained.is_finished());
    go_on.add_permits(1);
    assert_eq!(within("it is drained", drained).await.unwrap(), 0);
    for asked in asking {
        assert_eq!(asked.await.unwrap().text(), "slow");
    }
    assert_eq!(
        proxy.open_after(77, NOW).await,
        0,
        "nobody knows release 77"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_open() {
    let house = House::new();
    let silent = Upstream::start(|_| std::future::pending()).await;
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&silent.address])).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let asking = tokio::spawn(async move { drop(conversation.get("/").await) });
    until("it is open", async || proxy.count(1).await.open == 1).await;
    asking.abort();
    assert_eq!(proxy.open_after(1, Duration::from_secs(20)).await, 0);
    assert_eq!(proxy.count(1).await.requests, 0, "nothing was answered");
}
