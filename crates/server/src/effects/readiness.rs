//! Watches the instances of a rollout's releases, and checks them before a weight rises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shipway_core::{
    ids::ReleaseNumber,
    rollout::{Direction, Input, Rollout, Rollouts, capacity::SetReadiness, plan::Split},
    target::{InstanceStatus, Phase, Place, SetKey},
};
use shipway_drivers::target::{ReadinessError, Target, await_ready};
use shipway_engine::Work;

use crate::app::App;

/// Between two reports while an instance is not ready: a grace period is noticed this late at most.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Reports the instances of `releases` at every change, and again and again while one is not ready; a crash loop of the
/// first of them ends it. Returns when cancelled.
pub(super) async fn watch(
    app: &Arc<App>,
    work: &Work<Rollouts>,
    place: &Place,
    releases: &[ReleaseNumber],
) -> Input {
    let candidate = releases.first().map(|release| SetKey {
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
            return Input::CrashLoop { why };
        }
        let (report, is_complete) = readiness(&app.target.instances(), place, releases);
        if !is_complete || last.as_ref() != Some(&report) {
            let input = Input::Readiness(report.clone());
            if work.report.send(input).await.is_err() {
                return Input::Woken;
            }
            last = Some(report);
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return Input::Woken,
            changed = changes.changed() => if changed.is_err() { return Input::Woken },
            () = tokio::time::sleep(REPORT_EVERY), if !is_complete => {}
        }
    }
}

/// Ready instances by release, and whether all instances are ready.
fn readiness(
    instances: &[InstanceStatus],
    place: &Place,
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
            Phase::Ready => entry.ready += 1,
            Phase::Stopping => is_complete = false,
            Phase::Starting { why } | Phase::Unready { why } | Phase::Backoff { why, .. } => {
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
    work: &Work<Rollouts>,
    rollout: &Rollout,
    place: &Place,
    split: &Split,
) -> Result<(), ReadinessError> {
    for (release, needed) in rollout.instances_needed_to_grow(split) {
        let set = SetKey {
            place: place.clone(),
            release,
        };
        let (needed, within) = match rollout.direction {
            Direction::Forward => (needed, rollout.unready_grace(1)),
            Direction::Back => (1, rollout.spec.environment.progress_deadline),
        };
        await_ready(target, &set, needed, within, &work.cancelled).await?;
    }
    Ok(())
}

/// Waits until the release that is to be promoted has the ready instances that its traffic needs.
pub(super) async fn await_promotable(
    target: &dyn Target,
    work: &Work<Rollouts>,
    rollout: &Rollout,
    set: &SetKey,
) -> Result<(), ReadinessError> {
    if rollout.direction == Direction::Back {
        return Ok(());
    }
    let needed = rollout.instances_needed(&rollout.observed.split, set.release);
    let within = rollout.unready_grace(1);
    await_ready(target, set, needed, within, &work.cancelled).await
}
