//! Probes and smoke tests against a real listener that answers, hangs, breaks off and lies.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use shipway_core::{
    check::{ExpectedAnswer, HealthProbe, SmokeProbe, SmokeReport, SmokeTest},
    target::{InstanceId, ReplicaSetKey},
};
use shipway_targets::{
    checks::{InstanceAddress, ProbeTarget, exec::FolderCommands, probe, smoke},
    target::CommandPlace,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// Answers by path, and remembers what it was asked.
struct Listener {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Listener {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone()));
            }
        });
        Self {
            address,
            asked,
            task: task.abort_handle(),
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn instances(&self) -> Vec<(String, String)> {
        vec![("shop.production.1.1".to_owned(), self.address.clone())]
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let request = read_request(&mut stream).await;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let times = {
        let mut asked = asked.lock().unwrap();
        asked.push(request);
        asked.len()
    };
    let ok = |body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-one: a\r\nx-one: b\r\n\r\n{body}")
    };
    let answer = match path.as_str() {
        "/items" => ok(r#"{"items":[{"name":"tea","price":2}],"total":1}"#),
        "/third-time" if times >= 3 => ok("finally"),
        "/third-time" => "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/no-such-host" => {
            "HTTP/1.1 400 No\r\ncontent-length: 21\r\n\r\nhost is not allowed\n\n".to_owned()
        }
        "/moved" => "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/ready" => {
            let body = r#"{"checks":{"database":false,"cache":true,"queue":"down"}}"#;
            let length = body.len();
            format!("HTTP/1.1 503 No\r\ncontent-length: {length}\r\n\r\n{body}")
        }
        "/hang" => return std::future::pending().await,
        "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        "/endless" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = vec![b'x'; 64 << 10];
            while stream.write_all(&chunk).await.is_ok() {}
            return;
        }
        "/garbage" => "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        _ => ok("hello"),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// Head and body, as far as the head says that there is one.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(count @ 1..) => read.extend_from_slice(&chunk[..count]),
            _ => return text,
        }
    }
}

fn request(method: &str, path: &str, expect: ExpectedAnswer) -> SmokeTest {
    SmokeTest {
        name: format!("{method} {path}"),
        probe: SmokeProbe::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: BTreeMap::new(),
            body: None,
            expect,
        },
        retries: 0,
    }
}

fn exec(command: &str) -> SmokeTest {
    SmokeTest {
        name: "script".to_owned(),
        probe: SmokeProbe::Exec {
            command: command.to_owned(),
        },
        retries: 0,
    }
}

async fn run(listener: &Listener, tests: &[SmokeTest]) -> SmokeReport {
    smoke::run_suite(
        tests,
        &listener.instances(),
        None,
        command_place(&root(), &set()),
    )
    .await
}

fn differences(report: &SmokeReport) -> Vec<&str> {
    let all = report.results.iter().flat_map(|result| &result.differences);
    all.map(|difference| difference.0.as_str()).collect()
}

