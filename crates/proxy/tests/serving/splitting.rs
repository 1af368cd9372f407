//! Who is sent where: weights that are exact and sticky, hosts, paths and ports.

use std::collections::BTreeMap;

use http::{Method, Request};
use shipway_proxy::protocol::{
    FULL, RequestMatch, RouteRule, RouteSnapshot, ServiceRoute, StickyBy, ValueComparison,
};

use super::support::{
    Conversation, Got, House, Proxy, SHOP, Upstream, backend,
    client::{Body, ask},
    get, route, snapshot,
    upstream::text,
};

/// Two releases, the newcomer answering `new`.
struct Pair {
    new: Upstream,
    old: Upstream,
}

impl Pair {
    async fn start() -> Self {
        Self {
            new: Upstream::named("new").await,
            old: Upstream::named("old").await,
        }
    }

    fn split(&self, share: u32, sticky: StickyBy) -> RouteSnapshot {
        let backends = vec![
            backend(2, share, &[&self.new.address]),
            backend(1, FULL - share, &[&self.old.address]),
        ];
        snapshot(vec![ServiceRoute {
            sticky,
            ..route(backends)
        }])
    }
}

fn with(name: &str, value: &str) -> Request<Body> {
    let mut request = ask(Method::GET, "/", "");
    let name: http::HeaderName = name.parse().unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// Who gets the newcomer among these users.
async fn newcomers(proxy: &Proxy, users: &[String], sticky: &StickyBy) -> Vec<bool> {
    let mut conversation = Conversation::with(proxy.address).await;
    let mut all = Vec::new();
    for user in users {
        let request = match sticky {
            StickyBy::Cookie(name) => with("cookie", &format!("theme=dark; {name}={user}; a=b")),
            StickyBy::Header(name) => with(name, user),
            _ => unreachable!("users have a name"),
        };
        let got = conversation.send(request).await.unwrap();
        assert!(!got.headers.contains_key("set-cookie"), "they have a key");
        all.push(got.text() == "new");
    }
    all
}

#[tokio::test]
async fn raising_a_weight_moves_nobody_back_and_shares_are_exact() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    let users: Vec<String> = (0..1_500).map(|user| format!("user-{user}")).collect();
    for sticky in [
        StickyBy::Cookie("who".to_owned()),
        StickyBy::Header("x-user".to_owned()),
    ] {
        let mut before = vec![false; users.len()];
        for share in [0, 500, 5_000, 10_000] {
            proxy.put(&pair.split(share, sticky.clone())).await;
            let now = newcomers(&proxy, &users, &sticky).await;
            let moved_back = (0..users.len()).find(|user| before[*user] && !now[*user]);
            assert_eq!(moved_back, None, "at {share}");
            let got = now.iter().filter(|it| **it).count() as f64 / users.len() as f64;
            let wanted = f64::from(share) / f64::from(FULL);
            assert!((got - wanted).abs() < 0.04, "{got} instead of {wanted}");
            before = now;
        }
    }
}

#[tokio::test]
async fn the_same_user_stays_when_the_proxy_is_started_again() {
    let (house, pair) = (House::new(), Pair::start().await);
    let sticky = StickyBy::Cookie("who".to_owned());
    let users: Vec<String> = (0..200).map(|user| format!("user-{user}")).collect();
    let proxy = house.proxy().await;
    proxy.put(&pair.split(3_000, sticky.clone())).await;
    let before = newcomers(&proxy, &users, &sticky).await;
    proxy.kill();
    let proxy = house.proxy().await;
    assert_eq!(newcomers(&proxy, &users, &sticky).await, before);
}

