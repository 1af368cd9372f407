//! `health` and `smoke`.

use std::{collections::BTreeMap, time::Duration};

use shipway_syntax::{Diagnostic, MappingFields, Spanned, YamlNode, YamlValue};

use crate::check::{ExpectedAnswer, HealthCheck, HealthProbe, SmokeProbe, SmokeTest};
use crate::field_values::Problems;

/// Keys of `health`.
pub(super) const HEALTH_KEYS: &[&str] = &[
    "http",
    "tcp",
    "exec",
    "status",
    "headers",
    "liveness",
    "interval",
    "timeout",
    "healthy_after",
    "unhealthy_after",
    "start_period",
];
/// Methods, each of which is a key with the path as its value.
const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];
/// Keys of a smoke test.
pub(super) const SMOKE_KEYS: &[&str] = &[
    "name", "method", "path", "get", "post", "put", "patch", "delete", "head", "options",
    "headers", "body", "expect", "retries", "exec",
];
/// Keys of `expect`.
pub(super) const EXPECT_KEYS: &[&str] = &["status", "headers", "json", "body", "within"];

/// How an instance is known to be ready and alive.
pub(super) fn health(node: &YamlNode, problems: &mut Problems) -> Option<HealthCheck> {
    let fields = MappingFields::read(node, "health", HEALTH_KEYS, problems)?;
    let usual = HealthCheck::default();
    let headers = probe_headers(&fields, problems).unwrap_or_default();
    let liveness = fields.get("liveness").and_then(|node| {
        let fields = MappingFields::read(
            node,
            "liveness",
            &["http", "tcp", "exec", "status", "headers"],
            problems,
        )?;
        let own = probe_headers(&fields, problems);
        probe(&fields, own.unwrap_or_else(|| headers.clone()), problems)
    });
    Some(HealthCheck {
        readiness: probe(&fields, headers, problems).unwrap_or(usual.readiness),
        liveness,
        interval: at_least(&fields, "interval", Duration::from_millis(50), problems)
            .unwrap_or(usual.interval),
        timeout: at_least(&fields, "timeout", Duration::from_millis(10), problems)
            .unwrap_or(usual.timeout),
        healthy_after: fields
            .integer("healthy_after", 1, 100, problems)
            .unwrap_or(usual.healthy_after),
        unhealthy_after: fields
            .integer("unhealthy_after", 1, 100, problems)
            .unwrap_or(usual.unhealthy_after),
        start_period: fields
            .duration("start_period", problems)
            .unwrap_or(usual.start_period),
    })
}

fn at_least(
    fields: &MappingFields<'_>,
    key: &str,
    least: Duration,
    problems: &mut Problems,
) -> Option<Duration> {
    let duration = fields.duration(key, problems)?;
    if duration < least {
        let span = fields.get(key)?.span;
        problems.push(Diagnostic::error(
            "bad-value",
            span,
            format!("`{key}` must be at least {} ms", least.as_millis()),
        ));
    }
    Some(duration.max(least))
}

/// Headers of a probe; `None` when the file names none.
fn probe_headers(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    fields.get("headers")?;
    let mut headers = BTreeMap::new();
    for (key, value) in fields.map("headers", problems) {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let is_name = !key.text.is_empty() && key.text.bytes().all(is_token);
        if !is_name || value.value.chars().any(char::is_control) {
            let message = format!("`{}` can't be sent as a header", key.text);
            problems.push(Diagnostic::error("bad-value", key.span, message));
            continue;
        }
        headers.insert(key.text.to_ascii_lowercase(), value.value);
    }
    Some(headers)
}

