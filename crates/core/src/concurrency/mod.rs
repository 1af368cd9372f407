//! Concurrency groups: of the runs and jobs that name one group, one runs at a time.
//!
//! A group is a stream of its own. Runs request and release its slot; the group notifies members when they get the slot, when a
//! newer member has replaced them in the queue, and when they should stop in favour of a newer one. The rules are GitHub's: one
//! member runs and one waits; a new member replaces the waiting one; `cancel-in-progress` also cancels the running one; with
//! `queue: max` all members wait in order and none is dropped.
//!
//! # Invariants
//!
//! - The group knows nothing of workflows and never reads a run: a member keeps the slot until it releases it, so a run that
//!   has ended must always release it.
//! - Requesting and releasing are idempotent, because a run repeats them after a crash.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::{Digest, ServiceName},
};

mod decide;
mod event;
mod member;
mod state;
#[cfg(test)]
mod tests;

pub use event::{
    GroupEffect, GroupEvent, GroupInput, GroupRejection, SlotChange, SlotNotice, SlotPosition,
    SlotRequest,
};
pub use member::{GroupMemberId, MemberPlace};
pub use state::{GroupMember, GroupState};

/// The aggregate of groups; its streams are those of [`stream`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ConcurrencyGroups;

impl Aggregate for ConcurrencyGroups {
    const KIND: &'static str = "group";
    type State = GroupState;
    type Body = GroupEvent;
    type Input = GroupInput;
    type Effect = GroupEffect;
    type Rejection = GroupRejection;

    fn decide(
        state: &GroupState,
        input: GroupInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<GroupEvent>>, GroupRejection> {
        Ok(decide::decide(state, input, by, now))
    }

    fn apply(state: &mut GroupState, event: &Event<GroupEvent>) {
        state::apply(state, event);
    }

    fn pending(state: &GroupState, _now: Timestamp) -> PendingWork<GroupEffect> {
        let effects: Vec<_> = state
            .notices
            .iter()
            .map(|(number, notice)| {
                (
                    format!("notice-{number}").into(),
                    GroupEffect {
                        number: *number,
                        notice: notice.clone(),
                    },
                )
            })
            .collect();
        PendingWork {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        }
    }

    fn rows(_state: &GroupState, _events: &[Event<GroupEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> GroupInput {
        GroupInput::TimerFired
    }
}

/// The stream of a group. Names ignore case, and may hold anything: hence a digest.
#[must_use]
pub fn stream(service: &ServiceName, group: &str) -> String {
    let digest = Digest::compute(group.to_lowercase().as_bytes());
    format!(
        "{}/{service}/{}",
        ConcurrencyGroups::KIND,
        &digest.hex()[..32]
    )
}
