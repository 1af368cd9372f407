//! The page of a rollout.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{RolloutId, RolloutNumber, ServiceName},
};
use shipway_engine::{Clock, Store};
use shipway_pages::RolloutPage;

use super::{html, page_error::PageError};
use crate::{
    api::Caller,
    capabilities::ReleaseObservations,
    delivery_engines::DeliveryEngines,
    read_models::{analysis_series, rollout_view},
};

pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
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
    let page = RolloutPage {
        rollout: rollout_view(&engines, &observations.live_evidence, &id).await?,
        series: analysis_series(&*store, &id).await.unwrap_or_default(),
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}
