//! Decides which member of a group runs, which wait and which are cancelled.

use jiff::Timestamp;
use shipway_workflow::model::QueueMode;

use super::{
    ConcurrencyGroups,
    event::{GroupEvent, GroupInput, SlotRequest},
    member::{GroupMemberId, MemberPlace},
    state::GroupState,
};
use crate::aggregate::{self, Actor, Event};

type GroupDecider = aggregate::Decider<ConcurrencyGroups>;

/// Facts that follow from an input.
pub(super) fn decide(
    state: &GroupState,
    input: GroupInput,
    by: Actor,
    now: Timestamp,
) -> Vec<Event<GroupEvent>> {
    let mut decider = GroupDecider::new(state, by, now);
    match input {
        GroupInput::RequestSlot(ask) => decider.request_slot(ask),
        GroupInput::ReleaseSlot(holder) => {
            if decider.state.member(&holder).is_some() {
                decider.emit(GroupEvent::Left { holder });
            }
        }
        GroupInput::NoticeDelivered(notice) => {
            if decider.state.notices.contains_key(&notice) {
                decider.emit(GroupEvent::NoticeDelivered { notice });
            }
        }
        GroupInput::TimerFired => {}
    }
    decider.let_next_in();
    decider.decided()
}

impl GroupDecider {
    fn request_slot(&mut self, ask: SlotRequest) {
        if self.state.member(&ask.holder).is_some() {
            return;
        }
        let Some(inside) = self.state.slot_holder() else {
            return self.emit(GroupEvent::Joined {
                ask,
                place: MemberPlace::Inside,
                before: 0,
            });
        };
        let (inside, stopping) = (inside.ask.holder.clone(), inside.stopping);
        if ask.holder.job.is_some() && inside.run == ask.holder.run && inside.job.is_none() {
            // It would wait for itself for ever; see `GroupState::standing`.
            return;
        }
        let newcomer = ask.holder.clone();
        if let Some(newer) = self.loses_to(&ask) {
            let why = format!("{newer} is newer and in the same concurrency group");
            return self.emit(GroupEvent::Joined {
                ask,
                place: MemberPlace::Dropped { why },
                before: 0,
            });
        }
        if ask.cancel_in_progress && !stopping {
            let why =
                format!("{newcomer} is in the same concurrency group, with `cancel-in-progress`");
            self.emit(GroupEvent::StopRequested {
                holder: inside,
                why,
            });
        }
        if ask.queue == QueueMode::Single {
            let replaced: Vec<GroupMemberId> = self
                .state
                .waiting()
                .filter(|member| member.ask.queue == QueueMode::Single)
                .map(|member| member.ask.holder.clone())
                .collect();
            for holder in replaced {
                let why =
                    format!("{newcomer} is newer and has taken its place in the concurrency group");
                self.emit(GroupEvent::Dropped { holder, why });
            }
        }
        // Runs were numbered in the order in which they came; that they ask in it is not certain.
        let before = self
            .state
            .waiting()
            .position(|member| is_older(&ask, &member.ask));
        let before = before.unwrap_or_else(|| self.state.waiting().count());
        self.emit(GroupEvent::Joined {
            ask,
            place: MemberPlace::Waiting,
            before,
        });
    }

    /// A newer run that has asked before, and in whose favour this one would be dropped or stopped had they asked in order.
    fn loses_to(&self, ask: &SlotRequest) -> Option<GroupMemberId> {
        let newer = |place: &MemberPlace| {
            let at_place = self
                .state
                .members
                .iter()
                .filter(move |member| member.place == *place);
            at_place
                .map(|member| &member.ask)
                .find(|other| is_older(ask, other))
        };
        let stopped = newer(&MemberPlace::Inside).filter(|other| other.cancel_in_progress);
        let replaced = || {
            newer(&MemberPlace::Waiting)
                .filter(|other| ask.queue == QueueMode::Single && other.queue == QueueMode::Single)
        };
        stopped.or_else(replaced).map(|other| other.holder.clone())
    }

    fn let_next_in(&mut self) {
        if self.state.slot_holder().is_some() {
            return;
        }
        let next = self.state.waiting().next();
        if let Some(holder) = next.map(|member| member.ask.holder.clone()) {
            self.emit(GroupEvent::LetIn { holder });
        }
    }
}

/// Whether `ask` is of a run that came before the run of `other`. Of jobs the order is that in which they ask.
fn is_older(ask: &SlotRequest, other: &SlotRequest) -> bool {
    let first = |ask: &SlotRequest| ask.holder.job.is_none() && !ask.again;
    first(ask)
        && first(other)
        && ask.holder.run.service == other.holder.run.service
        && ask.holder.run.number < other.holder.run.number
}
