//! The settings of webhooks: the forges that repositories follow, and what became of their deliveries.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::forge::{ForgeKind, ForgeView, ForkPolicy};

use super::SettingsFrame;
use crate::{foreign_text::foreign_text, format::relative_time};

/// Deliveries that are listed.
const DELIVERIES_SHOWN: usize = 5;

/// The page of `/settings/webhooks`.
#[derive(Clone, Debug)]
pub struct WebhookSettingsPage {
    pub frame: SettingsFrame,
    /// Those of repositories that the visitor may read.
    pub connections: Vec<ForgeView>,
    /// The last refused webhook of each kind of forge, since the server was started.
    pub refusals: Vec<RefusedWebhook>,
    pub now: Timestamp,
}

/// A webhook that was refused: its signature was wrong, so that it is of no known repository.
#[derive(Clone, Debug)]
pub struct RefusedWebhook {
    pub forge: ForgeKind,
    pub at: Timestamp,
    pub reason: String,
}

impl WebhookSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            @if self.connections.is_empty() { (empty()) }
            @for connection in &self.connections { (self.connection(connection)) }
            @if !self.refusals.is_empty() { (self.refused()) }
        };
        self.frame.to_html(&content)
    }

    fn connection(&self, connection: &ForgeView) -> Markup {
        let repository = &connection.repository;
        html! {
            section.card {
                h2 { (connection.forge.title()) " " (foreign_text(&connection.project)) span.dim { " → " (repository) } }
                dl.facts {
                    dt { "URL to enter at the forge" } dd { code { (connection.hook_url) } span.dim { " · content type " code { "application/json" } ", events: pushes and pull requests" } }
                    dt { "Secret" } dd { code { (connection.webhook_secret) } " of " (repository) span.dim { ": the forge signs with its value, which is shown nowhere" } }
                    dt { "Token for reports" } dd { @match &connection.token {
                        Some(token) => code { (token) },
                        None => span.dim { "none: commit statuses and deployments are not written to the forge" },
                    } }
                    dt { "Pull requests of forks" } dd { @match connection.forks {
                        ForkPolicy::Run => "their workflows run, without secrets",
                        ForkPolicy::Ignore => "ignored",
                    } }
                    dt { "Git" } dd { code { (foreign_text(&connection.git_url)) } }
                }
                h3 { "Last webhooks" }
                @if connection.waiting_deliveries > 0 { p { (connection.waiting_deliveries) " accepted, not handled yet" } }
                @if connection.deliveries.is_empty() { p.dim { "None was accepted yet. Enter the URL and the secret at the forge, and send a test there." } }
                ul.plain { @for delivery in connection.deliveries.iter().take(DELIVERIES_SHOWN) {
                    li { (relative_time(delivery.at, self.now)) ": accepted, " (foreign_text(&delivery.outcome)) " " span.dim { (foreign_text(&delivery.id)) } }
                } }
                @if connection.waiting_reports > 0 { p { (connection.waiting_reports) " reports are on their way to the forge" } }
                @if let Some(failed) = connection.failed_reports.first() {
                    p.trouble { "Report given up " (relative_time(failed.at, self.now)) ": " (foreign_text(&failed.why)) }
                }
                p.dim { code { "shipway forge show --service " (repository) } " · " code { "shipway forge disconnect --service " (repository) } }
            }
        }
    }

    fn refused(&self) -> Markup {
        html! {
            section.card {
                h2 { "Refused webhooks" }
                p.dim { "The last of each forge since the server was started. Without a valid signature it is unknown whose they are." }
                ul.plain { @for refusal in &self.refusals {
                    li { strong { (refusal.forge.title()) } " " (relative_time(refusal.at, self.now)) ": " (foreign_text(&refusal.reason)) }
                } }
            }
        }
    }
}

fn empty() -> Markup {
    html! {
        section.empty {
            p { "No repository that you may read follows a forge. A connection makes a push at GitHub, GitLab, Gitea or Forgejo start the workflows here, and reports statuses, deployments and pull request comments back:" }
            pre { "openssl rand -hex 32 | shipway secret set FORGE_WEBHOOK_SECRET --service shop\nshipway secret set FORGE_TOKEN --service shop\nshipway forge connect github acme/shop --service shop --token-secret FORGE_TOKEN" }
            p { "This page then shows the URL to enter at the forge." }
        }
    }
}
