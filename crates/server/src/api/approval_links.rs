//! Makes links that decide about a rollout, and carries their decisions out.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::SignedDuration;
use shipway_api::{ApprovalLinkRequest, CreatedApprovalLink, LinkedDecision};
use shipway_core::{
    access::{Resource, Verb},
    gate::{ApprovingPerson, SeenSubject},
    rollout::{Rollout, RolloutInput},
};
use shipway_engine::Clock;

use super::{
    ApiError, Caller,
    rollouts::{controlled_rollout, id, refuse_superseded},
};
use crate::{
    accounts::{ApprovalLink, UserAccounts},
    capabilities::{ReleaseObservations, ServerAddresses, ServiceRequests},
    read_models::rollout_view,
};

/// How long a link can be used, unless the request says otherwise.
const LINK_HOURS: u32 = 24;
const LINK_HOURS_MAX: u32 = 720;

/// Makes a link with which the caller approves or rejects this rollout later, once, without signing in. It is void when the rollout brings
/// something else.
#[utoipa::path(post, path = "/api/v1/rollouts/{service}/{number}/links", operation_id = "create_approval_link",
    params(("service" = String, Path), ("number" = String, Path)), request_body = ApprovalLinkRequest,
    responses((status = 201, body = CreatedApprovalLink), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn create(
    State(requests): State<ServiceRequests>,
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
    Json(request): Json<ApprovalLinkRequest>,
) -> Result<(StatusCode, Json<CreatedApprovalLink>), ApiError> {
    let id = id(&service, &number)?;
    let state = requests.engines.rollout(&id).await;
    caller.require(
        verb(request.decision),
        &controlled_rollout(&id, state.as_deref()),
    )?;
    let rollout = state.as_ref().and_then(|state| state.0.as_deref());
    let rollout = rollout.ok_or_else(|| ApiError::missing(format!("no such rollout: {id}")))?;
    let user = caller.user().ok_or_else(|| {
        ApiError::bad_request(
            "a link decides for a user: sign in as one (`shipway login NAME`), or decide now",
        )
    })?;
    let hours = request.expires_in_hours.unwrap_or(LINK_HOURS);
    if !(1..=LINK_HOURS_MAX).contains(&hours) {
        let why = format!("`expires_in_hours` must be from 1 to {LINK_HOURS_MAX}");
        return Err(ApiError::bad_request(why));
    }
    let now = clock.now();
    let link = ApprovalLink {
        rollout: id,
        binding: rollout.approval_binding(),
        decision: request.decision,
        user,
        expires_at: now
            .saturating_add(SignedDuration::from_hours(i64::from(hours)))
            .unwrap_or(now),
    };
    let address = link_address(&accounts, &addresses, &link)?;
    let created = CreatedApprovalLink {
        address,
        user: link.user.to_string(),
        expires_at: link.expires_at,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// The address of a link. Only its user may get it: it decides in the user's name.
pub(crate) fn link_address(
    accounts: &UserAccounts,
    addresses: &ServerAddresses,
    link: &ApprovalLink,
) -> Result<String, ApiError> {
    let sealed = accounts.seal_approval_link(link);
    let sealed = sealed
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(format!("{}/approval-link?link={sealed}", addresses.url))
}

const fn verb(decision: LinkedDecision) -> Verb {
    match decision {
        LinkedDecision::Approve => Verb::Approve,
        LinkedDecision::Reject => Verb::Reject,
    }
}

/// Opens a link that can be used now; the caller is the link's user.
pub(crate) async fn open_link(
    requests: &ServiceRequests,
    observations: &ReleaseObservations,
    accounts: &UserAccounts,
    clock: &dyn Clock,
    text: &str,
) -> Result<(ApprovalLink, Caller), ApiError> {
    let gone = |why: String| ApiError::new(StatusCode::GONE, why);
    let link = accounts.open_approval_link(text).ok_or_else(|| {
        gone("this is not a link of this server, or it is incomplete: copy all of it".to_owned())
    })?;
    let id = &link.rollout;
    if link.expires_at <= clock.now() {
        return Err(gone(format!(
            "this link expired at {:.0}; sign in, and decide about {id} on its page or with `shipway approve {id}`",
            link.expires_at
        )));
    }
    let directory = accounts.directory().await?;
    let principal = directory.principal(&link.user).ok_or_else(|| {
        ApiError::forbidden(format!(
            "{} is not a user of this server any more",
            link.user
        ))
    })?;
    let caller = Caller::from_principal(principal);
    let state = requests.engines.rollout(id).await;
    let resource: Resource = controlled_rollout(id, state.as_deref());
    caller.require(verb(link.decision), &resource)?;
    let view = rollout_view(&requests.engines, &observations.live_evidence, id).await?;
    refuse_superseded(&*requests.store, &view).await?;
    let rollout = state.as_ref().and_then(|state| state.0.as_deref());
    if rollout.is_some_and(|rollout| has_decided(rollout, &caller)) {
        return Err(ApiError::conflict(format!(
            "{} has decided about {id} already: a link can be used once",
            link.user
        )));
    }
    Ok((link, caller))
}

/// Whether the caller has decided at the gate where the rollout waits.
fn has_decided(rollout: &Rollout, caller: &Caller) -> bool {
    let who = ApprovingPerson::new(&caller.actor(), &caller.groups());
    let gate = rollout.gate.as_ref();
    gate.is_some_and(|gate| gate.has_decision_by(&who))
}

/// Carries the decision of a link out.
pub(crate) async fn decide(
    requests: &ServiceRequests,
    link: &ApprovalLink,
    caller: &Caller,
    reason: Option<String>,
) -> Result<(), ApiError> {
    let seen = SeenSubject::Binding(Box::new(link.binding.clone()));
    let groups = caller.groups();
    let input = match link.decision {
        LinkedDecision::Approve => RolloutInput::Approve {
            groups,
            seen,
            comment: reason,
        },
        LinkedDecision::Reject => RolloutInput::Reject {
            groups,
            seen,
            reason: reason.unwrap_or_else(|| "no reason given".to_owned()),
        },
    };
    let stream = link.rollout.stream();
    let rollouts = &requests.engines.rollouts;
    rollouts.send(&stream, input, caller.actor()).await?;
    Ok(())
}
