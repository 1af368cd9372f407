//! What the handles of an engine, its streams and their effects share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shipway_core::aggregate::Aggregate;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{clock::Clock, driver::Driver, store::Store, stream_message::StreamMessage};

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

/// The mailbox of each loaded stream.
type StreamMailboxes<A> = HashMap<String, mpsc::Sender<StreamMessage<A>>>;

pub(crate) struct EngineState<A: Aggregate> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver<A>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) effects: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    streams: Mutex<StreamMailboxes<A>>,
}

impl<A: Aggregate> EngineState<A> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        driver: Arc<dyn Driver<A>>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self {
            store,
            driver,
            clock,
            options,
            effects: Arc::new(Semaphore::new(options.effects_max)),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            streams: Mutex::default(),
        }
    }

    pub(crate) fn lock_streams(&self) -> MutexGuard<'_, StreamMailboxes<A>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unloads an idle stream, unless a sender is about to send a message: a message must not be lost in the mailbox of an
    /// unloaded stream.
    pub(crate) fn try_unload(
        &self,
        stream: &str,
        mailbox: &mpsc::Receiver<StreamMessage<A>>,
    ) -> bool {
        let mut streams = self.lock_streams();
        // A task that is about to send holds a sender, which it got under this lock.
        if mailbox.sender_strong_count() > 1 || !mailbox.is_empty() {
            return false;
        }
        streams.remove(stream);
        true
    }

    /// Removes a closed mailbox, unless it was replaced already.
    pub(crate) fn remove_mailbox(&self, stream: &str, mailbox: &mpsc::Sender<StreamMessage<A>>) {
        let mut streams = self.lock_streams();
        if streams
            .get(stream)
            .is_some_and(|known| known.same_channel(mailbox))
        {
            streams.remove(stream);
        }
    }
}
