//! An environment of a service on its pages: the stable release, its health, and the rollout in progress.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::EnvironmentStatus;
use shipway_core::{
    ids::ReleaseNumber,
    rollout::{RolloutOutcome, RolloutView},
    service::EnvironmentHold,
    target::InstancePhase,
};

use crate::{
    action_button::resume_button,
    format::{enum_text, person_name, relative_time, status_badge, traffic_shares},
};

/// One environment of a service.
pub(crate) fn environment_card(environment: &EnvironmentStatus, now: Timestamp) -> Markup {
    let ready = environment
        .instances
        .iter()
        .filter(|status| status.is_ready())
        .count();
    html! {
        article.place {
            header {
                h3 { (environment.environment) }
                a.address href=(environment.url) { (environment.url) }
            }
            @if let Some(problem) = &environment.address_problem {
                p { (problem) }
            }
            @match &environment.stable {
                Some(stable) => p.serves {
                    strong { (stable.number) } " " code { (stable.commit.id.short()) } " " (stable.commit.subject)
                    " " span.dim { (relative_time(stable.created_at, now)) }
                },
                None => p.dim { "Not deployed yet" },
            }
            @if let Some(rollout) = &environment.rollout {
                p {
                    a href={ "/rollouts/" (environment.service) "/" (rollout.id.number.0) } { "rollout " (rollout.id.number) }
                    " of " strong { (rollout.release) } " " (status_badge(&enum_text(&rollout.status)))
                }
                (pause_notice(rollout, now))
            }
            (last_rollout(environment, now))
            @if let Some(degradation) = &environment.degradation {
                p.trouble { (status_badge("degraded")) " since " (relative_time(degradation.since, now)) ": " (degradation.to_string()) }
            }
            (hold_notice(environment, now))
            @if let Some(deletion) = &environment.deletion {
                p.hold { (status_badge("being deleted")) " by " (person_name(&deletion.by)) " " (relative_time(deletion.since, now)) }
            }
            (traffic_shares(&environment.split, newcomer(environment)))
            p.dim {
                @if !environment.instances.is_empty() { (ready) " of " (environment.instances.len()) " instances ready " }
                @for (index, waiting) in environment.queue.iter().enumerate() { @if index == 0 { "queued: " } @else { ", " } (waiting) }
            }
            @for status in environment.instances.iter().filter(|status| !status.is_ready()) {
                p.trouble { "instance " (status.id.slot) " of " (status.id.set.release) ": " (phase_text(&status.phase)) }
            }
            (traffic_table(environment))
        }
    }
}

/// The result of the last rollout that has ended; the reason unless it was promoted.
fn last_rollout(environment: &EnvironmentStatus, now: Timestamp) -> Markup {
    html! {
        @if let Some(last) = environment.last_result() {
            p {
                "last " a href={ "/rollouts/" (environment.service) "/" (last.number.0) } { "rollout " (last.number) }
                " of " strong { (last.release) } " " (status_badge(&last.outcome.to_string()))
                " " span.dim { (relative_time(last.at, now)) }
                @if last.outcome != RolloutOutcome::Promoted { ": " (last.why) }
            }
        }
    }
}

/// Who paused the rollout and why, with the button that resumes it.
fn pause_notice(rollout: &RolloutView, now: Timestamp) -> Markup {
    let id = &rollout.id;
    let address = format!("/api/v1/rollouts/{}/{}/resume", id.service, id.number.0);
    html! {
        @if let Some(pause) = &rollout.paused {
            div.hold {
                (status_badge("paused")) " by " (person_name(&pause.by)) " " (relative_time(pause.since, now)) ": " (pause.reason) ". "
                (resume_button(&address, "The rollout continues where it was paused"))
                " " code { "shipway resume " (id) } " or " code { "shipway abort " (id) }
            }
        }
    }
}

/// Who holds the environment and why, with the button that resumes it.
fn hold_notice(environment: &EnvironmentStatus, now: Timestamp) -> Markup {
    let address = format!(
        "/api/v1/services/{}/environments/{}/resume",
        environment.service, environment.environment
    );
    html! {
        @if let Some(hold) = &environment.hold {
            div.hold {
                (status_badge("held")) " by " (person_name(&hold.by)) " " (relative_time(hold.since, now)) ": " (hold.reason)
                ". Automatic promotion is stopped. "
                (resume_button(&address, &format!("Resume automatic promotion into {}", environment.environment)))
                " " code { (EnvironmentHold::resume_command(&environment.service, &environment.environment)) }
            }
        }
    }
}

/// The release that is on its way in, if it isn't the stable one.
fn newcomer(environment: &EnvironmentStatus) -> Option<ReleaseNumber> {
    let coming = environment.rollout.as_ref().map(|rollout| rollout.release);
    coming.filter(|coming| {
        environment
            .stable
            .as_ref()
            .is_some_and(|stable| stable.number != *coming)
    })
}

fn traffic_table(environment: &EnvironmentStatus) -> Markup {
    let shown: Vec<_> = environment
        .traffic
        .iter()
        .filter(|traffic| {
            traffic.requests + traffic.abandoned + traffic.overdue > 0
                && environment
                    .split
                    .releases()
                    .any(|(release, _)| release == traffic.release)
        })
        .collect();
    html! {
        @if !shown.is_empty() {
            p.dim { "Traffic per release since its first deployment:" }
            div.scroll tabindex="0" { table {
                thead { tr { th { "release" } th.number { "requests" } th.number { "errors" } th.number { "abandoned" } th.number { "unanswered" } th.number { "p50" } th.number { "p99" } } }
                tbody {
                    @for traffic in shown {
                        tr {
                            td { (traffic.release) }
                            td.number { (traffic.requests) }
                            td class={ "number" @if traffic.errors > 0 { " trouble" } } { (traffic.errors) " (" (percent_text(traffic.errors, traffic.requests)) ")" }
                            td class={ "number" @if traffic.abandoned > 0 { " trouble" } } { (traffic.abandoned) }
                            td class={ "number" @if traffic.late + traffic.overdue > 0 { " trouble" } } { (traffic.late + traffic.overdue) }
                            td.number { (latency_text(traffic.p50_ms)) }
                            td.number { (latency_text(traffic.p99_ms)) }
                        }
                    }
                }
            } }
        }
    }
}

fn percent_text(part: u64, whole: u64) -> String {
    format!("{:.2}%", part as f64 * 100.0 / whole.max(1) as f64)
}

fn latency_text(millis: Option<f64>) -> String {
    millis.map_or_else(|| "–".to_owned(), |millis| format!("{millis:.1} ms"))
}

fn phase_text(phase: &InstancePhase) -> String {
    match phase {
        InstancePhase::Starting { why } => format!("starting: {why}"),
        InstancePhase::Ready => "ready".to_owned(),
        InstancePhase::Unready { why } => format!("not ready: {why}"),
        InstancePhase::Backoff { why, .. } => format!("will be restarted: {why}"),
        InstancePhase::Stopping => "stopping".to_owned(),
    }
}
