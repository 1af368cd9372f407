//! A release that is rolled back in one environment is withdrawn from the later ones, where automatic promotion has brought it.
//!
//! # Invariants
//!
//! - Only requests and rollouts of automatic promotion are withdrawn. What a person deployed there stays.
//! - A later environment that has promoted the release keeps it: its own analysis judges it there, and a person may roll it back.

use std::sync::Arc;

use super::{
    ServiceDecider,
    event::{AutoPromotion, Preemption, ServiceEvent},
    state::{ActiveRollout, EnvironmentState},
};
use crate::{
    ids::{EnvironmentName, ReleaseNumber},
    release::Release,
    rollout::{RolloutKind, RolloutSpec},
};

impl EnvironmentState {
    /// Whether the release is stable and no rollback from it was requested.
    pub(super) fn retains(&self, release: ReleaseNumber) -> bool {
        let is_stable = self.stable.as_ref().is_some_and(|it| it.number == release);
        let is_rolling_back = self.active.as_ref().is_some_and(|active| {
            let is_rollback = active.spec.kind == RolloutKind::Rollback;
            active.is_rolling_back_for_a_person()
                || (is_rollback && active.spec.release().number != release)
        });
        let mut queue = self.queue.iter();
        let is_rollback_queued =
            queue.any(|it| it.kind == RolloutKind::Rollback && it.release.number != release);
        is_stable && !is_rolling_back && !is_rollback_queued
    }
}

impl ServiceDecider {
    /// Withdraws the release of a rollout that is rolled back. The repeated rollout of a stable release leaves that release stable.
    pub(super) fn withdraw_rolled_back(&mut self, spec: &RolloutSpec) {
        let release = spec.release();
        let stable = spec.stable().map(|it| it.release.number);
        if stable != Some(release.number) {
            self.withdraw_from_later_environments(&spec.environment.name, release);
        }
    }

    /// Drops the release's automatic requests in the environments after `environment`, and rolls its automatic rollouts back that are
    /// not promoted yet.
    pub(super) fn withdraw_from_later_environments(
        &mut self,
        environment: &EnvironmentName,
        release: &Arc<Release>,
    ) {
        let why = format!("{} was rolled back in {environment}", release.number);
        let mut next = release.environment_after(environment);
        while let Some(later) = next {
            self.drop_requests(&later.name, &why, |it| {
                it.release.number == release.number && it.auto_promotion == AutoPromotion::Next
            });
            self.withdraw_rollout(&later.name, release.number, environment);
            next = release.environment_after(&later.name);
        }
    }

    fn withdraw_rollout(
        &mut self,
        environment: &EnvironmentName,
        release: ReleaseNumber,
        rolled_back_in: &EnvironmentName,
    ) {
        let place = self.state.environments.get(environment);
        let active = place.and_then(|place| place.active.as_ref());
        let is_withdrawn = |active: &&ActiveRollout| {
            active.spec.release().number == release
                && active.auto_promotion == AutoPromotion::Next
                && !active.promoted
                && active.preemption.is_none()
        };
        let Some(active) = active.filter(is_withdrawn) else {
            return;
        };
        let number = active.spec.id.number;
        let preemption = Preemption::Withdraw {
            release,
            environment: rolled_back_in.clone(),
        };
        self.emit(ServiceEvent::PreemptionRequested { number, preemption });
    }
}
