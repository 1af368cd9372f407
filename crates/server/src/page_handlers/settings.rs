//! The settings: users, groups and tokens, changed with forms that need no script.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension, Form, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;
use shipway_api::{CreatedToken, NewTokenRequest};
use shipway_core::{
    access::{Resource, RoleBinding, Verb},
    aggregate::Aggregate as _,
    user_directory::{STREAM, UserDirectory, UserDirectoryInput, UserProfile},
};
use shipway_engine::{Clock, Store};
use shipway_pages::{SettingsPage, SettingsSection};

use super::{html, page_error::PageError, sign_in::require_csrf_field};
use crate::{
    accounts::UserAccounts,
    api::{
        ApiError, Caller,
        groups::group_views,
        identity::SessionSecret,
        tokens::{create_token, revoke_token, visible_tokens},
        users::user_views,
    },
    app::AppState,
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/settings", get(show_first))
        .route("/settings/users", get(users).post(change_users))
        .route("/settings/groups", get(groups).post(change_groups))
        .route("/settings/tokens", get(tokens).post(change_tokens))
}

/// What a page is made from.
#[derive(Clone)]
struct SettingsSources {
    accounts: Arc<UserAccounts>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl axum::extract::FromRef<AppState> for SettingsSources {
    fn from_ref(app: &AppState) -> Self {
        Self {
            accounts: axum::extract::FromRef::from_ref(app),
            store: axum::extract::FromRef::from_ref(app),
            clock: axum::extract::FromRef::from_ref(app),
        }
    }
}

/// What the last form of a page did.
#[derive(Default)]
struct FormOutcome {
    problem: Option<ApiError>,
    created: Option<CreatedToken>,
}

type FormSession = Option<Extension<SessionSecret>>;

async fn show_first(caller: Caller) -> Result<Redirect, PageError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let is_admin = caller.is_allowed(Verb::ManageUsers, &Resource::Server);
    let section = match is_admin {
        true => SettingsSection::Users,
        false => SettingsSection::Tokens,
    };
    Ok(Redirect::to(section.address()))
}

async fn users(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    show(
        &sources,
        SettingsSection::Users,
        session,
        &caller,
        FormOutcome::default(),
    )
    .await
}

async fn groups(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    show(
        &sources,
        SettingsSection::Groups,
        session,
        &caller,
        FormOutcome::default(),
    )
    .await
}

async fn tokens(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    show(
        &sources,
        SettingsSection::Tokens,
        session,
        &caller,
        FormOutcome::default(),
    )
    .await
}

async fn show(
    sources: &SettingsSources,
    section: SettingsSection,
    session: FormSession,
    caller: &Caller,
    outcome: FormOutcome,
) -> Result<Response, PageError> {
    let directory = sources.accounts.directory().await?;
    let is_admin = caller.is_allowed(Verb::ManageUsers, &Resource::Server);
    let mut events = Vec::new();
    if is_admin {
        let stored = sources.store.read(STREAM, 0).await?;
        let read = stored
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok());
        events = read.collect();
    }
    let page = SettingsPage {
        section,
        is_admin,
        users: match is_admin {
            true => user_views(&directory),
            false => Vec::new(),
        },
        groups: match is_admin {
            true => group_views(&directory),
            false => Vec::new(),
        },
        tokens: visible_tokens(&sources.accounts, caller).await?,
        events,
        csrf: session.map(|Extension(SessionSecret(secret))| secret.csrf_token()),
        problem: outcome.problem.as_ref().map(|it| it.0.detail.clone()),
        created: outcome.created,
    };
    let mut response = html(page.to_html());
    if let Some(problem) = outcome.problem {
        *response.status_mut() =
            StatusCode::from_u16(problem.0.status).unwrap_or(StatusCode::BAD_REQUEST);
    }
    Ok(response)
}

/// What a form of the settings does.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SettingsAction {
    AddUser,
    ChangeUser,
    SetPassword,
    EndSessions,
    EnableUser,
    DisableUser,
    RemoveUser,
    AddGroup,
    ChangeGroup,
    RemoveGroup,
    CreateToken,
    RevokeToken,
}

/// The fields of all forms. An empty one is as good as none.
#[derive(Deserialize)]
struct SettingsForm {
    action: SettingsAction,
    #[serde(default)]
    csrf: String,
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
    #[serde(default)]
    days: String,
}

impl SettingsForm {
    fn roles(&self) -> Result<Vec<RoleBinding>, ApiError> {
        split_list(&self.roles).map(parse_field).collect()
    }

    fn profile(&self) -> Result<UserProfile, ApiError> {
        let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let groups: Result<BTreeSet<_>, _> = split_list(&self.groups).map(parse_field).collect();
        Ok(UserProfile {
            display_name: filled(&self.display_name),
            email: filled(&self.email),
            groups: groups?,
            roles: self.roles()?,
        })
    }

    fn version(&self) -> Option<u64> {
        self.version.parse().ok()
    }
}

fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '\n', '\r', '\t'])
        .filter(|word| !word.is_empty())
}

fn parse_field<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}

async fn change_users(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
    Form(form): Form<SettingsForm>,
) -> Result<Response, PageError> {
    carry_out(&sources, SettingsSection::Users, session, &caller, &form).await
}

async fn change_groups(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
    Form(form): Form<SettingsForm>,
) -> Result<Response, PageError> {
    carry_out(&sources, SettingsSection::Groups, session, &caller, &form).await
}

