//! The handle of an engine: says things to streams, reads their states, resumes and stops them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shipway_core::aggregate::{Actor, Aggregate, Event};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actor::{self, Loaded, Message},
    clock::Clock,
    driver::Driver,
    store::{Store, StoreError},
};

/// Inputs that may wait at one stream; who says more waits.
const MAILBOX: usize = 1_024;

/// How an engine works. The defaults are for servers.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Effects under way at once. Most of them wait for something (a job, a probe), so the bound is there against runaways,
    /// not for pacing.
    pub effects_max: usize,
    /// Events after which a stream's state is stored as a snapshot. A start reads all services: about half as many events of
    /// each as this, and reading one costs far more than its share in writing a snapshot.
    pub snapshot_every: u64,
    /// A stream that rests is unloaded after this long.
    pub idle_after: Duration,
    /// How long effects may take to end when the engine stops.
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

/// What followed from an input.
#[derive(Debug)]
pub struct Outcome<A: Aggregate> {
    /// The version of the stream afterwards.
    pub version: u64,
    /// The facts, durable by now; none when nothing changed.
    pub events: Vec<Event<A::Body>>,
    /// The state afterwards.
    pub state: Arc<A::State>,
}

/// Why an input had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError<R: std::error::Error> {
    /// The aggregate refuses, with a reason.
    #[error(transparent)]
    Rejected(R),
    /// The log can't be read or written; nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine is stopping; say it again to the next server.
    #[error("the server is stopping")]
    Stopping,
}

/// Runs the streams of one aggregate. Cheap to clone.
pub struct Engine<A: Aggregate>(pub(crate) Arc<Inner<A>>);

impl<A: Aggregate> Clone for Engine<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) struct Inner<A: Aggregate> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver<A>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) effects: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    streams: Mutex<HashMap<String, mpsc::Sender<Message<A>>>>,
}

impl<A: Aggregate> Engine<A> {
    /// An engine with nothing loaded yet; [`Engine::resume`] loads what is live.
    pub fn start(
        store: Arc<dyn Store>,
        driver: Arc<dyn Driver<A>>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self(Arc::new(Inner {
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

    /// Says `input` to a stream, and returns when what follows from it is durable.
    pub async fn send(
        &self,
        stream: &str,
        input: A::Input,
        by: Actor,
    ) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        let (reply, answer) = oneshot::channel();
        self.deliver(stream, Message::Input { input, by, reply })
            .await?;
        answer.await.unwrap_or(Err(EngineError::Stopping))
    }

    /// The state of a stream; `None` when it has no events.
    pub async fn state(&self, stream: &str) -> Result<Option<Arc<A::State>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || StoreError("the server is stopping".to_owned());
        self.deliver::<A::Rejection>(stream, Message::Peek { reply })
            .await
            .map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The state of a stream as the log tells it, without waking the stream: nothing that it is owed is begun. For whoever has to
    /// know how things stand before [`Engine::resume`].
    pub async fn read(&self, stream: &str) -> Result<Option<A::State>, StoreError> {
        let loaded = Loaded::<A>::load(self, stream).await?;
        Ok(loaded.into_state())
    }

    /// Loads every live stream and dispatches what is outstanding.
    pub async fn resume(&self) -> Result<(), StoreError> {
        for stream in self.0.store.live(A::KIND).await? {
            self.state(&stream).await?;
        }
        Ok(())
    }

    /// Takes no more inputs, cancels what is under way and waits for it to end. What is outstanding comes out again at the
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
                "some effects did not end in time; the next server takes them up again"
            );
        }
    }

    async fn deliver<R: std::error::Error>(
        &self,
        stream: &str,
        mut message: Message<A>,
    ) -> Result<(), EngineError<R>> {
        loop {
            if self.0.stopping.is_cancelled() {
                return Err(EngineError::Stopping);
            }
            let mailbox = self.mailbox(stream);
            match mailbox.send(message).await {
                Ok(()) => return Ok(()),
                // Unloaded between the look-up and the sending: it is loaded again.
                Err(mpsc::error::SendError(back)) => {
                    message = back;
                    self.forget(stream, &mailbox);
                }
            }
        }
    }

    fn mailbox(&self, stream: &str) -> mpsc::Sender<Message<A>> {
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
        self.0.tasks.spawn(actor::run(
            self.clone(),
            stream.to_owned(),
            sender.downgrade(),
            receiver,
        ));
        sender
    }

    /// Takes leave of a stream that rests, unless somebody is about to say something to it: then it stays loaded. So nothing is
    /// said to a stream that has ceased to look after what it is owed.
    pub(crate) fn unload(&self, stream: &str, mailbox: &mpsc::Receiver<Message<A>>) -> bool {
        let mut streams = self
            .0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Who is about to speak holds a sender, which they get under this lock.
        if mailbox.sender_strong_count() > 1 || !mailbox.is_empty() {
            return false;
        }
        streams.remove(stream);
        true
    }

    /// Removes a mailbox that nobody reads any more, unless a new one is there already.
    pub(crate) fn forget(&self, stream: &str, mailbox: &mpsc::Sender<Message<A>>) {
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
