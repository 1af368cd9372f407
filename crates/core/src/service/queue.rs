//! The queue of each environment: who is let in, who must make way, who has its turn.

use super::{
    decide::Decider,
    event::{Body, Request, Way},
};
use crate::{
    config::WhenBusy,
    ids::{EnvironmentName, ReleaseNumber, RolloutId},
    rollout::{Kind, Spec, Stable},
};

impl Decider {
    /// A request that nobody waits for: what forbids it is recorded, not answered.
    pub(super) fn request_by_itself(&mut self, request: Request) {
        let place = self.state.environments.get(&request.environment);
        let release = &request.release;
        let busy = place
            .and_then(|place| place.active.as_ref())
            .filter(|active| !active.promoted);
        let refuses = release
            .environment(&request.environment)
            .is_some_and(|it| it.when_busy == WhenBusy::Refuse);
        let why = if place.is_some_and(|place| place.newest > release.sequence) {
            Some("a newer push has been sent there already".to_owned())
        } else if place.is_some_and(|place| place.bad.contains(&release.number)) {
            Some("it was rolled back there before; deploy it with --force".to_owned())
        } else {
            busy.filter(|_| refuses).map(|active| {
                format!(
                    "{} is busy with rollout {} (when_busy: refuse)",
                    request.environment, active.spec.id.number
                )
            })
        };
        match why {
            Some(why) => self.emit(Body::RequestDropped {
                environment: request.environment,
                release: release.number,
                why,
            }),
            None => self.request(request),
        }
    }

    /// Puts a request into the queue of its environment, in the way its release says.
    pub(super) fn request(&mut self, request: Request) {
        let environment = request.environment.clone();
        let supersedes = request.kind == Kind::Rollback
            || request
                .release
                .environment(&environment)
                .is_some_and(|it| it.when_busy == WhenBusy::Supersede);
        if supersedes {
            let queued: Vec<ReleaseNumber> = self
                .state
                .environments
                .get(&environment)
                .map(|place| place.queue.iter().map(|it| it.release.number).collect())
                .unwrap_or_default();
            for release in queued {
                let why = format!("superseded by {}", request.release.number);
                self.emit(Body::RequestDropped {
                    environment: environment.clone(),
                    release,
                    why,
                });
            }
        }
        let by = request.release.number;
        self.emit(Body::RolloutRequested {
            request: Box::new(request),
        });
        let Some(active) = self
            .state
            .environments
            .get(&environment)
            .and_then(|place| place.active.as_ref())
        else {
            return;
        };
        let number = active.spec.id.number;
        if active.promoted {
            self.emit(Body::WayAsked {
                number,
                way: Way::Finish { next: by },
            });
        } else if supersedes && active.way_asked.is_none() {
            self.emit(Body::WayAsked {
                number,
                way: Way::Supersede { by },
            });
        }
    }

    /// The next request of a free environment has its turn.
    pub(super) fn order_rollout(&mut self, environment: &EnvironmentName) {
        let Some(place) = self.state.environments.get(environment) else {
            return;
        };
        let Some(request) = place.queue.front().cloned() else {
            return;
        };
        let stable = place.stable.as_ref().map(|release| Stable {
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
        let spec = Spec {
            id: RolloutId {
                service: request.release.service.clone(),
                number: self.state.last_rollout.next(),
            },
            kind: request.kind,
            release: request.release,
            environment: configured,
            stable,
            observed: place.observed.clone(),
            stable_traffic: None,
            is_slow_limit_measured: false,
            why: request.why,
            by: request.by,
            tied: self.state.tied_in(environment),
        };
        self.emit(Body::RolloutOrdered {
            spec: Box::new(spec),
            onward: request.onward,
        });
    }
}
