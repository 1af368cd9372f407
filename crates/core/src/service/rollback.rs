//! Rollbacks and retries that people request.
//!
//! A rollback outranks automation: it is never superseded by a push, a retry or a schedule, and it holds the environment.

use std::sync::Arc;

use super::{
    ServiceDecider,
    event::{
        AutoPromotion, Override, Preemption, RetryRequest, RolloutRequest, RolloutTrigger,
        ServiceEvent,
    },
    rejection::ServiceRejection,
    release_check::require_environment,
    state::{ActiveRollout, EnvironmentState},
};
use crate::{
    ids::{EnvironmentName, ReleaseNumber},
    release::Release,
    rollout::{RolloutKind, RolloutPace},
};

/// How a rollback is carried out.
enum RollbackRoute {
    /// The same was requested before, and is running or queued.
    Already,
    /// The running rollout leaves its release.
    RunningRolloutBack,
    /// A rollout of its own.
    OwnRollout,
}

impl EnvironmentState {
    fn rollback_route(&self, wanted: Option<ReleaseNumber>) -> RollbackRoute {
        let is_wanted = |number: ReleaseNumber| wanted.is_none_or(|wanted| wanted == number);
        let mut queued = self.queue.iter();
        if queued.any(|it| it.kind == RolloutKind::Rollback && is_wanted(it.release.number)) {
            return RollbackRoute::Already;
        }
        let Some(active) = &self.active else {
            return RollbackRoute::OwnRollout;
        };
        let stable = active.spec.stable().map(|it| it.release.number);
        match active.spec.kind {
            // Two people who request a rollback at the same time mean one, not one and its reversal.
            RolloutKind::Rollback
                if !active.promoted && is_wanted(active.spec.release().number) =>
            {
                RollbackRoute::Already
            }
            RolloutKind::Rollback if wanted.is_none() => RollbackRoute::OwnRollout,
            RolloutKind::Deploy | RolloutKind::Retry | RolloutKind::Rollback => {
                if stable.is_some_and(is_wanted) {
                    RollbackRoute::RunningRolloutBack
                } else {
                    RollbackRoute::OwnRollout
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
            .is_some_and(|active| !active.promoted || active.spec.release().number != release);
        is_stable && !is_moving && self.queue.is_empty()
    }

    /// The release that a rollback without a target goes to. What a rollback in progress is leaving is not gone back to.
    pub(super) fn release_before(&self) -> Option<&Arc<Release>> {
        self.releases_before().next()
    }

    /// The releases that served before, the latest first.
    fn releases_before(&self) -> impl Iterator<Item = &Arc<Release>> {
        let active = self.active.as_ref();
        let rollback = active.filter(|active| active.spec.kind == RolloutKind::Rollback);
        let leaving = rollback.and_then(|active| Some(active.spec.stable()?.release.number));
        let former = self.former.iter().rev();
        former.filter(move |release| Some(release.number) != leaving)
    }

    /// Whether a retry of this rollout runs or waits already.
    fn is_retrying(&self, request: &RetryRequest) -> bool {
        let of = Some(request.rollout);
        let is_active = |active: &ActiveRollout| active.spec.retry_of == of;
        self.active.as_ref().is_some_and(is_active)
            || self.queue.iter().any(|queued| queued.retry_of == of)
    }
}

impl ServiceDecider {
    /// Back to a release that was good here: at once where it was lately, by the strategy where it wasn't.
    pub(super) fn roll_back(
        &mut self,
        environment: &EnvironmentName,
        to: Option<Arc<Release>>,
        force: Override,
        why: String,
    ) -> Result<(), ServiceRejection> {
        let Some(place) = self.state.environments.get(environment) else {
            return Err(self.unknown_environment(environment));
        };
        match place.rollback_route(to.as_ref().map(|release| release.number)) {
            RollbackRoute::Already => Ok(()),
            RollbackRoute::RunningRolloutBack => {
                self.roll_back_running(environment, why);
                Ok(())
            }
            RollbackRoute::OwnRollout => {
                if let Some(to) = &to {
                    self.refuse_rejected(to)?;
                }
                if let Some(to) = to.as_ref().filter(|to| place.serves_only(to.number)) {
                    return Err(ServiceRejection::StableAlready {
                        release: to.number,
                        environment: environment.clone(),
                    });
                }
                self.request_rollback(environment, to, force, why)
            }
        }
    }

    fn roll_back_running(&mut self, environment: &EnvironmentName, why: String) {
        let by = self.by.clone();
        self.hold(environment, &by, &why);
        let superseding = format!("superseded by a rollback by {by}");
        self.drop_requests(environment, &superseding, |request| {
            request.trigger == RolloutTrigger::Person
        });
        let place = self.state.environments.get(environment);
        let active = place.and_then(|place| place.active.as_ref());
        let Some(active) =
            active.filter(|it| !matches!(it.preemption, Some(Preemption::RollBack { .. })))
        else {
            return;
        };
        let number = active.spec.id.number;
        let spec = active.spec.clone();
        self.emit(ServiceEvent::PreemptionRequested {
            number,
            preemption: Preemption::RollBack { by, reason: why },
        });
        self.withdraw_rolled_back(&spec);
    }

    fn request_rollback(
        &mut self,
        environment: &EnvironmentName,
        to: Option<Arc<Release>>,
        force: Override,
        why: String,
    ) -> Result<(), ServiceRejection> {
        let place = self.state.environments.get(environment);
        let is_accepted =
            |release: &&Arc<Release>| !self.state.rejected_releases.contains_key(&release.number);
        let before = place.and_then(|place| place.releases_before().find(is_accepted).cloned());
        let release = to
            .or(before)
            .ok_or_else(|| ServiceRejection::NothingBefore {
                environment: environment.clone(),
            })?;
        require_environment(&release, environment)?;
        self.refuse_bad(environment, &release, force)?;
        let left = place
            .and_then(|place| place.stable.clone())
            .filter(|stable| stable.number != release.number);
        let by = self.by.clone();
        self.hold(environment, &by, &why);
        let (pace, why) = match self.outside(environment, &release) {
            None => (RolloutPace::Direct, why),
            Some(outside) => (RolloutPace::ByStrategy, format!("{why}; {outside}")),
        };
        self.request(RolloutRequest {
            kind: RolloutKind::Rollback,
            pace,
            trigger: self.trigger(),
            retry_of: None,
            by: self.requester(&release),
            release,
            environment: environment.clone(),
            auto_promotion: AutoPromotion::Stay,
            why,
        });
        if let Some(left) = left {
            self.withdraw_from_later_environments(environment, &left);
        }
        Ok(())
    }

    /// The release of an ended rollout once more. While that runs or waits, asking again changes nothing.
    pub(super) fn retry(&mut self, request: RetryRequest) -> Result<(), ServiceRejection> {
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
        require_environment(&release, &environment)?;
        self.refuse_rejected(&release)?;
        match kind {
            RolloutKind::Rollback => {
                self.roll_back(&environment, Some(release), Override::Yes, why)
            }
            RolloutKind::Deploy | RolloutKind::Retry => {
                self.refuse_branch(&environment, &release)?;
                self.refuse_busy(&environment, &release)?;
                self.request(RolloutRequest {
                    kind: RolloutKind::Retry,
                    pace: RolloutPace::ByStrategy,
                    trigger: self.trigger(),
                    retry_of: Some(rollout),
                    by: self.requester(&release),
                    release,
                    environment,
                    auto_promotion: AutoPromotion::Stay,
                    why,
                });
                Ok(())
            }
        }
    }

    /// A rollback that was on its way to a rollout which ended first: it gets a rollout of its own.
    pub(super) fn roll_back_after_all(
        &mut self,
        environment: &EnvironmentName,
        active: &ActiveRollout,
    ) {
        let (Some(Preemption::RollBack { by, reason }), Some(stable)) =
            (active.preemption.clone(), active.spec.stable())
        else {
            return;
        };
        let caller = std::mem::replace(&mut self.by, by);
        let to = Some(stable.release.clone());
        let asked = self.request_rollback(environment, to, Override::Yes, reason);
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
                "{number} was not stable here recently, so it is deployed by its strategy"
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
        let left = place.replaced_at.get(&number).copied();
        (!window.holds(position + 1, left, self.now)).then(|| {
            format!(
                "{number} is outside the rollback window ({window}), so it is deployed by its strategy"
            )
        })
    }
}
