//! The task of a loaded stream, which owns its state.
//!
//! # Invariants
//!
//! - Inputs are decided one after the other, each against the state after the previous one.
//! - A reply is sent after the events are durable.
//!
//! # Failure modes
//!
//! - The log can't be read: all waiting messages get the error, and the next message loads the stream again.
//! - A conflict (another writer): the stream is reloaded and the batch is decided again.

use std::sync::Arc;

use jiff::Timestamp;
use shipway_core::aggregate::{Actor, Aggregate, Event, ViewRow};
use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::InputSender,
    effects::{RetryBackoff, RunningEffects},
    engine_state::EngineState,
    outcome::{EngineError, Outcome},
    store::{Append, AppendError, Store, StoreError},
    stream_message::{InputReply, StreamMessage},
};

/// Most inputs per batch.
const BATCH_MAX: usize = 256;

/// Loads the stream and serves it until it is unloaded or the engine stops.
pub(crate) async fn run_stream<A: Aggregate>(
    engine: Arc<EngineState<A>>,
    reports: Arc<dyn InputSender<A>>,
    stream: String,
    this: mpsc::WeakSender<StreamMessage<A>>,
    mut mailbox: mpsc::Receiver<StreamMessage<A>>,
) {
    let mut actor = match LoadedStream::load(&*engine.store, &stream).await {
        Ok(loaded) => StreamActor {
            effects: RunningEffects::new(engine.clone(), reports, stream.clone(), this.clone()),
            engine: engine.clone(),
            stream: stream.clone(),
            loaded,
            backoff: None,
        },
        Err(error) => {
            // All waiting senders get the error; the next message tries again.
            if let Some(sender) = this.upgrade() {
                engine.remove_mailbox(&stream, &sender);
            }
            mailbox.close();
            while let Some(message) = mailbox.recv().await {
                reject_message(message, &error);
            }
            return;
        }
    };
    actor.serve_mailbox(&mut mailbox).await;
    if let Some(sender) = this.upgrade() {
        engine.remove_mailbox(&stream, &sender);
    }
    // The engine stops: queued messages are still answered; pending effects are left to the next server.
    mailbox.close();
    while let Some(message) = mailbox.recv().await {
        actor.handle_messages(vec![message]).await;
    }
    actor.effects.cancel_all();
}

fn reject_message<A: Aggregate>(message: StreamMessage<A>, error: &StoreError) {
    match message {
        StreamMessage::Input { reply, .. } => {
            drop(reply.send(Err(EngineError::Store(error.clone()))))
        }
        StreamMessage::Peek { reply } => drop(reply.send(Err(error.clone()))),
        StreamMessage::EffectEnded { .. } => {}
    }
}

pub(crate) struct LoadedStream<A: Aggregate> {
    state: Arc<A::State>,
    version: u64,
    snapshot_version: u64,
}

impl<A: Aggregate> LoadedStream<A> {
    pub(crate) async fn load(store: &dyn Store, stream: &str) -> Result<Self, StoreError> {
        let mut state = A::State::default();
        let mut version = 0;
        if let Some(snapshot) = store.snapshot(stream).await? {
            match serde_json::from_str(&snapshot.state) {
                Ok(read) => (state, version) = (read, snapshot.version),
                // A snapshot is a cache: one of another version is ignored.
                Err(error) => tracing::debug!(%error, stream, "the snapshot is of another version"),
            }
        }
        let snapshot_version = version;
        for text in store.read(stream, version).await? {
            version += 1;
            let event: Event<A::Body> =
                serde_json::from_str(&text).map_err(|error| StoreError(format!("event {version} of {stream} can't be read ({error}); was the log written by a newer Shipway?")))?;
            A::apply(&mut state, &event);
        }
        Ok(Self {
            state: Arc::new(state),
            version,
            snapshot_version,
        })
    }

    /// The state; `None` if the stream has no events.
    pub(crate) fn into_state(self) -> Option<A::State> {
        (self.version > 0)
            .then(|| Arc::into_inner(self.state))
            .flatten()
    }
}

struct StreamActor<A: Aggregate> {
    engine: Arc<EngineState<A>>,
    stream: String,
    loaded: LoadedStream<A>,
    effects: RunningEffects<A>,
    /// Backoff while waking up has no effect although it is due.
    backoff: Option<RetryBackoff>,
}

/// A batch that was decided and stored: all events, and the range of each input.
struct DecidedBatch<A: Aggregate> {
    results: Vec<Result<(usize, usize), A::Rejection>>,
    events: Vec<Event<A::Body>>,
}

