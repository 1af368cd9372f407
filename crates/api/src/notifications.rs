//! Destinations of notifications, and their dead letters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Dead letters to send again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// The number of one dead letter; all of the destination by default, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// A test message that is queued. The list of destinations has its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueuedTestMessage {
    /// The id of the destination.
    pub channel: String,
    /// The number of the message in the queue of the destination.
    pub number: u64,
}
