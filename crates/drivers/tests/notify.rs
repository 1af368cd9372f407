//! Notifications as receivers get them, over real HTTP and HTTPS.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use shipway_core::outbox::AttemptFailure;
use shipway_drivers::{
    network_guard::NetworkGuard,
    notify::{Notification, NotificationSeverity, destinations},
    outbox::DestinationRegistry,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::mpsc, task::JoinSet};

const PATIENCE: Duration = Duration::from_secs(60);

struct Received {
    headers: BTreeMap<String, String>,
    body: Bytes,
}

/// A receiver that answers everything with `status`, `headers` and `text`.
struct Receiver {
    address: std::net::SocketAddr,
    received: mpsc::Receiver<Received>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    async fn start(status: u16, headers: &[(&'static str, String)], text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel(8);
        let headers = headers.to_vec();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, headers) = (sender.clone(), headers.clone());
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (sender, headers) = (sender.clone(), headers.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let text_of =
                            |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
                        let seen = parts
                            .headers
                            .iter()
                            .map(|(name, value)| (name.to_string(), text_of(value)))
                            .collect();
                        sender
                            .send(Received {
                                headers: seen,
                                body,
                            })
                            .await
                            .unwrap();
                        let mut response = http::Response::builder().status(status);
                        for (name, value) in &headers {
                            response = response.header(*name, value);
                        }
                        Ok::<_, hyper::Error>(
                            response
                                .body(Full::new(Bytes::from_static(text.as_bytes())))
                                .unwrap(),
                        )
                    }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            received,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        format!(
            "http://{}/services/T0/top-secret?token=hidden",
            self.address
        )
    }

    async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.received.recv())
            .await
            .expect("it is delivered")
            .unwrap()
    }
}

/// Delivers a notification once to a destination of this kind.
async fn send(
    kind: &str,
    settings: serde_json::Value,
    notification: &Notification,
) -> Result<String, AttemptFailure> {
    let registry = DestinationRegistry::new(destinations(&NetworkGuard::default()));
    let destination = registry.find(kind).unwrap();
    destination
        .deliver(&settings, &notification.to_message())
        .await
}

fn promoted() -> Notification {
    Notification {
        id: "rollout/shop/7#1".to_owned(),
        title: "shop #3 is in production".to_owned(),
        text: "Promoted after 9 minutes.".to_owned(),
        severity: NotificationSeverity::Good,
        service: "shop".parse().ok(),
        environment: "production".parse().ok(),
        release: None,
        rollout: None,
        url: None,
        at: "2026-03-04T05:06:07Z".parse().unwrap(),
        plot: None,
        facts: Vec::new(),
    }
}

