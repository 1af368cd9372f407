//! Health checks and smoke tests: the request to send and the answer to expect. Sending it is a driver's work.

mod judge;
mod path;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use judge::{AnswerDifference, ProbeAnswer, named_failures};
pub use path::at_path;

/// How an instance is known to be ready (gets traffic) and alive (is not restarted).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub readiness: HealthProbe,
    /// Decides restarts; absent: the process being there is enough.
    pub liveness: Option<HealthProbe>,
    /// From one probe to the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// Good answers in a row, an interval apart, until ready.
    pub healthy_after: u32,
    /// Bad answers in a row until unready, or dead.
    pub unhealthy_after: u32,
    /// Bad answers this soon after the start are not counted against liveness, until the first good one.
    pub start_period: Duration,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            readiness: HealthProbe::Tcp,
            liveness: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
            start_period: Duration::from_secs(30),
        }
    }
}

/// One question put to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthProbe {
    /// GET the path; 2xx or 3xx is good unless `status` names one.
    Http {
        /// The path, from `/`.
        path: String,
        /// The only good status.
        status: Option<u16>,
        /// Headers to send; `host` takes the place of the host that the environment is reached by.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// A connection can be opened.
    Tcp,
    /// A shell command exits with 0; `PORT` and `URL` are in its environment.
    Exec { command: String },
}

/// A request with the expected answer, or a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeTest {
    pub name: String,
    pub probe: SmokeProbe,
    /// Further tries after a failed one.
    pub retries: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmokeProbe {
    /// An HTTP request to the instance.
    Request {
        /// `GET`, `POST`, …
        method: String,
        /// The path with its query.
        path: String,
        headers: BTreeMap<String, String>,
        /// The body to send; a mapping in the file is sent as JSON.
        body: Option<String>,
        /// What a good answer looks like.
        expect: ExpectedAnswer,
    },
    /// A shell command in the release's directory; `URL` in its environment. Exit code 0 is good.
    Exec { command: String },
}

/// What a good answer looks like. What isn't named isn't looked at; without a status any below 400 will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpectedAnswer {
    pub status: Option<u16>,
    /// Headers that must be there, with these values; names ignore case.
    pub headers: BTreeMap<String, String>,
    /// By path (`items[0].name`, `$` for the whole): the value there must contain this one.
    pub json: BTreeMap<String, serde_json::Value>,
    /// Text that must be in the body.
    pub body_contains: Option<String>,
    /// A regular expression that must match within the body.
    pub body_matches: Option<String>,
    /// The longest it may take.
    pub within: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeResult {
    pub name: String,
    /// The instance it was put to.
    pub instance: String,
    pub passed: bool,
    pub took: Duration,
    pub tries: u32,
    /// What differed in the last try.
    pub differences: Vec<AnswerDifference>,
}

/// The summary of a smoke suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeReport {
    /// Each test on each instance.
    pub results: Vec<SmokeResult>,
}

impl SmokeReport {
    #[must_use]
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|result| result.passed).count()
    }

    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.len() - self.passed()
    }

    /// `3 passed, 1 failed, 12 ms on average, 31 ms at most`, then the first failure.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.results.is_empty() {
            return "no smoke tests".to_owned();
        }
        let slowest = self
            .results
            .iter()
            .map(|result| result.took)
            .max()
            .unwrap_or_default();
        let average = self
            .results
            .iter()
            .map(|result| result.took)
            .sum::<Duration>()
            / (self.results.len() as u32);
        let mut text = format!(
            "{} passed, {} failed, {} ms on average, {} ms at most",
            self.passed(),
            self.failed(),
            average.as_millis(),
            slowest.as_millis()
        );
        if let Some(failure) = self.results.iter().find(|result| !result.passed) {
            let differences: Vec<_> = failure
                .differences
                .iter()
                .map(|difference| difference.0.as_str())
                .collect();
            text.push_str(&format!("; {}: {}", failure.name, differences.join("; ")));
        }
        text
    }
}
