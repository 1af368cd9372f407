//! Canaries that are reached by more than their share: by requests that match, by copies, and beside a baseline.

use super::*;
use crate::rollout::{
    canary_match::{MirrorScope, RequestMatch, TextMatch, TrafficMirror},
    strategy::compile,
};

fn step(percent: f64) -> CanaryStep {
    CanaryStep {
        weight: Weight::from_percent(percent).unwrap(),
        hold: Some(Duration::from_secs(60)),
        smoke: false,
        ask: false,
        scale: None,
    }
}

fn plan(canary: Canary) -> String {
    let spec = spec(Strategy::Canary(canary), 4, Some(3));
    let plan = compile(&spec.environment.strategy, &Rollout::brief(&spec));
    let lines = plan.actions.iter().map(ToString::to_string);
    lines
        .chain(plan.notes.iter().map(|note| format!("({note})")))
        .collect::<Vec<_>>()
        .join("\n")
}

fn beta() -> Vec<RequestMatch> {
    let mut wanted = RequestMatch::default();
    wanted
        .cookies
        .insert("beta".into(), TextMatch::Is("yes".into()));
    vec![wanted]
}

#[test]
fn who_matches_goes_to_the_canary_from_the_first_step_on() {
    let canary = Canary {
        steps: vec![step(0.0), step(50.0)],
        matches: beta(),
        ..Canary::default()
    };
    insta::assert_snapshot!(plan(canary.clone()), @r##"
    start 1 instance of #4, without traffic
    wait until 1 instance of #4 is ready
    shift traffic: 0% to #4, 100% to #3; cookie beta=yes to #4
    hold for 1 min and judge
    start 2 instances of #4, without traffic
    wait until 2 instances of #4 are ready
    shift traffic: 50% to #4, 50% to #3; cookie beta=yes to #4
    hold for 1 min and judge
    start 4 instances of #4, without traffic
    wait until 4 instances of #4 are ready
    shift traffic: 100% to #4
    #4 becomes the stable release
    drain #3, up to 30 s
    stop #3
    (50% for 1 min: judging needs 100 requests to the new release, that is 3.3 requests per second in total; with fewer the hold ends by time)
    "##);
    let mut stage = RolloutHarness::open(spec(Strategy::Canary(canary), 4, Some(3)));
    stage.carry();
    assert!(stage.rollout().served && stage.rollout().is_judged());
    let view = RolloutView::from(stage.rollout());
    assert!(view.reach.is_some() && view.split.reach.is_none());
    assert!(
        serde_json::to_value(&view).unwrap()["split"].is_array(),
        "as it always was"
    );
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "no".into(),
        })
        .unwrap();
    stage.carry();
    assert_eq!(
        stage.rollout().observed.split,
        TrafficSplit::all_to(ReleaseNumber(3))
    );
}

