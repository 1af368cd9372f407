//! The page of a rollout.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{RolloutId, RolloutNumber, ServiceName},
    rollout::RolloutView,
    target::ServiceEnvironment,
};
use shipway_engine::{Clock, Store};
use shipway_pages::RolloutPage;

use super::{html, page_error::PageError};
use crate::{
    api::Caller,
    capabilities::{ReleaseObservations, Workloads},
    delivery_engines::DeliveryEngines,
    read_models::{newest_rows, rollout_course, rollout_view},
};

/// Rollouts of a service among which the later ones are looked for.
const NEWEST_ROWS: u32 = 50;

pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
    State(workloads): State<Workloads>,
    State(clock): State<Arc<dyn Clock>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let (Ok(service), Ok(number)) = (
        service.parse::<ServiceName>(),
        number.parse::<RolloutNumber>(),
    ) else {
        return Err(PageError::NotFound("No such rollout.".to_owned()));
    };
    let id = RolloutId { service, number };
    caller.require(Verb::Browse, &Resource::Rollout(id.clone()))?;
    let rollout = rollout_view(&engines, &observations.live_evidence, &id).await?;
    let course = rollout_course(&*store, &id, rollout.seen.clone()).await;
    let (series, history) = course.unwrap_or_default();
    let place = ServiceEnvironment {
        service: id.service.clone(),
        environment: rollout.environment.clone(),
    };
    let mut instances = workloads.targets.instances();
    instances.retain(|instance| instance.id.set.place == place);
    let page = RolloutPage {
        successor: find_successor(&*store, &rollout).await?,
        rollout,
        history,
        series,
        instances,
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

/// The newest rollout of the same environment, if it is a later one.
async fn find_successor(
    store: &dyn Store,
    rollout: &RolloutView,
) -> Result<Option<RolloutId>, PageError> {
    let service = rollout.id.service.as_str();
    let all: Vec<RolloutView> = newest_rows(store, "rollout", service, NEWEST_ROWS).await?;
    let same = all
        .into_iter()
        .filter(|other| other.environment == rollout.environment);
    let newest = same.map(|other| other.id).max_by_key(|id| id.number);
    Ok(newest.filter(|newest| newest.number > rollout.id.number))
}
