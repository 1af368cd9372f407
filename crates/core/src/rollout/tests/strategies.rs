//! What is particular to a strategy.

use super::*;

#[test]
fn blue_green_promotes_at_the_switch_and_goes_back_by_one_shift_while_kept() {
    let mut stage = Stage::open(spec(
        Strategy::BlueGreen(BlueGreen {
            keep: Duration::from_secs(3_600),
        }),
        2,
        Some(3),
    ));
    stage.carry();
    assert_eq!(stage.rollout().status(), Status::KeptWarm);
    stage.pass_time(10);
    stage
        .say(Input::Abort {
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
        "wait until 2 instances of #3 are ready",
        "shift traffic: 100 % to #3",
        "#3 becomes the stable release",
        "drain #4, up to 30 s",
        "stop #4",
    ]
    "##);
}

#[test]
fn a_set_is_kept_warm_as_long_as_it_says_and_no_longer() {
    let keep = Duration::from_secs(90);
    let strategy = Strategy::BlueGreen(BlueGreen { keep });
    let mut stage = Stage::open(spec(strategy, 2, Some(3)));
    stage.carry();
    stage.pass_time(89);
    assert_eq!(stage.rollout().status(), Status::KeptWarm);
    stage.pass_time(1);
    stage.carry();
    assert_eq!(stage.rollout().status(), Status::Promoted);
}

#[test]
fn rolling_never_has_fewer_than_wanted_nor_more_than_surge() {
    let params = Rolling {
        max_surge: Count::Number(1),
        max_unavailable: Count::Number(0),
    };
    let mut stage = Stage::open(spec(Strategy::Rolling(params), 3, Some(3)));
    while let Some((plan, index)) = stage.carried() {
        stage
            .say(Input::Done {
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
    assert_eq!(stage.rollout().status(), Status::Promoted);
    assert_eq!(
        stage.rollout().observed.counts,
        [(ReleaseNumber(4), 3)].into()
    );
}
