//! The times of `schedule`: five fields of POSIX cron, as GitHub takes them. Names of months and weekdays, ranges, lists and
//! steps; none of `@daily`, `L`, `W`, `#` or seconds. Says when the next time is, and never looks at a clock.
//!
//! ```
//! use shipway_workflow::cron::CronSchedule;
//! let cron = CronSchedule::parse("30 5 * * MON-FRI")?;
//! let friday = jiff::civil::date(2026, 11, 20).at(6, 0, 0, 0);
//! assert_eq!(cron.next(friday), Some(jiff::civil::date(2026, 11, 23).at(5, 30, 0, 0)));
//! # Ok::<(), shipway_workflow::cron::CronError>(())
//! ```

use jiff::{ToSpan, civil::DateTime};

/// Times of a day, and days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronSchedule {
    /// One bit for each value that is taken.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// If day of month and weekday are both restricted, a day that matches either matches.
    day_or_weekday: bool,
}

/// A line that isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// More or fewer than five.
    #[error("{0} of the five fields: minute, hour, day of the month, month, day of the week")]
    Fields(usize),
    /// `@daily` and the like.
    #[error(
        "`{0}` is a shorthand that GitHub doesn't support; write five fields: minute, hour, day of the month, month, day of the week"
    )]
    Shorthand(String),
    /// A field that can't be read.
    #[error("`{text}` is not a valid {field}: {expected}")]
    Field {
        /// The text of the field.
        text: String,
        /// Which field: `minute`.
        field: &'static str,
        /// What would do.
        expected: String,
    },
}

