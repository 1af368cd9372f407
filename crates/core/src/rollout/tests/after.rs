//! After the switch: the analysis goes on, against what stable was before it.

use super::{compared::compared_rule, *};

fn switched(bake: Option<u64>) -> RolloutHarness {
    let strategy = Strategy::BlueGreen(BlueGreen {
        keep: Duration::from_secs(3_600),
        bake: bake.map(Duration::from_secs),
        ..BlueGreen::default()
    });
    let mut wanted = spec(strategy, 2, Some(3));
    wanted.environment.analysis = Analysis::new(vec![compared_rule()]);
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    // Stable has had 200,000 requests in its time, one in a thousand bad, and gets no more.
    stage.compare((0, 0), (200_000, 200));
    stage
}

#[test]
fn a_release_that_is_worse_than_stable_was_is_compared_with_the_warm_set_and_rolled_back() {
    let mut stage = switched(None);
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    let mut second = 0;
    while !stage.rollout().is_reverse_canary() {
        second += 1;
        stage.pass_time(1);
        stage.compare((100 * second, second), (200_000, 200));
        assert!(second < 30, "{:#?}", stage.story);
    }
    stage.carry();
    let (split, status) = (stage.split(), stage.rollout().status());
    assert_eq!(
        (split.as_str(), status),
        ("50% to #4, 50% to #3", RolloutStatus::Holding)
    );
    while stage.rollout().direction == PlanDirection::Forward {
        second += 1;
        stage.pass_time(1);
        stage.compare((100 * second, second), (200_000 + 100 * second, 200));
        assert!(second < 120, "{:#?}", stage.story);
    }
    let turn = stage.rollout().rollback_start.clone().unwrap();
    assert!(!turn.why.contains("before the switch"), "{}", turn.why);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(3)));
    // Its plot marks that it went back, not that it had been promoted for some seconds.
    let series = series::series(&stage.log);
    let decision = series[0].decision.clone().unwrap();
    assert!(
        decision.is_bad && decision.at == turn.at && decision.why == turn.why,
        "{decision:?}"
    );
    // Its page has the forward plan with the step at which it ended, and the odds that have crossed the threshold.
    let history = RolloutHistory::read(&stage.log, None);
    let stopped = |line: &&PlanLine| line.progress == RolloutProgress::Stopped;
    assert_eq!(history.forward_plan.iter().filter(stopped).count(), 1);
    let last = history.traffic.last().unwrap();
    assert_eq!(
        (last.direction, last.split.weight_of(ReleaseNumber(4))),
        (PlanDirection::Back, Weight::ZERO)
    );
    let rule = &history.rules[0];
    let odds = rule.odds.last().unwrap().odds;
    assert!(odds.log_odds >= odds.log_threshold, "{odds:?}");
    assert!(rule.judgement.as_ref().unwrap().verdict.is_fail());
}

#[test]
fn where_the_old_set_can_not_be_brought_up_the_new_one_serves_until_it_can_and_a_person_is_called()
{
    let mut stage = switched(None);
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "customers call".into(),
        })
        .unwrap();
    let (plan, index) = stage.carried().unwrap();
    let (why, smoke) = ("exit code 1".to_owned(), None);
    stage
        .say(RolloutInput::Failed {
            plan,
            index,
            why,
            smoke,
        })
        .unwrap();
    assert_eq!(stage.rollout().status(), RolloutStatus::RollingBack);
    assert_eq!(
        stage.rollout().observed.split,
        TrafficSplit::all_to(ReleaseNumber(4))
    );
    assert_eq!(stage.rollout().observed.count(ReleaseNumber(4)), 2);
    let last = stage.rollout().notices.last().unwrap();
    assert!(last.title.contains("the rollback failed"), "{last:?}");
}

#[test]
fn baking_ends_early_on_good_evidence_and_only_then_the_release_is_promoted() {
    let mut stage = switched(Some(600));
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(3)));
    for second in 1..40 {
        stage.pass_time(1);
        stage.compare((1_000 * second, second), (200_000, 200));
        stage.carry();
    }
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::KeptWarm,
        "{:#?}",
        stage.story
    );
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(4)));
    let enough = |note: &TimelineNote| note.text.contains("enough evidence");
    assert!(stage.rollout().notes.iter().any(enough));
}

#[test]
fn more_is_never_claimed_of_stable_than_was_seen_of_it() {
    let mut stage = switched(None);
    stage.pass_time(1);
    stage.compare((1_000, 1), (200_000, 200));
    stage.pass_time(1);
    stage.compare((900_000, 900), (200_000, 200));
    let seen = stage.rollout().evidence.last().unwrap().clone();
    let sample = seen.stable.unwrap().sample.unwrap();
    assert_eq!((sample.requests, sample.errors), (400_000, 400));
    // A stable that nobody ever asked says nothing.
    let mut unknown = spec(Strategy::BlueGreen(BlueGreen::default()), 2, Some(3));
    unknown.environment.analysis = Analysis::new(vec![compared_rule()]);
    let mut stage = RolloutHarness::open(unknown);
    stage.carry();
    stage.compare((0, 0), (0, 0));
    stage.pass_time(1);
    stage.compare((1_000, 100), (0, 0));
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
    assert!(
        stage
            .rollout()
            .evidence
            .last()
            .unwrap()
            .stable
            .as_ref()
            .unwrap()
            .sample
            .is_none()
    );
}
