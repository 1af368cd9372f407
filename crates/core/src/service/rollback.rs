//! Rollbacks and retries: what a person asks for beside a deploy.
//!
//! A rollback outranks what automation wants: it is never superseded by a push, a retry or a schedule, and it holds the environment.

use std::sync::Arc;

use super::{
    decide::Decider,
    event::{Body, Force, Onward, Request, RetryRequest, Way},
    rejection::Rejection,
    releasable::known_environment,
    state::{Active, Environment},
};
use crate::{
    ids::{EnvironmentName, ReleaseNumber},
    release::Release,
    rollout::{Kind, Pace},
};

/// How a rollback is carried out.
enum Route {
    /// It was asked for already, and is under way or waits.
    Already,
    /// The running rollout leaves its release.
    RunningRolloutBack,
    /// A rollout of its own.
    OwnRollout,
}

impl Environment {
    fn rollback_route(&self, wanted: Option<ReleaseNumber>) -> Route {
        let is_wanted = |number: ReleaseNumber| wanted.is_none_or(|wanted| wanted == number);
        let mut queued = self.queue.iter();
        if queued.any(|it| it.kind == Kind::Rollback && is_wanted(it.release.number)) {
            return Route::Already;
        }
        let Some(active) = &self.active else {
            return Route::OwnRollout;
        };
        let stable = active.spec.stable.as_ref().map(|it| it.release.number);
        match active.spec.kind {
            // Two people who ask at the same time mean one rollback, not one and its opposite.
            Kind::Rollback if !active.promoted && is_wanted(active.spec.release.number) => {
                Route::Already
            }
            Kind::Rollback if wanted.is_none() => Route::OwnRollout,
            Kind::Deploy | Kind::Retry | Kind::Rollback => {
                if stable.is_some_and(is_wanted) {
                    Route::RunningRolloutBack
                } else {
                    Route::OwnRollout
                }
            }
        }
    }

    /// Whether `release` is stable and no other release is on its way.
    fn serves_only(&self, release: ReleaseNumber) -> bool {
        let is_stable = self.stable.as_ref().is_some_and(|it| it.number == release);
        let is_moving = self
            .active
            .as_ref()
            .is_some_and(|active| !active.promoted || active.spec.release.number != release);
        is_stable && !is_moving && self.queue.is_empty()
    }

    /// The release that a rollback without a target goes to. What a rollback in progress is leaving is not gone back to.
    pub(super) fn release_before(&self) -> Option<&Arc<Release>> {
        let active = self.active.as_ref();
        let rollback = active.filter(|active| active.spec.kind == Kind::Rollback);
        let leaving = rollback.and_then(|active| Some(active.spec.stable.as_ref()?.release.number));
        let mut former = self.former.iter().rev();
        former.find(|release| Some(release.number) != leaving)
    }

    /// Whether a retry of this rollout runs or waits already.
    fn is_retrying(&self, request: &RetryRequest) -> bool {
        let of = Some(request.rollout);
        let is_active = |active: &Active| active.spec.retry_of == of;
        self.active.as_ref().is_some_and(is_active)
            || self.queue.iter().any(|queued| queued.retry_of == of)
    }
}

impl Decider {
    /// Back to a release that was good here: at once where it was lately, by the strategy where it wasn't.
    pub(super) fn roll_back(
        &mut self,
        environment: &EnvironmentName,
        to: Option<Arc<Release>>,
        force: Force,
        why: String,
    ) -> Result<(), Rejection> {
        let Some(place) = self.state.environments.get(environment) else {
            return Err(self.unknown_environment(environment));
        };
        match place.rollback_route(to.as_ref().map(|release| release.number)) {
            Route::Already => Ok(()),
            Route::RunningRolloutBack => {
                self.turn_running_rollout_back(environment, why);
                Ok(())
            }
            Route::OwnRollout => {
                if let Some(to) = to.as_ref().filter(|to| place.serves_only(to.number)) {
                    return Err(Rejection::StableAlready {
                        release: to.number,
                        environment: environment.clone(),
                    });
                }
                self.request_rollback(environment, to, force, why)
            }
        }
    }

