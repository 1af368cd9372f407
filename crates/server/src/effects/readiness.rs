//! Watches the instances of a rollout's releases, and checks them before a weight rises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shipway_core::{
    ids::ReleaseNumber,
    rollout::{
        PlanDirection, Rollout, RolloutAggregate, RolloutInput, capacity::SetReadiness,
        plan::TrafficSplit,
    },
    target::{InstancePhase, InstanceStatus, ReplicaSetKey, ServiceEnvironment},
};
use shipway_engine::Work;
use shipway_targets::target::{ReadinessError, Target, await_ready};

use crate::app::App;

/// Between two reports while an instance is not ready: a grace period is noticed this late at most.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Reports the instances of `releases` at every change, and again and again while one is not ready; a crash loop of the
/// first of them ends it. Returns when cancelled.
pub(super) async fn watch(
    app: &Arc<App>,
    work: &Work<RolloutAggregate>,
    place: &ServiceEnvironment,
    releases: &[ReleaseNumber],
) -> RolloutInput {
    let candidate = releases.first().map(|release| ReplicaSetKey {
        place: place.clone(),
        release: *release,
    });
    let mut changes = app.target.watch();
    let mut last = None;
    loop {
        changes.borrow_and_update();
        let crash_loop = candidate
            .as_ref()
            .and_then(|set| app.target.crash_loop(set));
        if let Some(why) = crash_loop {
            return RolloutInput::CrashLoop { why };
        }
        let (report, is_complete) = readiness(&app.target.instances(), place, releases);
        if !is_complete || last.as_ref() != Some(&report) {
            let input = RolloutInput::Readiness(report.clone());
            if work.report.send(input).await.is_err() {
                return RolloutInput::Woken;
            }
            last = Some(report);
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return RolloutInput::Woken,
            changed = changes.changed() => if changed.is_err() { return RolloutInput::Woken },
            () = tokio::time::sleep(REPORT_EVERY), if !is_complete => {}
        }
    }
}

/// Ready instances by release, and whether all instances are ready.
fn readiness(
    instances: &[InstanceStatus],
    place: &ServiceEnvironment,
    releases: &[ReleaseNumber],
) -> (Vec<SetReadiness>, bool) {
    let mut sets: BTreeMap<ReleaseNumber, SetReadiness> = BTreeMap::new();
    let mut is_complete = true;
    for status in instances {
        let set = &status.id.set;
        if set.place != *place || !releases.contains(&set.release) {
            continue;
        }
        let entry = sets.entry(set.release).or_insert_with(|| SetReadiness {
            release: set.release,
            ready: 0,
            problem: None,
        });
        match &status.phase {
            InstancePhase::Ready => entry.ready += 1,
            InstancePhase::Stopping => is_complete = false,
            InstancePhase::Starting { why }
            | InstancePhase::Unready { why }
            | InstancePhase::Backoff { why, .. } => {
                is_complete = false;
                let problem = || format!("instance {}: {why}", status.id.slot);
                entry.problem.get_or_insert_with(problem);
            }
        }
    }
    (sets.into_values().collect(), is_complete)
}

/// Waits until each release whose weight rises with `split` has the ready instances that it needs then. A rollback needs
/// one: traffic goes first, the other instances follow.
pub(super) async fn await_capacity(
    target: &dyn Target,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    place: &ServiceEnvironment,
    split: &TrafficSplit,
) -> Result<(), ReadinessError> {
    for (release, needed) in rollout.instances_needed_to_grow(split) {
        let set = ReplicaSetKey {
            place: place.clone(),
            release,
        };
        let (needed, within) = match rollout.direction {
            PlanDirection::Forward => (needed, rollout.unready_grace(1)),
            PlanDirection::Back => (1, rollout.spec.environment.progress_deadline),
        };
        await_ready(target, &set, needed, within, &work.cancelled).await?;
    }
    Ok(())
}

/// Waits until the release that is to be promoted has the ready instances that its traffic needs.
pub(super) async fn await_promotable(
    target: &dyn Target,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    set: &ReplicaSetKey,
) -> Result<(), ReadinessError> {
    if rollout.direction == PlanDirection::Back {
        return Ok(());
    }
    let needed = rollout.instances_needed(&rollout.observed.split, set.release);
    let within = rollout.unready_grace(1);
    await_ready(target, set, needed, within, &work.cancelled).await
}
