//! Inputs, events and effects of the gates of a run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::{graph::ConcurrencyGroup, job::JobKey};

use crate::{
    concurrency::{SlotChange, SlotPosition},
    gate::{ActiveFreeze, ApprovalPolicy, ChangePeople},
    ids::{Digest, RunNumber},
};

/// The facts of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateFact {
    /// The slot of a group was requested.
    SlotRequested {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        again: bool,
    },
    /// The group has answered.
    SlotRequestAnswered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        position: SlotPosition,
    },
    /// The group has said something by itself.
    SlotPositionChanged {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        position: SlotPosition,
    },
    /// The group was left.
    SlotReleased {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
    },
    /// A job waits for people.
    ApprovalRequested {
        run: RunNumber,
        key: JobKey,
        /// The environment it goes to.
        environment: String,
        rule: ApprovalPolicy,
        /// The people of the change, whom the rules may exclude.
        #[serde(default, skip_serializing_if = "ChangePeople::is_empty")]
        people: ChangePeople,
    },
    /// A person has approved a job.
    Approved {
        key: JobKey,
        /// The groups of the person at that moment, as far as the rules name them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// A job has said where its environment is reached.
    EnvironmentUrlSet { key: JobKey, url: String },
    /// A person has rejected a job.
    Rejected { key: JobKey, reason: String },
    /// A job has come to an environment that has a wait or freezes.
    EnvironmentReached {
        key: JobKey,
        environment: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ends_at: Option<Timestamp>,
    },
    /// A freeze keeps a job from starting.
    EnvironmentFrozen { key: JobKey, freeze: ActiveFreeze },
    /// The wait of a job has ended without a freeze in force.
    EnvironmentOpened { key: JobKey },
    /// A person has opened all gates of a job in an emergency.
    GlassBroken { key: JobKey, reason: String },
    /// Another person has looked at a break-glass.
    GlassReviewed {
        key: JobKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
}

/// Answers of groups and people.
#[derive(Clone, Debug)]
pub enum GateInput {
    SlotRequestAnswered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        position: SlotPosition,
    },
    /// The group has news.
    SlotPositionChanged {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        change: SlotChange,
    },
    /// The group was left.
    SlotReleased {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
    },
    /// A job says where its environment is reached.
    EnvironmentUrlSet { key: JobKey, url: String },
    Approve {
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        comment: Option<String>,
        /// The subject that the person has seen.
        seen: Option<Digest>,
    },
    Reject {
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        reason: String,
        /// The subject that the person has seen.
        seen: Option<Digest>,
    },
    BreakGlass {
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        reason: String,
    },
    ReviewBreakGlass {
        key: JobKey,
        comment: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum GateEffect {
    /// Ask a group; answer with [`GateInput::SlotRequestAnswered`].
    RequestSlot {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        again: bool,
    },
    /// Leave a group; answer with [`GateInput::SlotReleased`].
    ReleaseSlot {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: String,
    },
}
