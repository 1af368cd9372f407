//! The addresses of environments, and of Shipway itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_core::address::claims::PortUse;
use utoipa::ToSchema;

/// A page of claimed addresses, with the ports that no environment can have.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressPage {
    /// One for each address, with its owner.
    pub items: Vec<Value>,
    /// The cursor of the next page; `null` on the last one.
    #[serde(default)]
    pub next: Option<u64>,
    /// Ports of Shipway itself.
    #[schema(value_type = Object)]
    pub reserved_ports: BTreeMap<u16, PortUse>,
}
