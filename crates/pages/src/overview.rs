//! The overview: services × environments, each with its release, age, health and rollout.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{
    DeliveryMatrix, EnvironmentCell, MatrixHealth, MatrixQuery, MatrixResult, MatrixRollout,
    MatrixRun, MatrixService, MatrixState,
};
use shipway_core::{
    ids::{EnvironmentName, ServiceName},
    rollout::{RolloutKind, RolloutOutcome, RolloutStatus},
};

use crate::{
    action_button::resume_button,
    foreign_text::{cut_text, visible_text},
    format::{age, enum_text, person_name, status_badge},
    layout::{NavigationSection, PageFrame, page},
};

/// Services on one page: with four environments each, of which half have a rollout, a hold and a failure, that is less than 150 KiB. A
/// script adds the next pages as the table is scrolled.
const SERVICES_ON_PAGE: usize = 50;

/// Environments of a service without a column that a row names.
const OTHERS_SHOWN: usize = 8;

/// The page of `/`.
#[derive(Clone, Debug)]
pub struct OverviewPage {
    /// The services of the query.
    pub matrix: DeliveryMatrix,
    pub query: MatrixQuery,
    /// From 1.
    pub page: usize,
    /// The revision of the overview: the page asks for later changes.
    pub revision: u64,
    /// The address of the server, for the first push.
    pub server_url: String,
    pub now: Timestamp,
}

impl OverviewPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let total = self.matrix.services.len();
        let pages = total.div_ceil(SERVICES_ON_PAGE).max(1);
        let current = self.page.clamp(1, pages);
        let is_filtered = self.query.q.is_some() || self.query.state.is_some();
        let content = html! {
            h1 { "Overview" }
            @if total == 0 && !is_filtered {
                (first_steps(&self.server_url))
            } @else {
                (state_filters(&self.matrix, &self.query))
                // Room for links to services that come into trouble and are on no row of the page.
                @if pages > 1 { p.news id="news" data-keep role="status" {} }
                @if total == 0 { (no_match(&self.query)) }
                @else { (matrix_table(&self.matrix, self.services(current), self.now)) }
                (pager(&self.query, current, pages))
            }
        };
        let frame = PageFrame {
            title: "Overview",
            section: Some(NavigationSection::Overview),
            search: self.query.q.as_deref().unwrap_or_default(),
            changes: &format!("/overview/changes?after={}", self.revision),
            scripts: &["/assets/overview.js"],
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    /// The services of a page. Where there are several pages, those that need a person are on the first ones.
    fn services(&self, current: usize) -> Vec<&MatrixService> {
        let mut services: Vec<&MatrixService> = self.matrix.services.iter().collect();
        if services.len() > SERVICES_ON_PAGE {
            services.sort_by_key(|service| attention_rank(service));
        }
        let page = services.chunks(SERVICES_ON_PAGE).nth(current - 1);
        page.map(<[_]>::to_vec).unwrap_or_default()
    }
}

/// The position of the first state of [`MatrixState::ALL`] that an environment of the service is in.
fn attention_rank(service: &MatrixService) -> usize {
    let mut states = MatrixState::ALL.iter();
    let first = states.position(|state| service.is_in(*state));
    first.unwrap_or(MatrixState::ALL.len())
}

fn first_steps(url: &str) -> Markup {
    html! {
        section.empty {
            p { "Nothing has been pushed yet. In a repository with a " code { "shipway.yaml" } " (" code { "shipway init" } " writes one):" }
            pre { "git push " (url) "/git/my-service main" }
            p { "Or look at a service that is delivered three times, once with a bad release:" }
            pre { "shipway demo" }
        }
    }
}

fn no_match(query: &MatrixQuery) -> Markup {
    html! {
        section.empty {
            p {
                "No service matches"
                @if let Some(text) = &query.q { " “" (visible_text(&cut_text(text, 100))) "”" }
                @if let Some(state) = query.state { " with an environment that is " strong { (state.as_str()) } }
                ". " a href="/" { "Show all services" }
            }
        }
    }
}

