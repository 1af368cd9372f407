//! Requests that two readers could read differently: refused, and nothing of them reaches an instance. What may be said in more than
//! one way reaches it in one.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::support::{House, Proxy, Raw, Wire, only, until};

/// An instance that writes down every byte, and answers whatever comes.
struct Witness {
    raw: Raw,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Witness {
    async fn start() -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let seen = bytes.clone();
        let raw = Raw::start(move |mut stream| {
            let seen = seen.clone();
            async move {
                let mut piece = vec![0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    seen.lock().unwrap().extend_from_slice(&piece[..count]);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
            }
        })
        .await;
        Self { raw, bytes }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

async fn before(house: &House, witness: &Witness) -> Proxy {
    let proxy = house.proxy().await;
    proxy.put(&only(1, &[&witness.raw.address])).await;
    proxy
}

/// Says it on a new connection, and a request after it that must not be served as part of the first.
async fn answer_to(proxy: &Proxy, request: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::to(proxy.address).await;
    wire.say(request).await;
    wire.say("GET /after HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .await;
    wire.rest().await
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /smuggle HTTP/1.1\r\nHost: shop\r\n{fields}\r\n{body}")
}

fn get(fields: &str) -> String {
    format!("GET /smuggle HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")
}

#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_reach_no_instance() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases: Vec<(&str, Vec<u8>)> = [
        (
            "two lengths",
            post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"),
        ),
        (
            "a list of lengths",
            post("Content-Length: 3, 4\r\n", "abcd"),
        ),
        (
            "a length with a sign",
            post("Content-Length: +3\r\n", "abc"),
        ),
        ("a negative length", post("Content-Length: -1\r\n", "")),
        (
            "a length in hexadecimal",
            post("Content-Length: 0x3\r\n", "abc"),
        ),
        (
            "a length with a space inside",
            post("Content-Length: 1 0\r\n", "0123456789"),
        ),
        (
            "a huge length",
            post("Content-Length: 99999999999999999999\r\n", ""),
        ),
        ("an empty length", post("Content-Length: \r\n", "")),
        (
            "length, then chunked",
            post(&format!("Content-Length: 4\r\n{chunked}"), "0\r\n\r\n"),
        ),
        (
            "chunked, then length",
            post(&format!("{chunked}Content-Length: 4\r\n"), "0\r\n\r\n"),
        ),
        (
            "an unknown coding",
            post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "another coding",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked, not last",
            post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ),
        (
            "two codings",
            post(
                &format!("{chunked}Transfer-Encoding: identity\r\n"),
                "0\r\n\r\n",
            ),
        ),
        (
            "two lines of chunked",
            post(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
        ),
        (
            "a coding in quotes",
            post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ),
        (
            "a space before the colon",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ),
        ("a tab before the colon", get("X-A\t: b\r\n")),
        ("a folded line", get("X-A: b\r\n c\r\n")),
        (
            "a folded first line",
            "GET /smuggle HTTP/1.1\r\n Host: shop\r\n\r\n".to_owned(),
        ),
        (
            "a folded coding",
            post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ),
        ("a line without a colon", get("nonsense\r\n")),
        ("a name with a space", get("X A: b\r\n")),
        ("no name", get(": b\r\n")),
        ("NUL in a value", get("X-A: b\0c\r\n")),
        ("NUL in a name", get("X\0A: b\r\n")),
        (
            "NUL in the target",
            "GET /smug\0gle HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        ("CR in a value", get("X-A: b\rContent-Length: 3\r\n")),
        ("DEL in a value", get("X-A: b\x7f\r\n")),
        ("two hosts", get("Host: other\r\n")),
        ("the same host twice", get("Host: shop\r\n")),
        ("no host", "GET /smuggle HTTP/1.1\r\n\r\n".to_owned()),
        (
            "a host with a path",
            "GET /smuggle HTTP/1.1\r\nHost: shop/x\r\n\r\n".to_owned(),
        ),
        (
            "a host with a user",
            "GET /smuggle HTTP/1.1\r\nHost: shop@other\r\n\r\n".to_owned(),
        ),
        (
            "a host with a space",
            "GET /smuggle HTTP/1.1\r\nHost: shop other\r\n\r\n".to_owned(),
        ),
        (
            "a space in the target",
            "GET /smug gle HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        (
            "an unknown version",
            "GET /smuggle HTTP/1.2\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        (
            "a version of two digits",
            "GET /smuggle HTTP/1.10\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        ("HTTP/0.9", "GET /smuggle\r\n".to_owned()),
        (
            "chunked in HTTP/1.0",
            "POST /smuggle HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (
            "CONNECT",
            "CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n".to_owned(),
        ),
        (
            "a method with a colon",
            "G:T /smuggle HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        (
            "a target that is neither path nor address",
            "GET smuggle HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
        ),
        (
            "an address with a user",
            "GET http://shop@other/smuggle HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned(),
        ),
    ]
    .into_iter()
    .map(|(what, text)| (what, text.into_bytes()))
    .collect();
    for (what, request) in cases {
        let answer = answer_to(&proxy, &request).await;
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(
            matches!(status, "400" | "501" | "505"),
            "{what}: {answer:?}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer:?}");
        assert_eq!(witness.seen(), "", "{what}");
    }
    assert_eq!(witness.raw.connections(), 0);
}

#[tokio::test]
async fn bare_line_feeds_reach_no_instance() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    for request in [
        "GET /smuggle HTTP/1.1\nHost: shop\n\n",
        "GET /smuggle HTTP/1.1\r\nHost: shop\n\r\n",
        "GET /smuggle HTTP/1.1\r\nHost: shop\r\nX-A: b\nX-B: c\r\n\r\n",
        "GET /smuggle HTTP/1.1\r\nHost: shop\r\n\n",
        "POST /smuggle HTTP/1.1\r\nHost: shop\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = answer_to(&proxy, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{request:?}: {answer:?}"
        );
        assert_eq!(witness.seen(), "", "{request:?}");
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_while_they_come() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    let fields: String = (0..200)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    let long_field = format!("X-A: {}\r\n", "y".repeat(100 << 10));
    let long_target = format!(
        "GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n",
        "y".repeat(100 << 10)
    );
    for (what, request) in [
        ("many fields", get(&fields)),
        ("a long field", get(&long_field)),
        ("a long target", long_target),
        ("a line without an end", "y".repeat(200 << 10)),
    ] {
        let answer = answer_to(&proxy, request).await;
        let status = answer.split(' ').nth(1).unwrap_or("none");
        assert!(
            matches!(status, "400" | "414" | "431" | "none"),
            "{what}: {answer:?}"
        );
        assert_eq!(witness.seen(), "", "{what}");
    }
    assert_eq!(
        super::support::get(proxy.address, "/fine").await.text(),
        "ok"
    );
}

#[tokio::test]
async fn chunks_that_are_framed_wrongly_end_the_connection() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "3\r\nabc\r\n0\n\n",
    ] {
        witness.bytes.lock().unwrap().clear();
        let answer = answer_to(&proxy, post("Transfer-Encoding: chunked\r\n", body)).await;
        // The instance may have begun to read; what came after is never served.
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{body:?}: {answer:?}"
        );
        let seen = witness.seen();
        assert!(!seen.contains("/after"), "{body:?}: {seen:?}");
        assert!(
            !seen.contains("0\r\n\r\n"),
            "no instance thinks it whole: {body:?}: {seen:?}"
        );
    }
    until("nothing is open", async || proxy.count(1).await.open == 0).await;
}

/// What the instance sees of a request, as lines in small letters.
async fn forwarded(proxy: &Proxy, witness: &Witness, request: &str) -> String {
    witness.bytes.lock().unwrap().clear();
    let mut wire = Wire::to(proxy.address).await;
    wire.say(request).await;
    let head = wire.head().await;
    assert!(head.starts_with("http/1.1 200 "), "{request:?}: {head}");
    witness.seen().to_ascii_lowercase()
}

#[tokio::test]
async fn what_belongs_to_one_connection_goes_no_further() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    let fields = "Connection: keep-alive, X-Secret, Host, Content-Length, X-Forwarded-For\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip\r\nX-Kept: 1\r\nContent-Length: 3\r\n";
    let seen = forwarded(&proxy, &witness, &post(fields, "abc")).await;
    for kept in [
        "\r\nhost: shop\r\n",
        "\r\ncontent-length: 3\r\n",
        "\r\nx-kept: 1\r\n",
    ] {
        assert_eq!(seen.matches(kept).count(), 1, "{kept:?} in {seen:?}");
    }
    assert!(
        seen.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
        "{seen:?}"
    );
    for gone in [
        "x-secret",
        "keep-alive",
        "proxy-",
        "\r\nte:",
        "\r\nconnection:",
    ] {
        assert!(!seen.contains(gone), "{gone:?} in {seen:?}");
    }
}

