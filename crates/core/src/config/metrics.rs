//! `analysis`: limits on metrics, in Argo Rollouts' words.

use shipway_analysis::{Metric, Threshold, threshold::Bound};
use shipway_syntax::{Diagnostic, Fields, Node, Spanned};

use super::decode::{later, unknown_word};

/// Keys of a metric.
pub(super) const METRIC_KEYS: &[&str] = &[
    "metric",
    "max",
    "min",
    "worse_than",
    "interval",
    "count",
    "failure_limit",
    "consecutive_error_limit",
    "inconclusive_limit",
    "min_requests",
    "provider",
    "direction",
    "skip",
    "judge",
];

type Problems = Vec<Diagnostic>;

/// One limit.
pub(super) fn limit(node: &Node, problems: &mut Problems) -> Option<Threshold> {
    let fields = Fields::of(node, "a metric", METRIC_KEYS, problems)?;
    let mut refused = false;
    for (key, thing) in [
        (
            "worse_than",
            "the comparison with stable (the sequential judge)",
        ),
        ("provider", "metrics of other providers"),
        (
            "direction",
            "the comparison with stable (the sequential judge)",
        ),
        ("skip", "a warm-up that is left out"),
        ("judge", "the choice of a judge"),
    ] {
        if let Some(found) = fields.get(key) {
            problems.push(later(found.span, thing));
            refused = true;
        }
    }
    fields.require("metric", problems);
    let name = fields.string("metric", problems)?;
    let Ok(metric) = name.value.parse::<Metric>() else {
        if !refused {
            problems.push(unknown_word(
                &name,
                "`metric`",
                &Metric::ALL.map(Metric::name),
            ));
        }
        return None;
    };
    let mut end = |key: &str| {
        fields
            .string(key, problems)
            .and_then(|text| value(metric, &text, problems))
    };
    let (min, max) = (end("min"), end("max"));
    let Some(bound) = Bound::of(min, max) else {
        if !refused && fields.get("max").or(fields.get("min")).is_none() {
            problems.push(
                Diagnostic::error("missing-key", node.span, format!("{metric} has no limit"))
                    .help(format!("give it `max` or `min`: {}", metric.unit())),
            );
        }
        return None;
    };
    let mut limit = Threshold::new(metric, bound)
        .map_err(|error| {
            problems.push(Diagnostic::error("bad-value", node.span, error.to_string()))
        })
        .ok()?;
    limit.interval = fields
        .duration("interval", problems)
        .unwrap_or(limit.interval);
    limit.count = fields
        .integer("count", 1, u32::MAX, problems)
        .or(limit.count);
    limit.failure_limit = fields
        .integer("failure_limit", 0, u32::MAX, problems)
        .unwrap_or(limit.failure_limit);
    limit.consecutive_error_limit = fields
        .integer("consecutive_error_limit", 0, u32::MAX, problems)
        .unwrap_or(limit.consecutive_error_limit);
    limit.inconclusive_limit = fields
        .integer("inconclusive_limit", 0, u32::MAX, problems)
        .or(limit.inconclusive_limit);
    limit.min_requests = fields
        .integer("min_requests", 0, u32::MAX, problems)
        .map_or(limit.min_requests, u64::from);
    Some(limit)
}

fn value(metric: Metric, text: &Spanned<String>, problems: &mut Problems) -> Option<f64> {
    metric
        .parse_value(&text.value)
        .map_err(|error| {
            problems.push(Diagnostic::error("bad-value", text.span, error.to_string()))
        })
        .ok()
}