async fn change_tokens(
    State(sources): State<SettingsSources>,
    session: FormSession,
    caller: Caller,
    Form(form): Form<SettingsForm>,
) -> Result<Response, PageError> {
    carry_out(&sources, SettingsSection::Tokens, session, &caller, &form).await
}

/// Carries out a form, and shows the page again: by a redirect, unless there is a problem or a secret to show.
async fn carry_out(
    sources: &SettingsSources,
    section: SettingsSection,
    session: FormSession,
    caller: &Caller,
    form: &SettingsForm,
) -> Result<Response, PageError> {
    let verb = match form.action {
        SettingsAction::CreateToken | SettingsAction::RevokeToken => Verb::UseAccount,
        SettingsAction::AddUser
        | SettingsAction::ChangeUser
        | SettingsAction::SetPassword
        | SettingsAction::EndSessions
        | SettingsAction::EnableUser
        | SettingsAction::DisableUser
        | SettingsAction::RemoveUser
        | SettingsAction::AddGroup
        | SettingsAction::ChangeGroup
        | SettingsAction::RemoveGroup => Verb::ManageUsers,
    };
    caller.require(verb, &Resource::Server)?;
    require_csrf_field(session.as_ref().map(|Extension(it)| it), &form.csrf)?;
    match apply_form(sources, caller, form).await {
        Ok(None) => Ok(Redirect::to(section.address()).into_response()),
        Ok(created) => {
            let outcome = FormOutcome {
                created,
                ..FormOutcome::default()
            };
            show(sources, section, session, caller, outcome).await
        }
        Err(problem) => {
            let outcome = FormOutcome {
                problem: Some(problem),
                ..FormOutcome::default()
            };
            show(sources, section, session, caller, outcome).await
        }
    }
}

/// What a form asks for; a token that was created.
async fn apply_form(
    sources: &SettingsSources,
    caller: &Caller,
    form: &SettingsForm,
) -> Result<Option<CreatedToken>, ApiError> {
    let accounts = &sources.accounts;
    let input = match form.action {
        SettingsAction::CreateToken => {
            let request = NewTokenRequest {
                name: form.name.clone(),
                roles: form.roles()?,
                expires_in_days: Some(form.days.as_str())
                    .filter(|days| !days.is_empty())
                    .map(parse_field)
                    .transpose()?,
                ..NewTokenRequest::default()
            };
            let now = sources.clock.now();
            return create_token(accounts, caller, &request, now)
                .await
                .map(Some);
        }
        SettingsAction::RevokeToken => {
            revoke_token(accounts, caller, parse_field(&form.name)?).await?;
            return Ok(None);
        }
        SettingsAction::AddUser | SettingsAction::SetPassword => {
            password_input(accounts, form).await?
        }
        SettingsAction::ChangeUser
        | SettingsAction::EndSessions
        | SettingsAction::EnableUser
        | SettingsAction::DisableUser
        | SettingsAction::RemoveUser
        | SettingsAction::AddGroup
        | SettingsAction::ChangeGroup
        | SettingsAction::RemoveGroup => directory_input(form)?,
    };
    accounts.change(input, caller.actor()).await?;
    Ok(None)
}

/// The input of a form with a password.
async fn password_input(
    accounts: &UserAccounts,
    form: &SettingsForm,
) -> Result<UserDirectoryInput, ApiError> {
    let user = parse_field(&form.name)?;
    if matches!(form.action, SettingsAction::SetPassword) {
        let password = accounts.seal_password(&user, &form.password).await?;
        return Ok(UserDirectoryInput::SetPassword { user, password });
    }
    let password = match form.password.is_empty() {
        true => None,
        false => Some(accounts.seal_password(&user, &form.password).await?),
    };
    Ok(UserDirectoryInput::AddUser {
        user,
        profile: form.profile()?,
        password,
    })
}

/// The input of a form about users and groups.
fn directory_input(form: &SettingsForm) -> Result<UserDirectoryInput, ApiError> {
    let (name, version) = (&form.name, form.version());
    Ok(match form.action {
        SettingsAction::ChangeUser => UserDirectoryInput::ChangeUser {
            user: parse_field(name)?,
            profile: form.profile()?,
            version,
        },
        SettingsAction::EndSessions => UserDirectoryInput::EndSessions {
            user: parse_field(name)?,
        },
        SettingsAction::EnableUser => UserDirectoryInput::EnableUser {
            user: parse_field(name)?,
            version,
        },
        SettingsAction::DisableUser => UserDirectoryInput::DisableUser {
            user: parse_field(name)?,
            version,
        },
        SettingsAction::RemoveUser => UserDirectoryInput::RemoveUser {
            user: parse_field(name)?,
            version,
        },
        SettingsAction::AddGroup => UserDirectoryInput::AddGroup {
            group: parse_field(name)?,
            roles: form.roles()?,
        },
        SettingsAction::ChangeGroup => UserDirectoryInput::ChangeGroup {
            group: parse_field(name)?,
            roles: form.roles()?,
            version,
        },
        SettingsAction::RemoveGroup => UserDirectoryInput::RemoveGroup {
            group: parse_field(name)?,
            version,
        },
        SettingsAction::AddUser
        | SettingsAction::SetPassword
        | SettingsAction::CreateToken
        | SettingsAction::RevokeToken => UserDirectory::timer_fired(),
    })
}
