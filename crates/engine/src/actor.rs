//! One task per loaded stream: it alone owns the state.

use std::sync::Arc;

use jiff::Timestamp;
use shipway_core::aggregate::{Actor, Aggregate, EffectKey, Event, Row};
use tokio::sync::{mpsc, oneshot};

use crate::{
    effects::{Effects, Patience},
    engine::{Engine, EngineError, Outcome},
    store::{Append, AppendError, StoreError},
};

/// Inputs decided and appended as one batch, at most.
const BATCH_MAX: usize = 256;

type Reply<A> = oneshot::Sender<Result<Outcome<A>, EngineError<<A as Aggregate>::Rejection>>>;

/// What a stream is told.
pub(crate) enum Message<A: Aggregate> {
    Input {
        input: A::Input,
        by: Actor,
        reply: Reply<A>,
    },
    /// An effect has ended; `None` when its driver panicked.
    EffectEnded {
        key: EffectKey,
        dispatch: u64,
        input: Option<A::Input>,
    },
    Peek {
        reply: oneshot::Sender<Result<Option<Arc<A::State>>, StoreError>>,
    },
}

/// Loads the stream and serves it until it rests or the engine stops.
pub(crate) async fn run<A: Aggregate>(
    engine: Engine<A>,
    stream: String,
    this: mpsc::WeakSender<Message<A>>,
    mut mailbox: mpsc::Receiver<Message<A>>,
) {
    let mut actor = match Loaded::load(&engine, &stream).await {
        Ok(loaded) => StreamActor {
            effects: Effects::new(engine.clone(), stream.clone(), this.clone()),
            engine: engine.clone(),
            stream: stream.clone(),
            loaded,
            vain: None,
        },
        Err(error) => {
            // Everybody who waits gets the reason; the next message tries again.
            if let Some(sender) = this.upgrade() {
                engine.forget(&stream, &sender);
            }
            mailbox.close();
            while let Some(message) = mailbox.recv().await {
                refuse(message, &error);
            }
            return;
        }
    };
    actor.serve(&mut mailbox).await;
    if let Some(sender) = this.upgrade() {
        engine.forget(&stream, &sender);
    }
    // The engine stops: what was said before is still answered, what it asks for is left to the next server.
    mailbox.close();
    while let Some(message) = mailbox.recv().await {
        actor.hear(vec![message]).await;
    }
    actor.effects.cancel_all();
}

fn refuse<A: Aggregate>(message: Message<A>, error: &StoreError) {
    match message {
        Message::Input { reply, .. } => drop(reply.send(Err(EngineError::Store(error.clone())))),
        Message::Peek { reply } => drop(reply.send(Err(error.clone()))),
        Message::EffectEnded { .. } => {}
    }
}

pub(crate) struct Loaded<A: Aggregate> {
    state: Arc<A::State>,
    version: u64,
    snapshot_version: u64,
}

impl<A: Aggregate> Loaded<A> {
    pub(crate) async fn load(engine: &Engine<A>, stream: &str) -> Result<Self, StoreError> {
        let store = &engine.0.store;
        let mut state = A::State::default();
        let mut version = 0;
        if let Some(snapshot) = store.snapshot(stream).await? {
            match serde_json::from_str(&snapshot.state) {
                Ok(read) => (state, version) = (read, snapshot.version),
                // A snapshot is a cache: one of another version of Shipway is passed over.
                Err(error) => tracing::debug!(%error, stream, "the snapshot is of another version"),
            }
        }
        let snapshot_version = version;
        for text in store.read(stream, version).await? {
            version += 1;
            let event: Event<A::Body> =
                serde_json::from_str(&text).map_err(|error| StoreError(format!("event {version} of {stream} can't be read ({error}); is the log of a newer Shipway?")))?;
            A::apply(&mut state, &event);
        }
        Ok(Self {
            state: Arc::new(state),
            version,
            snapshot_version,
        })
    }

    /// The state; `None` when the stream has no events.
    pub(crate) fn into_state(self) -> Option<A::State> {
        (self.version > 0)
            .then(|| Arc::into_inner(self.state))
            .flatten()
    }
}

struct StreamActor<A: Aggregate> {
    engine: Engine<A>,
    stream: String,
    loaded: Loaded<A>,
    effects: Effects<A>,
    /// Since when waking up has changed nothing, although the time had come.
    vain: Option<Patience>,
}

