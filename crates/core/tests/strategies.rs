//! All strategies from their opening to their end, on a target and a router in memory and on simulated time: the plan is decided by the
//! core and carried out by the executor that the server uses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod strategy_stage;

use std::{collections::BTreeSet, time::Duration};

use shipway_core::{
    config::{ArtifactSource, ServiceConfig},
    ids::ReleaseNumber,
    rollout::{RolloutOutcome, plan::TrafficSplit},
    target::{InstanceId, RouterKind, TargetKind, WorkloadCommand, WorkloadProgram},
};
use shipway_targets::{memory::ReleaseFault, target::Target as _};
use strategy_stage::{CANDIDATE, STABLE, StrategyStage};

const RECREATE: &str = "strategy: recreate";
const ROLLING: &str = "strategy: { rolling: { max_surge: 1, max_unavailable: 0 } }";
const BLUE_GREEN: &str =
    "strategy: { blue-green: { keep: 10m } }, smoke: [{ name: home, exec: ./smoke }]";
/// As in [`BLUE_GREEN`].
const KEEP: Duration = Duration::from_secs(600);
const CANARY: &str =
    "strategy: { canary: { steps: [{ weight: 10%, hold: 30s }, { weight: 50%, hold: 30s }] } }";

fn slots(release: ReleaseNumber, slots: &[u32]) -> BTreeSet<InstanceId> {
    let id = |slot: &u32| strategy_stage::instance(release, *slot);
    slots.iter().map(id).collect()
}

/// The release serves everything with both instances, stable is gone, and no request failed.
fn assert_promoted(stage: &StrategyStage) {
    assert_eq!(
        stage.outcome(),
        RolloutOutcome::Promoted,
        "{:#?}",
        stage.story()
    );
    assert_eq!(stage.split(), TrafficSplit::all_to(CANDIDATE));
    assert_eq!(stage.instances(), slots(CANDIDATE, &[1, 2]));
    assert_eq!(stage.failed_requests(), 0);
    stage.assert_safe_order();
}

/// Stable serves everything with both instances, and the release is gone.
fn assert_back_at_stable(stage: &StrategyStage) {
    assert_eq!(
        stage.outcome(),
        RolloutOutcome::RolledBack,
        "{:#?}",
        stage.story()
    );
    assert_eq!(stage.split(), TrafficSplit::all_to(STABLE));
    assert_eq!(stage.instances(), slots(STABLE, &[1, 2]));
    stage.assert_safe_order();
}

