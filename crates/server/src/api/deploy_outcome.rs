//! The outcome of a deploy, a rollback, a retry or the end of a hold, from the events that it caused.

use shipway_api::DeployOutcome;
use shipway_core::{
    aggregate::Event,
    ids::{EnvironmentName, RolloutNumber, ServiceName},
    release::Release,
    rollout::RolloutKind,
    service::{ActiveRollout, Preemption, ServiceEvent, ServiceInput, ServiceState},
};

use super::{ApiError, Caller, services::until_there};
use crate::{capabilities::ServiceRequests, retention::require_artifact};

/// The reason on record where a person gave none.
pub(super) const NO_REASON: &str = "no reason given";

/// Sends an input to the service, and returns its outcome once the rollouts that it started can be read.
pub(super) async fn send_request(
    requests: &ServiceRequests,
    service: &ServiceName,
    input: ServiceInput,
    caller: &Caller,
) -> Result<DeployOutcome, ApiError> {
    let asked = environment_of(&input);
    if let Some(release) = requested_release(&input) {
        require_artifact(&*requests.blobs, release).await?;
    }
    let outcome = requests
        .engines
        .send_to_service(service, input, caller.actor())
        .await?;
    let mut result = DeployOutcome {
        service: Some(service.clone()),
        environment: asked,
        ..DeployOutcome::default()
    };
    for event in &outcome.events {
        record_event(&mut result, service, event);
    }
    complete(&mut result, service, &outcome.state, &outcome.events);
    for rollout in &result.rollouts {
        until_there(&*requests.store, "rollout", &rollout.replace("/ro", "/")).await;
    }
    Ok(result)
}

fn record_event(outcome: &mut DeployOutcome, service: &ServiceName, event: &Event<ServiceEvent>) {
    match &event.body {
        ServiceEvent::RolloutRequested { request, waits_for } => {
            outcome.environment = Some(request.environment.clone());
            outcome.kind = Some(request.kind);
            outcome.release = Some(request.release.number);
            outcome.waits_for.clone_from(waits_for);
            outcome.queued = true;
            // Those dropped before it were superseded by it.
            outcome.dropped = None;
        }
        ServiceEvent::RolloutOrdered { spec, .. } => {
            outcome.kind = Some(spec.kind);
            outcome.release = Some(spec.release().number);
            outcome.rollouts.push(spec.id.to_string());
            outcome.queued = false;
        }
        ServiceEvent::PreemptionRequested {
            number,
            preemption: Preemption::Withdraw { .. },
        } => outcome.withdrawn.push(format!("{service}/{number}")),
        ServiceEvent::PreemptionRequested { number, preemption } => {
            outcome.making_way = Some(format!("{service}/{number}"));
            if matches!(preemption, Preemption::RollBack { .. }) {
                outcome.kind = Some(RolloutKind::Rollback);
                outcome.dropped = None;
            }
        }
        ServiceEvent::RequestDropped {
            why,
            release,
            replaced_by,
            ..
        } if Some(*release) != *replaced_by && !outcome.queued && outcome.making_way.is_none() => {
            outcome.dropped = Some(why.clone());
        }
        _ => {}
    }
}

/// What the events don't say: what serves now, the hold, and what runs where nothing has changed.
fn complete(
    outcome: &mut DeployOutcome,
    service: &ServiceName,
    state: &ServiceState,
    events: &[Event<ServiceEvent>],
) {
    let place = (outcome.environment.as_ref()).and_then(|name| state.environments.get(name));
    let Some(place) = place else {
        return;
    };
    outcome.hold.clone_from(&place.hold);
    let stable = place.stable.as_ref().map(|release| release.number);
    let named = |number: RolloutNumber| format!("{service}/{number}");
    outcome.unchanged = events.is_empty();
    match (&place.active, outcome.kind) {
        (Some(active), Some(RolloutKind::Rollback))
            if outcome.rollouts.is_empty() && !outcome.queued =>
        {
            leave_running_release(outcome, active);
        }
        (Some(active), _) if outcome.unchanged => match (place.queue.front(), &active.preemption) {
            (_, Some(Preemption::RollBack { .. })) => {
                outcome.kind = Some(RolloutKind::Rollback);
                outcome.making_way = Some(named(active.spec.id.number));
                leave_running_release(outcome, active);
            }
            _ => {
                outcome.kind = Some(active.spec.kind);
                outcome.release = Some(active.spec.release().number);
                outcome.replaces = active.spec.stable().map(|it| it.release.number);
                outcome.rollouts.push(named(active.spec.id.number));
            }
        },
        _ => outcome.replaces = stable,
    }
    outcome.replaces = outcome.replaces.filter(|it| Some(*it) != outcome.release);
}

/// The rollout in progress is rolled back: from its release to its stable one.
fn leave_running_release(outcome: &mut DeployOutcome, active: &ActiveRollout) {
    outcome.release = active.spec.stable().map(|it| it.release.number);
    outcome.replaces = Some(active.spec.release().number);
}

/// The release that a request names. Those that it doesn't name are retained.
fn requested_release(input: &ServiceInput) -> Option<&Release> {
    match input {
        ServiceInput::Deploy { release, .. } => Some(release),
        ServiceInput::Rollback { to, .. } => to.as_deref(),
        ServiceInput::Retry(request) => Some(&request.release),
        _ => None,
    }
}

fn environment_of(input: &ServiceInput) -> Option<EnvironmentName> {
    match input {
        ServiceInput::Rollback { environment, .. }
        | ServiceInput::ResumeEnvironment { environment, .. } => Some(environment.clone()),
        ServiceInput::Retry(request) => Some(request.environment.clone()),
        ServiceInput::Deploy { environment, .. } => environment.clone(),
        _ => None,
    }
}
