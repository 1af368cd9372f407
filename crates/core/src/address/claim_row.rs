//! The row of a claimed address.

use serde::{Deserialize, Serialize};

use super::PublicAddress;
use crate::{
    aggregate::ViewRow,
    ids::{EnvironmentName, ServiceName},
};

/// The claim of one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddressClaimView {
    pub address: PublicAddress,
    /// The service that has it.
    pub service: ServiceName,
    /// The environment that has it.
    pub environment: EnvironmentName,
    /// Whether another environment may take it over, because no configuration names this one any more.
    pub transferable: bool,
}

impl AddressClaimView {
    /// The kind of the rows; their keys are the addresses.
    pub const KIND: &str = "address";

    /// The row of a claim. It starts nothing by itself, so it is not live.
    pub(super) fn to_row(&self) -> ViewRow {
        ViewRow {
            kind: Self::KIND.to_owned(),
            key: self.address.to_string(),
            service: self.service.to_string(),
            live: false,
            doc: serde_json::to_value(self).expect("a view is plain data"),
        }
    }
}
