//! Metrics that somebody else measures: one file for each provider.
//!
//! Answers are strict: a finite number, or a sentence that says why there is none. What isn't there, isn't one number, is NaN or
//! comes with a warning is never taken for something. An asking that fails is tried again, a few times and with a growing pause;
//! how long it all may take is bounded by [`Source::timeout`].
//!
//! Providers decide nothing, know no rollout, and never repeat a secret: they get texts whose templates and secrets are
//! filled in ([`query_template`]).
//!
//! ```no_run
//! # async fn example(source: &shipway_core::config::Source) -> Result<(), String> {
//! use shipway_drivers::metrics::{About, Reader};
//! let about = About { release: 4, stable: Some(3), service: "shop".into(), environment: "production".into() };
//! let secrets = |name: &str| std::env::var(name).ok();
//! let value = Reader::new().read_metric(source, &about, jiff::Timestamp::now(), "/tmp".as_ref(), &secrets).await?;
//! # Ok(()) }
//! ```

mod datadog;
mod exec;
mod http;
mod json;
mod prometheus;
mod query_template;
mod web;

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use shipway_core::config::{Query, Source};

pub use self::query_template::QuerySubject;
use self::{http::MetricHttpClient, query_template::fill_query};

/// How often is asked at all before there is no answer.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks providers. Cheap to clone; connections are reused.
#[derive(Clone, Debug)]
pub struct MetricReader {
    http: MetricHttpClient,
}

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MetricUnavailable {
    /// In words.
    why: String,
    /// Whether the same question may be answered a moment later.
    may_pass: bool,
}

impl MetricUnavailable {
    /// One that asking again doesn't change.
    fn for_good(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            may_pass: false,
        }
    }

    /// One that may pass.
    fn for_now(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            may_pass: true,
        }
    }
}

impl Default for MetricReader {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricReader {
    /// One that trusts the certificates the machine trusts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            http: MetricHttpClient::new(),
        }
    }

    /// The number that `source` gives for `about.release` at `at`; commands run in `workdir`, `secrets` knows those of the
    /// environment. Takes [`Source::timeout`] for each attempt at most.
    ///
    /// # Errors
    /// With a sentence when there is no finite number.
    pub async fn read_metric(
        &self,
        source: &Source,
        about: &QuerySubject,
        at: Timestamp,
        workdir: &Path,
        secrets: &(dyn Fn(&str) -> Option<String> + Send + Sync),
    ) -> Result<f64, String> {
        let query = fill_query(&source.query, about, source.window, secrets)?;
        let mut failed = 0;
        loop {
            match self.read_once(&query, source, about, at, workdir).await {
                Ok(value) if value.is_finite() => return Ok(value),
                Ok(value) => {
                    return Err(format!(
                        "{} says {}",
                        provider_name(&query),
                        describe_non_finite(value)
                    ));
                }
                Err(MetricUnavailable { why, may_pass }) => {
                    failed += 1;
                    if failed == ATTEMPTS || !may_pass {
                        return Err(why);
                    }
                    tokio::time::sleep(PAUSE * 2_u32.pow(failed - 1)).await;
                }
            }
        }
    }

    async fn read_once(
        &self,
        query: &Query,
        source: &Source,
        about: &QuerySubject,
        at: Timestamp,
        workdir: &Path,
    ) -> Result<f64, MetricUnavailable> {
        let timeout = source.timeout;
        match query {
            Query::Prometheus {
                url,
                query,
                headers,
            } => prometheus::query_prometheus(&self.http, url, query, headers, at, timeout).await,
            Query::Datadog {
                site,
                query,
                api_key,
                app_key,
            } => {
                let keys = datadog::DatadogKeys {
                    api: api_key,
                    app: app_key,
                };
                datadog::query_datadog(&self.http, site, query, &keys, (at, source.window), timeout)
                    .await
            }
            Query::Web {
                url,
                method,
                headers,
                body,
                path,
            } => {
                let request = web::WebRequest {
                    url,
                    method,
                    headers,
                    body: body.as_deref(),
                };
                web::query_web(&self.http, &request, path, timeout).await
            }
            Query::Exec { command, path } => {
                exec::run_command(command, path, about, source.window, workdir, timeout).await
            }
            Query::Events => Err(MetricUnavailable::for_good(
                "events are reported to Shipway, not asked for",
            )),
        }
    }
}

/// How a provider is called in sentences.
const fn provider_name(query: &Query) -> &'static str {
    match query {
        Query::Prometheus { .. } => "Prometheus",
        Query::Datadog { .. } => "Datadog",
        Query::Web { .. } => "the web provider",
        Query::Exec { .. } => "the command",
        Query::Events => "Shipway",
    }
}

/// A number that is none, in words.
const fn describe_non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN, which is no number"
    } else if value > 0.0 {
        "+Inf, which is no number"
    } else {
        "-Inf, which is no number"
    }
}
