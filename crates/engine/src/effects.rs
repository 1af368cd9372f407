//! The running effects of a stream: dispatched by key, cancelled when their key is no longer pending, retried with backoff when
//! they end without a change.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    driver::{InputSender, Reporter, Work},
    engine_state::EngineState,
    stream_message::StreamMessage,
};

/// First pause before an effect without a change is retried; doubled with each retry.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a retry.
const RETRY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct RunningEffects<A: Aggregate> {
    engine: Arc<EngineState<A>>,
    reports: Arc<dyn InputSender<A>>,
    stream: String,
    mailbox: mpsc::WeakSender<StreamMessage<A>>,
    running: BTreeMap<EffectKey, RunningEffect<A::Effect>>,
    retries: BTreeMap<EffectKey, RetryBackoff>,
    dispatches: u64,
}

struct RunningEffect<E> {
    effect: E,
    dispatch: u64,
    cancelled: CancellationToken,
}

/// Backoff of something that had no effect.
#[derive(Clone, Copy)]
pub(crate) struct RetryBackoff {
    times: u32,
    pub(crate) until: Timestamp,
}

impl RetryBackoff {
    /// The backoff after another attempt without effect.
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

impl<A: Aggregate> RunningEffects<A> {
    pub(crate) fn new(
        engine: Arc<EngineState<A>>,
        reports: Arc<dyn InputSender<A>>,
        stream: String,
        mailbox: mpsc::WeakSender<StreamMessage<A>>,
    ) -> Self {
        Self {
            engine,
            reports,
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

    /// Starts and cancels effects to match the state. Returns when to wake up, and whether the stream is live. While `backoff` is
    /// set, a due wake-up is postponed.
    pub(crate) fn reconcile(
        &mut self,
        state: &Arc<A::State>,
        now: Timestamp,
        backoff: Option<RetryBackoff>,
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
        if let (Some(at), Some(backoff)) = (wake_at, backoff)
            && at <= now
        {
            wake_at = Some(backoff.until);
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

    /// Records that an effect has ended; returns false if it was cancelled before, so that its result is dropped.
    pub(crate) fn finish_effect(&mut self, key: &EffectKey, dispatch: u64, now: Timestamp) -> bool {
        if self
            .running
            .get(key)
            .is_none_or(|running| running.dispatch != dispatch)
        {
            return false;
        }
        self.running.remove(key);
        // If the key is still pending after its input was decided, it is dispatched again after a pause.
        let before = self.retries.get(key).copied();
        self.retries
            .insert(key.clone(), RetryBackoff::after(before, now));
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
        let cancelled = self.engine.stopping.child_token();
        self.running.insert(
            key.clone(),
            RunningEffect {
                effect: effect.clone(),
                dispatch,
                cancelled: cancelled.clone(),
            },
        );
        let report = Reporter {
            inputs: self.reports.clone(),
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
        let (inner, mailbox) = (self.engine.clone(), self.mailbox.clone());
        self.engine.tasks.spawn(async move {
            let Some(permit) = cancelled.run_until_cancelled(inner.effects.clone().acquire_owned()).await else { return };
            let driver = inner.driver.clone();
            let stream = work.stream.clone();
            // A separate task isolates panics.
            let task = tokio::spawn(async move { driver.carry_out(work).await });
            let abort = task.abort_handle();
            let input = tokio::select! {
                biased;
                ended = task => match ended {
                    Ok(input) => Some(input),
                    Err(error) => {
                        tracing::error!(stream, key = key.0, %error, "a driver panicked; its effect is retried");
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
                let _ = mailbox.send(StreamMessage::EffectEnded { key, dispatch, input }).await;
            }
        });
    }
}
