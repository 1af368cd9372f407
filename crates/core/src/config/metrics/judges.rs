//! Comparisons with stable, limits and conditions.

use std::time::Duration;

use shipway_analysis::{
    AnalysisRule, ConditionRule, CountingUnit, MeasurementPolicy, Metric, MetricKind,
    SequentialComparison, ThresholdLimit, WorseDirection, evidence::Alpha,
    expression::ValueCondition, threshold::MetricBound,
};
use shipway_syntax::{Diagnostic, MappingFields, Spanned};

use super::{MetricDraft, Problems, bad, noted, number, value};
use crate::field_values::{one_of, unknown_choice};

/// Keys of limits, and (without the first two) of conditions. A rule with one of them and no `judge` is a limit.
pub(super) const LIMIT_KEYS: &[&str] = &[
    "max",
    "min",
    "count",
    "failure_limit",
    "consecutive_error_limit",
    "inconclusive_limit",
];
/// Counting keys of limits and conditions.
pub(super) const COUNTING_KEYS: &[&str] = &[
    "count",
    "failure_limit",
    "consecutive_error_limit",
    "inconclusive_limit",
];
/// Keys for the evaluation schedule.
pub(super) const PACE_KEYS: &[&str] = &["interval", "min_requests", "skip"];
/// The shortest evaluation interval: a metric does not change more often than ten times a second.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// `worse_than: stable`
pub(super) fn comparison(
    fields: &MappingFields<'_>,
    metric: Metric,
    interval: Option<Duration>,
    problems: &mut Problems,
) -> Option<MetricDraft> {
    if let Some(other) = fields.string("worse_than", problems)
        && other.value != "stable"
    {
        problems.push(unknown_choice(&other, "`worse_than`", &["stable"]));
    }
    let alpha = fields
        .string("alpha", problems)
        .and_then(|text| noted(probability(&text), problems));
    let margin = fields
        .string("margin", problems)
        .map_or(Some(SequentialComparison::default_margin(metric)), |text| {
            noted(margin(&text), problems)
        })?;
    let tolerance = fields.string("tolerance", problems).map_or(
        Some(SequentialComparison::default_tolerance(metric)),
        |text| noted(tolerance(&text), problems),
    )?;
    let share = |value| Alpha::new(value).expect("the defaults are probabilities");
    let comparison = SequentialComparison::new(
        metric,
        share(SequentialComparison::ALPHA),
        share(SequentialComparison::BETA),
        margin,
        tolerance,
    );
    let mut comparison = noted(
        comparison.map_err(|error| bad(fields.span, &error)),
        problems,
    )?;
    comparison.direction = direction(fields, metric, problems)?;
    comparison.unit = unit(fields, metric, problems)?;
    comparison.min_requests = fields
        .integer("min_requests", 1, u32::MAX, problems)
        .map_or(comparison.min_requests, u64::from);
    comparison.interval = paced(fields, interval.unwrap_or(comparison.interval), problems);
    comparison.skip = fields.duration("skip", problems).unwrap_or_default();
    comparison.max_without_stable = max_without_stable(fields, metric, problems);
    Some(MetricDraft::Comparison { comparison, alpha })
}

/// What holds where there is no stable release: a share of the requests.
fn max_without_stable(
    fields: &MappingFields<'_>,
    metric: Metric,
    problems: &mut Problems,
) -> Option<f64> {
    let text = fields.string("max_without_stable", problems)?;
    if !matches!(
        metric,
        Metric::ErrorRate | Metric::AnsweredErrorRate | Metric::SlowRate { .. }
    ) {
        let message = format!(
            "`max_without_stable` can't be used with {metric}, only with error-rate and slow-rate"
        );
        problems.push(bad(text.span, &message));
        return None;
    }
    let max = value(metric, &text, problems)?;
    if max > 0.0 && max < 1.0 {
        return Some(max);
    }
    let message = "`max_without_stable` must be above 0% and below 100%";
    problems.push(bad(text.span, &message));
    None
}

