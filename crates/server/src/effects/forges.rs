//! Carries out the effects of connections to forges: webhooks are handled and reports are sent, each in order, with retries.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    forge::{
        ForgeAggregate, ForgeChange, ForgeEffect, ForgeInput, ForgeReport, ForgeState,
        comment_marker,
    },
    ids::ServiceName,
    outbox::RetryPolicy,
};
use shipway_drivers::forge_api::{ForgeApiError, ForgeClient, ForgeWrite};
use shipway_engine::{Driver, Work};

use crate::{
    delivery_engines::DeliveryEngines,
    forges::{DeliveryHandler, ForgeConnections},
    push::PushSources,
};

/// From one second to one minute, for a day.
const RETRIES: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(1),
    factor: 2,
    longest: Duration::from_secs(60),
    attempts: 1_500,
};

/// The longest pause that a forge can ask for; GitHub's rate limits end within an hour.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Carries out the effects of connections.
pub(crate) struct ForgeDriver {
    engines: Weak<DeliveryEngines>,
    pushes: PushSources,
    connections: ForgeConnections,
    client: ForgeClient,
}

impl ForgeDriver {
    pub(crate) fn new(
        engines: Weak<DeliveryEngines>,
        pushes: &PushSources,
        connections: &ForgeConnections,
    ) -> Self {
        Self {
            engines,
            pushes: pushes.clone(),
            connections: connections.clone(),
            client: ForgeClient::default(),
        }
    }
}

#[async_trait]
impl Driver<ForgeAggregate> for ForgeDriver {
    async fn carry_out(&self, work: Work<ForgeAggregate>) -> ForgeInput {
        let repository = work.stream.split_once('/').and_then(|it| it.1.parse().ok());
        let (Some(engines), Some(repository)) = (self.engines.upgrade(), repository) else {
            return ForgeInput::TimerFired;
        };
        let task = ForgeTask {
            driver: self,
            engines,
            repository,
            state: &work.state,
        };
        let done = async {
            match &work.effect {
                ForgeEffect::HandleDelivery { number, change } => {
                    task.handle_delivery(*number, change).await
                }
                ForgeEffect::SendReport { number, report } => {
                    task.send_report(*number, report).await
                }
            }
        };
        tokio::select! {
            input = done => input,
            () = work.cancelled.cancelled() => ForgeInput::TimerFired,
        }
    }
}

/// One effect of a connection.
struct ForgeTask<'a> {
    driver: &'a ForgeDriver,
    engines: Arc<DeliveryEngines>,
    repository: ServiceName,
    state: &'a ForgeState,
}

/// Why a report was given up, or is tried again.
#[derive(Debug, thiserror::Error)]
enum ForgeReportError {
    #[error("the repository is connected to no forge, or without a token")]
    NotConnected,
    #[error("{0}")]
    Secret(String),
    #[error(transparent)]
    Api(#[from] ForgeApiError),
}

impl ForgeReportError {
    const fn is_retryable(&self) -> bool {
        match self {
            Self::NotConnected => false,
            Self::Secret(_) => true,
            Self::Api(error) => error.is_retryable(),
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::NotConnected | Self::Secret(_) => None,
        }
    }
}

impl ForgeTask<'_> {
    async fn handle_delivery(&self, number: u64, change: &ForgeChange) -> ForgeInput {
        let outcome = self.delivery_outcome(number, change).await;
        tracing::info!(repository = %self.repository, outcome, "a webhook was handled");
        ForgeInput::DeliveryHandled { number, outcome }
    }

    async fn delivery_outcome(&self, number: u64, change: &ForgeChange) -> String {
        if let ForgeChange::PullRequest(change) = change
            && self.state.is_outdated(change)
        {
            let (number, action) = (change.number, &change.action);
            return format!("pull request {number} {action}: a newer change was handled before");
        }
        let mut failed = 0;
        loop {
            let Some(connection) = self.driver.connections.find(&self.repository) else {
                return "the repository is connected to no forge".to_owned();
            };
            let pushes = self.driver.pushes.receiver(self.engines.clone());
            let handler = DeliveryHandler {
                pushes: &pushes,
                connections: &self.driver.connections,
                repositories: &self.driver.pushes.repositories,
                repository: &self.repository,
                connection: &connection,
                number,
            };
            let error = match handler.handle(change).await {
                Ok(outcome) => return outcome,
                Err(error) => error,
            };
            failed += 1;
            let wait = RETRIES.wait(failed, None);
            let Some(wait) = wait.filter(|_| error.is_retryable()) else {
                return format!("failed: {error}");
            };
            tracing::warn!(%error, repository = %self.repository, "a webhook is handled again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn send_report(&self, number: u64, report: &ForgeReport) -> ForgeInput {
        let mut failed = 0;
        loop {
            let error = match self.try_to_send(report).await {
                Ok(remote) => return ForgeInput::ReportSent { number, remote },
                Err(error) => error,
            };
            failed += 1;
            let wait = RETRIES.wait(failed, None);
            let Some(wait) = wait.filter(|_| error.is_retryable()) else {
                tracing::warn!(%error, repository = %self.repository, "a report to a forge was given up");
                let why = error.to_string();
                return ForgeInput::ReportFailed { number, why };
            };
            let asked = error.retry_after().unwrap_or_default();
            tracing::warn!(%error, repository = %self.repository, "a report to a forge is sent again");
            tokio::time::sleep(wait.max(asked.min(RETRY_AFTER_MAX))).await;
        }
    }

    async fn try_to_send(&self, report: &ForgeReport) -> Result<Option<u64>, ForgeReportError> {
        let connection = self.driver.connections.find(&self.repository);
        let connection = connection.ok_or(ForgeReportError::NotConnected)?;
        let token = self.driver.connections.token(&self.repository, &connection);
        let token = token.map_err(|error| ForgeReportError::Secret(error.to_string()))?;
        let token = token.ok_or(ForgeReportError::NotConnected)?;
        let write = match report {
            ForgeReport::Status(status) => ForgeWrite::Status(status.clone()),
            ForgeReport::Deployment(report) => ForgeWrite::Deployment {
                known: self.state.deployments.get(&report.key()).copied(),
                report: report.clone(),
            },
            ForgeReport::Comment { pull_request } => {
                let Some(record) = self.state.pull_requests.get(pull_request) else {
                    return Ok(None);
                };
                ForgeWrite::Comment {
                    pull_request: *pull_request,
                    text: record.comment(&self.repository),
                    marker: comment_marker(&self.repository),
                    known: record.comment,
                }
            }
        };
        Ok(self.driver.client.send(&connection, &token, write).await?)
    }
}
