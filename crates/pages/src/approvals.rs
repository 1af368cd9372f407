//! The inbox of approvals: everything that waits for people, with what they decide about.

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::json;
use shipway_core::{
    ids::ReleaseNumber,
    rollout::RolloutView,
    run::{JobApproval, TestsView},
};

use crate::{
    action_button::{ActionButton, ButtonTone, ReasonField, action_button},
    delivery_lists::{person_cell, release_link},
    foreign_text::{cut_text, foreign_text},
    format::{relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
    list_filters::{FilterField, ListFilters, empty_list, filter_form, next_page},
    release_contents::{ReleasedCommits, commit_list},
};

/// The page of `/approvals`.
#[derive(Clone, Debug)]
pub struct ApprovalsPage {
    /// The newest first.
    pub waiting: Vec<InboxEntry>,
    /// Rollouts that were superseded before they served, the newest first.
    pub superseded: Vec<RolloutView>,
    pub filters: ListFilters,
    pub now: Timestamp,
}

/// A rollout or a job that waits for approval.
#[derive(Clone, Debug)]
pub enum InboxEntry {
    Rollout(Box<InboxRollout>),
    Job(Box<JobApproval>),
}

/// A rollout with what it brings.
#[derive(Clone, Debug)]
pub struct InboxRollout {
    pub rollout: RolloutView,
    /// Since the release that serves there.
    pub commits: ReleasedCommits,
    /// Of the run that built the release.
    pub tests: Option<TestsView>,
}

impl InboxEntry {
    /// Since when it waits.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Rollout(entry) => {
                let gate = entry.rollout.gate.as_ref();
                gate.map_or(entry.rollout.opened_at, |gate| gate.opened_at)
            }
            Self::Job(job) => job.approval.since,
        }
    }
}

impl ApprovalsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let fields = [FilterField::Environment, FilterField::Person];
        let first = html! {
            p { "Nothing waits for an approval. An environment asks for one in " code { "shipway.yaml" } ":" }
            pre { "environments:\n  production:\n    approvals: { count: 1, from: [alice] }" }
        };
        let content = html! {
            h1 { "Approvals" }
            (filter_form("/approvals", &self.filters, &fields))
            @if self.waiting.is_empty() && self.filters.problem.is_none() { (empty_list(&self.filters, "/approvals", &first)) }
            @for entry in &self.waiting { @match entry {
                InboxEntry::Rollout(entry) => (self.rollout(entry)),
                InboxEntry::Job(job) => (self.job(job)),
            } }
            (next_page("/approvals", &self.filters))
            @if !self.superseded.is_empty() { (self.superseded()) }
        };
        let frame = PageFrame {
            title: "Approvals",
            section: Some(NavigationSection::Approvals),
            events: "all",
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn rollout(&self, entry: &InboxRollout) -> Markup {
        let rollout = &entry.rollout;
        let id = &rollout.id;
        let gate = rollout.gate.as_ref();
        html! {
            article.card data-key=(id) {
                h2 {
                    a href={ "/rollouts/" (id.service) "/" (id.number.0) } { (id) } ": " (id.service) " " (rollout.release) " into " (rollout.environment)
                }
                p { (foreign_text(&cut_text(&rollout.subject, 200))) " " code { (rollout.commit) } " · by " (person_cell(&rollout.by)) }
                @if let Some(gate) = gate {
                    p.ask {
                        "Needs " (foreign_text(&gate.spec.to_string())) ", waits since " (relative_time(gate.opened_at, self.now))
                        @for by in gate.approvers() { " · approved by " (person_cell(by)) }
                    }
                }
                p.dim {
                    @match rollout.stable {
                        Some(stable) => { "Replaces " (release_link(&id.service, stable.0)) " · " (compare_link(rollout, stable)) },
                        None => "The first release in this environment.",
                    }
                    @if let Some(tests) = &entry.tests { " · tests: " (tests_text(tests)) }
                }
                details id={ "plan-" (id.service) "-" (id.number.0) } { summary { "Plan: " (rollout.strategy) ", " (rollout.plan.len()) " actions" } ol { @for line in &rollout.plan { li { (foreign_text(&cut_text(&line.text, 300))) } } } }
                details id={ "commits-" (id.service) "-" (id.number.0) } { summary { "Commits: " (entry.commits.commits.len()) @if entry.commits.is_cut { " and more" } } (commit_list(&entry.commits)) }
                (decision_buttons(&rollout_buttons(rollout)))
            }
        }
    }

    fn job(&self, job: &JobApproval) -> Markup {
        let id = &job.id;
        html! {
            article.card data-key={ (id) "/" (job.job) } {
                h2 { a href={ "/runs/" (id.service) "/" (id.number.0) } { (id) } ": job " (foreign_text(&job.job)) " into " (foreign_text(&job.environment)) }
                p { (foreign_text(&cut_text(&job.subject, 200))) " " code { (job.commit.short()) } }
                p.ask { "Needs " (foreign_text(&job.approval.rule.to_string())) ", waits since " (relative_time(job.approval.since, self.now)) @for by in &job.approval.by { " · approved by " (person_cell(by)) } }
                (decision_buttons(&job_buttons(job)))
            }
        }
    }

    fn superseded(&self) -> Markup {
        html! {
            section.superseded {
                h2 { "Superseded" }
                p.dim { "A newer release replaced these before they served. They can't be approved any more." }
                ul { @for rollout in &self.superseded { li {
                    a href={ "/rollouts/" (rollout.id.service) "/" (rollout.id.number.0) } { (rollout.id) } " of " (rollout.release) " into " (rollout.environment) " "
                    (status_badge("superseded")) " " @if let Some(end) = &rollout.ended { (relative_time(end.at, self.now)) }
                } } }
            }
        }
    }
}

