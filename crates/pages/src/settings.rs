//! The settings of users, groups and tokens, with who changed what.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{CreatedToken, GroupView, TokenView, UserView};
use shipway_core::{
    access::RoleBinding,
    aggregate::Event,
    ids::GroupName,
    user_directory::{UserDirectoryEvent, UserProfile},
};

use crate::{
    layout::{NavigationSection, PageFrame, page},
    login::NAME_PATTERN,
};

/// Changes that are shown.
const CHANGES_MAX: usize = 100;

/// A page of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsSection {
    Users,
    Groups,
    Tokens,
}

impl SettingsSection {
    const ALL: [Self; 3] = [Self::Users, Self::Groups, Self::Tokens];

    #[must_use]
    pub const fn address(self) -> &'static str {
        match self {
            Self::Users => "/settings/users",
            Self::Groups => "/settings/groups",
            Self::Tokens => "/settings/tokens",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Users => "Users",
            Self::Groups => "Groups",
            Self::Tokens => "Tokens",
        }
    }
}

/// Users, groups or tokens, and their changes.
#[derive(Clone, Debug)]
pub struct SettingsPage {
    pub section: SettingsSection,
    /// Whether users and groups are shown.
    pub is_admin: bool,
    pub users: Vec<UserView>,
    pub groups: Vec<GroupView>,
    pub tokens: Vec<TokenView>,
    /// The events of the directory, the oldest first.
    pub events: Vec<Event<UserDirectoryEvent>>,
    /// The token that forms must carry; none without a session.
    pub csrf: Option<String>,
    pub problem: Option<String>,
    /// A token that was just created: the only time that its secret is shown.
    pub created: Option<CreatedToken>,
}

impl SettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            h1 { "Settings" }
            nav.tabs aria-label="Settings" {
                @for section in SettingsSection::ALL {
                    @if self.is_admin || section == SettingsSection::Tokens {
                        a href=(section.address()) aria-current=[(section == self.section).then_some("page")] { (section.title()) }
                    }
                }
            }
            @if let Some(problem) = &self.problem { p.trouble role="alert" { (problem) } }
            @if let Some(created) = &self.created { (created_token(created)) }
            (match self.section {
                SettingsSection::Users => self.users(),
                SettingsSection::Groups => self.groups(),
                SettingsSection::Tokens => self.tokens(),
            })
            @if self.is_admin { (self.changes()) }
        };
        let frame = PageFrame {
            title: self.section.title(),
            section: Some(NavigationSection::Settings),
            ..PageFrame::default()
        };
        page(&frame, &content)
    }

    /// A form with one action.
    fn form(&self, action: &str, fields: &Markup) -> Markup {
        html! {
            form.fields method="post" action=(self.section.address()) {
                @if let Some(csrf) = &self.csrf { input type="hidden" name="csrf" value=(csrf); }
                input type="hidden" name="action" value=(action);
                (fields)
            }
        }
    }

    /// A button that does one thing to one object.
    fn button(&self, action: &str, name: &str, version: Option<u64>, label: &str) -> Markup {
        self.form(
            action,
            &html! {
                input type="hidden" name="name" value=(name);
                @if let Some(version) = version { input type="hidden" name="version" value=(version); }
                button type="submit" aria-label={ (label) " " (name) } { (label) }
            },
        )
    }

    fn users(&self) -> Markup {
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
                (self.form("add_user", &html! {
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
                (self.form("change_user", &html! {
                    input type="hidden" name="name" value=(name);
                    input type="hidden" name="version" value=(user.version);
                    label { "Display name" input name="display_name" value=[user.display_name.as_deref()] maxlength="200"; }
                    label { "E-mail" input name="email" value=[user.email.as_deref()] maxlength="200"; }
                    (roles_field(&user.roles))
                    label { "Groups" input name="groups" value=(group_list(&user.groups)) maxlength="4000"; }
                    button type="submit" { "Save" }
                }))
                (self.form("set_password", &html! {
                    input type="hidden" name="name" value=(name);
                    label { "New password" input type="password" name="password" minlength="12" maxlength="1024" required autocomplete="new-password"; }
                    button type="submit" { "Set password" }
                }))
                div.actions {
                    (self.button("end_sessions", name, None, "Sign out everywhere"))
                    @if user.disabled { (self.button("enable_user", name, Some(user.version), "Enable")) }
                    @else { (self.button("disable_user", name, Some(user.version), "Disable")) }
                    (self.button("remove_user", name, Some(user.version), "Remove"))
                }
            }
        }
    }

    fn groups(&self) -> Markup {
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
                        (self.form("change_group", &html! {
                            input type="hidden" name="name" value=(name);
                            input type="hidden" name="version" value=(group.version);
                            (roles_field(&group.roles))
                            button type="submit" { "Save" }
                        }))
                        (self.button("remove_group", name, Some(group.version), "Remove"))
                    }
                }
            }
            div.card {
                h2 { "Add a group" }
                (self.form("add_group", &html! {
                    label { "Group name" input name="name" required pattern=(NAME_PATTERN) maxlength="63"; }
                    (roles_field(&[]))
                    button.primary type="submit" { "Add" }
                }))
            }
        }
    }

    fn tokens(&self) -> Markup {
        html! {
            div.card {
                h2 { "Access tokens" }
                @if self.tokens.is_empty() { p { "There are no tokens yet. Programs and " code { "git push" } " use them in place of a password." } }
                @else {
                    table.cards {
                        thead { tr { th scope="col" { "Token" } th scope="col" { "Owner" } th scope="col" { "Limited to" } th scope="col" { "Expires" } th scope="col" { "Last used" } th scope="col" { span.visually-hidden { "Revoke" } } } }
                        tbody {
                            @for token in &self.tokens {
                                tr {
                                    td { (token.name) " " span.dim { (token.id) } }
                                    td data-label="Owner" { (token.owner) }
                                    td data-label="Limited to" { (role_list(&token.roles)) }
                                    td data-label="Expires" { (time_or(token.expires_at, "never")) }
                                    td data-label="Last used" { (time_or(token.last_used_at, "never")) }
                                    td { (self.button("revoke_token", token.id.as_str(), None, "Revoke")) }
                                }
                            }
                        }
                    }
                }
            }
            div.card {
                h2 { "Create a token" }
                (self.form("create_token", &html! {
                    label { "What it is for" input name="name" required maxlength="200"; }
                    label { "Limited to these roles" input name="roles" placeholder="deployer:shop (empty: all of yours)" maxlength="4000"; }
                    label { "Days until it expires" input type="number" name="days" min="1" max="366" value="90"; }
                    button.primary type="submit" { "Create" }
                }))
            }
        }
    }

    fn changes(&self) -> Markup {
        let described = self.events.iter().rev().filter_map(|event| {
            Some((event.at, event.by.to_string(), describe_event(&event.body)?))
        });
        let described: Vec<_> = described.take(CHANGES_MAX).collect();
        html! {
            div.card {
                h2 { "Who changed what" }
                @if described.is_empty() { p { "Nothing was changed yet." } }
                ul.history {
                    @for (at, by, text) in described {
                        li { time datetime=(at) { (format!("{at:.0}")) } " " strong { (by) } " " (text) }
                    }
                }
            }
        }
    }
}

