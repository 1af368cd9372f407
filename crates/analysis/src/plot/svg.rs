//! The plot as SVG: legible in light and dark, wide and narrow. Colours are CSS classes and variables of the embedding page;
//! [`standalone`] brings its own.

use std::fmt::Write;

use jiff::Timestamp;

use super::{
    Estimate, MetricSeries, SeriesPoint, estimates, highest,
    scale::{AxisScale, ticks, times},
    unit::short,
};

/// Drawing units; wide enough for a sentence, narrow enough that letters stay letters on a telephone.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 284.0;
/// Left and right end of the plots.
const ACROSS: (f64, f64) = (62.0, WIDTH - 12.0);
/// Bottom and top of the values.
const VALUES: (f64, f64) = (190.0, 44.0);
/// Bottom and top of the weights.
const WEIGHTS: (f64, f64) = (250.0, 212.0);

/// How the classes look; where a page has its own colours, those. A page puts it into its style sheet, since a page's content
/// policy lets no drawing bring styles.
pub const STYLE: &str = "\
.plot { width: 100%; max-width: 48rem; height: auto; display: block; font: 12px/1.2 system-ui, sans-serif; }
.plot text { fill: var(--dim, #55616e); }
.plot .name { fill: var(--ink, #16202b); font-weight: 600; }
.plot .axis { stroke: var(--line, #d9dee5); fill: none; }
.plot .canary { stroke: var(--canary, #d9822b); fill: none; stroke-width: 2; }
.plot .stable { stroke: var(--accent, #0b62c4); fill: none; stroke-width: 2; }
.plot .range.canary { fill: var(--canary, #d9822b); stroke: none; opacity: .18; }
.plot .range.stable { fill: var(--accent, #0b62c4); stroke: none; opacity: .15; }
.plot .limit { stroke: var(--bad, #a4211c); stroke-dasharray: 5 4; fill: none; }
.plot .decided { stroke: var(--good, #146c3c); stroke-width: 1.5; }
.plot .decided.bad { stroke: var(--bad, #a4211c); }
.plot text.decided { stroke: none; fill: var(--good, #146c3c); font-weight: 600; }
.plot text.decided.bad { stroke: none; fill: var(--bad, #a4211c); }
.plot .weight { fill: var(--canary, #d9822b); opacity: .35; stroke: none; }
";

/// The colours of a standalone file.
const COLOURS: &str = "\
:root { --ground: #fff; --ink: #16202b; --dim: #55616e; --line: #d9dee5; --accent: #0b62c4; --good: #146c3c; --bad: #a4211c; --canary: #d9822b; }
@media (prefers-color-scheme: dark) { :root { --ground: #18212b; --ink: #e6ebf1; --dim: #9fabb8; --line: #2b3846; --accent: #74b3ff; --good: #7bdca2; --bad: #ff9d96; --canary: #f0a35a; } }
svg { background: var(--ground); }
";

/// The plot as an element of a page.
#[must_use]
pub fn svg(series: &MetricSeries) -> String {
    drawn(series, "")
}

/// The plot as a file: with a namespace, colours, and a ground of its own.
#[must_use]
pub fn standalone(series: &MetricSeries) -> String {
    drawn(series, &style())
}

/// What a file of ours begins with inside its `svg` element.
#[must_use]
pub(crate) fn style() -> String {
    format!("<style>{COLOURS}{STYLE}</style>")
}

/// Text inside an element or an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A number as short as it can be for a drawing.
struct SvgNumber(f64);

impl std::fmt::Display for SvgNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.1}", self.0);
        f.write_str(text.strip_suffix(".0").unwrap_or(&text))
    }
}

/// The scales that everything is placed by.
struct PlotFrame {
    x: AxisScale,
    y: AxisScale,
    begins: Timestamp,
    seconds: f64,
    ticks: Vec<f64>,
}

impl PlotFrame {
    fn for_series(series: &MetricSeries) -> Self {
        let begins = series
            .points
            .first()
            .map_or(Timestamp::UNIX_EPOCH, |point| point.at);
        let ends = series.points.last().map_or(begins, |point| point.at);
        let seconds = ends.duration_since(begins).as_secs_f64().max(1.0);
        let ticks = ticks(top(series));
        let highest = ticks.last().copied().unwrap_or(1.0);
        Self {
            x: AxisScale::new((0.0, seconds), ACROSS),
            y: AxisScale::new((0.0, highest), VALUES),
            begins,
            seconds,
            ticks,
        }
    }

    fn across(&self, at: Timestamp) -> f64 {
        self.x
            .position(at.duration_since(self.begins).as_secs_f64())
    }
}

/// How high the plot must be: all values, the limit, and as much of the ranges as leaves the values legible. Ranges begin wide open.
fn top(series: &MetricSeries) -> f64 {
    let since = |begin| estimates(&series.points[begin..]);
    let late = series.points.len() / 4;
    let values_since = |begin| highest(since(begin).map(|it| it.value).chain(series.limit));
    let (values, late_values) = (values_since(0), values_since(late));
    let ranges = highest(since(late).map(|it| it.high));
    // A first bad second of two requests is not what the plot is about.
    let values = if late_values > 0.0 {
        values.min(4.0 * late_values)
    } else {
        values
    };
    if values > 0.0 {
        values.max(ranges.min(2.5 * values))
    } else {
        ranges
    }
}

fn drawn(series: &MetricSeries, style: &str) -> String {
    let frame = PlotFrame::for_series(series);
    let mut out = String::with_capacity(16 * 1024);
    let (title, about) = (escaped(&series.metric), escaped(&describe(series)));
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}"><title>{title}</title><desc>{about}</desc>{style}"#
    );
    legend(&mut out, series);
    axes(&mut out, series, &frame);
    let sides = [
        ("stable", stable as fn(&SeriesPoint) -> Option<Estimate>),
        ("canary", canary),
    ];
    for (class, side) in sides {
        range(&mut out, series, &frame, class, side);
    }
    for (class, side) in sides {
        line(&mut out, series, &frame, class, side);
    }
    if let Some(limit) = series.limit {
        let y = frame.y.position(limit);
        let _ = write!(
            out,
            r#"<path class="limit" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">limit {}</text>"#,
            SvgNumber(ACROSS.0),
            SvgNumber(y),
            SvgNumber(ACROSS.1),
            SvgNumber(ACROSS.1 - 4.0),
            SvgNumber(y - 4.0),
            escaped(&series.unit.show(limit))
        );
    }
    weights(&mut out, series, &frame);
    decision(&mut out, series, &frame);
    out.push_str("</svg>");
    out
}

fn canary(point: &SeriesPoint) -> Option<Estimate> {
    point.canary
}

fn stable(point: &SeriesPoint) -> Option<Estimate> {
    point.stable
}

fn describe(series: &MetricSeries) -> String {
    match &series.decision {
        Some(decision) => format!("{}. Decided: {}", series.summary(), decision.why),
        None => series.summary(),
    }
}

fn legend(out: &mut String, series: &MetricSeries) {
    let _ = write!(
        out,
        r#"<text class="name" x="12" y="18">{}</text>"#,
        escaped(&series.metric)
    );
    let mut x = 170.0;
    let last = series.points.last();
    let sides = [
        (
            "canary",
            Some(&series.canary),
            last.and_then(|it| it.canary),
        ),
        (
            "stable",
            series.stable.as_ref(),
            last.and_then(|it| it.stable),
        ),
    ];
    for (class, release, estimate) in sides {
        let Some(release) = release else { continue };
        let value = estimate
            .map(|it| format!(" {}", series.unit.show(it.value)))
            .unwrap_or_default();
        let text = format!("{release}{value}");
        let _ = write!(
            out,
            r#"<path class="{class}" d="M{} 14h16"/><text x="{}" y="18">{}</text>"#,
            SvgNumber(x),
            SvgNumber(x + 22.0),
            escaped(&text)
        );
        x += 44.0 + 7.0 * text.chars().count() as f64;
    }
}

fn axes(out: &mut String, series: &MetricSeries, frame: &PlotFrame) {
    for tick in &frame.ticks {
        let y = frame.y.position(*tick);
        let _ = write!(
            out,
            r#"<path class="axis" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>"#,
            SvgNumber(ACROSS.0),
            SvgNumber(y),
            SvgNumber(ACROSS.1),
            SvgNumber(ACROSS.0 - 6.0),
            SvgNumber(y + 4.0),
            escaped(&series.unit.show(*tick))
        );
    }
    for (time, written) in times(frame.seconds) {
        let x = frame.x.position(time);
        let _ = write!(
            out,
            r#"<path class="axis" d="M{} {}v4"/><text x="{}" y="{}" text-anchor="middle">{written}</text>"#,
            SvgNumber(x),
            SvgNumber(WEIGHTS.0),
            SvgNumber(x),
            SvgNumber(WEIGHTS.0 + 18.0)
        );
    }
    let _ = write!(
        out,
        r#"<path class="axis" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">weight</text>"#,
        SvgNumber(ACROSS.0),
        SvgNumber(WEIGHTS.0),
        SvgNumber(ACROSS.1),
        SvgNumber(ACROSS.0 - 6.0),
        SvgNumber(WEIGHTS.0 - 14.0)
    );
}

/// The stretches of points where this side is known.
fn known_points(
    series: &MetricSeries,
    side: fn(&SeriesPoint) -> Option<Estimate>,
) -> Vec<(Timestamp, Estimate)> {
    let known = series
        .points
        .iter()
        .filter_map(|point| Some((point.at, side(point)?)));
    known.filter(|(_, it)| it.value.is_finite()).collect()
}

fn line(
    out: &mut String,
    series: &MetricSeries,
    frame: &PlotFrame,
    class: &str,
    side: fn(&SeriesPoint) -> Option<Estimate>,
) {
    let mut path = String::new();
    for (at, estimate) in known_points(series, side) {
        let letter = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{letter}{} {}",
            SvgNumber(frame.across(at)),
            SvgNumber(frame.y.position(estimate.value))
        );
    }
    if !path.is_empty() {
        let _ = write!(out, r#"<path class="{class}" d="{path}"/>"#);
    }
}

fn range(
    out: &mut String,
    series: &MetricSeries,
    frame: &PlotFrame,
    class: &str,
    side: fn(&SeriesPoint) -> Option<Estimate>,
) {
    let known = known_points(series, side);
    if !known.iter().any(|(_, it)| it.high > it.low) {
        return;
    }
    let mut path = String::new();
    for (at, estimate) in &known {
        let letter = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{letter}{} {}",
            SvgNumber(frame.across(*at)),
            SvgNumber(frame.y.position(estimate.high))
        );
    }
    for (at, estimate) in known.iter().rev() {
        let _ = write!(
            path,
            "L{} {}",
            SvgNumber(frame.across(*at)),
            SvgNumber(frame.y.position(estimate.low))
        );
    }
    let _ = write!(out, r#"<path class="range {class}" d="{path}Z"/>"#);
}

/// The weight as a staircase: it holds until the next point says otherwise.
fn weights(out: &mut String, series: &MetricSeries, frame: &PlotFrame) {
    let scale = AxisScale::new((0.0, 1.0), WEIGHTS);
    let Some(first) = series.points.first() else {
        return;
    };
    let mut path = format!(
        "M{} {}",
        SvgNumber(frame.across(first.at)),
        SvgNumber(WEIGHTS.0)
    );
    let (mut last, mut labels) = (f64::NAN, String::new());
    let mut free_from = 0.0;
    for point in &series.points {
        let (x, y) = (frame.across(point.at), scale.position(point.weight));
        if point.weight != last {
            let _ = write!(path, "H{}V{}", SvgNumber(x), SvgNumber(y));
            if x >= free_from {
                let percent = short(point.weight * 100.0);
                let _ = write!(
                    labels,
                    r#"<text x="{}" y="{}">{percent}%</text>"#,
                    SvgNumber(x + 3.0),
                    SvgNumber(WEIGHTS.1 - 3.0)
                );
                free_from = x + 46.0;
            }
            last = point.weight;
        }
    }
    let end = series
        .points
        .last()
        .map_or(ACROSS.1, |point| frame.across(point.at));
    let _ = write!(
        out,
        r#"<path class="weight" d="{path}H{}V{}Z"/>{labels}"#,
        SvgNumber(end),
        SvgNumber(WEIGHTS.0)
    );
}

fn decision(out: &mut String, series: &MetricSeries, frame: &PlotFrame) {
    let Some(decision) = &series.decision else {
        return;
    };
    let x = frame.across(decision.at);
    let (class, word) = if decision.is_bad {
        ("decided bad", "rolled back")
    } else {
        ("decided", "promoted")
    };
    let seconds = decision.at.duration_since(frame.begins).as_secs_f64();
    let (anchor, beside) = if x > (ACROSS.0 + ACROSS.1) / 2.0 {
        ("end", x - 5.0)
    } else {
        ("start", x + 5.0)
    };
    let _ = write!(
        out,
        r#"<path class="{class}" d="M{} {}V{}"/><text class="{class}" x="{}" y="{}" text-anchor="{anchor}">{word} after {}</text>"#,
        SvgNumber(x),
        SvgNumber(WEIGHTS.0),
        SvgNumber(VALUES.1 - 8.0),
        SvgNumber(beside),
        SvgNumber(VALUES.1 - 10.0),
        span(seconds)
    );
}

/// `35 s`, `4 min 10 s`
fn span(seconds: f64) -> String {
    let whole = libm::round(seconds) as u64;
    match (whole / 60, whole % 60) {
        (0, _) => format!("{} s", short(seconds)),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{PlotUnit, RolloutDecision};

    pub(super) fn series(points: usize) -> MetricSeries {
        let begins = Timestamp::from_second(1_800_000_000).unwrap();
        let points = (0..points).map(|index| {
            let value = 0.001 + index as f64 * 1e-4;
            let spread = 0.01 / (1.0 + index as f64);
            let estimate = |value: f64| {
                Some(Estimate {
                    value,
                    low: (value - spread).max(0.0),
                    high: value + spread,
                })
            };
            SeriesPoint {
                at: begins + jiff::SignedDuration::from_secs(index as i64),
                weight: if index < 20 { 0.01 } else { 0.1 },
                canary: estimate(value),
                stable: estimate(0.001),
            }
        });
        let points: Vec<SeriesPoint> = points.collect();
        let at = points.last().map_or(begins, |point| point.at);
        MetricSeries {
            metric: "error-rate".into(),
            unit: PlotUnit::Share,
            canary: "#4".into(),
            stable: Some("#3".into()),
            limit: Some(0.004),
            points,
            decision: Some(RolloutDecision {
                at,
                is_bad: true,
                why: "5xx <2.1%> & rising".into(),
            }),
        }
    }

    #[test]
    fn everything_that_was_judged_is_in_it() {
        let drawn = svg(&series(40));
        for part in [
            "<title>error-rate</title>",
            "<desc>error-rate: 0.49% on #4, 0.1% on #3, limit 0.4%. Decided: 5xx &lt;2.1%&gt; &amp; rising</desc>",
            r#"class="range canary""#,
            r#"class="range stable""#,
            r#"class="limit""#,
            "rolled back after 39 s",
            "1%</text>",
            "10%</text>",
        ] {
            assert!(drawn.contains(part), "{part} is missing in {drawn}");
        }
        assert!(!drawn.contains("<style"), "a page's policy refuses styles");
        assert!(standalone(&series(40)).contains("prefers-color-scheme: dark"));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
    }

    #[test]
    fn nothing_and_one_point_and_odd_numbers_can_be_drawn() {
        for count in [0, 1] {
            assert!(svg(&series(count)).ends_with("</svg>"));
        }
        let mut odd = series(5);
        odd.points[2].canary = Some(Estimate {
            value: f64::NAN,
            low: f64::NAN,
            high: f64::INFINITY,
        });
        odd.points[3].stable = None;
        let drawn = svg(&odd);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }
}
