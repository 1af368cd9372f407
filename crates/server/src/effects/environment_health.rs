//! Reports instances that are not ready to their services, and delivers the resulting notices. This guards environments after the
//! `watch` phase of their rollouts; `shipway_core::service` decides whether instances are missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use shipway_core::{
    aggregate::Actor,
    ids::ServiceName,
    rollout::NoticeTone,
    service::{HealthNotice, HealthReport, ServiceInput, ServiceView},
    target::{InstancePhase, InstanceStatus, ReplicaSetKey, ServiceEnvironment},
};
use shipway_drivers::notify::{Notification, NotificationSeverity};
use shipway_engine::{Clock, Store};
use shipway_targets::target_registry::TargetRegistry;

use super::notice_delivery::NoticeDelivery;
use crate::delivery_engines::DeliveryEngines;

/// Between two reports while an instance is not ready: a grace period is noticed this late at most.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Follows the instances of the target for as long as the server runs.
pub(crate) async fn run(
    engines: Arc<DeliveryEngines>,
    targets: Arc<TargetRegistry>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) {
    let mut changes = targets.watch();
    let mut unready_since: BTreeMap<ReplicaSetKey, Timestamp> = BTreeMap::new();
    let mut degraded = degraded_environments(&*store).await;
    loop {
        changes.mark_seen();
        let sets = summarize(&targets.instances());
        let now = clock.now();
        unready_since.retain(|set, _| sets.get(set).is_some_and(|it| it.is_unready));
        for (set, summary) in &sets {
            if summary.is_unready {
                unready_since.entry(set.clone()).or_insert(now);
            } else if !degraded.contains(&set.place) {
                continue;
            }
            let report = HealthReport {
                environment: set.place.environment.clone(),
                release: set.release,
                ready: summary.ready,
                unready_since: unready_since.get(set).copied(),
                problem: summary.problem.clone(),
            };
            if let Some(is_degraded) = send_report(&engines, &set.place, report).await {
                if is_degraded {
                    degraded.insert(set.place.clone());
                } else {
                    degraded.remove(&set.place);
                }
            }
        }
        let must_repeat = !unready_since.is_empty() || !degraded.is_empty();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REPORT_EVERY), if must_repeat => {}
        }
    }
}

/// The instances of one release in one environment.
#[derive(Default)]
struct SetSummary {
    ready: u32,
    is_unready: bool,
    problem: Option<String>,
}

fn summarize(instances: &[InstanceStatus]) -> BTreeMap<ReplicaSetKey, SetSummary> {
    let mut sets: BTreeMap<ReplicaSetKey, SetSummary> = BTreeMap::new();
    for status in instances {
        let set = sets.entry(status.id.set.clone()).or_default();
        match &status.phase {
            InstancePhase::Ready => set.ready += 1,
            InstancePhase::Stopping => {}
            InstancePhase::Starting { why }
            | InstancePhase::Unready { why }
            | InstancePhase::Backoff { why, .. } => {
                set.is_unready = true;
                let problem = || format!("instance {}: {why}", status.id.slot);
                set.problem.get_or_insert_with(problem);
            }
        }
    }
    sets
}

/// Whether the environment is degraded after the report; none when that is unknown.
async fn send_report(
    engines: &DeliveryEngines,
    place: &ServiceEnvironment,
    report: HealthReport,
) -> Option<bool> {
    let reason = "health of instances".to_owned();
    let input = ServiceInput::HealthReported(report);
    match engines
        .send_to_service(&place.service, input, Actor::Shipway(reason))
        .await
    {
        Ok(outcome) => {
            let environment = outcome.state.environments.get(&place.environment);
            Some(environment.is_some_and(|it| it.degradation.is_some()))
        }
        Err(error) => {
            tracing::warn!(%error, service = %place.service, "the health of instances could not be recorded");
            None
        }
    }
}

/// The environments that were degraded when the last server ended.
async fn degraded_environments(store: &dyn Store) -> BTreeSet<ServiceEnvironment> {
    let rows = store.all_rows("service").await.unwrap_or_default();
    let services = rows
        .into_iter()
        .filter_map(|row| serde_json::from_value::<ServiceView>(row.doc).ok());
    services
        .flat_map(|service| {
            let degraded = service.environments.into_iter();
            degraded
                .filter(|environment| environment.degradation.is_some())
                .map(move |environment| ServiceEnvironment {
                    service: service.name.clone(),
                    environment: environment.name,
                })
        })
        .collect()
}

/// Queues a notice for one destination; the answer for the service.
pub(super) async fn notify(
    notices: &NoticeDelivery,
    engines: &DeliveryEngines,
    service: &ServiceName,
    (notice, destination): (&HealthNotice, usize),
) -> ServiceInput {
    let notification = Notification {
        id: format!("{service}-health-{}", notice.number),
        title: notice.notice.title.clone(),
        text: notice.notice.text.clone(),
        severity: match notice.notice.tone {
            NoticeTone::Good => NotificationSeverity::Good,
            NoticeTone::Asking | NoticeTone::Neutral => NotificationSeverity::Info,
            NoticeTone::Bad => NotificationSeverity::Bad,
        },
        service: Some(service.clone()),
        environment: Some(notice.environment.clone()),
        release: Some(notice.release),
        rollout: None,
        url: Some(format!("{}/services/{service}", notices.pages_url)),
        at: notice.notice.at,
        plot: None,
        facts: Vec::new(),
    };
    let to = notice.destinations.get(destination);
    let queued = notices.enqueue(engines, to, destination, &notification);
    let failed = match queued.await {
        Err(error) if error.is_temporary() => {
            tracing::warn!(%error, "a notification can't be queued; retrying");
            return ServiceInput::TimerFired;
        }
        queued => queued.err().map(|error| error.to_string()),
    };
    ServiceInput::HealthNotificationFinished {
        number: notice.number,
        destination,
        failed,
    }
}