fn compare_link(rollout: &RolloutView, stable: ReleaseNumber) -> Markup {
    let service = &rollout.id.service;
    html! { a href={ "/services/" (service) "/compare?from=" (stable.0) "&to=" (rollout.release.0) } { "Compare" } }
}

fn tests_text(tests: &TestsView) -> String {
    let totals = &tests.totals;
    format!(
        "{} passed, {} failed",
        totals.passed,
        totals.failed + totals.errored
    )
}

fn decision_buttons(buttons: &[ActionButton]) -> Markup {
    html! {
        div.actions {
            div.buttons { @for button in buttons { (action_button(button)) } }
            div.dim { @for button in buttons { div { code { (button.command) } } } }
        }
    }
}

/// Both decisions are for what the page shows: the server refuses them if the plan, the artifact or the configuration has changed.
fn rollout_buttons(rollout: &RolloutView) -> [ActionButton; 2] {
    let id = &rollout.id;
    let seen = rollout.gate.as_ref().and_then(|gate| gate.binding.as_ref());
    let body = match seen {
        Some(seen) => json!({ "seen": seen }),
        None => json!({}),
    };
    let button = |label, verb: &str, effect: String, tone| ActionButton {
        label,
        address: format!("/api/v1/rollouts/{}/{}/{verb}", id.service, id.number.0),
        body: body.clone(),
        effect,
        command: format!("shipway {verb} {id}"),
        reason: ReasonField::Optional,
        tone,
    };
    let (release, environment) = (rollout.release, &rollout.environment);
    [
        button(
            "Approve",
            "approve",
            format!(
                "Your approval of {release} for {environment} is recorded. The rollout starts when no further approval is needed."
            ),
            ButtonTone::Strong,
        ),
        button(
            "Reject",
            "reject",
            format!(
                "The rollout {id} ends as rejected, and {release} does not go into {environment}."
            ),
            ButtonTone::Plain,
        ),
    ]
}

fn job_buttons(job: &JobApproval) -> [ActionButton; 2] {
    let (id, key) = (&job.id, &job.job);
    let button = |label, verb: &str, effect: String, tone| ActionButton {
        label,
        address: format!(
            "/api/v1/runs/{}/{}/jobs/{key}/{verb}",
            id.service, id.number.0
        ),
        body: json!({}),
        effect,
        command: format!("shipway {verb} {id} --job {key}"),
        reason: ReasonField::Optional,
        tone,
    };
    [
        button(
            "Approve",
            "approve",
            format!(
                "Your approval of the job {key} is recorded. It starts when no further approval is needed."
            ),
            ButtonTone::Strong,
        ),
        button(
            "Reject",
            "reject",
            format!("The job {key} fails, and with it the run {id}."),
            ButtonTone::Plain,
        ),
    ]
}
