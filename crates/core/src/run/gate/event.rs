//! Inputs, events and effects of the gates of a run.

use serde::{Deserialize, Serialize};
use shipway_workflow::{graph::ConcurrencyGroup, job::JobKey};

use crate::{
    concurrency::{SlotChange, SlotPosition},
    config::ApprovalRule,
    ids::RunNumber,
};

/// The facts of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateFact {
    /// The slot of a group was requested.
    TurnAsked {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        #[serde(default)]
        again: bool,
    },
    /// The group has answered.
    TurnAnswered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        standing: SlotPosition,
    },
    /// The group has said something by itself.
    TurnChanged {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        standing: SlotPosition,
    },
    /// The group was left.
    TurnLeft {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
    },
    /// A job waits for people.
    ApprovalAsked {
        run: RunNumber,
        key: JobKey,
        /// The environment it goes to.
        environment: String,
        rule: ApprovalRule,
    },
    /// A person has approved a job.
    Approved {
        key: JobKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// A job has said where its environment is reached.
    UrlKnown { key: JobKey, url: String },
    /// A person has rejected a job.
    Rejected { key: JobKey, reason: String },
}

/// Answers of groups and people.
#[derive(Clone, Debug)]
pub enum GateInput {
    Answered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        standing: SlotPosition,
    },
    /// The group has news.
    News {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        news: SlotChange,
    },
    /// The group was left.
    Left {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
    },
    /// A job says where its environment is reached.
    UrlKnown { key: JobKey, url: String },
    Approve {
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        comment: Option<String>,
    },
    Reject {
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum GateEffect {
    /// Ask a group; answer with [`GateInput::Answered`].
    Ask {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        again: bool,
    },
    /// Leave a group; answer with [`GateInput::Left`].
    Leave {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        ticket: u32,
        group: String,
    },
}
