//! `analysis`: the metrics and their judges: limits with Argo Rollouts' keys, comparisons with stable, conditions,
//! Kayenta's scores. [`source`]: providers of metrics that Shipway does not measure itself.

pub(super) mod defaults;
mod judges;
mod score;
pub(super) mod source;

use std::{fmt::Display, time::Duration};

use shipway_analysis::{
    Analysis, AnalysisRule, Metric, MetricName, SequentialComparison, evidence::Alpha,
};
use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, YamlNode};

pub use self::source::{MetricSource, ProviderQuery};
use crate::field_values::{Problems, one_of, unknown_choice};

/// Keys of a metric that every judge has.
const SHARED_KEYS: KeyNames = &[
    "metric",
    "provider",
    "over",
    "abandoned",
    "judge",
    "required",
];

type KeyNames = &'static [&'static str];

/// Who judges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JudgeKind {
    Sequential,
    Threshold,
    MannWhitney,
    Expression,
}

impl JudgeKind {
    const ALL: [(&str, Self); 4] = [
        ("sequential", Self::Sequential),
        ("threshold", Self::Threshold),
        ("mann-whitney", Self::MannWhitney),
        ("expression", Self::Expression),
    ];

    /// What its rules are called, its keys, and what makes a rule one of its.
    const fn key_names(self) -> (&'static str, &'static [KeyNames], &'static str) {
        match self {
            Self::Sequential => (
                "comparisons with stable",
                &[&[
                    "worse_than",
                    "max_without_stable",
                    "direction",
                    "unit",
                    "alpha",
                    "margin",
                    "tolerance",
                    "interval",
                    "min_requests",
                    "skip",
                ]],
                "worse_than: stable",
            ),
            Self::Threshold => (
                "limits",
                &[judges::LIMIT_KEYS, judges::PACE_KEYS, &["worse_than"]],
                "max: …",
            ),
            Self::MannWhitney => (
                "judge `mann-whitney`",
                &[score::KEYS],
                "judge: mann-whitney",
            ),
            Self::Expression => (
                "conditions",
                &[&["pass", "fail"], judges::COUNTING_KEYS, judges::PACE_KEYS],
                "judge: expression",
            ),
        }
    }
}

/// Keys of a metric: those that all judges know, then those of each, once.
pub(super) fn metric_keys() -> Vec<&'static str> {
    let mut all = SHARED_KEYS.to_vec();
    for key in JudgeKind::ALL
        .iter()
        .flat_map(|(_, word)| word.key_names().1.concat())
    {
        if !all.contains(&key) {
            all.push(key);
        }
    }
    all
}

/// All rules, and where their metrics come from; what may be wrong in a rollout is split over the comparisons that don't say.
pub(super) fn analysis(
    nodes: &[YamlNode],
    problems: &mut Problems,
) -> (Analysis, Vec<MetricSource>) {
    let mut sources = Vec::new();
    let drafts: Vec<MetricDraft> = nodes
        .iter()
        .filter_map(|node| rule(node, &mut sources, problems))
        .collect();
    let is_shared =
        |draft: &&MetricDraft| matches!(draft, MetricDraft::Comparison { alpha: None, .. });
    let sharing = drafts.iter().filter(is_shared).count();
    let rules = drafts.into_iter().map(|draft| match draft {
        MetricDraft::Ready(rule) => rule,
        MetricDraft::Comparison {
            mut comparison,
            alpha,
        } => {
            comparison.alpha = alpha.unwrap_or(comparison.alpha.split(sharing));
            AnalysisRule::from(comparison)
        }
    });
    (Analysis::new(rules.collect::<Vec<_>>()), sources)
}

/// A rule whose share of what may be wrong isn't known before all are read.
enum MetricDraft {
    Ready(AnalysisRule),
    Comparison {
        comparison: SequentialComparison,
        alpha: Option<Alpha>,
    },
}

fn rule(
    node: &YamlNode,
    sources: &mut Vec<MetricSource>,
    problems: &mut Problems,
) -> Option<MetricDraft> {
    let fields = MappingFields::read(node, "a metric", &metric_keys(), problems)?;
    let is_required = fields.bool("required", problems).unwrap_or(false);
    let draft = judged(&fields, sources, problems)?;
    Some(match draft {
        MetricDraft::Ready(rule) if is_required => MetricDraft::Ready(rule.into_required()),
        MetricDraft::Comparison {
            mut comparison,
            alpha,
        } => {
            comparison.required = is_required;
            MetricDraft::Comparison { comparison, alpha }
        }
        draft @ MetricDraft::Ready(_) => draft,
    })
}

