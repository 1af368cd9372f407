//! The odds against a release over time, and the threshold at which it fails. The scale is logarithmic, as evidence adds up: even odds
//! are in the middle of the drawing, below is evidence that the release is no worse, above the threshold it has failed.

use maud::{Markup, html};
use shipway_core::rollout::{OddsPoint, RuleHistory};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 92.0;
/// Left end, for the words; right end.
const LEFT: f64 = 54.0;
const RIGHT: f64 = WIDTH - 6.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = HEIGHT - 10.0;

/// Odds as people read them: `340:1`, `1:20`, `even`.
fn odds_text(log_odds: f64) -> String {
    let odds = log_odds.abs().exp();
    let shown = match odds {
        odds if odds < 1.05 => return "even".to_owned(),
        odds if odds < 10.0 => format!("{odds:.1}"),
        odds if odds < 1e6 => format!("{odds:.0}"),
        _ => "1,000,000".to_owned(),
    };
    match log_odds > 0.0 {
        true => format!("{shown}:1"),
        false => format!("1:{shown}"),
    }
}

/// Values on the drawing: the odds are cut at half as much again as the threshold, both ways.
struct OddsScale {
    limit: f64,
    begins: jiff::Timestamp,
    seconds: f64,
}

impl OddsScale {
    fn height(&self, log_odds: f64) -> f64 {
        let most = self.limit * 1.5;
        let odds = if log_odds.is_nan() {
            0.0
        } else {
            log_odds.clamp(-most, most)
        };
        let share = (odds + most) / (2.0 * most);
        BOTTOM - share * (BOTTOM - TOP)
    }

    fn across(&self, point: &OddsPoint) -> f64 {
        let since = point.at.duration_since(self.begins).as_secs_f64();
        LEFT + (since / self.seconds).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

/// The drawing with a sentence for screen readers.
pub(super) fn odds_plot(rule: &RuleHistory) -> Markup {
    let (Some(first), Some(last)) = (rule.odds.first(), rule.odds.last()) else {
        return html! {};
    };
    let scale = OddsScale {
        limit: last.odds.log_threshold.max(0.1),
        begins: first.at,
        seconds: last.at.duration_since(first.at).as_secs_f64().max(1.0),
    };
    let has_failed = last.odds.log_odds >= last.odds.log_threshold;
    let about = format!(
        "Odds that the release is worse: {}, threshold {}",
        odds_text(last.odds.log_odds),
        odds_text(last.odds.log_threshold)
    );
    let line: Vec<String> = rule
        .odds
        .iter()
        .map(|point| {
            format!(
                "{:.1} {:.1}",
                scale.across(point),
                scale.height(point.odds.log_odds)
            )
        })
        .collect();
    let (threshold, even) = (scale.height(scale.limit), scale.height(0.0));
    html! {
        figure.odds {
            svg.odds-plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(about) {
                rect.zone x=(LEFT) y=(TOP) width=(RIGHT - LEFT) height={ (format!("{:.1}", threshold - TOP)) } {}
                path.limit d={ "M" (LEFT) " " (format!("{threshold:.1}")) "H" (RIGHT) } {}
                path.axis d={ "M" (LEFT) " " (format!("{even:.1}")) "H" (RIGHT) } {}
                text x=(LEFT - 5.0) y=(format!("{:.1}", threshold + 4.0)) text-anchor="end" { (odds_text(scale.limit)) }
                text x=(LEFT - 5.0) y=(format!("{:.1}", even + 4.0)) text-anchor="end" { "even" }
                polyline.line.failed[has_failed] points=(line.join(" ")) {}
                circle.end.failed[has_failed] cx=(format!("{:.1}", scale.across(last))) cy=(format!("{:.1}", scale.height(last.odds.log_odds))) r="3.5" {}
            }
            figcaption.dim { (about) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_read_as_people_say_them() {
        for (odds, text) in [
            (0.0, "even"),
            (340.4, "340:1"),
            (0.05, "1:20"),
            (2.5, "2.5:1"),
            (1e9, "1,000,000:1"),
        ] {
            let log: f64 = if odds == 0.0 { 0.0 } else { f64::ln(odds) };
            assert_eq!(odds_text(log), text);
        }
    }

    #[test]
    fn the_line_crosses_the_threshold_when_and_only_when_the_rule_fails() {
        let scale = OddsScale {
            limit: 4.6,
            begins: jiff::Timestamp::UNIX_EPOCH,
            seconds: 1.0,
        };
        let threshold = scale.height(4.6);
        assert!(scale.height(4.7) < threshold && scale.height(4.5) > threshold);
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let height = scale.height(odd);
            assert!((TOP..=BOTTOM).contains(&height), "{height}");
        }
    }
}
