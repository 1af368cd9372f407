//! The inbox of approvals.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::Response,
};
use shipway_api::{PendingApproval, RolloutListQuery};
use shipway_core::{
    access::Verb,
    ids::RunId,
    rollout::{RolloutStatus, RolloutView},
};
use shipway_drivers::git::GitRepositories;
use shipway_engine::{Clock, Store};
use shipway_pages::{ApprovalsPage, InboxEntry, InboxRollout, ListFilters, ReleasedCommits};

use super::{
    html,
    list_parameters::ListParameters,
    lists::{documents, refused},
    page_error::PageError,
};
use crate::{
    api::{Caller, approvals::read_approvals, lists::listed_resource, rollouts::read_rollouts},
    delivery_engines::DeliveryEngines,
    read_models::{release, run_view},
    release_comparison::released_commits,
};

/// Superseded rollouts that are read to find those that never served.
const SUPERSEDED_READ: u32 = 30;
/// Superseded rollouts that are shown.
const SUPERSEDED_SHOWN: usize = 10;

/// Shows the pending approvals.
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(repositories): State<Arc<GitRepositories>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(parameters): Query<ListParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &listed_resource(parameters.service()))?;
    let (now, visible) = (clock.now(), caller.visible_services());
    let mut filters = parameters.filters();
    let pending: Vec<PendingApproval> = match parameters.approval_query() {
        Ok(query) => {
            let page = read_approvals(&*store, &visible, now, &query).await?;
            documents(page, &mut filters)
        }
        Err(error) => refused(&error, &mut filters),
    };
    let mut waiting = Vec::new();
    for approval in pending {
        waiting.push(match approval {
            PendingApproval::Job(job) => InboxEntry::Job(job),
            PendingApproval::Rollout(rollout) => {
                let entry = inbox_rollout(&*store, &engines, &repositories, *rollout).await;
                InboxEntry::Rollout(Box::new(entry))
            }
        });
    }
    waiting.sort_by_key(|entry| std::cmp::Reverse(entry.since()));
    let query = RolloutListQuery {
        service: parameters.service().map(str::to_owned),
        state: Some(RolloutStatus::Superseded),
        limit: Some(SUPERSEDED_READ),
        ..RolloutListQuery::default()
    };
    let page = read_rollouts(&*store, &visible, now, &query).await?;
    let mut superseded: Vec<RolloutView> = documents(page, &mut ListFilters::default());
    superseded.retain(|rollout| !rollout.served);
    superseded.truncate(SUPERSEDED_SHOWN);
    let page = ApprovalsPage {
        waiting,
        superseded,
        filters,
        now,
    };
    Ok(html(page.to_html()))
}

/// A rollout with the commits and the tests that are decided about.
async fn inbox_rollout(
    store: &dyn Store,
    engines: &DeliveryEngines,
    repositories: &GitRepositories,
    rollout: RolloutView,
) -> InboxRollout {
    let service = &rollout.id.service;
    let candidate = release(store, service, rollout.release).await;
    let stable = match rollout.stable {
        Some(stable) => release(store, service, stable).await,
        None => None,
    };
    let commits = match &candidate {
        Some(new) => released_commits(engines, repositories, stable.as_deref(), new).await,
        None => ReleasedCommits::default(),
    };
    let run = candidate.as_ref().and_then(|release| release.run);
    let tests = match run {
        Some(number) => {
            let id = RunId {
                service: service.clone(),
                number,
            };
            run_view(store, &id).await.ok().and_then(|run| run.tests)
        }
        None => None,
    };
    InboxRollout {
        commits,
        tests,
        rollout,
    }
}
