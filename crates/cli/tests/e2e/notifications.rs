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
