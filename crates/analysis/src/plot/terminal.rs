//! The plot for a terminal, in dots of two by four to a letter.

use super::{
    Estimate, MetricSeries, SeriesPoint, estimates, highest,
    scale::{AxisScale, ticks},
    sparkline::block,
};

/// Letters for the numbers on the left.
const MARGIN: usize = 9;
/// Of a letter's dots, the bit of each: braille counts down the left column first, its lowest row was added later.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// Codes of the colours.
const CANARY: u8 = 33;
const STABLE: u8 = 34;
const LIMIT: u8 = 31;

/// Whether a terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorMode {
    /// Escape sequences for colours.
    Colours,
    /// Letters only.
    Plain,
}

/// The braille dots of one character cell, per side.
#[derive(Clone, Copy, Default)]
struct BrailleCell {
    canary: u8,
    stable: u8,
    limit: bool,
}

/// The plot in `width` columns and about `height` lines, the legend and the weights among them. Too narrow or without points: empty.
#[must_use]
pub fn terminal(series: &MetricSeries, width: usize, height: usize, ink: ColorMode) -> String {
    let (columns, rows) = (width.saturating_sub(MARGIN), height.saturating_sub(2));
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else {
        return String::new();
    };
    if columns < 20 || rows < 3 {
        return String::new();
    }
    let values = estimates(&series.points).map(|it| it.value);
    let top = highest(values.chain(series.limit));
    let summit = ticks(top).last().copied().unwrap_or(1.0);
    let seconds = last.at.duration_since(first.at).as_secs_f64().max(1.0);
    let x = AxisScale::new((0.0, seconds), (0.0, (columns * 2 - 1) as f64));
    let y = AxisScale::new((0.0, summit), ((rows * 4 - 1) as f64, 0.0));
    let mut cells = vec![vec![BrailleCell::default(); columns]; rows];
    if let Some(limit) = series.limit {
        let row = y.position(limit) as usize / 4;
        cells[row].iter_mut().for_each(|cell| cell.limit = true);
    }
    let sides = [canary as fn(&SeriesPoint) -> Option<Estimate>, stable];
    for (side, read) in sides.into_iter().enumerate() {
        for (column, dot) in path(series, &x, &y, read) {
            let cell = &mut cells[dot / 4][column / 2];
            let bit = DOTS[dot % 4][column % 2];
            *(if side == 0 {
                &mut cell.canary
            } else {
                &mut cell.stable
            }) |= bit;
        }
    }
    let mut lines = vec![legend(series, width, ink)];
    for (row, cells) in cells.iter().enumerate() {
        let label = match row {
            0 => series.unit.show(summit),
            row if row + 1 == rows => series.unit.show(0.0),
            _ => String::new(),
        };
        lines.push(format!(
            "{label:>width$} {}",
            drawn(cells, ink),
            width = MARGIN - 1
        ));
    }
    lines.push(format!(
        "{:>width$} {}",
        "weight",
        weights(series, columns),
        width = MARGIN - 1
    ));
    lines.join("\n")
}

fn canary(point: &SeriesPoint) -> Option<Estimate> {
    point.canary
}

fn stable(point: &SeriesPoint) -> Option<Estimate> {
    point.stable
}

/// The dots of one side, one in each column it covers, the gaps between points filled in.
fn path(
    series: &MetricSeries,
    x: &AxisScale,
    y: &AxisScale,
    side: fn(&SeriesPoint) -> Option<Estimate>,
) -> Vec<(usize, usize)> {
    let Some(first) = series.points.first() else {
        return Vec::new();
    };
    let known = series.points.iter().filter_map(|point| {
        let value = side(point)?.value;
        let since = point.at.duration_since(first.at).as_secs_f64();
        value
            .is_finite()
            .then(|| (x.position(since), y.position(value)))
    });
    let mut dots: Vec<(usize, usize)> = Vec::new();
    let mut before: Option<(f64, f64)> = None;
    for (to_x, to_y) in known {
        let (from_x, from_y) = before.unwrap_or((to_x, to_y));
        let steps = (libm::fabs(to_x - from_x).max(libm::fabs(to_y - from_y)) as usize).max(1);
        for step in 0..=steps {
            let share = step as f64 / steps as f64;
            let dot = (
                libm::round(from_x + (to_x - from_x) * share) as usize,
                libm::round(from_y + (to_y - from_y) * share) as usize,
            );
            if dots.last() != Some(&dot) {
                dots.push(dot);
            }
        }
        before = Some((to_x, to_y));
    }
    dots
}

fn drawn(cells: &[BrailleCell], ink: ColorMode) -> String {
    let mut out = String::new();
    let mut inked = None;
    for cell in cells {
        let dots = cell.canary | cell.stable;
        let letter = match (dots, cell.limit) {
            (0, true) => '┄',
            (0, false) => ' ',
            (dots, _) => char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
        };
        let colour = match (cell.canary, cell.stable, cell.limit) {
            (0, 0, true) => Some(LIMIT),
            (0, 0, false) => None,
            (0, _, _) => Some(STABLE),
            _ => Some(CANARY),
        };
        let colour = colour.filter(|_| ink == ColorMode::Colours);
        if colour != inked {
            out.push_str(&format!("\u{1b}[{}m", colour.unwrap_or(0)));
            inked = colour;
        }
        out.push(letter);
    }
    if inked.is_some() {
        out.push_str("\u{1b}[0m");
    }
    out
}

