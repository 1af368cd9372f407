//! A small picture for other pages: `production | #12 healthy`.

use maud::html;
use shipway_api::{EnvironmentCell, MatrixHealth};

use crate::foreign_text::cut_text;

/// The width of a letter at the size of the badge, in tenths of a pixel.
const LETTER_WIDTH: usize = 68;
/// Left and right of a text together, in pixels.
const PADDING: usize = 12;
/// Letters of an environment's name that are shown.
const NAME_CHARS_MAX: usize = 40;

/// The badge of an environment as SVG. It holds the names of the environment and the release, and the state.
#[must_use]
pub fn badge_svg(environment: &str, cell: Option<&EnvironmentCell>) -> String {
    let (text, colour) = badge_text(cell);
    let name = cut_text(environment, NAME_CHARS_MAX);
    let width = |text: &str| text.chars().count() * LETTER_WIDTH / 10 + PADDING;
    let (left, right) = (width(&name), width(&text));
    let total = left + right;
    let title = format!("{name}: {text}");
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(total) height="20" role="img" aria-label=(title) {
            title { (title) }
            rect width=(total) height="20" rx="4" fill="#39434e" {}
            path d={ "M" (left) " 0h" (right - 4) "a4 4 0 0 1 4 4v12a4 4 0 0 1-4 4H" (left) "z" } fill=(colour) {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle" {
                text x=(left / 2) y="14" textLength=(left - PADDING) { (name) }
                text x=(left + right / 2) y="14" textLength=(right - PADDING) { (text) }
            }
        }
    };
    svg.into_string()
}

/// What it says, and the colour behind white letters.
fn badge_text(cell: Option<&EnvironmentCell>) -> (String, &'static str) {
    const GOOD: &str = "#146c3c";
    const BAD: &str = "#a4211c";
    const CALM: &str = "#2c4a74";
    let Some(cell) = cell else {
        return ("unknown".to_owned(), CALM);
    };
    let Some(release) = &cell.release else {
        return ("not deployed".to_owned(), CALM);
    };
    let number = release.number;
    match cell.health {
        MatrixHealth::Healthy => (format!("{number} healthy"), GOOD),
        MatrixHealth::Degraded => (format!("{number} degraded"), BAD),
        MatrixHealth::Unknown | MatrixHealth::Empty => (format!("{number}"), CALM),
    }
}
