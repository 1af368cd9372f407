//! What is particular to a strategy.

use super::*;

#[test]
fn blue_green_promotes_at_the_switch_and_goes_back_by_one_shift_while_kept() {
    let mut stage = RolloutHarness::open(spec(
        Strategy::BlueGreen(BlueGreen {
            keep: Duration::from_secs(3_600),
            ..BlueGreen::default()
        }),
        2,
        Some(3),
    ));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    stage.pass_time(10);
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "customers call".into(),
        })
        .unwrap();
    let plan: Vec<_> = stage
        .rollout()
        .plan
        .actions
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_debug_snapshot!(plan, @r##"
    [
        "start 2 instances of #3, without traffic",
        "wait until 1 instance of #3 is ready",
        "shift traffic: 100% to #3",
        "wait until 2 instances of #3 are ready",
        "#3 becomes the stable release",
        "drain #4, up to 30 s",
        "stop #4",
    ]
    "##);
}

#[test]
fn without_an_analysis_no_plan_claims_to_judge() {
    let mut wanted = spec(canary(), 2, Some(3));
    wanted.environment.analysis = Analysis::default();
    let stage = RolloutHarness::open(wanted);
    let plan = &stage.rollout().plan;
    let holds: Vec<String> = (plan.actions.iter())
        .filter(|it| matches!(it, PlanAction::Hold { .. }))
        .map(ToString::to_string)
        .collect();
    assert!(!holds.is_empty());
    assert!(
        holds.iter().all(|hold| hold == "hold for 1 min"),
        "{holds:?}"
    );
    assert!(plan.notes.iter().any(|it| it.contains("nothing is judged")));
}

#[test]
fn a_set_is_kept_warm_as_long_as_it_says_and_no_longer() {
    let keep = Duration::from_secs(90);
    let strategy = Strategy::BlueGreen(BlueGreen {
        keep,
        ..BlueGreen::default()
    });
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    stage.pass_time(89);
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    stage.pass_time(1);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
}

#[test]
fn rolling_never_has_fewer_than_wanted_nor_more_than_surge() {
    let params = Rolling {
        max_surge: InstanceCount::Number(1),
        max_unavailable: InstanceCount::Number(0),
        ..Rolling::default()
    };
    let mut stage = RolloutHarness::open(spec(Strategy::Rolling(params), 3, Some(3)));
    while let Some((plan, index)) = stage.carried() {
        stage
            .say(RolloutInput::Done {
                plan,
                index,
                note: None,
                smoke: None,
            })
            .unwrap();
        let total: u32 = stage.rollout().observed.counts.values().sum();
        assert!(
            (3..=4).contains(&total),
            "{total} at {:?}",
            stage.rollout().action()
        );
    }
    assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(4), 3)].into()
    );
}

/// What the way back does, when it is asked for while action `index` is under way.
fn way_back_from(strategy: Strategy, index: usize) -> Vec<String> {
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    while stage.rollout().cursor < index {
        let (plan, index) = stage.carried().unwrap();
        let (note, smoke) = (None, None);
        let done = RolloutInput::Done {
            plan,
            index,
            note,
            smoke,
        };
        stage.say(done).unwrap();
    }
    let before = stage.rollout().action().unwrap().to_string();
    let reason = "customers call".into();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason,
        })
        .unwrap();
    let actions = stage.rollout().plan.actions.iter();
    std::iter::once(format!("during: {before}"))
        .chain(actions.map(ToString::to_string))
        .collect()
}

#[test]
fn what_was_being_taken_down_is_brought_up_again_before_it_gets_traffic() {
    let prepared = way_back_from(Strategy::Recreate(Recreate {}), 0);
    insta::assert_debug_snapshot!(prepared, @r##"
    [
        "during: prepare #4",
        "shift traffic: 100% to #3",
        "drain #4, up to 30 s",
        "stop #4",
    ]
    "##);
    let recreate = way_back_from(Strategy::Recreate(Recreate {}), 1);
    insta::assert_debug_snapshot!(recreate, @r##"
    [
        "during: drain #3, up to 30 s",
        "start 2 instances of #3, without traffic",
        "wait until 2 instances of #3 are ready",
        "shift traffic: 100% to #3",
        "drain #4, up to 30 s",
        "stop #4",
    ]
    "##);
    let rolling = way_back_from(Strategy::Rolling(Rolling::default()), 4);
    insta::assert_debug_snapshot!(rolling, @r##"
    [
        "during: stop #3 down to 1 instance",
        "start 2 instances of #3, without traffic",
        "wait until 2 instances of #3 are ready",
        "shift traffic: 100% to #3",
        "drain #4, up to 30 s",
        "stop #4",
    ]
    "##);
}

/// The log keeps its form: a release is written as before there were other subjects.
#[test]
fn a_rollout_of_a_release_is_written_with_its_release_alone() {
    let spec = spec(Strategy::default(), 2, Some(3));
    let written = serde_json::to_value(&spec).unwrap();
    assert_eq!(written["release"]["number"], 4);
    assert_eq!(written["stable"]["release"]["number"], 3);
    assert!(written.get("subject").is_none());
    let read: RolloutSpec = serde_json::from_value(written).unwrap();
    assert_eq!(read, spec);
    assert_eq!(read.subject.candidate(), ReleaseNumber(4).into());
    assert_eq!(read.subject.stable(), Some(ReleaseNumber(3).into()));

    let first = self::spec(Strategy::default(), 2, None);
    let mut written = serde_json::to_value(&first).unwrap();
    assert!(written["stable"].is_null());
    written.as_object_mut().unwrap().remove("stable");
    let read: RolloutSpec = serde_json::from_value(written).unwrap();
    assert_eq!(read, first);
}

#[test]
fn promotions_and_splits_are_written_with_numbers_of_releases() {
    let promote = PlanAction::promote(ReleaseNumber(4));
    let written = serde_json::json!({ "do": "promote", "release": 4 });
    assert_eq!(serde_json::to_value(&promote).unwrap(), written);
    let read: PlanAction = serde_json::from_value(written).unwrap();
    assert_eq!(read, promote);

    let tenth: Weight = "10%".parse().unwrap();
    let split = TrafficSplit::between(ReleaseNumber(4), tenth, ReleaseNumber(3));
    let shift = PlanAction::Shift {
        split: split.clone(),
    };
    let written = serde_json::json!({ "do": "shift", "split": [[4, tenth], [3, tenth.rest()]] });
    assert_eq!(serde_json::to_value(&shift).unwrap(), written);
    let read: PlanAction = serde_json::from_value(written).unwrap();
    assert_eq!(read, shift);
    // A variant can also be named in full, as a variant of a flag will be.
    let named = serde_json::json!([[{ "release": 4 }, tenth], [3, tenth.rest()]]);
    let read: TrafficSplit = serde_json::from_value(named).unwrap();
    assert_eq!(read, split);
}
