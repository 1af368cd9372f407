//! The settings of users.

use std::{collections::BTreeSet, sync::Arc};

use axum::extract::FromRef;
use serde::Deserialize;
use shipway_core::{
    access::Verb,
    ids::UserName,
    sealed_value::SealedValue,
    user_directory::{UserDirectoryInput, UserProfile},
};
use shipway_pages::{SettingsLink, UserSettingsPage};

use super::{
    NoQuery, PageError, SettingsForms, SettingsPage, SettingsVisit, parse_field, parse_roles,
    split_list,
};
use crate::{
    accounts::UserAccounts,
    api::{ApiError, Caller, users::user_views},
    app::AppState,
};

/// The page of users.
pub(super) struct UserSettings {
    accounts: Arc<UserAccounts>,
}

impl FromRef<AppState> for UserSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            accounts: FromRef::from_ref(app),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UserFormAction {
    AddUser,
    ChangeUser,
    SetPassword,
    EndSessions,
    EnableUser,
    DisableUser,
    RemoveUser,
}

/// The fields of all forms. An empty one is as good as none.
#[derive(Deserialize)]
pub(super) struct UserForm {
    action: UserFormAction,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    roles: String,
    #[serde(default)]
    groups: String,
    #[serde(default)]
    password: String,
}

impl UserForm {
    fn profile(&self) -> Result<UserProfile, ApiError> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let groups: Result<BTreeSet<_>, _> = split_list(&self.groups).map(parse_field).collect();
        Ok(UserProfile {
            display_name: filled(&self.display_name),
            email: filled(&self.email),
            groups: groups?,
            roles: parse_roles(&self.roles)?,
        })
    }
}

impl UserSettings {
    async fn seal_password(
        &self,
        user: &UserName,
        password: &str,
    ) -> Result<SealedValue, ApiError> {
        Ok(self.accounts.seal_password(user, password).await?)
    }
}

impl SettingsPage for UserSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/users",
        title: "Users",
    };
    const VERB: Verb = Verb::ManageUsers;
    type Query = NoQuery;
    type Shown = ();

    async fn to_html(&self, visit: SettingsVisit<'_, NoQuery, ()>) -> Result<String, PageError> {
        let directory = self.accounts.directory().await?;
        let page = UserSettingsPage {
            frame: visit.frame,
            users: user_views(&directory),
        };
        Ok(page.to_html())
    }
}

impl SettingsForms for UserSettings {
    type Form = UserForm;

    fn require_sender(caller: &Caller, _form: &UserForm) -> Result<(), ApiError> {
        Self::require_visitor(caller)
    }

    async fn apply_form(&self, caller: &Caller, form: UserForm) -> Result<Option<()>, ApiError> {
        let user: UserName = parse_field(&form.name)?;
        let version = form.version.parse().ok();
        let input = match form.action {
            UserFormAction::AddUser => UserDirectoryInput::AddUser {
                password: match form.password.as_str() {
                    "" => None,
                    password => Some(self.seal_password(&user, password).await?),
                },
                profile: form.profile()?,
                user,
            },
            UserFormAction::SetPassword => UserDirectoryInput::SetPassword {
                password: self.seal_password(&user, &form.password).await?,
                user,
            },
            UserFormAction::ChangeUser => UserDirectoryInput::ChangeUser {
                user,
                profile: form.profile()?,
                version,
            },
            UserFormAction::EndSessions => UserDirectoryInput::EndSessions { user },
            UserFormAction::EnableUser => UserDirectoryInput::EnableUser { user, version },
            UserFormAction::DisableUser => UserDirectoryInput::DisableUser { user, version },
            UserFormAction::RemoveUser => UserDirectoryInput::RemoveUser { user, version },
        };
        self.accounts.change(input, caller.actor()).await?;
        Ok(None)
    }
}
