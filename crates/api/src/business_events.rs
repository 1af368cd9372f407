//! Business events that services report: orders, sign-ups. `provider: events` in `shipway.yaml` judges by them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A report of business events.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BusinessEventReport {
    /// The service's last environment by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// At most 1,000.
    pub events: Vec<BusinessEvent>,
}

/// One kind of event on one release; exactly one of `instance`, `release` and `user` says which release.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BusinessEvent {
    /// The kind of event: `orders`.
    pub name: String,
    /// How often it happened; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The instance where it happened, from its variable `SHIPWAY_INSTANCE`. The only way to tell a baseline's events from those of
    /// the release that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The release where it happened, from the variable `SHIPWAY_RELEASE` of its instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
    /// The user: the value that traffic is split by (the cookie, the header or the address).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// How many events of a report were counted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct BusinessEventsCounted {
    /// The sum of their counts.
    pub counted: u64,
}
