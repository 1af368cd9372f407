//! The page of a link that decides about a rollout. Opening it changes nothing: programs that look at links in messages open them too.

use std::sync::Arc;

use axum::{
    Form, Router,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use shipway_api::LinkedDecision;
use shipway_engine::Clock;
use shipway_pages::{ApprovalLinkPage, ApprovalLinkStage};

use super::{
    page_error::PageError,
    sign_in::{form_page, form_token, require_form_token},
};
use crate::{
    accounts::{ApprovalLink, UserAccounts},
    api::{
        ApiError,
        approval_links::{decide, open_link},
    },
    app::AppState,
    capabilities::{ReleaseObservations, ServerAddresses, ServiceRequests},
    read_models::rollout_view,
};

pub(super) fn open_routes() -> Router<AppState> {
    Router::new().route("/approval-link", get(show).post(use_link))
}

#[derive(Deserialize)]
struct LinkParameters {
    #[serde(default)]
    link: String,
}

#[derive(Deserialize)]
struct LinkForm {
    form_token: String,
    link: String,
    #[serde(default)]
    reason: String,
}

/// Shows what the link would decide.
async fn show(
    State(requests): State<ServiceRequests>,
    State(observations): State<ReleaseObservations>,
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    Query(parameters): Query<LinkParameters>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let token = form_token(&headers)?;
    let text = &parameters.link;
    let opened = open_link(&requests, &observations, &accounts, &*clock, text).await;
    let (link, _) = match opened {
        Ok(opened) => opened,
        Err(problem) => return refusal(problem, &headers, &addresses),
    };
    let rollout = rollout_view(
        &requests.engines,
        &observations.live_evidence,
        &link.rollout,
    )
    .await;
    let page = ApprovalLinkPage {
        rollout: Some(&rollout.map_err(PageError::from)?),
        user: link.user.as_str(),
        is_approval: link.decision == LinkedDecision::Approve,
        stage: ApprovalLinkStage::Question {
            link: text,
            form_token: token.as_str(),
        },
    };
    Ok(form_page(page.to_html(), &token, &addresses))
}

/// Decides.
async fn use_link(
    State(requests): State<ServiceRequests>,
    State(observations): State<ReleaseObservations>,
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    headers: HeaderMap,
    Form(form): Form<LinkForm>,
) -> Result<Response, PageError> {
    require_form_token(&headers, &form.form_token)?;
    let opened = open_link(&requests, &observations, &accounts, &*clock, &form.link).await;
    let decided: Result<ApprovalLink, ApiError> = match opened {
        Ok((link, caller)) => {
            let reason = Some(form.reason.trim().to_owned()).filter(|it| !it.is_empty());
            let decided = decide(&requests, &link, &caller, reason).await;
            decided.map(|()| link)
        }
        Err(problem) => Err(problem),
    };
    let link = match decided {
        Ok(link) => link,
        Err(problem) => return refusal(problem, &headers, &addresses),
    };
    let rollout = rollout_view(
        &requests.engines,
        &observations.live_evidence,
        &link.rollout,
    )
    .await;
    let page = ApprovalLinkPage {
        rollout: Some(&rollout.map_err(PageError::from)?),
        user: link.user.as_str(),
        is_approval: link.decision == LinkedDecision::Approve,
        stage: ApprovalLinkStage::Done,
    };
    Ok(form_page(
        page.to_html(),
        &form_token(&headers)?,
        &addresses,
    ))
}

/// The page of a link that can't be used.
fn refusal(
    problem: ApiError,
    headers: &HeaderMap,
    addresses: &ServerAddresses,
) -> Result<Response, PageError> {
    let page = ApprovalLinkPage {
        rollout: None,
        user: "",
        is_approval: true,
        stage: ApprovalLinkStage::Refused(&problem.0.detail),
    };
    let mut response = form_page(page.to_html(), &form_token(headers)?, addresses);
    *response.status_mut() = problem.into_response().status();
    Ok(response)
}
