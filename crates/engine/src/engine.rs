//! The handle of an engine: sends inputs to streams, reads their states, resumes and stops them.

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::aggregate::{Actor, Aggregate};
use tokio::sync::{mpsc, oneshot};

use crate::{
    actor::{self, LoadedStream},
    clock::Clock,
    driver::{Driver, InputSender},
    engine_state::{EngineState, Options},
    outcome::{EngineError, Outcome},
    store::{Store, StoreError},
    stream_message::StreamMessage,
};

/// Queued messages per stream; senders wait beyond that.
const MAILBOX: usize = 1_024;

/// Runs the streams of one aggregate. Cheap to clone.
pub struct Engine<A: Aggregate>(Arc<EngineState<A>>);

impl<A: Aggregate> Clone for Engine<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Aggregate> Engine<A> {
    /// Creates an engine with no stream loaded; [`Engine::resume`] loads the live ones.
    pub fn start(
        store: Arc<dyn Store>,
        driver: Arc<dyn Driver<A>>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self(Arc::new(EngineState::new(store, driver, clock, options)))
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
        let loaded = LoadedStream::<A>::load(&*self.0.store, stream).await?;
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
                    self.0.remove_mailbox(stream, &mailbox);
                }
            }
        }
    }

    fn mailbox_for(&self, stream: &str) -> mpsc::Sender<StreamMessage<A>> {
        let mut streams = self.0.lock_streams();
        if let Some(mailbox) = streams.get(stream) {
            return mailbox.clone();
        }
        let (sender, receiver) = mpsc::channel(MAILBOX);
        streams.insert(stream.to_owned(), sender.clone());
        self.0.tasks.spawn(actor::run_stream(
            self.0.clone(),
            Arc::new(self.clone()),
            stream.to_owned(),
            sender.downgrade(),
            receiver,
        ));
        sender
    }
}

#[async_trait]
impl<A: Aggregate> InputSender<A> for Engine<A> {
    async fn send_input(
        &self,
        stream: &str,
        input: A::Input,
        by: Actor,
    ) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        self.send(stream, input, by).await
    }
}
