//! The comparison as a drawing: how long each judge takes, and how many requests that costs, as bars on logarithmic scales.

use std::fmt::Write;

use crate::{compare::ComparisonRow, summary};

const WIDTH: f64 = 760.0;
/// Of a row of bars.
const ROW: f64 = 44.0;
/// Where the bars begin and end.
const BARS: (f64, f64) = (250.0, WIDTH - 90.0);
const STYLE: &str = "\
:root { --ground: #fff; --ink: #16202b; --dim: #55616e; --line: #d9dee5; --own: #0b62c4; --other: #9aa5b1; --bad: #a4211c; }
@media (prefers-color-scheme: dark) { :root { --ground: #18212b; --ink: #e6ebf1; --dim: #9fabb8; --line: #2b3846; --own: #74b3ff; --other: #5d6b7a; --bad: #ff9d96; } }
svg { background: var(--ground); font: 13px/1.2 system-ui, sans-serif; width: 100%; max-width: 64rem; height: auto; }
text { fill: var(--ink); } .dim { fill: var(--dim); font-size: 12px; } .bad { fill: var(--bad); } .head { font-weight: 600; }
.bar { fill: var(--other); } .own { fill: var(--own); } .far { fill: none; stroke: var(--other); stroke-width: 2; } .far.own { stroke: var(--own); } .axis { stroke: var(--line); }";

/// The rows as one drawing under a title. Wald's bound is drawn where it is known, in seconds.
#[must_use]
pub fn svg(title: &str, rows: &[ComparisonRow], wald_s: Option<f64>) -> String {
    let panel = 40.0 + ROW * rows.len() as f64;
    let height = 44.0 + 2.0 * panel + 24.0;
    let about = rows.iter().map(describe_row).collect::<Vec<_>>().join("; ");
    let mut out = String::with_capacity(8 * 1024);
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"><title>{}</title><desc>{}</desc><style>{STYLE}</style><text class="head" x="12" y="24">{}</text>"#,
        escaped(title),
        escaped(&about),
        escaped(title)
    );
    let times: Vec<ChartBar> = rows.iter().map(time).collect();
    let harms: Vec<ChartBar> = rows.iter().map(harm).collect();
    bars(
        &mut out,
        44.0,
        "until half of the bad releases are rolled back, the line: nine tenths (logarithmic)",
        rows,
        &times,
        wald_s,
    );
    bars(
        &mut out,
        44.0 + panel,
        "requests that fail or are slow because of it, on average (logarithmic)",
        rows,
        &harms,
        None,
    );
    out.push_str("</svg>\n");
    out
}

/// One bar: its length, the end of the thin line, and its label.
struct ChartBar {
    length: Option<f64>,
    far: Option<f64>,
    text: String,
}

fn time(row: &ComparisonRow) -> ChartBar {
    let text = row
        .detect_median_s
        .map_or_else(|| "most are missed".to_owned(), summary::time);
    ChartBar {
        length: row.detect_median_s,
        far: row.detect_p90_s,
        text,
    }
}

fn harm(row: &ComparisonRow) -> ChartBar {
    ChartBar {
        length: Some(row.harmed_mean),
        far: None,
        text: number(row.harmed_mean),
    }
}

/// Thousands set apart.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn describe_row(row: &ComparisonRow) -> String {
    let time = row.detect_median_s.map_or_else(
        || "most are missed".to_owned(),
        |it| format!("found after {}", summary::time(it)),
    );
    format!(
        "{} ({}): {time}, {} harmed",
        row.judge,
        row.setting,
        number(row.harmed_mean)
    )
}

fn bars(
    out: &mut String,
    top: f64,
    title: &str,
    rows: &[ComparisonRow],
    bars: &[ChartBar],
    mark: Option<f64>,
) {
    let largest = bars
        .iter()
        .flat_map(|bar| [bar.length, bar.far])
        .flatten()
        .chain(mark)
        .fold(10.0, f64::max);
    let across = |value: f64| {
        BARS.0 + (BARS.1 - BARS.0) * libm::log10(1.0 + value.max(0.0)) / libm::log10(1.0 + largest)
    };
    let _ = write!(
        out,
        r#"<text class="dim" x="12" y="{}">{}</text>"#,
        top + 16.0,
        escaped(title)
    );
    for (index, (row, bar)) in rows.iter().zip(bars).enumerate() {
        draw_bar(out, top + 30.0 + ROW * index as f64, row, bar, across);
    }
    if let Some(mark) = mark {
        let (x, bottom) = (across(mark), top + 30.0 + ROW * rows.len() as f64);
        let _ = write!(
            out,
            r#"<path class="axis" d="M{x:.1} {}V{bottom}"/><text class="dim" x="{:.1}" y="{}">Wald's bound {}</text>"#,
            top + 24.0,
            x + 4.0,
            bottom - 2.0,
            summary::time(mark)
        );
    }
}

/// Draws the bar of a judge with its label at the height `y`; `across` places a value on the scale.
fn draw_bar(
    out: &mut String,
    y: f64,
    row: &ComparisonRow,
    bar: &ChartBar,
    across: impl Fn(f64) -> f64,
) {
    let class = if row.judge.starts_with("shipway") {
        "own"
    } else {
        "other"
    };
    let tuned = if row.tuned { ", tuned" } else { "" };
    let _ = write!(
        out,
        r#"<text x="12" y="{}">{}{tuned}</text><text class="dim" x="12" y="{}">{}</text>"#,
        y + 13.0,
        escaped(&row.judge),
        y + 29.0,
        escaped(&shortened(&row.setting))
    );
    let end = bar.length.map_or(BARS.0, &across);
    let _ = write!(
        out,
        r#"<rect class="bar {class}" x="{}" y="{}" width="{:.1}" height="14" rx="2"/>"#,
        BARS.0,
        y + 4.0,
        end - BARS.0
    );
    let far = bar.far.map_or(end, across);
    if far > end {
        let _ = write!(
            out,
            r#"<path class="far {class}" d="M{end:.1} {0}H{far:.1}"/>"#,
            y + 11.0
        );
    }
    let trouble = if bar.length.is_none() {
        " class=\"bad\""
    } else {
        ""
    };
    let _ = write!(
        out,
        r#"<text{trouble} x="{:.1}" y="{}">{}</text>"#,
        far + 6.0,
        y + 15.0,
        escaped(&bar.text)
    );
}

fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(MOST - 1).collect::<String>())
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{ComparedJudge, row},
        rivals::RivalJudge,
    };

    #[test]
    fn every_judge_is_in_it_and_who_misses_is_said_to() {
        let rows = [
            row(&ComparedJudge::Shipway, &[], &[]),
            row(&ComparedJudge::Rival(RivalJudge::ARGO), &[], &[]),
        ];
        let drawn = svg("error-rate 0.5% < 1%", &rows, Some(34.0));
        for part in [
            "shipway",
            "Argo Rollouts",
            "most are missed",
            "Wald's bound 34 s",
            "0.5% &lt; 1%",
            "prefers-color-scheme: dark",
        ] {
            assert!(drawn.contains(part), "{part} is missing in {drawn}");
        }
        assert_eq!(
            [999.0, 1_234.4, 1_000_000.0].map(number),
            ["999", "1,234", "1,000,000"]
        );
    }
}
