//! The queue of each environment: which requests are accepted, superseded and started next.
//!
//! # Invariants
//!
//! - A rollback that a person requested starts before everything else in the queue, and only another rollback replaces it.
//! - In a held environment automation supersedes only older automation and starts nothing; its requests wait.

use super::{
    ServiceDecider,
    event::{Preemption, RolloutRequest, RolloutTrigger, ServiceEvent, WaitsFor},
    state::{ActiveRollout, EnvironmentState},
};
use crate::{
    config::WhenBusy,
    ids::{EnvironmentName, ReleaseNumber, RolloutId},
    rollout::{RolloutKind, RolloutSpec, RolloutSubject, StableRelease},
};

impl RolloutRequest {
    /// Whether requests and rollouts before it give way to it.
    fn supersedes(&self) -> bool {
        match self.kind {
            RolloutKind::Rollback => true,
            RolloutKind::Deploy | RolloutKind::Retry => self
                .release
                .environment(&self.environment)
                .is_some_and(|it| it.when_busy == WhenBusy::Supersede),
        }
    }
}

impl EnvironmentState {
    /// Whether a hold keeps `request` from starting.
    #[must_use]
    pub fn holds_back(&self, request: &RolloutRequest) -> bool {
        self.hold.is_some() && request.trigger == RolloutTrigger::Automation
    }

    /// The request that starts once no rollout is running.
    #[must_use]
    pub fn next_request(&self) -> Option<&RolloutRequest> {
        self.queue.iter().find(|request| !self.holds_back(request))
    }

    /// The requests in the queue that `request` takes the place of.
    fn superseded_by(&self, request: &RolloutRequest) -> Vec<RolloutRequest> {
        let is_superseded = |queued: &&RolloutRequest| match (request.kind, queued.kind) {
            // What automation asked for stays, and waits for the hold to end.
            (RolloutKind::Rollback, _) => queued.trigger == RolloutTrigger::Person,
            (RolloutKind::Deploy | RolloutKind::Retry, RolloutKind::Rollback) => false,
            (
                RolloutKind::Deploy | RolloutKind::Retry,
                RolloutKind::Deploy | RolloutKind::Retry,
            ) => {
                let is_duplicate = queued.release.number == request.release.number;
                match (queued.trigger, request.trigger) {
                    (RolloutTrigger::Automation, RolloutTrigger::Person) if self.hold.is_some() => {
                        is_duplicate
                    }
                    (RolloutTrigger::Person, RolloutTrigger::Automation) if self.hold.is_some() => {
                        false
                    }
                    _ => request.supersedes(),
                }
            }
        };
        self.queue.iter().filter(is_superseded).cloned().collect()
    }

    /// What `request` waits for, as things are.
    fn what_delays(&self, request: &RolloutRequest) -> Option<WaitsFor> {
        match (&self.hold, &self.active) {
            (Some(hold), _) if self.holds_back(request) => Some(WaitsFor::Hold(hold.clone())),
            // It is only watched, and ends at once.
            (_, Some(active)) if active.is_finished_by_next() => None,
            (_, Some(active)) => Some(WaitsFor::Rollout {
                number: active.spec.id.number,
                kind: active.spec.kind,
                release: active.spec.release().number,
            }),
            (_, None) => None,
        }
    }
}

impl ActiveRollout {
    /// Whether it is promoted and ends as soon as another release waits.
    pub(super) fn is_finished_by_next(&self) -> bool {
        // A rollback that a person asked for needs the warm set.
        self.promoted && !self.is_rolling_back_for_a_person()
    }

    /// Whether a person asked to leave its release.
    pub(super) fn is_rolling_back_for_a_person(&self) -> bool {
        matches!(self.preemption, Some(Preemption::RollBack { .. }))
    }
}

impl ServiceDecider {
    /// A request that no caller waits for: what forbids it is recorded, not answered.
    pub(super) fn request_by_itself(&mut self, request: RolloutRequest) {
        let place = self.state.environments.get(&request.environment);
        let release = &request.release;
        let busy = place
            .and_then(|place| place.active.as_ref())
            .filter(|active| !active.promoted);
        let refuses = release
            .environment(&request.environment)
            .is_some_and(|it| it.when_busy == WhenBusy::Refuse);
        let refused = (self.refuse_deleted(&request.environment))
            .and_then(|()| self.refuse_branch(&request.environment, release))
            .and_then(|()| self.refuse_rejected(release));
        let why = if let Err(refusal) = refused {
            Some(refusal.to_string())
        } else if place.is_some_and(|place| place.last_push > release.sequence) {
            Some("a newer push has already been deployed there".to_owned())
        } else if let Some(outcome) =
            place.and_then(|place| place.blocked_releases.get(&release.number))
        {
            Some(format!(
                "it was {outcome} there before; deploy it anyway with --force"
            ))
        } else {
            busy.filter(|_| refuses).map(|active| {
                format!(
                    "{} is busy with rollout {} (when_busy: refuse)",
                    request.environment, active.spec.id.number
                )
            })
        };
        match why {
            Some(why) => self.drop_request(&request, None, why),
            None => self.request(request),
        }
    }

