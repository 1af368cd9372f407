//! Health of environments that no rollout guards.
//!
//! # Why
//!
//! A rollout guards its release until its `watch` has ended. Afterwards nothing is rolled back automatically, but an outage
//! must not stay unnoticed: people are notified when ready instances are missing, and again when the environment has recovered.
//!
//! # Invariants
//!
//! - Reports are ignored while a rollout is active in the environment: the rollout's own guard acts on them.
//! - A shortage is recorded once, and once more when the last ready instance is gone; blips within the grace period are not.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    ServiceDecider,
    event::{ServiceEffect, ServiceEvent},
    health::{EnvironmentDegradation, HealthNotice, HealthReport},
    state::{EnvironmentState, ServiceState},
};
use crate::{
    aggregate::EffectKey,
    duration_text::DurationText,
    ids::{EnvironmentName, ReleaseNumber},
    rollout::{NoticeTone, RolloutNotice, capacity::unready_grace},
};

/// Notices that wait for delivery; older ones are dropped: a destination that is down for days needs the latest state.
const NOTICES_MAX: usize = 20;

impl ServiceDecider {
    /// Records that an environment lacks ready instances of its stable release, or that it has recovered.
    pub(super) fn report_health(&mut self, report: HealthReport) {
        let HealthReport {
            environment,
            release,
            ready,
            unready_since,
            problem,
        } = report;
        let place = self.state.environments.get(&environment);
        let is_guarded_here =
            |place: &&EnvironmentState| place.active.is_none() && place.deletion.is_none();
        let Some(place) = place.filter(is_guarded_here) else {
            return;
        };
        let stable = place.stable.as_deref().filter(|it| it.number == release);
        let Some((stable, configured)) =
            stable.and_then(|stable| Some((stable, stable.environment(&environment)?)))
        else {
            return;
        };
        let needed = configured.instances;
        let is_known = place
            .degradation
            .as_ref()
            .is_some_and(|known| known.release == release && (known.ready == 0 || ready > 0));
        match unready_since.filter(|_| ready < needed) {
            None if place.degradation.is_some() && ready >= needed => {
                self.emit(ServiceEvent::EnvironmentRecovered {
                    environment,
                    release,
                });
            }
            Some(since) if !is_known => {
                let grace = unready_grace(configured, &stable.config.run.health, ready);
                let lasts = self.now.duration_since(since);
                if Duration::try_from(lasts).unwrap_or_default() >= grace {
                    self.emit(ServiceEvent::EnvironmentDegraded {
                        environment,
                        release,
                        ready,
                        needed,
                        problem,
                    });
                }
            }
            None | Some(_) => {}
        }
    }

    /// Records that a destination has received a notice, or that it was given up there.
    pub(super) fn finish_health_notice(
        &mut self,
        number: u64,
        destination: usize,
        failed: Option<String>,
    ) {
        let mut notices = self.state.health_notices.iter();
        if notices.any(|it| it.number == number && it.pending.contains(&destination)) {
            self.emit(ServiceEvent::HealthNotificationFinished {
                number,
                destination,
                failed,
            });
        }
    }
}

impl ServiceState {
    pub(super) fn environment_degraded(
        &mut self,
        name: &EnvironmentName,
        degradation: EnvironmentDegradation,
    ) {
        let at = degradation.since;
        let state = if degradation.ready == 0 {
            "down"
        } else {
            "degraded"
        };
        let notice = RolloutNotice {
            tone: NoticeTone::Bad,
            title: self.health_title(name, state),
            text: format!(
                "{degradation}; there is no automatic rollback, because no rollout is being watched"
            ),
            at,
        };
        let release = degradation.release;
        let environment = self.environments.entry(name.clone()).or_default();
        let since = environment
            .degradation
            .take()
            .map_or(at, |known| known.since);
        environment.degradation = Some(EnvironmentDegradation {
            since,
            ..degradation
        });
        self.add_health_notice(name, release, notice);
    }

    pub(super) fn environment_recovered(
        &mut self,
        name: &EnvironmentName,
        release: ReleaseNumber,
        at: Timestamp,
    ) {
        let place = self.environments.get_mut(name);
        let Some(degradation) = place.and_then(|place| place.degradation.take()) else {
            return;
        };
        let lasted = Duration::try_from(at.duration_since(degradation.since)).unwrap_or_default();
        let notice = RolloutNotice {
            tone: NoticeTone::Good,
            title: self.health_title(name, "healthy again"),
            text: format!(
                "all instances of {release} are ready, after {}",
                DurationText(lasted)
            ),
            at,
        };
        self.add_health_notice(name, release, notice);
    }

    fn health_title(&self, environment: &EnvironmentName, state: &str) -> String {
        let service = self.name.as_ref().map(ToString::to_string);
        format!("{} {environment} is {state}", service.unwrap_or_default())
    }

    fn add_health_notice(
        &mut self,
        name: &EnvironmentName,
        release: ReleaseNumber,
        notice: RolloutNotice,
    ) {
        let notify = |place: &EnvironmentState| {
            let stable = place.stable.as_deref()?;
            Some(stable.environment(name)?.notify.clone())
        };
        let destinations = self.environments.get(name).and_then(notify);
        let destinations = destinations.unwrap_or_default();
        if destinations.is_empty() {
            return;
        }
        self.last_health_notice += 1;
        if self.health_notices.len() >= NOTICES_MAX {
            self.health_notices.pop_front();
        }
        self.health_notices.push_back(HealthNotice {
            number: self.last_health_notice,
            environment: name.clone(),
            release,
            notice,
            pending: (0..destinations.len()).collect(),
            destinations,
        });
    }

    pub(super) fn remove_health_notice(&mut self, number: u64, destination: usize) {
        let mut notices = self.health_notices.iter_mut();
        if let Some(notice) = notices.find(|it| it.number == number) {
            notice.pending.remove(&destination);
        }
        self.health_notices.retain(|it| !it.pending.is_empty());
    }

    /// Notices to deliver now: for each environment and destination the oldest one, so that they arrive in order.
    pub(super) fn health_effects(&self) -> Vec<(EffectKey, ServiceEffect)> {
        let mut busy = BTreeSet::new();
        let mut effects = Vec::new();
        for notice in &self.health_notices {
            for destination in &notice.pending {
                if busy.insert((&notice.environment, *destination)) {
                    let key = format!("health-notice-{}-{destination}", notice.number);
                    let effect = ServiceEffect::NotifyHealth {
                        notice: Box::new(notice.clone()),
                        destination: *destination,
                    };
                    effects.push((key.into(), effect));
                }
            }
        }
        effects
    }
}