/// How many environments are in each state; each is a filter.
fn state_filters(matrix: &DeliveryMatrix, query: &MatrixQuery) -> Markup {
    let address = |state: Option<MatrixState>| {
        let query = MatrixQuery {
            state,
            ..query.clone()
        };
        page_address(&query, 1)
    };
    html! {
        nav.states aria-label="Filter by state" id="states" {
            a href=(address(None)) aria-current=[query.state.is_none().then_some("true")] { "all" }
            @for count in &matrix.counts {
                @let state = count.state;
                a class=(state_tone(state)) data-state=(state.as_str()) href=(address(Some(state))) aria-current=[(query.state == Some(state)).then_some("true")] {
                    (state.as_str()) " " strong { (count.environments) }
                }
            }
        }
    }
}

const fn state_tone(state: MatrixState) -> &'static str {
    match state {
        MatrixState::Red => "bad",
        MatrixState::Held | MatrixState::Waiting => "ask",
        MatrixState::Healthy => "good",
        MatrixState::Moving | MatrixState::Empty => "calm",
    }
}

/// The address of a page of the overview.
fn page_address(query: &MatrixQuery, number: usize) -> String {
    let mut parameters = Vec::new();
    if let Some(text) = &query.q {
        parameters.push(format!("q={}", crate::format::query_text(text)));
    }
    if let Some(state) = query.state {
        parameters.push(format!("state={}", state.as_str()));
    }
    if number > 1 {
        parameters.push(format!("page={number}"));
    }
    match parameters.is_empty() {
        true => "/".to_owned(),
        false => format!("/?{}", parameters.join("&")),
    }
}

fn pager(query: &MatrixQuery, current: usize, pages: usize) -> Markup {
    html! {
        @if pages > 1 {
            nav.pager id="pager" aria-label="Pages" {
                @if current > 1 { a rel="prev" href=(page_address(query, current - 1)) { "Previous" } }
                span { "Page " (current) " of " (pages) }
                @if current < pages { a rel="next" href=(page_address(query, current + 1)) { "Next" } }
            }
        }
    }
}

fn matrix_table(matrix: &DeliveryMatrix, services: Vec<&MatrixService>, now: Timestamp) -> Markup {
    html! {
        table.matrix.cards {
            thead { tr {
                th scope="col" { "Service" }
                @for column in &matrix.columns { th scope="col" { (column) } }
                @if has_others(matrix) { th scope="col" { "Other environments" } }
            } }
            tbody { @for service in services { (service_row(service, &matrix.columns, now)) } }
        }
    }
}

/// Whether a service has an environment without a column.
fn has_others(matrix: &DeliveryMatrix) -> bool {
    let mut services = matrix.services.iter();
    services.any(|service| {
        let mut cells = service.environments.iter();
        cells.any(|cell| !matrix.columns.contains(&cell.environment))
    })
}

/// The row of a service, for a page that is open.
#[must_use]
pub fn overview_row(
    service: &MatrixService,
    columns: &[EnvironmentName],
    now: Timestamp,
) -> String {
    service_row(service, columns, now).into_string()
}

/// Whether an environment of the service is in trouble.
#[must_use]
pub fn has_trouble(service: &MatrixService) -> bool {
    service.is_in(MatrixState::Red)
}

/// The id of a row.
#[must_use]
pub fn overview_row_id(service: &ServiceName) -> String {
    format!("s-{service}")
}

fn service_row(service: &MatrixService, columns: &[EnvironmentName], now: Timestamp) -> Markup {
    let name = &service.service;
    let find = |column: &EnvironmentName| {
        let mut cells = service.environments.iter();
        cells.find(|cell| cell.environment == *column)
    };
    let others = service.environments.iter();
    let others: Vec<_> = others
        .filter(|cell| !columns.contains(&cell.environment))
        .collect();
    html! {
        tr id=(overview_row_id(name)) {
            th scope="row" {
                a href={ "/services/" (name) } { (name) }
                @if let Some(run) = &service.last_run { (run_result(run)) }
            }
            @for column in columns {
                @match find(column) {
                    Some(cell) => td class=(cell_tone(cell)) data-label=(column) { (cell_content(name, cell, now)) },
                    None => td {},
                }
            }
            @if !others.is_empty() {
                td {
                    @for cell in others.iter().take(OTHERS_SHOWN) { div class=(cell_tone(cell)) { (cell.environment) ": " (cell_content(name, cell, now)) } }
                    @if others.len() > OTHERS_SHOWN { a href={ "/services/" (name) } { "and " (others.len() - OTHERS_SHOWN) " more" } }
                }
            }
        }
    }
}

