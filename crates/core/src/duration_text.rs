//! Durations as Shipway prints them.

use std::{fmt, time::Duration};

/// A duration for people: 90 seconds are `1 min 30 s`.
#[derive(Clone, Copy, Debug)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis < 1_000 {
            return write!(f, "{millis} ms");
        }
        if millis < 10_000 && !millis.is_multiple_of(1_000) {
            return write!(f, "{:.1} s", self.0.as_secs_f64());
        }
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(n, _)| *n > 0)
            .take(2)
            .map(|(n, unit)| format!("{n} {unit}"))
            .collect();
        f.write_str(&shown.join(" "))
    }
}
