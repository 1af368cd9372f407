//! The metrics: their names, their kinds, and the parsing and formatting of their values.
//!
//! Inside, every value is an `f64` in the metric's base unit; units exist at the edge only.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::MetricName;

/// A metric. Limits and values are in its base unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of the requests that were answered with 5xx, given up by their clients or not answered in time; 0 to 1.
    ErrorRate,
    /// The same of the answers alone: `abandoned: ignore`.
    AnsweredErrorRate,
    /// The median answer, in milliseconds.
    LatencyP50,
    /// The 90th percentile of the answers, in milliseconds.
    LatencyP90,
    /// The 99th percentile of the answers, in milliseconds.
    LatencyP99,
    /// Requests answered per second.
    Requests,
    /// Share of one core; 1 is one core.
    Cpu,
    /// Resident bytes.
    Memory,
    /// Unplanned restarts of all instances since the rollout's first measurement.
    Restarts,
    /// Share of the time in which the instances were ready, of that in which they should have been; 0 to 1.
    Availability,
    /// Share of the requests that took longer than a limit; 0 to 1.
    SlowRate {
        /// The limit, in microseconds.
        over_micros: u64,
    },
    /// Requests that each instance answers at once, on average.
    Saturation,
    /// A business event that is reported to Shipway: how often for each request.
    Event(MetricName),
    /// What a provider answers, a number without unit.
    Value(MetricName),
}

impl Metric {
    /// Those that need no setup, in the order they are listed to people. The limit of the slow rate is an example.
    pub const ALL: [Self; 11] = [
        Self::ErrorRate,
        Self::LatencyP50,
        Self::LatencyP90,
        Self::LatencyP99,
        Self::SLOW_RATE,
        Self::Requests,
        Self::Saturation,
        Self::Cpu,
        Self::Memory,
        Self::Restarts,
        Self::Availability,
    ];

    /// The slow rate as its name alone reads: over half a second.
    pub const SLOW_RATE: Self = Self::SlowRate {
        over_micros: 500_000,
    };

    /// The slow rate whose limit is not known yet: `over: auto`. [`Analysis::with_slow_limit`](crate::Analysis::with_slow_limit)
    /// puts the limit in when a rollout is opened.
    pub const SLOW_RATE_AUTO: Self = Self::SlowRate { over_micros: 0 };

    /// The names of [`Self::ALL`].
    #[must_use]
    pub fn names() -> [String; 11] {
        Self::ALL.map(|metric| metric.name().to_owned())
    }

