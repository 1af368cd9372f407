//! How many requests come in each second, and of how many users.
//!
//! ```
//! use shipway_sim::traffic::{TrafficShape, SimulatedTraffic};
//! let traffic: SimulatedTraffic = "200rps,bursts".parse()?;
//! assert_eq!((traffic.per_second, traffic.shape), (200.0, TrafficShape::Bursts));
//! # Ok::<(), shipway_sim::traffic::ParseTrafficError>(())
//! ```

use std::{f64::consts::TAU, fmt, str::FromStr};

use crate::random::SeededRandom;

/// More than this is no service but all of them.
const PER_SECOND_MAX: f64 = 1e6;
/// How long a burst lasts, in seconds.
const BURST_SECONDS: u32 = 10;

/// Requests of both sides together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimulatedTraffic {
    /// On average.
    pub per_second: f64,
    /// How it varies beyond chance.
    pub shape: TrafficShape,
    /// Users who stay on their side; 0: as many as there are requests, and the share of the canary is its weight.
    pub users: u32,
}

/// How traffic varies beyond chance: the number in each second is Poisson around what this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficShape {
    /// Not at all.
    #[default]
    Steady,
    /// Ten seconds in a minute bring five times the usual, the others a fifth.
    Bursts,
    /// A day's ups and downs, from a fifth of the average to nearly twice as much; a rollout begins at any hour.
    Day,
}

/// Traffic that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a traffic shape: write requests per second, and how they vary, such as 100rps, 100rps,bursts or 20rps,day"
)]
pub struct ParseTrafficError(String);

impl Default for SimulatedTraffic {
    fn default() -> Self {
        Self {
            per_second: 100.0,
            shape: TrafficShape::Steady,
            users: 0,
        }
    }
}

impl FromStr for SimulatedTraffic {
    type Err = ParseTrafficError;

    fn from_str(text: &str) -> Result<Self, ParseTrafficError> {
        let refused = || ParseTrafficError(text.to_owned());
        let (rate, shape) = text.split_once(',').unwrap_or((text, "steady"));
        let number = rate
            .trim()
            .trim_end_matches("rps")
            .trim_end_matches("/s")
            .trim();
        let per_second: f64 = number.parse().map_err(|_| refused())?;
        let shape = match shape.trim() {
            "steady" => TrafficShape::Steady,
            "bursts" => TrafficShape::Bursts,
            "day" => TrafficShape::Day,
            _ => return Err(refused()),
        };
        if (0.0..=PER_SECOND_MAX).contains(&per_second) {
            Ok(Self {
                per_second,
                shape,
                users: 0,
            })
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for SimulatedTraffic {
    /// `100 requests/s, bursts`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests/s", self.per_second)?;
        match self.shape {
            TrafficShape::Steady => {}
            TrafficShape::Bursts => write!(f, " in bursts")?,
            TrafficShape::Day => write!(f, " with a day's ups and downs")?,
        }
        if self.users > 0 {
            write!(f, ", {} users", self.users)?;
        }
        Ok(())
    }
}

impl SimulatedTraffic {
    /// The expected number of requests in second `at` of the rollout with this seed.
    #[must_use]
    pub fn expected(&self, seed: u64, at: u32) -> f64 {
        let factor = match self.shape {
            TrafficShape::Steady => 1.0,
            TrafficShape::Bursts => {
                let slot = u64::from(at / BURST_SECONDS);
                if SeededRandom::for_purpose(&[seed, slot, 11]).share() < 1.0 / 6.0 {
                    5.0
                } else {
                    0.2
                }
            }
            TrafficShape::Day => {
                let begins = SeededRandom::for_purpose(&[seed, 12]).share();
                1.0 + 0.8 * libm::sin(TAU * (f64::from(at) / 86_400.0 + begins))
            }
        };
        self.per_second * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_read_as_people_write_it() {
        let read = |text: &str| {
            text.parse::<SimulatedTraffic>()
                .map(|it| (it.per_second, it.shape))
        };
        assert_eq!(read("100rps"), Ok((100.0, TrafficShape::Steady)));
        assert_eq!(read("0"), Ok((0.0, TrafficShape::Steady)));
        assert_eq!(read("2.5/s, day"), Ok((2.5, TrafficShape::Day)));
        for bad in ["", "rps", "-1rps", "1e9", "NaN", "100rps,weekly"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whatever_its_shape_the_average_is_what_was_asked_for() {
        for shape in [
            TrafficShape::Steady,
            TrafficShape::Bursts,
            TrafficShape::Day,
        ] {
            let traffic = SimulatedTraffic {
                shape,
                ..SimulatedTraffic::default()
            };
            let sum: f64 = (0..4_000_u64)
                .map(|seed| traffic.expected(seed, (seed % 600) as u32))
                .sum();
            assert!(
                (sum / 4_000.0 / 100.0 - 1.0).abs() < 0.06,
                "{shape:?}: {}",
                sum / 4_000.0
            );
        }
    }
}
