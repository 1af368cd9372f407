//! Requests with an `Idempotency-Key`: the ones in progress, and the log of earlier ones.
//! [`shipway_core::keyed_request`] decides which answers are stored, and for how long; `api/idempotency.rs` translates from HTTP.
//!
//! # Invariants
//!
//! - At any time one request with a key is carried out; the same request, sent again meanwhile, waits for the answer of the first.
//! - A request is carried out in a task of its own: a client that disconnects doesn't interrupt it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    aggregate::{Actor, Aggregate as _},
    ids::Digest,
    keyed_request::{KeyedRequestInput, KeyedRequestRejection, KeyedRequests, RecordedResponse},
};
use shipway_engine::{Clock, Driver, Engine, EngineError, Store, StoreError, Work};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Between two looks for keys that have expired.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long requests may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of a request that is carried out; none at the end of the channel when it has failed without an answer.
pub(crate) type PendingAnswer = watch::Receiver<Option<RecordedResponse>>;

/// The requests with keys that are in progress, and the log of earlier ones.
pub(crate) struct KeyedRequestRunner {
    log: Engine<KeyedRequests>,
    running: RunningRequests,
    tasks: TaskTracker,
}

/// By the stream of their key.
type RunningRequests = Arc<Mutex<BTreeMap<String, RunningRequest>>>;

/// A request that is carried out now.
struct RunningRequest {
    body: Digest,
    answer: PendingAnswer,
}

/// What becomes of a request with a key.
pub(crate) enum KeyClaim {
    /// The first request with its key: its answer also goes to the requests that wait for it.
    First(FirstRequest, PendingAnswer),
    /// The same request is carried out now.
    Repeated(PendingAnswer),
    /// The key is in use for another request.
    OtherBody,
}

impl KeyedRequestRunner {
    pub(crate) fn new(log: Engine<KeyedRequests>) -> Self {
        Self {
            log,
            running: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Claims the key of a request.
    pub(crate) fn claim_key(&self, stream: &str, body: &Digest) -> KeyClaim {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get(stream) {
            Some(other) if other.body != *body => KeyClaim::OtherBody,
            Some(same) => KeyClaim::Repeated(same.answer.clone()),
            None => {
                let (sender, answer) = watch::channel(None);
                let entry = RunningRequest {
                    body: body.clone(),
                    answer: answer.clone(),
                };
                running.insert(stream.to_owned(), entry);
                let first = FirstRequest {
                    log: self.log.clone(),
                    claim: ClaimedKey {
                        running: self.running.clone(),
                        stream: stream.to_owned(),
                    },
                    body: body.clone(),
                    sender,
                };
                KeyClaim::First(first, answer)
            }
        }
    }

    /// Carries a request out in a task that [`Self::stop`] waits for.
    pub(crate) fn spawn(&self, request: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(request);
    }

    /// Waits for the requests that are carried out, so that their answers are recorded.
    pub(crate) async fn stop(&self) {
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some requests with an Idempotency-Key did not end in time");
        }
        self.log.stop().await;
    }

    /// Forgets keys that have expired, now and then, for as long as the server runs.
    pub(crate) fn prune(
        &self,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let log = self.log.clone();
        async move {
            loop {
                if let Err(error) = prune_once(&log, &*store, &*clock).await {
                    tracing::warn!(%error, "expired Idempotency-Keys could not be deleted");
                }
                tokio::time::sleep(PRUNE_INTERVAL).await;
            }
        }
    }
}

/// The first request with its key.
pub(crate) struct FirstRequest {
    log: Engine<KeyedRequests>,
    claim: ClaimedKey,
    body: Digest,
    sender: watch::Sender<Option<RecordedResponse>>,
}

/// Removes a request from the running ones, even if its handler panics.
struct ClaimedKey {
    running: RunningRequests,
    stream: String,
}

impl Drop for ClaimedKey {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.stream);
    }
}

impl FirstRequest {
    /// Records that the request is carried out; the recorded answer, if it has been before.
    pub(crate) async fn accept(
        &self,
        by: Actor,
    ) -> Result<Option<RecordedResponse>, EngineError<KeyedRequestRejection>> {
        let body = self.body.clone();
        let input = KeyedRequestInput::Accept { body };
        let outcome = self.log.send(&self.claim.stream, input, by).await?;
        Ok(outcome.state.answer().cloned())
    }

    /// Records the answer.
    pub(crate) async fn record(&self, answer: &RecordedResponse, by: Actor) {
        // What failed for a reason of the server's own may be sent again with the same key.
        let input = match answer.status >= 500 {
            true => KeyedRequestInput::Release,
            false => KeyedRequestInput::Answer(answer.clone()),
        };
        if let Err(error) = self.log.send(&self.claim.stream, input, by).await {
            tracing::error!(%error, "the answer to a request with an Idempotency-Key could not be recorded");
        }
    }

    /// Gives the answer to all that wait for it.
    pub(crate) fn finish(self, answer: RecordedResponse) {
        // First, so that a request that comes now reads the recorded answer.
        drop(self.claim);
        self.sender.send_replace(Some(answer));
    }
}

/// Keys ask nothing of the world.
pub(crate) struct NoEffects;

#[async_trait]
impl Driver<KeyedRequests> for NoEffects {
    async fn carry_out(&self, work: Work<KeyedRequests>) -> KeyedRequestInput {
        match work.effect {}
    }
}

async fn prune_once(
    log: &Engine<KeyedRequests>,
    store: &dyn Store,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let mut expired = Vec::new();
    for stream in store.streams(KeyedRequests::KIND).await? {
        let state = log.read(&stream).await?;
        if state.is_none_or(|state| state.is_expired(clock.now())) {
            expired.push(stream);
        }
    }
    if expired.is_empty() {
        return Ok(());
    }
    store.forget_streams(expired).await
}