struct CronField {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [CronField; 5] = [
    CronField {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
    },
    CronField {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
    },
    CronField {
        name: "day of the month",
        least: 1,
        most: 31,
        names: &[],
    },
    CronField {
        name: "month",
        least: 1,
        most: 12,
        names: &MONTHS,
    },
    CronField {
        name: "day of the week",
        least: 0,
        most: 6,
        names: &WEEKDAYS,
    },
];

/// How far ahead the next time is looked for; the 29th of February may be eight years away.
const DAYS_AHEAD_MAX: u32 = 9 * 366;

impl CronSchedule {
    /// Reads five fields.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if let Some(word) = text
            .split_whitespace()
            .next()
            .filter(|it| it.starts_with('@'))
        {
            return Err(CronError::Shorthand(word.to_owned()));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(CronError::Fields(fields.len()));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        Ok(Self {
            minutes: minute.read(minutes)?,
            hours: hour.read(hours)?,
            days: day.read(days)?,
            months: month.read(months)?,
            weekdays: weekday.read(weekdays)?,
            day_or_weekday: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    /// The first time after `after`; none when there is none.
    #[must_use]
    pub fn next(&self, after: DateTime) -> Option<DateTime> {
        if self.never() {
            return None;
        }
        let start = after.checked_add(1.minute()).ok()?;
        let mut day = start.date();
        let (mut hour, mut minute) = (start.hour(), start.minute());
        for _ in 0..DAYS_AHEAD_MAX {
            if self.takes_day(day) {
                for at_hour in hour..24 {
                    let first = if at_hour == hour { minute } else { 0 };
                    if !has(self.hours, at_hour) {
                        continue;
                    }
                    if let Some(at_minute) = (first..60).find(|&it| has(self.minutes, it)) {
                        return Some(day.at(at_hour, at_minute, 0, 0));
                    }
                }
            }
            day = day.tomorrow().ok()?;
            (hour, minute) = (0, 0);
        }
        None
    }

    fn takes_day(&self, day: jiff::civil::Date) -> bool {
        let of_month = has(self.days, day.day());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        let taken = if self.day_or_weekday {
            of_month || of_week
        } else {
            of_month && of_week
        };
        taken && has(self.months, day.month())
    }

    /// Whether there is no such day: the 30th of February.
    #[must_use]
    pub fn never(&self) -> bool {
        const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let least = self.days.trailing_zeros();
        let exists = DAYS
            .iter()
            .zip(1..)
            .any(|(&days, month)| has(self.months, month) && least <= days);
        !exists && !self.day_or_weekday
    }

    /// The least number of minutes between two of its times within an hour; 60 when there is one an hour.
    #[must_use]
    pub fn minutes_apart(&self) -> u8 {
        let minutes: Vec<i8> = (0..60).filter(|&it| has(self.minutes, it)).collect();
        let within = minutes.windows(2).map(|pair| pair[1] - pair[0]);
        within.min().map_or(60, i8::unsigned_abs)
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

impl CronField {
    /// A list of `*`, values and ranges, each with a step or without.
    fn read(&self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |bits, part| {
            let read = self.part(part);
            read.map(|more| bits | more)
                .ok_or_else(|| CronError::Field {
                    text: text.to_owned(),
                    field: self.name,
                    expected: self.expected(),
                })
        })
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None => {
                let value = self.value(range)?;
                (value, if step.is_some() { self.most } else { value })
            }
        };
        if from > to {
            return None;
        }
        Some(
            (from..=to)
                .step_by(step.unwrap_or(1).into())
                .fold(0, |bits, value| bits | 1 << value),
        )
    }

    fn step(&self, text: &str) -> Option<u8> {
        let step = number(text)?;
        (1..=self.most).contains(&step).then_some(step)
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named {
            return Some(self.least + place as u8);
        }
        number(text).filter(|value| (self.least..=self.most).contains(value))
    }

    fn expected(&self) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or {} to {}", first.to_uppercase(), last.to_uppercase()),
            _ => String::new(),
        };
        let sunday = if self.least == 0 && self.most == 6 {
            ", Sunday being 0"
        } else {
            ""
        };
        format!(
            "it is {} to {}{names}{sunday}, `*`, a range 1-5, a list 1,3 or a step */2",
            self.least, self.most
        )
    }
}

fn number(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_next_time_is_found_across_days_months_and_years() {
        let start = date(2026, 11, 21).at(10, 20, 30, 0);
        for (cron, next) in [
            ("* * * * *", "2026-11-21T10:21:00"),
            ("*/15 * * * *", "2026-11-21T10:30:00"),
            ("20 10 * * *", "2026-11-22T10:20:00"),
            ("5,10 4-6/2 * * *", "2026-11-22T04:05:00"),
            ("0 0 1 * *", "2026-12-01T00:00:00"),
            ("0 0 1 JAN *", "2027-01-01T00:00:00"),
            ("30 5 * * 1-5", "2026-11-23T05:30:00"),
            ("0 12 * * sun", "2026-11-22T12:00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00"),
            // Either day does when both are asked for, as in every cron.
            ("0 0 13 * FRI", "2026-11-27T00:00:00"),
            ("0 0 31 2 MON", "2027-02-01T00:00:00"),
            ("50/5 * * * *", "2026-11-21T10:50:00"),
        ] {
            let next = Some(next.parse().unwrap());
            assert_eq!(
                CronSchedule::parse(cron).unwrap().next(start),
                next,
                "{cron}"
            );
        }
        assert_eq!(
            CronSchedule::parse("0 0 31 2,4 *").unwrap().next(start),
            None
        );
    }

    #[test]
    fn what_cron_does_not_know_is_refused_with_what_it_does() {
        for (cron, said) in [
            (
                "* * * *",
                "4 of the five fields: minute, hour, day of the month, month, day of the week",
            ),
            (
                "0 0 * * * *",
                "6 of the five fields: minute, hour, day of the month, month, day of the week",
            ),
            (
                "@daily",
                "`@daily` is a shorthand that GitHub doesn't support; write five fields: minute, hour, day of the month, month, day of the week",
            ),
            (
                "60 * * * *",
                "`60` is not a valid minute: it is 0 to 59, `*`, a range 1-5, a list 1,3 or a step */2",
            ),
            (
                "* 24 * * *",
                "`24` is not a valid hour: it is 0 to 23, `*`, a range 1-5, a list 1,3 or a step */2",
            ),
            (
                "* * 0 * *",
                "`0` is not a valid day of the month: it is 1 to 31, `*`, a range 1-5, a list 1,3 or a step */2",
            ),
            (
                "* * * 13 *",
                "`13` is not a valid month: it is 1 to 12 or JAN to DEC, `*`, a range 1-5, a list 1,3 or a step */2",
            ),
            (
                "* * * * 7",
                "`7` is not a valid day of the week: it is 0 to 6 or SUN to SAT, Sunday being 0, `*`, a range 1-5, a list 1,3 or a step */2",
            ),
        ] {
            assert_eq!(CronSchedule::parse(cron).unwrap_err().to_string(), said);
        }
        for cron in [
            "",
            "a * * * *",
            "1,, * * * *",
            "1, * * * *",
            "*/0 * * * *",
            "*/60 * * * *",
            "5-1 * * * *",
            "1-2-3 * * * *",
            "*/2/2 * * * *",
            "/2 * * * *",
            "*-3 * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "1.5 * * * *",
            "* * L * *",
            "* * 15W * *",
            "* * * * 5#2",
            "* * ? * *",
            "* * * january *",
            "MON * * * *",
        ] {
            assert!(CronSchedule::parse(cron).is_err(), "{cron}");
        }
    }

    #[test]
    fn how_often_and_whether_ever_is_known() {
        for (cron, apart) in [
            ("* * * * *", 1),
            ("*/5 * * * *", 5),
            ("0,58 * * * *", 58),
            ("7 * * * *", 60),
            ("0,1 4 * * *", 1),
        ] {
            assert_eq!(
                CronSchedule::parse(cron).unwrap().minutes_apart(),
                apart,
                "{cron}"
            );
        }
        assert!(CronSchedule::parse("0 0 30 2 *").unwrap().never());
        assert!(!CronSchedule::parse("0 0 29 2 *").unwrap().never());
        assert!(!CronSchedule::parse("0 0 30 2 1").unwrap().never());
    }
}
