//! The settings of secrets: their names, scopes, versions and uses. A value is sent to the server and never back.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{ids::ServiceName, secret::SecretView};

use super::SettingsFrame;
use crate::{
    foreign_text::foreign_text,
    format::{person_name, relative_time},
};

/// The page of `/settings/secrets`.
#[derive(Clone, Debug)]
pub struct SecretSettingsPage {
    pub frame: SettingsFrame,
    /// Those that the visitor may list.
    pub secrets: Vec<SecretRow>,
    /// Services that the forms suggest.
    pub services: Vec<ServiceName>,
    /// Environments that the forms suggest.
    pub environments: Vec<String>,
    pub access: SecretPermission,
    pub now: Timestamp,
}

/// A secret on the page.
#[derive(Clone, Debug)]
pub struct SecretRow {
    pub secret: SecretView,
    pub access: SecretPermission,
}

/// What the visitor may do with a secret, or with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretPermission {
    List,
    Change,
}

impl SecretSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            div.card {
                h2 { "Secrets" }
                p.dim { "A job gets the secrets of its service and environment as " code { "${{ secrets.NAME }}" } ", after its approvals; a configuration names one as " code { "$NAME" } ". Values are encrypted, and no page, command or API returns them." }
                @if self.secrets.is_empty() { (self.empty()) } @else { (self.table()) }
            }
            @if self.access == SecretPermission::Change { div.card { h2 { "Add a secret" } (self.add_form()) } }
        };
        self.frame.to_html(&content)
    }

    fn empty(&self) -> Markup {
        html! { section.empty {
            @match self.access {
                SecretPermission::Change => {
                    p { "No secret is set yet. Add one below, or from the command line:" }
                    pre { "shipway secret set NAME --service SERVICE --env ENVIRONMENT\nshipway secret import .env --service SERVICE" }
                },
                SecretPermission::List => p { "No secret is set that you may list. An administrator sets secrets; the role " code { "deployer" } " lists those of its services." },
            }
        } }
    }

    fn table(&self) -> Markup {
        html! {
            table.cards {
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "Service" } th scope="col" { "Environment" } th.number scope="col" { "Version" }
                    th scope="col" { "Changed" } th scope="col" { "Last used" } th scope="col" { span.visually-hidden { "Change" } }
                } }
                tbody { @for row in &self.secrets { (self.row(row)) } }
            }
        }
    }

    fn row(&self, row: &SecretRow) -> Markup {
        let secret = &row.secret;
        let last_use = secret.uses.iter().max_by_key(|used| used.at);
        html! { tr {
            th scope="row" { code { (secret.name) } }
            td data-label="Service" { @match &secret.service { Some(service) => (service), None => "all services" } }
            td data-label="Environment" { @match &secret.environment { Some(environment) => (environment), None => "all environments" } }
            td.number data-label="Version" { (secret.version) }
            td data-label="Changed" { (relative_time(secret.changed_at, self.now)) " by " (foreign_text(person_name(&secret.changed_by))) }
            td data-label="Last used" { @match last_use {
                Some(used) => { (relative_time(used.at, self.now)) ", " (foreign_text(&used.user)) },
                None => span.dim { "this version never" },
            } }
            td { @if row.access == SecretPermission::Change { (self.row_forms(secret)) } }
        } }
    }

    fn row_forms(&self, secret: &SecretView) -> Markup {
        let object = html! {
            input type="hidden" name="name" value=(secret.name);
            input type="hidden" name="service" value=[secret.service.as_ref()];
            input type="hidden" name="environment" value=[secret.environment.as_ref()];
        };
        html! {
            details {
                summary aria-label={ "Change " (secret.name) } { "Change" }
                (self.frame.form("set_secret", &html! {
                    (object)
                    input type="hidden" name="version" value=(secret.version);
                    (value_field("New value"))
                    button type="submit" { "Set" }
                }))
                (self.frame.form("remove_secret", &html! {
                    (object)
                    button.danger type="submit" aria-label={ "Remove " (secret.name) } { "Remove" }
                }))
            }
        }
    }

    fn add_form(&self) -> Markup {
        self.frame.form("set_secret", &html! {
            input type="hidden" name="version" value="0";
            label { "Name" input name="name" required maxlength="100" pattern="[A-Za-z_][A-Za-z0-9_]*" placeholder="API_KEY" autocapitalize="characters" autocomplete="off" spellcheck="false"; }
            label { "Service (empty: all)" input name="service" maxlength="63" list="known-services" autocapitalize="none" autocomplete="off" spellcheck="false"; }
            label { "Environment (empty: all)" input name="environment" maxlength="63" list="known-environments" autocapitalize="none" autocomplete="off" spellcheck="false"; }
            (value_field("Value"))
            datalist id="known-services" { @for service in &self.services { option value=(service) {} } }
            datalist id="known-environments" { @for environment in &self.environments { option value=(environment) {} } }
            button.primary type="submit" { "Add" }
        })
    }
}

/// Several lines: a key of a certificate has some.
fn value_field(label: &str) -> Markup {
    html! { label { (label) textarea name="value" rows="2" required autocomplete="off" autocapitalize="none" spellcheck="false" {} } }
}
