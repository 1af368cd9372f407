//! The measurements of a rollout: counts of both releases, each metric over time as a plot and as a table, and the smoke tests.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use shipway_analysis::{
    Verdict,
    plot::{self, Estimate, MetricSeries},
};
use shipway_core::rollout::RolloutView;

use crate::{
    foreign_text::foreign_text,
    format::{clock_time, status_badge},
};

/// Whether a range is drawn around its values.
fn has_band(series: &MetricSeries) -> bool {
    let is_range = |it: Estimate| it.low < it.high;
    let mut points = series.points.iter();
    points.any(|point| {
        [point.canary, point.stable]
            .into_iter()
            .flatten()
            .any(is_range)
    })
}

/// `pass error-rate …`, the word as a badge.
pub(super) fn verdict_text(verdict: &Verdict) -> Markup {
    html! { (status_badge(verdict.as_str())) " " (verdict.why()) }
}

pub(super) fn metrics_table(view: &RolloutView) -> Markup {
    let Some(seen) = &view.seen else {
        return html! {};
    };
    let sides = std::iter::once(&seen.canary).chain(&seen.stable);
    let shown = |value: Option<f64>, unit: &str| {
        value
            .filter(|value| value.is_finite())
            .map_or_else(|| "–".to_owned(), |value| format!("{value:.1} {unit}"))
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Counts of both releases" { table {
            thead { tr { th { "release" } th.number { "requests" } th.number { "errors" } th.number { "abandoned" } th.number { "unanswered" } th.number { "p99" } th.number { "cpu" } th.number { "memory" } th.number { "restarts" } } }
            tbody { @for side in sides { @if let Some(sample) = &side.sample { tr {
                td { (side.release) } td.number { (sample.requests) }
                td class={ "number" @if sample.errors > 0 { " trouble" } } { (sample.errors) }
                td class={ "number" @if sample.abandoned > 0 { " trouble" } } { (sample.abandoned) }
                td class={ "number" @if sample.late + sample.overdue > 0 { " trouble" } } { (sample.late + sample.overdue) }
                td.number { (shown(sample.latency.and_then(|latency| latency.p99_ms), "ms")) }
                td.number { (shown(sample.cpu.map(|cpu| cpu * 100.0), "%")) }
                td.number { (shown(sample.memory_bytes.map(|bytes| bytes / 1_048_576.0), "MiB")) }
                td.number { (sample.restarts.map_or_else(|| "–".to_owned(), |restarts| restarts.to_string())) }
            } } } }
        } }
    }
}

/// Rows of the table below a plot.
const ROWS: usize = 12;

/// The analysis over time: a plot for each metric, and the same as a table.
pub(super) fn evidence_section(view: &RolloutView, all: &[MetricSeries], now: Timestamp) -> Markup {
    let shown = |series: &MetricSeries, estimate: Option<Estimate>| {
        estimate.map_or_else(
            || "–".to_owned(),
            |it| {
                let value = series.unit.show(it.value);
                if it.high > it.low {
                    format!(
                        "{value} ({} to {})",
                        series.unit.show(it.low),
                        series.unit.show(it.high)
                    )
                } else {
                    value
                }
            },
        )
    };
    let address = format!(
        "/api/v1/rollouts/{}/{}/analysis",
        view.id.service, view.id.number
    );
    html! {
        @if !all.is_empty() { section.card id="evidence" {
            h2 { "Measurements" }
            @for series in all.iter().filter(|series| !series.points.is_empty()) { figure.evidence {
                (PreEscaped(plot::svg(series)))
                details id={ "numbers-" (series.metric) } {
                    summary { (series.summary()) }
                    div.scroll tabindex="0" role="region" aria-label={ "Values of " (series.metric) } { table {
                        thead { tr { th { "time" } th { "weight" } th.number { (series.canary) } @if let Some(stable) = &series.stable { th.number { (stable) } } } }
                        tbody { @for point in plot::thin_points(&series.points, ROWS) { tr {
                            td.tight { (clock_time(point.at, now)) } td.tight { (format!("{}%", (point.weight * 1_000.0).round() / 10.0)) }
                            td.number { (shown(series, point.canary)) }
                            @if series.stable.is_some() { td.number { (shown(series, point.stable)) } }
                        } } }
                    } }
                }
            } }
            p.dim {
                @if all.iter().any(has_band) { "Shaded bands: 95% confidence sequences, valid at every point in time. " }
                a href=(address) { "All numbers" }
            }
        } }
    }
}

pub(super) fn smoke_section(view: &RolloutView) -> Markup {
    let Some(report) = &view.smoke else {
        return html! {};
    };
    html! {
        section.card id="smoke" {
            h2 { "Smoke tests" }
            p { (report.summary()) }
            div.scroll tabindex="0" role="region" aria-label="Results of smoke tests" { table { tbody { @for result in &report.results { tr {
                td.tight { (status_badge(if result.passed { "success" } else { "failure" })) }
                td { (foreign_text(&result.name)) @for difference in &result.differences { p.trouble { (foreign_text(&difference.0)) } } }
                td.dim { (result.instance) } td.number { (result.took.as_millis()) " ms" }
            } } } } }
        }
    }
}
