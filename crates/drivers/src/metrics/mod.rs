//! Reads metrics from providers: one file per provider.
//!
//! # Invariants
//!
//! - A result is a finite number or an error with a reason. Missing values, several series, NaN and warnings are errors.
//! - A failed read is retried a few times with growing pauses; each attempt is bounded by [`MetricSource::timeout`].
//! - Providers decide nothing, know no rollout, and never repeat a secret: templates and secrets are expanded before
//!   ([`query_template`]).
//!
//! ```no_run
//! # async fn example(source: &shipway_core::config::MetricSource, place: shipway_targets::target::CommandPlace<'_>) -> Result<(), shipway_drivers::metrics::MetricError> {
//! use shipway_drivers::metrics::{QuerySubject, MetricReader};
//! let subject = QuerySubject { release: 4, stable: Some(3), service: "shop".into(), environment: "production".into() };
//! let secrets = |name: &str| std::env::var(name).ok();
//! let value = MetricReader::new().read_metric(source, &subject, jiff::Timestamp::now(), place, &secrets).await?;
//! # Ok(()) }
//! ```

mod datadog;
mod exec;
mod http;
mod json;
mod prometheus;
mod query_template;
mod web;

use std::time::Duration;

use jiff::Timestamp;
use shipway_core::config::{MetricSource, ProviderQuery};
use shipway_targets::target::CommandPlace;

pub use self::query_template::QuerySubject;
use self::{http::MetricHttpClient, query_template::fill_query};

/// Number of attempts.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubled with each one.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads metrics from providers. Cheap to clone; connections are reused.
#[derive(Clone, Debug)]
pub struct MetricReader {
    http: MetricHttpClient,
}

/// Why a provider returned no number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MetricUnavailable {
    /// The reason, for users.
    why: String,
    /// Whether a retry may succeed.
    may_pass: bool,
}

/// Why a provider gave no value.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// The query names a secret or a release that does not exist.
    #[error("{0}")]
    Query(String),
    /// The provider answered with a value that is not finite.
    #[error("{provider} returned {}", describe_non_finite(*.value))]
    NotFinite {
        /// The provider's name.
        provider: &'static str,
        /// NaN or an infinity.
        value: f64,
    },
    /// All attempts failed; the reason of the last one.
    #[error("{0}")]
    Unavailable(String),
}

impl MetricUnavailable {
    /// A permanent failure.
    fn for_good(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            may_pass: false,
        }
    }

    /// A temporary failure.
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
    /// A reader that trusts the system's certificates.
    #[must_use]
    pub fn new() -> Self {
        Self {
            http: MetricHttpClient::new(),
        }
    }

    /// Reads the value of `source` for `about.release` at `at`. Commands run in `place`; `secrets` returns the secrets of the
    /// environment. Each attempt takes at most [`MetricSource::timeout`].
    ///
    /// # Errors
    /// [`MetricError`]: there is no finite number.
    pub async fn read_metric(
        &self,
        source: &MetricSource,
        about: &QuerySubject,
        at: Timestamp,
        place: CommandPlace<'_>,
        secrets: &(dyn Fn(&str) -> Option<String> + Send + Sync),
    ) -> Result<f64, MetricError> {
        let query = fill_query(&source.query, about, source.window, secrets)
            .map_err(|error| MetricError::Query(error.to_string()))?;
        let mut failed = 0;
        loop {
            match self.read_once(&query, source, about, at, place).await {
                Ok(value) if value.is_finite() => return Ok(value),
                Ok(value) => {
                    return Err(MetricError::NotFinite {
                        provider: provider_name(&query),
                        value,
                    });
                }
                Err(MetricUnavailable { why, may_pass }) => {
                    failed += 1;
                    if failed == ATTEMPTS || !may_pass {
                        return Err(MetricError::Unavailable(why));
                    }
                    tokio::time::sleep(PAUSE * 2_u32.pow(failed - 1)).await;
                }
            }
        }
    }

    async fn read_once(
        &self,
        query: &ProviderQuery,
        source: &MetricSource,
        about: &QuerySubject,
        at: Timestamp,
        place: CommandPlace<'_>,
    ) -> Result<f64, MetricUnavailable> {
        let timeout = source.timeout;
        match query {
            ProviderQuery::Prometheus {
                url,
                query,
                headers,
            } => prometheus::query_prometheus(&self.http, url, query, headers, at, timeout).await,
            ProviderQuery::Datadog {
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
            ProviderQuery::Web {
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
            ProviderQuery::Exec { command, path } => {
                exec::run_command(command, path, about, source.window, place, timeout).await
            }
            ProviderQuery::Events => Err(MetricUnavailable::for_good(
                "events are reported to Shipway, not queried",
            )),
        }
    }
}

/// The provider's name in messages.
const fn provider_name(query: &ProviderQuery) -> &'static str {
    match query {
        ProviderQuery::Prometheus { .. } => "Prometheus",
        ProviderQuery::Datadog { .. } => "Datadog",
        ProviderQuery::Web { .. } => "the web provider",
        ProviderQuery::Exec { .. } => "the command",
        ProviderQuery::Events => "Shipway",
    }
}

/// Describes a value that is not finite.
const fn describe_non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN, which is not a number"
    } else if value > 0.0 {
        "+Inf, which is not a number"
    } else {
        "-Inf, which is not a number"
    }
}
