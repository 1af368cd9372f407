//! The settings: the frame of their pages, with the navigation, forms and the problem of the last form.

mod audit;
mod groups;
mod retention;
mod secrets;
mod tokens;
mod users;
mod webhooks;

use std::collections::BTreeSet;

use maud::{Markup, html};
use shipway_core::{access::RoleBinding, ids::GroupName};

pub use audit::AuditSettingsPage;
pub use groups::GroupSettingsPage;
pub use retention::{FinishedRemoval, RetentionResult, RetentionSettingsPage, StoredFiles};
pub use secrets::{SecretPermission, SecretRow, SecretSettingsPage};
pub use tokens::TokenSettingsPage;
pub use users::UserSettingsPage;
pub use webhooks::{RefusedWebhook, WebhookSettingsPage};

use crate::{
    account_frame::csrf_mark,
    foreign_text::foreign_text,
    layout::{NavigationSection, PageFrame, page},
};

/// A page of the settings in their navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsLink {
    pub address: &'static str,
    pub title: &'static str,
}

/// What surrounds the content of a page of the settings.
#[derive(Clone, Debug)]
pub struct SettingsFrame {
    /// The page itself.
    pub current: SettingsLink,
    /// The pages that the visitor may open, in the order of the navigation.
    pub links: Vec<SettingsLink>,
    /// Why the last form was refused.
    pub problem: Option<String>,
}

/// One object that a button of a form is about.
#[derive(Clone, Copy, Debug)]
struct ButtonObject<'a> {
    name: &'a str,
    /// The version that the form was made from; none where it doesn't matter.
    version: Option<u64>,
}

impl SettingsFrame {
    /// The whole page.
    fn to_html(&self, content: &Markup) -> String {
        let content = html! {
            h1 { "Settings" }
            nav.tabs aria-label="Settings" {
                @for link in &self.links {
                    a href=(link.address) aria-current=[(*link == self.current).then_some("page")] { (link.title) }
                }
            }
            @if let Some(problem) = &self.problem { p.trouble role="alert" { (foreign_text(problem)) } }
            (content)
        };
        let frame = PageFrame {
            title: self.current.title,
            section: Some(NavigationSection::Settings),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    /// A form with one action.
    fn form(&self, action: &str, fields: &Markup) -> Markup {
        html! {
            form.fields method="post" action=(self.current.address) {
                (csrf_mark())
                input type="hidden" name="action" value=(action);
                (fields)
            }
        }
    }

    /// A button that does one thing to one object.
    fn button(&self, action: &str, object: ButtonObject<'_>, label: &str) -> Markup {
        self.form(
            action,
            &html! {
                input type="hidden" name="name" value=(object.name);
                @if let Some(version) = object.version { input type="hidden" name="version" value=(version); }
                button type="submit" aria-label={ (label) " " (object.name) } { (label) }
            },
        )
    }
}

fn roles_field(roles: &[RoleBinding]) -> Markup {
    let value = roles.iter().map(ToString::to_string).collect::<Vec<_>>();
    html! {
        label {
            "Roles"
            input name="roles" value=(value.join(" ")) placeholder="viewer deployer:shop/staging approver:*/production admin" maxlength="4000" autocapitalize="none" spellcheck="false";
        }
    }
}

fn role_list(roles: &[RoleBinding]) -> String {
    match roles.is_empty() {
        true => "no roles".to_owned(),
        false => (roles.iter().map(ToString::to_string).collect::<Vec<_>>()).join(", "),
    }
}

fn group_list(groups: &BTreeSet<GroupName>) -> String {
    let groups: Vec<_> = groups.iter().map(|group| group.as_str()).collect();
    groups.join(" ")
}
