//! Delivers notices of services and rollouts to the destinations that their configuration names.

use shipway_core::{config::NotificationTarget, secret::SecretUser};
use shipway_drivers::{
    notify::{
        InvalidWebhookAddress, Notification, NotificationSender, NotifyError, RetryPolicy,
        WebhookDestination,
    },
    secret_expansion::{SecretNotSet, expand_secrets},
};

use crate::secrets::{SecretPlace, SecretStore};

/// Delivers notifications.
#[derive(Clone)]
pub(crate) struct NoticeDelivery {
    pub(crate) sender: NotificationSender,
    /// Fills in the secrets of addresses.
    pub(crate) secrets: SecretStore,
    /// Where pages are, for links.
    pub(crate) pages_url: String,
}

/// Why a notification was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// The configuration has fewer destinations.
    #[error("`notify` has no entry {0}")]
    NoEntry(usize),
    /// The address names a secret that the server does not have.
    #[error(transparent)]
    Secret(#[from] SecretNotSet),
    /// The address, with its secrets filled in, is not a URL of a webhook.
    #[error(transparent)]
    Address(#[from] InvalidWebhookAddress),
    /// The last of several attempts failed.
    #[error(transparent)]
    Send(#[from] NotifyError),
}

impl NoticeDelivery {
    /// Delivers a notification to the destination `to`, the entry `index` of `notify`; retries while the receiver may recover. A
    /// destination that is down delays only its own notices.
    pub(super) async fn deliver(
        &self,
        to: Option<&NotificationTarget>,
        index: usize,
        notification: &Notification,
    ) -> Result<(), DeliveryError> {
        let to = self.destination(to.ok_or(DeliveryError::NoEntry(index + 1))?, notification)?;
        let policy = RetryPolicy::default();
        let mut failed = 0;
        loop {
            let Err(error) = self.sender.send(&to, notification).await else {
                return Ok(());
            };
            failed += 1;
            let wait = policy.wait(failed, error.retry_after());
            let Some(wait) = wait.filter(|_| error.is_retryable()) else {
                return Err(error.into());
            };
            tracing::warn!(%error, "a notification is retried");
            tokio::time::sleep(wait).await;
        }
    }

    /// The destination with its secrets filled in.
    fn destination(
        &self,
        to: &NotificationTarget,
        notification: &Notification,
    ) -> Result<WebhookDestination, DeliveryError> {
        let find = |name: &str| {
            let place = SecretPlace {
                service: notification.service.as_ref()?,
                environment: notification.environment.as_ref(),
            };
            self.secrets.find(place, name, &SecretUser::Notification)
        };
        Ok(match to {
            NotificationTarget::Slack(url) => {
                WebhookDestination::slack(&expand_secrets(url, find)?)?
            }
            NotificationTarget::Webhook(url) => {
                WebhookDestination::webhook(&expand_secrets(url, find)?, None)?
            }
        })
    }
}
