//! What the world still owes a rollout, and when time alone changes something.

use jiff::Timestamp;

use super::{
    decide::{conclusive_pass, next_step},
    event::{PlanDirection, RolloutEffect},
    plan::PlanAction,
    state::{Rollout, RolloutState},
};
use crate::aggregate::{EffectKey, PendingWork};

/// What the world still owes the rollout.
pub(super) fn pending(state: &RolloutState, now: Timestamp) -> PendingWork<RolloutEffect> {
    let Some(rollout) = &state.0 else {
        return PendingWork::nothing();
    };
    let mut effects = undelivered_notices(rollout);
    if let Some(end) = &rollout.ended {
        if !rollout.service_notified {
            effects.push((
                "tell-service".into(),
                RolloutEffect::NotifyService {
                    end: end.clone(),
                    observed: rollout.observed.clone(),
                },
            ));
        }
        return PendingWork {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        };
    }
    effects.extend(due_action(rollout));
    effects.extend(observers(rollout));
    PendingWork {
        effects,
        wake_at: wake_at(rollout, now),
        live: true,
    }
}

/// The action at the cursor, unless it is only waited for.
fn due_action(rollout: &Rollout) -> Option<(EffectKey, RolloutEffect)> {
    let action = rollout.action()?;
    let waits = matches!(action, PlanAction::Hold { .. } | PlanAction::Ask { .. });
    let is_retried_later = (rollout.rollback_retry).is_some_and(|retry| retry.until.is_some());
    if waits || is_retried_later || rollout.is_held_by_pause() {
        return None;
    }
    let (plan, index) = (rollout.plan_number, rollout.cursor);
    let action = action.clone();
    Some((
        format!("action-{plan}-{index}").into(),
        RolloutEffect::ExecuteAction {
            plan,
            index,
            action,
        },
    ))
}

/// Observers that run as long as their report may change the rollout: measurement, peers, readiness and crashes.
fn observers(rollout: &Rollout) -> Vec<(EffectKey, RolloutEffect)> {
    let mut effects = Vec::new();
    if rollout.is_judged() {
        let exposure = rollout.exposure;
        effects.push((
            format!("measure-{exposure}").into(),
            RolloutEffect::Measure {
                exposure,
                candidate: rollout.spec.subject.candidate(),
                stable: rollout.compared_with(),
            },
        ));
    }
    if rollout.direction != PlanDirection::Forward {
        return effects;
    }
    if !rollout.spec.peers.is_empty() {
        let with = rollout.spec.peers.clone();
        effects.push(("peers".into(), RolloutEffect::WatchPeers { with }));
    }
    if rollout.observed.count(rollout.candidate()) > 0 {
        effects.push((
            "guard".into(),
            RolloutEffect::WatchInstances {
                release: rollout.candidate(),
                stable: rollout.stable(),
            },
        ));
    }
    effects
}

/// The oldest notice that each destination has not settled, independent of the other destinations.
fn undelivered_notices(rollout: &Rollout) -> Vec<(EffectKey, RolloutEffect)> {
    let undelivered = |(destination, index): (usize, &usize)| {
        let notice = rollout.notices.get(*index)?.clone();
        let effect = RolloutEffect::Notify {
            index: *index,
            destination,
            notice,
        };
        Some((format!("notice-{index}-{destination}").into(), effect))
    };
    let settled = rollout.notices_settled.iter().enumerate();
    settled.filter_map(undelivered).collect()
}

/// The next moment at which time alone changes something.
fn wake_at(rollout: &Rollout, now: Timestamp) -> Option<Timestamp> {
    if rollout.paused.is_some() {
        return None;
    }
    if let Some(until) = rollout.rollback_retry.and_then(|retry| retry.until) {
        return Some(until);
    }
    if next_step(rollout, now).is_some() {
        return Some(now);
    }
    // A hold that is due but inconclusive lasts until its deadline, or until a measurement ends it.
    let hold = rollout.hold_due().and_then(|due| {
        if now < due {
            let enough = conclusive_pass(rollout).and(rollout.hold_earliest());
            Some(enough.unwrap_or(due))
        } else {
            rollout.hold_deadline()
        }
    });
    let gate = (rollout.gate.as_ref()).and_then(|gate| gate.wakes_at(now));
    let deadlines = hold.into_iter().chain(gate);
    deadlines.chain(rollout.progress_deadline()).min()
}