fn judged(
    fields: &MappingFields<'_>,
    sources: &mut Vec<MetricSource>,
    problems: &mut Problems,
) -> Option<MetricDraft> {
    let judge = judge(fields, problems)?;
    let is_group = judge == JudgeKind::MannWhitney && fields.get("metrics").is_some();
    refuse_foreign_keys(fields, judge, problems);
    if is_group {
        return score::together(fields, sources, problems)
            .map(|rule| MetricDraft::Ready(rule.into()));
    }
    let interval = fields.duration("interval", problems);
    let metric = metric(fields, interval, sources, problems)?;
    by_itself(fields, judge, metric, sources, problems);
    match judge {
        JudgeKind::Sequential => judges::comparison(fields, metric, interval, problems),
        JudgeKind::Threshold => {
            judges::limit(fields, metric, interval, problems).map(MetricDraft::Ready)
        }
        JudgeKind::Expression => {
            judges::expression(fields, metric, interval, problems).map(MetricDraft::Ready)
        }
        JudgeKind::MannWhitney => {
            score::alone(fields, metric, problems).map(|rule| MetricDraft::Ready(rule.into()))
        }
    }
}

/// A query that names stable has one answer for both sides, and there is nothing left to compare.
fn by_itself(
    fields: &MappingFields<'_>,
    judge: JudgeKind,
    metric: Metric,
    sources: &[MetricSource],
    problems: &mut Problems,
) {
    let source = sources.iter().find(|source| source.as_metric() == metric);
    let compares = matches!(judge, JudgeKind::Sequential | JudgeKind::MannWhitney);
    if compares && source.is_some_and(|source| source.query.compares()) {
        let message =
            format!("the query of {metric} contains {{{{stable}}}}, so it compares by itself");
        problems.push(
            Diagnostic::error("conflict", fields.span, message).help(
                "query only {{release}}, or judge the result with `max`, `min` or conditions",
            ),
        );
    }
}

/// The judge: the `judge` key, else the one that the other keys belong to, else the comparison with stable.
fn judge(fields: &MappingFields<'_>, problems: &mut Problems) -> Option<JudgeKind> {
    if fields.get("judge").is_some() {
        return one_of(fields, "judge", &JudgeKind::ALL, problems);
    }
    let has = |key| fields.get(key).is_some();
    let name = fields.get("metric").and_then(YamlNode::as_scalar_text);
    let is_of_instances = matches!(name, Some("restarts" | "availability"));
    Some(
        if has("worse_than") && !(is_of_instances && (has("max") || has("min"))) {
            JudgeKind::Sequential
        } else if has("pass") || has("fail") {
            JudgeKind::Expression
        } else if judges::LIMIT_KEYS.iter().any(|key| has(key)) {
            JudgeKind::Threshold
        } else {
            JudgeKind::Sequential
        },
    )
}

/// Names keys that another judge knows and this one doesn't.
fn refuse_foreign_keys(fields: &MappingFields<'_>, judge: JudgeKind, problems: &mut Problems) {
    let knows =
        |word: JudgeKind, key: &&str| word.key_names().1.iter().any(|keys| keys.contains(key));
    let keys = metric_keys();
    let foreign = keys
        .iter()
        .filter(|key| !SHARED_KEYS.contains(key) && !knows(judge, key));
    for key in foreign {
        let Some(found) = fields.get(key) else {
            continue;
        };
        let owners = JudgeKind::ALL
            .iter()
            .filter(|(_, other)| knows(*other, key));
        let owners: Vec<_> = owners.map(|(_, other)| other.key_names()).collect();
        let Some((_, _, sign)) = owners.first() else {
            continue;
        };
        let theirs: Vec<&str> = owners.iter().map(|(called, ..)| *called).collect();
        let (called, ..) = judge.key_names();
        let message = format!(
            "`{key}` can't be used with {called}, only with {}",
            theirs.join(", ")
        );
        let metric = fields.get("metric").and_then(YamlNode::as_scalar_text);
        let metric = metric.unwrap_or("error-rate");
        let given = if sign.starts_with(key) {
            String::new()
        } else {
            format!(", {key}: …")
        };
        problems.push(
            Diagnostic::error("conflict", found.span, message).help(format!(
                "leave it out, or write a rule of its own: {{ metric: {metric}, {sign}{given} }}"
            )),
        );
    }
}

/// Whether requests without an answer are left out of the error rate.
fn ignores_abandoned(
    fields: &MappingFields<'_>,
    metric: Option<Metric>,
    problems: &mut Problems,
) -> Option<bool> {
    let Some(node) = fields.get("abandoned") else {
        return Some(false);
    };
    if metric != Some(Metric::ErrorRate) {
        let message = "`abandoned` can only be used with error-rate";
        problems.push(Diagnostic::error("conflict", node.span, message));
        return None;
    }
    one_of(
        fields,
        "abandoned",
        &[("count", false), ("ignore", true)],
        problems,
    )
}

