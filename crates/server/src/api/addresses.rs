//! Which environment has which address.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use shipway_api::{AddressPage, PageQuery};
use shipway_core::{
    access::{Resource, Verb},
    address::claim_row::AddressClaimView,
};
use shipway_engine::{RowQuery, Store};

use super::{ApiError, Caller, lists::read_page};
use crate::capabilities::ServerAddresses;

/// Addresses with their owners, the newest first, and the ports of Shipway itself.
#[utoipa::path(get, path = "/api/v1/addresses", operation_id = "list_addresses", params(PageQuery), responses((status = 200, body = AddressPage)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(server_addresses): State<ServerAddresses>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<AddressPage>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let visible = caller.visible_services();
    let rows = RowQuery {
        visible: visible.names(),
        ..RowQuery::new(AddressClaimView::KIND)
    };
    let page = read_page(&*store, rows, &query).await?;
    Ok(Json(AddressPage {
        items: page.items,
        next: page.next,
        reserved_ports: server_addresses.reserved_ports(),
    }))
}
