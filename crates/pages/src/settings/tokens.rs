//! The settings of access tokens.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_api::{CreatedToken, TokenView};

use super::{ButtonObject, SettingsFrame, role_list};

/// The page of `/settings/tokens`.
#[derive(Clone, Debug)]
pub struct TokenSettingsPage {
    pub frame: SettingsFrame,
    pub tokens: Vec<TokenView>,
    /// A token that was just created: the only time that its secret is shown.
    pub created: Option<CreatedToken>,
}

impl TokenSettingsPage {
    #[must_use]
    pub fn to_html(&self) -> String {
        let content = html! {
            @if let Some(created) = &self.created { (created_token(created)) }
            (self.content())
        };
        self.frame.to_html(&content)
    }

    fn content(&self) -> Markup {
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
                                    td { (self.frame.button("revoke_token", ButtonObject { name: token.id.as_str(), version: None }, "Revoke")) }
                                }
                            }
                        }
                    }
                }
            }
            div.card {
                h2 { "Create a token" }
                (self.frame.form("create_token", &html! {
                    label { "What it is for" input name="name" required maxlength="200"; }
                    label { "Limited to these roles" input name="roles" placeholder="deployer:shop (empty: all of yours)" maxlength="4000"; }
                    label { "Days until it expires" input type="number" name="days" min="1" max="366" value="90"; }
                    button.primary type="submit" { "Create" }
                }))
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

fn time_or(at: Option<Timestamp>, missing: &str) -> String {
    at.map_or_else(|| missing.to_owned(), |at| format!("{at:.0}"))
}