/// Which way is worse: known of what Shipway measures, told of what it doesn't.
fn direction(
    fields: &MappingFields<'_>,
    metric: Metric,
    problems: &mut Problems,
) -> Option<WorseDirection> {
    let words = [
        ("increase", WorseDirection::Increase),
        ("decrease", WorseDirection::Decrease),
    ];
    if fields.get("direction").is_some() {
        return one_of(fields, "direction", &words, problems);
    }
    match metric {
        Metric::Value(name) | Metric::Event(name) => {
            let message = format!("it is unknown whether a higher or a lower {name} is worse");
            problems.push(
                Diagnostic::error("missing-key", fields.span, message)
                    .help("add `direction: increase` if higher is worse, `direction: decrease` if lower is worse"),
            );
            None
        }
        _ => Some(WorseDirection::Increase),
    }
}

/// The unit that is counted: users where the metric has them, else requests.
fn unit(
    fields: &MappingFields<'_>,
    metric: Metric,
    problems: &mut Problems,
) -> Option<CountingUnit> {
    let Some(node) = fields.get("unit") else {
        return Some(CountingUnit::default());
    };
    if !matches!(
        metric,
        Metric::ErrorRate | Metric::AnsweredErrorRate | Metric::SlowRate { .. }
    ) {
        let message =
            format!("`unit` can't be used with {metric}, only with error-rate and slow-rate");
        problems.push(bad(node.span, &message));
        return None;
    }
    let words = [
        ("users", CountingUnit::Users),
        ("requests", CountingUnit::Requests),
    ];
    one_of(fields, "unit", &words, problems)
}

/// `1%` or `0.01`
fn probability(text: &Spanned<String>) -> Result<Alpha, Diagnostic> {
    let whole = if text.value.trim().ends_with('%') {
        100.0
    } else {
        1.0
    };
    number(
        text,
        '%',
        "`alpha` must be a probability above 0 and below 1",
        |number| Alpha::new(number / whole).ok(),
    )
    .map_err(|problem| {
        problem.help("the accepted probability of rolling back a good release, such as 1%")
    })
}

/// `2` or `2x`
fn tolerance(text: &Spanned<String>) -> Result<f64, Diagnostic> {
    number(
        text,
        'x',
        "`tolerance` must be a number above 1 and at most 100",
        |ratio| (ratio > 1.0 && ratio <= 100.0).then_some(ratio),
    )
    .map_err(|problem| {
        problem.help(
            "a hold ends early only when a factor of this size over stable is excluded, such as 2",
        )
    })
}

/// `1.1` or `1.1x`
fn margin(text: &Spanned<String>) -> Result<f64, Diagnostic> {
    number(
        text,
        'x',
        "`margin` must be a number from 1 to below 100",
        |ratio| (1.0..100.0).contains(&ratio).then_some(ratio),
    )
    .map_err(|problem| {
        problem.help("the factor over stable that still counts as equally good, such as 1.1")
    })
}

/// How often is looked, within what can be done.
fn paced(fields: &MappingFields<'_>, interval: Duration, problems: &mut Problems) -> Duration {
    if interval < INTERVAL_MIN
        && let Some(node) = fields.get("interval")
    {
        let message = format!(
            "`interval` must be at least {} ms",
            INTERVAL_MIN.as_millis()
        );
        problems.push(Diagnostic::error("bad-value", node.span, message));
    }
    interval
}

/// One limit.
pub(super) fn limit(
    fields: &MappingFields<'_>,
    metric: Metric,
    interval: Option<Duration>,
    problems: &mut Problems,
) -> Option<AnalysisRule> {
    let mut end = |key: &str| {
        fields
            .string(key, problems)
            .and_then(|text| value(metric, &text, problems))
    };
    let (min, max) = (end("min"), end("max"));
    let Some(bound) = MetricBound::from_limits(min, max) else {
        if fields.get("max").or(fields.get("min")).is_none() {
            let compare = match metric.kind() {
                MetricKind::Total => "",
                _ => ", or `worse_than: stable`",
            };
            problems.push(
                Diagnostic::error("missing-key", fields.span, format!("{metric} has no limit"))
                    .help(format!(
                        "give it `max` or `min`, {}{compare}",
                        metric.unit()
                    )),
            );
        }
        return None;
    };
    let limit = ThresholdLimit::new(metric, bound).map_err(|error| bad(fields.span, &error));
    let mut limit = noted(limit, problems)?;
    limit.counting = counting(fields, interval, problems);
    limit.worse_than_stable = is_worse_than_stable(fields, metric, problems);
    refuse_what_never_fires(fields, &limit, problems);
    Some(limit.into())
}

