//! A rollout: traffic weights, the evidence, the plan and its progress, and the log.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use shipway_analysis::{
    Verdict,
    plot::{self, Estimate, MetricSeries},
};
use shipway_core::rollout::{
    RolloutKind, RolloutProgress, RolloutStatus, RolloutView, strategy::OnInconclusive,
};

use crate::{
    format::{
        clock_time, enum_text, person_name, relative_text, relative_time, status_badge,
        traffic_shares,
    },
    layout::{NavigationSection, PageFrame, page},
};

/// The page of `/rollouts/{service}/{number}`.
#[derive(Clone, Debug)]
pub struct RolloutPage {
    pub rollout: RolloutView,
    /// The analysis over time, one series for each metric.
    pub series: Vec<MetricSeries>,
    pub now: Timestamp,
}

impl RolloutPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let (view, now) = (&self.rollout, self.now);
        let content = html! {
            p.dim { a href={ "/services/" (view.id.service) } { (view.id.service) } " / " (view.id.number) }
            h1 { (kind_prefix(view)) (view.release) " → " (view.environment) " " (status_badge(&enum_text(&view.status))) }
            p { code { (view.commit) } " " (view.subject) span.dim { " · " (view.strategy) " · " (view.why) " · by " (person_name(&view.by)) " · " (relative_time(view.opened_at, now)) } }
            @if let Some(end) = &view.ended { p class={ "lead" @if view.status != RolloutStatus::Promoted { " bad" } } { (end.why) } }
            @if let Some(turn) = view.rollback_start.as_ref().filter(|_| view.ended.is_none()) { p.lead.bad { "Rolling back: " (turn.why) } }
            @if let Some(pause) = &view.paused { p.lead { "Paused by " (pause.by) ": " (pause.reason) } }
            (guard_notices(view, now))
            (hold_notice(view.hold_until.filter(|_| view.guarded_until.is_none()), view.hold_deadline.zip(view.on_inconclusive), now))
            section.card {
                h2 { "Traffic" }
                @if view.split.shares.is_empty() { p.dim { "no traffic" } }
                (traffic_shares(&view.split, Some(view.release).filter(|_| view.status != RolloutStatus::Promoted)))
                @if let Some(reach) = &view.reach { p { (reach.to_string().trim_start_matches("; ")) } }
                @if let Some(judgement) = &view.judgement { p { (verdict_text(&judgement.verdict)) } }
                (metrics_table(view))
            }
            (evidence_section(view, &self.series, now))
            (smoke_section(view))
            (command_section(view))
            section.card {
                h2 { "Plan" }
                ol.plan { @for line in &view.plan { li class=(enum_text(&line.progress)) aria-current=[(line.progress == RolloutProgress::Now).then_some("step")] { (line.text) } } }
            }
            section.card {
                h2 { "Timeline" }
                p.dim { "Times in UTC, newest first." }
                div.scroll { table { tbody { @for note in view.notes.iter().rev() { tr { td.dim.tight { (clock_time(note.at, now)) } td { (note.text) } td.dim { (person_name(&note.by)) } } } } } }
            }
        };
        let title = format!("{} of {}", view.id.number, view.id.service);
        let frame = PageFrame {
            title: &title,
            section: Some(NavigationSection::Rollouts),
            events: &format!("stream={}", view.id.stream()),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

/// `Rollback to `, `Retry of `; nothing for a deploy.
pub(crate) const fn kind_prefix(view: &RolloutView) -> &'static str {
    match view.kind {
        RolloutKind::Deploy => "",
        RolloutKind::Rollback => "Rollback to ",
        RolloutKind::Retry => "Retry of ",
    }
}

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

/// What the guard sees: until when a promoted release is judged, missing instances, a rollback that keeps failing.
fn guard_notices(view: &RolloutView, now: Timestamp) -> Markup {
    let at = |moment| html! { (clock_time(moment, now)) " UTC (" (relative_text(moment, now)) ")" };
    html! {
        @if let Some(until) = view.guarded_until {
            p { "Guarded until " (at(until)) ": a failure rolls back automatically" }
        }
        @if let Some(fault) = &view.unattributed_fault {
            p.lead.bad { "Degraded, but not rolled back: " (fault) }
        }
        @if let Some(shortage) = &view.shortage {
            p.lead.bad { (shortage.ready) " of " (shortage.needed) " instances of " (view.release) " ready since " (at(shortage.since)) }
        }
        @if let Some(retry) = &view.rollback_retry {
            p.lead.bad {
                "The rollback has failed " (retry.attempt) " times"
                @match retry.until { Some(until) => { "; next attempt " (at(until)) }, None => { "; retrying now" } }
            }
        }
    }
}

