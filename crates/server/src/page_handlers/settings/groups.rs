//! The settings of groups.

use std::sync::Arc;

use axum::extract::FromRef;
use serde::Deserialize;
use shipway_core::{access::Verb, user_directory::UserDirectoryInput};
use shipway_pages::{GroupSettingsPage, SettingsLink};

use super::{
    NoQuery, PageError, SettingsForms, SettingsPage, SettingsVisit, parse_field, parse_roles,
};
use crate::{
    accounts::UserAccounts,
    api::{ApiError, Caller, groups::group_views},
    app::AppState,
};

/// The page of groups.
pub(super) struct GroupSettings {
    accounts: Arc<UserAccounts>,
}

impl FromRef<AppState> for GroupSettings {
    fn from_ref(app: &AppState) -> Self {
        Self {
            accounts: FromRef::from_ref(app),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum GroupAction {
    #[serde(rename = "add_group")]
    Add,
    #[serde(rename = "change_group")]
    Change,
    #[serde(rename = "remove_group")]
    Remove,
}

/// The fields of all forms.
#[derive(Deserialize)]
pub(super) struct GroupForm {
    action: GroupAction,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    roles: String,
}

impl SettingsPage for GroupSettings {
    const LINK: SettingsLink = SettingsLink {
        address: "/settings/groups",
        title: "Groups",
    };
    const VERB: Verb = Verb::ManageUsers;
    type Query = NoQuery;
    type Shown = ();

    async fn to_html(&self, visit: SettingsVisit<'_, NoQuery, ()>) -> Result<String, PageError> {
        let directory = self.accounts.directory().await?;
        let page = GroupSettingsPage {
            frame: visit.frame,
            groups: group_views(&directory),
        };
        Ok(page.to_html())
    }
}

impl SettingsForms for GroupSettings {
    type Form = GroupForm;

    fn require_sender(caller: &Caller, _form: &GroupForm) -> Result<(), ApiError> {
        Self::require_visitor(caller)
    }

    async fn apply_form(&self, caller: &Caller, form: GroupForm) -> Result<Option<()>, ApiError> {
        let group = parse_field(&form.name)?;
        let version = form.version.parse().ok();
        let input = match form.action {
            GroupAction::Add => UserDirectoryInput::AddGroup {
                group,
                roles: parse_roles(&form.roles)?,
            },
            GroupAction::Change => UserDirectoryInput::ChangeGroup {
                group,
                roles: parse_roles(&form.roles)?,
                version,
            },
            GroupAction::Remove => UserDirectoryInput::RemoveGroup { group, version },
        };
        self.accounts.change(input, caller.actor()).await?;
        Ok(None)
    }
}
