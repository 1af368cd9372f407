//! The lists of runs, rollouts and releases of all services.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::ListedRelease;
use shipway_core::{
    ids::ServiceName,
    rollout::{RolloutKind, RolloutStatus, RolloutView},
    run::{RunStatus, RunView},
};

use crate::{
    foreign_text::{cut_text, foreign_text, visible_text},
    format::{duration_text, enum_text, person_name, relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
    list_filters::{FilterField, ListFilters, empty_list, filter_form, next_page},
    run::run_title,
};

const RUN_STATES: &[&str] = &[
    "waiting",
    "queued",
    "running",
    "success",
    "failure",
    "cancelled",
    "incomplete",
];
const ROLLOUT_STATES: &[&str] = &[
    "waiting",
    "moving",
    "holding",
    "paused",
    "rolling_back",
    "promoted",
    "rolled_back",
    "aborted",
    "rejected",
    "superseded",
    "failed",
];

/// A list over all services.
#[derive(Clone, Debug)]
pub struct ListPage<T> {
    pub entries: Vec<T>,
    pub filters: ListFilters,
    /// The address of the server, for commands.
    pub server_url: String,
    pub now: Timestamp,
}

impl ListPage<RunView> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let fields = [
            FilterField::State(RUN_STATES),
            FilterField::Branch,
            FilterField::Person,
        ];
        let heads = ["Run", "What", "Result", "Branch", "By", "Took", "When"];
        let first = html! {
            p { "No workflow has run yet. A push starts those in " code { ".github/workflows" } ":" }
            pre { "git push " (self.server_url) "/git/my-service main" }
        };
        let rows = html! { @for run in &self.entries { (run_row(run, self.now)) } };
        list_page(
            NavigationSection::Runs,
            "Runs",
            "/runs",
            self,
            &fields,
            &heads,
            &rows,
            &first,
        )
    }
}

impl ListPage<RolloutView> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let fields = [
            FilterField::State(ROLLOUT_STATES),
            FilterField::Environment,
            FilterField::Person,
        ];
        let heads = [
            "Rollout",
            "Release",
            "Environment",
            "Result",
            "By",
            "Took",
            "When",
        ];
        let first = html! {
            p { "Nothing was rolled out yet. A successful run on the released branch makes a release; this command deploys one:" }
            pre { "shipway deploy my-service --env production" }
        };
        let rows = html! { @for rollout in &self.entries { (rollout_row(rollout, self.now)) } };
        list_page(
            NavigationSection::Rollouts,
            "Rollouts",
            "/rollouts",
            self,
            &fields,
            &heads,
            &rows,
            &first,
        )
    }
}

impl ListPage<ListedRelease> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let fields = [FilterField::Branch, FilterField::Person];
        let heads = ["Release", "Commit", "Branch", "By", "Run", "When"];
        let first = html! {
            p { "There is no release yet. A push whose runs succeed makes one:" }
            pre { "git push " (self.server_url) "/git/my-service main" }
        };
        let rows = html! { @for release in &self.entries { (release_row(release, self.now)) } };
        list_page(
            NavigationSection::Releases,
            "Releases",
            "/releases",
            self,
            &fields,
            &heads,
            &rows,
            &first,
        )
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one table")]
fn list_page<T>(
    section: NavigationSection,
    title: &str,
    action: &str,
    list: &ListPage<T>,
    fields: &[FilterField],
    heads: &[&str],
    rows: &Markup,
    first: &Markup,
) -> String {
    let filters = &list.filters;
    let content = html! {
        h1 { (title) }
        (filter_form(action, filters, fields))
        @if list.entries.is_empty() && filters.problem.is_none() { (empty_list(filters, action, first)) }
        @if !list.entries.is_empty() {
            table.cards.list {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { (rows) }
            }
        }
        (next_page(action, filters))
    };
    let frame = PageFrame {
        title,
        section: Some(section),
        events: "all",
        ..PageFrame::default()
    };
    page(&frame, &content)
}