#[tokio::test]
async fn an_address_as_target_decides_whatever_the_host_says() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    let absolute = "GET http://shop/path?x=1 HTTP/1.1\r\nHost: other\r\n\r\n";
    let seen = forwarded(&proxy, &witness, absolute).await;
    assert!(seen.starts_with("get /path?x=1 http/1.1\r\n"), "{seen:?}");
    assert!(
        seen.contains("\r\nhost: shop\r\n") && !seen.contains("other"),
        "{seen:?}"
    );
    let answer = answer_to(
        &proxy,
        "GET http://other/ HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
}

#[tokio::test]
async fn lengths_and_chunks_are_said_once_and_in_one_way() {
    let (house, witness) = (House::new(), Witness::start().await);
    let proxy = before(&house, &witness).await;
    let extended = "3;name=\"value\"\r\nabc\r\n00\r\n\r\n";
    let chunked = post("transfer-encoding:  CHUNKED \r\n", extended);
    let seen = forwarded(&proxy, &witness, &chunked).await;
    assert_eq!(
        seen.matches("transfer-encoding: chunked\r\n").count(),
        1,
        "{seen:?}"
    );
    assert!(
        !seen.contains("content-length") && !seen.contains("name="),
        "{seen:?}"
    );
    let twice = post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc");
    let mut wire = Wire::to(proxy.address).await;
    witness.bytes.lock().unwrap().clear();
    wire.say(&twice).await;
    let head = wire.head().await;
    let seen = witness.seen().to_ascii_lowercase();
    // Saying the same twice is either refused or said once.
    assert!(
        head.starts_with("http/1.1 400 ") || seen.matches("content-length: 3\r\n").count() == 1
    );
}
