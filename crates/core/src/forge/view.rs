//! A connection as the API shows it.

use serde::{Deserialize, Serialize};

use super::{
    connection::{ForgeConnection, ForgeKind, ForkPolicy},
    state::{FailedReport, ForgeState, HandledDelivery},
};
use crate::ids::ServiceName;

/// A connection, with its webhooks and reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeView {
    pub repository: ServiceName,
    pub forge: ForgeKind,
    pub project: String,
    pub git_url: String,
    pub api_url: String,
    /// The address to enter at the forge.
    pub hook_url: String,
    /// The names of the secrets.
    pub webhook_secret: String,
    pub token: Option<String>,
    pub forks: ForkPolicy,
    /// Webhooks that are not handled yet.
    pub waiting_deliveries: usize,
    /// The last webhooks that were handled, the newest first.
    pub deliveries: Vec<HandledDelivery>,
    /// Reports that the forge doesn't have yet.
    pub waiting_reports: usize,
    /// The last reports that were given up, the newest first.
    pub failed_reports: Vec<FailedReport>,
}

impl ForgeView {
    #[must_use]
    pub fn new(
        repository: ServiceName,
        connection: &ForgeConnection,
        state: &ForgeState,
        server_url: &str,
    ) -> Self {
        Self {
            repository,
            forge: connection.forge,
            project: connection.project.clone(),
            git_url: connection.git_url(),
            api_url: connection.api_url(),
            hook_url: format!("{server_url}/hooks/{}", connection.forge),
            webhook_secret: connection.webhook_secret.to_string(),
            token: connection.token.as_ref().map(ToString::to_string),
            forks: connection.forks,
            waiting_deliveries: state.deliveries.len(),
            deliveries: state.handled.iter().rev().cloned().collect(),
            waiting_reports: state.reports.len(),
            failed_reports: state.failed.iter().rev().cloned().collect(),
        }
    }
}
