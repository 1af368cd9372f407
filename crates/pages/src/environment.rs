//! An environment of a service: what serves, its health and addresses, holds, and the history of its rollouts.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::EnvironmentStatus;
use shipway_core::{
    configuration_changes::configured_values, release::Release, rollout::RolloutView,
    target::InstanceStatus,
};

use crate::{
    delivery_lists::{release_link, rollout_row},
    environment_card::environment_card,
    environment_rules::environment_rules,
    foreign_text::foreign_text,
    format::{relative_time, status_badge},
    layout::{NavigationSection, PageFrame, page},
};

/// The page of `/services/{service}/environments/{environment}`.
#[derive(Clone, Debug)]
pub struct EnvironmentPage {
    pub status: EnvironmentStatus,
    /// Since when the stable release serves.
    pub serves_since: Option<Timestamp>,
    /// The release that a rollback without a target returns to.
    pub before: Option<u32>,
    /// The share of time in which the stable release had ready instances, in percent; none if no target runs it.
    pub availability_percent: Option<f64>,
    /// The stable release, whose configuration holds; the newest release where nothing is deployed.
    pub configured: Option<Release>,
    /// The newest first.
    pub rollouts: Vec<RolloutView>,
    /// Whether there are older rollouts.
    pub has_older: bool,
    pub now: Timestamp,
}

impl EnvironmentPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let (service, environment) = (&self.status.service, &self.status.environment);
        let history = format!("/rollouts?service={service}&environment={environment}");
        let content = html! {
            p.dim { a href={ "/services/" (service) } { (service) } " / environments" }
            h1 { (service) " in " (environment) }
            (environment_card(&self.status, self.now))
            section.card { h2 { "Facts" } (self.facts()) }
            @if !self.status.instances.is_empty() { section.card { h2 { "Instances" } (self.instances()) } }
            (self.rules())
            section.card {
                h2 { "History" }
                @if self.rollouts.is_empty() {
                    p { "Nothing was rolled out here yet. A release arrives by itself when the environment before it is promoted; this command deploys one:" }
                    pre { "shipway deploy " (service) " --env " (environment) }
                } @else {
                    table.cards.list { tbody { @for rollout in &self.rollouts { (rollout_row(rollout, self.now)) } } }
                    @if self.has_older { p { a href=(history) { "All rollouts" } } }
                }
            }
        };
        let frame = PageFrame {
            title: &format!("{service} in {environment}"),
            section: Some(NavigationSection::Overview),
            events: &format!("service={service}"),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    fn facts(&self) -> Markup {
        let status = &self.status;
        html! {
            dl.facts {
                dt { "Serves" } dd {
                    @match &status.stable {
                        Some(stable) => { (release_link(&status.service, stable.number.0)) @if let Some(since) = self.serves_since { " since " (relative_time(since, self.now)) } },
                        None => span.dim { "nothing is deployed" },
                    }
                }
                dt { "Before it" } dd { @match self.before {
                    Some(number) => { (release_link(&status.service, number)) " · " code { "shipway rollback " (status.service) " --env " (status.environment) } },
                    None => span.dim { "no earlier release" },
                } }
                dt { "Availability" } dd { @match self.availability_percent {
                    Some(percent) => (format!("{percent:.2}% since the release was first started here")),
                    None => span.dim { "unknown: no target runs the stable release" },
                } }
                dt { "Addresses" } dd {
                    a href=(status.url) { (status.url) }
                    @if let Some(url) = &status.local_url { " · " a href=(url) { (url) } }
                }
                dt { "Badge" } dd { img src={ "/badge/" (status.service) "/" (status.environment) ".svg" } height="20" alt={ "Badge of " (status.environment) }; " " code { "/badge/" (status.service) "/" (status.environment) ".svg" } }
            }
        }
    }

    /// What a rollout into it must wait for, and all values of its configuration.
    fn rules(&self) -> Markup {
        let Some(release) = &self.configured else {
            return html! {};
        };
        let (service, number) = (&release.service, release.number);
        let is_stable = (self.status.stable.as_ref()).is_some_and(|stable| stable.number == number);
        let which = match is_stable {
            true => "which serves",
            false => "the newest release; nothing is deployed here",
        };
        html! {
            section.card {
                h2 { "Rules for rollouts" }
                @match release.environment(&self.status.environment) {
                    None => p { (release_link(service, number.0)) ", " (which) ", does not configure this environment." },
                    Some(config) => {
                        p.dim { "From the " code { "shipway.yaml" } " of " (release_link(service, number.0)) ", " (which) ". A rollout follows the rules of the release that it brings." }
                        (environment_rules(config, self.now))
                        details.commands id="configuration" {
                            summary { "All values of the configuration" }
                            div.scroll tabindex="0" role="region" aria-label="Configuration" { table {
                                thead { tr { th scope="col" { "Key" } th scope="col" { "Value" } } }
                                tbody { @for entry in configured_values(&release.config.run, config) { tr {
                                    th scope="row" { code { (foreign_text(&entry.path)) } }
                                    td { code { (foreign_text(&entry.value)) } }
                                } } }
                            } }
                        }
                    },
                }
            }
        }
    }

    fn instances(&self) -> Markup {
        let row = |instance: &InstanceStatus| {
            html! { tr {
                th scope="row" { code { (instance.id) } }
                td data-label="Health" { @if instance.is_ready() { (status_badge("ready")) } @else { (status_badge("unready")) } }
                td data-label="Restarts" { (instance.restarts) }
                td data-label="Started" { (relative_time(instance.since, self.now)) }
                td { a href={ "/instances/" (instance.id) } aria-label={ "Log of " (instance.id) } { "log" } }
            } }
        };
        html! {
            table.cards {
                thead { tr { th scope="col" { "Instance" } th scope="col" { "Health" } th scope="col" { "Restarts" } th scope="col" { "Started" } th scope="col" { span.visually-hidden { "Log" } } } }
                tbody { @for instance in &self.status.instances { (row(instance)) } }
            }
        }
    }
}