    /// Its name in `shipway.yaml`: `error-rate`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ErrorRate | Self::AnsweredErrorRate => "error-rate",
            Self::LatencyP50 => "latency-p50",
            Self::LatencyP90 => "latency-p90",
            Self::LatencyP99 => "latency-p99",
            Self::SlowRate { .. } => "slow-rate",
            Self::Requests => "requests",
            Self::Saturation => "saturation",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Restarts => "restarts",
            Self::Availability => "availability",
            Self::Event(name) | Self::Value(name) => name.as_str(),
        }
    }

    /// Its name in sentences: `error rate`, `slow rate (over 300 ms)`, `latency p99`.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::ErrorRate => "error rate".to_owned(),
            Self::AnsweredErrorRate => "error rate (answers only)".to_owned(),
            Self::LatencyP50 => "latency p50".to_owned(),
            Self::LatencyP90 => "latency p90".to_owned(),
            Self::LatencyP99 => "latency p99".to_owned(),
            &Self::SLOW_RATE_AUTO => "slow rate".to_owned(),
            Self::SlowRate { over_micros } => {
                let limit = Self::LatencyP50.show(*over_micros as f64 / 1000.0);
                format!("slow rate (over {limit})")
            }
            Self::Requests => "request rate".to_owned(),
            Self::Saturation => "saturation".to_owned(),
            Self::Cpu => "CPU use".to_owned(),
            Self::Memory => "memory use".to_owned(),
            Self::Restarts => "restart count".to_owned(),
            Self::Availability => "availability".to_owned(),
            Self::Event(name) => format!("{name} rate"),
            Self::Value(name) => name.to_string(),
        }
    }

    /// What sort of thing it is, and so how it can be judged.
    #[must_use]
    pub const fn kind(self) -> MetricKind {
        match self {
            Self::ErrorRate | Self::AnsweredErrorRate | Self::SlowRate { .. } | Self::Event(_) => {
                MetricKind::Events
            }
            Self::LatencyP50 => MetricKind::Quantile(0.5),
            Self::LatencyP90 => MetricKind::Quantile(0.9),
            Self::LatencyP99 => MetricKind::Quantile(0.99),
            Self::Saturation | Self::Cpu | Self::Memory | Self::Value(_) => MetricKind::Value,
            Self::Requests | Self::Restarts | Self::Availability => MetricKind::Total,
        }
    }

    /// How its values may be written, for messages and schemas.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::ErrorRate | Self::AnsweredErrorRate | Self::SlowRate { .. } | Self::Event(_) => {
                "a share of the requests, such as 5%"
            }
            Self::LatencyP50 | Self::LatencyP90 | Self::LatencyP99 => {
                "a time, such as 500ms or 1.5s"
            }
            Self::Requests => "requests per second, such as 20 or 20/s",
            Self::Cpu => "a share of one core, such as 80%, 0.8 or 800m",
            Self::Memory => "an amount of memory, such as 256MiB",
            Self::Restarts => "a number, such as 0",
            Self::Availability => "a share of the time, such as 99%",
            Self::Saturation => "concurrent requests, such as 8",
            Self::Value(_) => "a number, such as 0.95",
        }
    }

    /// Whether its values say something only once enough requests were answered.
    #[must_use]
    pub const fn is_traffic_metric(self) -> bool {
        match self {
            Self::ErrorRate
            | Self::AnsweredErrorRate
            | Self::LatencyP50
            | Self::LatencyP90
            | Self::LatencyP99
            | Self::SlowRate { .. }
            | Self::Event(_) => true,
            Self::Requests
            | Self::Saturation
            | Self::Cpu
            | Self::Memory
            | Self::Restarts
            | Self::Availability
            | Self::Value(_) => false,
        }
    }

    /// Reads a value as people write it, into the base unit.
    ///
    /// # Errors
    /// When it is no finite number from 0 up in one of the metric's units, or a share above 100%. A share of 1 and more needs its
    /// `%`: a bare `1` is almost never meant as all requests. A provider's value has no unit and may be negative.
    pub fn parse_value(self, text: &str) -> Result<f64, ParseValueError> {
        let refused = || ParseValueError::Unreadable {
            metric: self,
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        if matches!(self, Self::Value(_)) {
            let number = trimmed.parse::<f64>().map_err(|_| refused())?;
            return if number.is_finite() {
                Ok(number)
            } else {
                Err(refused())
            };
        }
        let split = trimmed
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let number: f64 = number.parse().map_err(|_| refused())?;
        let unit = unit.trim_start();
        let factor = self.factor(unit).ok_or_else(refused)?;
        // Divided, so that 95% is the number that 0.95 is.
        let value = if unit == "%" {
            number / 100.0
        } else {
            number * factor
        };
        if self.is_share() && unit.is_empty() && number >= 1.0 {
            return Err(ParseValueError::BareNumber {
                metric: self,
                text: trimmed.to_owned(),
            });
        }
        let most = if self.is_share() { 1.0 } else { f64::MAX };
        if value <= most {
            Ok(value)
        } else {
            Err(refused())
        }
    }

    /// Whether its values are shares of a whole, from 0 to 1.
    #[must_use]
    pub const fn is_share(self) -> bool {
        matches!(
            self,
            Self::ErrorRate | Self::AnsweredErrorRate | Self::SlowRate { .. } | Self::Availability
        )
    }

    /// What one of `unit` is in the base unit.
    fn factor(self, unit: &str) -> Option<f64> {
        let factor = match (self, unit) {
            (
                Self::ErrorRate
                | Self::AnsweredErrorRate
                | Self::SlowRate { .. }
                | Self::Availability
                | Self::Event(_)
                | Self::Cpu,
                "%",
            ) => 0.01,
            (
                Self::ErrorRate
                | Self::AnsweredErrorRate
                | Self::SlowRate { .. }
                | Self::Availability
                | Self::Event(_)
                | Self::Saturation
                | Self::Cpu
                | Self::Memory
                | Self::Restarts
                | Self::Value(_),
                "",
            ) => 1.0,
            (Self::Cpu, "m") => 0.001,
            (Self::LatencyP50 | Self::LatencyP90 | Self::LatencyP99, unit) => match unit {
                "us" | "µs" => 0.001,
                "ms" => 1.0,
                "s" => 1000.0,
                "m" => 60_000.0,
                _ => return None,
            },
            (Self::Requests, "" | "/s") => 1.0,
            (Self::Memory, unit) => match unit {
                "B" => 1.0,
                "k" | "kB" => 1e3,
                "M" | "MB" => 1e6,
                "G" | "GB" => 1e9,
                "Ki" | "KiB" => 1024.0,
                "Mi" | "MiB" => 1_048_576.0,
                "Gi" | "GiB" => 1_073_741_824.0,
                _ => return None,
            },
            (
                Self::ErrorRate
                | Self::AnsweredErrorRate
                | Self::SlowRate { .. }
                | Self::Event(_)
                | Self::Saturation
                | Self::Requests
                | Self::Cpu
                | Self::Restarts
                | Self::Availability
                | Self::Value(_),
                _,
            ) => return None,
        };
        Some(factor)
    }

    /// A value in the base unit as people read it: `5.2%`, `480 ms`, `20/s`, `256 MiB`.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        if !value.is_finite() {
            return "not a number".to_owned();
        }
        match self {
            Self::ErrorRate
            | Self::AnsweredErrorRate
            | Self::SlowRate { .. }
            | Self::Availability
            | Self::Event(_)
            | Self::Cpu => {
                format!("{}%", short(value * 100.0))
            }
            Self::LatencyP50 | Self::LatencyP90 | Self::LatencyP99 if value >= 10_000.0 => {
                format!("{} s", short(value / 1000.0))
            }
            Self::LatencyP50 | Self::LatencyP90 | Self::LatencyP99 => {
                format!("{} ms", short(value))
            }
            Self::Requests => format!("{}/s", short(value)),
            Self::Memory => show_bytes(value),
            Self::Restarts | Self::Value(_) => short(value),
            Self::Saturation => format!("{} at once", short(value)),
        }
    }
}

