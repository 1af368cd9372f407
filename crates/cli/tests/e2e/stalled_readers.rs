//! Clients that open a stream of events and never read it.

use std::{io::Write, net::TcpStream};

use crate::{
    site::{Site, agent, said},
    words::assert_says,
};

const CLIENTS: usize = 200;
/// Much more than the operating system buffers for a connection, in events of 40 KiB.
const LARGE_EVENTS: usize = 400;
const BYTES_PER_CLIENT_MAX: u64 = 512 << 10;

fn stalled_client(site: &Site, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&site.listen).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", site.listen);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Resident bytes of the server's process.
fn resident_bytes(site: &Site) -> u64 {
    let pid = site.server_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn clients_that_never_read_cost_little_and_delay_neither_a_release_nor_the_stop() {
    let mut site = Site::started();
    let shop = site.shop();
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    for number in 0..LARGE_EVENTS {
        let value = format!("{number} {}", "x".repeat(40 << 10));
        let body = serde_json::json!({ "value": value });
        let address = site.url("/api/v1/variables/NOTES?service=shop");
        let answer = agent().put(address).send_json(&body).unwrap();
        assert_eq!(answer.status(), 200);
    }
    let before = resident_bytes(&site);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|client| match client % 2 {
            0 => stalled_client(&site, "/api/v1/events?after=0"),
            _ => stalled_client(&site, "/overview/changes"),
        })
        .collect();
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    let grown = resident_bytes(&site).saturating_sub(before);
    assert!(
        grown < CLIENTS as u64 * BYTES_PER_CLIENT_MAX,
        "{} MiB for {CLIENTS} clients",
        grown >> 20
    );
    let ended = site.stop();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    drop(clients);
}
