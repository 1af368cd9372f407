//! `provider`: the source of a metric that Shipway does not measure itself.
//!
//! Texts are templates: `{{release}}` is the number of the queried release: a query runs once for the new release and once for the stable
//! one. `{{stable}}` is the stable release's number (such a query compares by itself and runs once), `{{service}}`,
//! `{{environment}}`, and `{{window}}` as a Prometheus duration (`60s`). Addresses, headers and bodies may name secrets as `$NAME`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use shipway_analysis::{Metric, MetricName};
use shipway_syntax::{Diagnostic, MappingFields, Spanned, YamlNode};

use super::Problems;

/// Keys of a provider.
pub(crate) const PROVIDER_KEYS: &[&str] = &[
    "prometheus",
    "datadog",
    "web",
    "exec",
    "query",
    "headers",
    "method",
    "body",
    "path",
    "api_key",
    "app_key",
    "timeout",
    "window",
];
/// Names that are allowed in `{{…}}`.
const TEMPLATES: [&str; 5] = ["release", "stable", "service", "environment", "window"];
/// A query that takes longer would still be running when the next is due.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A provider isn't asked more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// A metric and who knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSource {
    /// The metric's name in `shipway.yaml`.
    pub metric: MetricName,
    /// The provider and its query.
    pub query: ProviderQuery,
    /// From one answer to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The time that `{{window}}` stands for.
    pub window: Duration,
}

/// A query to one kind of provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderQuery {
    /// An instant query.
    Prometheus {
        /// Where: `http://prometheus:9090`.
        url: String,
        /// PromQL.
        query: String,
        /// Sent along.
        headers: BTreeMap<String, String>,
    },
    /// The last point of a timeseries query.
    Datadog {
        /// `datadoghq.eu`, or a whole address.
        site: String,
        /// In Datadog's words.
        query: String,
        /// A secret.
        api_key: String,
        /// A secret.
        app_key: String,
    },
    /// Any JSON over HTTP.
    Web {
        /// Where.
        url: String,
        /// `GET`
        method: String,
        /// Sent along.
        headers: BTreeMap<String, String>,
        /// Sent along.
        body: Option<String>,
        /// Where in the answer the number is: `data.items[0].value`; empty: the answer is the number.
        path: String,
    },
    /// What a command prints: a number, or JSON.
    Exec {
        /// A shell command.
        command: String,
        /// Where in its output the number is.
        path: String,
    },
    /// Events that are reported to Shipway's API.
    Events,
}

impl MetricSource {
    /// How judges call it.
    #[must_use]
    pub const fn as_metric(&self) -> Metric {
        match self.query {
            ProviderQuery::Events => Metric::Event(self.metric),
            ProviderQuery::Prometheus { .. }
            | ProviderQuery::Datadog { .. }
            | ProviderQuery::Web { .. }
            | ProviderQuery::Exec { .. } => Metric::Value(self.metric),
        }
    }
}

impl ProviderQuery {
    /// Whether the query itself compares with stable, so that it runs once for both releases.
    #[must_use]
    pub fn compares(&self) -> bool {
        let mut texts = self.texts().into_iter();
        texts.any(|text| text.replace(' ', "").contains("{{stable}}"))
    }

    /// All texts of the query, which may contain templates and secrets.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Prometheus {
                url,
                query,
                headers,
            } => [url, query]
                .into_iter()
                .chain(headers.values())
                .map(String::as_str)
                .collect(),
            Self::Datadog {
                site,
                query,
                api_key,
                app_key,
            } => vec![site, query, api_key, app_key],
            Self::Web {
                url, headers, body, ..
            } => {
                let texts = [url].into_iter().chain(headers.values()).chain(body);
                texts.map(String::as_str).collect()
            }
            Self::Exec { command, .. } => vec![command],
            Self::Events => Vec::new(),
        }
    }
}

/// `provider: events`, or a mapping.
pub(super) fn source(
    metric: MetricName,
    node: &YamlNode,
    interval: Option<Duration>,
    problems: &mut Problems,
) -> Option<MetricSource> {
    let interval = interval.unwrap_or(shipway_analysis::MeasurementPolicy::INTERVAL);
    let plain = |query| MetricSource {
        metric,
        query,
        interval: interval.max(INTERVAL_MIN),
        timeout: Duration::from_secs(5),
        window: interval.max(Duration::from_secs(60)),
    };
    match node.as_scalar_text() {
        Some("events") => return Some(plain(ProviderQuery::Events)),
        Some(other) => {
            let message =
                format!("`provider` must be `events` or a mapping, but this is `{other}`");
            problems.push(Diagnostic::error("unknown-word", node.span, message).help(
                "events are reported to /api/v1/services/{service}/metrics; others are { prometheus: http://…, query: … }, { datadog: … }, { web: … } or { exec: … }",
            ));
            return None;
        }
        None => {}
    }
    let fields = MappingFields::read(node, "a provider", PROVIDER_KEYS, problems)?;
    let before = problems.len();
    let query = query(&fields, problems);
    templates(&fields, problems);
    let timeout = fields.duration("timeout", problems);
    if let (Some(node), Some(timeout)) = (fields.get("timeout"), timeout)
        && (timeout.is_zero() || timeout > TIMEOUT_MAX)
    {
        let message = format!(
            "`timeout` must be above 0 and at most {} s",
            TIMEOUT_MAX.as_secs()
        );
        problems.push(Diagnostic::error("bad-value", node.span, message));
    }
    let mut source = plain(query?);
    source.timeout = timeout.unwrap_or(source.timeout);
    source.window = fields.duration("window", problems).unwrap_or(source.window);
    if source.window < Duration::from_secs(1)
        && let Some(node) = fields.get("window")
    {
        problems.push(Diagnostic::error(
            "bad-value",
            node.span,
            "`window` must be at least 1 s",
        ));
    }
    (problems.len() == before).then_some(source)
}

