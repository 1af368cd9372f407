//! What can be said about the gates of a run, what happened at them, and what they ask of the world.

use serde::{Deserialize, Serialize};
use shipway_workflow::{graph::ConcurrencyGroup, job::JobKey};

use crate::{
    concurrency::{News, Standing},
    config::Approvals,
    ids::RunNumber,
};

/// The facts of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateFact {
    /// A group is asked for a turn.
    TurnAsked {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask of the run it is.
        ticket: u32,
        /// Which group.
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        #[serde(default)]
        again: bool,
    },
    /// The group has answered.
    TurnAnswered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// What.
        standing: Standing,
    },
    /// The group has said something by itself.
    TurnChanged {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// What.
        standing: Standing,
    },
    /// The group was left.
    TurnLeft {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
    },
    /// A job waits for people.
    ApprovalAsked {
        /// Of which run.
        run: RunNumber,
        /// Which.
        key: JobKey,
        /// The environment it goes to.
        environment: String,
        /// Who.
        rule: Approvals,
    },
    /// Somebody said yes to a job.
    Approved {
        /// Which.
        key: JobKey,
        /// What they said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// A job has said where its environment is reached.
    UrlKnown {
        /// Which.
        key: JobKey,
        /// The address.
        url: String,
    },
    /// Somebody said no to a job.
    Rejected {
        /// Which.
        key: JobKey,
        /// Why.
        reason: String,
    },
}

/// What people and groups say about gates.
#[derive(Clone, Debug)]
pub enum GateInput {
    /// The group answers.
    Answered {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask it is about.
        ticket: u32,
        /// What.
        standing: Standing,
    },
    /// The group has news.
    News {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask it is about.
        ticket: u32,
        /// What.
        news: News,
    },
    /// The group was left.
    Left {
        /// By which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask it was about.
        ticket: u32,
    },
    /// A job says where its environment is reached.
    UrlKnown {
        /// Which.
        key: JobKey,
        /// The address.
        url: String,
    },
    /// Yes.
    Approve {
        /// To which job.
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// What they say.
        comment: Option<String>,
    },
    /// No.
    Reject {
        /// To which job.
        key: JobKey,
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// Why.
        reason: String,
    },
}

/// What gates ask of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum GateEffect {
    /// Ask a group; answer with [`GateInput::Answered`].
    Ask {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask it is.
        ticket: u32,
        /// Which group.
        group: ConcurrencyGroup,
        /// Whether the run was over before.
        again: bool,
    },
    /// Leave a group; answer with [`GateInput::Left`].
    Leave {
        /// For which job; none for the run as a whole.
        job: Option<JobKey>,
        /// Which ask it was.
        ticket: u32,
        /// The group's name.
        group: String,
    },
}
