//! When a freeze window starts: the times of a cron line, or of a recurrence rule of iCalendar (RFC 5545).
//!
//! Both are times of the wall clock. A rule is evaluated without a time zone, and the zone of the window applies to its result, because RFC
//! 5545 leaves hours that occur twice undefined.

use std::fmt;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use rrule::{Frequency, RRuleSet};
use serde::{Deserialize, Serialize};
use shipway_workflow::cron::CronSchedule;

/// Starts of a rule that one search reads at most.
const STARTS_MAX: usize = 5_000;
/// The first day of rules that name none.
const FIRST_DAY: &str = "20240101T000000";

/// The times at which a window starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowStarts {
    /// Five fields of cron.
    Cron(String),
    Rrule(RecurrenceRule),
}

/// A recurrence rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecurrenceRule {
    /// `FREQ=WEEKLY;BYDAY=FR`
    pub rule: String,
    /// The first start, from which intervals are counted, and which has the time of day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<DateTime>,
}

/// A rule that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableRule {
    #[error("`{rule}` is not a recurrence rule of RFC 5545: {why}")]
    Malformed { rule: String, why: String },
    #[error(
        "a freeze can start once a day at most: use FREQ=DAILY, WEEKLY, MONTHLY or YEARLY, or `cron`"
    )]
    TooFrequent,
    #[error("`{0}` needs `start`, from which its interval or its number of times is counted")]
    NoStart(&'static str),
}

impl RecurrenceRule {
    /// Checks the rule.
    ///
    /// # Errors
    /// It can't be read, or recurs more than once a day.
    pub fn check(&self) -> Result<(), UnusableRule> {
        for counted in ["INTERVAL", "COUNT"] {
            if self.start.is_none() && self.rule.to_ascii_uppercase().contains(counted) {
                return Err(UnusableRule::NoStart(counted));
            }
        }
        self.compile().map(|_| ())
    }

    fn compile(&self) -> Result<RRuleSet, UnusableRule> {
        let malformed = |why: String| UnusableRule::Malformed {
            rule: self.rule.clone(),
            why,
        };
        let rule = self.rule.trim().to_ascii_uppercase();
        let rule = rule.strip_prefix("RRULE:").unwrap_or(&rule);
        if !rule.starts_with("FREQ=") || rule.contains(|c: char| c.is_control() || c == ':') {
            let why = "it must begin with FREQ=, and have no other properties".to_owned();
            return Err(malformed(why));
        }
        let parts = rule
            .split(';')
            .map(|part| match part.strip_prefix("UNTIL=") {
                // Wall-clock time here; the library wants it to be like the start.
                Some(until) if until.contains('T') => {
                    format!("UNTIL={}Z", until.trim_end_matches('Z'))
                }
                Some(until) => format!("UNTIL={until}T235959Z"),
                None => part.to_owned(),
            });
        let rule = parts.collect::<Vec<_>>().join(";");
        let start = match self.start {
            Some(start) => start.strftime("%Y%m%dT%H%M%S").to_string(),
            None => FIRST_DAY.to_owned(),
        };
        let set: RRuleSet = format!("DTSTART:{start}Z\nRRULE:{rule}")
            .parse()
            .map_err(|error: rrule::RRuleError| malformed(error.to_string()))?;
        let is_rare = |rule: &rrule::RRule| match rule.get_freq() {
            Frequency::Yearly | Frequency::Monthly | Frequency::Weekly | Frequency::Daily => {
                rule.get_by_hour().len() <= 1
                    && rule.get_by_minute().len() <= 1
                    && rule.get_by_second().len() <= 1
            }
            Frequency::Hourly | Frequency::Minutely | Frequency::Secondly => false,
        };
        match set.get_rrule().iter().all(is_rare) {
            true => Ok(set),
            false => Err(UnusableRule::TooFrequent),
        }
    }

    /// The starts after `from`, as far as one search needs them.
    fn starts_after(&self, from: DateTime, until: DateTime) -> Vec<DateTime> {
        let Ok(set) = self.compile() else {
            return Vec::new();
        };
        let second = |at: DateTime| {
            let at = TimeZone::UTC.to_timestamp(at);
            at.map_or(i64::MAX, Timestamp::as_second)
        };
        let (from, until) = (second(from), second(until));
        let starts = set.into_iter().map(|start| start.timestamp());
        starts
            .skip_while(|start| *start <= from)
            .take_while(|start| *start <= until)
            .take(STARTS_MAX)
            .filter_map(|start| Timestamp::from_second(start).ok())
            .map(|start| TimeZone::UTC.to_datetime(start))
            .collect()
    }
}

impl WindowStarts {
    /// The first start after `local`; none if it never starts again.
    #[must_use]
    pub fn next(&self, local: DateTime) -> Option<DateTime> {
        match self {
            Self::Cron(line) => CronSchedule::parse(line).ok()?.next(local),
            Self::Rrule(rule) => {
                let until = local.checked_add(SignedDuration::from_hours(24 * 366 * 5));
                let starts = rule.starts_after(local, until.unwrap_or(DateTime::MAX));
                starts.into_iter().next()
            }
        }
    }

    /// Prepared for a search that begins at `from` and ends at `until`.
    pub(super) fn compile(&self, from: DateTime, until: DateTime) -> Option<CompiledStarts> {
        match self {
            Self::Cron(line) => CronSchedule::parse(line).ok().map(CompiledStarts::Cron),
            Self::Rrule(rule) => Some(CompiledStarts::Listed(rule.starts_after(from, until))),
        }
    }
}

/// Starts that are read: the search for an opening asks for them many times.
pub(super) enum CompiledStarts {
    Cron(CronSchedule),
    /// In order.
    Listed(Vec<DateTime>),
}

impl CompiledStarts {
    /// The first start of a window that is in force when the wall clock shows `local`, if it has come. Of several that overlap it is
    /// the first, so that the search for an opening never skips one.
    pub(super) fn active_at(&self, local: DateTime, lasts: SignedDuration) -> Option<DateTime> {
        let start = match self {
            Self::Cron(cron) => {
                let start = cron.next(local.checked_sub(lasts).ok()?)?;
                match start.checked_add(lasts) {
                    // `next` cuts the seconds off, so its first answer may have just ended.
                    Ok(end) if end <= local => cron.next(start)?,
                    _ => start,
                }
            }
            Self::Listed(starts) => {
                let has_ended =
                    |start: &DateTime| start.checked_add(lasts).is_ok_and(|end| end <= local);
                *starts.get(starts.partition_point(has_ended))?
            }
        };
        (start <= local).then_some(start)
    }
}

impl fmt::Display for WindowStarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(line) => write!(f, "`{line}`"),
            Self::Rrule(rule) => match rule.start {
                Some(start) => write!(
                    f,
                    "`{}` since {}",
                    rule.rule,
                    start.strftime("%Y-%m-%d %H:%M")
                ),
                None => write!(f, "`{}`", rule.rule),
            },
        }
    }
}
