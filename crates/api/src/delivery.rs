//! Delivery counts: the query for DORA's measures.

use serde::Deserialize;
use utoipa::IntoParams;

/// Which days to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// Only of this service.
    pub service: Option<String>,
    /// Only of this environment.
    pub environment: Option<String>,
    /// How many entries; 50 by default, at most 200.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<u64>,
}
