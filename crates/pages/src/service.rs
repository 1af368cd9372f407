//! A service: its environments, releases, and latest rollouts and runs.

use jiff::Timestamp;
use maud::html;
use shipway_api::EnvironmentStatus;
use shipway_core::{
    rollout::{RolloutStatus, RolloutView},
    run::RunView,
    service::ReleaseView,
};

use crate::{
    environment_card::environment_card,
    foreign_text::{cut_text, visible_text},
    format::{enum_text, person_name, relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
    rollout::kind_prefix,
    run::run_title,
};

/// The page of `/services/{service}`; lists are in descending order.
#[derive(Clone, Debug)]
pub struct ServicePage {
    pub service: String,
    /// In the order of promotion.
    pub environments: Vec<EnvironmentStatus>,
    pub rollouts: Vec<RolloutView>,
    pub runs: Vec<RunView>,
    pub releases: Vec<ReleaseView>,
    pub now: Timestamp,
}

impl ServicePage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let (service, now) = (&self.service, self.now);
        let content = html! {
            h1 { (service) }
            p {
                @for environment in &self.environments {
                    a href={ "/services/" (service) "/environments/" (environment.environment) } { (environment.environment) } " · "
                }
                a href={ "/services/" (service) "/compare" } { "Compare releases" }
            }
            div.places { @for environment in &self.environments { (environment_card(environment, now)) } }
            section.card {
                h2 { "Rollouts" }
                div.scroll tabindex="0" { table { tbody { @for rollout in &self.rollouts { tr {
                    td.tight { a href={ "/rollouts/" (service) "/" (rollout.id.number.0) } { (rollout.id.number) } }
                    td.tight { (kind_prefix(rollout)) (rollout.release) " → " (rollout.environment) }
                    td {
                        (status_badge(&enum_text(&rollout.status)))
                        @if let Some(end) = rollout.ended.as_ref().filter(|_| rollout.status != RolloutStatus::Promoted) { p { (end.why) } }
                    }
                    td.dim.tight { (relative_time(rollout.opened_at, now)) }
                } } } } }
            }
            section.card {
                h2 { "Runs" }
                div.scroll tabindex="0" { table { tbody { @for run in &self.runs { tr {
                    td.tight { a href={ "/runs/" (service) "/" (run.number.0) } { (run.number) } }
                    td { (run_title(run)) " " span.dim { (run.workflow) } }
                    td { (status_badge(&enum_text(&run.status))) }
                    td.dim { (run.commit.short()) }
                } } } } }
            }
            section.card {
                h2 { "Releases" }
                div.scroll tabindex="0" { table { tbody { @for release in &self.releases { tr {
                    td.tight { a href={ "/services/" (service) "/releases/" (release.number.0) } { strong { (release.number) } } }
                    td {
                        code { (release.commit.id.short()) } " " (visible_text(&cut_text(&release.commit.subject, 120)))
                        @if release.is_artifact_removed { p.dim { "can't be deployed: the artifact was removed" } }
                    }
                    td { (visible_text(&cut_text(person_name(&release.commit.author), 40))) }
                    td.dim.tight { (relative_time(release.created_at, now)) }
                } } } } }
            }
        };
        let frame = PageFrame {
            title: service,
            section: Some(NavigationSection::Overview),
            events: &format!("service={service}"),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}
