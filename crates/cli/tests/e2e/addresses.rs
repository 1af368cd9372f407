//! Where environments are reached: each address has one owner, doesn't depend on the order of environments, and is served again
//! after a restart.

use std::net::TcpListener;

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{Site, free_address, raw, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// A service of this name without workflows, with these lines for its environments.
fn service(site: &Site, name: &str, environments: &str) -> Shop {
    let folder = site.folder.path().join(name);
    let shop = Shop::create(&folder, &site.url(&format!("/git/{name}")));
    std::fs::remove_dir_all(folder.join(".github")).unwrap();
    configure(&shop, name, environments);
    shop
}

fn configure(shop: &Shop, name: &str, environments: &str) {
    let text = format!(
        "service: {name}\nartifact: {{ source: . }}\nrun:\n  command: exec python3 shop.py\n  health: {{ http: /ready, interval: 100ms, timeout: 2s }}\nenvironments:\n{environments}"
    );
    shop.write("shipway.yaml", &text);
}

fn ship(shop: &Shop, version: &str) -> String {
    said(&shop.ship(version))
}

/// The status line and the body of a page at a host.
fn page(address: &str, host: &str, path: &str) -> String {
    let asked = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = raw(address, &asked);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.lines().last().unwrap_or_default();
    format!("{status} {body}")
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

#[test]
fn an_appended_environment_a_red_push_and_a_restart_leave_every_address_as_it_is() {
    let mut site = Site::started();
    let shop = site.shop();
    let before = "  staging: { strategy: recreate }\n  production: { strategy: rolling }\n";
    let config = |environments: &str| {
        format!(
            "service: shop\nrun:\n  command: exec python3 shop.py\n  health: {{ http: /ready, interval: 100ms, timeout: 2s }}\nenvironments:\n{environments}"
        )
    };
    shop.write("shipway.yaml", &config(before));
    let port = port_of(&site.proxy).to_owned();
    let urls = [
        format!(
            "serves staging: http://shop-staging.localhost:{port}/ (also http://127.0.0.1:{port}/shop-staging/)"
        ),
        format!(
            "serves production: http://shop.localhost:{port}/ (also http://127.0.0.1:{port}/shop/)"
        ),
    ];
    assert_says(&ship(&shop, "1.0"), &[&urls[0], &urls[1]]);
    let serves = |site: &Site, version: &str| {
        let answer = format!("200 {version}");
        assert_eq!(page(&site.proxy, "shop.localhost", "/"), answer);
        assert_eq!(page(&site.proxy, "Shop-Staging.LocalHost:80", "/"), answer);
        assert_eq!(page(&site.proxy, "127.0.0.1", "/shop/"), answer);
        assert_eq!(page(&site.proxy, "localhost", "/shop-staging/"), answer);
        assert!(page(&site.proxy, "shop.example", "/shop/").starts_with("404"));
        assert!(page(&site.proxy, "127.0.0.1", "/shop").starts_with("308"));
        assert!(page(&site.proxy, "127.0.0.1", "/shop-production/").starts_with("404"));
        assert_eq!(
            site.place("production")["url"],
            format!("http://shop.localhost:{port}/")
        );
    };
    serves(&site, "1.0");
    // A commit that was never released, and a restart.
    let appended = format!("{before}  production-eu: {{ strategy: rolling }}\n");
    shop.write("shipway.yaml", &config(&appended));
    let good = std::fs::read_to_string(shop.path.join("shop.py")).unwrap();
    shop.write("shop.py", "this is no program (");
    assert_says(&ship(&shop, "1.1"), &["not released"]);
    serves(&site, "1.0");
    site.stop();
    site.start();
    until("the routes", || {
        site.ask("/shop/").is_some_and(|it| it.0 == 200)
    });
    serves(&site, "1.0");
    // The same, released: no request is lost on the way.
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    shop.write("shop.py", &good);
    assert_says(
        &ship(&shop, "1.2"),
        &["serves production-eu: http://shop-production-eu.localhost:"],
    );
    assert_all_good(&load.stop());
    serves(&site, "1.2");
    // And taken out again: what serves goes on.
    shop.write("shipway.yaml", &config(before));
    assert_says(&ship(&shop, "1.3"), &["#3 serves production:"]);
    serves(&site, "1.3");
    assert_eq!(
        page(&site.proxy, "shop-production-eu.localhost", "/"),
        "200 1.2"
    );
}

#[test]
fn an_address_that_another_has_is_refused_with_its_owner_and_harms_nobody() {
    let mut site = Site::started();
    let (free, proxy, api) = (free_address(), site.proxy.clone(), site.listen.clone());
    let port = port_of(&free).to_owned();
    let owner = "  staging: {}\n  production: { hosts: [a.example] }\n";
    assert_says(
        &ship(&service(&site, "web", owner), "web"),
        &["a.example:", "serves production"],
    );
    let with_port = format!("  production: {{ port: {port} }}\n");
    assert_says(
        &ship(&service(&site, "one", &with_port), "one"),
        &["#1 serves production"],
    );
    let refused = [
        (
            "zeta",
            "  production: { hosts: [A.example] }\n".to_owned(),
            "a.example belongs to web in production",
        ),
        (
            "aaa",
            "  production: { path: /web-staging }\n".to_owned(),
            "/web-staging belongs to web in staging",
        ),
        (
            "web-staging",
            "  production: {}\n".to_owned(),
            "web-staging.localhost belongs to web in staging",
        ),
        ("two", with_port.clone(), "belongs to one in production"),
        (
            "three",
            format!("  production: {{ port: {} }}\n", port_of(&proxy)),
            "is used by the proxy itself",
        ),
        (
            "four",
            format!("  production: {{ port: {} }}\n", port_of(&api)),
            "is used by the API",
        ),
    ];
    for (name, environments, says) in &refused {
        let shop = service(&site, name, environments);
        let told = ship(&shop, name);
        assert_says(&told, &[says, "not released"]);
        assert_silent_of(&told, &["serves"]);
        let file = shop.path.join("shipway.yaml");
        assert_ends(
            &site.shipway(&["check", file.to_str().unwrap()]),
            0,
            &[says],
        );
    }
    // A longer path within another's is allowed, and named.
    let admin = service(
        &site,
        "admin",
        "  production: { hosts: [a.example], path: /admin, strip_prefix: false }\n",
    );
    assert_says(
        &ship(&admin, "admin"),
        &["a.example/admin lies within a.example of web in production"],
    );
    let each_has_its_own = |site: &Site| {
        assert_eq!(page(&site.proxy, "a.example", "/"), "200 web");
        assert_eq!(page(&site.proxy, "a.example", "/admin"), "200 admin");
        assert_eq!(page(&site.proxy, "127.0.0.1", "/web-staging/"), "200 web");
        assert_eq!(page(&format!("127.0.0.1:{port}"), "any", "/"), "200 one");
    };
    each_has_its_own(&site);
    // A server that is killed forgets no owner.
    site.kill();
    site.start();
    until("the routes", || {
        page(&site.proxy, "a.example", "/") == "200 web"
    });
    each_has_its_own(&site);
    let claims = site.get("/api/v1/addresses").unwrap().to_string();
    assert_says(
        &claims,
        &[
            "\"a.example\"",
            "\"a.example/admin\"",
            "web-staging.localhost",
        ],
    );
    assert_silent_of(&claims, &["\"zeta\"", "\"two\""]);
}

#[test]
fn a_change_of_address_is_planned_and_comes_with_the_promotion() {
    let mut site = Site::started();
    let shop = service(&site, "shop", "  production: { hosts: [old.example] }\n");
    assert_says(
        &ship(&shop, "1.0"),
        &["claim address: old.example", "http://old.example:"],
    );
    configure(
        &shop,
        "shop",
        "  production: { hosts: [new.example], approvals: { count: 1 }, watch: none }\n",
    );
    let file = shop.path.join("shipway.yaml");
    let says = "the address of production changes from old.example to new.example";
    assert_ends(
        &site.shipway(&["check", file.to_str().unwrap()]),
        0,
        &[says],
    );
    let told = ship(&shop, "1.1");
    assert_says(&told, &[says]);
    assert_says(
        &told,
        &["the address changes from old.example to new.example when #2 is promoted"],
    );
    assert_eq!(page(&site.proxy, "old.example", "/"), "200 1.0");
    assert!(page(&site.proxy, "new.example", "/").starts_with("404"));
    let plan = said(&site.shipway(&["plan", "shop", "--env", "production"]));
    assert_says(&plan, &["claim address: new.example"]);
    assert_ends(&site.shipway(&["approve", "ro2"]), 0, &[]);
    site.ended_rollout("production", 2);
    let moved = |site: &Site| {
        assert_eq!(page(&site.proxy, "new.example", "/"), "200 1.1");
        assert!(page(&site.proxy, "old.example", "/").starts_with("404"));
    };
    moved(&site);
    site.stop();
    site.start();
    until("the routes", || {
        page(&site.proxy, "new.example", "/") == "200 1.1"
    });
    moved(&site);
    // Its former address is free again.
    let next = service(&site, "next", "  production: { hosts: [old.example] }\n");
    assert_says(&ship(&next, "2.0"), &["#1 serves production"]);
    assert_eq!(page(&site.proxy, "old.example", "/"), "200 2.0");
}

#[test]
fn a_port_that_another_program_has_fails_its_rollout_and_no_other() {
    let site = Site::started();
    let good = service(&site, "good", "  production: {}\n");
    assert_says(&ship(&good, "1.0"), &["#1 serves production"]);
    let foreign = TcpListener::bind(free_address()).unwrap();
    let address = foreign.local_addr().unwrap().to_string();
    let shop = service(
        &site,
        "shop",
        &format!("  production: {{ port: {} }}\n", port_of(&address)),
    );
    let told = ship(&shop, "1.0");
    let says = format!("can't listen on port {}", port_of(&address));
    assert_says(&told, &[&says, "in use"]);
    assert_silent_of(&told, &["serves production"]);
    assert_says(&ship(&good, "1.1"), &["#2 serves production"]);
    assert_eq!(page(&site.proxy, "good.localhost", "/"), "200 1.1");
    drop(foreign);
    assert_says(&ship(&shop, "1.1"), &["#2 serves production"]);
    assert_eq!(page(&address, "any", "/"), "200 1.1");
}

#[test]
fn a_server_listens_on_any_one_address() {
    for ip in ["127.0.0.2", "[::1]"] {
        let mut site = Site::new();
        site.listen = format!("{ip}:{}", port_of(&free_address()));
        site.proxy = format!("{ip}:{}", port_of(&free_address()));
        site.start();
        let shop = site.shop();
        let told = ship(&shop, "1.0");
        let (api, proxy) = (
            format!("http://{}/runs/shop/1", site.listen),
            format!("http://{}/shop/", site.proxy),
        );
        assert_says(
            &told,
            &[&api, "run r1 succeeded", "#1 serves production", &proxy],
        );
        assert_eq!(page(&site.proxy, &site.proxy, "/shop/"), "200 1.0");
        assert_says(
            &site.log(),
            &[
                &format!("http://{}", site.listen),
                &format!("http://{}", site.proxy),
            ],
        );
    }
}

#[test]
fn a_first_release_that_waits_for_approval_has_no_route_after_a_restart_either() {
    let mut site = Site::started();
    let web = service(&site, "web", "  production: { hosts: [a.example] }\n");
    assert_says(&ship(&web, "web"), &["serves production"]);
    let below = "  production: { hosts: [a.example], path: /admin, approvals: { count: 1 } }\n";
    assert_says(
        &ship(&service(&site, "admin", below), "admin"),
        &["waiting for 1 approval"],
    );
    let below_is_answered_by = |site: &Site, version: &str| {
        let answer = page(&site.proxy, "a.example", "/admin/");
        assert_eq!(answer, format!("200 {version}"));
    };
    below_is_answered_by(&site, "web");
    site.stop();
    site.start();
    below_is_answered_by(&site, "web");
    let approved = site.shipway(&["approve", "admin/ro1"]);
    assert!(approved.status.success(), "{}", said(&approved));
    until("the approved release", || {
        page(&site.proxy, "a.example", "/admin/") == "200 admin"
    });
}
