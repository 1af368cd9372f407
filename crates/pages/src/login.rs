//! The pages of `/login` and `/setup`.

use maud::{Markup, html};

use crate::layout::{PageFrame, page};

/// Names of users and groups. Browsers compile a `pattern` with the flag `v`, which requires the escape.
pub(crate) const NAME_PATTERN: &str = r"[a-z0-9][a-z0-9\-]*";

/// The form to sign in with.
#[derive(Clone, Debug)]
pub struct LoginPage<'a> {
    pub problem: Option<&'a str>,
    pub user: &'a str,
    /// The address on this server that a login leads to.
    pub next: &'a str,
    /// The value of the cookie that belongs to the form.
    pub form_token: &'a str,
    pub has_users: bool,
    pub provider: Option<LoginProvider<'a>>,
}

/// A provider to sign in with.
#[derive(Clone, Debug)]
pub struct LoginProvider<'a> {
    pub name: &'a str,
    /// The address on this server that leads to it.
    pub address: String,
}

impl LoginPage<'_> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            div.card.sign-in {
                h1 { "Sign in" }
                (problem(self.problem))
                @if self.has_users {
                    @if let Some(provider) = &self.provider {
                        p { a.button.primary href=(provider.address) { "Log in with " (provider.name) } }
                        p.dim { "or with a password of this server:" }
                    }
                    form.fields method="post" action="/login" {
                        input type="hidden" name="form_token" value=(self.form_token);
                        input type="hidden" name="next" value=(self.next);
                        label { "User name" input name="user" value=(self.user) required autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="63" autofocus; }
                        label { "Password" input type="password" name="password" required autocomplete="current-password" maxlength="1024"; }
                        button.primary type="submit" { "Sign in" }
                    }
                    p.dim { "Forgotten? An admin sets a new password: " code { "shipway user set NAME --password" } }
                } @else {
                    p { "This server has no users. Make the first admin with the setup link that the server printed when it started, or run " code { "shipway user add NAME --role admin" } " on its machine." }
                    p { a href="/" { "Overview" } }
                }
            }
        };
        let frame = PageFrame {
            title: "Sign in",
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

/// The form that makes the first admin.
#[derive(Clone, Debug)]
pub struct SetupPage<'a> {
    pub problem: Option<&'a str>,
    pub user: &'a str,
    /// The secret of the setup link; none when it can't be used.
    pub link: Option<&'a str>,
    pub form_token: &'a str,
}

impl SetupPage<'_> {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            div.card.sign-in {
                h1 { "Set up Shipway" }
                (problem(self.problem))
                @if let Some(link) = self.link {
                    p { "Make the first user. It is an admin and adds the others. From then on every request needs a user or a token." }
                    form.fields method="post" action="/setup" {
                        input type="hidden" name="form_token" value=(self.form_token);
                        input type="hidden" name="link" value=(link);
                        label { "User name" input name="user" value=(self.user) required pattern=(NAME_PATTERN) title="lower-case letters, digits and hyphens" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="63" autofocus; }
                        label { "Password (12 characters or more)" input type="password" name="password" required minlength="12" maxlength="1024" autocomplete="new-password"; }
                        button.primary type="submit" { "Make the first admin" }
                    }
                }
            }
        };
        let frame = PageFrame {
            title: "Set up",
            ..PageFrame::default()
        };
        page(&frame, &content)
    }
}

fn problem(text: Option<&str>) -> Markup {
    html! {
        @if let Some(text) = text { p.trouble role="alert" { (text) } }
    }
}
