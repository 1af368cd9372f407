//! Each rule of the analysis as a tile: the current value, the criterion, how much was counted, and the verdict as a sentence.
//! A comparison has a plot of its odds over time with the threshold, which agrees with the verdict.

use std::time::Duration;

use maud::{Markup, html};
use shipway_analysis::{
    Verdict,
    plot::{Estimate, MetricSeries},
};
use shipway_core::rollout::{RolloutHistory, RuleCriterion, RuleHistory};

use super::odds_plot::odds_plot;
use crate::format::status_badge;

pub(super) fn rule_section(history: &RolloutHistory, series: &[MetricSeries]) -> Markup {
    html! {
        section.card id="rules" {
            h2 { "Analysis" }
            @if history.rules.is_empty() {
                p.dim { "No rule judges this rollout (" code { "analysis: none" } "). Health checks and crash loops still roll it back. Add a rule to " code { "shipway.yaml" } ", such as " code { "analysis: [{ metric: error-rate, worse_than: stable }]" } "." }
            }
            div.tiles { @for (place, rule) in history.rules.iter().enumerate() {
                (rule_tile(place, rule, series.iter().find(|it| it.metric == rule.metric.to_string())))
            } }
        }
    }
}

/// The appearance of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TileLook {
    Pass,
    Fail,
    Inconclusive,
    /// Too little traffic: neither good nor bad, and drawn as neither.
    NoData,
    /// Nothing was measured yet.
    Unmeasured,
}

impl TileLook {
    const fn from_rule(rule: &RuleHistory) -> Self {
        match &rule.judgement {
            None => Self::Unmeasured,
            Some(judgement) => match judgement.verdict {
                Verdict::Pass { .. } => Self::Pass,
                Verdict::Fail { .. } => Self::Fail,
                Verdict::Inconclusive { .. } => Self::Inconclusive,
                Verdict::NoData { .. } => Self::NoData,
            },
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Pass => "tile pass",
            Self::Fail => "tile fail",
            Self::Inconclusive => "tile inconclusive",
            Self::NoData | Self::Unmeasured => "tile no-data",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::NoData => "no data",
            Self::Unmeasured => "not measured yet",
        }
    }
}

fn rule_tile(place: usize, rule: &RuleHistory, series: Option<&MetricSeries>) -> Markup {
    let look = TileLook::from_rule(rule);
    let sentence = rule
        .judgement
        .as_ref()
        .map(|judgement| judgement.verdict.why());
    html! {
        article class=(look.class()) id={ "rule-" (place) } {
            header { h3 { (rule.metric.title()) } (status_badge(look.label())) }
            (current_value(series))
            dl.facts {
                dt { "Criterion" } dd { (criterion_text(rule)) }
                dt { "Measured" } dd { (interval_text(rule.interval)) }
                dt { "Sample" } dd { (sample_text(rule)) }
                @if rule.is_required { dt { "Required" } dd { "too little traffic keeps the hold from ending" } }
            }
            @match sentence { Some(sentence) => p.sentence { (sentence) }, None => p.sentence.dim { "Nothing was measured at this weight yet." } }
            @if !rule.odds.is_empty() { (odds_plot(rule)) }
        }
    }
}

/// The newest value of both releases.
fn current_value(series: Option<&MetricSeries>) -> Markup {
    let last = series.and_then(|series| Some((series, series.points.last()?)));
    let shown = |series: &MetricSeries, estimate: Option<Estimate>| {
        estimate.map_or_else(|| "–".to_owned(), |it| series.unit.show(it.value))
    };
    html! {
        p.value {
            @match last {
                Some((series, point)) => {
                    strong { (shown(series, point.canary)) } span.dim { " on " (series.canary) }
                    @if let Some(stable) = &series.stable { span.dim { ", " (shown(series, point.stable)) " on " (stable) } }
                },
                None => span.dim { "– no value yet" },
            }
        }
    }
}

fn criterion_text(rule: &RuleHistory) -> String {
    let metric = rule.metric;
    match &rule.criterion {
        RuleCriterion::Limits {
            min: None,
            max: Some(max),
        } => format!("limit {}", metric.show(*max)),
        RuleCriterion::Limits {
            min: Some(min),
            max: None,
        } => format!("minimum {}", metric.show(*min)),
        RuleCriterion::Limits {
            min: Some(min),
            max: Some(max),
        } => format!("{} to {}", metric.show(*min), metric.show(*max)),
        RuleCriterion::Limits {
            min: None,
            max: None,
        } => "nothing".to_owned(),
        RuleCriterion::Stable { odds } => {
            format!("stable; fails at odds of {odds:.0}:1 that it is worse")
        }
        RuleCriterion::Score { pass, marginal } => {
            format!("stable; passes at a score of {pass}, fails below {marginal}")
        }
        RuleCriterion::Conditions { pass, fail } => {
            let parts = [
                pass.as_ref().map(|it| format!("passes if {it}")),
                fail.as_ref().map(|it| format!("fails if {it}")),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
    }
}

fn interval_text(interval: Option<Duration>) -> String {
    match interval {
        Some(interval) if interval.subsec_millis() == 0 => {
            format!("every {} s", interval.as_secs())
        }
        Some(interval) => format!("every {} ms", interval.as_millis()),
        None => "every second".to_owned(),
    }
}

fn sample_text(rule: &RuleHistory) -> String {
    let counted = match (&rule.judgement, rule.requests) {
        (Some(judgement), _) if matches!(judgement.verdict, Verdict::NoData { .. }) => {
            match judgement.verdict {
                Verdict::NoData { seen, needed, .. } => {
                    return format!("{seen} of the {needed} requests needed");
                }
                _ => None,
            }
        }
        (_, requests) => requests,
    };
    match (counted, rule.min_requests) {
        (Some(requests), 0) => format!("{requests} requests since the weight was changed"),
        (Some(requests), needed) => {
            format!("{requests} requests since the weight was changed; {needed} are needed")
        }
        (None, 0) => "instances, not requests".to_owned(),
        (None, needed) => format!("none yet; {needed} requests are needed"),
    }
}
