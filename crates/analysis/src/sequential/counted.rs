//! Comparison of events per request by the rate ratio.

use super::{
    ComparisonResult, ODDS_INCONCLUSIVE, ObservedPair, SequentialComparison, SequentialState,
    users::UserCounts,
};
use crate::{
    Metric, Observation, Sample,
    counter_window::WindowCounts,
    evidence::{
        limit::log_above,
        ratio::{EventCounts, RatioEvidence},
    },
    metric::{grouped, pluralized},
    threshold::explanation::without_answer,
    verdict::RequestSource,
};

/// A release of which more than this share of the requests is bad doesn't pass, though there is nothing to compare it with.
const DOUBTFUL_SHARE: f64 = 0.05;

/// Records an observation and compares the rates.
pub(super) fn judge(
    judge: &SequentialComparison,
    state: &mut SequentialState,
    seen: &ObservedPair<'_>,
) -> ComparisonResult {
    if take_in(judge, state, seen).is_none() {
        return ComparisonResult::Unknown("it isn't counted".to_owned());
    }
    let against = state.rollout.log_worse(&judge.test);
    let (limit, cleared) = (judge.alpha.log_limit(), judge.beta.log_limit());
    let requests = state.counted().0.of;
    if against >= limit {
        ComparisonResult::Worse(format!(
            "{}; {}",
            compared(judge, state, seen, "is worse than"),
            odds(against, limit)
        ))
    } else if state.counted().1.of == 0 {
        match judge.max_without_stable {
            Some(max) => against_limit(judge, state, seen.names.0, max),
            None => without_limit(judge, state, seen.names.0),
        }
    } else if against >= libm::log(ODDS_INCONCLUSIVE) {
        ComparisonResult::Against(format!(
            "{}; {}",
            compared(judge, state, seen, "may be worse than"),
            odds(against, limit)
        ))
    } else if requests < judge.min_requests {
        ComparisonResult::NoData(requests, judge.min_requests, RequestSource::Canary)
    } else if state
        .users
        .is_caused_by_few_users(judge, &state.hold, &state.rollout)
    {
        ComparisonResult::Against(format!(
            "{}; too few users to tell whether the release or a single user is the cause",
            compared(judge, state, seen, "may be worse than")
        ))
    } else if state.hold.log_no_worse(&judge.test) >= cleared
        && state.users.agrees_with_requests(judge, &state.hold)
    {
        let tolerance = judge.test.tolerance();
        let times = match judge.direction {
            super::WorseDirection::Increase => format!("within {tolerance} times"),
            super::WorseDirection::Decrease => format!("at least 1/{tolerance} of"),
        };
        ComparisonResult::NoWorse(format!(
            "{}, {times} {}",
            compared(judge, state, seen, "is no worse than"),
            seen.names.1
        ))
    } else {
        ComparisonResult::Open(format!(
            "{}; {}",
            compared(judge, state, seen, "is not shown to be worse than"),
            odds(against, limit)
        ))
    }
}

/// The same where there is no stable release.
pub(super) fn judge_alone(
    judge: &SequentialComparison,
    state: &mut SequentialState,
    seen: &Observation,
    sample: &Sample,
    max: f64,
) -> ComparisonResult {
    let Some(counts) = sample.counts(judge.metric) else {
        return ComparisonResult::Unknown("it isn't counted".to_owned());
    };
    if state.canary.at().is_none_or(|at| at < seen.at) {
        state.canary.start(counts, seen.at);
        let window = counted(judge.metric, state.canary.window(counts));
        let both = [&mut state.rollout, &mut state.hold];
        RatioEvidence::record_in_all(both, &judge.test, window, EventCounts::default());
        state.canary.close(counts, seen.at);
    }
    against_limit(judge, state, &seen.canary.release, max)
}

/// The same without a configured limit: it never fails, but many errors are no pass.
fn without_limit(
    judge: &SequentialComparison,
    state: &SequentialState,
    release: &str,
) -> ComparisonResult {
    let canary = state.counted().0;
    let is_counted_against = judge.direction.is_increase();
    let doubt = log_above(canary.events, canary.of, DOUBTFUL_SHARE);
    if is_counted_against && doubt >= libm::log(ODDS_INCONCLUSIVE) {
        ComparisonResult::Against(format!(
            "{} of {release} is high: {} ({}), and stable had no requests to compare with",
            judge.metric.title(),
            judge.metric.show(canary.rate()),
            amount(judge.metric, canary)
        ))
    } else if canary.of < judge.min_requests {
        ComparisonResult::NoData(canary.of, judge.min_requests, RequestSource::Canary)
    } else {
        ComparisonResult::NoData(0, 1, RequestSource::Stable)
    }
}

/// Tests the release against a limit, without a comparison.
fn against_limit(
    judge: &SequentialComparison,
    state: &SequentialState,
    release: &str,
    max: f64,
) -> ComparisonResult {
    let canary = state.counted().0;
    let against = log_above(canary.events, canary.of, max);
    let limit = judge.alpha.log_limit();
    let why = |relation: &str| {
        format!(
            "{} of {release} {relation}: {} ({}), limit {}, no stable traffic to compare with; {}",
            judge.metric.title(),
            judge.metric.show(canary.rate()),
            amount(judge.metric, canary),
            judge.metric.show(max),
            odds(against, limit)
        )
    };
    if against >= limit {
        ComparisonResult::Worse(why("is over the limit"))
    } else if against >= libm::log(ODDS_INCONCLUSIVE) {
        ComparisonResult::Against(why("may be over the limit"))
    } else if canary.of < judge.min_requests {
        ComparisonResult::NoData(canary.of, judge.min_requests, RequestSource::Canary)
    } else {
        ComparisonResult::Open(why("is not shown to be over the limit"))
    }
}

