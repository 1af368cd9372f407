//! The regression of the new release: `error-rate=0.5%@canary`.
//!
//! ```
//! use shipway_sim::regression::Regression;
//! let bad: Regression = "error-rate=5%@canary,endpoint=10%".parse()?;
//! assert_eq!(bad.affected, 0.1);
//! # Ok::<(), shipway_sim::regression::ParseRegressionError>(())
//! ```

use std::{fmt, str::FromStr};

/// Something that is worse than it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regression {
    /// The effect.
    pub what: RegressionEffect,
    /// AffectedSides.
    pub side: AffectedSides,
    /// The share of the requests that it touches.
    pub affected: f64,
    /// Whether it affects all requests of some users instead of some requests of all users.
    pub by_user: bool,
}

/// The effect of a regression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RegressionEffect {
    /// So many of the requests it touches fail; 0 to 1.
    ErrorRate(f64),
    /// Answers take so much longer, in milliseconds.
    Latency(f64),
    /// Every minute so many more of the requests fail; 0 to 1.
    LeakOfErrors(f64),
    /// Every minute answers take so much longer still, in milliseconds.
    LeakOfTime(f64),
}

/// On which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffectedSides {
    /// The new release alone: it should go back.
    Canary,
    /// Both alike, as when a database is down: going back would not help, and a comparison must not blame the release.
    Both,
}

/// A regression that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a regression: write error-rate=0.5%@canary, latency=+200ms@canary, leak=0.1%/min@canary or leak=+20ms/min@canary; \
@both instead of @canary for what hits stable too; add ,endpoint=10% or ,users=5% for a part of the requests or of the users"
)]
pub struct ParseRegressionError(String);

impl Regression {
    /// So many of the canary's requests fail.
    #[must_use]
    pub const fn error_rate(rate: f64) -> Self {
        Self {
            what: RegressionEffect::ErrorRate(rate),
            side: AffectedSides::Canary,
            affected: 1.0,
            by_user: false,
        }
    }

    /// How probably a request that it touches fails because of it, `at` seconds after the beginning, where `base` of the requests
    /// fail anyway.
    #[must_use]
    pub fn failing(&self, base: f64, at: u32) -> f64 {
        match self.what {
            RegressionEffect::ErrorRate(rate) => {
                ((rate - base) / (1.0 - base).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
            }
            RegressionEffect::LeakOfErrors(each_minute) => {
                (each_minute * f64::from(at) / 60.0).clamp(0.0, 1.0)
            }
            RegressionEffect::Latency(_) | RegressionEffect::LeakOfTime(_) => 0.0,
        }
    }

    /// How much longer an answer that it touches takes, in milliseconds.
    #[must_use]
    pub fn slower(&self, at: u32) -> f64 {
        match self.what {
            RegressionEffect::Latency(millis) => millis,
            RegressionEffect::LeakOfTime(each_minute) => each_minute * f64::from(at) / 60.0,
            RegressionEffect::ErrorRate(_) | RegressionEffect::LeakOfErrors(_) => 0.0,
        }
    }
}

/// A share that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a share: write a percentage from 0% to 100%, such as 0.1%")]
pub struct ParseShareError(String);

/// `0.5%` or `0.005`
///
/// # Errors
/// When it isn't a share between 0 and 1.
pub fn share(text: &str) -> Result<f64, ParseShareError> {
    let percent = text.trim().strip_suffix('%');
    let number: Option<f64> = percent.unwrap_or(text).trim().parse().ok();
    number
        .map(|number| number / if percent.is_some() { 100.0 } else { 1.0 })
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| ParseShareError(text.to_owned()))
}

/// `+200ms` or `1.5s`
fn millis(text: &str) -> Option<f64> {
    let text = text.trim().trim_start_matches('+');
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s')?, 1_000.0),
    };
    let millis = number.trim().parse::<f64>().ok()? * unit;
    (millis.is_finite() && millis >= 0.0).then_some(millis)
}

