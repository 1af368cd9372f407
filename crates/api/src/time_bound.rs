//! A moment as a list's filter names it.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, or a time before now: `2026-11-30T12:00:00Z`, `2026-11-30` (its start in UTC), `90m`, `24h`, `7d`, `2w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeBound {
    At(Timestamp),
    /// So long before now.
    Ago(SignedDuration),
}

impl TimeBound {
    /// The moment, seen from now.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

/// A text that names no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid time: write 2026-11-30T12:00:00Z, 2026-11-30, 90m, 24h, 7d or 2w")]
pub struct TimeBoundError(String);

impl FromStr for TimeBound {
    type Err = TimeBoundError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || TimeBoundError(text.chars().take(40).collect());
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        if let Ok(date) = text.parse::<Date>()
            && let Ok(start) = date.to_zoned(TimeZone::UTC)
        {
            return Ok(Self::At(start.timestamp()));
        }
        let unit = text.chars().next_back().ok_or_else(refused)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(refused()),
        };
        let count: u32 = text[..text.len() - 1].parse().map_err(|_| refused())?;
        Ok(Self::Ago(SignedDuration::from_secs(
            i64::from(count) * seconds,
        )))
    }
}

impl fmt::Display for TimeBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Ago(ago) => {
                let seconds = ago.as_secs();
                let units = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m")];
                let whole = units.into_iter().find(|(unit, _)| seconds % unit == 0);
                let (unit, name) = whole.unwrap_or((1, "s"));
                write!(f, "{}{name}", seconds / unit)
            }
        }
    }
}

impl Serialize for TimeBound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeBound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_moment_a_date_or_a_time_before_now() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-29T10:00:00Z", "2026-11-29T10:00:00Z"),
            ("2026-11-29", "2026-11-29T00:00:00Z"),
            ("90m", "2026-11-30T10:30:00Z"),
            ("24h", "2026-11-29T12:00:00Z"),
            ("7d", "2026-11-23T12:00:00Z"),
            ("2w", "2026-11-16T12:00:00Z"),
        ] {
            let bound: TimeBound = text.parse().unwrap();
            assert_eq!(bound.resolve(now), expected.parse().unwrap(), "{text}");
            assert_eq!(bound.to_string().parse(), Ok(bound), "{text}");
        }
        for text in [
            "",
            "d",
            "1y",
            "-3d",
            "yesterday",
            "7 d",
            "99999999999d",
            "1é",
        ] {
            let error = text.parse::<TimeBound>().unwrap_err();
            assert!(error.to_string().contains("is not a valid time"), "{error}");
        }
        let far: TimeBound = "4294967295w".parse().unwrap();
        assert_eq!(far.resolve(now), Timestamp::MIN);
    }
}
