//! A run: its jobs and steps, and the log, which opens at the line that explains the failure; the job graph, annotations, tests,
//! artifacts, and the release with its rollouts.

mod job_graph;
mod job_list;
mod log_panel;
mod made_by_run;
mod run_actions;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{RunDetails, RunTests};
use shipway_core::{
    release::Release,
    rollout::RolloutView,
    run::{JobView, RunStatus, RunView, blamed},
};

pub use self::log_panel::{
    LogSearchOutcome, LogSearchResults, ShownLog, log_fragment, log_search_fragment,
};
use self::{
    job_graph::graph_section,
    job_list::job_list,
    log_panel::log_panel,
    made_by_run::{annotation_section, artifact_section, release_section, summary_section},
    run_actions::run_actions,
};
use crate::{
    action_button::action_bar,
    foreign_text::{cut_text, foreign_text},
    format::{duration_text, enum_text, person_name, relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
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
    /// The log that is shown next to the jobs.
    pub log: ShownLog,
    /// A search in that log.
    pub search: Option<LogSearchResults>,
    /// The releases that it made, with their rollouts.
    pub releases: Vec<(Release, Vec<RolloutView>)>,
    pub now: Timestamp,
}

impl RunPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let run = &self.run.run;
        let id = &run.id;
        let content = html! {
            p.dim { a href={ "/services/" (id.service) } { (id.service) } " / " (id.number) }
            h1 { (foreign_text(run_title(run))) " " (status_badge(&enum_text(&run.status))) @if run.attempt > 1 { span.dim { " attempt " (run.attempt) } } }
            (about_run(run, self.now))
            @if let Some(reason) = &run.waits_for { p { (foreign_text(reason)) } }
            @if let Some(lines) = &self.failure_summary { (failure_section(lines)) }
            (action_bar(&run_actions(run)))
            div.run-columns id="columns" {
                (job_list(run, &self.log))
                (log_panel(run, &self.log, self.search.as_ref()))
            }
            (graph_section(run))
            (annotation_section(run))
            @if let Some(tests) = &self.tests { (test_section(tests, self.now)) }
            (artifact_section(run))
            (release_section(run, &self.releases, self.now))
            (summary_section(&self.run))
        };
        let title = cut_text(&format!("{} {id}", run_title(run)), 80);
        let frame = PageFrame {
            title: &title,
            section: Some(NavigationSection::Runs),
            events: &format!("stream={}", id.stream()),
            scripts: &["/assets/log_view.js"],
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

fn about_run(run: &RunView, now: Timestamp) -> Markup {
    html! {
        p {
            code { (run.commit.short()) } " " (foreign_text(&run.subject))
            span.dim {
                " · " (foreign_text(&run.name)) " · " (foreign_text(&run.workflow)) " · " (run.event) " · " (foreign_text(&run.branch)) " · by " (foreign_text(person_name(&run.by)))
                " · " (relative_time(run.created_at, now))
                @if let Some(took) = run_duration(run) { " · took " (duration_text(took)) }
            }
        }
    }
}

fn run_duration(run: &RunView) -> Option<u64> {
    duration_between(run.started_at?, run.finished_at?)
}

/// How long something took, in milliseconds.
fn duration_between(start: Timestamp, end: Timestamp) -> Option<u64> {
    u64::try_from(end.duration_since(start).as_millis()).ok()
}

/// The job whose log a page shows when none is named: the one that a failure is blamed on, one that runs, or the last that ended.
#[must_use]
pub fn default_job(run: &RunView) -> Option<&JobView> {
    let has_log = |job: &&JobView| job.calls.is_none() && job.started_at.is_some();
    let with_log = || run.jobs.iter().filter(has_log);
    blamed(run)
        .filter(has_log)
        .or_else(|| with_log().find(|job| job.status == RunStatus::Running))
        .or_else(|| with_log().max_by_key(|job| job.finished_at))
        .or_else(|| run.jobs.iter().find(|job| job.calls.is_none()))
}

/// The first name of a run that isn't empty.
pub(crate) fn run_title(run: &RunView) -> &str {
    if run.title.is_empty() {
        &run.name
    } else {
        &run.title
    }
}
