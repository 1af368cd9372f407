//! The jobs of a run with their steps, times and results; each step leads to its lines in the log.

use maud::{Markup, html};
use shipway_api::LogStep;
use shipway_core::run::{JobView, RunStatus, RunView};

use super::{duration_between, log_panel::ShownLog};
use crate::{
    foreign_text::{cut_text, foreign_text},
    format::{duration_text, enum_text, status_badge},
};

/// Jobs of a run of more than this many are closed unless they failed or their log is shown.
const OPEN_JOBS_MAX: usize = 8;

pub(super) fn job_list(run: &RunView, log: &ShownLog) -> Markup {
    html! {
        nav.jobs aria-label="Jobs and steps" {
            @if run.jobs.is_empty() { p.dim { "This run has no jobs. Its workflow could not be read, or every job was left out: see the reason above." } }
            @for job in &run.jobs { (job_entry(run, job, log)) }
        }
    }
}

fn job_entry(run: &RunView, job: &JobView, log: &ShownLog) -> Markup {
    let is_shown = log.job() == Some(job.key.as_str());
    let is_open = is_shown
        || run.jobs.len() <= OPEN_JOBS_MAX
        || matches!(job.status, RunStatus::Failure | RunStatus::Running);
    html! {
        details.job id={ "job-" (job.key) } open[is_open] aria-current=[is_shown.then_some("true")] {
            summary { (status_badge(&enum_text(&job.status))) " " (foreign_text(&job.name)) " " span.dim.number { (job_duration(job)) } }
            @if let Some(environment) = &job.environment { p.dim { "environment " (foreign_text(environment)) @if let Some(url) = &job.environment_url { (link_of_job(url)) } } }
            @if let Some(reason) = &job.waits_for { p { (foreign_text(reason)) } }
            @if let Some(reason) = &job.why { p class=(if job.status == RunStatus::Skipped { "dim" } else { "trouble" }) { (foreign_text(reason)) } }
            @if let Some(called) = &job.calls { p.dim { "calls " code { (foreign_text(called)) } @if let Some(commit) = &job.calls_commit { " at " code { (commit.short()) } } } }
            @else { (step_list(run, job, log)) }
        }
    }
}

fn step_list(run: &RunView, job: &JobView, log: &ShownLog) -> Markup {
    let live = log.steps_of(&job.key);
    let address = log_address(run, job);
    let is_silent = matches!(
        job.status,
        RunStatus::Skipped | RunStatus::Waiting | RunStatus::Queued
    );
    html! {
        ol.steps {
            @for (index, step) in job.steps.iter().enumerate() { li {
                (status_badge(&enum_text(&step.status))) " "
                @if step.status == RunStatus::Skipped { (foreign_text(&step.name)) }
                @else { a href={ (address) "&step=" (index) "#" (job.key) ":" (index) } data-log-link { (foreign_text(&step.name)) } }
                @if let Some(attempt) = step.in_attempt { span.dim { " in attempt " (attempt) } }
                @if step.status != RunStatus::Skipped { span.dim.number { " " (duration_text(step.took_ms)) } }
            } }
            @for step in live.iter().filter(|step| step.status == RunStatus::Running) { (running_step(step, &address)) }
        }
        @if !is_silent {
            p.dim {
                a href={ (address) "&at=failure" } data-log-link { "Log" } " · "
                a href={ "/api/v1/runs/" (run.id.service) "/" (run.id.number.0) "/jobs/" (job.key) "/log" } aria-label={ "raw log of " (cut_text(&job.name, 120)) } { "raw" }
                @for attempt in 1..job.attempt() { " · " a href={ (address) "&attempt=" (attempt) "&at=failure" } data-log-link { "attempt " (attempt) } }
            }
        }
    }
}

fn running_step(step: &LogStep, address: &str) -> Markup {
    html! { li {
        (status_badge("running")) " " a href={ (address) "&step=" (step.index) } data-log-link { (foreign_text(&step.name)) }
        span.dim.number { " since " time datetime=(step.started_at) { (step.started_at.strftime("%H:%M:%S")) } " UTC" }
    } }
}

/// The address of the page with the log of a job; parameters follow.
fn log_address(run: &RunView, job: &JobView) -> String {
    format!(
        "/runs/{}/{}?job={}",
        run.id.service, run.id.number.0, job.key
    )
}

fn job_duration(job: &JobView) -> Markup {
    let took = job
        .started_at
        .zip(job.finished_at)
        .and_then(|(start, end)| duration_between(start, end));
    html! {
        @match (took, job.started_at) {
            (Some(took), _) => { (duration_text(took)) },
            (None, Some(start)) if job.status == RunStatus::Running => { "since " time datetime=(start) { (start.strftime("%H:%M:%S")) } " UTC" },
            (None, _) => {},
        }
    }
}

/// The address of an environment as its job gave it; a link only if its scheme is that of a web page.
fn link_of_job(url: &str) -> Markup {
    let is_web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    html! {
        @if is_web { " · " a href=(url) rel="nofollow noopener noreferrer" { (foreign_text(url)) } }
        @else if !url.is_empty() { " · " (foreign_text(url)) }
    }
}
