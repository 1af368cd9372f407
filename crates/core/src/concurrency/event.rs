//! What can be said to a group, what it says happened, and what it asks of the world.

use serde::{Deserialize, Serialize};
use shipway_workflow::model::QueueMode;

use super::state::{Holder, Place};

/// Somebody wants to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who.
    pub holder: Holder,
    /// Which of its asks it is: news to an earlier one is not for this one.
    pub ticket: u32,
    /// Whether the one that goes on is to stop for it.
    pub cancel_in_progress: bool,
    /// Whether it may be dropped while it waits.
    pub queue: QueueMode,
    /// Whether it was over before: its number says nothing of how new it is.
    #[serde(default)]
    pub again: bool,
}

/// The facts of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Somebody asked, and has a place.
    Joined {
        /// What was asked.
        ask: Ask,
        /// Where it is.
        place: Place,
        /// How many of those that wait are before it.
        #[serde(default)]
        before: usize,
    },
    /// Who waited has its turn.
    LetIn {
        /// Who.
        holder: Holder,
    },
    /// Who waited has lost its place.
    Dropped {
        /// Who.
        holder: Holder,
        /// Why.
        why: String,
    },
    /// Who goes on is to stop.
    StopAsked {
        /// Who.
        holder: Holder,
        /// Why.
        why: String,
    },
    /// Somebody is done with the group.
    Left {
        /// Who.
        holder: Holder,
    },
    /// Who was to hear has heard.
    Told {
        /// The number of the notice.
        notice: u64,
    },
}

/// What runs and drivers say to a group.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants to go on. Said again, it changes nothing.
    Ask(Ask),
    /// Somebody is done with the group, or doesn't want it any more.
    Leave(Holder),
    /// Who was to hear has heard.
    Told(u64),
    /// The time has come; it never is.
    Woken,
}

/// How somebody stands with a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It goes on.
    Entered,
    /// It waits.
    Waiting {
        /// Who goes on meanwhile: `r11`.
        held_by: String,
    },
    /// It will not go on.
    Dropped {
        /// Why.
        why: String,
    },
}

/// What somebody is told without having asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// How it stands now.
    Stands(Standing),
    /// It goes on, and should stop.
    Stop {
        /// Why.
        why: String,
    },
}

/// News and who is to hear it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who.
    pub holder: Holder,
    /// The ask that it is about.
    pub ticket: u32,
    /// What.
    pub news: News,
}

/// Tell somebody; answer with [`Input::Told`].
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The number of the notice.
    pub number: u64,
    /// Whom, and what.
    pub notice: Notice,
}

/// A group refuses nothing: who can't go on is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {}
