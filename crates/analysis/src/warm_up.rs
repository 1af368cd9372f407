//! The beginning of a hold that is left out when somebody asks: new instances have cold caches.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{Metric, Observation, Verdict};

/// How much of the warm-up is left at `at`, when there is one; `began` remembers when the hold was first looked at.
pub(crate) fn left(
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

/// What is said meanwhile.
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