#[tokio::test(start_paused = true)]
async fn recreate_stops_the_old_release_before_the_new_one_starts() {
    let mut stage = StrategyStage::open(RECREATE).await;
    stage.run_to_end().await;
    assert_promoted(&stage);
    assert_eq!(
        stage.story(),
        [
            "routed nothing",
            "drained #3 down to 0",
            "stopped #3.1",
            "stopped #3.2",
            "started #4.1",
            "started #4.2",
            "ready #4.1",
            "ready #4.2",
            "routed 100% to #4 (1 2)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn rolling_replaces_one_instance_after_the_other() {
    let mut stage = StrategyStage::open(ROLLING).await;
    stage.run_to_end().await;
    assert_promoted(&stage);
    assert_eq!(
        stage.story(),
        [
            "started #4.1",
            "ready #4.1",
            "routed 50% to #4 (1), 50% to #3 (1 2)",
            "routed 50% to #4 (1), 50% to #3 (1)",
            "drained #3 down to 1",
            "stopped #3.2",
            "started #4.2",
            "ready #4.2",
            "routed 100% to #4 (1 2)",
            "drained #3 down to 0",
            "stopped #3.1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn blue_green_switches_at_once_and_keeps_the_old_release_warm() {
    let mut stage = StrategyStage::open(BLUE_GREEN).await;
    stage.run_to_end().await;
    assert_promoted(&stage);
    assert_eq!(
        stage.story(),
        [
            "started #4.1",
            "started #4.2",
            "ready #4.1",
            "ready #4.2",
            "routed 100% to #4 (1 2)",
            "drained #3 down to 0",
            "stopped #3.1",
            "stopped #3.2",
        ]
    );
    assert!(stage.elapsed() >= KEEP, "stable was kept warm");
}

#[tokio::test(start_paused = true)]
async fn a_canary_grows_by_its_steps() {
    let mut stage = StrategyStage::open(CANARY).await;
    stage.run_to_end().await;
    assert_promoted(&stage);
    assert_eq!(
        stage.story(),
        [
            "started #4.1",
            "ready #4.1",
            "routed 10% to #4 (1), 90% to #3 (1 2)",
            "routed 50% to #4 (1), 50% to #3 (1 2)",
            "started #4.2",
            "ready #4.2",
            "routed 100% to #4 (1 2)",
            "drained #3 down to 0",
            "stopped #3.1",
            "stopped #3.2",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn recreate_starts_the_old_release_again_when_the_new_one_crashes() {
    let mut stage = StrategyStage::open(RECREATE).await;
    let crash = ReleaseFault::Crashes("exit code 1".to_owned());
    stage.target.add_fault(CANDIDATE, crash);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    assert!(stage.why().contains("exit code 1"), "{}", stage.why());
}

#[tokio::test(start_paused = true)]
async fn recreate_leaves_the_old_release_when_the_new_one_can_not_be_prepared() {
    let mut stage = StrategyStage::open(RECREATE).await;
    let fault = ReleaseFault::DamagedArtifact("its digest differs".to_owned());
    stage.target.add_fault(CANDIDATE, fault);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    assert_eq!(stage.failed_requests(), 0);
    assert!(
        stage.why().contains("its digest differs"),
        "{}",
        stage.why()
    );
}

#[tokio::test(start_paused = true)]
async fn rolling_leaves_the_old_release_when_the_new_one_is_never_ready() {
    let mut stage = StrategyStage::open(ROLLING).await;
    stage.target.add_fault(CANDIDATE, ReleaseFault::NeverReady);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    assert_eq!(stage.failed_requests(), 0);
    assert!(stage.most_traffic_of(CANDIDATE).is_zero());
}

#[tokio::test(start_paused = true)]
async fn blue_green_never_switches_when_smoke_tests_fail() {
    let mut stage = StrategyStage::open(BLUE_GREEN).await;
    let fault = ReleaseFault::CommandsFail("the home page is empty".to_owned());
    stage.target.add_fault(CANDIDATE, fault);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    assert_eq!(stage.failed_requests(), 0);
    assert!(stage.most_traffic_of(CANDIDATE).is_zero());
    let why = stage.why();
    assert!(why.contains("the home page is empty"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_canary_whose_requests_fail_goes_back_before_its_second_step() {
    let mut stage = StrategyStage::open(CANARY).await;
    stage.router.add_fault(CANDIDATE);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    assert_eq!(stage.most_traffic_of(CANDIDATE).percent(), 10.0);
    assert!(stage.failed_requests() > 0);
}

const SECOND_PAIR: &str = "target: docker, router: istio";

/// Instances that a target runs, and the split of a router.
fn found_at(
    stage: &StrategyStage,
    target: TargetKind,
    router: RouterKind,
) -> (usize, TrafficSplit) {
    let instances = stage.all_targets[&target].instances();
    let split = stage.all_routers[&router].split(&strategy_stage::production());
    (instances.len(), split)
}

#[tokio::test(start_paused = true)]
async fn an_environment_goes_to_the_target_and_the_router_that_it_names() {
    for strategy in [RECREATE, ROLLING, BLUE_GREEN, CANARY] {
        let unused = (0, TrafficSplit::default());
        let used = (2, TrafficSplit::all_to(CANDIDATE));
        let mut stage = StrategyStage::open(strategy).await;
        stage.run_to_end().await;
        assert_promoted(&stage);
        let process = found_at(&stage, TargetKind::Process, RouterKind::Proxy);
        let docker = found_at(&stage, TargetKind::Docker, RouterKind::Istio);
        assert_eq!((&process, &docker), (&used, &unused), "{strategy}");

        let mut stage = StrategyStage::open(&format!("{SECOND_PAIR}, {strategy}")).await;
        stage.run_to_end().await;
        assert_promoted(&stage);
        let process = found_at(&stage, TargetKind::Process, RouterKind::Proxy);
        let docker = found_at(&stage, TargetKind::Docker, RouterKind::Istio);
        assert_eq!((&process, &docker), (&unused, &used), "{strategy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_names_another_target_and_router_takes_the_traffic_there() {
    for strategy in [RECREATE, ROLLING, BLUE_GREEN, CANARY] {
        let environment = format!("{SECOND_PAIR}, {strategy}");
        let mut stage = StrategyStage::open_over(strategy, &environment).await;
        stage.run_to_end().await;
        assert_promoted(&stage);
        let process = found_at(&stage, TargetKind::Process, RouterKind::Proxy);
        let docker = found_at(&stage, TargetKind::Docker, RouterKind::Istio);
        assert_eq!(process, (0, TrafficSplit::default()), "{strategy}");
        assert_eq!(docker, (2, TrafficSplit::all_to(CANDIDATE)), "{strategy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_the_traffic_back_to_stables_own_target_and_router() {
    let environment = format!("{SECOND_PAIR}, {CANARY}");
    let mut stage = StrategyStage::open_over(CANARY, &environment).await;
    stage.router.add_fault(CANDIDATE);
    stage.run_to_end().await;
    assert_back_at_stable(&stage);
    let process = found_at(&stage, TargetKind::Process, RouterKind::Proxy);
    let docker = found_at(&stage, TargetKind::Docker, RouterKind::Istio);
    assert_eq!(process, (2, TrafficSplit::all_to(STABLE)));
    assert_eq!(docker, (0, TrafficSplit::default()));
}

#[test]
fn a_release_of_an_image_runs_the_image_by_its_digest() {
    let mut config = strategy_stage::config(RECREATE);
    let program = |config: &ServiceConfig| {
        let release = strategy_stage::release(config, CANDIDATE);
        (
            release.workload(&config.environments[0]).program,
            release.artifact,
        )
    };
    let (from_run, artifact) = program(&config);
    let command = "./shop".to_owned();
    assert_eq!(
        from_run,
        WorkloadProgram::Command(WorkloadCommand { artifact, command })
    );
    config.artifact = ArtifactSource::Image {
        name: "registry.example.com/shop".to_owned(),
    };
    let (from_image, digest) = program(&config);
    let reference = format!("registry.example.com/shop@{digest}");
    assert_eq!(from_image.to_string(), reference);
    let WorkloadProgram::Image { command, .. } = from_image else {
        panic!("{from_image:?}")
    };
    assert_eq!(command.as_deref(), Some("./shop"));
}