#[tokio::test]
async fn a_smoke_test_sends_what_it_is_told_and_holds_the_answer_against_every_expectation() {
    let listener = Listener::start().await;
    let expect = ExpectedAnswer {
        status: Some(200),
        headers: [("X-One".to_owned(), "a, b".to_owned())].into(),
        json: [("items[0]".to_owned(), json!({"name": "tea"}))].into(),
        body_contains: Some("total".to_owned()),
        body_matches: Some(r#""price":\d+"#.to_owned()),
        within: Some(Duration::from_secs(20)),
    };
    let mut test = request("POST", "/items?x=1", expect.clone());
    if let SmokeProbe::Request {
        headers,
        body,
        path,
        ..
    } = &mut test.probe
    {
        *path = "/items".to_owned();
        headers.insert("Host".to_owned(), "shop.example.com".to_owned());
        headers.insert("X-Key".to_owned(), "7".to_owned());
        *body = Some(r#"{"name":"tea"}"#.to_owned());
    }
    let report = run(&listener, &[test]).await;
    assert_eq!(differences(&report), [""; 0]);
    let result = &report.results[0];
    assert!(result.passed && result.tries == 1 && result.instance == "shop.production.1.1");
    let asked = listener.asked().remove(0);
    assert!(asked.starts_with("POST /items HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("host: shop.example.com\r\n"), "{asked}");
    assert!(!asked.contains(&listener.address), "two hosts: {asked}");
    assert!(asked.contains("x-key: 7\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\n{\"name\":\"tea\"}"), "{asked}");

    let report = run(&listener, &[request("GET", "/", expect)]).await;
    assert_eq!(
        differences(&report),
        [
            "body: expected JSON, got \"hello\"",
            "body: expected to contain \"total\", got \"hello\"",
            "body: expected to match \"\\\"price\\\":\\\\d+\", got \"hello\"",
        ]
    );
    let sentence = report.summary();
    assert!(sentence.starts_with("0 passed, 1 failed, "), "{sentence}");
    assert!(
        sentence.contains("; GET /: body: expected JSON"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_failed_test_is_tried_again_as_often_as_it_says() {
    let listener = Listener::start().await;
    let mut test = request("GET", "/third-time", ExpectedAnswer::default());
    test.retries = 1;
    let report = run(&listener, std::slice::from_ref(&test)).await;
    assert_eq!((report.results[0].tries, report.passed()), (2, 0));
    let report = run(&listener, &[test]).await;
    assert_eq!((report.results[0].tries, report.passed()), (1, 1));
}

#[tokio::test]
async fn answers_that_are_none_are_said_in_words() {
    let listener = Listener::start().await;
    let quick = || ExpectedAnswer {
        within: Some(Duration::from_millis(10)),
        ..ExpectedAnswer::default()
    };
    let tests = ["/hang", "/half", "/garbage"].map(|path| request("GET", path, quick()));
    let report = run(&listener, &tests).await;
    let found = differences(&report);
    let address = &listener.address;
    assert_eq!(
        found[0],
        format!("no response from {address} within 2000 ms")
    );
    assert!(
        found[1].starts_with(&format!("{address} closed the connection: ")),
        "{found:?}"
    );
    assert!(
        found[2].starts_with(&format!("{address} closed the connection: ")),
        "{found:?}"
    );

    let bad = [
        request("GE T", "/", ExpectedAnswer::default()),
        request("GET", "/a b", ExpectedAnswer::default()),
    ];
    for difference in differences(&run(&listener, &bad).await) {
        assert!(
            difference.starts_with("the request can't be made: "),
            "{difference}"
        );
    }
    let nobody = vec![("x".to_owned(), "127.0.0.1:1".to_owned())];
    let test = [request("GET", "/", ExpectedAnswer::default())];
    let report = smoke::run_suite(&test, &nobody, None, command_place(&root(), &set())).await;
    assert_eq!(differences(&report), ["connection refused on 127.0.0.1:1"]);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let listener = Listener::start().await;
    let expect = ExpectedAnswer {
        body_contains: Some("y".to_owned()),
        ..ExpectedAnswer::default()
    };
    let report = run(&listener, &[request("GET", "/endless", expect)]).await;
    let found = differences(&report);
    assert!(
        found[0].starts_with("body: expected to contain \"y\""),
        "{found:?}"
    );
    assert!(found[0].len() < 300, "{}", found[0].len());
}

#[tokio::test]
async fn every_instance_is_tested_and_results_are_in_order() {
    let listeners = [Listener::start().await, Listener::start().await];
    let instances: Vec<(String, String)> = listeners
        .iter()
        .zip(["1", "2"])
        .map(|(listener, name)| (name.to_owned(), listener.address.clone()))
        .collect();
    let tests = ["/", "/items"].map(|path| request("GET", path, ExpectedAnswer::default()));
    let report = smoke::run_suite(&tests, &instances, None, command_place(&root(), &set())).await;
    let order: Vec<_> = report
        .results
        .iter()
        .map(|result| (result.instance.as_str(), result.name.as_str()))
        .collect();
    let (home, items) = ("GET /", "GET /items");
    assert_eq!(
        order,
        [("1", home), ("1", items), ("2", home), ("2", items)]
    );
    assert_eq!(report.passed(), 4);
}

#[tokio::test]
async fn a_script_gets_the_url_and_a_clean_environment_and_its_last_line_is_quoted() {
    let listener = Listener::start().await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    let tests = [
        exec(&format!(
            "[ \"$PWD\" = {here} ] && [ \"$URL\" = http://127.0.0.1:$PORT ]"
        )),
        exec("[ -z \"$CARGO_PKG_NAME\" ]"),
        exec("echo first; echo 'home is down' >&2; echo last; exit 4"),
        exec("yes 'a line without end' | head -c 4750000; exit 1"),
        exec("sleep 1000 & exit 0"),
        exec("kill -SEGV $$"),
    ];
    let begun = Instant::now();
    let report = smoke::run_suite(
        &tests,
        &listener.instances(),
        None,
        command_place(&FolderCommands(folder.path().into()), &set()),
    )
    .await;
    assert_eq!(
        differences(&report),
        [
            "exit code 4: home is down",
            "exit code 1: a line without end",
            "signal: 11 (SIGSEGV)",
        ]
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "what it left was waited for"
    );
}

fn root() -> FolderCommands {
    FolderCommands("/".into())
}

fn set() -> ReplicaSetKey {
    "shop.production.1.1".parse::<InstanceId>().unwrap().set
}

fn command_place<'a>(runner: &'a FolderCommands, set: &'a ReplicaSetKey) -> CommandPlace<'a> {
    CommandPlace { runner, set }
}

fn instance<'a>(address: &'a str, host: Option<&'a str>) -> ProbeTarget<'a> {
    ProbeTarget {
        at: InstanceAddress { address, host },
        workdir: Path::new("/"),
    }
}

async fn ask(listener: &Listener, path: &str, status: Option<u16>) -> Result<(), String> {
    let probe = HealthProbe::Http {
        path: path.to_owned(),
        status,
        headers: BTreeMap::new(),
    };
    let timeout = Duration::from_millis(500);
    probe::run_probe(&probe, instance(&listener.address, None), timeout)
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_probe_says_what_is_wrong_and_names_the_dependencies() {
    let listener = Listener::start().await;
    let address = &listener.address;
    assert_eq!(ask(&listener, "/", None).await, Ok(()));
    assert_eq!(ask(&listener, "/moved", None).await, Ok(()));
    assert_eq!(ask(&listener, "/ready", Some(503)).await, Ok(()));
    assert_eq!(
        ask(&listener, "/moved", Some(200)).await.unwrap_err(),
        "/moved answers 302"
    );
    assert_eq!(
        ask(&listener, "/ready", None).await.unwrap_err(),
        "/ready answers 503: database, queue not well"
    );
    assert_eq!(
        ask(&listener, "/hang", None).await.unwrap_err(),
        format!("no response from {address} within 500 ms")
    );
    let asked = listener.asked().remove(0);
    assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
    assert!(asked.contains("connection: close\r\n"), "{asked}");

    let tcp = |address: String| async move {
        let timeout = Duration::from_secs(5);
        probe::run_probe(&HealthProbe::Tcp, instance(&address, None), timeout).await
    };
    assert_eq!(tcp(address.clone()).await, Ok(()));
    assert_eq!(
        tcp("127.0.0.1:1".to_owned()).await.unwrap_err().to_string(),
        "connection refused on 127.0.0.1:1"
    );
}

#[tokio::test]
async fn a_probe_asks_for_the_services_host_and_sends_its_headers() {
    let listener = Listener::start().await;
    let probe = |headers: &[(&str, &str)]| HealthProbe::Http {
        path: "/ready".to_owned(),
        status: Some(200),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let timeout = Duration::from_secs(5);
    let known = instance(&listener.address, Some("shop.example.com"));
    let _ = probe::run_probe(&probe(&[]), known, timeout).await;
    let own = probe(&[("host", "other.example.com"), ("x-probe", "yes")]);
    let _ = probe::run_probe(&own, known, timeout).await;
    let asked = listener.asked();
    assert!(asked[0].contains("host: shop.example.com\r\n"), "{asked:?}");
    assert!(
        asked[1].contains("host: other.example.com\r\n"),
        "{asked:?}"
    );
    assert!(asked[1].contains("x-probe: yes\r\n"), "{asked:?}");
    let unknown = HealthProbe::Http {
        path: "/no-such-host".to_owned(),
        status: None,
        headers: BTreeMap::new(),
    };
    let refused = probe::run_probe(&unknown, known, timeout).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "/no-such-host answers 400 to Host shop.example.com: host is not allowed"
    );
    let bad = probe(&[("x-probe", "a\nb")]);
    let refused = probe::run_probe(&bad, known, timeout).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("header x-probe"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_command_that_is_late_or_no_longer_wanted_goes_with_all_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let probe = HealthProbe::Exec {
        command: "sleep 1000 & echo $! > child; echo working; wait".to_owned(),
    };
    let asked = ProbeTarget {
        workdir: folder.path(),
        ..instance("127.0.0.1:1", None)
    };
    let late = probe::run_probe(&probe, asked, Duration::from_millis(300)).await;
    assert_eq!(
        late.unwrap_err().to_string(),
        "not done within 0.3 s: working"
    );
    gone(&folder.path().join("child")).await;

    std::fs::remove_file(folder.path().join("child")).unwrap();
    let asking = probe::run_probe(&probe, asked, Duration::from_secs(1_000));
    let child = folder.path().join("child");
    tokio::select! {
        _ = asking => panic!("it waits"),
        () = until(|| number(&child).is_some()) => {}
    }
    gone(&child).await;
}

fn number(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

async fn gone(file: &Path) {
    let pid = number(file).unwrap();
    until(|| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
}

async fn until(holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .expect("it happens");
}