/// Whether a limit is ignored while stable is about as bad. Only metrics counted by instance time have this.
fn is_worse_than_stable(
    fields: &MappingFields<'_>,
    metric: Metric,
    problems: &mut Problems,
) -> bool {
    let Some(other) = fields.string("worse_than", problems) else {
        return false;
    };
    if other.value != "stable" {
        problems.push(unknown_choice(&other, "`worse_than`", &["stable"]));
    }
    let is_of_instances = matches!(metric, Metric::Restarts | Metric::Availability);
    if !is_of_instances {
        let message = format!("a limit of {metric} is not compared with stable");
        problems.push(
            Diagnostic::error("conflict", other.span, message).help(
                "leave `worse_than` out, or write a rule without `max` and `min` that compares",
            ),
        );
    }
    is_of_instances
}

/// A limit that no value can be beyond protects from nothing, and looks as if it did.
fn refuse_what_never_fires(
    fields: &MappingFields<'_>,
    limit: &ThresholdLimit,
    problems: &mut Problems,
) {
    let metric = limit.metric;
    let (min, max) = limit.bound.ends();
    let mut refuse = |key: &str, message: String, help: &str| {
        let span = fields.get(key).map_or(fields.span, |node| node.span);
        problems.push(Diagnostic::error("never-fires", span, message).help(help.to_owned()));
    };
    if max.is_some_and(|max| metric.is_share() && max >= 1.0) {
        let message = format!("{metric} is never above 100%, so this limit can't fail");
        refuse("max", message, "such as max: 5%");
    }
    let is_from_zero = !matches!(metric, Metric::Value(_));
    if min.is_some_and(|min| is_from_zero && min <= 0.0) {
        let message = format!("{metric} is never below 0, so this limit can't fail");
        refuse("min", message, "leave it out, or give a minimum above 0");
    }
    let counting = &limit.counting;
    if let Some(count) = counting.count
        && counting.failure_limit >= count
    {
        let message = format!(
            "{count} measurements can't fail more than {} times, so this limit can't fail",
            counting.failure_limit
        );
        refuse("failure_limit", message, "make it smaller than `count`");
    }
}

/// `judge: expression`
pub(super) fn expression(
    fields: &MappingFields<'_>,
    metric: Metric,
    interval: Option<Duration>,
    problems: &mut Problems,
) -> Option<AnalysisRule> {
    let mut condition = |key: &str| {
        let text = fields.string(key, problems)?;
        let condition = text.value.parse::<ValueCondition>();
        noted(condition.map_err(|error| bad(text.span, &error)), problems)
    };
    let (pass, fail) = (condition("pass"), condition("fail"));
    let wanted = |key| fields.get(key).is_some();
    if (wanted("pass") && pass.is_none()) || (wanted("fail") && fail.is_none()) {
        return None;
    }
    let judge = ConditionRule::new(metric, pass, fail).map_err(|error| {
        Diagnostic::error("missing-key", fields.span, error.to_string())
            .help("pass: value >= 0.95 * stable")
    });
    let mut judge = noted(judge, problems)?;
    judge.counting = counting(fields, interval, problems);
    Some(judge.into())
}

/// What Argo Rollouts counts by.
fn counting(
    fields: &MappingFields<'_>,
    interval: Option<Duration>,
    problems: &mut Problems,
) -> MeasurementPolicy {
    MeasurementPolicy {
        interval: paced(
            fields,
            interval.unwrap_or(MeasurementPolicy::INTERVAL),
            problems,
        ),
        count: fields.integer("count", 1, u32::MAX, problems),
        failure_limit: fields
            .integer("failure_limit", 0, u32::MAX, problems)
            .unwrap_or_default(),
        consecutive_error_limit: fields
            .integer("consecutive_error_limit", 0, u32::MAX, problems)
            .unwrap_or(MeasurementPolicy::CONSECUTIVE_ERROR_LIMIT),
        inconclusive_limit: fields.integer("inconclusive_limit", 0, u32::MAX, problems),
        min_requests: fields
            .integer("min_requests", 0, u32::MAX, problems)
            .map_or(MeasurementPolicy::MIN_REQUESTS, u64::from),
        skip: fields.duration("skip", problems).unwrap_or_default(),
        required: false,
    }
}
