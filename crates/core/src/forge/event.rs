//! Inputs, events, effects and rejections of a forge connection.

use serde::{Deserialize, Serialize};

use super::{change::ForgeChange, connection::ForgeConnection, report::ForgeReport};
use crate::ids::Digest;

/// The facts of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeEvent {
    /// The repository follows one of a forge.
    Connected {
        connection: Box<ForgeConnection>,
        /// The position of the log behind which events are reported to the forge.
        position: u64,
    },
    Disconnected,
    /// A webhook was verified and accepted; its change is handled next.
    DeliveryAccepted {
        delivery: Box<AcceptedDelivery>,
    },
    /// A change was handled.
    DeliveryHandled {
        number: u64,
        /// What followed, in words.
        outcome: String,
    },
    /// The log was read up to this position, and the forge is to get these reports.
    ReportsQueued {
        position: u64,
        reports: Vec<ForgeReport>,
    },
    /// The forge has a report.
    ReportSent {
        number: u64,
        /// The forge's id of the deployment or the comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<u64>,
    },
    /// A report was given up.
    ReportFailed {
        number: u64,
        why: String,
    },
}

/// A webhook whose signature is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedDelivery {
    /// The forge's id of the delivery, which no signature covers.
    pub id: String,
    /// The digest of the body, by which a replay is recognised.
    pub body: Digest,
    pub change: ForgeChange,
}

/// Requests, and reports of drivers.
#[derive(Clone, Debug)]
pub enum ForgeInput {
    Connect {
        connection: Box<ForgeConnection>,
        /// The last position of the log.
        position: u64,
    },
    Disconnect,
    AcceptDelivery(Box<AcceptedDelivery>),
    DeliveryHandled {
        number: u64,
        outcome: String,
    },
    /// Events of the log up to this position are to be reported.
    QueueReports {
        position: u64,
        reports: Vec<ForgeReport>,
    },
    ReportSent {
        number: u64,
        remote: Option<u64>,
    },
    ReportFailed {
        number: u64,
        why: String,
    },
    TimerFired,
}

/// Work for the driver. Of each kind one is under way, in the order of the numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum ForgeEffect {
    /// Fetch the change and start its workflows; answer with [`ForgeInput::DeliveryHandled`].
    HandleDelivery {
        number: u64,
        change: Box<ForgeChange>,
    },
    /// Write it to the forge; answer with [`ForgeInput::ReportSent`] or [`ForgeInput::ReportFailed`].
    SendReport { number: u64, report: ForgeReport },
}

/// Why an input is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgeRejection {
    #[error("this repository is connected to no forge: shipway forge connect FORGE OWNER/NAME")]
    NotConnected,
    #[error("this webhook was accepted before: nothing is done twice")]
    Repeated,
    #[error("{0} webhooks are waiting to be handled: send it again later")]
    TooMany(usize),
}
