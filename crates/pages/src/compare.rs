//! The difference of two releases of a service.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{
    configuration_changes::ConfigurationChange,
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    release::Release,
};

use crate::{
    delivery_lists::release_link,
    foreign_text::{cut_text, foreign_text},
    format::relative_time,
    layout::{NavigationSection, PageFrame, page},
    release_contents::{ReleasedCommits, commit_list, configuration_table},
};

/// The page of `/services/{service}/compare`.
#[derive(Clone, Debug)]
pub struct ComparePage {
    pub service: ServiceName,
    /// Releases to choose from, the newest first.
    pub releases: Vec<(ReleaseNumber, String)>,
    /// In the order of promotion.
    pub environments: Vec<EnvironmentName>,
    pub from: Option<Release>,
    pub to: Option<Release>,
    /// In `to` and not in `from`.
    pub commits: ReleasedCommits,
    /// In `from` and not in `to`.
    pub commits_lost: ReleasedCommits,
    pub changes: Vec<ConfigurationChange>,
    /// Why nothing can be compared.
    pub problem: Option<String>,
    pub now: Timestamp,
}

impl ComparePage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let service = &self.service;
        let content = html! {
            p.dim { a href={ "/services/" (service) } { (service) } " / compare" }
            h1 { "Compare releases of " (service) }
            form.filters action={ "/services/" (service) "/compare" } {
                (self.choice("from", "From", self.from.as_ref()))
                (self.choice("to", "To", self.to.as_ref()))
                button type="submit" { "Compare" }
            }
            p.actions {
                @for environment in &self.environments {
                    a.button href={ "/services/" (service) "/compare?environment=" (environment) "&since=24h" } { "In " (environment) " and not yesterday" }
                }
            }
            @if let Some(problem) = &self.problem { section.empty { p { (foreign_text(problem)) } } }
            @if let (Some(from), Some(to)) = (&self.from, &self.to) { (self.comparison(from, to)) }
        };
        let frame = PageFrame {
            title: &format!("Compare {service}"),
            section: Some(NavigationSection::Releases),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn choice(&self, name: &str, label: &str, chosen: Option<&Release>) -> Markup {
        let chosen = chosen.map(|release| release.number);
        html! {
            label { (label) select name=(name) {
                @if let Some(number) = chosen.filter(|number| !self.releases.iter().any(|(known, _)| known == number)) { option value=(number.0) selected { (number) } }
                @for (number, subject) in &self.releases { option value=(number.0) selected[chosen == Some(*number)] { (number) " " (cut_text(subject, 40)) } }
            } }
        }
    }

    fn comparison(&self, from: &Release, to: &Release) -> Markup {
        let service = &self.service;
        let same_artifact = from.artifact == to.artifact;
        html! {
            h2 { (release_link(service, from.number.0)) " → " (release_link(service, to.number.0)) }
            p.dim { "made " (relative_time(from.created_at, self.now)) " and " (relative_time(to.created_at, self.now)) }
            section.card { h2 { "Commits" } (commit_list(&self.commits)) }
            @if !self.commits_lost.commits.is_empty() {
                section.card { h2 { "Commits that " (to.number) " doesn't have" } (commit_list(&self.commits_lost)) }
            }
            section.card { h2 { "Configuration" } (configuration_table(&self.changes)) }
            section.card {
                h2 { "Artifact" }
                @if same_artifact { p { "Both have the same artifact, " code { (to.artifact) } "." } }
                @else { dl.facts { dt { (from.number) } dd { code { (from.artifact) } } dt { (to.number) } dd { code { (to.artifact) } } } }
            }
        }
    }
}