#[tokio::test]
async fn who_has_no_cookie_gets_one_that_keeps_them_where_they_are() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    let sticky = StickyBy::Cookie("who".to_owned());
    proxy.put(&pair.split(5_000, sticky.clone())).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let mut seen = BTreeMap::new();
    for _ in 0..64 {
        let first = conversation.get("/").await;
        let cookie = first.headers["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.starts_with("who=") && cookie.contains("; Path=/; HttpOnly; SameSite=Lax"));
        let kept = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let again = conversation.send(with("cookie", kept)).await.unwrap();
            assert_eq!(again.text(), first.text());
            assert!(!again.headers.contains_key("set-cookie"));
        }
        *seen.entry(first.text().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "both sides got somebody: {seen:?}");
    // With one release there is nothing to remember.
    proxy.put(&pair.split(0, sticky)).await;
    let got = conversation.get("/").await;
    assert!(!got.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn nobody_sticks_where_no_stickiness_is_asked_for() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    proxy.put(&pair.split(2_500, StickyBy::None)).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for _ in 0..2_000 {
        assert_eq!(conversation.get("/").await.status, 200);
    }
    let share = proxy.count(2).await.requests as f64 / 2_000.0;
    assert!((share - 0.25).abs() < 0.06, "{share} instead of 0.25");
    // All clients here have one address.
    proxy.put(&pair.split(5_000, StickyBy::Address)).await;
    let first = get(proxy.address, "/").await;
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/").await.text(), first.text());
    }
}

#[tokio::test]
async fn a_rule_leads_to_a_release_without_weight() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    let rule = RouteRule {
        only_if: RequestMatch::Header {
            name: "x-preview".to_owned(),
            value: "yes".to_owned(),
            compared: ValueComparison::Exact,
        },
        release: 2,
    };
    let sticky = StickyBy::Matched {
        rules: vec![rule],
        otherwise: Box::new(StickyBy::Cookie("who".to_owned())),
    };
    proxy.put(&pair.split(0, sticky)).await;
    let mut conversation = Conversation::with(proxy.address).await;
    let preview = conversation.send(with("x-preview", "yes")).await.unwrap();
    assert_eq!(preview.text(), "new");
    let other = conversation.send(with("x-preview", "no")).await.unwrap();
    assert_eq!(other.text(), "old");
}

#[tokio::test]
async fn all_that_a_rule_asks_for_must_be_there_and_what_fits_no_rule_goes_by_weight() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    let header = RequestMatch::Header {
        name: "x-canary".to_owned(),
        value: "eu-".to_owned(),
        compared: ValueComparison::Prefix,
    };
    let cookie = RequestMatch::Cookie {
        name: "beta".to_owned(),
        value: "yes".to_owned(),
        compared: ValueComparison::Exact,
    };
    let rule = RouteRule {
        only_if: RequestMatch::All(vec![header, cookie]),
        release: 2,
    };
    let sticky = |otherwise| StickyBy::Matched {
        rules: vec![rule.clone()],
        otherwise: Box::new(otherwise),
    };
    proxy.put(&pair.split(0, sticky(StickyBy::None))).await;
    let mut conversation = Conversation::with(proxy.address).await;
    for (header, cookie, wanted) in [
        ("eu-west", "beta=yes", "new"),
        ("eu-", "a=b; beta=yes", "new"),
        ("us-eu-", "beta=yes", "old"),
        ("eu-west", "beta=yess", "old"),
        ("eu-west", "beta=no", "old"),
    ] {
        let mut request = with("x-canary", header);
        request
            .headers_mut()
            .insert("cookie", cookie.parse().unwrap());
        let got = conversation.send(request).await.unwrap();
        assert_eq!(got.text(), wanted, "{header} {cookie}");
    }
    let sticky = sticky(StickyBy::Header("x-user".to_owned()));
    proxy.put(&pair.split(5_000, sticky)).await;
    let mut newcomers = 0;
    for user in 0..100 {
        let got = conversation
            .send(with("x-user", &format!("user-{user}")))
            .await
            .unwrap();
        newcomers += usize::from(got.text() == "new");
    }
    assert!((20..80).contains(&newcomers), "{newcomers} of 100");
}