    pub(super) fn drop_request(
        &mut self,
        request: &RolloutRequest,
        replaced_by: Option<ReleaseNumber>,
        why: String,
    ) {
        self.emit(ServiceEvent::RequestDropped {
            environment: request.environment.clone(),
            release: request.release.number,
            kind: request.kind,
            replaced_by,
            why,
        });
    }

    /// Puts a request into the queue of its environment, in the way its release says.
    pub(super) fn request(&mut self, request: RolloutRequest) {
        let environment = request.environment.clone();
        let place = self.state.environments.get(&environment);
        let superseded = place.map(|place| place.superseded_by(&request));
        for queued in superseded.unwrap_or_default() {
            let number = request.release.number;
            let why = if queued.release.number == number {
                format!("{number} was requested again")
            } else {
                format!("superseded by {number}")
            };
            self.drop_request(&queued, Some(number), why);
        }
        let place = self.state.environments.get(&environment);
        let waits_for = place.and_then(|place| place.what_delays(&request));
        self.emit(ServiceEvent::RolloutRequested {
            request: Box::new(request.clone()),
            waits_for,
        });
        self.supersede_for(&request);
        self.end_warm_set_for_next(&environment);
    }

    /// Drops the requests in the queue of an environment for which the predicate holds, without a successor.
    pub(super) fn drop_requests(
        &mut self,
        environment: &EnvironmentName,
        why: &str,
        is_dropped: impl Fn(&RolloutRequest) -> bool,
    ) {
        let place = self.state.environments.get(environment);
        let queued = place.iter().flat_map(|place| &place.queue);
        let dropped: Vec<RolloutRequest> = queued
            .filter(|request| is_dropped(request))
            .cloned()
            .collect();
        for request in dropped {
            self.drop_request(&request, None, why.to_owned());
        }
    }

    /// Asks the running rollout to give way to `request`, where it has to.
    fn supersede_for(&mut self, request: &RolloutRequest) {
        let Some(place) = self.state.environments.get(&request.environment) else {
            return;
        };
        let Some(active) = place.active.as_ref().filter(|active| !active.promoted) else {
            return;
        };
        let gives_way = match (active.spec.kind, request.kind) {
            (RolloutKind::Rollback, RolloutKind::Deploy | RolloutKind::Retry) => false,
            (
                RolloutKind::Rollback | RolloutKind::Deploy | RolloutKind::Retry,
                RolloutKind::Rollback,
            )
            | (
                RolloutKind::Deploy | RolloutKind::Retry,
                RolloutKind::Deploy | RolloutKind::Retry,
            ) => true,
        };
        let may = request.supersedes() && !place.holds_back(request);
        if gives_way && may && active.preemption.is_none() {
            let number = active.spec.id.number;
            let by = request.release.number;
            self.emit(ServiceEvent::PreemptionRequested {
                number,
                preemption: Preemption::Supersede { by },
            });
        }
    }

    /// Asks a rollout that only keeps its previous set warm to end, where a request could start.
    pub(super) fn end_warm_set_for_next(&mut self, environment: &EnvironmentName) {
        let Some(place) = self.state.environments.get(environment) else {
            return;
        };
        let (Some(active), Some(next)) = (&place.active, place.next_request()) else {
            return;
        };
        if active.is_finished_by_next() {
            let number = active.spec.id.number;
            let next = Some(next.release.number);
            self.emit(ServiceEvent::PreemptionRequested {
                number,
                preemption: Preemption::Finish { next },
            });
        }
    }

    /// The next request of a free environment starts.
    pub(super) fn order_rollout(&mut self, environment: &EnvironmentName) {
        let Some(place) = self.state.environments.get(environment) else {
            return;
        };
        let Some(request) = place.next_request().cloned() else {
            return;
        };
        let stable = place.stable.as_ref().map(|release| StableRelease {
            release: release.clone(),
            instances: release
                .environment(environment)
                .map_or(1, |it| it.instances),
        });
        let configured = request
            .release
            .environment(environment)
            .expect("checked when it was requested")
            .clone();
        let spec = RolloutSpec {
            id: RolloutId {
                service: request.release.service.clone(),
                number: self.state.last_rollout.next(),
            },
            kind: request.kind,
            pace: request.pace,
            retry_of: request.retry_of,
            subject: RolloutSubject::Release {
                release: request.release,
                stable,
            },
            environment: configured,
            observed: place.observed.clone(),
            stable_traffic: None,
            is_slow_limit_measured: false,
            why: request.why,
            by: request.by,
            peers: self.state.peers_in(environment),
        };
        self.emit(ServiceEvent::RolloutOrdered {
            spec: Box::new(spec),
            auto_promotion: request.auto_promotion,
        });
    }
}
