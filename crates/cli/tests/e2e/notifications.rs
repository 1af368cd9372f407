//! Notifications: the outbox keeps them through outages and crashes, each destination gets them in order, and what was given up can be
//! sent again.

use serde_json::Value;

use crate::{
    listener::Listener,
    shop::Shop,
    site::{Site, said, until},
    words::{assert_says, assert_silent_of},
};

/// A shop whose only environment has these destinations.
fn notifying_shop(site: &Site, notify: &str) -> Shop {
    let shop = site.shop();
    let config = format!(
        "
service: shop
run:
  command: exec python3 shop.py
  health: {{ http: /ready, interval: 100ms, timeout: 2s }}
environments:
  production: {{ strategy: recreate, watch: none, notify: {notify} }}
"
    );
    shop.write("shipway.yaml", &config);
    shop
}

fn titles(bodies: &[Value]) -> Vec<String> {
    let title = |body: &Value| body["title"].as_str().unwrap().to_owned();
    bodies.iter().map(title).collect()
}

#[test]
fn messages_survive_a_receiver_that_is_down_and_a_killed_server_and_arrive_in_order() {
    let listener = Listener::start();
    listener.answer(503);
    let mut site = Site::started();
    let hook = format!("http://{}/hook/top-secret", listener.address);
    let shop = notifying_shop(&site, &format!("[{{ webhook: '{hook}' }}]"));
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    until("a failed attempt", || {
        site.log().contains("a message was not delivered")
    });
    site.kill();
    site.start();
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    site.kill();
    listener.answer(200);
    site.start();
    until("both notifications", || {
        listener.at("/hook/top-secret").len() == 2
    });
    let titles = titles(&listener.at("/hook/top-secret"));
    assert_says(&titles[0], &["shop #1", "was promoted"]);
    assert_says(&titles[1], &["shop #2", "was promoted"]);
    assert_silent_of(&site.log(), &["top-secret"]);
    site.kill();
    site.start();
    assert_says(&said(&shop.ship("1.2")), &["#3 serves production"]);
    until("the third notification", || {
        listener.at("/hook/top-secret").len() > 2
    });
    assert_eq!(
        listener.at("/hook/top-secret").len(),
        3,
        "none is sent again"
    );
}

/// The only destination.
fn destination(site: &Site) -> Value {
    let list = site.get("/api/v1/notifications").unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list:#}");
    list["items"][0].clone()
}

#[test]
fn what_a_receiver_refuses_is_shown_sent_again_in_order_and_removed() {
    let listener = Listener::start();
    listener.answer(404);
    let mut site = Site::started();
    let hook = format!("http://{}/hook/top-secret", listener.address);
    let shop = notifying_shop(&site, &format!("[{{ webhook: '{hook}' }}]"));
    for version in ["1.0", "1.1", "1.2"] {
        assert_says(&said(&shop.ship(version)), &["serves production"]);
    }
    until("three dead letters", || {
        destination(&site)["dead_letters"] == 3
    });
    let channel = destination(&site)["id"].as_str().unwrap().to_owned();
    let shown = said(&site.shipway(&["notify", "list"]));
    assert_says(&shown, &[&channel, &listener.address]);
    let dead = said(&site.shipway(&["notify", "dead"]));
    assert_says(&dead, &["shop #1", "shop #3", "404"]);
    assert_silent_of(&format!("{shown}{dead}"), &["top-secret"]);
    let path = format!("/api/v1/notifications/{channel}/dead-letters?limit=2");
    let page = site.get(&path).unwrap();
    assert_eq!(page["items"][0]["number"], 3, "{page:#}");
    let next = page["next"].as_u64().unwrap();
    let page = site.get(&format!("{path}&cursor={next}")).unwrap();
    assert_eq!(page["items"][0]["number"], 1, "{page:#}");
    assert_eq!(page["next"], Value::Null);

    site.kill();
    site.start();
    let dropped = site.shipway(&["notify", "drop", &channel, "2"]);
    assert_says(&said(&dropped), &["2 dead letters"]);
    let missing = site.shipway(&["notify", "resend", &channel, "2"]);
    assert!(!missing.status.success());
    assert_says(&said(&missing), &["there is no dead letter 2"]);
    listener.answer(200);
    let resent = site.shipway(&["notify", "resend", &channel, "--all"]);
    assert_says(&said(&resent), &["0 dead letters"]);
    let tested = site.shipway(&["notify", "test", &channel]);
    assert_says(&said(&tested), &["test message 6 is queued"]);
    until("the messages", || {
        listener.at("/hook/top-secret").len() == 3
    });
    let titles = titles(&listener.at("/hook/top-secret"));
    assert_says(&titles[0], &["shop #1"]);
    assert_says(&titles[1], &["shop #3"]);
    assert_says(&titles[2], &["Test message"]);
    until("the result in the list", || {
        destination(&site)["last_delivery"]["title"] == titles[2].as_str()
    });
    let unknown = site.shipway(&["notify", "test", "shop.production.0000000000000000"]);
    assert!(!unknown.status.success());
    assert_says(&said(&unknown), &["there is no destination"]);
}
