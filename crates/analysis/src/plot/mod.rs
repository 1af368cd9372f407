//! Plots of judged metrics: both releases' values with their confidence intervals over time, the limit, the decision, and the
//! weight below. As SVG for pages and files ([`svg`]), for terminals ([`terminal`]), and as one line of text ([`sparkline`]).
//!
//! Numbers go in, text comes out; nothing here decides, and nothing is drawn that isn't in the [`MetricSeries`], which is also what the
//! API returns, so the page can show the same data as a table.
//!
//! ```
//! use shipway_analysis::plot::{Estimate, SeriesPoint, MetricSeries, PlotUnit, svg};
//! let point = |second: i64, canary: f64| SeriesPoint {
//!     at: jiff::Timestamp::from_second(second).expect("in range"),
//!     weight: 0.1,
//!     canary: Some(Estimate { value: canary, low: canary / 2.0, high: canary * 2.0 }),
//!     stable: None,
//! };
//! let series = MetricSeries {
//!     metric: "error-rate".into(), unit: PlotUnit::Share, canary: "#3".into(), stable: None, limit: Some(0.02),
//!     points: vec![point(0, 0.001), point(60, 0.03)], decision: None,
//! };
//! assert!(svg(&series).starts_with("<svg"));
//! ```

mod scale;
mod sparkline;
mod svg;
mod terminal;
mod unit;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Metric;

pub use self::{
    sparkline::sparkline,
    svg::{STYLE, standalone, svg},
    terminal::{ColorMode, terminal},
    unit::PlotUnit,
};

/// Points that a series has at most: more than a screen has room for.
pub const POINTS_MAX: usize = 240;

/// One metric over a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    /// The metric's name.
    pub metric: String,
    /// How its values are shown.
    pub unit: PlotUnit,
    /// The release that is judged: `#3`.
    pub canary: String,
    /// The release it is compared with.
    pub stable: Option<String>,
    /// The limit, where there is one.
    pub limit: Option<f64>,
    /// In order of time; [`POINTS_MAX`] at most.
    pub points: Vec<SeriesPoint>,
    /// The rollout's decision, if there is one.
    pub decision: Option<RolloutDecision>,
}

/// Both sides at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesPoint {
    /// When.
    pub at: Timestamp,
    /// The share of the judged release; 0 to 1.
    pub weight: f64,
    /// The judged release.
    pub canary: Option<Estimate>,
    /// The one it is compared with.
    pub stable: Option<Estimate>,
}

/// A value, and the range that the truth is in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The measured value.
    pub value: f64,
    /// The lower end of its confidence sequence; the value itself where there is none.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The decision of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutDecision {
    /// When.
    pub at: Timestamp,
    /// Whether the release goes back.
    pub is_bad: bool,
    /// In a sentence.
    pub why: String,
}

impl MetricSeries {
    /// The plot as a sentence for screen readers and legends: `error-rate: 2.1% on #42, 0.1% on #41`.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(last) = self.points.last() else {
            return format!("{}: nothing measured yet", self.metric);
        };
        let shown = |estimate: Option<Estimate>, release: &str| {
            let value =
                estimate.map_or_else(|| "unknown".to_owned(), |it| self.unit.show(it.value));
            format!("{value} on {release}")
        };
        let mut text = format!("{}: {}", self.metric, shown(last.canary, &self.canary));
        if let Some(stable) = &self.stable {
            text = format!("{text}, {}", shown(last.stable, stable));
        }
        match self.limit {
            Some(limit) => format!("{text}, limit {}", self.unit.show(limit)),
            None => text,
        }
    }
}

/// The series of the metric that decided a judgement; the first series where no metric did.
#[must_use]
pub fn deciding_series(all: &[MetricSeries], metric: Option<Metric>) -> Option<&MetricSeries> {
    let name = metric.map(|metric| metric.to_string());
    all.iter()
        .find(|series| Some(&series.metric) == name.as_ref())
        .or(all.first())
}

/// At most `most` of `points`, evenly over time: the last of each stretch, and the last of all.
#[must_use]
pub fn thin_points<P: Clone>(points: &[P], most: usize) -> Vec<P> {
    let most = most.max(1);
    if points.len() <= most {
        return points.to_vec();
    }
    (1..=most)
        .map(|part| points[part * points.len() / most - 1].clone())
        .collect()
}

/// Those of both sides.
fn estimates(points: &[SeriesPoint]) -> impl Iterator<Item = Estimate> {
    let both = points.iter().map(|point| [point.canary, point.stable]);
    both.flatten().flatten()
}

/// The highest of these, not below zero; what isn't finite is passed over.
fn highest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|it| it.is_finite()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_the_deciding_metric_is_found_and_otherwise_the_first() {
        let named = |metric: &str| MetricSeries {
            metric: metric.to_owned(),
            unit: PlotUnit::Share,
            canary: "#4".to_owned(),
            stable: None,
            limit: None,
            points: Vec::new(),
            decision: None,
        };
        let all = ["cpu", "slow-rate (over 300 ms)", "orders"].map(named);
        let chosen = |metric| deciding_series(&all, metric).map(|it| it.metric.as_str());
        let slow = Metric::SlowRate {
            over_micros: 300_000,
        };
        assert_eq!(chosen(Some(slow)), Some("slow-rate (over 300 ms)"));
        assert_eq!(chosen(Some(Metric::Memory)), Some("cpu"));
        assert_eq!(chosen(None), Some("cpu"));
        assert!(deciding_series(&[], Some(slow)).is_none());
    }

    #[test]
    fn thinning_keeps_the_last_and_is_even() {
        let points: Vec<u32> = (0..1_000).collect();
        let thin = thin_points(&points, 240);
        assert_eq!((thin.len(), thin.last()), (240, Some(&999)));
        assert!(
            thin.windows(2)
                .all(|pair| (3..=5).contains(&(pair[1] - pair[0])))
        );
        assert_eq!(thin_points(&points, 5_000), points);
        assert!(thin_points::<u32>(&[], 10).is_empty());
    }
}
