//! What was judged, drawn: both releases' values with their intervals over time, the limit, the moment of the decision, and
//! the weight below. As SVG for pages and files ([`svg`]), for terminals ([`terminal`]), and as one line of text ([`sparkline`]).
//!
//! Numbers go in, text comes out; nothing here decides, and nothing is drawn that isn't in the [`Series`], which is also what the
//! API answers with: who can't see a plot reads the same as a table.
//!
//! ```
//! use shipway_analysis::plot::{Estimate, Point, Series, Unit, svg};
//! let point = |second: i64, canary: f64| Point {
//!     at: jiff::Timestamp::from_second(second).expect("in range"),
//!     weight: 0.1,
//!     canary: Some(Estimate { value: canary, low: canary / 2.0, high: canary * 2.0 }),
//!     stable: None,
//! };
//! let series = Series {
//!     metric: "error-rate".into(), unit: Unit::Share, canary: "#3".into(), stable: None, limit: Some(0.02),
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

pub use self::{
    sparkline::sparkline,
    svg::{STYLE, standalone, svg},
    terminal::{Ink, terminal},
    unit::Unit,
};

/// Points that a series has at most: more than a screen has room for.
pub const POINTS_MAX: usize = 240;

/// One metric over a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The metric's name.
    pub metric: String,
    /// How its values are shown.
    pub unit: Unit,
    /// The release that is judged: `#3`.
    pub canary: String,
    /// The release it is compared with.
    pub stable: Option<String>,
    /// The limit, where there is one.
    pub limit: Option<f64>,
    /// In order of time; [`POINTS_MAX`] at most.
    pub points: Vec<Point>,
    /// What was decided, and when.
    pub decision: Option<Decision>,
}

/// Both sides at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
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
    /// What was measured.
    pub value: f64,
    /// The lower end of its confidence sequence; the value itself where there is none.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Whether the release goes back.
    pub is_bad: bool,
    /// In a sentence.
    pub why: String,
}

impl Series {
    /// The plot in a sentence, for who can't see it: `error-rate: 2.1% on #42, 0.1% on #41`.
    #[must_use]
    pub fn sentence(&self) -> String {
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

/// The series that a sentence is about: the metric that it names first; the first series where it names none.
#[must_use]
pub fn about<'s>(all: &'s [Series], sentence: &str) -> Option<&'s Series> {
    let named = all.iter().filter_map(|series| {
        let place = sentence.find(&series.metric)?;
        // Of two names that begin at one place, the longer one is the word that stands there.
        Some(((place, usize::MAX - series.metric.len()), series))
    });
    named
        .min_by_key(|(place, _)| *place)
        .map_or(all.first(), |(_, series)| Some(series))
}

/// At most `most` of `points`, evenly over time: the last of each stretch, and the last of all.
#[must_use]
pub fn thinned<P: Clone>(points: &[P], most: usize) -> Vec<P> {
    let most = most.max(1);
    if points.len() <= most {
        return points.to_vec();
    }
    (1..=most)
        .map(|part| points[part * points.len() / most - 1].clone())
        .collect()
}

/// Those of both sides.
fn estimates(points: &[Point]) -> impl Iterator<Item = Estimate> {
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
    fn a_sentence_is_about_the_metric_that_it_names_first() {
        let named = |metric: &str| Series {
            metric: metric.to_owned(),
            unit: Unit::Share,
            canary: "#4".to_owned(),
            stable: None,
            limit: None,
            points: Vec::new(),
            decision: None,
        };
        let all = ["cpu", "orders", "orders-eu"].map(named);
        let chosen = |sentence| about(&all, sentence).map(|it| it.metric.as_str());
        assert_eq!(
            chosen("inconclusive: orders-eu 2 on #4; cpu 3"),
            Some("orders-eu")
        );
        assert_eq!(chosen("orders 2 on #4; orders-eu"), Some("orders"));
        assert_eq!(chosen("#4 serves all traffic"), Some("cpu"));
        assert!(about(&[], "cpu").is_none());
    }

    #[test]
    fn thinning_keeps_the_last_and_is_even() {
        let points: Vec<u32> = (0..1_000).collect();
        let thin = thinned(&points, 240);
        assert_eq!((thin.len(), thin.last()), (240, Some(&999)));
        assert!(
            thin.windows(2)
                .all(|pair| (3..=5).contains(&(pair[1] - pair[0])))
        );
        assert_eq!(thinned(&points, 5_000), points);
        assert!(thinned::<u32>(&[], 10).is_empty());
    }
}
