//! The effects of one stream that are under way: dispatched by key, cancelled when their key no longer comes out, tried again
//! with growing patience when they end without having changed anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    actor::Message,
    driver::{Reporter, Work},
    engine::Engine,
};

/// Before what has changed nothing but is still wanted is tried again; doubles with each time.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Effects<A: Aggregate> {
    engine: Engine<A>,
    stream: String,
    mailbox: mpsc::WeakSender<Message<A>>,
    running: BTreeMap<EffectKey, Running<A::Effect>>,
    retries: BTreeMap<EffectKey, Patience>,
    dispatches: u64,
}

struct Running<E> {
    effect: E,
    dispatch: u64,
    cancelled: CancellationToken,
}

/// What was tried and has changed nothing is left alone for a while, longer each time.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    times: u32,
    pub(crate) until: Timestamp,
}

impl Patience {
    /// Tried once more, without success.
    pub(crate) fn after(before: Option<Self>, now: Timestamp) -> Self {
        let times = before.map_or(0, |patience| patience.times);
        let wait = RETRY_FIRST
            .saturating_mul(1 << times.min(10))
            .min(RETRY_MAX);
        let until = SignedDuration::try_from(wait)
            .ok()
            .and_then(|wait| now.checked_add(wait).ok());
        Self {
            times: times + 1,
            until: until.unwrap_or(now),
        }
    }
}

impl<A: Aggregate> Effects<A> {
    pub(crate) fn new(
        engine: Engine<A>,
        stream: String,
        mailbox: mpsc::WeakSender<Message<A>>,
    ) -> Self {
        Self {
            engine,
            stream,
            mailbox,
            running: BTreeMap::new(),
            retries: BTreeMap::new(),
            dispatches: 0,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.retries.is_empty()
    }

    /// Makes what is under way what the state asks for. Gives when to wake up, and whether the stream is live. While waking up
    /// is in `vain`, a time that has come is put off.
    pub(crate) fn reconcile(
        &mut self,
        state: &Arc<A::State>,
        now: Timestamp,
        vain: Option<Patience>,
    ) -> (Option<Timestamp>, bool) {
        let pending = A::pending(state, now);
        let by_key: BTreeMap<&EffectKey, &A::Effect> = pending
            .effects
            .iter()
            .map(|(key, effect)| (key, effect))
            .collect();
        self.running.retain(|key, running| {
            let keep = by_key
                .get(key)
                .is_some_and(|wanted| **wanted == running.effect);
            if !keep {
                running.cancelled.cancel();
            }
            keep
        });
        self.retries.retain(|key, _| by_key.contains_key(key));
        let mut wake_at = pending.wake_at;
        if let (Some(at), Some(vain)) = (wake_at, vain)
            && at <= now
        {
            wake_at = Some(vain.until);
        }
        for (key, effect) in pending.effects {
            if self.running.contains_key(&key) {
                continue;
            }
            match self.retries.get(&key) {
                Some(retry) if retry.until > now => {
                    wake_at = Some(wake_at.map_or(retry.until, |at| at.min(retry.until)))
                }
                _ => self.dispatch(key, effect, state),
            }
        }
        (wake_at, pending.live)
    }

    /// An effect has ended. False when it was cancelled before: then nobody wants to know.
    pub(crate) fn ended(&mut self, key: &EffectKey, dispatch: u64, now: Timestamp) -> bool {
        if self
            .running
            .get(key)
            .is_none_or(|running| running.dispatch != dispatch)
        {
            return false;
        }
        self.running.remove(key);
        // If the key still comes out after its input was decided, it is dispatched again, but not at once.
        let before = self.retries.get(key).copied();
        self.retries
            .insert(key.clone(), Patience::after(before, now));
        true
    }

    pub(crate) fn cancel_all(&self) {
        for running in self.running.values() {
            running.cancelled.cancel();
        }
    }

    fn dispatch(&mut self, key: EffectKey, effect: A::Effect, state: &Arc<A::State>) {
        self.dispatches += 1;
        let dispatch = self.dispatches;
        let cancelled = self.engine.0.stopping.child_token();
        self.running.insert(
            key.clone(),
            Running {
                effect: effect.clone(),
                dispatch,
                cancelled: cancelled.clone(),
            },
        );
        let report = Reporter {
            engine: self.engine.clone(),
            stream: self.stream.clone(),
            by: Actor::Shipway(key.0.clone()),
        };
        let work = Work {
            stream: self.stream.clone(),
            state: state.clone(),
            key: key.clone(),
            effect,
            report,
            cancelled: cancelled.clone(),
        };
        let (inner, mailbox) = (self.engine.0.clone(), self.mailbox.clone());
        self.engine.0.tasks.spawn(async move {
            let Some(permit) = cancelled.run_until_cancelled(inner.effects.clone().acquire_owned()).await else { return };
            let driver = inner.driver.clone();
            let stream = work.stream.clone();
            // A task of its own, so that a panic stays in it.
            let task = tokio::spawn(async move { driver.carry_out(work).await });
            let abort = task.abort_handle();
            let input = tokio::select! {
                biased;
                ended = task => match ended {
                    Ok(input) => Some(input),
                    Err(error) => {
                        tracing::error!(stream, key = key.0, %error, "a driver panicked; its effect is tried again");
                        None
                    }
                },
                () = async { cancelled.cancelled().await; tokio::time::sleep(inner.options.stop_grace).await } => {
                    abort.abort();
                    None
                }
            };
            drop(permit);
            if let Some(mailbox) = mailbox.upgrade() {
                let _ = mailbox.send(Message::EffectEnded { key, dispatch, input }).await;
            }
        });
    }
}
