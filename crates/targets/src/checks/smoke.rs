//! Runs smoke tests against exactly the instances that will get traffic.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use shipway_core::check::{
    AnswerDifference, ExpectedAnswer, SmokeProbe, SmokeReport, SmokeResult, SmokeTest,
};

use super::{CheckError, InstanceAddress, exec, http as client};
use crate::target::{CommandPlace, SetCommand};

/// Default timeout of a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Timeout of a command.
const EXEC_WITHIN: Duration = Duration::from_secs(30);
/// Pause before a failed test is retried.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Bytes of a body that expectations see.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Instances tested concurrently: a suite tests the release, not the machine's limits.
const AT_ONCE: usize = 4;

/// Runs every test against every instance (name and address): the tests in order, several instances concurrently. Results are
/// ordered by instance, then test. Requests without a Host header get `host`, or the instance's address.
/// Commands run in `place`.
pub async fn run_suite(
    tests: &[SmokeTest],
    instances: &[(String, String)],
    host: Option<&str>,
    place: CommandPlace<'_>,
) -> SmokeReport {
    // Create the futures before the stream, so that they borrow from the caller.
    let suites: Vec<_> = instances
        .iter()
        .map(|(name, address)| {
            let instance = TestedInstance {
                name,
                at: InstanceAddress { address, host },
                place,
            };
            run_tests_on(tests, instance)
        })
        .collect();
    let results: Vec<Vec<SmokeResult>> = stream::iter(suites).buffered(AT_ONCE).collect().await;
    SmokeReport {
        results: results.into_iter().flatten().collect(),
    }
}

#[derive(Clone, Copy)]
struct TestedInstance<'a> {
    name: &'a str,
    at: InstanceAddress<'a>,
    place: CommandPlace<'a>,
}

async fn run_tests_on(tests: &[SmokeTest], instance: TestedInstance<'_>) -> Vec<SmokeResult> {
    let mut results = Vec::with_capacity(tests.len());
    for test in tests {
        results.push(run_test(test, instance).await);
    }
    results
}

async fn run_test(test: &SmokeTest, instance: TestedInstance<'_>) -> SmokeResult {
    let mut tries = 0;
    loop {
        tries += 1;
        let begun = Instant::now();
        let differences = run_once(&test.probe, instance).await;
        let took = begun.elapsed();
        if differences.is_empty() || tries > test.retries {
            return SmokeResult {
                name: test.name.clone(),
                instance: instance.name.to_owned(),
                passed: differences.is_empty(),
                took,
                tries,
                differences,
            };
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

async fn run_once(probe: &SmokeProbe, instance: TestedInstance<'_>) -> Vec<AnswerDifference> {
    let result = match probe {
        SmokeProbe::Exec { command } => {
            let command = SetCommand {
                command,
                environment: &exec::check_environment(instance.at.address),
                timeout: EXEC_WITHIN,
            };
            let output = instance.place.run_command(&command).await;
            output.map(|_| Vec::new()).map_err(CheckError::from)
        }
        SmokeProbe::Request {
            method,
            path,
            headers,
            body,
            expect,
        } => {
            let body = body.clone().unwrap_or_default();
            match build_request(method, path, headers, body) {
                Ok(request) => client::send_request(
                    instance.at,
                    request,
                    request_timeout(expect),
                    BODY_BYTES_MAX,
                )
                .await
                .map(|answer| expect.differences(&answer)),
                Err(error) => Err(CheckError::Request(format!(
                    "the request can't be made: {error}"
                ))),
            }
        }
    };
    result.unwrap_or_else(|error| vec![AnswerDifference(error.to_string())])
}

/// Time limits are checked against the duration; the timeout is longer, so that there is a response to check.
fn request_timeout(expect: &ExpectedAnswer) -> Duration {
    expect.within.map_or(REQUEST_WITHIN, |within| {
        within.max(Duration::from_secs(1)).saturating_mul(2)
    })
}

fn build_request(
    method: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
    body: String,
) -> Result<Request<Full<Bytes>>, CheckError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::USER_AGENT, "shipway-smoke")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CheckError::Request(error.to_string()))?;
    for (name, value) in headers {
        let said =
            |error: &dyn std::fmt::Display| CheckError::Request(format!("header {name}: {error}"));
        let name = HeaderName::try_from(name).map_err(|error| said(&error))?;
        let value = HeaderValue::try_from(value).map_err(|error| said(&error))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}
