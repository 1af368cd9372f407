//! The account of a session on a page. The server adds it to finished pages, so that views are independent of accounts.

use maud::{Markup, PreEscaped, html};

/// Where the head of a page gets the token of the session. No text of users can contain it, because all of it is escaped.
const HEAD_MARK: &str = "<!--shipway-csrf-->";
/// Where a form gets the token of the session.
const FORM_MARK: &str = "<!--shipway-form-->";
/// Where the header of a page gets the name of the user.
const HEADER_MARK: &str = "<!--shipway-account-->";

pub(crate) fn head_mark() -> Markup {
    PreEscaped(HEAD_MARK.to_owned())
}

pub(crate) fn header_mark() -> Markup {
    PreEscaped(HEADER_MARK.to_owned())
}

/// The token of the session as a field of a form; nothing without a session.
pub(crate) fn csrf_mark() -> Markup {
    PreEscaped(FORM_MARK.to_owned())
}

/// The user of a session.
#[derive(Clone, Copy, Debug)]
pub struct SignedInUser<'a> {
    pub name: &'a str,
    /// The token that changes must carry.
    pub csrf: &'a str,
}

/// Adds the account of a session to a page.
#[must_use]
pub fn add_account(page: &str, user: SignedInUser<'_>) -> String {
    let head = html! { meta name="shipway-csrf" content=(user.csrf); };
    let header = html! {
        form.account method="post" action="/logout" {
            input type="hidden" name="csrf" value=(user.csrf);
            a href="/settings/tokens" title="Your account" { (user.name) }
            " "
            button type="submit" { "Sign out" }
        }
    };
    let field = html! { input type="hidden" name="csrf" value=(user.csrf); };
    page.replace(FORM_MARK, &field.into_string())
        .replacen(HEAD_MARK, &head.into_string(), 1)
        .replacen(HEADER_MARK, &header.into_string(), 1)
}
