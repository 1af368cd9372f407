//! Sentences of the threshold judge: the value, the limit, the number of requests, and stable's value.

use super::{
    MeasurementState,
    measurement_series::{BoundRelation, MeasurementSeries, availability},
};
use crate::{
    Metric, Observation,
    counter_window::WindowCounts,
    metric::{MetricKind, grouped, pluralized},
    verdict::{self, RequestSource},
};

/// `error rate of #3 is over the limit: 5.2% (64 of 1,240 requests), limit 2%; stable #2: 0.1%`
pub(super) fn measured(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
    value: f64,
) -> String {
    let sample = seen.canary.sample.as_ref();
    let counts = sample.and_then(|sample| series.counts(sample));
    let amount = counts
        .filter(|_| series.metric.is_traffic_metric())
        .map(|counts| {
            let window = state.without_usual_timeouts(series, state.canary.window(counts), seen);
            let mut text = amount(series.metric, window);
            if !state.canary.is_first_window() {
                let seconds = seconds(state.canary.seconds_since(seen.at));
                text.push_str(&format!(" in the last {seconds}"));
            }
            text + &without_answer(series.metric, window)
        });
    explained(series, state, seen, value, amount)
}

/// The same over the whole hold.
pub(super) fn over_the_hold(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
    whole: WindowCounts,
) -> String {
    let amount = amount(series.metric, whole) + &without_answer(series.metric, whole);
    let value = rate(series.metric, whole);
    explained(series, state, seen, value, Some(amount))
}

fn explained(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
    value: f64,
    amount: Option<String>,
) -> String {
    let metric = series.metric;
    let BoundRelation { relation, bound } = series.assess.relation(metric, value);
    format!(
        "{} of {}{relation}: {}{}, {bound}{}",
        metric.title(),
        seen.canary.release,
        metric.show(value),
        amount.map_or_else(String::new, |amount| format!(" ({amount})")),
        stable_suffix(series, state, seen)
    )
}

/// `too little traffic to judge the error rate of #3: 12 of the 100 requests needed`
pub(super) fn too_little_traffic(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
) -> String {
    let requests = state.whole_of_canary(series, seen).requests;
    verdict::too_little_traffic(
        series.metric,
        &seen.canary.release,
        requests,
        series.counting.min_requests.max(1),
        RequestSource::Canary,
    )
}

/// `CPU use of #3 can't be judged: the target reports no CPU use`
pub(super) fn no_data(series: &MeasurementSeries<'_>, seen: &Observation, why: &str) -> String {
    verdict::not_judged(series.metric, &seen.canary.release, why)
}

/// `error rate of #3 can't be judged: no requests in the last 5 s`
pub(super) fn not_a_number(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
) -> String {
    if is_idle(series, state, seen) {
        let since = seconds(state.canary.seconds_since(seen.at));
        no_data(series, seen, &format!("no requests in the last {since}"))
    } else {
        let why = "the source reported a value that is not a number";
        no_data(series, seen, why)
    }
}

/// Whether there were no requests to measure anything of.
pub(super) fn is_idle(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
) -> bool {
    let sample = seen.canary.sample.as_ref();
    let counts = sample.and_then(|sample| series.counts(sample));
    series.metric.is_traffic_metric()
        && counts.is_some_and(|counts| state.canary.window(counts).requests == 0)
}

/// Adds how often it happened, where once would have been forgiven.
pub(super) fn times(why: &str, what: &str, times: u32, limit: u32) -> String {
    if limit == 0 {
        why.to_owned()
    } else {
        format!("{why} ({times} {what}, {limit} allowed)")
    }
}

/// How often for each request; an error or a slow answer is one request's, of orders there may be several.
pub(super) fn rate(metric: Metric, counts: WindowCounts) -> f64 {
    match metric {
        Metric::Event(_) => counts.rate(),
        _ => counts.share(),
    }
}

/// `64 of 1,240 requests`, `15 orders in 300 requests`, `240 requests`
fn amount(metric: Metric, counts: WindowCounts) -> String {
    let (events, requests) = (
        grouped(&counts.events.to_string()),
        pluralized(counts.requests, "request"),
    );
    match metric {
        Metric::ErrorRate | Metric::AnsweredErrorRate | Metric::SlowRate { .. } => {
            format!("{events} of {requests}")
        }
        Metric::Event(name) => format!("{events} {name} in {requests}"),
        _ => requests,
    }
}

/// `, 12 abandoned, 3 unanswered`; empty where all requests were answered in time.
pub(crate) fn without_answer(metric: Metric, counts: WindowCounts) -> String {
    let mut text = String::new();
    if metric != Metric::ErrorRate {
        return text;
    }
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

/// `; stable #2: 0.1%`; empty where it isn't known.
fn stable_suffix(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
) -> String {
    match (&seen.stable, value_of_stable(series, state, seen)) {
        (Some(stable), Some(value)) => {
            format!("; stable {}: {}", stable.release, series.metric.show(value))
        }
        _ => String::new(),
    }
}

/// The same of stable; `None` where it isn't known.
pub(super) fn value_of_stable(
    series: &MeasurementSeries<'_>,
    state: &MeasurementState,
    seen: &Observation,
) -> Option<f64> {
    let metric = series.metric;
    let sample = seen.stable.as_ref()?.sample.as_ref()?;
    if let Some(before) = sample.before(metric) {
        return (before.moments().count() > 0).then(|| before.moments().mean());
    }
    let counts = series.counts(sample)?;
    let value = match (metric, metric.kind()) {
        (_, MetricKind::Events) => rate(metric, state.stable.whole(counts)),
        (Metric::LatencyP50, _) => sample.latency?.p50_ms?,
        (Metric::LatencyP90, _) => sample.latency?.p90_ms?,
        (Metric::LatencyP99, _) => sample.latency?.p99_ms?,
        (Metric::Requests, _) => {
            state.stable.window(counts).requests as f64 / state.stable.seconds_since(seen.at)
        }
        (Metric::Restarts, _) => restarts_in_the_time_of_the_canary(state, seen, counts)?,
        (Metric::Availability, _) => availability(&state.stable, counts, seen.at)?,
        (metric, MetricKind::Value | MetricKind::Quantile(_) | MetricKind::Total) => {
            sample.value(metric).ok()?
        }
    };
    value.is_finite().then_some(value)
}

/// How often as many instances of stable as there are of the canary would have been restarted; all of stable's restarts where the
/// time of the instances isn't known.
fn restarts_in_the_time_of_the_canary(
    state: &MeasurementState,
    seen: &Observation,
    of_stable: WindowCounts,
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

/// `5 s`, `0.5 s`, `2 min`: roughly, for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}
