//! Users who are kept on one instance of a release.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Request};
use shipway_proxy::protocol::{FULL, InstanceAffinity, RouteSnapshot, ServiceRoute, StickyBy};

use super::support::{
    Conversation, Got, House, Upstream, backend,
    client::{Body, ask},
    route, snapshot,
};

const PIN: &str = "cart-instance";

/// The release 1 with these instances, and the release 2 with this share.
fn routes(instances: &[&Upstream], new: &Upstream, share: u32) -> RouteSnapshot {
    let addresses: Vec<&str> = instances.iter().map(|it| it.address.as_str()).collect();
    snapshot(vec![ServiceRoute {
        sticky: StickyBy::Cookie("cart".to_owned()),
        instance_affinity: Some(InstanceAffinity::Cookie(PIN.to_owned())),
        ..route(vec![
            backend(2, share, &[&new.address]),
            backend(1, FULL - share, &addresses),
        ])
    }])
}

/// A browser: it sends back the cookies that it got.
#[derive(Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    async fn visit(&mut self, conversation: &mut Conversation) -> Got {
        let mut request = ask(Method::GET, "/", "");
        let cookies: Vec<String> = self
            .0
            .iter()
            .map(|(name, it)| format!("{name}={it}"))
            .collect();
        if !cookies.is_empty() {
            let header = cookies.join("; ").parse().unwrap();
            request.headers_mut().insert("cookie", header);
        }
        let got = conversation.send(request).await.unwrap();
        for cookie in got.headers.get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.0.insert(name.to_owned(), value.to_owned());
        }
        got
    }
}

fn with_header(name: &'static str, value: &str) -> Request<Body> {
    let mut request = ask(Method::GET, "/", "");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_cookie_keeps_its_user_on_one_instance_whatever_is_added() {
    let house = House::new();
    let proxy = house.proxy().await;
    let (one, two, three, new) = (
        Upstream::named("one").await,
        Upstream::named("two").await,
        Upstream::named("three").await,
        Upstream::named("new").await,
    );
    proxy.put(&routes(&[&one, &two], &new, 0)).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let mut browsers = Vec::new();
    for _ in 0..40 {
        let mut browser = Browser::default();
        let got = browser.visit(&mut conversation).await;
        let cookie = got.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.starts_with("cart-instance="), "{cookie}");
        assert!(
            cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
            "{cookie}"
        );
        browsers.push((browser, got.text().to_owned()));
    }
    let served: BTreeSet<_> = browsers.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(served.len(), 2, "both instances get users");

    proxy.put(&routes(&[&one, &three, &two], &new, 0)).await;
    for (browser, name) in &mut browsers {
        for _ in 0..3 {
            let got = browser.visit(&mut conversation).await;
            assert_eq!(got.text(), name);
            assert!(
                !got.headers.contains_key("set-cookie"),
                "it is kept already"
            );
        }
    }
}

#[tokio::test]
async fn who_loses_the_instance_is_kept_on_another_one() {
    let house = House::new();
    let proxy = house.proxy().await;
    let (one, two, new) = (
        Upstream::named("one").await,
        Upstream::named("two").await,
        Upstream::named("new").await,
    );
    proxy.put(&routes(&[&one], &new, 0)).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let mut browser = Browser::default();
    assert_eq!(browser.visit(&mut conversation).await.text(), "one");
    // It is routed to still, and refuses connections.
    proxy.put(&routes(&[&one, &two], &new, 0)).await;
    drop(one);
    for _ in 0..3 {
        assert_eq!(browser.visit(&mut conversation).await.text(), "two");
    }
    // The weight decides before the instance does.
    proxy.put(&routes(&[&two], &new, FULL)).await;
    assert_eq!(browser.visit(&mut conversation).await.text(), "new");
}

#[tokio::test]
async fn a_header_keeps_its_users_where_only_a_lost_instance_moves_them() {
    let house = House::new();
    let proxy = house.proxy().await;
    let (one, two, three) = (
        Upstream::named("one").await,
        Upstream::named("two").await,
        Upstream::named("three").await,
    );
    let by_header = |instances: &[&Upstream]| {
        let addresses: Vec<&str> = instances.iter().map(|it| it.address.as_str()).collect();
        snapshot(vec![ServiceRoute {
            sticky: StickyBy::Header("x-tenant".to_owned()),
            instance_affinity: Some(InstanceAffinity::UserKey),
            ..route(vec![backend(1, FULL, &addresses)])
        }])
    };
    let mut conversation = Conversation::with(proxy.address).await;
    let mut served = async |instances: &[&Upstream]| {
        proxy.put(&by_header(instances)).await;
        let mut names = Vec::new();
        for tenant in 0..60 {
            let tenant = format!("tenant-{tenant}");
            let first = conversation
                .send(with_header("x-tenant", &tenant))
                .await
                .unwrap();
            let again = conversation
                .send(with_header("x-tenant", &tenant))
                .await
                .unwrap();
            assert_eq!(first.text(), again.text(), "{tenant}");
            assert!(!first.headers.contains_key("set-cookie"));
            names.push(first.text().to_owned());
        }
        names
    };
    let before = served(&[&one, &two, &three]).await;
    let after = served(&[&one, &three]).await;
    let names: BTreeSet<_> = before.iter().map(String::as_str).collect();
    assert_eq!(names.len(), 3, "{before:?}");
    for (before, after) in before.iter().zip(&after) {
        assert!(
            before == after || before == "two",
            "{before} is now {after}"
        );
    }
}