/// The end of a hold, and the action that follows. A hold that is due while inconclusive is extended by the same time.
fn hold_notice(
    due: Option<Timestamp>,
    deadline: Option<(Timestamp, OnInconclusive)>,
    now: Timestamp,
) -> Markup {
    let at = |moment| {
        html! { (clock_time(moment, now)) " UTC (" (relative_text(moment, now)) ")" }
    };
    html! {
        @match (due, deadline) {
            (Some(due), Some((deadline, then))) if due <= now => p.dim {
                "Waiting for evidence, at most until " (at(deadline)) "; "
                @match then {
                    OnInconclusive::Rollback => "otherwise the rollout is rolled back",
                    OnInconclusive::Promote => "then the rollout continues in any case",
                    OnInconclusive::Pause => "otherwise the rollout is paused",
                }
            },
            (Some(due), _) => p.dim { "Held until " (at(due)) },
            (None, _) => {},
        }
    }
}

/// `pass error-rate …`, the word as a badge.
fn verdict_text(verdict: &Verdict) -> Markup {
    html! { (status_badge(verdict.as_str())) " " (verdict.why()) }
}

fn metrics_table(view: &RolloutView) -> Markup {
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
        div.scroll { table {
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
fn evidence_section(view: &RolloutView, all: &[MetricSeries], now: Timestamp) -> Markup {
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
        @if !all.is_empty() { section.card {
            h2 { "Evidence" }
            @for series in all.iter().filter(|series| !series.points.is_empty()) { figure.evidence {
                (PreEscaped(plot::svg(series)))
                details id={ "numbers-" (series.metric) } {
                    summary { (series.summary()) }
                    div.scroll { table {
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

fn smoke_section(view: &RolloutView) -> Markup {
    let Some(report) = &view.smoke else {
        return html! {};
    };
    html! {
        section.card {
            h2 { "Smoke tests" }
            p { (report.summary()) }
            div.scroll { table { tbody { @for result in &report.results { tr {
                td.tight { (status_badge(if result.passed { "success" } else { "failure" })) }
                td { (result.name) @for difference in &result.differences { p.trouble { (difference.0) } } }
                td.dim { (result.instance) } td.number { (result.took.as_millis()) " ms" }
            } } } } }
        }
    }
}

/// What a person would do, as commands to copy; buttons come with logins.
fn command_section(view: &RolloutView) -> Markup {
    let back = view.stable.map_or_else(
        || format!("remove {} again", view.release),
        |stable| format!("return all traffic to {stable} immediately"),
    );
    let pause = ("pause", "freeze the current traffic split");
    let promote = ("promote", "skip the remaining holds and promote");
    let abort = ("abort", back.as_str());
    let verbs = match view.status {
        RolloutStatus::Waiting => [
            ("approve", "let the rollout continue"),
            ("reject", "end the rollout"),
            abort,
        ]
        .to_vec(),
        RolloutStatus::Paused => vec![("resume", "continue where it stopped"), promote, abort],
        RolloutStatus::KeptWarm => vec![abort],
        RolloutStatus::Promoted if view.ended.is_none() => vec![abort],
        RolloutStatus::RollingBack if view.rollback_retry.is_some() => {
            vec![(
                "abort",
                "stop retrying the rollback: traffic stays where it is",
            )]
        }
        RolloutStatus::Moving | RolloutStatus::Holding | RolloutStatus::WaitingForPeers => {
            vec![pause, promote, abort]
        }
        RolloutStatus::RollingBack
        | RolloutStatus::Promoted
        | RolloutStatus::RolledBack
        | RolloutStatus::Aborted
        | RolloutStatus::Rejected
        | RolloutStatus::Superseded
        | RolloutStatus::Failed => Vec::new(),
    };
    html! {
        @if !verbs.is_empty() { section.card {
            h2 { "Actions" }
            dl.steer { @for (verb, what) in verbs { dt { code { "shipway " (verb) " " (view.id) } } dd { (what) } } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hold_is_said_to_have_ended_in_the_past() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let deadline = Some((at(90), OnInconclusive::Pause));
        let before = hold_notice(Some(at(30)), deadline, at(20)).into_string();
        assert!(
            before.contains("Held until") && before.contains(">00:00:30<"),
            "{before}"
        );
        let after = hold_notice(Some(at(30)), deadline, at(40)).into_string();
        assert!(!after.contains(">00:00:30<"), "{after}");
        assert!(
            after.contains(">00:01:30<") && after.contains("otherwise the rollout is paused"),
            "{after}"
        );
    }
}
