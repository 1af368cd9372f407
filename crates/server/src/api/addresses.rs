//! Which environment has which address.

use std::sync::Arc;

use axum::{Json, extract::State};
use shipway_core::{
    access::{Resource, Verb},
    address::view::AddressClaimsView,
};

use super::{ApiError, Caller};
use crate::app::App;

/// All addresses with their owners, and the ports of Shipway itself.
#[utoipa::path(get, path = "/api/v1/addresses", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<AddressClaimsView>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let claims = app.engines.address_claims().await?;
    Ok(Json(AddressClaimsView::new(
        &claims,
        app.server_addresses.reserved_ports(),
    )))
}
