//! `judge: mann-whitney`: one metric, or several that are scored together.

use shipway_analysis::{
    MannWhitney, Metric,
    mann_whitney::{DeviationDirection, EffectSize, MissingValues, ScoredMetric},
};
use shipway_syntax::{Diagnostic, MappingFields, Spanned};

use super::{MetricSource, Problems, bad, metric, noted, number};
use crate::field_values::one_of;

/// Keys of a rule of this judge.
pub(super) const KEYS: &[&str] = &[
    "direction",
    "missing",
    "critical",
    "increase",
    "decrease",
    "group",
    "groups",
    "metrics",
    "pass",
    "marginal",
    "window",
    "skip",
];
/// Keys of one metric among several.
const METRIC_KEYS: &[&str] = &[
    "metric",
    "provider",
    "over",
    "interval",
    "direction",
    "missing",
    "critical",
    "increase",
    "decrease",
    "group",
];

/// One metric: its score is 0 or 100.
pub(super) fn alone(
    fields: &MappingFields<'_>,
    metric: Metric,
    problems: &mut Problems,
) -> Option<MannWhitney> {
    let compared = vec![compared(fields, metric, problems)];
    scored(fields, compared, Vec::new(), problems)
}

/// `metrics: […]`
pub(super) fn together(
    fields: &MappingFields<'_>,
    sources: &mut Vec<MetricSource>,
    problems: &mut Problems,
) -> Option<MannWhitney> {
    let before = problems.len();
    let mut all = Vec::new();
    for node in fields.list("metrics", problems) {
        let Some(one) = MappingFields::read(node, "a metric of a score", METRIC_KEYS, problems)
        else {
            continue;
        };
        let interval = one.duration("interval", problems);
        if let Some(metric) = metric(&one, interval, sources, problems) {
            all.push(compared(&one, metric, problems));
        }
    }
    let groups = fields.map("groups", problems);
    let groups = groups
        .into_iter()
        .filter_map(|(name, weight)| Some((name.text.clone(), noted(percent(&weight), problems)?)))
        .collect();
    // A diagnostic was already emitted for each.
    (problems.len() == before).then_some(())?;
    scored(fields, all, groups, problems)
}

fn scored(
    fields: &MappingFields<'_>,
    compared: Vec<ScoredMetric>,
    groups: Vec<(String, f64)>,
    problems: &mut Problems,
) -> Option<MannWhitney> {
    let mut score = |key: &str, default| {
        fields
            .string(key, problems)
            .map_or(Some(default), |text| noted(percent(&text), problems))
    };
    let (pass, marginal) = (
        score("pass", MannWhitney::PASS)?,
        score("marginal", MannWhitney::MARGINAL)?,
    );
    let judge = MannWhitney::new(compared, groups, pass, marginal);
    let mut judge = noted(judge.map_err(|error| bad(fields.span, &error)), problems)?;
    judge.window = fields.duration("window", problems).unwrap_or(judge.window);
    judge.skip = fields.duration("skip", problems).unwrap_or_default();
    Some(judge)
}

fn compared(fields: &MappingFields<'_>, metric: Metric, problems: &mut Problems) -> ScoredMetric {
    let ways = [
        ("increase", DeviationDirection::Increase),
        ("decrease", DeviationDirection::Decrease),
        ("either", DeviationDirection::Either),
    ];
    let missing = [
        ("remove", MissingValues::Remove),
        ("replace", MissingValues::Replace),
    ];
    let plain = ScoredMetric::new(metric);
    let mut times = |key: &str| {
        let text = fields.string(key, problems)?;
        let what = format!("`{key}` must be a factor of stable's mean, such as 1.2");
        let times = number(&text, 'x', &what, |times| {
            (times.is_finite() && times >= 0.0).then_some(times)
        });
        noted(times, problems)
    };
    let effect = EffectSize {
        increase: times("increase").unwrap_or(plain.effect.increase),
        decrease: times("decrease").unwrap_or(plain.effect.decrease),
    };
    ScoredMetric {
        direction: one_of(fields, "direction", &ways, problems).unwrap_or(plain.direction),
        missing: one_of(fields, "missing", &missing, problems).unwrap_or(plain.missing),
        critical: fields.bool("critical", problems).unwrap_or(plain.critical),
        group: fields
            .string("group", problems)
            .map(|group| group.value)
            .unwrap_or_default(),
        effect,
        ..plain
    }
}

/// `95` or `95%`
fn percent(text: &Spanned<String>) -> Result<f64, Diagnostic> {
    number(
        text,
        '%',
        "a score or weight must be a number from 0 to 100",
        |percent| (0.0..=100.0).contains(&percent).then_some(percent),
    )
}