#[tokio::test]
async fn patterns_and_presence_lead_to_a_release_and_no_pattern_is_taken_that_is_none() {
    let (house, pair) = (House::new(), Pair::start().await);
    let proxy = house.proxy().await;
    let cookie = |value: &str, compared| RequestMatch::Cookie {
        name: "beta".to_owned(),
        value: value.to_owned(),
        compared,
    };
    let split = |only_if| {
        let rules = vec![RouteRule {
            only_if,
            release: 2,
        }];
        let otherwise = Box::new(StickyBy::None);
        pair.split(0, StickyBy::Matched { rules, otherwise })
    };
    let ask_with = async |cookie: Option<&str>| {
        let mut request = ask(Method::GET, "/", "");
        if let Some(cookie) = cookie {
            let headers = request.headers_mut();
            headers.insert("cookie", cookie.parse().unwrap());
        }
        let mut conversation = Conversation::with(proxy.address).await;
        conversation.send(request).await.unwrap().text().to_owned()
    };
    let by_pattern = cookie("(eu|us)-[0-9]+", ValueComparison::Regex);
    proxy.put(&split(by_pattern)).await;
    assert_eq!(ask_with(Some("a=b; beta=us-17")).await, "new");
    assert_eq!(ask_with(Some("beta=us-17b")).await, "old", "all of it");
    assert_eq!(ask_with(None).await, "old");
    let is_there = cookie("", ValueComparison::Present);
    proxy.put(&split(is_there)).await;
    assert_eq!(ask_with(Some("beta=whatever")).await, "new");
    assert_eq!(ask_with(Some("beta=")).await, "old", "empty");
    assert_eq!(ask_with(Some("alpha=1")).await, "old");
    let wrong = split(cookie("(us", ValueComparison::Regex));
    let refused = proxy.send_routes(&wrong).await.unwrap().refused;
    let reason = &refused[0].reason;
    assert!(reason.contains("`(us` is not a valid pattern"), "{reason}");
    assert_eq!(ask_with(Some("beta=us")).await, "new", "the routes before");
}

/// A release that answers its name, and path and prefix as it saw them.
async fn echo(name: &'static str) -> Upstream {
    Upstream::start(move |request| async move {
        let prefix = request.headers().get("x-forwarded-prefix");
        let prefix = prefix.map_or("-", |it| it.to_str().unwrap());
        text(format!("{name} {} {prefix}", request.uri()))
    })
    .await
}

fn lane(service: &str, hosts: &[&str], prefix: Option<&str>, upstream: &Upstream) -> ServiceRoute {
    ServiceRoute {
        service: service.to_owned(),
        hosts: hosts.iter().map(|it| (*it).to_owned()).collect(),
        path_prefix: prefix.map(str::to_owned),
        ..route(vec![backend(1, FULL, &[&upstream.address])])
    }
}

async fn at(proxy: &Proxy, host: &str, target: &str) -> Got {
    let mut request = ask(Method::GET, target, "");
    request.headers_mut().insert("host", host.parse().unwrap());
    Conversation::with(proxy.address)
        .await
        .send(request)
        .await
        .unwrap()
}

#[tokio::test]
async fn host_and_longest_path_decide() {
    let (house, a, b, c, d) = (
        House::new(),
        echo("a").await,
        echo("b").await,
        echo("c").await,
        echo("d").await,
    );
    let proxy = house.proxy().await;
    proxy
        .put(&snapshot(vec![
            lane("a", &["shop.example.com"], None, &a),
            lane("b", &["shop.example.com"], Some("/api"), &b),
            lane("c", &["shop.example.com"], Some("/api/v2/"), &c),
            lane("d", &["*.example.com"], None, &d),
        ]))
        .await;
    for (host, target, wanted) in [
        ("shop.example.com", "/", "a / -"),
        ("SHOP.example.com:8080", "/apis?x=1", "a /apis?x=1 -"),
        ("shop.example.com", "/api/", "b / /api"),
        ("shop.example.com", "/api/x?y=/api", "b /x?y=/api /api"),
        ("shop.example.com", "/api/v2/", "c / /api/v2"),
        ("shop.example.com", "/api/v2/x", "c /x /api/v2"),
        ("shop.example.com", "/api/v22", "b /v22 /api"),
        ("other.example.com", "/api", "d /api -"),
    ] {
        assert_eq!(
            at(&proxy, host, target).await.text(),
            wanted,
            "{host}{target}"
        );
    }
    assert_eq!(at(&proxy, "example.com", "/").await.status, 404);
    assert_eq!(at(&proxy, "shop.example.com.evil", "/").await.status, 404);
    assert_eq!(proxy.counters().await.unwrap().no_route, 2);
}