fn created_token(created: &CreatedToken) -> Markup {
    html! {
        div.card role="status" {
            h2 { "The token " (created.token.name) " was created" }
            p { "Copy its secret now. It is not shown again." }
            pre { (created.secret) }
            p.dim { "With git: " code { "git push http://" (created.token.owner) "@SERVER/git/SERVICE main" } ", with the secret as the password." }
        }
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

/// The name that an administrator gave, or else the one of the provider.
fn shown_name(user: &UserView) -> Option<&str> {
    let external = user.external.as_ref();
    let external = external.and_then(|it| it.display_name.as_deref());
    user.display_name.as_deref().or(external)
}

fn group_list(groups: &BTreeSet<GroupName>) -> String {
    let groups: Vec<_> = groups.iter().map(|group| group.as_str()).collect();
    groups.join(" ")
}

fn time_or(at: Option<Timestamp>, missing: &str) -> String {
    at.map_or_else(|| missing.to_owned(), |at| format!("{at:.0}"))
}

/// A change in a sentence whose subject is the person; none for sessions, which change no rights.
fn describe_event(event: &UserDirectoryEvent) -> Option<String> {
    let with_profile = |profile: &UserProfile| {
        let groups: Vec<&str> = profile.groups.iter().map(|group| group.as_str()).collect();
        match groups.is_empty() {
            true => role_list(&profile.roles),
            false => format!(
                "{}; groups {}",
                role_list(&profile.roles),
                groups.join(", ")
            ),
        }
    };
    Some(match event {
        UserDirectoryEvent::UserAdded { user, profile } => {
            format!("added user {user} ({})", with_profile(profile))
        }
        UserDirectoryEvent::UserChanged { user, profile } => {
            format!("changed user {user} ({})", with_profile(profile))
        }
        UserDirectoryEvent::UserDisabled { user } => format!("disabled user {user}"),
        UserDirectoryEvent::UserEnabled { user } => format!("enabled user {user}"),
        UserDirectoryEvent::UserRemoved { user } => format!("removed user {user}"),
        UserDirectoryEvent::IdentityLinked { user, identity } => {
            format!(
                "linked user {user} to {} of {}",
                identity.subject, identity.issuer
            )
        }
        UserDirectoryEvent::ExternalProfileChanged { user, profile } => {
            let groups: Vec<_> = profile.groups.iter().map(|it| it.as_str()).collect();
            match groups.is_empty() {
                true => format!("signed in as {user}, without groups of the provider"),
                false => format!("signed in as {user}, in the groups {}", groups.join(", ")),
            }
        }
        UserDirectoryEvent::PasswordSet { user, .. } => format!("set the password of {user}"),
        UserDirectoryEvent::GroupAdded { group, roles } => {
            format!("added group {group} ({})", role_list(roles))
        }
        UserDirectoryEvent::GroupChanged { group, roles } => {
            format!("changed group {group} ({})", role_list(roles))
        }
        UserDirectoryEvent::GroupRemoved { group } => format!("removed group {group}"),
        UserDirectoryEvent::TokenCreated { token } => format!(
            "created token {} of {} ({})",
            token.id,
            token.owner,
            role_list(&token.roles)
        ),
        UserDirectoryEvent::TokenRevoked { token } => format!("revoked token {token}"),
        UserDirectoryEvent::SessionStarted { .. }
        | UserDirectoryEvent::SessionEnded { .. }
        | UserDirectoryEvent::SessionsEnded { .. } => return None,
    })
}
