//! Records uses of secrets in the log, apart from those of jobs.
//!
//! A value is found without waiting: in the middle of a start of instances or a query. Its use is recorded by a task, at most once an
//! hour for each user, so a crash may lose the last second of uses.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shipway_core::{
    aggregate::Actor,
    secret::{SecretInput, SecretUser, UsedSecret},
};
use tokio::sync::Notify;

use crate::delivery_engines::DeliveryEngines;

/// The same use is recorded again after this time.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Uses that are remembered. Beyond it all are forgotten, so some are recorded earlier than needed.
const REMEMBERED_MAX: usize = 10_000;

/// One use of one secret.
#[derive(Clone, Debug)]
pub(crate) struct SecretUse {
    pub(crate) stream: String,
    pub(crate) user: SecretUser,
    pub(crate) secret: UsedSecret,
}

/// Takes uses of secrets and records them.
#[derive(Clone, Default)]
pub(crate) struct UseRecorder {
    uses: Arc<Mutex<RecentUses>>,
    reported: Arc<Notify>,
}

#[derive(Default)]
struct RecentUses {
    /// By a text of the use.
    known: BTreeMap<String, Instant>,
    waiting: Vec<SecretUse>,
}

impl UseRecorder {
    /// Takes a use; it is recorded soon.
    pub(super) fn report(&self, secret_use: SecretUse) {
        let key = format!("{secret_use:?}");
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| at.elapsed() < INTERVAL;
        if uses.known.get(&key).is_some_and(is_recent) {
            return;
        }
        if uses.known.len() >= REMEMBERED_MAX {
            uses.known.clear();
        }
        uses.known.insert(key, Instant::now());
        uses.waiting.push(secret_use);
        self.reported.notify_one();
    }

    /// Records uses until it is dropped.
    pub(crate) async fn run(self, engines: Arc<DeliveryEngines>) {
        loop {
            self.reported.notified().await;
            let waiting = {
                let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut uses.waiting)
            };
            for SecretUse {
                stream,
                user,
                secret,
            } in waiting
            {
                let by = Actor::Shipway(user.to_string());
                let secrets = vec![secret];
                let input = SecretInput::RecordUse { user, secrets };
                if let Err(error) = engines.secrets.send(&stream, input, by).await {
                    tracing::warn!(%error, stream, "the use of a secret is not recorded");
                }
            }
        }
    }
}
