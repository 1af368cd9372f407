//! How much of the traffic: weights in basis points, so that shares add up exactly.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A share of the traffic or of the users, in basis points: 10,000 is everything.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

/// A share that is not between 0 and 100%.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a share: write a percentage from 0 to 100, such as 10, 10% or 0.5%")]
pub struct WeightError(String);

impl Weight {
    pub const ZERO: Self = Self(0);
    pub const HALF: Self = Self(5_000);
    pub const FULL: Self = Self(10_000);

    /// From basis points, 0 to 10,000.
    pub fn from_basis_points(points: u32) -> Result<Self, WeightError> {
        if points <= Self::FULL.0 {
            Ok(Self(points))
        } else {
            Err(WeightError(points.to_string()))
        }
    }

    /// From a percentage, 0 to 100; rounded to a basis point.
    pub fn from_percent(percent: f64) -> Result<Self, WeightError> {
        if (0.0..=100.0).contains(&percent) {
            // In range by the check above.
            Ok(Self((percent * 100.0).round() as u32))
        } else {
            Err(WeightError(percent.to_string()))
        }
    }

    /// `part` of `whole`, rounded down; nothing when `whole` is 0.
    #[must_use]
    pub fn ratio(part: u32, whole: u32) -> Self {
        let points = u64::from(part.min(whole)) * u64::from(Self::FULL.0) / u64::from(whole.max(1));
        Self(u32::try_from(points).expect("at most 10,000"))
    }

    /// In basis points.
    #[must_use]
    pub const fn basis_points(self) -> u32 {
        self.0
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    #[must_use]
    pub const fn rest(self) -> Self {
        Self(Self::FULL.0 - self.0)
    }

    /// The difference, or zero if `other` is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// This share of `count`, rounded up: 10% of 3 instances is 1.
    #[must_use]
    pub fn share_of(self, count: u32) -> u32 {
        let share = (u64::from(self.0) * u64::from(count)).div_ceil(u64::from(Self::FULL.0));
        u32::try_from(share).expect("at most the count")
    }
}

impl fmt::Display for Weight {
    /// `10%`, `0.5%`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}

impl FromStr for Weight {
    type Err = WeightError;
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let number = text
            .trim()
            .strip_suffix('%')
            .unwrap_or(text.trim())
            .trim_end();
        number
            .parse()
            .map_err(|_| WeightError(text.to_owned()))
            .and_then(|percent| {
                Self::from_percent(percent).map_err(|_| WeightError(text.to_owned()))
            })
    }
}

impl TryFrom<u32> for Weight {
    type Error = WeightError;
    fn try_from(points: u32) -> Result<Self, WeightError> {
        Self::from_basis_points(points)
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_bounded() {
        assert_eq!("0.5%".parse::<Weight>().unwrap().basis_points(), 50);
        assert_eq!("10".parse::<Weight>().unwrap().to_string(), "10%");
        assert_eq!(Weight::ratio(1, 3).rest(), Weight(6_667));
        assert_eq!(Weight(1_000).share_of(3), 1);
        for bad in ["-1", "101", "NaN", "ten", "", "%"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad}");
        }
    }
}
