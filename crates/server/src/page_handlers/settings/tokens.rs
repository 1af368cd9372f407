//! The settings of access tokens.

use std::sync::Arc;

use axum::extract::FromRef;
use serde::Deserialize;
use shipway_api::{CreatedToken, NewTokenRequest};
use shipway_core::access::Verb;
use shipway_engine::Clock;
use shipway_pages::{SettingsLink, TokenSettingsPage};

use super::{
    NoQuery, PageError, SettingsForms, SettingsPage, SettingsVisit, parse_field, parse_roles,
};
use crate::{
    accounts::UserAccounts,
    api::{
        ApiError, Caller,
        tokens::{create_token, revoke_token, visible_tokens},
    },
    app::AppState,
};

/// The page of tokens.
pub(super) struct TokenSettings {
    accounts: Arc<UserAccounts>,
    clock: Arc<dyn Clock>,
}

impl FromRef<AppState> for TokenSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            accounts: FromRef::from_ref(app),
            clock: FromRef::from_ref(app),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TokenAction {
    CreateToken,
    RevokeToken,
}

/// The fields of all forms.
#[derive(Deserialize)]
pub(super) struct TokenForm {
    action: TokenAction,
    name: String,
    #[serde(default)]
    roles: String,
    #[serde(default)]
    days: String,
}

impl SettingsPage for TokenSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/tokens",
        title: "Tokens",
    };
    const VERB: Verb = Verb::UseAccount;
    type Query = NoQuery;
    type Shown = CreatedToken;

    async fn to_html(
        &self,
        visit: SettingsVisit<'_, NoQuery, CreatedToken>,
    ) -> Result<String, PageError> {
        let page = TokenSettingsPage {
            frame: visit.frame,
            tokens: visible_tokens(&self.accounts, visit.caller).await?,
            created: visit.shown,
        };
        Ok(page.to_html())
    }
}

impl SettingsForms for TokenSettings {
    type Form = TokenForm;

    fn require_sender(caller: &Caller, _form: &TokenForm) -> Result<(), ApiError> {
        Self::require_visitor(caller)
    }

    async fn apply_form(
        &self,
        caller: &Caller,
        form: TokenForm,
    ) -> Result<Option<CreatedToken>, ApiError> {
        match form.action {
            TokenAction::CreateToken => {
                let days = Some(form.days.as_str()).filter(|days| !days.is_empty());
                let request = NewTokenRequest {
                    name: form.name,
                    roles: parse_roles(&form.roles)?,
                    expires_in_days: days.map(parse_field).transpose()?,
                    ..NewTokenRequest::default()
                };
                let now = self.clock.now();
                let created = create_token(&self.accounts, caller, &request, now);
                created.await.map(Some)
            }
            TokenAction::RevokeToken => {
                revoke_token(&self.accounts, caller, parse_field(&form.name)?).await?;
                Ok(None)
            }
        }
    }
}
