//! Environments: where releases go, how they are reached, and who must agree.

use std::time::Duration;

use shipway_analysis::Analysis;
use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, YamlNode, YamlValue};

use super::{
    AnalysisSource, EnvironmentConfig, NotificationTarget, StickyKey, StickyScope, Strategy,
    WhenBusy, approvals, checks, deployment_rules, guard, metrics, promotion_groups, rollback,
    targets::NamedTarget, timeouts,
};
use crate::{
    address::PublicAddress,
    config::MetricSource,
    duration_text::DurationText,
    field_values::{Problems, env, later, one_of, path_in_repository, unknown_choice},
    ids::{EnvironmentName, ServiceName},
    target::ServiceEnvironment,
};

/// Keys of an environment.
pub(super) const ENVIRONMENT_KEYS: &[&str] = &[
    "instances",
    "strategy",
    "hosts",
    "path",
    "strip_prefix",
    "port",
    "sticky",
    "approvals",
    "wait",
    "branches",
    "freeze",
    "break_glass",
    "smoke",
    "tests",
    "analysis",
    "env",
    "when_busy",
    "rollback_window",
    "promote_with",
    "notify",
    "progress_deadline",
    "drain",
    "watch",
    "unready_grace",
    "response_timeout",
    "hold_timeout",
    "answer_within",
    "target",
    "router",
];
/// Keys that the format knows and this version doesn't do: refused with that, never passed over.
const LATER: &[(&str, &str)] = &[
    ("migrations", "database migrations"),
    ("infrastructure", "infrastructure as code"),
];

/// Keys of a canary that are often written one level too high.
const OF_CANARY: [&str; 3] = ["match", "mirror", "baseline"];

/// All of them, in their order; `None` when there is none.
pub(super) fn environments(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<Vec<EnvironmentConfig>> {
    let node = fields.require("environments", problems)?;
    let service = fields.get("service").and_then(YamlNode::as_scalar_text);
    let entries = node.as_mapping().filter(|entries| !entries.is_empty());
    let Some(entries) = entries else {
        problems.push(
            Diagnostic::error(
                "wrong-type",
                node.span,
                "`environments` must have at least one environment",
            )
            .help("for example `production: { strategy: rolling }`"),
        );
        return None;
    };
    // A name that can't be read has its own problem.
    let service_name = service.and_then(|name| name.parse::<ServiceName>().ok());
    let context = FileContext {
        service,
        target: NamedTarget::read(fields, problems),
    };
    let mut environments: Vec<EnvironmentConfig> = Vec::new();
    for (key, value) in entries {
        let name = key.text.parse::<EnvironmentName>();
        let environment = match name {
            Ok(name) => environment(name, context, value, key.span, problems),
            Err(error) => {
                problems.push(Diagnostic::error("bad-value", key.span, error.to_string()));
                None
            }
        };
        if let Some(environment) = environment {
            if let Some(service) = &service_name {
                refuse_shared_addresses(service, &environment, &environments, key.span, problems);
            }
            environments.push(environment);
        }
    }
    Some(environments)
}

/// Two environments can't have the same address.
fn refuse_shared_addresses(
    service: &ServiceName,
    new: &EnvironmentConfig,
    others: &[EnvironmentConfig],
    span: Span,
    problems: &mut Problems,
) {
    let addresses = |environment: &EnvironmentConfig| {
        let place = ServiceEnvironment {
            service: service.clone(),
            environment: environment.name.clone(),
        };
        environment.addresses(&place).claims()
    };
    let mine = addresses(new);
    for other in others {
        let theirs = addresses(other);
        let is_shared = |mine: &&PublicAddress| theirs.iter().any(|it| it.conflicts_with(mine));
        if let Some(shared) = mine.iter().find(is_shared) {
            problems.push(
                Diagnostic::error(
                    "shared-address",
                    span,
                    format!(
                        "{} and {} have the same address: {shared}",
                        other.name, new.name
                    ),
                )
                .help("give each environment its own `hosts`, `path` or `port`"),
            );
        }
    }
}

/// What environments take from the rest of the file.
#[derive(Clone, Copy)]
struct FileContext<'a> {
    /// The service's name, as it is written.
    service: Option<&'a str>,
    target: NamedTarget,
}

fn environment(
    name: EnvironmentName,
    context: FileContext<'_>,
    node: &YamlNode,
    span: Span,
    problems: &mut Problems,
) -> Option<EnvironmentConfig> {
    let empty = YamlNode {
        span,
        value: YamlValue::Mapping(Vec::new()),
    };
    let node = if node.is_null() { &empty } else { node };
    let what = format!("environment {name}");
    refuse_misplaced_keys(node, problems);
    let known: Vec<&str> = ENVIRONMENT_KEYS
        .iter()
        .copied()
        .chain(LATER.iter().map(|(word, _)| *word))
        .chain(OF_CANARY)
        .chain(RENAMED_KEYS)
        .collect();
    let fields = MappingFields::read(node, &what, &known, problems)?;
    environment_fields(name, context, &fields, problems)
}

