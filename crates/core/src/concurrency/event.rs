//! Inputs, events, effects and rejections of a concurrency group.

use serde::{Deserialize, Serialize};
use shipway_workflow::model::QueueMode;

use super::member::{GroupMemberId, MemberPlace};

/// A request for a slot of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRequest {
    pub holder: GroupMemberId,
    /// Which of its asks it is: news to an earlier one is not for this one.
    pub ticket: u32,
    /// Whether the running member is to be cancelled in favour of this one (`cancel-in-progress`).
    pub cancel_in_progress: bool,
    /// Whether it may be dropped while it waits.
    pub queue: QueueMode,
    /// Whether the run is a re-run: then its number doesn't show how new it is.
    pub again: bool,
}

/// The facts of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupEvent {
    /// A run or job has requested the slot and got a position.
    Joined {
        ask: SlotRequest,
        place: MemberPlace,
        /// Number of waiting members ahead of it.
        before: usize,
    },
    LetIn {
        holder: GroupMemberId,
    },
    /// Who waited has lost its place.
    Dropped {
        holder: GroupMemberId,
        why: String,
    },
    StopRequested {
        holder: GroupMemberId,
        why: String,
    },
    /// A member has released the slot, or its position in the queue.
    Left {
        holder: GroupMemberId,
    },
    NoticeDelivered {
        /// The number of the notice.
        notice: u64,
    },
}

/// What runs and drivers say to a group.
#[derive(Clone, Debug)]
pub enum GroupInput {
    /// Requests the slot. Idempotent.
    RequestSlot(SlotRequest),
    /// Releases the slot or the position in the queue. Idempotent.
    ReleaseSlot(GroupMemberId),
    NoticeDelivered(u64),
    /// The time has come; it never is.
    TimerFired,
}

/// The position of a member in its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotPosition {
    Entered,
    Waiting {
        /// The member that holds the slot: `r11`.
        held_by: String,
    },
    /// Cancelled by the group: it will never get the slot.
    Dropped {
        why: String,
    },
}

/// A change that a member is notified of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotChange {
    Stands(SlotPosition),
    /// It holds the slot and should stop, so that a newer member can have it.
    Stop {
        why: String,
    },
}

/// A change and the member to notify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotNotice {
    pub holder: GroupMemberId,
    /// The ask that it is about.
    pub ticket: u32,
    pub change: SlotChange,
}

/// Notify a member of the group; answer with [`GroupInput::NoticeDelivered`].
#[derive(Clone, Debug, PartialEq)]
pub struct GroupEffect {
    /// The number of the notice.
    pub number: u64,
    pub notice: SlotNotice,
}

/// A group rejects nothing: a member that can't run is notified of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRejection {}
