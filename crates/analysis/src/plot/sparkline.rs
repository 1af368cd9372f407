//! Both releases' values in one line of text, for messages: `error-rate: ▁▃▆█ 3.9% on #4, ▂▂▂▂ 1% on #3, limit 2%`.
//!
//! Nothing in it depends on a font of fixed width or on colours, and no space carries meaning: what passes it on may join them.

use super::{Estimate, MetricSeries, SeriesPoint, estimates, highest, thin_points};

/// Eighths of a letter's height.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Where nothing is known.
const UNKNOWN: char = '·';

/// The line, with `width` moments of each side; the highest value of both, or the limit, is the full height. Empty without points.
#[must_use]
pub fn sparkline(series: &MetricSeries, width: usize) -> String {
    let thin = thin_points(&series.points, width);
    let Some(last) = thin.last() else {
        return String::new();
    };
    let top = highest(estimates(&thin).map(|it| it.value).chain(series.limit));
    let side = |read: fn(&SeriesPoint) -> Option<Estimate>, release: &str| {
        let drawn: String = thin.iter().map(|point| bar(read(point), top)).collect();
        let value = read(last).map_or_else(
            || "unknown".to_owned(),
            |estimate| series.unit.show(estimate.value),
        );
        format!("{drawn} {value} on {release}")
    };
    let canary = side(|point| point.canary, &series.canary);
    let stable = (series.stable.as_ref())
        .map(|release| format!(", {}", side(|point| point.stable, release)))
        .unwrap_or_default();
    let limit = (series.limit)
        .map(|limit| format!(", limit {}", series.unit.show(limit)))
        .unwrap_or_default();
    format!("{}: {canary}{stable}{limit}", series.metric)
}

fn bar(estimate: Option<Estimate>, top: f64) -> char {
    match estimate {
        Some(it) if it.value.is_finite() => block(if top > 0.0 { it.value / top } else { 0.0 }),
        _ => UNKNOWN,
    }
}

/// A share of the full height, 0 to 1.
pub(super) fn block(share: f64) -> char {
    BLOCKS[((share * 8.0) as usize).min(7)]
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::plot::PlotUnit;

    fn series(points: &[(Option<f64>, Option<f64>)]) -> MetricSeries {
        let estimate = |value: f64| Estimate {
            value,
            low: value,
            high: value,
        };
        let points = points.iter().enumerate().map(|(index, sides)| SeriesPoint {
            at: Timestamp::from_second(1_800_000_000).unwrap()
                + SignedDuration::from_secs(index as i64),
            weight: 0.1,
            canary: sides.0.map(estimate),
            stable: sides.1.map(estimate),
        });
        MetricSeries {
            metric: "error-rate".into(),
            unit: PlotUnit::Share,
            canary: "#4".into(),
            stable: Some("#3".into()),
            limit: Some(0.02),
            points: points.collect(),
            decision: None,
        }
    }

    #[test]
    fn both_sides_are_in_one_line_by_one_measure() {
        let rising: Vec<_> = (0..100)
            .map(|n| (Some(f64::from(n) * 0.0004), Some(0.01)))
            .collect();
        assert_eq!(
            sparkline(&series(&rising), 8),
            "error-rate: ▁▂▃▄▅▆▇█ 3.96% on #4, ▃▃▃▃▃▃▃▃ 1% on #3, limit 2%"
        );
    }

    #[test]
    fn what_is_unknown_is_said_and_without_points_there_is_no_line() {
        assert_eq!(sparkline(&series(&[]), 8), "");
        assert_eq!(
            sparkline(
                &series(&[(None, Some(0.0)), (Some(0.0), Some(f64::NAN)), (None, None)]),
                8
            ),
            "error-rate: ·▁· unknown on #4, ▁·· unknown on #3, limit 2%"
        );
        let mut alone = series(&[(Some(0.0), None)]);
        (alone.stable, alone.limit) = (None, None);
        assert_eq!(sparkline(&alone, 8), "error-rate: ▁ 0% on #4");
    }
}