#[tokio::test]
async fn a_signed_webhook_can_be_verified_from_its_body() {
    let mut receiver = Receiver::start(204, &[], "").await;
    let settings = json!({ "url": receiver.url(), "secret": "key" });
    let answer = send("webhook", settings, &promoted()).await.unwrap();
    assert_eq!(answer, "204 No Content");
    let received = receiver.next().await;
    // What a receiver would do, with another implementation.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("body"), &received.body).unwrap();
    let mut openssl = tokio::process::Command::new("openssl");
    openssl
        .args(["dgst", "-sha256", "-hmac", "key", "-r", "body"])
        .current_dir(folder.path());
    let output = openssl.output().await.unwrap();
    let hex = String::from_utf8(output.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(
        received.headers["x-shipway-signature"],
        format!("sha256={hex}")
    );
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!(received.headers["x-shipway-delivery"], "rollout/shop/7#1");
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(
        (&body["severity"], &body["id"]),
        (&"good".into(), &"rollout/shop/7#1".into())
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let mut receiver = Receiver::start(200, &[], "ok").await;
    let settings = json!({ "url": receiver.url() });
    send("webhook", settings.clone(), &promoted())
        .await
        .unwrap();
    let headers = receiver.next().await.headers;
    assert!(!headers.contains_key("x-shipway-signature"));
    assert!(!headers.contains_key("webhook-signature"));
    send("slack", settings, &promoted()).await.unwrap();
    let message: serde_json::Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(
        message["text"],
        "✅ shop #3 is in production: Promoted after 9 minutes."
    );
}

#[tokio::test]
async fn a_verdict_comes_with_its_plot_in_one_line() {
    let mut receiver = Receiver::start(200, &[], "ok").await;
    let line = "error-rate: ▁▃▆█ 5.2% on #3, ▁▁▁▁ 0.1% on #2";
    let told = Notification {
        plot: Some(line.to_owned()),
        ..promoted()
    };
    let settings = json!({ "url": receiver.url() });
    send("webhook", settings.clone(), &told).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(body["plot"], line);
    send("slack", settings, &told).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(body["blocks"][2]["text"]["text"], format!("`{line}`"));
    assert!(body["text"].as_str().unwrap().ends_with(line), "{body:#}");
}

#[tokio::test]
async fn what_may_succeed_later_is_told_from_what_never_will() {
    for (status, retryable) in [
        (400, false),
        (404, false),
        (410, false),
        (408, true),
        (429, true),
        (500, true),
        (503, true),
    ] {
        let receiver = Receiver::start(
            status,
            &[("retry-after", "7".to_owned())],
            "invalid_payload\n",
        )
        .await;
        let settings = json!({ "url": receiver.url() });
        let error = send("slack", settings, &promoted()).await.unwrap_err();
        assert_eq!(error.is_retryable, retryable, "{error:?}");
        assert_eq!(
            error.retry_after,
            retryable.then_some(Duration::from_secs(7))
        );
        assert!(
            error.why.contains(&status.to_string()) && error.why.ends_with("invalid_payload"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_web_address_and_what_is_a_metadata_service_are_refused_without_being_repeated()
{
    for bad in [
        "",
        "hooks.example.com/top-secret",
        "ftp://example.com/top-secret",
        "https://",
        "file:///top-secret",
        "http://169.254.169.254/latest/top-secret",
        "http://[::ffff:169.254.169.254]/top-secret",
    ] {
        let sent = send("slack", json!({ "url": bad }), &promoted()).await;
        let error = sent.unwrap_err();
        assert!(!error.is_retryable, "{bad}: {error:?}");
        assert!(!error.why.contains("top-secret"), "{bad}: {error:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut elsewhere = Receiver::start(200, &[], "").await;
    for status in [301, 302, 307, 308] {
        let receiver = Receiver::start(status, &[("location", elsewhere.url())], "").await;
        let settings = json!({ "url": receiver.url(), "secret": "key" });
        let error = send("webhook", settings, &promoted()).await.unwrap_err();
        assert!(!error.is_retryable, "{error:?}");
    }
    assert!(elsewhere.received.try_recv().is_err());
}

#[tokio::test]
async fn an_address_is_in_no_error() {
    let echo = Receiver::start(404, &[], "no such path: /services/T0/top-secret").await;
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let hosts = [
        echo.address.to_string(),
        free.to_string(),
        "nowhere.invalid".to_owned(),
    ];
    for host in &hosts {
        let url = format!("http://{host}/services/T0/top-secret?token=hidden");
        let error = send("slack", json!({ "url": url }), &promoted()).await;
        let shown = format!("{:?}", error.unwrap_err());
        assert!(shown.contains(host.as_str()), "{shown}");
        assert!(
            !shown.contains("top-secret") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_ten_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let _ = stream.read_to_end(&mut request).await;
        request
    };
    let notification = promoted();
    let (error, request) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(send("slack", json!({ "url": url }), &notification), silent)
    })
    .await
    .expect("it gives up");
    let error = error.unwrap_err();
    assert!(
        error.is_retryable && error.why.ends_with("no response within 10 s"),
        "{error:?}"
    );
    assert!(request.starts_with(b"POST /x HTTP/1.1"));
}

#[tokio::test]
async fn https_is_spoken_and_strangers_are_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let mut make = tokio::process::Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    make.args([
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]);
    assert!(
        make.current_dir(folder.path())
            .output()
            .await
            .unwrap()
            .status
            .success()
    );
    // openssl picks the port and says which: `ACCEPT 127.0.0.1:40123`.
    let mut serve = tokio::process::Command::new("openssl");
    serve.args([
        "s_server",
        "-accept",
        "127.0.0.1:0",
        "-key",
        "key.pem",
        "-cert",
        "cert.pem",
        "-www",
    ]);
    serve
        .current_dir(folder.path())
        .kill_on_drop(true)
        .stdout(std::process::Stdio::piped());
    let mut server = serve.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(server.stdout.take().unwrap()));
    let port = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it listens");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                return address.rsplit(':').next().unwrap().to_owned();
            }
        }
    };
    let port = tokio::time::timeout(PATIENCE, port).await.unwrap();
    let settings = json!({ "url": format!("https://localhost:{port}/top-secret") });
    let error = send("slack", settings, &promoted()).await.unwrap_err().why;
    assert!(
        error.starts_with(&format!(
            "the Slack webhook at localhost:{port} could not be reached: "
        )),
        "{error}"
    );
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}
