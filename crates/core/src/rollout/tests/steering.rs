//! Every command in every state: what it does, that doing it twice is as doing it once, and that what is refused says why.

use super::*;

/// Rollouts in every state that people can meet, by name.
fn stages() -> Vec<(&'static str, RolloutHarness)> {
    let gated = || {
        let mut wanted = spec(canary(), 3, Some(3));
        wanted.environment.approvals = Some(ApprovalRule::anyone().into());
        RolloutHarness::open(wanted)
    };
    let holding = || {
        let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
        stage.carry();
        stage
    };
    let mut paused = holding();
    let reason = "lunch".to_owned();
    paused.say(RolloutInput::Pause { reason }).unwrap();
    let keep = Duration::from_secs(600);
    let mut warm = RolloutHarness::open(spec(
        Strategy::BlueGreen(BlueGreen {
            keep,
            ..BlueGreen::default()
        }),
        2,
        Some(3),
    ));
    warm.carry();
    let mut tied = spec(canary(), 3, Some(3));
    tied.peers = vec!["cart".parse().unwrap()];
    let mut decide_barrier = RolloutHarness::open(tied);
    while !matches!(
        decide_barrier.rollout().action(),
        Some(PlanAction::Barrier { .. })
    ) {
        match decide_barrier.carried() {
            Some((plan, index)) => drop(decide_barrier.say(done(plan, index))),
            None => decide_barrier.good_hold(),
        }
    }
    let mut back = holding();
    let reason = "no".to_owned();
    back.say(RolloutInput::Abort {
        cause: AbortCause::Person,
        reason,
    })
    .unwrap();
    let mut rolled_back = holding();
    let reason = "no".to_owned();
    rolled_back
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason,
        })
        .unwrap();
    rolled_back.carry();
    let mut promoted =
        RolloutHarness::open(spec(Strategy::Rolling(Rolling::default()), 1, Some(3)));
    promoted.carry();
    let mut failed = holding();
    let reason = "no".to_owned();
    failed
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason,
        })
        .unwrap();
    let (plan, index) = failed.carried().unwrap();
    let why = "the proxy is gone".to_owned();
    let smoke = None;
    failed
        .say(RolloutInput::Failed {
            plan,
            index,
            why,
            smoke,
        })
        .unwrap();
    vec![
        ("waiting", gated()),
        ("moving", RolloutHarness::open(spec(canary(), 3, Some(3)))),
        ("holding", holding()),
        ("paused", paused),
        ("kept warm", warm),
        ("meeting", decide_barrier),
        ("rollback", back),
        ("promoted", promoted),
        ("rolled back", rolled_back),
        ("retrying", failed),
    ]
}

fn done(plan: u32, index: usize) -> RolloutInput {
    RolloutInput::Done {
        plan,
        index,
        note: None,
        smoke: None,
    }
}

fn commands() -> Vec<(&'static str, RolloutInput)> {
    let reason = || "asked".to_owned();
    let groups = Vec::new();
    let comment = None;
    vec![
        (
            "approve",
            RolloutInput::Approve {
                groups,
                seen: SeenSubject::Unspecified,
                comment,
            },
        ),
        (
            "reject",
            RolloutInput::Reject {
                groups: Vec::new(),
                seen: SeenSubject::Unspecified,
                reason: reason(),
            },
        ),
        ("pause", RolloutInput::Pause { reason: reason() }),
        ("resume", RolloutInput::Resume),
        ("promote", RolloutInput::Promote { reason: reason() }),
        (
            "abort",
            RolloutInput::Abort {
                cause: AbortCause::Person,
                reason: reason(),
            },
        ),
    ]
}