fn legend(series: &MetricSeries, columns: usize, ink: ColorMode) -> String {
    let mut text = series.summary();
    if text.chars().count() > columns {
        text = text.chars().take(columns.saturating_sub(1)).collect();
        text.push('…');
    }
    match ink {
        ColorMode::Plain => text,
        ColorMode::Colours => {
            // Names in the colours of their lines.
            let named = |text: String, release: &str, colour: u8| {
                let (plain, inked) = (
                    format!(" on {release}"),
                    format!(" on \u{1b}[{colour}m{release}\u{1b}[39m"),
                );
                text.replacen(&plain, &inked, 1)
            };
            let text = named(text, &series.canary, CANARY);
            match &series.stable {
                Some(stable) => named(text, stable, STABLE),
                None => text,
            }
        }
    }
}

fn weights(series: &MetricSeries, columns: usize) -> String {
    (0..columns)
        .map(|column| {
            let place = column * series.points.len() / columns;
            let weight = series.points.get(place).map_or(0.0, |point| point.weight);
            if weight > 0.0 { block(weight) } else { ' ' }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::plot::PlotUnit;

    fn series(points: usize) -> MetricSeries {
        let estimate = |value: f64| {
            Some(Estimate {
                value,
                low: value,
                high: value,
            })
        };
        let point = |index: usize| SeriesPoint {
            at: Timestamp::from_second(1_800_000_000).unwrap()
                + SignedDuration::from_secs(index as i64),
            weight: if index < points / 2 { 0.1 } else { 0.5 },
            canary: estimate(index as f64 / points as f64 * 0.04),
            stable: estimate(0.01),
        };
        MetricSeries {
            metric: "error-rate".into(),
            unit: PlotUnit::Share,
            canary: "#4".into(),
            stable: Some("#3".into()),
            limit: Some(0.02),
            points: (0..points).map(point).collect(),
            decision: None,
        }
    }

    #[test]
    fn a_rising_rate_rises_from_corner_to_corner() {
        let drawn = terminal(&series(100), 60, 10, ColorMode::Plain);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), 10, "{drawn}");
        assert_eq!(lines[0], "error-rate: 3.96% on #4, 1% on #3, limit 2%");
        assert!(
            lines[1].starts_with("      4% ") && lines[1].trim_end().chars().count() > 55,
            "{drawn}"
        );
        assert!(lines[8].starts_with("      0% "), "{drawn}");
        assert!(lines[4].contains('┄') || lines[5].contains('┄'), "{drawn}");
        assert!(lines[9].contains('▁') && lines[9].ends_with('▅'), "{drawn}");
        assert!(lines.iter().all(|line| line.chars().count() <= 60));
    }

    #[test]
    fn colours_begin_and_end_once_for_each_stretch() {
        let drawn = terminal(&series(100), 60, 10, ColorMode::Colours);
        for line in drawn.lines() {
            let codes: Vec<&str> = (line.split('\u{1b}').skip(1))
                .filter_map(|it| Some(it.split_once('m')?.0))
                .collect();
            assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{line:?}");
            assert!(
                codes.last().is_none_or(|it| matches!(*it, "[0" | "[39")),
                "{line:?}"
            );
        }
        assert_eq!(
            drawn.lines().next(),
            Some(
                "error-rate: 3.96% on \u{1b}[33m#4\u{1b}[39m, 1% on \u{1b}[34m#3\u{1b}[39m, limit 2%"
            )
        );
        let plain: Vec<String> = (drawn.lines())
            .map(|line| {
                let mut parts = line.split('\u{1b}');
                let first = parts.next().unwrap().to_owned();
                first
                    + &parts
                        .map(|it| it.split_once('m').unwrap().1)
                        .collect::<String>()
            })
            .collect();
        assert_eq!(
            plain.join("\n"),
            terminal(&series(100), 60, 10, ColorMode::Plain)
        );
    }

    #[test]
    fn what_it_is_about_is_shortened_to_the_width() {
        let drawn = terminal(&series(100), 32, 6, ColorMode::Plain);
        assert_eq!(
            drawn.lines().next(),
            Some("error-rate: 3.96% on #4, 1% on …")
        );
    }

    #[test]
    fn where_there_is_no_room_or_nothing_to_draw_nothing_is_drawn() {
        assert_eq!(terminal(&series(100), 20, 10, ColorMode::Plain), "");
        assert_eq!(terminal(&series(0), 80, 10, ColorMode::Plain), "");
        assert!(!terminal(&series(1), 80, 10, ColorMode::Plain).is_empty());
    }
}
