//! The settings of groups.

use maud::{Markup, html};
use shipway_api::GroupView;

use super::{ButtonObject, SettingsFrame, role_list, roles_field};
use crate::login::NAME_PATTERN;

/// The page of `/settings/groups`.
#[derive(Clone, Debug)]
pub struct GroupSettingsPage {
    pub frame: SettingsFrame,
    pub groups: Vec<GroupView>,
}

impl GroupSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        self.frame.to_html(&self.content())
    }

    fn content(&self) -> Markup {
        html! {
            div.card {
                h2 { "Groups" }
                @if self.groups.is_empty() { p { "There are no groups yet. Members of a group have its roles, and approval rules name it as " code { "@GROUP" } "." } }
                @for group in &self.groups {
                    @let name = group.name.as_str();
                    @let members: Vec<&str> = group.members.iter().map(|user| user.as_str()).collect();
                    details.entry {
                        summary { strong { "@" (name) } " " span.dim { (role_list(&group.roles)) } }
                        p { "Members: " (if members.is_empty() { "none".to_owned() } else { members.join(", ") }) }
                        (self.frame.form("change_group", &html! {
                            input type="hidden" name="name" value=(name);
                            input type="hidden" name="version" value=(group.version);
                            (roles_field(&group.roles))
                            button type="submit" { "Save" }
                        }))
                        (self.frame.button("remove_group", ButtonObject { name, version: Some(group.version) }, "Remove"))
                    }
                }
            }
            div.card {
                h2 { "Add a group" }
                (self.frame.form("add_group", &html! {
                    label { "Group name" input name="name" required pattern=(NAME_PATTERN) maxlength="63"; }
                    (roles_field(&[]))
                    button.primary type="submit" { "Add" }
                }))
            }
        }
    }
}
