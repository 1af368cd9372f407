//! Parts of the bench: tables, the default rules at any traffic, and what judging costs.

pub mod cost;
pub mod grid;
pub mod quiet;

/// A ratio against its target; what misses it stands out.
pub fn target(ratio: f64) -> String {
    if ratio.is_infinite() {
        return "∞".to_owned();
    }
    let text = format!("{ratio:.2}");
    if ratio >= 1.0 {
        text
    } else {
        format!("**{text}**")
    }
}