#[test]
fn copies_come_before_users_and_are_judged() {
    let canary = Canary {
        steps: vec![step(10.0)],
        mirror: Some(TrafficMirror {
            share: Weight::from_percent(10.0).unwrap(),
            methods: MirrorScope::Safe,
        }),
        ..Canary::default()
    };
    let text = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production:\n    strategy: { canary: { mirror: 10%, steps: [{ weight: 10%, hold: 60s }] } }\n";
    let (config, _) =
        config::parse(&shipway_syntax::SourceFile::new("shipway.yaml", text)).unwrap();
    let Strategy::Canary(read) = &config.environments[0].strategy else {
        panic!("a canary")
    };
    assert_eq!(read.mirror, canary.mirror);
    insta::assert_snapshot!(plan(read.clone()), @r##"
    start 1 instance of #4, without traffic
    wait until 1 instance of #4 is ready
    shift traffic: 0% to #4, 100% to #3; copies of 10% to #4
    hold for 1 min and judge
    shift traffic: 10% to #4, 90% to #3
    hold for 1 min and judge
    start 4 instances of #4, without traffic
    wait until 4 instances of #4 are ready
    shift traffic: 100% to #4
    #4 becomes the stable release
    drain #3, up to 30 s
    stop #3
    (mirror: GET, HEAD and OPTIONS without a body are copied; other requests are not)
    (10% for 1 min: judging needs 100 requests to the new release, that is 17 requests per second in total; with fewer the hold ends by time)
    "##);
    let mut stage = RolloutHarness::open(spec(Strategy::Canary(read.clone()), 4, Some(3)));
    stage.carry();
    assert!(
        !stage.rollout().served && stage.rollout().is_judged(),
        "users see nothing of it"
    );
    stage.measure(0, 0);
    stage.pass_time(5);
    stage.measure(1_000, 60);
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    stage.carry();
    assert!(!stage.rollout().served);
}

#[test]
fn a_baseline_has_the_canarys_instances_and_share_and_goes_with_it() {
    let canary = Canary {
        steps: vec![step(10.0), step(50.0)],
        baseline: true,
        ..Canary::default()
    };
    insta::assert_snapshot!(plan(canary.clone()), @r##"
    start 1 instance of #4, without traffic
    wait until 1 instance of #4 is ready
    start 1 instance of #3 baseline, without traffic
    wait until 1 instance of #3 baseline is ready
    shift traffic: 10% to #4, 80% to #3, 10% to #3 baseline
    hold for 1 min and judge
    start 2 instances of #4, without traffic
    wait until 2 instances of #4 are ready
    start 2 instances of #3 baseline, without traffic
    wait until 2 instances of #3 baseline are ready
    shift traffic: 50% to #4, 0% to #3, 50% to #3 baseline
    hold for 1 min and judge
    start 4 instances of #4, without traffic
    wait until 4 instances of #4 are ready
    shift traffic: 100% to #4
    #4 becomes the stable release
    drain #3 baseline, up to 30 s
    stop #3 baseline
    drain #3, up to 30 s
    stop #3
    (baseline: new instances of #3, as many as the canary has, get the same share of the traffic for the comparison)
    (10% for 1 min: judging needs 100 requests to the new release, that is 17 requests per second in total; with fewer the hold ends by time)
    (50% for 1 min: judging needs 100 requests to the new release, that is 3.3 requests per second in total; with fewer the hold ends by time)
    "##);
    let mut stage = RolloutHarness::open(spec(Strategy::Canary(canary.clone()), 4, Some(3)));
    stage.carry();
    let baseline = ReleaseNumber(3).baseline();
    assert_eq!(stage.rollout().compared_with(), Some(baseline.into()));
    let effects = RolloutAggregate::pending(&stage.state, stage.now).effects;
    let compares = |effect: &RolloutEffect| matches!(effect, RolloutEffect::Measure { stable, .. } if *stable == Some(baseline.into()));
    assert!(effects.iter().any(|(_, effect)| compares(effect)));
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "no".into(),
        })
        .unwrap();
    stage.carry();
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(3), 4)].into()
    );
    // And on the way forward.
    let mut stage = RolloutHarness::open(spec(Strategy::Canary(canary), 4, Some(3)));
    stage.carry();
    stage.good_hold();
    stage.carry();
    stage.good_hold();
    stage.carry();
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Promoted,
        "{:#?}",
        stage.story
    );
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(4), 4)].into()
    );
}

#[test]
fn a_baseline_that_a_crash_left_is_taken_down_by_the_next_rollout() {
    let mut wanted = spec(canary(), 4, Some(3));
    let baseline = ReleaseNumber(3).baseline();
    wanted.observed.counts.insert(baseline, 1);
    let plan = compile(&wanted.environment.strategy, &Rollout::brief(&wanted));
    let stops = |action: &PlanAction| matches!(action, PlanAction::Stop { release, keep: 0 } if *release == baseline);
    assert!(plan.actions.iter().any(stops), "{plan:?}");
}
