//! Smoke tests, put to exactly the instances that are to get traffic.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use shipway_core::check::{Difference, SmokeProbe, SmokeReport, SmokeResult, SmokeTest};

/// A request that says nothing else may take this long.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// A command may take this long.
const EXEC_MAX: Duration = Duration::from_secs(60);
/// Before a failed test is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The part of a body that expectations look at.
const BODY_MAX: usize = 1 << 20;

/// Runs every test against every instance (name and address), in order.
pub async fn run_suite(
    tests: &[SmokeTest],
    instances: &[(String, String)],
    workdir: &Path,
) -> SmokeReport {
    let mut results = Vec::with_capacity(tests.len() * instances.len());
    for (name, address) in instances {
        for test in tests {
            results.push(run_test(test, name, address, workdir).await);
        }
    }
    SmokeReport { results }
}

async fn run_test(test: &SmokeTest, instance: &str, address: &str, workdir: &Path) -> SmokeResult {
    let mut tries = 0;
    loop {
        tries += 1;
        let begun = Instant::now();
        let differences = run_once(&test.probe, address, workdir).await;
        let took = begun.elapsed();
        if differences.is_empty() || tries > test.retries {
            return SmokeResult {
                name: test.name.clone(),
                instance: instance.to_owned(),
                passed: differences.is_empty(),
                took,
                tries,
                differences,
            };
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn run_once(probe: &SmokeProbe, address: &str, workdir: &Path) -> Vec<Difference> {
    match probe {
        SmokeProbe::Exec { command } => super::probe::exec(command, address, workdir, EXEC_MAX)
            .await
            .err()
            .map(Difference)
            .into_iter()
            .collect(),
        SmokeProbe::Request {
            method,
            path,
            headers,
            body,
            expect,
        } => {
            let mut request = Request::builder()
                .method(method.as_str())
                .uri(path)
                .header("host", address)
                .header("user-agent", "shipway-smoke");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request =
                match request.body(Full::new(Bytes::from(body.clone().unwrap_or_default()))) {
                    Ok(request) => request,
                    Err(error) => {
                        return vec![Difference(format!("the request can't be made: {error}"))];
                    }
                };
            // A limit on the time is judged by what it took; the wait itself ends a little later, so that there is an answer to judge.
            let timeout = expect
                .within
                .map_or(REQUEST_MAX, |within| within.max(Duration::from_secs(1)) * 2);
            match super::http::ask(address, request, timeout, BODY_MAX).await {
                Ok(answer) => expect.differences(&answer),
                Err(why) => vec![Difference(why)],
            }
        }
    }
}
