//! Providers of metrics: a real Prometheus, and servers of the test for what a real one rarely does.

mod metrics_support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use metrics_support::{Fake, Prometheus};
use shipway_core::config::{MetricSource, ProviderQuery};
use shipway_core::target::{InstanceId, ReplicaSetKey};
use shipway_drivers::metrics::{MetricReader, QuerySubject};
use shipway_targets::{checks::exec::FolderCommands, target::CommandPlace};

fn about() -> QuerySubject {
    QuerySubject {
        release: 4,
        stable: Some(3),
        service: "shop".into(),
        environment: "production".into(),
    }
}

fn set() -> ReplicaSetKey {
    "shop.production.4.1".parse::<InstanceId>().unwrap().set
}

fn command_place<'a>(runner: &'a FolderCommands, set: &'a ReplicaSetKey) -> CommandPlace<'a> {
    CommandPlace { runner, set }
}

/// What a query gives, with a second for each attempt.
async fn ask(query: ProviderQuery) -> Result<f64, String> {
    let source = MetricSource {
        metric: "it".parse().unwrap(),
        query,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(5),
        window: Duration::from_secs(60),
    };
    let folder = tempfile::tempdir().unwrap();
    let secrets = |name: &str| (name == "KEY").then(|| "s3cret".to_owned());
    MetricReader::new()
        .read_metric(
            &source,
            &about(),
            Timestamp::now(),
            command_place(&FolderCommands(folder.path().into()), &set()),
            &secrets,
        )
        .await
        .map_err(|error| error.to_string())
}

async fn promql(url: &str, query: &str) -> Result<f64, String> {
    ask(ProviderQuery::Prometheus {
        url: url.to_owned(),
        query: query.to_owned(),
        headers: BTreeMap::new(),
    })
    .await
}

async fn said(url: &str, query: &str, words: &str) {
    let why = promql(url, query).await.unwrap_err();
    assert!(why.contains(words), "{query}: {why}");
}

#[tokio::test]
async fn a_real_prometheus_gives_one_number_or_a_reason() {
    let page = Arc::new(Mutex::new(
        "conversion{release=\"3\"} 0.5\nconversion{release=\"4\"} 0.25\norders_total{release=\"4\"} 1000\n".to_owned(),
    ));
    let exporter = Fake::serve({
        let page = page.clone();
        move |_, _| Some((200, page.lock().unwrap().clone()))
    });
    let Some(mut prometheus) = Prometheus::start(&exporter) else {
        return;
    };
    let url = prometheus.url.clone();
    prometheus.until_has("orders_total");
    assert_eq!(
        promql(&url, "conversion{release=\"{{release}}\"}").await,
        Ok(0.25)
    );
    assert_eq!(
        promql(&url, "conversion{release=\"{{stable}}\"}").await,
        Ok(0.5)
    );
    assert_eq!(promql(&url, "scalar(vector(7))").await, Ok(7.0));
    said(&url, "conversion", "2 series, but one is needed").await;
    said(&url, "conversion{release=\"five\"}", "no series").await;
    // A label that only one side has: nothing matches.
    said(
        &url,
        "conversion / on(version) orders_total",
        "refused the query (422)",
    )
    .await;
    said(&url, "vector(0) / vector(0)", "NaN").await;
    said(&url, "vector(1) / vector(0)", "+Inf").await;
    said(&url, "vector(-1) / vector(0)", "-Inf").await;
    said(&url, "conversion[1m]", "returns a matrix").await;
    said(&url, "\"text\"", "returns a string").await;
    said(&url, "sum(conversion", "refused the query (400)").await;

    // A counter that begins anew: `increase` takes all of it as new, and never gives less than zero.
    *page.lock().unwrap() = "orders_total{release=\"4\"} 3\n".to_owned();
    prometheus.until_has("orders_total==3");
    let grown = promql(
        &url,
        "sum(increase(orders_total{release=\"4\"}[{{window}}]))",
    )
    .await;
    assert!(grown.as_ref().is_ok_and(|grown| *grown >= 0.0), "{grown:?}");
    // A series that stops is no longer answered.
    prometheus.until_has("absent(conversion)");
    said(&url, "conversion{release=\"4\"}", "no series").await;

    prometheus.kill();
    said(&url, "orders_total", "Prometheus could not be reached").await;
}