impl<A: Aggregate> StreamActor<A> {
    async fn serve_mailbox(&mut self, mailbox: &mut mpsc::Receiver<StreamMessage<A>>) {
        let engine = self.engine.clone();
        let mut batch = Vec::new();
        loop {
            let now = engine.clock.now();
            let (wake_at, live) = self
                .effects
                .reconcile(&self.loaded.state, now, self.backoff);
            batch.clear();
            let wake = async {
                match wake_at {
                    Some(at) => engine.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let resting = !live && self.effects.is_idle();
            tokio::select! {
                biased;
                () = engine.stopping.cancelled() => return,
                count = mailbox.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.handle_messages(std::mem::take(&mut batch)).await;
                }
                () = wake => self.handle_timer(engine.clock.now()).await,
                () = tokio::time::sleep(engine.options.idle_after), if resting => {
                    if engine.try_unload(&self.stream, mailbox) {
                        return;
                    }
                }
            }
        }
    }

    /// Handles a timer: of the aggregate, or of an effect that is to be retried.
    async fn handle_timer(&mut self, now: Timestamp) {
        let is_due = |state: &A::State| {
            let wake_at = A::pending(state, now).wake_at;
            wake_at.is_some_and(|at| at <= now)
        };
        if !is_due(&self.loaded.state) || self.backoff.is_some_and(|backoff| backoff.until > now) {
            return;
        }
        let before = self.loaded.version;
        let (reply, _) = oneshot::channel();
        let by = Actor::Shipway("the time has come".to_owned());
        self.handle_messages(vec![StreamMessage::Input {
            input: A::timer_fired(),
            by,
            reply,
        }])
        .await;
        // Writing failed, or the aggregate produced no event: back off.
        let in_vain = self.loaded.version == before && is_due(&self.loaded.state);
        self.backoff = in_vain.then(|| RetryBackoff::after(self.backoff, now));
    }

    async fn handle_messages(&mut self, batch: Vec<StreamMessage<A>>) {
        let mut inputs = Vec::with_capacity(batch.len());
        let mut peeks = Vec::new();
        for message in batch {
            match message {
                StreamMessage::Input { input, by, reply } => inputs.push((input, by, Some(reply))),
                StreamMessage::EffectEnded {
                    key,
                    dispatch,
                    input,
                } => {
                    if let (true, Some(input)) = (
                        self.effects
                            .finish_effect(&key, dispatch, self.engine.clock.now()),
                        input,
                    ) {
                        inputs.push((input, Actor::Shipway(key.0), None));
                    }
                }
                StreamMessage::Peek { reply } => peeks.push(reply),
            }
        }
        if !inputs.is_empty() {
            self.decide(inputs).await;
        }
        for reply in peeks {
            let _ = reply.send(Ok(
                (self.loaded.version > 0).then(|| self.loaded.state.clone())
            ));
        }
    }

    /// Decides all inputs in order, appends the events as one batch, and replies. A conflict reloads the stream and decides
    /// again.
    async fn decide(&mut self, inputs: Vec<(A::Input, Actor, Option<InputReply<A>>)>) {
        let now = self.engine.clock.now();
        let (mut questions, mut replies) = (
            Vec::with_capacity(inputs.len()),
            Vec::with_capacity(inputs.len()),
        );
        for (input, by, reply) in inputs {
            questions.push((input, by));
            replies.push(reply);
        }
        let outcome = loop {
            let mut next = self.loaded.state.clone();
            let mut events = Vec::new();
            let results = questions
                .iter()
                .map(|(input, by)| {
                    decide_one::<A>(&mut next, &mut events, input.clone(), by.clone(), now)
                })
                .collect::<Vec<_>>();
            match self.append_events(&next, &events, now).await {
                Ok(()) => {
                    self.loaded.version += events.len() as u64;
                    self.loaded.state = next;
                    break Ok(DecidedBatch { results, events });
                }
                Err(AppendError::Conflict { actual }) => {
                    tracing::debug!(
                        stream = self.stream,
                        actual,
                        "a concurrent append was faster"
                    );
                    match LoadedStream::load(&*self.engine.store, &self.stream).await {
                        Ok(loaded) => self.loaded = loaded,
                        Err(error) => break Err(error),
                    }
                }
                Err(AppendError::Store(error)) => break Err(error),
            }
        };
        self.send_replies(outcome, replies);
    }

    fn send_replies(
        &self,
        outcome: Result<DecidedBatch<A>, StoreError>,
        replies: Vec<Option<InputReply<A>>>,
    ) {
        let DecidedBatch { results, events } = match outcome {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(stream = self.stream, %error, "nothing could be appended");
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Err(EngineError::Store(error.clone())));
                }
                return;
            }
        };
        for (result, reply) in results.into_iter().zip(replies) {
            let Some(reply) = reply else {
                if let Err(rejection) = result {
                    tracing::debug!(stream = self.stream, %rejection, "the input of a driver was rejected");
                }
                continue;
            };
            let answer = result
                .map_err(EngineError::Rejected)
                .map(|(from, to)| Outcome {
                    version: self.loaded.version,
                    events: events[from..to].to_vec(),
                    state: self.loaded.state.clone(),
                });
            let _ = reply.send(answer);
        }
    }

    async fn append_events(
        &mut self,
        next: &Arc<A::State>,
        events: &[Event<A::Body>],
        now: Timestamp,
    ) -> Result<(), AppendError> {
        if events.is_empty() {
            return Ok(());
        }
        let text = |event: &Event<A::Body>| {
            serde_json::to_string(event)
                .map_err(|error| StoreError(format!("an event can't be written: {error}")))
        };
        let version = self.loaded.version + events.len() as u64;
        let due = version - self.loaded.snapshot_version >= self.engine.options.snapshot_every;
        let snapshot = if due {
            serde_json::to_string(&**next).ok()
        } else {
            None
        };
        let rows: Vec<ViewRow> = A::rows(next, events);
        let append = Append {
            stream: self.stream.clone(),
            expected: self.loaded.version,
            events: events.iter().map(text).collect::<Result<_, _>>()?,
            rows,
            live: A::pending(next, now).live,
            snapshot,
        };
        let stored = append.snapshot.is_some();
        self.engine.store.append(append).await?;
        if stored {
            self.loaded.snapshot_version = version;
        }
        Ok(())
    }
}

/// Decides one input against the state so far; returns the range of its events.
fn decide_one<A: Aggregate>(
    next: &mut Arc<A::State>,
    events: &mut Vec<Event<A::Body>>,
    input: A::Input,
    by: Actor,
    now: Timestamp,
) -> Result<(usize, usize), A::Rejection> {
    let from = events.len();
    let decided = A::decide(next, input, by, now)?;
    if !decided.is_empty() {
        let state = Arc::make_mut(next);
        for event in &decided {
            A::apply(state, event);
        }
        events.extend(decided);
    }
    Ok((from, events.len()))
}