/// What sort of thing a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Something that happens, counted for each request: errors, slow answers, orders.
    Events,
    /// A quantile of a distribution, 0 to 1.
    Quantile(f64),
    /// A number that is so much at each moment.
    Value,
    /// A count without anything to count it among: it has limits, and nothing to compare.
    Total,
}

fn show_bytes(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{} {unit}", short(value))
}

/// What would need more is shown as 0.
const DECIMALS_MAX: f64 = 9.0;

/// As many digits as a person looks at: whole from 100 up, one decimal below, two below 1, and below a tenth as many as it takes for
/// two that say something; none where they are zero.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 0.995 => 1,
        v if v >= 0.0995 || v == 0.0 => 2,
        v => (1.0 - libm::floor(libm::log10(v))).min(DECIMALS_MAX) as usize,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    grouped(text)
}

/// `1 request`, `1,240 requests`
pub(crate) fn pluralized(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(&count.to_string()))
}

/// Thousands set apart: `1240` is `1,240`.
pub(crate) fn grouped(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let mut text = String::with_capacity(number.len() + number.len() / 3);
    for (index, digit) in number.char_indices() {
        if index > 0 && index < whole && (whole - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            &Self::SLOW_RATE_AUTO => f.write_str("slow-rate (over: auto)"),
            Self::SlowRate { over_micros } => {
                write!(
                    f,
                    "slow-rate (over {})",
                    Self::LatencyP50.show(*over_micros as f64 / 1000.0)
                )
            }
            Self::AnsweredErrorRate => f.pad("error-rate (of answers)"),
            other => f.pad(other.name()),
        }
    }
}

impl FromStr for Metric {
    type Err = ParseMetricError;
    fn from_str(text: &str) -> Result<Self, ParseMetricError> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name() == text)
            .ok_or_else(|| ParseMetricError {
                text: text.to_owned(),
            })
    }
}

/// A name that no metric has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown metric `{text}`; the metrics are error-rate, latency-p50, latency-p90, latency-p99, slow-rate, requests, saturation, cpu, memory, restarts and availability"
)]
pub struct ParseMetricError {
    /// The refused text.
    pub text: String,
}

