//! The settings of users.

use maud::{Markup, html};
use shipway_api::UserView;

use super::{ButtonObject, SettingsFrame, group_list, role_list, roles_field};
use crate::login::NAME_PATTERN;

/// The page of `/settings/users`.
#[derive(Clone, Debug)]
pub struct UserSettingsPage {
    pub frame: SettingsFrame,
    pub users: Vec<UserView>,
}

impl UserSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        self.frame.to_html(&self.content())
    }

    fn content(&self) -> Markup {
        html! {
            div.card {
                h2 { "Users" }
                @if self.users.is_empty() {
                    p { "There are no users yet: everyone on this machine may do everything. Add an admin first; from then on every request needs a user or a token." }
                }
                @for user in &self.users { (self.user(user)) }
            }
            div.card {
                h2 { "Add a user" }
                (self.frame.form("add_user", &html! {
                    label { "User name" input name="name" required pattern=(NAME_PATTERN) maxlength="63" autocapitalize="none" spellcheck="false"; }
                    (roles_field(&[]))
                    label { "Groups" input name="groups" placeholder="platform" maxlength="4000"; }
                    label { "Password (12 characters or more)" input type="password" name="password" minlength="12" maxlength="1024" autocomplete="new-password"; }
                    button.primary type="submit" { "Add" }
                }))
            }
        }
    }

    fn user(&self, user: &UserView) -> Markup {
        let name = user.name.as_str();
        let object = ButtonObject {
            name,
            version: Some(user.version),
        };
        let unversioned = ButtonObject {
            version: None,
            ..object
        };
        html! {
            details.entry {
                summary {
                    strong { (name) }
                    @if let Some(shown) = shown_name(user) { " " span { (shown) } }
                    " " span.dim { (role_list(&user.effective_roles)) }
                    @if user.disabled { " " span.badge.bad { "disabled" } }
                    @if let Some(account) = &user.external { " " span.badge title=(account.subject) { "signs in with " (account.issuer) } }
                    @else if !user.has_password { " " span.badge.ask { "no password" } }
                }
                @if let Some(account) = user.external.as_ref().filter(|it| !it.groups.is_empty()) {
                    p.dim { "Groups by the provider, as of the last login: " (group_list(&account.groups)) }
                }
                (self.frame.form("change_user", &html! {
                    input type="hidden" name="name" value=(name);
                    input type="hidden" name="version" value=(user.version);
                    label { "Display name" input name="display_name" value=[user.display_name.as_deref()] maxlength="200"; }
                    label { "E-mail" input name="email" value=[user.email.as_deref()] maxlength="200"; }
                    (roles_field(&user.roles))
                    label { "Groups" input name="groups" value=(group_list(&user.groups)) maxlength="4000"; }
                    button type="submit" { "Save" }
                }))
                (self.frame.form("set_password", &html! {
                    input type="hidden" name="name" value=(name);
                    label { "New password" input type="password" name="password" minlength="12" maxlength="1024" required autocomplete="new-password"; }
                    button type="submit" { "Set password" }
                }))
                div.actions {
                    (self.frame.button("end_sessions", unversioned, "Sign out everywhere"))
                    @if user.disabled { (self.frame.button("enable_user", object, "Enable")) }
                    @else { (self.frame.button("disable_user", object, "Disable")) }
                    (self.frame.button("remove_user", object, "Remove"))
                }
            }
        }
    }
}

/// The name that an administrator gave, or else the one of the provider.
fn shown_name(user: &UserView) -> Option<&str> {
    let external = user.external.as_ref();
    let external = external.and_then(|it| it.display_name.as_deref());
    user.display_name.as_deref().or(external)
}
