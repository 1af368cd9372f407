//! What the facts of a group add up to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    event::{GroupEvent, SlotChange, SlotNotice, SlotPosition, SlotRequest},
    member::{GroupMemberId, MemberPlace},
};
use crate::aggregate::Event;

/// A run or job that has requested the slot and not released it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    pub ask: SlotRequest,
    pub place: MemberPlace,
    /// Whether it was notified to stop.
    pub stopping: bool,
}

/// The state of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupState {
    /// Members in order of their requests.
    pub members: Vec<GroupMember>,
    /// Notices that are not delivered yet, by number.
    pub notices: BTreeMap<u64, SlotNotice>,
    /// The number of the last notice.
    pub last_notice: u64,
}

impl GroupState {
    #[must_use]
    pub fn slot_holder(&self) -> Option<&GroupMember> {
        self.members
            .iter()
            .find(|member| member.place == MemberPlace::Inside)
    }

    /// Waiting members in order of their turn.
    pub fn waiting(&self) -> impl Iterator<Item = &GroupMember> {
        self.members
            .iter()
            .filter(|member| member.place == MemberPlace::Waiting)
    }

    /// The member with this id, if it has requested the slot and not released it.
    #[must_use]
    pub fn member(&self, holder: &GroupMemberId) -> Option<&GroupMember> {
        self.members
            .iter()
            .find(|member| member.ask.holder == *holder)
    }

    /// The position of a member. A member that isn't in the group reports itself as the holder: it would wait for itself.
    #[must_use]
    pub fn position_of(&self, holder: &GroupMemberId) -> SlotPosition {
        match self.member(holder).map(|member| &member.place) {
            Some(MemberPlace::Inside) => SlotPosition::Entered,
            Some(MemberPlace::Waiting) => SlotPosition::Waiting {
                held_by: self.held_by(),
            },
            Some(MemberPlace::Dropped { why }) => SlotPosition::Dropped { why: why.clone() },
            None => SlotPosition::Dropped {
                why: "the run as a whole holds the group, so the job would wait for itself; give one of the two another `concurrency` group".to_owned(),
            },
        }
    }

    fn held_by(&self) -> String {
        self.slot_holder()
            .map(|member| member.ask.holder.to_string())
            .unwrap_or_default()
    }

    fn member_mut(&mut self, holder: &GroupMemberId) -> Option<&mut GroupMember> {
        self.members
            .iter_mut()
            .find(|member| member.ask.holder == *holder)
    }

    fn notify(&mut self, holder: &GroupMemberId, change: SlotChange) {
        let Some(ticket) = self.member(holder).map(|member| member.ask.ticket) else {
            return;
        };
        // A newer notice about the position supersedes undelivered older ones.
        if matches!(change, SlotChange::Stands(_)) {
            self.notices.retain(|_, notice| {
                notice.holder != *holder || matches!(notice.change, SlotChange::Stop { .. })
            });
        }
        self.last_notice += 1;
        let notice = SlotNotice {
            holder: holder.clone(),
            ticket,
            change,
        };
        self.notices.insert(self.last_notice, notice);
    }

    fn joined(&mut self, ask: &SlotRequest, place: &MemberPlace, before: usize) {
        let member = GroupMember {
            ask: ask.clone(),
            place: place.clone(),
            stopping: false,
        };
        let at = (self.members.iter().enumerate())
            .filter(|(_, member)| member.place == MemberPlace::Waiting)
            .nth(before)
            .map_or(self.members.len(), |(at, _)| at);
        self.members.insert(at, member);
    }

    fn let_in(&mut self, holder: &GroupMemberId) {
        if let Some(member) = self.member_mut(holder) {
            member.place = MemberPlace::Inside;
        }
        self.notify(holder, SlotChange::Stands(SlotPosition::Entered));
        let held_by = holder.to_string();
        let waiting: Vec<GroupMemberId> = self
            .waiting()
            .map(|member| member.ask.holder.clone())
            .collect();
        for holder in waiting {
            let held_by = held_by.clone();
            self.notify(
                &holder,
                SlotChange::Stands(SlotPosition::Waiting { held_by }),
            );
        }
    }
}

pub(super) fn apply(state: &mut GroupState, event: &Event<GroupEvent>) {
    match &event.body {
        GroupEvent::Joined { ask, place, before } => state.joined(ask, place, *before),
        GroupEvent::LetIn { holder } => state.let_in(holder),
        GroupEvent::Dropped { holder, why } => {
            if let Some(member) = state.member_mut(holder) {
                member.place = MemberPlace::Dropped { why: why.clone() };
            }
            let why = why.clone();
            state.notify(holder, SlotChange::Stands(SlotPosition::Dropped { why }));
        }
        GroupEvent::StopRequested { holder, why } => {
            if let Some(member) = state.member_mut(holder) {
                member.stopping = true;
            }
            state.notify(holder, SlotChange::Stop { why: why.clone() });
        }
        GroupEvent::Left { holder } => {
            state.members.retain(|member| member.ask.holder != *holder);
            state.notices.retain(|_, notice| notice.holder != *holder);
        }
        GroupEvent::NoticeDelivered { notice } => {
            state.notices.remove(notice);
        }
    }
}