/// A batch that has been decided and stored: all events, and which of them are whose.
struct Batch<A: Aggregate> {
    results: Vec<Result<(usize, usize), A::Rejection>>,
    events: Vec<Event<A::Body>>,
}

impl<A: Aggregate> StreamActor<A> {
    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<Message<A>>) {
        let engine = self.engine.clone();
        let mut batch = Vec::new();
        loop {
            let now = engine.0.clock.now();
            let (wake_at, live) = self.effects.reconcile(&self.loaded.state, now, self.vain);
            batch.clear();
            let wake = async {
                match wake_at {
                    Some(at) => engine.0.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let resting = !live && self.effects.is_idle();
            tokio::select! {
                biased;
                () = engine.0.stopping.cancelled() => return,
                count = mailbox.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.hear(std::mem::take(&mut batch)).await;
                }
                () = wake => self.wake(engine.0.clock.now()).await,
                () = tokio::time::sleep(engine.0.options.idle_after), if resting => {
                    if engine.unload(&self.stream, mailbox) {
                        return;
                    }
                }
            }
        }
    }

    /// The time has come: for the aggregate, or for an effect that is to be tried again.
    async fn wake(&mut self, now: Timestamp) {
        let is_due = |state: &A::State| {
            let wake_at = A::pending(state, now).wake_at;
            wake_at.is_some_and(|at| at <= now)
        };
        if !is_due(&self.loaded.state) || self.vain.is_some_and(|vain| vain.until > now) {
            return;
        }
        let before = self.loaded.version;
        let (reply, _) = oneshot::channel();
        let by = Actor::Shipway("the time has come".to_owned());
        self.hear(vec![Message::Input {
            input: A::woken(),
            by,
            reply,
        }])
        .await;
        // The log can't be written, or the aggregate has nothing to say: no reason to ask again at once.
        let in_vain = self.loaded.version == before && is_due(&self.loaded.state);
        self.vain = in_vain.then(|| Patience::after(self.vain, now));
    }

    async fn hear(&mut self, batch: Vec<Message<A>>) {
        let mut inputs = Vec::with_capacity(batch.len());
        let mut peeks = Vec::new();
        for message in batch {
            match message {
                Message::Input { input, by, reply } => inputs.push((input, by, Some(reply))),
                Message::EffectEnded {
                    key,
                    dispatch,
                    input,
                } => {
                    if let (true, Some(input)) = (
                        self.effects
                            .ended(&key, dispatch, self.engine.0.clock.now()),
                        input,
                    ) {
                        inputs.push((input, Actor::Shipway(key.0), None));
                    }
                }
                Message::Peek { reply } => peeks.push(reply),
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

    /// Decides all inputs in order, appends what follows as one batch, answers. A conflict reloads and decides again.
    async fn decide(&mut self, inputs: Vec<(A::Input, Actor, Option<Reply<A>>)>) {
        let now = self.engine.0.clock.now();
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
            match self.append(&next, &events, now).await {
                Ok(()) => {
                    self.loaded.version += events.len() as u64;
                    self.loaded.state = next;
                    break Ok(Batch { results, events });
                }
                Err(AppendError::Conflict { actual }) => {
                    tracing::debug!(stream = self.stream, actual, "somebody else was faster");
                    match Loaded::load(&self.engine, &self.stream).await {
                        Ok(loaded) => self.loaded = loaded,
                        Err(error) => break Err(error),
                    }
                }
                Err(AppendError::Store(error)) => break Err(error),
            }
        };
        self.answer(outcome, replies);
    }

    fn answer(&self, outcome: Result<Batch<A>, StoreError>, replies: Vec<Option<Reply<A>>>) {
        let Batch { results, events } = match outcome {
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
                    tracing::debug!(stream = self.stream, %rejection, "what a driver said is refused");
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

    async fn append(
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
        let due = version - self.loaded.snapshot_version >= self.engine.0.options.snapshot_every;
        let snapshot = if due {
            serde_json::to_string(&**next).ok()
        } else {
            None
        };
        let rows: Vec<Row> = A::rows(next, events);
        let append = Append {
            stream: self.stream.clone(),
            expected: self.loaded.version,
            events: events.iter().map(text).collect::<Result<_, _>>()?,
            rows,
            live: A::pending(next, now).live,
            snapshot,
        };
        let stored = append.snapshot.is_some();
        self.engine.0.store.append(append).await?;
        if stored {
            self.loaded.snapshot_version = version;
        }
        Ok(())
    }
}

/// Decides one input against the state so far; gives which of the events are its own.
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
