//! Values of both sides, compared by the mean of the differences between those of the same instant: what comes and goes on
//! both sides, such as the traffic, falls out.
//!
//! A stable that has lost its traffic has no values of the same instants, but those it had before: then each mean has a range of
//! its own, half of what may be wrong for each, and the canary is worse where the ranges are apart.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Looked, Sequential, Standing, confidence, so_far};
use crate::{
    Metric,
    evidence::{
        Alpha,
        mean::{Moments, Series, VALUES_MIN, sequence},
    },
    metric::grouped,
};

/// The number of values at which the sequence is tightest: a few minutes of them.
const TIGHTEST_AT: f64 = 60.0;

/// The values since the hold began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    canary: Moments,
    stable: Moments,
    /// What is more than the margin allows.
    beyond_margin: Series,
    /// What is more than is tolerated.
    beyond_tolerance: Series,
    /// The canary's, where stable's are of another time.
    #[serde(default, skip_serializing_if = "is_new")]
    alone: Series,
    /// The moment of the last values.
    at: Option<Timestamp>,
}

fn is_new(series: &Series) -> bool {
    series.moments().count() == 0
}

impl State {
    pub(super) fn is_new(&self) -> bool {
        self.at.is_none()
    }

    pub(super) fn pass_over(&mut self, judge: &Sequential, seen: &Looked<'_>) {
        self.at = Some(moment(judge, seen).unwrap_or(seen.at));
    }

    /// Whether values of this moment are new: what a provider says is when it says it, others have a pace.
    fn is_due(&self, judge: &Sequential, at: Timestamp) -> bool {
        self.at.is_none_or(|last| match judge.metric {
            Metric::Value(_) => at > last,
            _ => {
                at.duration_since(last)
                    >= SignedDuration::try_from(judge.interval).unwrap_or(SignedDuration::MAX)
            }
        })
    }

    fn take_in(&mut self, judge: &Sequential, canary: f64, stable: f64) {
        let (more, less) = judge.direction.order(canary, stable);
        let beyond = |times: f64| more - times * less;
        let (margin, tolerance) = (beyond(judge.test.margin()), beyond(judge.test.tolerance()));
        if margin.is_finite() && tolerance.is_finite() {
            self.canary.add(canary);
            self.stable.add(stable);
            self.beyond_margin.add(margin);
            self.beyond_tolerance.add(tolerance);
        }
    }
}

/// The moment that both values are of; `None` where the two sides were not asked about the same.
fn moment(judge: &Sequential, seen: &Looked<'_>) -> Option<Timestamp> {
    let Metric::Value(name) = judge.metric else {
        return Some(seen.at);
    };
    let (canary, stable) = (seen.canary.answer(name)?, seen.stable.answer(name)?);
    (canary.at == stable.at).then_some(canary.at)
}

