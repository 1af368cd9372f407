//! The settings. Each page is a [`SettingsPage`], which shows it and carries out its forms, and one line of [`PAGES`].

mod audit;
mod groups;
mod retention;
mod secrets;
mod tokens;
mod users;
mod webhooks;

use std::future::Future;

use axum::{
    Extension, Form, Router,
    extract::{FromRef, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::{MethodRouter, get},
};
use serde::{Deserialize, de::DeserializeOwned};
use shipway_core::access::{Resource, RoleBinding, Verb};
use shipway_pages::{SettingsFrame, SettingsLink};

use self::{
    audit::AuditSettings, groups::GroupSettings, retention::RetentionSettings,
    secrets::SecretSettings, tokens::TokenSettings, users::UserSettings,
    webhooks::WebhookSettingsSource,
};
use super::{html, page_error::PageError, sign_in::require_csrf_field};
use crate::{
    api::{ApiError, Caller, identity::SessionSecret},
    app::AppState,
};

/// The pages in the order of their navigation.
const PAGES: &[SettingsEntry] = &[
    SettingsEntry::with_forms::<UserSettings>(),
    SettingsEntry::with_forms::<GroupSettings>(),
    SettingsEntry::with_forms::<TokenSettings>(),
    SettingsEntry::with_forms::<SecretSettings>(),
    SettingsEntry::read_only::<WebhookSettingsSource>(),
    SettingsEntry::with_forms::<RetentionSettings>(),
    SettingsEntry::read_only::<AuditSettings>(),
];

/// A page of the settings: what it reads and shows.
trait SettingsPage: FromRef<AppState> + Send + Sync + 'static {
    const LINK: SettingsLink;
    /// The permission of its visitors.
    const VERB: Verb;
    /// The query of its address.
    type Query: DeserializeOwned + Send;
    /// Shown once, after a form.
    type Shown: Send;

    /// Whether the navigation leads this caller to it.
    fn may_open(caller: &Caller) -> bool {
        caller.is_allowed(Self::VERB, &Resource::Server)
    }

    /// Refuses callers that may not open it.
    fn require_visitor(caller: &Caller) -> Result<(), ApiError> {
        caller.require(Self::VERB, &Resource::Server)
    }

    fn to_html(
        &self,
        visit: SettingsVisit<'_, Self::Query, Self::Shown>,
    ) -> impl Future<Output = Result<String, PageError>> + Send;
}

/// A page of the settings that changes something.
trait SettingsForms: SettingsPage {
    /// The fields of its forms.
    type Form: DeserializeOwned + Send;

    /// Refuses callers that may not do what a form asks for.
    fn require_sender(caller: &Caller, form: &Self::Form) -> Result<(), ApiError>;

    /// Carries out a form; returns a result that is shown once.
    fn apply_form(
        &self,
        caller: &Caller,
        form: Self::Form,
    ) -> impl Future<Output = Result<Option<Self::Shown>, ApiError>> + Send;
}

/// A request for a page.
struct SettingsVisit<'a, Q, S> {
    caller: &'a Caller,
    frame: SettingsFrame,
    /// None after a form.
    query: Option<Q>,
    /// What the form before it has left to be shown.
    shown: Option<S>,
}

/// The query of pages that have none.
#[derive(Deserialize)]
struct NoQuery {}

/// A page in the navigation, with its handlers.
struct SettingsEntry {
    link: SettingsLink,
    may_open: fn(&Caller) -> bool,
    handlers: fn() -> MethodRouter<AppState>,
}

impl SettingsEntry {
    const fn read_only<P: SettingsPage>() -> Self {
        Self {
            link: P::LINK,
            may_open: P::may_open,
            handlers: || get(show::<P>),
        }
    }

    const fn with_forms<P: SettingsForms>() -> Self {
        Self {
            handlers: || get(show::<P>).post(change::<P>),
            ..Self::read_only::<P>()
        }
    }
}

pub(super) fn routes() -> Router<AppState> {
    let first = Router::new().route("/settings", get(show_first));
    PAGES.iter().fold(first, |router, page| {
        router.route(page.link.address, (page.handlers)())
    })
}

/// The addresses of the pages, for the test that compares routes with their declarations.
#[cfg(test)]
pub(crate) fn settings_addresses() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|page| page.link.address)
}

/// Leads to the first page that the caller may open.
async fn show_first(caller: Caller) -> Result<Redirect, PageError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let page = PAGES.iter().find(|page| (page.may_open)(&caller));
    let link = page.map_or(TokenSettings::LINK, |page| page.link);
    Ok(Redirect::to(link.address))
}

async fn show<P: SettingsPage>(
    State(page): State<P>,
    Query(query): Query<P::Query>,
    caller: Caller,
) -> Result<Response, PageError> {
    P::require_visitor(&caller)?;
    let visit = SettingsVisit {
        caller: &caller,
        frame: frame_of_page::<P>(&caller, None),
        query: Some(query),
        shown: None,
    };
    Ok(html(page.to_html(visit).await?))
}

/// The fields of a form with the token of its session.
#[derive(Deserialize)]
struct SentForm<F> {
    #[serde(default)]
    csrf: String,
    #[serde(flatten)]
    fields: F,
}

/// Carries out a form, and shows the page again: by a redirect, unless there is a problem or something to show once.
async fn change<P: SettingsForms>(
    State(page): State<P>,
    session: Option<Extension<SessionSecret>>,
    caller: Caller,
    Form(form): Form<SentForm<P::Form>>,
) -> Result<Response, PageError> {
    P::require_sender(&caller, &form.fields)?;
    require_csrf_field(session.as_ref().map(|Extension(it)| it), &form.csrf)?;
    let (problem, shown) = match page.apply_form(&caller, form.fields).await {
        Ok(None) => return Ok(Redirect::to(P::LINK.address).into_response()),
        Ok(shown) => (None, shown),
        Err(problem) => (Some(problem), None),
    };
    let status = problem.as_ref().map_or(StatusCode::OK, |problem| {
        StatusCode::from_u16(problem.0.status).unwrap_or(StatusCode::BAD_REQUEST)
    });
    let detail = problem.map(|problem| problem.0.detail);
    let visit = SettingsVisit {
        caller: &caller,
        frame: frame_of_page::<P>(&caller, detail),
        query: None,
        shown,
    };
    Ok((status, html(page.to_html(visit).await?)).into_response())
}

fn frame_of_page<P: SettingsPage>(caller: &Caller, problem: Option<String>) -> SettingsFrame {
    let pages = PAGES.iter().filter(|page| (page.may_open)(caller));
    SettingsFrame {
        current: P::LINK,
        links: pages.map(|page| page.link).collect(),
        problem,
    }
}

/// A list in a text field, with blanks or commas between its entries.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '\n', '\r', '\t'])
        .filter(|entry| !entry.is_empty())
}

fn parse_field<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}

fn parse_roles(text: &str) -> Result<Vec<RoleBinding>, ApiError> {
    split_list(text).map(parse_field).collect()
}
