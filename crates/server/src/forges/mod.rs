//! Connections to forges: webhooks are verified and recorded, changes are fetched, and the states of runs and rollouts are written back.
//!
//! # Failure modes
//!
//! - The forge is down: webhooks that were accepted and reports wait in the stream of the connection, and are retried.
//! - The server dies after a webhook was answered: its delivery is in the log, and is handled at the next start.
//! - A webhook is lost: the next one fetches the branch as it is then.

mod connections;
mod delivery_handling;
mod report_follower;
mod report_texts;
mod webhook_signature;

pub(crate) use connections::{ForgeConnections, git_authorization};
pub(crate) use delivery_handling::DeliveryHandler;
pub(crate) use report_follower::ReportFollower;
pub(crate) use webhook_signature::{SentSignature, WebhookHeaders};
