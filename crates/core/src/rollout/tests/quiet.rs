//! Services with little traffic: the time ends a hold when nothing speaks against the release, and says how little was seen.

use shipway_analysis::AnalysisRule;

use super::*;

fn required() -> RolloutSpec {
    let mut wanted = spec(canary(), 3, Some(3));
    let rules = wanted.environment.analysis.rules().to_vec();
    let rules: Vec<AnalysisRule> = rules.into_iter().map(AnalysisRule::into_required).collect();
    wanted.environment.analysis = Analysis::new(rules);
    wanted
}

#[test]
fn too_little_traffic_ends_a_hold_by_time_and_the_note_says_how_little_it_was() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.carry();
    stage.measure(0, 0);
    stage.pass_time(30);
    stage.measure(12, 0);
    let view = RolloutView::from(stage.rollout());
    assert_eq!(view.hold_deadline, None, "it isn't extended");
    stage.pass_time(30);
    stage.carry();
    assert_eq!(
        stage.rollout().observed.split.to_string(),
        "50% to #4, 50% to #3"
    );
    let notes = &stage.rollout().notes;
    let said = "hold for 1 min and judge: no data: too little traffic to judge the error rate of #4: 12 of the 100 requests needed";
    assert!(notes.iter().any(|note| note.text == said), "{notes:#?}");
}

#[test]
fn a_required_rule_pauses_a_rollout_that_has_too_little_traffic() {
    let mut stage = RolloutHarness::open(required());
    stage.carry();
    stage.measure(0, 0);
    stage.pass_time(30);
    stage.measure(12, 0);
    stage.pass_time(30);
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage.pass_time(60);
    assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
}

#[test]
fn a_rollout_that_is_ordered_again_keeps_the_limits_it_was_opened_with() {
    let traffic = |requests| StableTraffic {
        requests,
        counted_for: Duration::from_secs(3_600),
        p99_micros: Some(263_000),
    };
    let ordered = spec(canary(), 3, Some(3));
    let mut stage = RolloutHarness::open(ordered.clone().with_stable_traffic(traffic(72_000)));
    let again = ordered.with_stable_traffic(traffic(72_500));
    assert_eq!(stage.say(RolloutInput::Open(Box::new(again))), Ok(0));
    let kept = stage.rollout().spec.stable_traffic;
    assert_eq!(kept, Some(traffic(72_000)));
}

#[test]
fn a_plan_says_how_much_traffic_each_hold_needs_and_can_expect() {
    let traffic = StableTraffic {
        requests: 720,
        counted_for: Duration::from_secs(3_600),
        p99_micros: Some(263_000),
    };
    let mut wanted = spec(canary(), 3, Some(3));
    let slow = ThresholdLimit::new(Metric::SLOW_RATE_AUTO, MetricBound::Max(0.05)).unwrap();
    wanted.environment.analysis = Analysis::new(vec![slow]);
    let known = RolloutHarness::open(wanted.clone().with_stable_traffic(traffic));
    insta::assert_debug_snapshot!(known.rollout().plan.notes, @r#"
    [
        "10% for 1 min: judging needs 100 requests to the new release, about 1 are expected (stable had 720 in the last 1 h): too few to judge, the hold ends by time",
        "50% for 1 min: judging needs 100 requests to the new release, about 6 are expected (stable had 720 in the last 1 h): too few to judge, the hold ends by time",
        "slow-rate: responses over 270 ms count as slow; 99% of stable's 720 responses of the last 1 h took 263 ms or less",
    ]
    "#);
    let rules = known.rollout().spec.environment.analysis.rules();
    let limited = Metric::SlowRate {
        over_micros: 270_000,
    };
    assert_eq!(rules[0].metric(), limited);
    let unknown = RolloutHarness::open(wanted);
    insta::assert_debug_snapshot!(unknown.rollout().plan.notes, @r#"
    [
        "10% for 1 min: judging needs 100 requests to the new release, that is 17 requests per second in total; with fewer the hold ends by time",
        "50% for 1 min: judging needs 100 requests to the new release, that is 3.3 requests per second in total; with fewer the hold ends by time",
    ]
    "#);
}
