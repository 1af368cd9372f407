//! The new release's share of traffic over time, as steps: drawn from the shifts in the log.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::rollout::{PlanDirection, RolloutHistory, RolloutView};

use crate::format::clock_time;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = WIDTH - 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 22.0;

/// A share from a moment on.
struct TrafficStep {
    at: Timestamp,
    percent: f64,
    direction: PlanDirection,
}

/// The drawing and the same as a table; nothing before the first shift.
pub(super) fn traffic_plot(view: &RolloutView, history: &RolloutHistory, now: Timestamp) -> Markup {
    let steps: Vec<TrafficStep> = history
        .traffic
        .iter()
        .map(|point| TrafficStep {
            at: point.at,
            percent: point.split.weight_of(view.release).percent(),
            direction: point.direction,
        })
        .collect();
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return html! {};
    };
    let end = view.ended.as_ref().map_or(now, |end| end.at).max(last.at);
    let seconds = end.duration_since(first.at).as_secs_f64().max(1.0);
    let across = |at: Timestamp| {
        let since = at.duration_since(first.at).as_secs_f64();
        LEFT + (since / seconds).clamp(0.0, 1.0) * (RIGHT - LEFT)
    };
    let height = |percent: f64| BOTTOM - percent.clamp(0.0, 100.0) / 100.0 * (BOTTOM - TOP);
    let mut line = format!("M{LEFT:.1} {:.1}", height(first.percent));
    for step in &steps {
        line.push_str(&format!(
            "H{:.1}V{:.1}",
            across(step.at),
            height(step.percent)
        ));
    }
    line.push_str(&format!("H{:.1}", across(end)));
    let about = format!(
        "Share of {} over time: {} now, in {} steps",
        view.release,
        percent_text(last.percent),
        steps.len()
    );
    html! {
        figure.traffic id="traffic-plot" {
            svg.traffic-plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(about) {
                @for percent in [0.0, 50.0, 100.0] {
                    path.axis d={ "M" (LEFT) " " (format!("{:.1}", height(percent))) "H" (RIGHT) } {}
                    text x=(LEFT - 6.0) y=(format!("{:.1}", height(percent) + 4.0)) text-anchor="end" { (percent_text(percent)) }
                }
                path.share-area d={ (line) "V" (BOTTOM) "H" (LEFT) "Z" } {}
                path.share-line d=(line) {}
                @if let Some(turn) = steps.iter().find(|step| step.direction == PlanDirection::Back) {
                    path.decided d={ "M" (format!("{:.1}", across(turn.at))) " " (TOP) "V" (BOTTOM) } {}
                    text.decided x=(format!("{:.1}", (across(turn.at) - 5.0).max(LEFT + 70.0))) y=(TOP + 10.0) text-anchor="end" { "rolled back" }
                }
                text x=(LEFT) y=(HEIGHT - 6.0) { (first.at.strftime("%H:%M:%S")) }
                text x=(RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (end.strftime("%H:%M:%S")) " UTC" }
            }
            details id="traffic-table" {
                summary { (about) }
                div.scroll tabindex="0" role="region" aria-label="Shares of traffic" { table { thead { tr { th { "Time (UTC)" } th.number { "Share of " (view.release) } } }
                    tbody { @for step in &steps { tr { td { (clock_time(step.at, now)) } td.number { (percent_text(step.percent)) } } } } } }
            }
        }
    }
}

fn percent_text(percent: f64) -> String {
    format!("{}%", (percent * 100.0).round() / 100.0)
}