#[tokio::test]
async fn partial_slow_and_broken_answers_are_no_answers() {
    let partial = Fake::serve(|_, _| {
        Some((
            200,
            r#"{"status":"success","warnings":["store 2 is down"],"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"5"]}]}}"#.into(),
        ))
    });
    said(&partial.url, "up", "partial: store 2 is down").await;
    let page = Fake::serve(|_, _| Some((200, "<html>hello</html>".into())));
    said(&page.url, "up", "did not return JSON: <html>hello</html>").await;
    let long = Fake::serve(|_, _| Some((200, "1".repeat(2 << 20))));
    said(&long.url, "up", "more than 1024 KiB").await;

    let silent = Fake::serve(|_, _| None);
    let source = MetricSource {
        metric: "it".parse().unwrap(),
        query: ProviderQuery::Prometheus {
            url: silent.url.clone(),
            query: "up".into(),
            headers: BTreeMap::new(),
        },
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(100),
        window: Duration::from_secs(60),
    };
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let answer = MetricReader::new()
        .read_metric(
            &source,
            &about(),
            Timestamp::now(),
            command_place(&FolderCommands(folder.path().into()), &set()),
            &|_| None,
        )
        .await;
    assert!(
        answer
            .as_ref()
            .is_err_and(|why| why.to_string().contains("did not respond within 100 ms")),
        "{answer:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "it is bounded");
}

#[tokio::test]
async fn what_fails_is_asked_again_but_not_for_ever_and_not_when_it_is_refused() {
    let asked = Arc::new(AtomicU32::new(0));
    let counting = |fails: u32, status: u16| {
        let asked = asked.clone();
        asked.store(0, Ordering::SeqCst);
        Fake::serve(move |_, _| {
            let before = asked.fetch_add(1, Ordering::SeqCst);
            Some(if before < fails {
                (status, "busy".into())
            } else {
                (200, r#"{"value": 5}"#.into())
            })
        })
    };
    let web = |url: &str| ProviderQuery::Web {
        url: url.to_owned(),
        method: "GET".into(),
        headers: BTreeMap::new(),
        body: None,
        path: "value".into(),
    };
    assert_eq!(ask(web(&counting(2, 503).url)).await, Ok(5.0));
    let why = ask(web(&counting(9, 503).url)).await.unwrap_err();
    assert!(why.contains("503") && why.contains("busy"), "{why}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let why = ask(web(&counting(9, 404).url)).await.unwrap_err();
    assert!(why.contains("404"), "{why}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_web_provider_gets_what_was_configured_and_secrets_stay_secret() {
    let site = Fake::serve(|head, body| {
        let is_right = head.starts_with("POST /kpi?release=4 ")
            && head.to_lowercase().contains("authorization: bearer s3cret")
            && body == r#"{"environment":"production"}"#;
        Some(if is_right {
            (200, r#"{"data":[{"value":"0.75"}]}"#.into())
        } else {
            (401, "no".into())
        })
    });
    let query = |secret: &str| ProviderQuery::Web {
        url: format!("{}/kpi?release={{{{release}}}}", site.url),
        method: "POST".into(),
        headers: [("Authorization".to_owned(), format!("Bearer {secret}"))].into(),
        body: Some(r#"{"environment":"{{environment}}"}"#.into()),
        path: "data[0].value".into(),
    };
    assert_eq!(ask(query("$KEY")).await, Ok(0.75));
    let why = ask(query("$OTHER")).await.unwrap_err();
    assert_eq!(
        why,
        "the secret OTHER is not set: `shipway secret set OTHER`"
    );
    let gone = ProviderQuery::Web {
        url: "http://127.0.0.1:1/$KEY".into(),
        method: "GET".into(),
        headers: BTreeMap::new(),
        body: None,
        path: String::new(),
    };
    let why = ask(gone).await.unwrap_err();
    assert!(
        why.contains("could not be reached") && !why.contains("s3cret"),
        "{why}"
    );
}

#[tokio::test]
async fn datadog_is_asked_with_both_keys_about_the_window() {
    let site = Fake::serve(|head, _| {
        let lower = head.to_lowercase();
        let is_right = head.contains("query=avg%3Ax%7Bversion%3A4%7D")
            && lower.contains("dd-api-key: s3cret")
            && lower.contains("dd-application-key: s3cret");
        Some(if is_right {
            (
                200,
                r#"{"status":"ok","series":[{"pointlist":[[1,1.0],[2,2.5]]}]}"#.into(),
            )
        } else {
            (403, r#"{"errors":["Forbidden"]}"#.into())
        })
    });
    let query = |query: &str| ProviderQuery::Datadog {
        site: site.url.clone(),
        query: query.to_owned(),
        api_key: "$KEY".into(),
        app_key: "$KEY".into(),
    };
    assert_eq!(ask(query("avg:x{version:{{release}}}")).await, Ok(2.5));
    let why = ask(query("avg:y")).await.unwrap_err();
    assert!(why.contains("Forbidden"), "{why}");
}

#[tokio::test]
async fn a_command_prints_a_number_or_json_and_leaves_nothing_behind() {
    let exec = |command: &str, path: &str| ProviderQuery::Exec {
        command: command.to_owned(),
        path: path.to_owned(),
    };
    assert_eq!(ask(exec("echo $RELEASE.$STABLE", "")).await, Ok(4.3));
    assert_eq!(
        ask(exec("echo '{\"a\":[1,{{release}}]}'", "a[1]")).await,
        Ok(4.0)
    );
    for (command, words) in [
        ("echo NaN", "NaN"),
        ("true", "printed nothing"),
        ("echo many", "neither a number nor JSON: many"),
        ("echo '{}'", "an object, not a number"),
        ("echo broken >&2; exit 3", "exit code 3: broken"),
    ] {
        let why = ask(exec(command, "")).await.unwrap_err();
        assert!(why.contains(words), "{command}: {why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let source = MetricSource {
        metric: "it".parse().unwrap(),
        query: exec("sleep 1000 & echo $! >>pids; wait", ""),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(300),
        window: Duration::from_secs(60),
    };
    let answer = MetricReader::new()
        .read_metric(
            &source,
            &about(),
            Timestamp::now(),
            command_place(&FolderCommands(folder.path().into()), &set()),
            &|_| None,
        )
        .await;
    assert!(
        answer
            .as_ref()
            .is_err_and(|why| why.to_string().contains("not done within")),
        "{answer:?}"
    );
    for pid in std::fs::read_to_string(folder.path().join("pids"))
        .unwrap()
        .lines()
    {
        // Killed; gone in a moment, or left to whoever reaps it.
        let status = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let patience = tokio::time::timeout(Duration::from_secs(10), async {
            while !(status().is_empty() || status().contains(") Z")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(patience.await.is_ok(), "{}", status());
    }
}