/// Takes a look in and says how the evidence stands.
pub(super) fn judge(judge: &Sequential, state: &mut super::State, seen: &Looked<'_>) -> Standing {
    if let Some(before) = seen.stable.before(judge.metric) {
        return against_before(judge, state, seen, before);
    }
    let values = (
        seen.canary.value(judge.metric),
        seen.stable.value(judge.metric),
    );
    let (canary, stable) = match values {
        (Ok(canary), Ok(stable)) if canary.is_finite() && stable.is_finite() => (canary, stable),
        (Ok(_), Ok(_)) => {
            return Standing::Unknown("the source says it is not a number".to_owned());
        }
        (Err(why), _) => return Standing::Unknown(why.to_owned()),
        (_, Err(why)) => return Standing::Unknown(format!("on {}: {why}", seen.names.1)),
    };
    let Some(at) = moment(judge, seen) else {
        return Standing::Unknown("the answers for both sides are of different times".to_owned());
    };
    let of = &mut state.value;
    if of.is_due(judge, at) {
        of.take_in(judge, canary, stable);
        of.at = Some(at);
    }
    let count = of.canary.count();
    if count < VALUES_MIN {
        return Standing::Unknown(so_far(count, VALUES_MIN, "values"));
    }
    let told = format!(
        "{} {} on {} against {} on {}, {} values",
        judge.metric,
        judge.metric.show(of.canary.mean()),
        seen.names.0,
        judge.metric.show(of.stable.mean()),
        seen.names.1,
        grouped(&count.to_string())
    );
    let alpha = judge.alpha_of(state.holds);
    let worse = sequence(&of.beyond_margin, alpha, TIGHTEST_AT, judge.edition);
    if let Some(worse) = worse.filter(|range| range.low > 0.0) {
        let margin = match judge.test.margin() {
            1.0 => "stable".to_owned(),
            margin => format!("{margin} times stable"),
        };
        return Standing::Worse(format!(
            "{told}, worse than {margin} by {} at least with {} certainty",
            judge.metric.show(worse.low),
            confidence(alpha)
        ));
    }
    let tolerated = sequence(&of.beyond_tolerance, judge.beta, TIGHTEST_AT, judge.edition);
    if tolerated.is_some_and(|range| range.high < 0.0) {
        let tolerance = judge.test.tolerance();
        return Standing::NoWorse(format!("{told}, within {tolerance} times stable"));
    }
    Standing::Open(told)
}

/// The same against the values that stable had while it had traffic.
fn against_before(
    judge: &Sequential,
    state: &mut super::State,
    seen: &Looked<'_>,
    before: &Series,
) -> Standing {
    let canary = match seen.canary.value(judge.metric) {
        Ok(canary) if canary.is_finite() => canary,
        Ok(_) => return Standing::Unknown("the source says it is not a number".to_owned()),
        Err(why) => return Standing::Unknown(why.to_owned()),
    };
    let at = match judge.metric {
        Metric::Value(name) => seen.canary.answer(name).map_or(seen.at, |answer| answer.at),
        _ => seen.at,
    };
    let of = &mut state.value;
    if of.is_due(judge, at) {
        of.alone.add(canary);
        of.at = Some(at);
    }
    let (now, then) = (of.alone.moments(), before.moments());
    if then.count() < VALUES_MIN {
        let so_far = so_far(then.count(), VALUES_MIN, "values");
        return Standing::Unknown(format!("{} had {so_far}", seen.names.1));
    }
    // There won't be more of them: what is open now would be open for ever.
    let Some(_) = sequence(before, judge.beta, TIGHTEST_AT, judge.edition) else {
        return Standing::Unknown(format!(
            "the {} values of {} are too much like those before them to say how they scatter",
            grouped(&then.count().to_string()),
            seen.names.1
        ));
    };
    if now.count() < VALUES_MIN {
        return Standing::Unknown(so_far(now.count(), VALUES_MIN, "values"));
    }
    let told = format!(
        "{} {} on {} against {} on {}, {} values",
        judge.metric,
        judge.metric.show(now.mean()),
        seen.names.0,
        judge.metric.show(then.mean()),
        seen.names.1,
        grouped(&now.count().to_string())
    );
    let ranges = |alpha: Alpha| {
        let alpha = alpha.split(2);
        let canary = sequence(&of.alone, alpha, TIGHTEST_AT, judge.edition)?;
        let stable = sequence(before, alpha, TIGHTEST_AT, judge.edition)?;
        Some(judge.direction.order(canary, stable))
    };
    let alpha = judge.alpha_of(state.holds);
    let margin = judge.test.margin();
    if ranges(alpha).is_some_and(|(more, less)| more.low > margin * less.high) {
        return Standing::Worse(format!(
            "{told}, apart with {} certainty",
            confidence(alpha)
        ));
    }
    let tolerance = judge.test.tolerance();
    if ranges(judge.beta).is_some_and(|(more, less)| more.high < tolerance * less.low) {
        return Standing::NoWorse(format!("{told}, within {tolerance} times stable"));
    }
    Standing::Open(told)
}
