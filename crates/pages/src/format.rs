//! How values are shown on all pages: times, durations, weights, statuses.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{ids::ReleaseNumber, rollout::plan::TrafficSplit};

/// A moment, exact for machines and relative for people.
pub(crate) fn relative_time(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at) title=(at) { (relative_text(at, now)) } }
}

/// How long something has lasted: `3 d`. The script keeps it current.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> Markup {
    let seconds = now.duration_since(since).as_secs().max(0);
    html! { time datetime=(since.strftime("%Y-%m-%dT%H:%M:%SZ")) data-age { (seconds_text(seconds)) } }
}

/// A text as a value in the query of an address.
pub(crate) fn query_text(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A moment to the second, for a story that is compared with other clocks.
pub(crate) fn clock_time(at: Timestamp, now: Timestamp) -> Markup {
    let is_today = now.duration_since(at).as_hours() < 20;
    let format = if is_today {
        "%H:%M:%S"
    } else {
        "%m-%d %H:%M:%S"
    };
    html! { time datetime=(at) title={ (at) ", " (relative_text(at, now)) } { (at.strftime(format)) } }
}

/// Who, without their address.
pub(crate) fn person_name(by: &str) -> &str {
    match by.split_once(" <") {
        Some((name, _)) if !name.is_empty() => name,
        _ => by,
    }
}

/// How long something took: `64 ms`, `12.3 s`, `4 min`.
pub(crate) fn duration_text(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..100_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => seconds_text(i64::try_from(millis / 1_000).unwrap_or(i64::MAX)),
    }
}

/// The share of traffic of each release, as bars and as text; the new release is highlighted.
pub(crate) fn traffic_shares(split: &TrafficSplit, newcomer: Option<ReleaseNumber>) -> Markup {
    let tone = |release| {
        if Some(release) == newcomer {
            "share new"
        } else {
            "share"
        }
    };
    html! {
        div.shares {
            @for (release, weight) in split.releases().filter(|(_, weight)| !weight.is_zero()) {
                meter class=(tone(release)) min="0" max="100" value=(weight.percent()) aria-label={ (weight) " to " (release) } {}
                span { (weight) " to " strong { (release) } @if Some(release) == newcomer { " new" } }
            }
        }
    }
}

/// `12 s ago`, `3 h ago`, `2026-11-21`.
pub(crate) fn relative_text(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        i64::MIN..=-1 => format!("in {}", seconds_text(-seconds)),
        0..=604_800 => format!("{} ago", seconds_text(seconds)),
        _ => at.strftime("%Y-%m-%d").to_string(),
    }
}

fn seconds_text(seconds: i64) -> String {
    match seconds {
        0..=89 => format!("{seconds} s"),
        90..=5_399 => format!("{} min", seconds / 60),
        5_400..=129_599 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A word that says how things are, coloured; the word itself carries the meaning.
pub(crate) fn status_badge(word: &str) -> Markup {
    let tone = match word {
        "promoted" | "success" | "pass" | "ready" | "green" => "good",
        "rolled back" | "degraded" | "failed" | "failure" | "fail" | "rolling back" | "unready"
        | "backoff" | "error" => "bad",
        "paused" | "waiting" | "cancelled" | "incomplete" | "aborted" | "rejected" | "held"
        | "inconclusive" | "warning" => "ask",
        _ => "calm",
    };
    html! { span class={ "badge " (tone) } { (word) } }
}

/// A snake-case word as people read it.
pub(crate) fn enum_text(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(|text| text.replace('_', " ")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_people_tell_them() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (at, told) in [
            ("2026-11-21T11:59:50Z", "10 s ago"),
            ("2026-11-21T11:00:00Z", "60 min ago"),
            ("2026-11-20T12:00:00Z", "24 h ago"),
            ("2026-10-01T00:00:00Z", "2026-10-01"),
        ] {
            assert_eq!(relative_text(at.parse().unwrap(), now), told);
        }
        for (millis, told) in [(64, "64 ms"), (12_345, "12.3 s"), (240_000, "4 min")] {
            assert_eq!(duration_text(millis), told);
        }
    }

    #[test]
    fn a_person_is_shown_without_their_address() {
        for (by, told) in [
            ("Ann <ann@example.com>", "Ann"),
            ("ann", "ann"),
            (" <ann@example.com>", " <ann@example.com>"),
        ] {
            assert_eq!(person_name(by), told);
        }
    }
}
