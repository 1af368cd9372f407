//! `analysis`: limits on metrics in Argo Rollouts' words, and comparisons with stable.

use shipway_analysis::{
    Analysis, Metric, Rule, Sequential, Threshold, evidence::Alpha, threshold::Bound,
};
use shipway_syntax::{Diagnostic, Fields, Node, Spanned};

use super::decode::{later, unknown_word};

/// Keys of a metric.
pub(super) const METRIC_KEYS: &[&str] = &[
    "metric",
    "max",
    "min",
    "worse_than",
    "alpha",
    "tolerance",
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

/// All rules; what may be wrong in a rollout is split over the comparisons that don't say.
pub(super) fn analysis(nodes: &[Node], problems: &mut Problems) -> Analysis {
    let drafts: Vec<Draft> = nodes
        .iter()
        .filter_map(|node| rule(node, problems))
        .collect();
    let is_shared = |draft: &&Draft| matches!(draft, Draft::Comparison { alpha: None, .. });
    let sharing = drafts.iter().filter(is_shared).count();
    let rules = drafts.into_iter().map(|draft| match draft {
        Draft::Limit(limit) => Rule::from(limit),
        Draft::Comparison {
            mut comparison,
            alpha,
        } => {
            comparison.alpha = alpha.unwrap_or(comparison.alpha.split(sharing));
            Rule::from(comparison)
        }
    });
    Analysis::new(rules.collect::<Vec<_>>())
}

/// A rule whose share of what may be wrong isn't known before all are read.
enum Draft {
    Limit(Threshold),
    Comparison {
        comparison: Sequential,
        alpha: Option<Alpha>,
    },
}

fn rule(node: &Node, problems: &mut Problems) -> Option<Draft> {
    if node.get("worse_than").is_some() {
        comparison(node, problems)
    } else {
        limit(node, problems).map(Draft::Limit)
    }
}

/// `worse_than: stable`
fn comparison(node: &Node, problems: &mut Problems) -> Option<Draft> {
    const KEYS: &[&str] = &["metric", "worse_than", "alpha", "tolerance", "min_requests"];
    let fields = Fields::of(node, "a comparison with stable", KEYS, problems)?;
    fields.require("metric", problems);
    let (name, other) = (
        fields.string("metric", problems)?,
        fields.string("worse_than", problems)?,
    );
    if other.value != "stable" {
        problems.push(unknown_word(&other, "`worse_than`", &["stable"]));
    }
    let Ok(metric) = name.value.parse::<Metric>() else {
        problems.push(unknown_word(
            &name,
            "`metric`",
            &Metric::ALL.map(Metric::name),
        ));
        return None;
    };
    let alpha = fields
        .string("alpha", problems)
        .and_then(|text| probability(&text, problems));
    let tolerance = fields
        .string("tolerance", problems)
        .map_or(Some(Sequential::TOLERANCE), |text| ratio(&text, problems))?;
    let share = |value| Alpha::new(value).expect("the defaults are probabilities");
    let comparison = Sequential::new(
        metric,
        share(Sequential::ALPHA),
        share(Sequential::BETA),
        1.0,
        tolerance,
    );
    let mut comparison = comparison
        .map_err(|error| {
            problems.push(Diagnostic::error("bad-value", node.span, error.to_string()))
        })
        .ok()?;
    comparison.min_requests = fields
        .integer("min_requests", 1, u32::MAX, problems)
        .map_or(comparison.min_requests, u64::from);
    Some(Draft::Comparison { comparison, alpha })
}

/// `1%` or `0.01`
fn probability(text: &Spanned<String>, problems: &mut Problems) -> Option<Alpha> {
    let percent = text.value.trim().strip_suffix('%');
    let number = percent.unwrap_or(&text.value).trim().parse::<f64>();
    let value = number.unwrap_or(f64::NAN) / if percent.is_some() { 100.0 } else { 1.0 };
    Alpha::new(value)
        .map_err(|_| {
            let message = format!(
                "`alpha` is a probability above 0 and below 1, not `{}`",
                text.value
            );
            problems.push(
                Diagnostic::error("bad-value", text.span, message)
                    .help("how probable it may be that a good release is rolled back: 1%"),
            );
        })
        .ok()
}

/// `2` or `2x`
fn ratio(text: &Spanned<String>, problems: &mut Problems) -> Option<f64> {
    let number = text.value.trim().trim_end_matches('x').parse::<f64>().ok();
    let ratio = number.filter(|ratio| *ratio > 1.0 && *ratio <= 100.0);
    if ratio.is_none() {
        let message = format!(
            "`tolerance` is a number above 1 and at most 100, not `{}`",
            text.value
        );
        problems.push(
            Diagnostic::error("bad-value", text.span, message)
                .help("how many times stable's rate a hold that ends early must exclude: 2"),
        );
    }
    ratio
}

/// One limit.
fn limit(node: &Node, problems: &mut Problems) -> Option<Threshold> {
    let fields = Fields::of(node, "a metric", METRIC_KEYS, problems)?;
    for key in ["alpha", "tolerance"] {
        if let Some(found) = fields.get(key) {
            let message = format!("`{key}` is of comparisons with stable, not of limits");
            problems.push(
                Diagnostic::error("conflict", found.span, message).help("add `worse_than: stable`"),
            );
        }
    }
    let mut refused = false;
    for (key, thing) in [
        ("provider", "metrics of other providers"),
        ("direction", "the direction of a comparison"),
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
                Diagnostic::error("missing-key", node.span, format!("{metric} has no limit")).help(
                    format!(
                        "give it `max` or `min`, {}, or `worse_than: stable`",
                        metric.unit()
                    ),
                ),
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