#[test]
fn every_command_in_every_state_is_done_once_or_refused_with_the_state() {
    let mut table = Vec::new();
    for (name, stage) in stages() {
        for (command, input) in commands() {
            let mut stage = RolloutHarness {
                state: stage.state.clone(),
                now: stage.now,
                story: Vec::new(),
                log: Vec::new(),
                has_live_approval: false,
            };
            let first = stage.say(input.clone());
            let told = match &first {
                Ok(0) => "nothing changes".to_owned(),
                Ok(_) => format!("{:?}", stage.rollout().status()),
                Err(refused) => format!("refused: {refused}"),
            };
            let before = stage.state.clone();
            let again = stage.say(input);
            let unchanged = serde_json::to_string(&before).unwrap()
                == serde_json::to_string(&stage.state).unwrap();
            let once = match (&first, &again) {
                (Ok(_), Ok(events)) => *events == 0 && unchanged,
                // What was done is over now: whoever comes second hears so.
                (_, Err(_)) => unchanged,
                (Err(_), Ok(_)) => false,
            };
            assert!(once, "{name}: {command} twice: {first:?}, {again:?}");
            table.push(format!("{name:11} {command:8} {told}"));
        }
    }
    insta::assert_snapshot!(table.join("\n"), @r##"
    waiting     approve  Moving
    waiting     reject   Rejected
    waiting     pause    Paused
    waiting     resume   nothing changes
    waiting     promote  Waiting
    waiting     abort    Aborted
    moving      approve  refused: shop/ro7 is not waiting for an approval: it is at "start 1 instance of #4, without traffic"
    moving      reject   refused: shop/ro7 is not waiting for an approval: it is at "start 1 instance of #4, without traffic"
    moving      pause    Paused
    moving      resume   nothing changes
    moving      promote  Moving
    moving      abort    RollingBack
    holding     approve  refused: shop/ro7 is not waiting for an approval: it is at "hold for 1 min and judge"
    holding     reject   refused: shop/ro7 is not waiting for an approval: it is at "hold for 1 min and judge"
    holding     pause    Paused
    holding     resume   nothing changes
    holding     promote  Moving
    holding     abort    RollingBack
    paused      approve  refused: shop/ro7 is not waiting for an approval: it is at "hold for 1 min and judge"
    paused      reject   refused: shop/ro7 is not waiting for an approval: it is at "hold for 1 min and judge"
    paused      pause    nothing changes
    paused      resume   Holding
    paused      promote  Moving
    paused      abort    RollingBack
    kept warm   approve  refused: shop/ro7 is not waiting for an approval: it is at "keep the previous instances warm for 10 min"
    kept warm   reject   refused: shop/ro7 is not waiting for an approval: it is at "keep the previous instances warm for 10 min"
    kept warm   pause    Paused
    kept warm   resume   nothing changes
    kept warm   promote  nothing changes
    kept warm   abort    RollingBack
    meeting     approve  refused: shop/ro7 is not waiting for an approval: it is at "wait for the rollouts of cart"
    meeting     reject   refused: shop/ro7 is not waiting for an approval: it is at "wait for the rollouts of cart"
    meeting     pause    Paused
    meeting     resume   nothing changes
    meeting     promote  Moving
    meeting     abort    RollingBack
    rollback    approve  refused: shop/ro7 is not waiting for an approval: it is at "shift traffic: 100% to #3"
    rollback    reject   refused: shop/ro7 is not waiting for an approval: it is at "shift traffic: 100% to #3"
    rollback    pause    refused: shop/ro7 is rolling back to stable (by ada: no): pausing is no longer possible
    rollback    resume   refused: shop/ro7 is rolling back to stable (by ada: no): resuming is no longer possible
    rollback    promote  refused: shop/ro7 is rolling back to stable (by ada: no): promoting is no longer possible
    rollback    abort    nothing changes
    promoted    approve  refused: shop/ro7 has already finished (#4 serves all traffic): approving or rejecting it is no longer possible
    promoted    reject   refused: shop/ro7 has already finished (#4 serves all traffic): approving or rejecting it is no longer possible
    promoted    pause    refused: shop/ro7 has already finished (#4 serves all traffic): pausing is no longer possible
    promoted    resume   refused: shop/ro7 has already finished (#4 serves all traffic): resuming is no longer possible
    promoted    promote  refused: shop/ro7 has already finished (#4 serves all traffic): promoting is no longer possible
    promoted    abort    refused: shop/ro7 has already finished (#4 serves all traffic): aborting is no longer possible; to roll back: shipway rollback shop --env production
    rolled back approve  refused: shop/ro7 has already finished (by ada: no; #3 serves all traffic): approving or rejecting it is no longer possible
    rolled back reject   refused: shop/ro7 has already finished (by ada: no; #3 serves all traffic): approving or rejecting it is no longer possible
    rolled back pause    refused: shop/ro7 has already finished (by ada: no; #3 serves all traffic): pausing is no longer possible
    rolled back resume   refused: shop/ro7 has already finished (by ada: no; #3 serves all traffic): resuming is no longer possible
    rolled back promote  refused: shop/ro7 has already finished (by ada: no; #3 serves all traffic): promoting is no longer possible
    rolled back abort    nothing changes
    retrying    approve  refused: shop/ro7 is not waiting for an approval: it is at "shift traffic: 100% to #3"
    retrying    reject   refused: shop/ro7 is not waiting for an approval: it is at "shift traffic: 100% to #3"
    retrying    pause    refused: shop/ro7 is rolling back to stable (by ada: no): pausing is no longer possible
    retrying    resume   refused: shop/ro7 is rolling back to stable (by ada: no): resuming is no longer possible
    retrying    promote  refused: shop/ro7 is rolling back to stable (by ada: no): promoting is no longer possible
    retrying    abort    Failed
    "##);
}

#[test]
fn a_pause_while_instances_come_up_eats_no_progress_deadline() {
    let mut stage = RolloutHarness::open(spec(canary(), 3, Some(3)));
    stage.pass_time(599);
    stage
        .say(RolloutInput::Pause {
            reason: "lunch".into(),
        })
        .unwrap();
    stage.pass_time(36_000);
    assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
    stage.say(RolloutInput::Resume).unwrap();
    stage.pass_time(599);
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
    stage.pass_time(2);
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
}

#[test]
fn at_the_deadline_of_an_inconclusive_hold_happens_what_the_file_says() {
    for (word, wanted) in [
        (OnInconclusive::Pause, RolloutStatus::Paused),
        (OnInconclusive::Rollback, RolloutStatus::RollingBack),
        (OnInconclusive::Promote, RolloutStatus::Moving),
    ] {
        let holds = HoldPolicy {
            on_inconclusive: word,
            ..HoldPolicy::default()
        };
        let strategies = [
            Strategy::Canary(Canary {
                steps: vec![CanaryStep {
                    weight: Weight::from_percent(10.0).unwrap(),
                    hold: Some(Duration::from_secs(60)),
                    smoke: false,
                    ask: false,
                    scale: None,
                }],
                holds,
                ..Canary::default()
            }),
            Strategy::Rolling(Rolling {
                hold: Some(Duration::from_secs(60)),
                holds,
                ..Rolling::default()
            }),
            Strategy::BlueGreen(BlueGreen {
                bake: Some(Duration::from_secs(60)),
                holds,
                ..BlueGreen::default()
            }),
        ];
        for strategy in strategies {
            let name = strategy.keyword();
            let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
            stage.carry();
            stage.pass_time(60);
            assert_eq!(
                stage.rollout().status(),
                RolloutStatus::Holding,
                "{name} {word:?}"
            );
            stage.pass_time(60);
            assert_eq!(
                stage.rollout().status(),
                wanted,
                "{name} {word:?}: {:#?}",
                stage.story
            );
        }
    }
}

#[test]
fn a_promotion_skips_the_holds_and_keeps_the_previous_set_warm() {
    let strategy = Strategy::BlueGreen(BlueGreen {
        bake: Some(Duration::from_secs(600)),
        keep: Duration::from_secs(3_600),
        ..BlueGreen::default()
    });
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    let reason = "looked at it".to_owned();
    stage.say(RolloutInput::Promote { reason }).unwrap();
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    assert_eq!(stage.rollout().observed.count(ReleaseNumber(3)), 2);
    stage.pass_time(3_000);
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    // Only another release that waits ends it, or the time.
    let next = Some(ReleaseNumber(5));
    assert_eq!(stage.say(RolloutInput::EndKeep { next }), Ok(2));
    assert_eq!(stage.say(RolloutInput::EndKeep { next }), Ok(0));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
    assert_eq!(stage.rollout().observed.count(ReleaseNumber(3)), 0);
}

/// The service may have recorded the promotion whose report is still to come.
#[test]
fn an_abort_during_the_promotion_makes_the_old_release_stable_again() {
    let mut stage = RolloutHarness::open(spec(Strategy::Rolling(Rolling::default()), 1, Some(3)));
    while !matches!(stage.rollout().action(), Some(PlanAction::Promote { .. })) {
        let (plan, index) = stage.carried().unwrap();
        stage.say(done(plan, index)).unwrap();
    }
    let promotion = stage.carried().unwrap();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "no".to_owned(),
        })
        .unwrap();
    let back = PlanAction::promote(ReleaseNumber(3));
    assert!(stage.rollout().plan.actions.contains(&back));
    stage.say(done(promotion.0, promotion.1)).unwrap();
    stage.carry();
    let observed = &stage.rollout().observed;
    assert_eq!(observed.promoted, Some(ReleaseNumber(3)));
}