fn run_result(run: &MatrixRun) -> Markup {
    html! {
        a.run href={ "/runs/" (run.id.service) "/" (run.id.number.0) } title=(run.workflow) { (run.id.number) " " (status_badge(&enum_text(&run.status))) }
    }
}

fn cell_tone(cell: &EnvironmentCell) -> &'static str {
    match cell.states.first() {
        Some(MatrixState::Red) => "red",
        Some(MatrixState::Held | MatrixState::Waiting) => "held",
        _ => "",
    }
}

fn cell_content(service: &ServiceName, cell: &EnvironmentCell, now: Timestamp) -> Markup {
    let address = format!("/services/{service}/environments/{}", cell.environment);
    html! {
        @match &cell.release {
            Some(release) => {
                a.version href=(address) title=(cut_text(&release.subject, 72)) { strong { (release.number) } " " code { (release.commit.short()) } }
                " "
                @if let Some(since) = cell.serves_since { (age(since, now)) " " }
                (health_mark(cell))
            },
            None => a.version href=(address) { span.dim { "not deployed" } },
        }
        @if let Some(rollout) = &cell.rollout { (moving(rollout)) }
        @if let Some(last) = &cell.last_rollout { (last_result(service, last, now)) }
        @if let Some(hold) = &cell.hold {
            div.note.ask {
                "held by " (visible_text(&cut_text(person_name(&hold.by), 40))) ": " (visible_text(&cut_text(&hold.reason, 80))) " "
                (resume_button(&format!("/api/v1{address}/resume"), &format!("Resume automatic promotion into {}", cell.environment)))
            }
        }
        @if !cell.queue.is_empty() { p.note { "queued: " @for (index, release) in cell.queue.iter().take(3).enumerate() { @if index > 0 { ", " } (release) } } }
        @if cell.deletion.is_some() { p.note.ask { "being deleted" } }
    }
}

fn health_mark(cell: &EnvironmentCell) -> Markup {
    let problem = cell.problem.as_deref().map(|text| cut_text(text, 120));
    html! {
        @match cell.health {
            MatrixHealth::Healthy => span.ok { "healthy" },
            MatrixHealth::Degraded => span.no title=[problem] { "degraded" },
            MatrixHealth::Unknown => span.dim { "no instances" },
            MatrixHealth::Empty => {},
        }
    }
}

/// Where a rollout in progress is: `moving to #5, 10%`. After its promotion a release is only watched.
fn moving(rollout: &MatrixRollout) -> Markup {
    let address = format!("/rollouts/{}/{}", rollout.id.service, rollout.id.number.0);
    if rollout.status == RolloutStatus::Promoted {
        return html! { p.note { a href=(address) { "watching " (rollout.release) " after its promotion" } } };
    }
    let verb = match rollout.kind {
        RolloutKind::Rollback => "rolling back to",
        RolloutKind::Deploy | RolloutKind::Retry => "moving to",
    };
    html! {
        p.note {
            a href=(address) { (verb) " " (rollout.release) ", " (rollout.weight) }
            " " (status_badge(&rollout.status.to_string()))
            @if let Some(pause) = &rollout.paused { " by " (visible_text(&cut_text(person_name(&pause.by), 40))) ": " (visible_text(&cut_text(&pause.reason, 80))) }
            @else { span.dim { " by " (visible_text(&cut_text(person_name(&rollout.by), 40))) } }
        }
    }
}

/// The last rollout, where its release did not stay.
fn last_result(service: &ServiceName, last: &MatrixResult, now: Timestamp) -> Markup {
    html! {
        @if !matches!(last.outcome, RolloutOutcome::Promoted | RolloutOutcome::Superseded) {
            p.note title=(cut_text(&last.why, 160)) {
                a href={ "/rollouts/" (service) "/" (last.number.0) } { (last.number) }
                " of " (last.release) " " (status_badge(&last.outcome.to_string())) " " (age(last.at, now))
            }
        }
    }
}
