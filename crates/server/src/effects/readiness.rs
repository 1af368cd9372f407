//! Watches the instances of a rollout's releases.

use std::time::Duration;

use shipway_core::{
    ids::ReleaseNumber,
    rollout::{RolloutAggregate, RolloutInput, capacity::summarize_readiness},
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_engine::Work;
use shipway_targets::target_registry::TargetRegistry;

/// Between two reports while an instance is not ready: a grace period is noticed this late at most.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Reports the instances of `releases` at every change, and again and again while one is not ready; a crash loop of the
/// first of them ends it. Returns when cancelled.
pub(super) async fn watch(
    targets: &TargetRegistry,
    work: &Work<RolloutAggregate>,
    place: &ServiceEnvironment,
    releases: &[ReleaseNumber],
) -> RolloutInput {
    let candidate = releases.first().map(|release| ReplicaSetKey {
        place: place.clone(),
        release: *release,
    });
    let mut changes = targets.watch();
    let mut last = None;
    loop {
        changes.mark_seen();
        let crash_loop = candidate.as_ref().and_then(|set| targets.crash_loop(set));
        if let Some(why) = crash_loop {
            return RolloutInput::CrashLoop { why };
        }
        let (report, is_complete) = summarize_readiness(&targets.instances(), place, releases);
        if !is_complete || last.as_ref() != Some(&report) {
            let input = RolloutInput::Readiness(report.clone());
            if work.report.send(input).await.is_err() {
                return RolloutInput::TimerFired;
            }
            last = Some(report);
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return RolloutInput::TimerFired,
            changed = changes.changed() => if changed.is_err() { return RolloutInput::TimerFired },
            () = tokio::time::sleep(REPORT_EVERY), if !is_complete => {}
        }
    }
}