/// The metric's name. Each environment needs a `provider` for one that is not built in.
fn metric(
    fields: &MappingFields<'_>,
    interval: Option<Duration>,
    sources: &mut Vec<MetricSource>,
    problems: &mut Problems,
) -> Option<Metric> {
    fields.require("metric", problems);
    let name = fields.string("metric", problems)?;
    let is_auto = fields.get("over").and_then(YamlNode::as_scalar_text) == Some("auto");
    let over = if is_auto {
        None
    } else {
        fields.duration("over", problems)
    };
    let built_in = name.value.parse::<Metric>().ok();
    if let (Some(node), Some(_) | None) = (fields.get("over"), built_in)
        && built_in != Some(Metric::SLOW_RATE)
    {
        let message = format!(
            "`over` can't be used with {}, only with slow-rate",
            name.value
        );
        problems.push(Diagnostic::error("conflict", node.span, message));
    }
    let ignores_abandoned = ignores_abandoned(fields, built_in, problems)?;
    let Some(built_in) = built_in else {
        return elsewhere(fields, &name, interval, sources, problems);
    };
    if let Some(node) = fields.get("provider") {
        let message = format!(
            "Shipway measures {} itself: it can't have a provider",
            name.value
        );
        problems.push(
            Diagnostic::error("conflict", node.span, message).help("give the metric another name"),
        );
    }
    if ignores_abandoned {
        return Some(Metric::AnsweredErrorRate);
    }
    if built_in != Metric::SLOW_RATE {
        return Some(built_in);
    }
    if is_auto {
        return Some(Metric::SLOW_RATE_AUTO);
    }
    let micros = over.and_then(|over| u64::try_from(over.as_micros()).ok());
    let Some(over_micros) = micros.filter(|micros| *micros > 0) else {
        let message = "slow-rate needs `over`: the time from which a response counts as slow";
        problems.push(
            Diagnostic::error("missing-key", name.span, message)
                .help("over: 300ms, or over: auto for stable's own p99 of the last hour"),
        );
        return None;
    };
    Some(Metric::SlowRate { over_micros })
}

/// A metric that is measured by a provider.
fn elsewhere(
    fields: &MappingFields<'_>,
    name: &Spanned<String>,
    interval: Option<Duration>,
    sources: &mut Vec<MetricSource>,
    problems: &mut Problems,
) -> Option<Metric> {
    let is_known = |it: &MetricName| it.as_str() == name.value;
    let Some(node) = fields.get("provider") else {
        if let Some(source) = sources.iter().find(|source| is_known(&source.metric)) {
            return Some(source.as_metric());
        }
        let names = Metric::names();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let unknown = unknown_choice(name, "`metric`", &known);
        problems.push(if unknown.help.is_some() {
            unknown
        } else {
            unknown.help("a metric of your own needs a `provider`: events, or { prometheus: http://…, query: … }, { datadog: … }, { web: … }, { exec: … }")
        });
        return None;
    };
    let metric = name.value.parse::<MetricName>();
    let metric = noted(metric.map_err(|error| bad(name.span, &error)), problems)?;
    let source = source::source(metric, node, interval, problems)?;
    match sources.iter().find(|it| it.metric == metric) {
        Some(other) if *other == source => {}
        Some(_) => {
            let message = format!("{metric} comes from two different providers");
            problems.push(
                Diagnostic::error("conflict", node.span, message)
                    .help("name the provider once, or give one of the metrics another name"),
            );
            return None;
        }
        None => sources.push(source.clone()),
    }
    Some(source.as_metric())
}

/// A value in the metric's unit.
fn value(metric: Metric, text: &Spanned<String>, problems: &mut Problems) -> Option<f64> {
    let value = metric.parse_value(&text.value);
    noted(value.map_err(|error| bad(text.span, &error)), problems)
}

/// A number, with or without its unit: `2` or `2x`. `what` begins the sentence that says which ones `read` takes.
fn number<T>(
    text: &Spanned<String>,
    unit: char,
    what: &str,
    read: impl FnOnce(f64) -> Option<T>,
) -> Result<T, Diagnostic> {
    let number = text.value.trim();
    let number = number.strip_suffix(unit).unwrap_or(number).trim().parse();
    let value = number.ok().and_then(read);
    value.ok_or_else(|| bad(text.span, &format!("{what}, not `{}`", text.value)))
}

fn bad(span: Span, why: &impl Display) -> Diagnostic {
    Diagnostic::error("bad-value", span, why.to_string())
}

/// The value, or `None` with the problem recorded.
fn noted<T>(read: Result<T, Diagnostic>, problems: &mut Problems) -> Option<T> {
    read.map_err(|problem| problems.push(problem)).ok()
}
