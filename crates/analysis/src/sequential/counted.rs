//! Something that happens, compared by how often it does for each request.

use super::{Looked, ODDS_INCONCLUSIVE, Sequential, Standing, State, users::Told};
use crate::{
    Metric, Observation, Sample,
    evidence::{
        limit::log_above,
        ratio::{Counted, Evidence},
    },
    metric::{grouped, pluralized},
    threshold::words::without_answer,
    track::Counts,
    verdict::RequestSource,
};

/// A release of which more than this share of the requests is bad doesn't pass, though there is nothing to compare it with.
const DOUBTFUL_SHARE: f64 = 0.05;

/// Takes a look in and says how the evidence stands.
pub(super) fn judge(judge: &Sequential, state: &mut State, seen: &Looked<'_>) -> Standing {
    if take_in(judge, state, seen).is_none() {
        return Standing::Unknown("it isn't counted".to_owned());
    }
    let against = state.rollout.log_worse(&judge.test);
    let (limit, cleared) = (judge.alpha.log_limit(), judge.beta.log_limit());
    let requests = state.counted().0.of;
    if against >= limit {
        Standing::Worse(format!(
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
        Standing::Against(format!(
            "{}; {}",
            compared(judge, state, seen, "may be worse than"),
            odds(against, limit)
        ))
    } else if requests < judge.min_requests {
        Standing::NoData(requests, judge.min_requests, RequestSource::Canary)
    } else if state.users.is_of_few(judge, &state.hold, &state.rollout) {
        Standing::Against(format!(
            "{}; too few users to tell whether the release or a single user is the cause",
            compared(judge, state, seen, "may be worse than")
        ))
    } else if state.hold.log_no_worse(&judge.test) >= cleared
        && state.users.agrees(judge, &state.hold)
    {
        let tolerance = judge.test.tolerance();
        let times = match judge.direction {
            super::Direction::Increase => format!("within {tolerance} times"),
            super::Direction::Decrease => format!("at least 1/{tolerance} of"),
        };
        Standing::NoWorse(format!(
            "{}, {times} {}",
            compared(judge, state, seen, "is no worse than"),
            seen.names.1
        ))
    } else {
        Standing::Open(format!(
            "{}; {}",
            compared(judge, state, seen, "is not shown to be worse than"),
            odds(against, limit)
        ))
    }
}

/// The same where there is no stable release.
pub(super) fn judge_alone(
    judge: &Sequential,
    state: &mut State,
    seen: &Observation,
    sample: &Sample,
    max: f64,
) -> Standing {
    let Some(counts) = sample.counts(judge.metric) else {
        return Standing::Unknown("it isn't counted".to_owned());
    };
    if state.canary.at().is_none_or(|at| at < seen.at) {
        state.canary.begin(counts, seen.at);
        let window = counted(judge.metric, state.canary.window(counts));
        let both = [&mut state.rollout, &mut state.hold];
        Evidence::look_on(both, &judge.test, window, Counted::default());
        state.canary.close(counts, seen.at);
    }
    against_limit(judge, state, &seen.canary.release, max)
}

/// The same without a configured limit: it never fails, but many errors are no pass.
fn without_limit(judge: &Sequential, state: &State, release: &str) -> Standing {
    let canary = state.counted().0;
    let is_counted_against = judge.direction.is_increase();
    let doubt = log_above(canary.events, canary.of, DOUBTFUL_SHARE);
    if is_counted_against && doubt >= libm::log(ODDS_INCONCLUSIVE) {
        Standing::Against(format!(
            "{} of {release} is high: {} ({}), and stable had no requests to compare with",
            judge.metric.title(),
            judge.metric.show(canary.rate()),
            amount(judge.metric, canary)
        ))
    } else if canary.of < judge.min_requests {
        Standing::NoData(canary.of, judge.min_requests, RequestSource::Canary)
    } else {
        Standing::NoData(0, 1, RequestSource::Stable)
    }
}

/// How the release stands against a limit, where there is nothing to compare with.
fn against_limit(judge: &Sequential, state: &State, release: &str, max: f64) -> Standing {
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
        Standing::Worse(why("is over the limit"))
    } else if against >= libm::log(ODDS_INCONCLUSIVE) {
        Standing::Against(why("may be over the limit"))
    } else if canary.of < judge.min_requests {
        Standing::NoData(canary.of, judge.min_requests, RequestSource::Canary)
    } else {
        Standing::Open(why("is not shown to be over the limit"))
    }
}

/// Counts what happened on both sides since the look before, over the same time. A look that is older than one already
/// taken is left alone; `None` when a side doesn't count this.
fn take_in(judge: &Sequential, state: &mut State, seen: &Looked<'_>) -> Option<()> {
    let (canary, stable) = counts(judge.metric, seen)?;
    if is_stale(state, seen) {
        return Some(());
    }
    state.canary.begin(canary, seen.at);
    state.stable.begin(stable, seen.at);
    let of_canary = counted(judge.metric, state.canary.window(canary));
    let of_stable = counted(judge.metric, state.stable.window(stable));
    let told = Told::of(judge, seen);
    let mut events = of_canary.events.saturating_add(of_stable.events);
    // Less often is worse: then stable's must not be more than the canary's.
    if let Some(told) = told {
        let users = state.users.take_in(told);
        events = users.canary.saturating_add(users.stable);
        let both = [&mut state.rollout, &mut state.hold];
        Evidence::look_by_user(both, &judge.test, of_canary, of_stable, users);
    } else if judge.direction.is_increase() {
        let both = [&mut state.rollout, &mut state.hold];
        Evidence::look_on(both, &judge.test, of_canary, of_stable);
    } else {
        state
            .rollout
            .look_swapped(&judge.test, of_canary, of_stable);
        state.hold.look_swapped(&judge.test, of_canary, of_stable);
    }
    if told.is_none() {
        state.users.pass_over(None);
    }
    if events > 0 {
        state.rollout.narrow(judge.alpha);
    }
    state.canary.close(canary, seen.at);
    state.stable.close(stable, seen.at);
    Some(())
}

pub(super) fn pass_over(judge: &Sequential, state: &mut State, seen: &Looked<'_>) {
    if let Some((canary, stable)) = counts(judge.metric, seen).filter(|_| !is_stale(state, seen)) {
        state.canary.pass_over(canary, seen.at);
        state.stable.pass_over(stable, seen.at);
        state.users.pass_over(Told::of(judge, seen));
    }
}

fn counts(metric: Metric, seen: &Looked<'_>) -> Option<(Counts, Counts)> {
    Some((seen.canary.counts(metric)?, seen.stable.counts(metric)?))
}

fn is_stale(state: &State, seen: &Looked<'_>) -> bool {
    let known = [state.canary.at(), state.stable.at()];
    known.into_iter().flatten().any(|known| seen.at <= known)
}

fn counted(metric: Metric, counts: Counts) -> Counted {
    let most = match metric {
        // Of orders there may be several for a request.
        Metric::Event(_) => u64::MAX,
        // The two counters may be read a moment apart.
        _ => counts.requests,
    };
    Counted {
        events: counts.events.min(most),
        of: counts.requests,
    }
}

/// `error rate of #42 is worse than #41: 2.1% vs 0.1% (130 of 6,200 requests, 41 users)`
fn compared(judge: &Sequential, state: &State, seen: &Looked<'_>, relation: &str) -> String {
    let (canary, other) = state.counted();
    let shown = |counted: Counted| {
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
fn amount(metric: Metric, counted: Counted) -> String {
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