/// Records the increases of both sides since the previous observation, over the same time. A stale observation is ignored; `None` when a side doesn't count this.
fn take_in(
    judge: &SequentialComparison,
    state: &mut SequentialState,
    seen: &ObservedPair<'_>,
) -> Option<()> {
    let (canary, stable) = counts(judge.metric, seen)?;
    if is_stale(state, seen) {
        return Some(());
    }
    state.canary.start(canary, seen.at);
    state.stable.start(stable, seen.at);
    let of_canary = counted(judge.metric, state.canary.window(canary));
    let of_stable = counted(judge.metric, state.stable.window(stable));
    let told = UserCounts::from_pair(judge, seen);
    let mut events = of_canary.events.saturating_add(of_stable.events);
    // Less often is worse: then stable's must not be more than the canary's.
    if let Some(told) = told {
        let users = state.users.take_in(told);
        events = users.canary.saturating_add(users.stable);
        let both = [&mut state.rollout, &mut state.hold];
        RatioEvidence::record_users_in_all(both, &judge.test, of_canary, of_stable, users);
    } else if judge.direction.is_increase() {
        let both = [&mut state.rollout, &mut state.hold];
        RatioEvidence::record_in_all(both, &judge.test, of_canary, of_stable);
    } else {
        state
            .rollout
            .record_swapped(&judge.test, of_canary, of_stable);
        state.hold.record_swapped(&judge.test, of_canary, of_stable);
    }
    if told.is_none() {
        state.users.skip_to(None);
    }
    if events > 0 {
        state.rollout.narrow(judge.alpha);
    }
    state.canary.close(canary, seen.at);
    state.stable.close(stable, seen.at);
    Some(())
}

pub(super) fn skip_to(
    judge: &SequentialComparison,
    state: &mut SequentialState,
    seen: &ObservedPair<'_>,
) {
    if let Some((canary, stable)) = counts(judge.metric, seen).filter(|_| !is_stale(state, seen)) {
        state.canary.skip_to(canary, seen.at);
        state.stable.skip_to(stable, seen.at);
        state.users.skip_to(UserCounts::from_pair(judge, seen));
    }
}

fn counts(metric: Metric, seen: &ObservedPair<'_>) -> Option<(WindowCounts, WindowCounts)> {
    Some((seen.canary.counts(metric)?, seen.stable.counts(metric)?))
}

fn is_stale(state: &SequentialState, seen: &ObservedPair<'_>) -> bool {
    let known = [state.canary.at(), state.stable.at()];
    known.into_iter().flatten().any(|known| seen.at <= known)
}

fn counted(metric: Metric, counts: WindowCounts) -> EventCounts {
    let most = match metric {
        // Of orders there may be several for a request.
        Metric::Event(_) => u64::MAX,
        // The two counters may be read a moment apart.
        _ => counts.requests,
    };
    EventCounts {
        events: counts.events.min(most),
        of: counts.requests,
    }
}

/// `error rate of #42 is worse than #41: 2.1% vs 0.1% (130 of 6,200 requests, 41 users)`
fn compared(
    judge: &SequentialComparison,
    state: &SequentialState,
    seen: &ObservedPair<'_>,
    relation: &str,
) -> String {
    let (canary, other) = state.counted();
    let shown = |counted: EventCounts| {
        if counted.of == 0 {
            "no requests".to_owned()
        } else {
            judge.metric.show(counted.rate())
        }
    };
    let users = state.users.canary_users();
    format!(
        "{} of {} {relation} {}: {} vs {} ({}{}{})",
        judge.metric.title(),
        seen.names.0,
        seen.names.1,
        shown(canary),
        shown(other),
        amount(judge.metric, canary),
        users.map_or_else(String::new, |users| format!(
            ", {}",
            pluralized(users, "user")
        )),
        without_answer(judge.metric, state.canary.closed)
    )
}

/// `3 of 62 requests`, `15 orders in 300 requests`
fn amount(metric: Metric, counted: EventCounts) -> String {
    let (events, requests) = (grouped(&counted.events.to_string()), counted.of);
    let requests = pluralized(requests, "request");
    match metric {
        Metric::Event(name) => format!("{events} {name} in {requests}"),
        _ => format!("{events} of {requests}"),
    }
}

/// `odds 340:1, threshold 100:1`
fn odds(against: f64, limit: f64) -> String {
    let (against, limit) = (show_odds(against), show_odds(limit));
    format!("odds {against}, threshold {limit}")
}

fn show_odds(log: f64) -> String {
    if log > libm::log(1e6) {
        "over 1,000,000:1".to_owned()
    } else {
        format!("{}:1", grouped(&format!("{:.0}", libm::exp(log).max(1.0))))
    }
}