fn query(fields: &MappingFields<'_>, problems: &mut Problems) -> Option<ProviderQuery> {
    const WHO: [&str; 4] = ["prometheus", "datadog", "web", "exec"];
    let mut named = WHO.iter().copied().filter(|who| fields.get(who).is_some());
    let (Some(who), None) = (named.next(), named.next()) else {
        problems.push(
            Diagnostic::error(
                "missing-key",
                fields.span,
                "a provider must be one of prometheus, datadog, web and exec",
            )
            .help("provider: { prometheus: http://localhost:9090, query: … }"),
        );
        return None;
    };
    refuse_other_keys(fields, who, problems);
    read_query(fields, who, problems)
}

/// Refuses keys that belong to another provider than `who`.
fn refuse_other_keys(fields: &MappingFields<'_>, who: &str, problems: &mut Problems) {
    let takes: &[&str] = match who {
        "prometheus" => &["query", "headers"],
        "datadog" => &["query", "api_key", "app_key"],
        "web" => &["method", "headers", "body", "path"],
        _ => &["path"],
    };
    let others = PROVIDER_KEYS
        .iter()
        .filter(|key| !takes.contains(key) && ![who, "timeout", "window"].contains(key));
    for key in others {
        if let Some(node) = fields.get(key) {
            let message = format!("`{key}` can't be used with the provider `{who}`");
            problems.push(Diagnostic::error("conflict", node.span, message));
        }
    }
}

fn read_query(
    fields: &MappingFields<'_>,
    who: &str,
    problems: &mut Problems,
) -> Option<ProviderQuery> {
    let headers = |problems: &mut Problems| {
        let entries = fields.map("headers", problems).into_iter();
        entries
            .map(|(name, value)| (name.text.clone(), value.value))
            .collect::<BTreeMap<_, _>>()
    };
    let needed = |key: &str, problems: &mut Problems| {
        fields.require(key, problems);
        fields.string(key, problems)
    };
    let path = |problems: &mut Problems| {
        fields
            .string("path", problems)
            .map(|path| path.value)
            .unwrap_or_default()
    };
    let place = fields.string(who, problems)?;
    Some(match who {
        "prometheus" => ProviderQuery::Prometheus {
            url: address(place, problems)?,
            query: needed("query", problems)?.value,
            headers: headers(problems),
        },
        "datadog" => ProviderQuery::Datadog {
            site: place.value,
            query: needed("query", problems)?.value,
            api_key: secret(needed("api_key", problems)?, problems)?,
            app_key: secret(needed("app_key", problems)?, problems)?,
        },
        "web" => ProviderQuery::Web {
            url: address(place, problems)?,
            method: fields
                .string("method", problems)
                .map_or_else(|| "GET".to_owned(), |method| method.value.to_uppercase()),
            headers: headers(problems),
            body: fields.string("body", problems).map(|body| body.value),
            path: path(problems),
        },
        _ => ProviderQuery::Exec {
            command: place.value,
            path: path(problems),
        },
    })
}

fn address(text: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let is_one = ["http://", "https://", "$"]
        .iter()
        .any(|begin| text.value.starts_with(begin));
    if !is_one {
        problems.push(
            Diagnostic::error(
                "bad-value",
                text.span,
                format!("`{}` is not a URL", text.value),
            )
            .help("write http://…, https://… or a secret as $NAME"),
        );
    }
    is_one.then_some(text.value)
}

/// A secret's name (`$NAME`). A literal is refused: the repository is not secret.
fn secret(text: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let is_one = text.value.starts_with('$') && text.value.len() > 1;
    if !is_one {
        problems.push(
            Diagnostic::error("secret-in-file", text.span, "the file contains an API key")
                .help("use a secret of the server instead, as $NAME, and revoke this key"),
        );
    }
    is_one.then_some(text.value)
}

/// Refuses unknown names in `{{…}}`: a query with a typo would find no data.
fn templates(fields: &MappingFields<'_>, problems: &mut Problems) {
    let texts: Vec<Spanned<String>> = ["prometheus", "datadog", "web", "exec", "query", "body"]
        .iter()
        .filter_map(|key| {
            let node = fields.get(key)?;
            Some(Spanned {
                value: node.as_scalar_text()?.to_owned(),
                span: node.span,
            })
        })
        .collect();
    for text in texts {
        let mut rest = text.value.as_str();
        while let Some(begin) = rest.find("{{") {
            let after = &rest[begin + 2..];
            let Some(end) = after.find("}}") else { break };
            let word = after[..end].trim();
            // Go's own templates have dots and spaces; what looks like a word of ours is one.
            if word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !TEMPLATES.contains(&word)
            {
                let known = TEMPLATES.map(|word| format!("{{{{{word}}}}}")).join(", ");
                problems.push(
                    Diagnostic::error(
                        "unknown-word",
                        text.span,
                        format!("unknown placeholder `{{{{{word}}}}}`"),
                    )
                    .help(format!("the known ones are {known}")),
                );
            }
            rest = &after[end + 2..];
        }
    }
}
