//! A service: its pushes, runs and releases, and the active rollout and queue of each of its environments.
//!
//! One stream per service orders everything that must have an order: numbers, the queue of each environment, and which push is
//! newer. Runs and rollouts have their own streams and report here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Decider, Event, PendingWork, ViewRow};

mod addresses;
mod decide;
mod deletion;
mod deploy_step;
mod event;
mod health;
mod health_reporting;
mod hold;
mod holding;
mod pending;
mod placement;
mod promotion_groups;
mod pull_requests;
mod push;
mod queue;
mod rejected_release;
mod rejection;
mod release_check;
mod release_rejection;
mod requested_deletion;
mod rollback;
mod rules;
mod scheduled_runs;
mod schedules;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod withdrawal;

pub use event::{
    AutoPromotion, DeployingRun, Override, Preemption, PullRequestRuns, ReleaseOrigin,
    RetryRequest, RolloutGroups, RolloutRequest, RolloutTrigger, RunArtifact, RunOrder, RunPurpose,
    ServiceEffect, ServiceEvent, ServiceInput, WaitsFor,
};
pub use health::{EnvironmentDegradation, HealthNotice, HealthReport};
pub use hold::EnvironmentHold;
pub use push::{Push, PushedCommit};
pub use rejected_release::RejectedRelease;
pub use rejection::ServiceRejection;
pub use requested_deletion::{DeletionScope, RepositoryRemoval, RequestedDeletion};
pub use schedules::{ScheduledWorkflow, WorkflowSchedules};
pub use state::{ActiveRollout, EndedRollout, EnvironmentState, OpenPush, OpenRun, ServiceState};
pub use view::{EnvironmentRow, EnvironmentView, ReleaseView, ServiceView};

/// Decides the facts of a service.
type ServiceDecider = Decider<ServiceAggregate>;

/// The service aggregate; its streams are `service/{name}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ServiceAggregate;

impl Aggregate for ServiceAggregate {
    const KIND: &'static str = "service";
    type State = ServiceState;
    type Body = ServiceEvent;
    type Input = ServiceInput;
    type Effect = ServiceEffect;
    type Rejection = ServiceRejection;

    fn decide(
        state: &ServiceState,
        input: ServiceInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<ServiceEvent>>, ServiceRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut ServiceState, event: &Event<ServiceEvent>) {
        state::apply(state, event);
    }

    fn pending(state: &ServiceState, _now: Timestamp) -> PendingWork<ServiceEffect> {
        pending::pending(state)
    }

    fn rows(state: &ServiceState, events: &[Event<ServiceEvent>]) -> Vec<ViewRow> {
        view::rows(state, events)
    }

    fn timer_fired() -> ServiceInput {
        ServiceInput::TimerFired
    }
}
