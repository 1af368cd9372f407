//! A run: its jobs and steps with their results, test results, and links to the logs.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{RunDetails, RunTests};
use shipway_core::run::{Annotation, RunStatus, RunView};

use crate::{
    format::{duration_text, enum_text, person_name, status_badge},
    layout::{NavigationSection, PageFrame, page},
    markdown::markdown,
    test_results::{failure_section, test_section},
};

/// The page of `/runs/{service}/{number}`.
#[derive(Clone, Debug)]
pub struct RunPage {
    pub run: RunDetails,
    /// Why it failed; `None` unless it has.
    pub failure_summary: Option<[String; 3]>,
    /// `None` if no job reported tests.
    pub tests: Option<RunTests>,
    pub now: Timestamp,
}

impl RunPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let run = &self.run.run;
        let id = &run.id;
        let content = html! {
            p.dim { a href={ "/services/" (id.service) } { (id.service) } " / " (id.number) }
            h1 { (run_title(run)) " " (status_badge(&enum_text(&run.status))) @if run.attempt > 1 { span.dim { " attempt " (run.attempt) } } }
            p { code { (run.commit.short()) } " " (run.subject) span.dim { " · " (run.name) " · " (run.workflow) " · " (run.event) " · " (run.branch) " · by " (person_name(&run.by)) } }
            @if let Some(reason) = &run.waits_for { p { (reason) } }
            @if let Some(lines) = &self.failure_summary { (failure_section(lines)) }
            @if let Some(tests) = &self.tests { (test_section(tests, self.now)) }
            @if matches!(run.status, RunStatus::Failure | RunStatus::Cancelled) {
                p.dim { "Re-run from the failed step: " code { "shipway retry " (id) " --from-failed-step" } " · re-run failed jobs: " code { "shipway retry " (id) " --failed" } " · re-run all jobs: " code { "shipway retry " (id) } " · open a shell: " code { "shipway shell " (id) } }
            }
            @for job in &run.jobs {
                section.card {
                    h2 { (job.name) " " (status_badge(&enum_text(&job.status))) }
                    @if let Some(environment) = &job.environment { p.dim { "environment " (environment) @if let Some(url) = &job.environment_url { (link_of_job(url)) } } }
                    @if let Some(reason) = &job.waits_for { p { (reason) } }
                    @if let Some(reason) = &job.why { p.trouble { (reason) } }
                    div.scroll { table { tbody { @for step in &job.steps { tr {
                        td.tight { (status_badge(&enum_text(&step.status))) }
                        td { (step.name) @if let Some(attempt) = step.in_attempt { span.dim { " in attempt " (attempt) } } }
                        td.dim.number { @if step.status != RunStatus::Skipped { (duration_text(step.took_ms)) } }
                    } } } } }
                    (annotation_list(&job.annotations))
                    @if let Some(summary) = self.run.summaries.get(&job.key) { details open { summary { "Summary" } (markdown(summary)) } }
                    @if let Some(called) = &job.calls { p.dim { "calls " code { (called) } @if let Some(commit) = &job.calls_commit { " at " code { (commit.short()) } } } }
                    @else if !matches!(job.status, RunStatus::Skipped | RunStatus::Waiting) {
                        @let log = format!("/api/v1/runs/{}/{}/jobs/{}/log", id.service, id.number.0, job.key);
                        // Filled by the script while it is open; without it the link is there.
                        details.log data-log=(log) {
                            summary { "View log · " a.dim href=(log) aria-label={ "raw log of " (job.name) } { "raw" } }
                            pre {}
                        }
                        @for attempt in 1..job.attempt() { " · " a href={ (log) "?attempt=" (attempt) } { "attempt " (attempt) } }
                    }
                }
            }
        };
        let frame = PageFrame {
            title: &id.to_string(),
            section: Some(NavigationSection::Runs),
            events: &format!("stream={}", id.stream()),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

/// The first name of a run that isn't empty.
pub(crate) fn run_title(run: &RunView) -> &str {
    if run.title.is_empty() {
        &run.name
    } else {
        &run.title
    }
}

fn annotation_list(all: &[Annotation]) -> Markup {
    html! {
        @if !all.is_empty() { ul { @for annotation in all {
            li { (status_badge(&enum_text(&annotation.level))) " " (annotation.in_one_line()) }
        } } }
    }
}

/// The address of an environment as its job gave it; a link only if its scheme is that of a web page.
fn link_of_job(url: &str) -> Markup {
    let is_web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    html! {
        @if is_web { " · " a href=(url) rel="nofollow noopener noreferrer" { (url) } }
        @else if !url.is_empty() { " · " (url) }
    }
}
