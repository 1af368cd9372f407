//! Delivery counts: deployments, change failures and lead times.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use serde_json::Value;
use shipway_api::{DeliveryQuery, Page, PageQuery};
use shipway_core::{access::Verb, delivery::DeliveryCounts, projection::LogProjection};
use shipway_engine::{RowFacets, RowQuery, Store};

use super::{
    ApiError, Caller,
    lists::{listed_resource, read_page},
};

/// Deployments, change failures and lead times by service, environment and day (UTC), most recently changed first. Days without any are left
/// out.
#[utoipa::path(get, path = "/api/v1/delivery", operation_id = "list_delivery_days", params(DeliveryQuery), responses((status = 200, description = "A page of days", body = Value)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    Query(filter): Query<DeliveryQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    let service = filter.service.as_deref();
    caller.require(Verb::Read, &listed_resource(service))?;
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let environment = filter.environment.as_deref();
    let visible = caller.visible_services();
    let rows = RowQuery {
        visible: visible.names(),
        service,
        facets: RowFacets {
            environment,
            ..RowFacets::default()
        },
        ..RowQuery::new(DeliveryCounts::NAME)
    };
    Ok(Json(read_page(&*store, rows, &query).await?))
}