    fn turn_running_rollout_back(&mut self, environment: &EnvironmentName, why: String) {
        let by = self.by.clone();
        self.hold(environment, &by, &why);
        let superseding = format!("superseded by the rollback that {by} asked for");
        self.drop_requests_of_people(environment, &superseding);
        let place = self.state.environments.get(environment);
        let active = place.and_then(|place| place.active.as_ref());
        let Some(active) = active.filter(|it| !matches!(it.way_asked, Some(Way::Back { .. })))
        else {
            return;
        };
        let number = active.spec.id.number;
        self.emit(Body::WayAsked {
            number,
            way: Way::Back { by, reason: why },
        });
    }

    fn request_rollback(
        &mut self,
        environment: &EnvironmentName,
        to: Option<Arc<Release>>,
        force: Force,
        why: String,
    ) -> Result<(), Rejection> {
        let place = self.state.environments.get(environment);
        let before = place.and_then(|place| place.release_before().cloned());
        let release = to.or(before).ok_or_else(|| Rejection::NothingBefore {
            environment: environment.clone(),
        })?;
        known_environment(&release, environment)?;
        self.refuse_bad(environment, &release, force)?;
        let by = self.by.clone();
        self.hold(environment, &by, &why);
        let (pace, why) = match self.outside(environment, &release) {
            None => (Pace::Direct, why),
            Some(outside) => (Pace::ByStrategy, format!("{why}; {outside}")),
        };
        self.request(Request {
            kind: Kind::Rollback,
            pace,
            trigger: self.trigger(),
            retry_of: None,
            by: self.asked_by(&release),
            release,
            environment: environment.clone(),
            onward: Onward::Stay,
            why,
        });
        Ok(())
    }

    /// The release of an ended rollout once more. While that runs or waits, asking again changes nothing.
    pub(super) fn retry(&mut self, request: RetryRequest) -> Result<(), Rejection> {
        let place = self.state.environments.get(&request.environment);
        if place.is_some_and(|place| place.is_retrying(&request)) {
            return Ok(());
        }
        let RetryRequest {
            rollout,
            kind,
            release,
            environment,
            why,
        } = request;
        known_environment(&release, &environment)?;
        match kind {
            Kind::Rollback => self.roll_back(&environment, Some(release), Force::Yes, why),
            Kind::Deploy | Kind::Retry => {
                self.refuse_busy(&environment, &release)?;
                self.request(Request {
                    kind: Kind::Retry,
                    pace: Pace::ByStrategy,
                    trigger: self.trigger(),
                    retry_of: Some(rollout),
                    by: self.asked_by(&release),
                    release,
                    environment,
                    onward: Onward::Stay,
                    why,
                });
                Ok(())
            }
        }
    }

    /// A rollback that was on its way to a rollout which ended first: it gets a rollout of its own.
    pub(super) fn roll_back_after_all(&mut self, environment: &EnvironmentName, active: &Active) {
        let (Some(Way::Back { by, reason }), Some(stable)) =
            (active.way_asked.clone(), &active.spec.stable)
        else {
            return;
        };
        let caller = std::mem::replace(&mut self.by, by);
        let to = Some(stable.release.clone());
        let asked = self.request_rollback(environment, to, Force::Yes, reason);
        self.by = caller;
        // Refused only where the release no longer has the environment; then there is nothing to go back to.
        drop(asked);
    }

    /// Why a release can't come back without steps and analysis, if it can't.
    fn outside(&self, environment: &EnvironmentName, release: &Release) -> Option<String> {
        let place = self.state.environments.get(environment)?;
        let number = release.number;
        if place.stable.as_ref().is_some_and(|it| it.number == number) {
            return None;
        }
        let position = place.former.iter().rev().position(|it| it.number == number);
        let Some(position) = position else {
            return Some(format!(
                "{number} was not good here lately, so it goes in by its strategy"
            ));
        };
        let config = self.state.config.as_deref();
        let known = config.and_then(|config| {
            config
                .environments
                .iter()
                .find(|it| it.name == *environment)
        });
        let window = known.and_then(|it| it.rollback_window).unwrap_or_default();
        let left = place.left.get(&number).copied();
        (!window.holds(position + 1, left, self.now)).then(|| {
            format!(
                "{number} is outside the rollback window ({window}), so it goes in by its strategy"
            )
        })
    }
}
