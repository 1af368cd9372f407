//! The warm-up of a hold, in which nothing is counted: new instances have cold caches.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{Metric, Observation, Verdict};

/// The rest of the warm-up at `at`; `None` afterwards. `began` is set to the time of the first observation of the hold.
pub(crate) fn remaining(
    skip: Duration,
    began: &mut Option<Timestamp>,
    at: Timestamp,
) -> Option<SignedDuration> {
    if skip.is_zero() {
        return None;
    }
    let began = *began.get_or_insert(at);
    let skip = SignedDuration::try_from(skip).unwrap_or(SignedDuration::MAX);
    let left = skip.saturating_sub(at.duration_since(began));
    left.is_positive().then_some(left)
}

/// The verdict during the warm-up.
pub(crate) fn verdict(metric: Metric, seen: &Observation, left: SignedDuration) -> Verdict {
    Verdict::Inconclusive {
        why: format!(
            "{} of {} is not judged yet: the warm-up lasts another {:.0} s",
            metric.title(),
            seen.canary.release,
            left.as_secs_f64().ceil()
        ),
    }
}
