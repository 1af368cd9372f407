//! Runs: one execution of one workflow for one commit.
//!
//! [`shipway_workflow::graph`] decides which job may start and why one doesn't; this aggregate records those decisions, so that
//! a restarted server knows them. Drivers start the workers and report; steps themselves are the worker's. It never holds
//! secrets: they enter a job only with [`job_spec`], which only the driver reads.
//!
//! Without a server the same three functions drive a run in a loop: decide, apply, carry out the pending effects.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Decider, Event, PendingWork, ViewRow};

mod decide;
mod event;
mod event_refs;
mod failure_lines;
mod gate;
mod gate_event;
mod gates;
mod job;
mod job_lookup;
mod job_record;
mod job_tests;
mod progress_lines;
mod records;
mod rerun;
mod resume;
mod resume_point;
mod run_contexts;
mod spec;
mod state;
mod test_results;
#[cfg(test)]
mod tests;
mod view;

pub use event::{
    Annotation, ArtifactRecord, RunEffect, RunEvent, RunInput, RunRejection, StepLine,
};
pub use event_refs::event_reference;
pub use failure_lines::{
    RunSite, blamed, find_error_line, telling_line, telling_line_index, three_lines,
};
pub use gate::AwaitedApproval;
pub use gate_event::{GateEffect, GateFact, GateInput};
pub use job::{JobEnvironment, JobSpecError, job_spec};
pub use job_record::{EarlierAttempt, JobRecord};
pub use job_tests::JobTests;
pub use progress_lines::story_lines;
pub use records::JobRecords;
pub use resume_point::{FromStep, LeftoverState, ResumePoint};
pub use shipway_workflow::graph::RerunSelection;
pub use spec::RunSpec;
pub use state::{Run, RunEnd, RunPlan, RunPlanError, RunState};
pub use test_results::{JobTestsView, TestsView, in_short, percent};
pub use view::{
    JOB_APPROVAL_ROWS, JobApproval, JobView, RunStatus, RunView, StepView,
    newest_run_of_each_workflow,
};

/// Decides the facts of a run.
type RunDecider = Decider<RunAggregate>;

/// The run aggregate; its streams are `run/{service}/{number}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RunAggregate;

impl Aggregate for RunAggregate {
    const KIND: &'static str = "run";
    type State = RunState;
    type Body = RunEvent;
    type Input = RunInput;
    type Effect = RunEffect;
    type Rejection = RunRejection;

    fn decide(
        state: &RunState,
        input: RunInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<RunEvent>>, RunRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut RunState, event: &Event<RunEvent>) {
        state::apply(state, event);
    }

    fn pending(state: &RunState, now: Timestamp) -> PendingWork<RunEffect> {
        decide::pending(state, now)
    }

    fn rows(state: &RunState, events: &[Event<RunEvent>]) -> Vec<ViewRow> {
        let run = state.0.as_deref();
        run.map(|run| view::rows(run, events)).unwrap_or_default()
    }

    fn timer_fired() -> RunInput {
        RunInput::TimerFired
    }
}
