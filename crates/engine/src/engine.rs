//! The handle of an engine: sends inputs to streams, reads their states, resumes and stops them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shipway_core::aggregate::{Actor, Aggregate, Event};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actor::{self, LoadedStream, StreamMessage},
    clock::Clock,
    driver::Driver,
    store::{Store, StoreError},
};

/// Queued messages per stream; senders wait beyond that.
const MAILBOX: usize = 1_024;

/// Options of an engine. The defaults are for servers.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Limit of concurrent effects. Most of them wait (for a job, a probe), so the limit only guards against runaways.
    pub effects_max: usize,
    /// Number of events after which the state is stored as a snapshot. At startup all services are loaded: about half as many
    /// events each, and reading an event costs far more than its share of writing a snapshot.
    pub snapshot_every: u64,
    /// Time after which an idle stream is unloaded.
    pub idle_after: Duration,
    /// Grace for effects when the engine stops.
    pub stop_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            effects_max: 4_096,
            snapshot_every: 100,
            idle_after: Duration::from_secs(30),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// The result of an input.
#[derive(Debug)]
pub struct Outcome<A: Aggregate> {
    /// The version of the stream afterwards.
    pub version: u64,
    /// The durable events; empty if nothing changed.
    pub events: Vec<Event<A::Body>>,
    /// The state afterwards.
    pub state: Arc<A::State>,
}

/// Why an input had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError<R: std::error::Error> {
    /// The aggregate rejected it with a reason.
    #[error(transparent)]
    Rejected(R),
    /// The log can't be read or written; nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine is stopping; retry at the next server.
    #[error("the server is stopping")]
    Stopping,
}

/// Runs the streams of one aggregate. Cheap to clone.
pub struct Engine<A: Aggregate>(pub(crate) Arc<EngineState<A>>);

impl<A: Aggregate> Clone for Engine<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) struct EngineState<A: Aggregate> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver<A>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) effects: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    streams: Mutex<HashMap<String, mpsc::Sender<StreamMessage<A>>>>,
}

impl<A: Aggregate> Engine<A> {
    /// Creates an engine with no stream loaded; [`Engine::resume`] loads the live ones.
    pub fn start(
        store: Arc<dyn Store>,
        driver: Arc<dyn Driver<A>>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self(Arc::new(EngineState {
            store,
            driver,
            clock,
            options,
            effects: Arc::new(Semaphore::new(options.effects_max)),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            streams: Mutex::new(HashMap::new()),
        }))
    }

    /// Sends `input` to a stream; returns when its events are durable.
    pub async fn send(
        &self,
        stream: &str,
        input: A::Input,
        by: Actor,
    ) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        let (reply, answer) = oneshot::channel();
        self.deliver(stream, StreamMessage::Input { input, by, reply })
            .await?;
        answer.await.unwrap_or(Err(EngineError::Stopping))
    }

    /// The state of a stream; `None` if it has no events.
    pub async fn state(&self, stream: &str) -> Result<Option<Arc<A::State>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || StoreError("the server is stopping".to_owned());
        self.deliver::<A::Rejection>(stream, StreamMessage::Peek { reply })
            .await
            .map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Reads the state of a stream from the log without loading the stream: no effect is started. For callers that need states
    /// before [`Engine::resume`].
    pub async fn read(&self, stream: &str) -> Result<Option<A::State>, StoreError> {
        let loaded = LoadedStream::<A>::load(self, stream).await?;
        Ok(loaded.into_state())
    }

    /// Loads every live stream and dispatches its pending effects.
    pub async fn resume(&self) -> Result<(), StoreError> {
        for stream in self.0.store.live(A::KIND).await? {
            self.state(&stream).await?;
        }
        Ok(())
    }

    /// Rejects further inputs, cancels running effects and waits for them to end. Pending effects are dispatched again at the
    /// next start.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(self.0.options.stop_grace, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                kind = A::KIND,
                "some effects did not end in time; the next server resumes them"
            );
        }
    }

    async fn deliver<R: std::error::Error>(
        &self,
        stream: &str,
        mut message: StreamMessage<A>,
    ) -> Result<(), EngineError<R>> {
        loop {
            if self.0.stopping.is_cancelled() {
                return Err(EngineError::Stopping);
            }
            let mailbox = self.mailbox_for(stream);
            match mailbox.send(message).await {
                Ok(()) => return Ok(()),
                // Unloaded between lookup and send: load it again.
                Err(mpsc::error::SendError(back)) => {
                    message = back;
                    self.remove_mailbox(stream, &mailbox);
                }
            }
        }
    }

    fn mailbox_for(&self, stream: &str) -> mpsc::Sender<StreamMessage<A>> {
        let mut streams = self
            .0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = streams.get(stream) {
            return mailbox.clone();
        }
        let (sender, receiver) = mpsc::channel(MAILBOX);
        streams.insert(stream.to_owned(), sender.clone());
        self.0.tasks.spawn(actor::run_stream(
            self.clone(),
            stream.to_owned(),
            sender.downgrade(),
            receiver,
        ));
        sender
    }

    /// Unloads an idle stream, unless a sender is about to send a message: a message must not be lost in the mailbox of an
    /// unloaded stream.
    pub(crate) fn try_unload(
        &self,
        stream: &str,
        mailbox: &mpsc::Receiver<StreamMessage<A>>,
    ) -> bool {
        let mut streams = self
            .0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A task that is about to send holds a sender, which it got under this lock.
        if mailbox.sender_strong_count() > 1 || !mailbox.is_empty() {
            return false;
        }
        streams.remove(stream);
        true
    }

    /// Removes a closed mailbox, unless it was replaced already.
    pub(crate) fn remove_mailbox(&self, stream: &str, mailbox: &mpsc::Sender<StreamMessage<A>>) {
        let mut streams = self
            .0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if streams
            .get(stream)
            .is_some_and(|known| known.same_channel(mailbox))
        {
            streams.remove(stream);
        }
    }
}