/// The row of a run in lists.
pub(crate) fn run_row(run: &RunView, now: Timestamp) -> Markup {
    let id = &run.id;
    let start = run.started_at.unwrap_or(run.created_at);
    let took = run.finished_at.map(|end| millis_between(start, end));
    html! {
        tr data-key=(id) {
            th scope="row" { a href={ "/runs/" (id.service) "/" (id.number.0) } { (id) } }
            td data-label="What" { (foreign_text(&cut_text(run_title(run), 100))) " " code { (run.commit.short()) } " " span.dim { (visible_text(&cut_text(&run.workflow, 80))) } }
            td data-label="Result" {
                (status_badge(&enum_text(&run.status)))
                @if let Some(why) = run.why.as_ref().filter(|_| run.status != RunStatus::Success) { p.dim { (foreign_text(&cut_text(why, 160))) } }
            }
            td data-label="Branch" { (foreign_text(&cut_text(&run.branch, 60))) }
            td data-label="By" { (person_cell(&run.by)) }
            td.number data-label="Took" { @if let Some(took) = took { (duration_text(took)) } }
            td.tight data-label="When" { (relative_time(run.finished_at.unwrap_or(start), now)) }
        }
    }
}

/// The row of a rollout in lists.
pub(crate) fn rollout_row(rollout: &RolloutView, now: Timestamp) -> Markup {
    let id = &rollout.id;
    let ended = rollout.ended.as_ref();
    let took = ended.map(|end| millis_between(rollout.opened_at, end.at));
    html! {
        tr data-key=(id) {
            th scope="row" { a href={ "/rollouts/" (id.service) "/" (id.number.0) } { (id) } }
            td data-label="Release" {
                (kind_mark(rollout.kind)) (release_link(&id.service, rollout.release.0)) " " code { (rollout.commit) } " "
                (foreign_text(&cut_text(&rollout.subject, 80)))
            }
            td data-label="Environment" { a href={ "/services/" (id.service) "/environments/" (rollout.environment) } { (rollout.environment) } }
            td data-label="Result" {
                (status_badge(&rollout.status.to_string()))
                @if let Some(end) = ended.filter(|_| rollout.status != RolloutStatus::Promoted) { p.dim { (foreign_text(&cut_text(&end.why, 160))) } }
            }
            td data-label="By" { (person_cell(&rollout.by)) }
            td.number data-label="Took" { @if let Some(took) = took { (duration_text(took)) } }
            td.tight data-label="When" { (relative_time(ended.map_or(rollout.opened_at, |end| end.at), now)) }
        }
    }
}

/// Rollback and retry have marks of their own in the history.
pub(crate) fn kind_mark(kind: RolloutKind) -> Markup {
    html! { @match kind {
        RolloutKind::Deploy => {},
        RolloutKind::Rollback => { span.badge.ask { "↩ rollback" } " " },
        RolloutKind::Retry => { span.badge.calm { "↻ retry" } " " },
    } }
}

fn release_row(listed: &ListedRelease, now: Timestamp) -> Markup {
    let (service, release) = (&listed.service, &listed.release);
    html! {
        tr data-key={ (service) "/" (release.number) } {
            th scope="row" { a href={ "/services/" (service) } { (service) } " " (release_link(service, release.number.0)) }
            td data-label="Commit" {
                code { (release.commit.id.short()) } " " (foreign_text(&cut_text(&release.commit.subject, 100)))
                @if release.is_artifact_removed { p.dim { "can't be deployed: the artifact was removed" } }
            }
            td data-label="Branch" { (foreign_text(&cut_text(&listed.branch, 60))) }
            td data-label="By" { (person_cell(listed.by.as_deref().unwrap_or(&release.commit.author))) }
            td data-label="Run" { @if let Some(run) = release.run { a href={ "/runs/" (service) "/" (run.0) } { (run) } } }
            td.tight data-label="When" { (relative_time(release.created_at, now)) }
        }
    }
}

/// The link to the page of a release.
pub(crate) fn release_link(service: &ServiceName, number: u32) -> Markup {
    html! { a href={ "/services/" (service) "/releases/" (number) } { strong { "#" (number) } } }
}

/// Who, without their address.
pub(crate) fn person_cell(by: &str) -> Markup {
    foreign_text(&cut_text(person_name(by), 60))
}

fn millis_between(start: Timestamp, end: Timestamp) -> u64 {
    u64::try_from(end.duration_since(start).as_millis()).unwrap_or_default()
}
