//! The sentences of the threshold judge: what was seen, against which limit, of how much, and how the stable side does.

use super::{Bound, State, Threshold};
use crate::{Metric, Observation, Sample, metric::grouped, track::Counts};

/// `error-rate 5.2 % over the limit of 2 % on #3, 1,240 requests, 64 errors; stable #2 0.1 %`
pub(super) fn measured(
    threshold: &Threshold,
    state: &State,
    seen: &Observation,
    value: f64,
) -> String {
    let mut text = compared(threshold, seen, value);
    if let Some(sample) = &seen.canary.sample
        && threshold.metric.is_of_traffic()
    {
        let window = state.canary.window(sample);
        if !state.canary.is_first_window() {
            text.push_str(&format!(
                " in the last {}",
                seconds(state.canary.seconds_since(seen.at))
            ));
        }
        text.push_str(&amount(threshold.metric, window));
    }
    text + &beside(threshold.metric, state, seen)
}

/// The same over the whole hold.
pub(super) fn over_the_hold(
    threshold: &Threshold,
    state: &State,
    seen: &Observation,
    whole: Counts,
) -> String {
    compared(threshold, seen, whole.error_rate())
        + &amount(threshold.metric, whole)
        + &beside(threshold.metric, state, seen)
}

/// `error-rate of #3 unknown: 12 of 100 requests so far`
pub(super) fn waiting(threshold: &Threshold, state: &State, seen: &Observation) -> String {
    let requests = state.whole_of_canary(seen).requests;
    if threshold.metric.is_of_traffic() && seen.canary.sample.is_some() {
        let (requests, needed) = (
            grouped(&requests.to_string()),
            grouped(&threshold.min_requests.to_string()),
        );
        format!(
            "{} of {} unknown: {requests} of {needed} requests so far",
            threshold.metric, seen.canary.release
        )
    } else {
        format!(
            "{} of {} unknown: not measured yet",
            threshold.metric, seen.canary.release
        )
    }
}

/// `cpu of #3 unknown: the target reports no CPU use`
pub(super) fn no_data(threshold: &Threshold, seen: &Observation, why: &str) -> String {
    format!(
        "{} of {} unknown: {why}",
        threshold.metric, seen.canary.release
    )
}

/// `error-rate of #3 unknown: no requests in the last 5 s`
pub(super) fn not_a_number(threshold: &Threshold, state: &State, seen: &Observation) -> String {
    let idle = seen
        .canary
        .sample
        .as_ref()
        .is_some_and(|sample| state.canary.window(sample).requests == 0);
    if threshold.metric.is_of_traffic() && idle {
        let since = seconds(state.canary.seconds_since(seen.at));
        format!(
            "{} of {} unknown: no requests in the last {since}",
            threshold.metric, seen.canary.release
        )
    } else {
        format!(
            "{} of {} unknown: the source says it is not a number",
            threshold.metric, seen.canary.release
        )
    }
}

/// Adds how often it happened, where once would have been forgiven.
pub(super) fn times(why: &str, what: &str, times: u32, limit: u32) -> String {
    if limit == 0 {
        why.to_owned()
    } else {
        format!("{why} ({what} {times} times, {limit} allowed)")
    }
}

fn compared(threshold: &Threshold, seen: &Observation, value: f64) -> String {
    let metric = threshold.metric;
    let relation = match threshold.bound {
        Bound::Max(max) | Bound::Between { max, .. } if value > max => {
            format!("over the limit of {}", metric.show(max))
        }
        Bound::Min(min) | Bound::Between { min, .. } if value < min => {
            format!("under the minimum of {}", metric.show(min))
        }
        Bound::Max(max) => format!("within the limit of {}", metric.show(max)),
        Bound::Min(min) => format!("within the minimum of {}", metric.show(min)),
        Bound::Between { min, max } => {
            format!("between {} and {}", metric.show(min), metric.show(max))
        }
    };
    format!(
        "{metric} {} {relation} on {}",
        metric.show(value),
        seen.canary.release
    )
}

fn amount(metric: Metric, counts: Counts) -> String {
    let mut text = format!(", {}", counted(counts.requests, "request"));
    if metric == Metric::ErrorRate {
        text.push_str(&format!(", {}", counted(counts.errors, "error")));
    }
    text
}

/// `; stable #2 0.1 %`, or nothing where it isn't known.
fn beside(metric: Metric, state: &State, seen: &Observation) -> String {
    let Some(stable) = &seen.stable else {
        return String::new();
    };
    match stable
        .sample
        .as_ref()
        .and_then(|sample| value_of_stable(metric, state, seen, sample))
    {
        Some(value) if value.is_finite() => {
            format!("; stable {} {}", stable.release, metric.show(value))
        }
        _ => String::new(),
    }
}

fn value_of_stable(
    metric: Metric,
    state: &State,
    seen: &Observation,
    sample: &Sample,
) -> Option<f64> {
    let latency = sample.latency;
    match metric {
        Metric::ErrorRate => Some(state.stable.whole(sample).error_rate()),
        Metric::LatencyP50 => latency?.p50_ms,
        Metric::LatencyP90 => latency?.p90_ms,
        Metric::LatencyP99 => latency?.p99_ms,
        Metric::Requests => {
            Some(state.stable.window(sample).requests as f64 / state.stable.seconds_since(seen.at))
        }
        Metric::Cpu => sample.cpu,
        Metric::Memory => sample.memory_bytes,
        Metric::Restarts => sample
            .restarts
            .map(|_| state.stable.whole(sample).restarts as f64),
    }
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
