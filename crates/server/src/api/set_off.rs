//! What a deploy, a rollback, a retry or the end of a hold sets off, for the client to show and to follow.

use serde::Serialize;
use shipway_core::{
    aggregate::Event,
    ids::{EnvironmentName, ReleaseNumber, RolloutNumber, ServiceName},
    rollout::RolloutKind,
    service::{
        ActiveRollout, EnvironmentHold, Preemption, ServiceEvent, ServiceInput, ServiceState,
        WaitsFor,
    },
};
use utoipa::ToSchema;

use super::{Caller, Problem, services::until_there};
use crate::app::App;

/// The reason on record where a person gave none.
pub(super) const NO_REASON: &str = "no reason given";

/// What a deploy, a rollback or a retry set off.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct SetOff {
    /// The service.
    #[schema(value_type = Option<String>)]
    pub(super) service: Option<ServiceName>,
    /// The environment.
    #[schema(value_type = Option<String>)]
    pub(super) environment: Option<EnvironmentName>,
    /// `deploy`, `rollback` or `retry`.
    #[schema(value_type = Option<String>)]
    kind: Option<RolloutKind>,
    /// The release that goes in.
    #[schema(value_type = Option<u32>)]
    release: Option<ReleaseNumber>,
    /// The release that it replaces.
    #[schema(value_type = Option<u32>)]
    replaces: Option<ReleaseNumber>,
    /// Rollouts that have started.
    pub(super) rollouts: Vec<String>,
    /// Whether it waits.
    queued: bool,
    /// What it waits for.
    #[schema(value_type = Option<Object>)]
    waits_for: Option<WaitsFor>,
    /// A running rollout that was told to make way.
    making_way: Option<String>,
    /// Set while automatic promotion into the environment is stopped.
    #[schema(value_type = Option<Object>)]
    hold: Option<EnvironmentHold>,
    /// Whether the same was asked for before, and nothing has changed.
    unchanged: bool,
    /// Why nothing follows.
    dropped: Option<String>,
}

impl SetOff {
    /// Says `input` to the service; what that set off, once it can be read.
    pub(super) async fn by(
        app: &App,
        service: &ServiceName,
        input: ServiceInput,
        caller: &Caller,
    ) -> Result<Self, Problem> {
        let asked = environment_of(&input);
        let outcome = app.tell_service(service, input, caller.actor()).await?;
        let mut set_off = Self {
            service: Some(service.clone()),
            environment: asked,
            ..Self::default()
        };
        for event in &outcome.events {
            set_off.read(service, event);
        }
        set_off.complete(service, &outcome.state, outcome.events.is_empty());
        for rollout in &set_off.rollouts {
            until_there(app, "rollout", &rollout.replace("/ro", "/")).await;
        }
        Ok(set_off)
    }

    /// Whether nothing has changed.
    pub(super) const fn is_unchanged(&self) -> bool {
        self.unchanged
    }

    fn read(&mut self, service: &ServiceName, event: &Event<ServiceEvent>) {
        match &event.body {
            ServiceEvent::RolloutRequested { request, waits_for } => {
                self.environment = Some(request.environment.clone());
                self.kind = Some(request.kind);
                self.release = Some(request.release.number);
                self.waits_for.clone_from(waits_for);
                self.queued = true;
                // Those dropped before it were superseded by it.
                self.dropped = None;
            }
            ServiceEvent::RolloutOrdered { spec, .. } => {
                self.kind = Some(spec.kind);
                self.release = Some(spec.release.number);
                self.rollouts.push(spec.id.to_string());
                self.queued = false;
            }
            ServiceEvent::WayAsked { number, way } => {
                self.making_way = Some(format!("{service}/{number}"));
                if matches!(way, Preemption::Back { .. }) {
                    self.kind = Some(RolloutKind::Rollback);
                    self.dropped = None;
                }
            }
            ServiceEvent::RequestDropped {
                why,
                release,
                replaced_by,
                ..
            } if Some(*release) != *replaced_by && !self.queued && self.making_way.is_none() => {
                self.dropped = Some(why.clone());
            }
            _ => {}
        }
    }

    /// What the events don't say: what serves now, the hold, and what runs where nothing has changed.
    fn complete(&mut self, service: &ServiceName, state: &ServiceState, is_unchanged: bool) {
        let place = (self.environment.as_ref()).and_then(|name| state.environments.get(name));
        let Some(place) = place else {
            return;
        };
        self.hold.clone_from(&place.hold);
        let stable = place.stable.as_ref().map(|release| release.number);
        let named = |number: RolloutNumber| format!("{service}/{number}");
        self.unchanged = is_unchanged;
        match (&place.active, self.kind) {
            (Some(active), Some(RolloutKind::Rollback))
                if self.rollouts.is_empty() && !self.queued =>
            {
                self.of_running(active);
            }
            (Some(active), _) if is_unchanged => match (place.queue.front(), &active.way_asked) {
                (_, Some(Preemption::Back { .. })) => {
                    self.kind = Some(RolloutKind::Rollback);
                    self.making_way = Some(named(active.spec.id.number));
                    self.of_running(active);
                }
                _ => {
                    self.kind = Some(active.spec.kind);
                    self.release = Some(active.spec.release.number);
                    self.replaces = active.spec.stable.as_ref().map(|it| it.release.number);
                    self.rollouts.push(named(active.spec.id.number));
                }
            },
            _ => self.replaces = stable,
        }
        self.replaces = self.replaces.filter(|it| Some(*it) != self.release);
    }

    /// The running rollout leaves its release.
    fn of_running(&mut self, active: &ActiveRollout) {
        self.release = active.spec.stable.as_ref().map(|it| it.release.number);
        self.replaces = Some(active.spec.release.number);
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
