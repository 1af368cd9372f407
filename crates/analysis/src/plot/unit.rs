//! How the values of an axis are written: short, and with enough digits that neighbours differ.

use serde::{Deserialize, Serialize};

use crate::Metric;

/// What the numbers are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlotUnit {
    /// A share, 0 to 1; shown in percent.
    Share,
    /// Milliseconds.
    Millis,
    /// Per second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Nothing but a number.
    Number,
}

impl From<Metric> for PlotUnit {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::ErrorRate
            | Metric::AnsweredErrorRate
            | Metric::SlowRate { .. }
            | Metric::Availability
            | Metric::Event(_)
            | Metric::Cpu => Self::Share,
            Metric::LatencyP50 | Metric::LatencyP90 | Metric::LatencyP99 => Self::Millis,
            Metric::Requests => Self::PerSecond,
            Metric::Memory => Self::Bytes,
            Metric::Restarts | Metric::Saturation | Metric::Value(_) => Self::Number,
        }
    }
}

impl PlotUnit {
    /// `0.12%`, `480 ms`, `20/s`, `64 MiB`
    #[must_use]
    pub fn show(self, value: f64) -> String {
        if !value.is_finite() {
            return "not a number".to_owned();
        }
        match self {
            Self::Share => format!("{}%", short(value * 100.0)),
            Self::Millis if value >= 10_000.0 => format!("{} s", short(value / 1_000.0)),
            Self::Millis => format!("{} ms", short(value)),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Bytes => {
                let powers = [
                    (1_073_741_824.0, "GiB"),
                    (1_048_576.0, "MiB"),
                    (1_024.0, "KiB"),
                ];
                let (size, unit) = powers
                    .into_iter()
                    .find(|(size, _)| value >= *size)
                    .unwrap_or((1.0, "B"));
                format!("{} {unit}", short(value / size))
            }
            Self::Number => short(value),
        }
    }
}

/// Two digits that say something, three from 1 up, whole numbers from 100 up.
pub(super) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.0995 => 2,
        v if v >= 0.00995 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        crate::metric::grouped(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_neighbours_differ() {
        assert_eq!(
            [0.001, 0.0004, 0.00025, 0.0213, 1.0].map(|it| PlotUnit::Share.show(it)),
            ["0.1%", "0.04%", "0.025%", "2.13%", "100%"]
        );
        assert_eq!(
            [480.0, 12_500.0].map(|it| PlotUnit::Millis.show(it)),
            ["480 ms", "12.5 s"]
        );
        assert_eq!(PlotUnit::Bytes.show(64.0 * 1_048_576.0), "64 MiB");
        assert_eq!(PlotUnit::PerSecond.show(1_240.0), "1,240/s");
        assert_eq!(PlotUnit::Number.show(f64::NAN), "not a number");
    }
}
