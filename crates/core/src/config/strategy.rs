//! `strategy`: a word, or a word with its parameters.

use std::time::Duration;

use shipway_syntax::{Diagnostic, Fields, Node, Spanned};

use super::{
    BlueGreen, Canary, CanaryStep, Count, OnInconclusive, Rolling, Strategy,
    decode::{unknown_word, word},
};
use crate::exposure::Weight;

/// The words.
pub(super) const WORDS: &[&str] = &["recreate", "rolling", "blue-green", "canary"];
/// Keys of a canary.
pub(super) const CANARY_KEYS: &[&str] = &["steps", "on_inconclusive"];
/// Keys of a canary's step.
pub(super) const STEP_KEYS: &[&str] = &["weight", "hold", "smoke", "ask", "scale"];

type Problems = Vec<Diagnostic>;

/// The strategy of an environment; rolling when none is named.
pub(super) fn strategy(fields: &Fields<'_>, problems: &mut Problems) -> Strategy {
    let Some(node) = fields.get("strategy") else {
        return Strategy::Rolling(Rolling::default());
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
                    "`strategy` is one word, or one word with its parameters",
                )
                .help("for example `strategy: canary`"),
            );
            return Strategy::Recreate;
        }
    };
    match name.value.as_str() {
        "recreate" => Strategy::Recreate,
        "rolling" => Strategy::Rolling(
            parameters.map_or_else(Rolling::default, |node| rolling(node, problems)),
        ),
        "blue-green" => Strategy::BlueGreen(
            parameters.map_or_else(BlueGreen::default, |node| blue_green(node, problems)),
        ),
        "canary" => {
            Strategy::Canary(parameters.map_or_else(Canary::default, |node| canary(node, problems)))
        }
        _ => {
            problems.push(unknown_word(&name, "`strategy`", WORDS));
            Strategy::Recreate
        }
    }
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            max_surge: Count::Percent(Weight::ratio(1, 4)),
            max_unavailable: Count::Number(0),
        }
    }
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3_600),
        }
    }
}

impl Default for Canary {
    fn default() -> Self {
        let step = |percent: u32, minutes: u64| CanaryStep {
            weight: Weight::ratio(percent, 100),
            hold: Some(Duration::from_secs(60 * minutes)),
            smoke: false,
            ask: false,
            scale: None,
        };
        Self {
            steps: vec![step(1, 2), step(10, 5), step(50, 5)],
            on_inconclusive: OnInconclusive::Pause,
        }
    }
}

fn rolling(node: &Node, problems: &mut Problems) -> Rolling {
    let mut rolling = Rolling::default();
    let Some(fields) = Fields::of(node, "rolling", &["max_surge", "max_unavailable"], problems)
    else {
        return rolling;
    };
    rolling.max_surge = count(&fields, "max_surge", problems).unwrap_or(rolling.max_surge);
    rolling.max_unavailable =
        count(&fields, "max_unavailable", problems).unwrap_or(rolling.max_unavailable);
    let zero =
        |count: Count| matches!(count, Count::Number(0)) || count == Count::Percent(Weight::ZERO);
    if zero(rolling.max_surge) && zero(rolling.max_unavailable) {
        problems.push(Diagnostic::error(
            "bad-value",
            node.span,
            "with `max_surge` and `max_unavailable` both 0 nothing can be replaced",
        ));
    }
    rolling
}

/// A number or a percentage.
fn count(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<Count> {
    let text = fields.string(key, problems)?;
    let parsed = match text.value.strip_suffix('%') {
        Some(_) => text.value.parse().ok().map(Count::Percent),
        None => text.value.parse().ok().map(Count::Number),
    };
    if parsed.is_none() {
        problems.push(Diagnostic::error(
            "wrong-type",
            text.span,
            format!("`{key}` is a number or a percentage, not `{}`", text.value),
        ));
    }
    parsed
}

fn blue_green(node: &Node, problems: &mut Problems) -> BlueGreen {
    let fields = Fields::of(node, "blue-green", &["keep"], problems);
    fields
        .and_then(|fields| fields.duration("keep", problems))
        .map_or_else(BlueGreen::default, |keep| BlueGreen { keep })
}

fn canary(node: &Node, problems: &mut Problems) -> Canary {
    let mut canary = Canary::default();
    let Some(fields) = Fields::of(node, "canary", CANARY_KEYS, problems) else {
        return canary;
    };
    let words = [
        ("pause", OnInconclusive::Pause),
        ("rollback", OnInconclusive::Rollback),
        ("promote", OnInconclusive::Promote),
    ];
    canary.on_inconclusive = word(&fields, "on_inconclusive", &words, problems).unwrap_or_default();
    if let Some(steps) = fields.get("steps") {
        canary.steps = fields
            .list("steps", problems)
            .iter()
            .filter_map(|node| step(node, problems))
            .collect();
        if canary.steps.is_empty() {
            problems.push(
                Diagnostic::error("bad-value", steps.span, "a canary has at least one step")
                    .help("leave `steps` out for 1 → 10 → 50 → 100"),
            );
        }
        for (pair, node) in canary
            .steps
            .windows(2)
            .zip(fields.list("steps", problems).iter().skip(1))
        {
            if pair[1].weight <= pair[0].weight {
                problems.push(Diagnostic::error(
                    "bad-value",
                    node.span,
                    format!(
                        "the weights of the steps must rise: {} comes after {}",
                        pair[1].weight, pair[0].weight
                    ),
                ));
            }
        }
    }
    canary
}

fn step(node: &Node, problems: &mut Problems) -> Option<CanaryStep> {
    let fields = Fields::of(node, "a step", STEP_KEYS, problems)?;
    fields.require("weight", problems);
    let text = fields.string("weight", problems)?;
    let weight = text
        .value
        .parse::<Weight>()
        .map_err(|error| {
            problems.push(Diagnostic::error("bad-value", text.span, error.to_string()))
        })
        .ok()?;
    if weight.is_zero() {
        problems.push(
            Diagnostic::error(
                "bad-value",
                text.span,
                "a step without traffic shows nothing",
            )
            .help("give it a weight above 0"),
        );
    }
    Some(CanaryStep {
        weight,
        hold: fields.duration("hold", problems),
        smoke: fields.bool("smoke", problems).unwrap_or(false),
        ask: fields.bool("ask", problems).unwrap_or(false),
        scale: count(&fields, "scale", problems),
    })
}
