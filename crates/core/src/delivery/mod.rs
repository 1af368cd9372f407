//! How changes reach their environments: the counts that DORA's measures are computed from, by service, environment and day.
//!
//! A deployment is a rollout whose release was promoted. A person's rollback to an earlier release is none: it brings no change.
//!
//! Lead time is from a commit's author time to the promotion of the first release that has it. The history that a new branch brings
//! was written before Shipway delivered it: of a first push only the newest commit counts.

mod day;
mod pushes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use day::{DeliveryDay, LeadTimeBucket, LeadTimeHistogram};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use pushes::UndeliveredPushes;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Aggregate, Event, ViewRow},
    ids::{EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, ServiceName},
    projection::LogProjection,
    release::Release,
    rollout::{
        RolloutAggregate, RolloutEvent, RolloutKind, RolloutSpec, UserExposure,
        plan::{PlanAction, RolloutPlan},
    },
    service::{ServiceAggregate, ServiceEvent},
};

/// The projection behind [`DeliveryDay`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeliveryCounts {
    /// What each service still has to deliver.
    pushes: BTreeMap<ServiceName, UndeliveredPushes>,
    /// Rollouts in progress, by stream.
    rollouts: BTreeMap<String, TrackedRollout>,
    /// The last day of each place; earlier days are rows only. By the key of the place: `shop/production`.
    days: BTreeMap<String, DeliveryDay>,
}

/// What counts of a rollout in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TrackedRollout {
    service: ServiceName,
    environment: EnvironmentName,
    release: ReleaseNumber,
    kind: RolloutKind,
    /// Actions of the current plan after which users get answers of the release.
    exposing_actions: Vec<usize>,
    is_exposed: bool,
    is_promoted: bool,
}

impl TrackedRollout {
    fn new(spec: &RolloutSpec) -> Self {
        Self {
            service: spec.id.service.clone(),
            environment: spec.environment.name.clone(),
            release: spec.release().number,
            kind: spec.kind,
            exposing_actions: Vec::new(),
            is_exposed: false,
            is_promoted: false,
        }
    }

    fn follow_plan(&mut self, plan: &RolloutPlan) {
        let release = self.release;
        let exposes = |action: &PlanAction| matches!(action, PlanAction::Shift { split } if split.serves(release));
        let actions = plan.actions.iter().enumerate();
        self.exposing_actions = actions
            .filter(|(_, action)| exposes(action))
            .map(|(index, _)| index)
            .collect();
    }

    const fn exposure(&self) -> UserExposure {
        match self.is_exposed {
            true => UserExposure::Yes,
            false => UserExposure::Never,
        }
    }
}

impl LogProjection for DeliveryCounts {
    const NAME: &'static str = "delivery";
    const VERSION: u32 = 1;

    fn fold(&mut self, stream: &str, event: &str) -> Result<Vec<ViewRow>, serde_json::Error> {
        let changed = match stream.split_once('/') {
            Some((ServiceAggregate::KIND, service)) => {
                let event: Event<ServiceEvent> = serde_json::from_str(event)?;
                // Streams of services are named by services.
                service
                    .parse()
                    .ok()
                    .and_then(|service| self.fold_service(&service, &event))
            }
            Some((RolloutAggregate::KIND, _)) => {
                self.fold_rollout(stream, &serde_json::from_str(event)?)
            }
            _ => None,
        };
        Ok(changed.into_iter().collect())
    }
}

impl DeliveryCounts {
    fn fold_service(
        &mut self,
        service: &ServiceName,
        event: &Event<ServiceEvent>,
    ) -> Option<ViewRow> {
        match &event.body {
            ServiceEvent::Pushed { sequence, push } => {
                let pushes = self.pushes.entry(service.clone()).or_default();
                pushes.add(*sequence, push);
                None
            }
            ServiceEvent::Promoted {
                rollout, release, ..
            } => self.promoted(service, *rollout, release, event.at),
            _ => None,
        }
    }

    fn promoted(
        &mut self,
        service: &ServiceName,
        number: RolloutNumber,
        release: &Release,
        at: Timestamp,
    ) -> Option<ViewRow> {
        let id = RolloutId {
            service: service.clone(),
            number,
        };
        let rollout = self.rollouts.get_mut(&id.stream())?;
        // After a rollback the previous release is declared stable again.
        let is_deployment = rollout.kind != RolloutKind::Rollback
            && rollout.release == release.number
            && !rollout.is_promoted;
        if !is_deployment {
            return None;
        }
        rollout.is_promoted = true;
        let environment = rollout.environment.clone();
        let pushes = self.pushes.entry(service.clone()).or_default();
        let authored = pushes.deliver(&environment, release.sequence);
        let day = self.day_at(service, &environment, at);
        day.deployments += 1;
        for commit in authored {
            let seconds = at.duration_since(commit).as_secs();
            day.lead_time.record(u64::try_from(seconds).unwrap_or(0));
        }
        Some(day.to_row())
    }

    fn fold_rollout(&mut self, stream: &str, event: &Event<RolloutEvent>) -> Option<ViewRow> {
        match &event.body {
            RolloutEvent::Opened { spec } => {
                let rollout = TrackedRollout::new(spec);
                self.rollouts.insert(stream.to_owned(), rollout);
                None
            }
            RolloutEvent::Planned { plan, .. } => {
                self.rollouts.get_mut(stream)?.follow_plan(plan);
                None
            }
            RolloutEvent::ActionDone { index, .. } => {
                let rollout = self.rollouts.get_mut(stream)?;
                rollout.is_exposed |= rollout.exposing_actions.contains(index);
                None
            }
            RolloutEvent::Ended { outcome, .. } => {
                let rollout = self.rollouts.remove(stream)?;
                if !outcome.is_change_failure(rollout.exposure()) {
                    return None;
                }
                let day = self.day_at(&rollout.service, &rollout.environment, event.at);
                day.change_failures += 1;
                day.failures_before_promotion += u32::from(!rollout.is_promoted);
                Some(day.to_row())
            }
            _ => None,
        }
    }

    /// The counts of a day in UTC. The log's time never goes back, so that a day before the last one is not counted again.
    fn day_at(
        &mut self,
        service: &ServiceName,
        environment: &EnvironmentName,
        at: Timestamp,
    ) -> &mut DeliveryDay {
        let date: Date = at.to_zoned(TimeZone::UTC).date();
        let new_day = || DeliveryDay::new(service.clone(), environment.clone(), date);
        let place = format!("{service}/{environment}");
        let day = self.days.entry(place).or_insert_with(new_day);
        if day.date < date {
            *day = new_day();
        }
        day
    }
}
