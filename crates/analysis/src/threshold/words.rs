//! The sentences of the threshold judge: what was seen, against which limit, of how much, and how the stable side does.

use super::{
    State,
    series::{Series, availability},
};
use crate::{
    Metric, Observation,
    metric::{Kind, grouped},
    track::Counts,
    verdict,
};

/// `error-rate 5.2% over the limit of 2% on #3, 1,240 requests, 64 errors; stable #2 0.1%`
pub(super) fn measured(
    series: &Series<'_>,
    state: &State,
    seen: &Observation,
    value: f64,
) -> String {
    let mut text = compared(series, seen, value);
    let sample = seen.canary.sample.as_ref();
    if let Some(counts) = sample.and_then(|sample| series.counts(sample))
        && series.metric.is_of_traffic()
    {
        let window = series.unusual(state.canary.window(counts), state, seen);
        if !state.canary.is_first_window() {
            text.push_str(&format!(
                " in the last {}",
                seconds(state.canary.seconds_since(seen.at))
            ));
        }
        text.push_str(&amount(series.metric, window));
    }
    text + &beside(series, state, seen)
}

/// The same over the whole hold.
pub(super) fn over_the_hold(
    series: &Series<'_>,
    state: &State,
    seen: &Observation,
    whole: Counts,
) -> String {
    compared(series, seen, rate(series.metric, whole))
        + &amount(series.metric, whole)
        + &beside(series, state, seen)
}

/// `12 of 100 requests for error-rate of #3`
pub(super) fn too_little_traffic(series: &Series<'_>, state: &State, seen: &Observation) -> String {
    let requests = state.whole_of_canary(series, seen).requests;
    verdict::too_little_traffic(
        series.metric,
        &seen.canary.release,
        requests,
        series.counting.min_requests.max(1),
        "requests",
    )
}

/// `cpu of #3 unknown: the target reports no CPU use`
pub(super) fn no_data(series: &Series<'_>, seen: &Observation, why: &str) -> String {
    format!(
        "{} of {} unknown: {why}",
        series.metric, seen.canary.release
    )
}

/// `no requests in the last 5 s for error-rate of #3`
pub(super) fn not_a_number(series: &Series<'_>, state: &State, seen: &Observation) -> String {
    if is_idle(series, state, seen) {
        let since = seconds(state.canary.seconds_since(seen.at));
        format!(
            "no requests in the last {since} for {} of {}",
            series.metric, seen.canary.release
        )
    } else {
        format!(
            "{} of {} unknown: the source says it is not a number",
            series.metric, seen.canary.release
        )
    }
}

/// Whether there were no requests to measure anything of.
pub(super) fn is_idle(series: &Series<'_>, state: &State, seen: &Observation) -> bool {
    let sample = seen.canary.sample.as_ref();
    let counts = sample.and_then(|sample| series.counts(sample));
    series.metric.is_of_traffic()
        && counts.is_some_and(|counts| state.canary.window(counts).requests == 0)
}

/// Adds how often it happened, where once would have been forgiven.
pub(super) fn times(why: &str, what: &str, times: u32, limit: u32) -> String {
    if limit == 0 {
        why.to_owned()
    } else {
        format!("{why} ({what} {times} times, {limit} allowed)")
    }
}

fn compared(series: &Series<'_>, seen: &Observation, value: f64) -> String {
    let metric = series.metric;
    format!(
        "{metric} {} {} on {}",
        metric.show(value),
        series.assess.relation(metric, value),
        seen.canary.release
    )
}

/// How often for each request; an error or a slow answer is one request's, of orders there may be several.
pub(super) fn rate(metric: Metric, counts: Counts) -> f64 {
    match metric {
        Metric::Event(_) => counts.rate(),
        _ => counts.share(),
    }
}

fn amount(metric: Metric, counts: Counts) -> String {
    let mut text = format!(", {}", counted(counts.requests, "request"));
    match metric {
        Metric::ErrorRate => {
            let unanswered = counts.abandoned + counts.unanswered;
            let errors = counts.events.saturating_sub(unanswered);
            text.push_str(&format!(", {}", counted(errors, "error")));
            text.push_str(&without_answer(counts));
        }
        Metric::AnsweredErrorRate => {
            text.push_str(&format!(", {}", counted(counts.events, "error")));
        }
        Metric::SlowRate { .. } => {
            text.push_str(&format!(", {} slow", grouped(&counts.events.to_string())));
        }
        Metric::Event(name) => {
            text.push_str(&format!(", {} {name}", grouped(&counts.events.to_string())));
        }
        _ => {}
    }
    text
}

/// `, 12 abandoned, 3 unanswered`, or nothing where all were answered in time.
pub(crate) fn without_answer(counts: Counts) -> String {
    let mut text = String::new();
    for (count, class) in [
        (counts.abandoned, "abandoned"),
        (counts.unanswered, "unanswered"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {class}", grouped(&count.to_string())));
        }
    }
    text
}

/// `; stable #2 0.1%`, or nothing where it isn't known.
fn beside(series: &Series<'_>, state: &State, seen: &Observation) -> String {
    match (&seen.stable, value_of_stable(series, state, seen)) {
        (Some(stable), Some(value)) => {
            format!("; stable {} {}", stable.release, series.metric.show(value))
        }
        _ => String::new(),
    }
}

/// The same of stable; `None` where it isn't known.
pub(super) fn value_of_stable(
    series: &Series<'_>,
    state: &State,
    seen: &Observation,
) -> Option<f64> {
    let metric = series.metric;
    let sample = seen.stable.as_ref()?.sample.as_ref()?;
    if let Some(before) = sample.before(metric) {
        return (before.moments().count() > 0).then(|| before.moments().mean());
    }
    let counts = series.counts(sample)?;
    let value = match (metric, metric.kind()) {
        (_, Kind::Events) => rate(metric, state.stable.whole(counts)),
        (Metric::LatencyP50, _) => sample.latency?.p50_ms?,
        (Metric::LatencyP90, _) => sample.latency?.p90_ms?,
        (Metric::LatencyP99, _) => sample.latency?.p99_ms?,
        (Metric::Requests, _) => {
            state.stable.window(counts).requests as f64 / state.stable.seconds_since(seen.at)
        }
        (Metric::Restarts, _) => restarts_in_the_time_of_the_canary(state, seen, counts)?,
        (Metric::Availability, _) => availability(&state.stable, counts, seen.at)?,
        (metric, Kind::Value | Kind::Quantile(_) | Kind::Total) => sample.value(metric).ok()?,
    };
    value.is_finite().then_some(value)
}

/// How often as many instances of stable as there are of the canary would have been restarted; all of stable's restarts where the
/// time of the instances isn't known.
fn restarts_in_the_time_of_the_canary(
    state: &State,
    seen: &Observation,
    of_stable: Counts,
) -> Option<f64> {
    let sample = seen.canary.sample.as_ref()?;
    let canary = state
        .rollout
        .canary
        .window(sample.counts(Metric::Restarts)?);
    let stable = state.rollout.stable.window(of_stable);
    let share = if canary.requests > 0 && stable.requests > 0 {
        canary.requests as f64 / stable.requests as f64
    } else {
        1.0
    };
    Some(stable.restarts as f64 * share)
}

/// `1 error`, `1,240 errors`.
fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(&number.to_string()))
}

/// `5 s`, `0.5 s`, `2 min`: roughly, for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}