fn probe(
    fields: &MappingFields<'_>,
    headers: BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<HealthProbe> {
    if let Some(path) = fields.string("http", problems) {
        require_absolute_path(&path, "/health", problems);
        let status = fields
            .integer("status", 100, 599, problems)
            .and_then(|status| u16::try_from(status).ok());
        return Some(HealthProbe::Http {
            path: path.value,
            status,
            headers,
        });
    }
    if let Some(command) = fields.string("exec", problems) {
        return Some(HealthProbe::Exec {
            command: command.value,
        });
    }
    fields.bool("tcp", problems).map(|_| HealthProbe::Tcp)
}

fn require_absolute_path(path: &Spanned<String>, example: &str, problems: &mut Problems) {
    if !path.value.starts_with('/') {
        let message = format!("`{}` is not a path", path.value);
        problems.push(
            Diagnostic::error("bad-value", path.span, message)
                .help(format!("start it with a slash: {example}")),
        );
    }
}

pub(super) fn smoke_test(node: &YamlNode, problems: &mut Problems) -> Option<SmokeTest> {
    let fields = MappingFields::read(node, "a smoke test", SMOKE_KEYS, problems)?;
    let retries = fields.integer("retries", 0, 100, problems).unwrap_or(0);
    let name = fields.string("name", problems).map(|name| name.value);
    let probe = match fields.string("exec", problems) {
        Some(command) => SmokeProbe::Exec {
            command: command.value,
        },
        None => request_probe(node, &fields, problems)?,
    };
    let name = name.unwrap_or_else(|| match &probe {
        SmokeProbe::Exec { command } => command.clone(),
        SmokeProbe::Request { method, path, .. } => format!("{method} {path}"),
    });
    Some(SmokeTest {
        name,
        probe,
        retries,
    })
}

/// The method and path of `get: /items`, or of `method` and `path`.
fn request_line(
    node: &YamlNode,
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<(String, Spanned<String>)> {
    let short = METHODS.iter().find_map(|method| {
        let path = fields.string(method, problems)?;
        Some((method.to_ascii_uppercase(), path))
    });
    if short.is_some() {
        return short;
    }
    let Some(path) = fields.string("path", problems) else {
        problems.push(
            Diagnostic::error(
                "missing-key",
                node.span,
                "a smoke test needs a request or a command",
            )
            .help("for example `get: /` or `exec: ./scripts/smoke-tests.sh $URL`"),
        );
        return None;
    };
    let method = fields.string("method", problems);
    let method = method.map_or("GET".to_owned(), |it| it.value.to_ascii_uppercase());
    Some((method, path))
}

fn request_probe(
    node: &YamlNode,
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<SmokeProbe> {
    let (method, path) = request_line(node, fields, problems)?;
    require_absolute_path(&path, "/items", problems);
    let (body, is_json) = body(fields);
    let mut headers: BTreeMap<String, String> = fields
        .map("headers", problems)
        .into_iter()
        .map(|(key, value)| (key.text.clone(), value.value))
        .collect();
    if is_json
        && !headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
    {
        headers.insert("content-type".to_owned(), "application/json".to_owned());
    }
    let expect = fields
        .get("expect")
        .and_then(|node| expect(node, problems))
        .unwrap_or_default();
    Some(SmokeProbe::Request {
        method,
        path: path.value,
        headers,
        body,
        expect,
    })
}

/// A text is sent as it is, a mapping or list as JSON.
fn body(fields: &MappingFields<'_>) -> (Option<String>, bool) {
    match fields.get("body") {
        None => (None, false),
        Some(node) => match node.as_scalar_text() {
            Some(text) => (Some(text.to_owned()), false),
            None => (Some(json(node).to_string()), true),
        },
    }
}

fn expect(node: &YamlNode, problems: &mut Problems) -> Option<ExpectedAnswer> {
    let fields = MappingFields::read(node, "expect", EXPECT_KEYS, problems)?;
    let status = fields
        .integer("status", 100, 599, problems)
        .and_then(|status| u16::try_from(status).ok());
    let mut expected = ExpectedAnswer {
        status,
        within: fields.duration("within", problems),
        ..ExpectedAnswer::default()
    };
    expected.headers = fields
        .map("headers", problems)
        .into_iter()
        .map(|(key, value)| (key.text.to_ascii_lowercase(), value.value))
        .collect();
    match fields.get("json").map(|node| (node, node.as_mapping())) {
        Some((_, Some(entries))) => {
            expected.json = entries
                .iter()
                .map(|(key, value)| (key.text.clone(), json(value)))
                .collect()
        }
        Some((node, None)) => {
            expected.json.insert("$".to_owned(), json(node));
        }
        None => {}
    }
    match fields.get("body").map(|node| (node, node.as_scalar_text())) {
        Some((_, Some(text))) => expected.body_contains = Some(text.to_owned()),
        Some((node, None)) => {
            let inner =
                MappingFields::read(node, "body", &["contains", "matches", "regex"], problems)?;
            expected.body_contains = inner.string("contains", problems).map(|text| text.value);
            expected.body_matches = inner
                .string("matches", problems)
                .or_else(|| inner.string("regex", problems))
                .map(|text| text.value);
        }
        None => {}
    }
    Some(expected)
}

/// A YAML value as JSON.
fn json(node: &YamlNode) -> serde_json::Value {
    match &node.value {
        YamlValue::Null => serde_json::Value::Null,
        YamlValue::Bool(value) => (*value).into(),
        YamlValue::Number { number, .. } if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            (*number as i64).into()
        }
        YamlValue::Number { number, .. } => {
            serde_json::Number::from_f64(*number).map_or(serde_json::Value::Null, Into::into)
        }
        YamlValue::String { text, .. } => text.clone().into(),
        YamlValue::Sequence(items) => items.iter().map(json).collect::<Vec<_>>().into(),
        YamlValue::Mapping(entries) => entries
            .iter()
            .map(|(key, value)| (key.text.clone(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
