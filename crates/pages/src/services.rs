//! Services and their environments: the stable release, its health, and the rollout in progress.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::EnvironmentStatus;
use shipway_core::{
    ids::{ReleaseNumber, ServiceName},
    rollout::{RolloutOutcome, RolloutView},
    run::RunView,
    service::EnvironmentHold,
    target::InstancePhase,
};

use crate::{
    format::{enum_text, person_name, relative_time, status_badge, traffic_shares},
    layout::{NavigationSection, PageFrame, page},
    run::run_title,
};

/// The page of `/`.
#[derive(Clone, Debug)]
pub struct ServicesPage {
    /// Ordered by service, and within each in the order of promotion.
    pub environments: Vec<EnvironmentStatus>,
    /// The newest run of each workflow, by service.
    pub last_runs: BTreeMap<ServiceName, Vec<RunView>>,
    /// The address of the server, for the first push.
    pub server_url: String,
    pub now: Timestamp,
}

impl ServicesPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let services: Vec<&[EnvironmentStatus]> = self
            .environments
            .chunk_by(|a, b| a.service == b.service)
            .collect();
        let content = html! {
            h1 { "Services" }
            @if services.is_empty() {
                section.card { (first_steps(&self.server_url)) }
            }
            @for environments in &services {
                @let name = &environments[0].service;
                section.card {
                    h2 { a href={ "/services/" (name) } { (name) } }
                    div.places { @for environment in *environments { (environment_card(environment, self.now)) } }
                    @for run in self.last_runs.get(name).into_iter().flatten() { (last_run(run, self.now)) }
                }
            }
        };
        let frame = PageFrame {
            title: "Services",
            section: Some(NavigationSection::Overview),
            events: "all",
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

fn first_steps(url: &str) -> Markup {
    html! {
        p { "Nothing has been pushed yet. In a repository with a " code { "shipway.yaml" } " (" code { "shipway init" } " writes one):" }
        pre { "git push " (url) "/git/my-service main" }
    }
}

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
            p.hold {
                (status_badge("paused")) " by " (person_name(&pause.by)) " " (relative_time(pause.since, now)) ": " (pause.reason) ". "
                button type="button" data-post=(address) { "Resume" }
                " " code { "shipway resume " (id) } " or " code { "shipway abort " (id) }
            }
        }
    }
}

/// The result of the newest run of a workflow.
fn last_run(run: &RunView, now: Timestamp) -> Markup {
    let since = run.finished_at.unwrap_or(run.created_at);
    html! {
        p {
            "last " a href={ "/runs/" (run.id.service) "/" (run.number.0) } { "run " (run.number) }
            " of " (run.workflow) " " (status_badge(&enum_text(&run.status)))
            " " span.dim { (relative_time(since, now)) } " " (run_title(run))
            @if let Some(reason) = &run.waits_for { ": " (reason) }
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
            p.hold {
                (status_badge("held")) " by " (person_name(&hold.by)) " " (relative_time(hold.since, now)) ": " (hold.reason)
                ". Automatic promotion is stopped. "
                button type="button" data-post=(address) { "Resume" }
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
            div.scroll { table {
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