/// A value that its metric can't have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseValueError {
    /// It is not written in one of the metric's units, or out of range.
    #[error("`{text}` is not a valid {metric}: write {}", .metric.unit())]
    Unreadable {
        /// Whose value it should have been.
        metric: Metric,
        /// The refused text.
        text: String,
    },
    /// A share of 1 and more without `%`.
    #[error("`{text}` is not a valid {metric}: write a percentage, such as {text}%")]
    BareNumber {
        /// Whose value it should have been.
        metric: Metric,
        /// The refused text.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> MetricName {
        name.parse().unwrap()
    }

    #[test]
    fn metrics_read_what_they_print() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
            if metric != Metric::SLOW_RATE {
                assert_eq!(
                    serde_json::to_value(metric).unwrap(),
                    metric.name(),
                    "one spelling everywhere"
                );
            }
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
            let listed = "x".parse::<Metric>().unwrap_err().to_string();
            assert!(listed.contains(metric.name()), "{listed}");
        }
    }

    #[test]
    fn values_are_read_in_the_units_people_write() {
        let cases = [
            (Metric::ErrorRate, "5%", 0.05),
            (Metric::ErrorRate, " 0.5 % ", 0.005),
            (Metric::ErrorRate, "0.02", 0.02),
            (Metric::LatencyP99, "500ms", 500.0),
            (Metric::LatencyP50, "1.5s", 1500.0),
            (Metric::LatencyP90, "800us", 0.8),
            (Metric::Requests, "20/s", 20.0),
            (Metric::Cpu, "80%", 0.8),
            (Metric::Cpu, "1500m", 1.5),
            (Metric::Memory, "256MiB", 268_435_456.0),
            (Metric::Restarts, "0", 0.0),
            (Metric::SLOW_RATE, "5%", 0.05),
            (Metric::Availability, "99.5%", 0.995),
            (Metric::ErrorRate, "100%", 1.0),
            (Metric::Saturation, "8", 8.0),
            (Metric::Event(named("orders")), "120%", 1.2),
            (Metric::Value(named("temperature")), "-3.5", -3.5),
        ];
        for (metric, text, value) in cases {
            let read = metric.parse_value(text).unwrap();
            assert!(
                (read - value).abs() < 1e-9 * (1.0 + value.abs()),
                "{metric} {text}: {read}"
            );
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused_with_what_would_be_right() {
        let cases = [
            (Metric::ErrorRate, "5"),
            (Metric::ErrorRate, "1"),
            (Metric::SLOW_RATE, "1.0"),
            (Metric::Availability, "99"),
            (Metric::Availability, "101%"),
            (Metric::ErrorRate, "101%"),
            (Metric::LatencyP99, "500"),
            (Metric::Restarts, "5%"),
            (Metric::Memory, "-1MiB"),
            (Metric::Cpu, "NaN"),
            (Metric::Requests, "inf"),
            (Metric::Requests, ""),
            (Metric::Memory, "1e400"),
            (Metric::Value(named("x")), "NaN"),
            (Metric::Value(named("x")), "5 apples"),
            (Metric::SLOW_RATE, "101%"),
            (Metric::Memory, &"9".repeat(400)),
        ];
        for (metric, text) in cases {
            let refusal = metric.parse_value(text).unwrap_err().to_string();
            let is_helpful =
                refusal.contains(metric.unit()) || refusal.contains("write a percentage, such as");
            assert!(is_helpful, "{refusal}");
        }
    }

    #[test]
    fn values_are_shown_as_people_read_them() {
        let cases = [
            (Metric::ErrorRate, 64.0 / 1240.0, "5.2%"),
            (Metric::ErrorRate, 0.02, "2%"),
            (Metric::ErrorRate, 0.001, "0.1%"),
            (Metric::ErrorRate, 0.0, "0%"),
            (Metric::ErrorRate, 1.0, "100%"),
            (Metric::LatencyP99, 12_345.0, "12.3 s"),
            (Metric::LatencyP99, 9_999.0, "9,999 ms"),
            (Metric::LatencyP50, 0.994, "0.99 ms"),
            (Metric::Requests, 1234.6, "1,235/s"),
            (Metric::Memory, 268_435_456.0, "256 MiB"),
            (Metric::Memory, 512.0, "512 B"),
            (Metric::Restarts, 2.0, "2"),
            (Metric::Cpu, f64::NAN, "not a number"),
            (Metric::Saturation, 3.25, "3.2 at once"),
            (Metric::Value(named("worth")), 41.5, "41.5"),
        ];
        for (metric, value, text) in cases {
            assert_eq!(metric.show(value), text);
        }
    }
}