#[tokio::test]
async fn a_page_at_a_prefix_is_redirected_to_the_slash_below_which_its_links_lead_to_it() {
    let (house, a, b, c) = (
        House::new(),
        echo("a").await,
        echo("b").await,
        echo("c").await,
    );
    let proxy = house.proxy().await;
    let default = ServiceRoute {
        local_only: true,
        ..lane("a", &[], Some("/a"), &a)
    };
    let unstripped = ServiceRoute {
        strip_prefix: false,
        ..lane("b", &[], Some("/b"), &b)
    };
    let routes = vec![
        lane("a", &["a.localhost"], None, &a),
        default,
        unstripped,
        lane("c", &["h"], Some("/c"), &c),
    ];
    proxy.put(&snapshot(routes)).await;
    for (host, target, location) in [
        ("127.0.0.1:8080", "/a", "/a/"),
        ("localhost", "/a?x=1&y=//e", "/a/?x=1&y=//e"),
        ("h", "/c", "/c/"),
    ] {
        let answer = at(&proxy, host, target).await;
        assert_eq!(answer.status, 308, "{host}{target}");
        assert_eq!(answer.headers["location"], location);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for (host, target, wanted) in [
        ("127.0.0.1", "/a/x", "a /x /a"),
        ("a.localhost", "/a", "a /a -"),
        ("127.0.0.1", "/b", "b /b -"),
        ("b.example", "/b/x?y", "b /b/x?y -"),
    ] {
        assert_eq!(
            at(&proxy, host, target).await.text(),
            wanted,
            "{host}{target}"
        );
    }
    assert_eq!(at(&proxy, "a.example", "/a/x").await.status, 404);
    // What a client may not follow is not redirected.
    let mut posted = ask(Method::POST, "/a", "body");
    posted
        .headers_mut()
        .insert("host", "127.0.0.1".parse().unwrap());
    let mut conversation = Conversation::with(proxy.address).await;
    assert_eq!(conversation.send(posted).await.unwrap().text(), "a / /a");
}

#[tokio::test]
async fn a_port_of_its_own_leads_to_its_route_as_long_as_the_route_is_there() {
    let (house, a, b) = (House::new(), echo("a").await, echo("b").await);
    let proxy = house.proxy().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let by_port = ServiceRoute {
        port: Some(port),
        ..lane("b", &[], None, &b)
    };
    let both = snapshot(vec![lane("a", &[SHOP], None, &a), by_port.clone()]);
    proxy.put(&both).await;
    let beside = std::net::SocketAddr::new(proxy.address.ip(), port);
    assert_eq!(get(beside, "/x").await.text(), "b /x -");
    assert_eq!(get(proxy.address, "/x").await.text(), "a /x -");
    // Changing its weights or instances doesn't close it; removing it does.
    let mut kept = Conversation::with(beside).await;
    kept.get("/").await;
    proxy.put(&both).await;
    assert_eq!(kept.get("/y").await.text(), "b /y -");
    proxy
        .put(&snapshot(vec![lane("a", &[SHOP], None, &a)]))
        .await;
    super::support::until("the port is closed", async || {
        tokio::net::TcpStream::connect(beside).await.is_err()
    })
    .await;
    proxy.put(&both).await;
    super::support::until("the port is open again", async || {
        tokio::net::TcpStream::connect(beside).await.is_ok()
    })
    .await;
    assert_eq!(get(beside, "/x").await.text(), "b /x -");
}
