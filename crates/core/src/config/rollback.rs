//! `rollback_window`: how far `shipway rollback` goes back at once, without steps and analysis.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_syntax::{Diagnostic, MappingFields};

use crate::duration_text::DurationText;

/// A release that was good here this lately comes back at once; an older one goes through the strategy like a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackWindow {
    /// The last so many that were promoted before the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<u32>,
    /// Those that served within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

impl RollbackWindow {
    /// Whether a release is inside: the `back`-th before the one that serves, from 1, which served until `left`. One limit that
    /// it keeps is enough; without limits all that are remembered are inside.
    #[must_use]
    pub fn holds(&self, back: usize, left: Option<Timestamp>, now: Timestamp) -> bool {
        let by_number = self.releases.map(|most| back <= most as usize);
        let by_time = self.within.map(|most| {
            let ago = left.and_then(|left| Duration::try_from(now.duration_since(left)).ok());
            ago.is_some_and(|ago| ago <= most)
        });
        match (by_number, by_time) {
            (None, None) => true,
            (number, time) => number == Some(true) || time == Some(true),
        }
    }
}

impl fmt::Display for RollbackWindow {
    /// `the last 3 releases or 1 d`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.releases, self.within) {
            (Some(releases), Some(within)) => {
                write!(
                    f,
                    "the last {releases} releases or {}",
                    DurationText(within)
                )
            }
            (Some(releases), None) => write!(f, "the last {releases} releases"),
            (None, Some(within)) => write!(f, "{}", DurationText(within)),
            (None, None) => f.write_str("all that are remembered"),
        }
    }
}

/// `rollback_window` of an environment.
pub(super) fn window(
    fields: &MappingFields<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Option<RollbackWindow> {
    let node = fields.get("rollback_window")?;
    let keys = ["releases", "within"];
    let inner = MappingFields::read(node, "rollback_window", &keys, problems)?;
    let window = RollbackWindow {
        releases: inner.integer("releases", 1, 10, problems),
        within: inner.duration("within", problems),
    };
    if window == RollbackWindow::default() && !problems.iter().any(Diagnostic::is_error) {
        problems.push(
            Diagnostic::error("bad-value", node.span, "`rollback_window` needs a limit")
                .help("for example `rollback_window: { releases: 3 }` or `{ within: 24h }`"),
        );
    }
    Some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_that_is_kept_is_enough() {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let left = |hours: u64| Some(now - Duration::from_secs(hours * 3_600));
        let (releases, within) = (Some(2), Some(Duration::from_secs(86_400)));
        let by_number = RollbackWindow {
            releases,
            within: None,
        };
        assert!(by_number.holds(2, None, now) && !by_number.holds(3, left(1), now));
        let by_time = RollbackWindow {
            releases: None,
            within,
        };
        assert!(by_time.holds(9, left(23), now) && !by_time.holds(1, left(25), now));
        assert!(!by_time.holds(1, None, now), "unknown is not lately");
        let both = RollbackWindow { releases, within };
        assert!(
            both.holds(1, left(99), now)
                && both.holds(9, left(1), now)
                && !both.holds(9, left(99), now)
        );
        assert!(RollbackWindow::default().holds(9, None, now));
    }
}