fn what(name: &str, value: &str) -> Option<RegressionEffect> {
    match name {
        "error-rate" => share(value).ok().map(RegressionEffect::ErrorRate),
        "latency" => millis(value).map(RegressionEffect::Latency),
        "leak" => {
            let each_minute = value.trim().strip_suffix("/min")?;
            let errors = share(each_minute)
                .ok()
                .filter(|_| each_minute.ends_with('%'));
            errors
                .map(RegressionEffect::LeakOfErrors)
                .or_else(|| millis(each_minute).map(RegressionEffect::LeakOfTime))
        }
        _ => None,
    }
}

impl FromStr for Regression {
    type Err = ParseRegressionError;

    fn from_str(text: &str) -> Result<Self, ParseRegressionError> {
        let refused = || ParseRegressionError(text.to_owned());
        let mut parts = text.split(',');
        let (worse, side) = parts
            .next()
            .and_then(|first| first.split_once('@'))
            .ok_or_else(refused)?;
        let (name, value) = worse.split_once('=').ok_or_else(refused)?;
        let side = match side.trim() {
            "canary" => AffectedSides::Canary,
            "both" => AffectedSides::Both,
            _ => return Err(refused()),
        };
        let what = what(name.trim(), value).ok_or_else(refused)?;
        let mut regression = Self {
            what,
            side,
            affected: 1.0,
            by_user: false,
        };
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(refused)?;
            regression.by_user = match key.trim() {
                "endpoint" => false,
                "users" => true,
                _ => return Err(refused()),
            };
            regression.affected = share(value).map_err(|_| refused())?;
        }
        Ok(regression)
    }
}

impl fmt::Display for Regression {
    /// `error-rate 0.5% on the canary, on an endpoint with 10% of the requests`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| crate::summary::percent(share);
        match self.what {
            RegressionEffect::ErrorRate(rate) => write!(f, "error-rate {}", percent(rate))?,
            RegressionEffect::Latency(millis) => write!(f, "answers {millis} ms slower")?,
            RegressionEffect::LeakOfErrors(rate) => {
                write!(f, "error-rate growing by {} each minute", percent(rate))?
            }
            RegressionEffect::LeakOfTime(millis) => {
                write!(f, "answers {millis} ms slower each minute")?
            }
        }
        f.write_str(match self.side {
            AffectedSides::Canary => " on the canary",
            AffectedSides::Both => " on both sides",
        })?;
        match (self.affected < 1.0, self.by_user) {
            (false, _) => Ok(()),
            (true, false) => write!(
                f,
                ", on an endpoint with {} of the requests",
                percent(self.affected)
            ),
            (true, true) => write!(f, ", for {} of the users", percent(self.affected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regressions_are_read_as_people_write_them_and_said_in_words() {
        let said = |text: &str| {
            text.parse::<Regression>()
                .map(|it| it.to_string())
                .unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(
            said("error-rate=0.5%@canary"),
            "error-rate 0.5% on the canary"
        );
        assert_eq!(
            said("latency=+200ms@canary,users=5%"),
            "answers 200 ms slower on the canary, for 5% of the users"
        );
        assert_eq!(
            said("leak=0.1%/min@canary"),
            "error-rate growing by 0.1% each minute on the canary"
        );
        assert_eq!(
            said("leak=+20ms/min@canary"),
            "answers 20 ms slower each minute on the canary"
        );
        assert_eq!(
            said("error-rate=5%@both,endpoint=10%"),
            "error-rate 5% on both sides, on an endpoint with 10% of the requests"
        );
        for bad in [
            "",
            "error-rate=0.5%",
            "error-rate=120%@canary",
            "latency=-5ms@canary",
            "leak=1%@canary",
            "error-rate=1%@canary,hour=3",
        ] {
            assert!(
                said(bad).contains("is not a regression"),
                "{bad}: {}",
                said(bad)
            );
        }
    }

    #[test]
    fn a_rate_is_what_it_says_once_what_fails_anyway_is_counted_in() {
        let bad = Regression::error_rate(0.005);
        let both = 0.001 + (1.0 - 0.001) * bad.failing(0.001, 7);
        assert!((both - 0.005).abs() < 1e-12);
        assert_eq!(
            Regression::error_rate(0.0001).failing(0.001, 7),
            0.0,
            "a release may be better"
        );
    }
}