/// Earlier names of keys, read with a warning.
const RENAMED_KEYS: [&str; 1] = ["with"];

/// Keys of later versions, and keys of the canary strategy that are written one level too high.
fn refuse_misplaced_keys(node: &YamlNode, problems: &mut Problems) {
    for (key, _) in node.as_mapping().unwrap_or_default() {
        if let Some((_, thing)) = LATER.iter().find(|(word, _)| *word == key.text) {
            problems.push(later(key.span, thing));
        }
        if OF_CANARY.contains(&key.text.as_str()) {
            let message = format!("`{}` belongs to the strategy", key.text);
            problems.push(
                Diagnostic::error("misplaced-key", key.span, message).help(format!(
                    "write it below `strategy: {{ canary: {{ {}: … }} }}`",
                    key.text
                )),
            );
        }
    }
}

const WHEN_BUSY: [(&str, WhenBusy); 3] = [
    ("supersede", WhenBusy::Supersede),
    ("queue", WhenBusy::Queue),
    ("refuse", WhenBusy::Refuse),
];

fn environment_fields(
    name: EnvironmentName,
    context: FileContext<'_>,
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> Option<EnvironmentConfig> {
    let (target, router) = NamedTarget::read(fields, problems).or_file(context.target);
    let strategy = strategy(fields, problems);
    let (analysis, analysis_source, sources) = analysis(fields, &strategy, problems);
    let (sticky, sticky_to) = sticky(fields, problems);
    Some(EnvironmentConfig {
        target,
        router,
        instances: fields.integer("instances", 1, 1_000, problems).unwrap_or(1),
        strategy,
        hosts: fields
            .strings("hosts", problems)
            .into_iter()
            .filter_map(|host| host_name(host, problems))
            .collect(),
        path: fields
            .string("path", problems)
            .and_then(|path| url_path(path, problems)),
        strip_prefix: strip_prefix(fields, problems),
        port: fields
            .integer("port", 1, 65_535, problems)
            .and_then(|port| u16::try_from(port).ok()),
        sticky,
        sticky_to,
        approvals: approvals::approvals(fields, problems),
        rules: deployment_rules::deployment_rules(fields, problems),
        smoke: fields
            .list("smoke", problems)
            .iter()
            .filter_map(|node| checks::smoke_test(node, problems))
            .collect(),
        tests: fields
            .string("tests", problems)
            .and_then(|path| path_in_repository(path, problems)),
        analysis,
        analysis_source,
        sources,
        env: env(fields, problems),
        when_busy: one_of(fields, "when_busy", &WHEN_BUSY, problems).unwrap_or_default(),
        rollback_window: rollback::window(fields, problems),
        promote_with: promotion_groups::promote_with(fields, context.service, problems),
        notify: fields
            .list("notify", problems)
            .iter()
            .filter_map(|node| notify(node, problems))
            .collect(),
        progress_deadline: fields
            .duration("progress_deadline", problems)
            .unwrap_or(Duration::from_secs(600)),
        drain: fields
            .duration("drain", problems)
            .unwrap_or(Duration::from_secs(30)),
        watch: guard::watch(fields, problems),
        unready_grace: guard::unready_grace(fields, problems),
        timeouts: timeouts::request_timeouts(fields, problems),
        name,
    })
}

/// Nothing written: the default rules; `none`: no rules; else a list of rules.
fn analysis(
    fields: &MappingFields<'_>,
    strategy: &Strategy,
    problems: &mut Problems,
) -> (Analysis, AnalysisSource, Vec<MetricSource>) {
    match fields.get("analysis") {
        None => {
            return (
                metrics::defaults::rules(),
                AnalysisSource::Default,
                Vec::new(),
            );
        }
        Some(node) if node.as_scalar_text() == Some("none") => {
            return (Analysis::default(), AnalysisSource::None, Vec::new());
        }
        Some(node) if node.as_sequence().is_none_or(<[YamlNode]>::is_empty) => {
            problems.push(
                Diagnostic::error(
                    "wrong-type",
                    node.span,
                    "`analysis` must be a list of rules, or `none`",
                )
                .help("for example `analysis: [{ metric: error-rate, max: 5% }]`; leave it out for the default rules"),
            );
            return (Analysis::default(), AnalysisSource::None, Vec::new());
        }
        Some(_) => {}
    }
    let nodes = fields.list("analysis", problems);
    let (analysis, sources) = metrics::analysis(nodes, problems);
    if let Some(longest) = strategy.longest_hold() {
        refuse_long_skips(nodes, longest, &analysis, problems);
    }
    (analysis, AnalysisSource::File, sources)
}

/// A rule that leaves out more than the longest hold never counts anything.
fn refuse_long_skips(
    nodes: &[YamlNode],
    longest: Duration,
    analysis: &Analysis,
    problems: &mut Problems,
) {
    if analysis.rules().len() != nodes.len() {
        return;
    }
    for (rule, node) in analysis.rules().iter().zip(nodes) {
        if rule.skip() >= longest && !rule.skip().is_zero() {
            let message = format!(
                "`skip` ignores the first {} of each hold, but the longest hold lasts {}: this rule never counts anything",
                DurationText(rule.skip()),
                DurationText(longest)
            );
            problems.push(
                Diagnostic::error("never-fires", node.span, message)
                    .help("shorten `skip`, or lengthen a hold"),
            );
        }
    }
}

fn host_name(host: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let name = host.value.to_ascii_lowercase();
    let rest = name.strip_prefix("*.").unwrap_or(&name);
    let fine = !rest.is_empty()
        && rest.len() <= 253
        && rest.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    if !fine {
        problems.push(
            Diagnostic::error(
                "bad-value",
                host.span,
                format!("`{}` is not a host name", host.value),
            )
            .help("write it without scheme and port: shop.example.com or *.shop.example.com"),
        );
    }
    fine.then_some(name)
}

fn url_path(path: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let fine = path.value.starts_with('/')
        && !path.value.contains(['?', '#', ' '])
        && !path.value.contains("//");
    if !fine {
        problems.push(
            Diagnostic::error(
                "bad-value",
                path.span,
                format!("`{}` is not a path", path.value),
            )
            .help("start it with a slash: /shop"),
        );
    }
    fine.then(|| path.value.trim_end_matches('/').to_owned())
}

/// Whether the path is taken off before an instance gets the request; without a `path` there is nothing to take off.
fn strip_prefix(fields: &MappingFields<'_>, problems: &mut Problems) -> bool {
    if let Some(node) = fields.get("strip_prefix")
        && fields.get("path").is_none()
    {
        problems.push(
            Diagnostic::error("misplaced-key", node.span, "`strip_prefix` needs a `path`")
                .help("write `path: /shop` beside it, or remove `strip_prefix`"),
        );
    }
    fields.bool("strip_prefix", problems).unwrap_or(true)
}

fn sticky(fields: &MappingFields<'_>, problems: &mut Problems) -> (StickyKey, StickyScope) {
    let Some(node) = fields.get("sticky") else {
        return (StickyKey::default(), StickyScope::default());
    };
    let key = match node.as_scalar_text() {
        Some("cookie") => Some(StickyKey::default()),
        Some("address") => Some(StickyKey::Address),
        Some("none") => Some(StickyKey::None),
        _ => None,
    };
    if let Some(key) = key {
        return (key, StickyScope::default());
    }
    let Some(inner) = MappingFields::read(node, "sticky", &["cookie", "header", "to"], problems)
    else {
        return (StickyKey::default(), StickyScope::default());
    };
    let cookie = inner
        .string("cookie", problems)
        .map(|name| StickyKey::Cookie(name.value));
    let named = cookie.or_else(|| {
        inner
            .string("header", problems)
            .map(|name| StickyKey::Header(name.value.to_ascii_lowercase()))
    });
    (named.unwrap_or_default(), sticky_scope(&inner, problems))
}

fn sticky_scope(fields: &MappingFields<'_>, problems: &mut Problems) -> StickyScope {
    let known = [
        ("release", StickyScope::Release),
        ("instance", StickyScope::Instance),
    ];
    one_of(fields, "to", &known, problems).unwrap_or_default()
}

fn notify(node: &YamlNode, problems: &mut Problems) -> Option<NotificationTarget> {
    let fields = MappingFields::read(node, "notify", &["slack", "webhook"], problems)?;
    let mut address = |key: &str| {
        let text = fields.string(key, problems)?;
        let fine = ["$", "http://", "https://"]
            .iter()
            .any(|start| text.value.starts_with(start));
        if !fine {
            problems.push(
                Diagnostic::error("bad-value", text.span, format!("`{key}` must be a URL"))
                    .help("write http://…, https://… or a secret as $NAME"),
            );
        }
        fine.then_some(text.value)
    };
    address("slack")
        .map(NotificationTarget::Slack)
        .or_else(|| address("webhook").map(NotificationTarget::Webhook))
}

/// The strategy of an environment: a one_of, or a word with its parameters; rolling when none is named.
fn strategy(fields: &MappingFields<'_>, problems: &mut Problems) -> Strategy {
    let Some(node) = fields.get("strategy") else {
        return Strategy::default();
    };
    let (name, parameters) = match (node.as_scalar_text(), node.as_mapping()) {
        (Some(text), _) => (
            Spanned {
                value: text.to_owned(),
                span: node.span,
            },
            None,
        ),
        (None, Some([(key, parameters)])) => (
            Spanned {
                value: key.text.clone(),
                span: key.span,
            },
            Some(parameters).filter(|it| !it.is_null()),
        ),
        _ => {
            problems.push(
                Diagnostic::error(
                    "wrong-type",
                    node.span,
                    "`strategy` must be one word, or one word with its parameters",
                )
                .help("for example `strategy: canary`"),
            );
            return Strategy::default();
        }
    };
    Strategy::read(&name.value, parameters, problems).unwrap_or_else(|| {
        problems.push(unknown_choice(&name, "`strategy`", Strategy::WORDS));
        Strategy::default()
    })
}
