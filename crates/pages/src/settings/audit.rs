//! Who changed what, the newest first.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::audit::{AuditArea, AuditEntry};

use super::SettingsFrame;
use crate::{
    foreign_text::foreign_text,
    format::relative_text,
    list_filters::{FilterField, ListFilters, empty_list, filter_form, next_page},
};

/// The page of `/settings/audit`.
#[derive(Clone, Debug)]
pub struct AuditSettingsPage {
    pub frame: SettingsFrame,
    /// The newest first.
    pub entries: Vec<AuditEntry>,
    pub filters: ListFilters,
    pub now: Timestamp,
}

impl AuditSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let address = self.frame.current.address;
        let first = html! {
            p { "No change is recorded yet. Changes of users, groups, tokens, secrets and forges, decisions at gates, deploys, rollbacks and holds are listed here, with who made them." }
            p { "The same as JSON: " code { "GET /api/v1/audit" } "." }
        };
        let content = html! {
            section.card {
                h2 { "Who changed what" }
                (filter_form(address, &self.filters, &[FilterField::Person]))
                @if self.entries.is_empty() { (empty_list(&self.filters, address, &first)) }
                @else {
                    table.cards {
                        thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Where" } } }
                        tbody { @for entry in &self.entries { (self.entry(entry)) } }
                    }
                }
                (next_page(address, &self.filters))
            }
        };
        self.frame.to_html(&content)
    }

    fn entry(&self, entry: &AuditEntry) -> Markup {
        html! { tr {
            td.tight data-label="When" { time datetime=(entry.at) title=(relative_text(entry.at, self.now)) { (entry.at.strftime("%Y-%m-%d %H:%M:%S")) } }
            th scope="row" title=(entry.principal) { (foreign_text(&entry.by)) @if let Some(token) = &entry.token { " " span.dim { "with token " (token) } } }
            td data-label="What" { (foreign_text(&entry.change)) }
            td data-label="Where" { (changed_object(entry)) }
        } }
    }
}

/// A link to the page of the changed object.
fn changed_object(entry: &AuditEntry) -> Markup {
    let parts: Vec<&str> = entry.stream.split('/').collect();
    let (address, text) = match (parts.as_slice(), entry.area) {
        (["rollout", service, number], _) => (
            format!("/rollouts/{service}/{number}"),
            format!("{service}/ro{number}"),
        ),
        (["run", service, number], _) => (
            format!("/runs/{service}/{number}"),
            format!("{service}/r{number}"),
        ),
        (["service", service], _) => match &entry.environment {
            Some(environment) => (
                format!("/services/{service}/environments/{environment}"),
                format!("{service} in {environment}"),
            ),
            None => (format!("/services/{service}"), (*service).to_owned()),
        },
        (_, AuditArea::Secrets) => {
            let service = entry.service.as_ref();
            let service = service.map_or_else(|| "all services".to_owned(), ToString::to_string);
            (
                "/settings/secrets".to_owned(),
                format!("secrets of {service}"),
            )
        }
        (_, AuditArea::Forges) => ("/settings/webhooks".to_owned(), "webhooks".to_owned()),
        (_, AuditArea::Access | AuditArea::Delivery | AuditArea::Gates) => {
            ("/settings/users".to_owned(), "users".to_owned())
        }
    };
    html! { a href=(address) { (text) } }
}
