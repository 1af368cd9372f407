//! A release that is rolled back in an environment goes no further, wherever automatic promotion has brought it.

use super::*;

const THREE: &str = "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: {}\n  canary: {}\n  production: {}\n";

fn environment(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

fn roll_back(name: &str) -> ServiceInput {
    ServiceInput::Rollback {
        environment: environment(name),
        to: None,
        force: Override::No,
        why: "customers call".into(),
    }
}

impl Stage {
    /// Release 1 is everywhere. Release 2 is promoted in staging (rollout 4, still watched) and on its way in `canary` (rollout 5).
    fn with_second_release_on_its_way() -> Self {
        let mut stage = Self::new();
        stage.push(1, THREE, 1);
        stage.run_ends(1, true, &["shop"]);
        for rollout in 1..=3 {
            stage.promoted(rollout, 1);
            stage.ends(rollout, RolloutOutcome::Promoted, 1);
        }
        stage.push(2, THREE, 1);
        stage.run_ends(2, true, &["shop"]);
        let said = stage.promoted(4, 2);
        assert_eq!(said[3], "rollout ro5 #2→canary", "{said:?}");
        stage
    }
}

#[test]
fn a_release_that_its_guard_takes_back_in_staging_leaves_the_rollout_after_it() {
    let mut stage = Stage::with_second_release_on_its_way();
    let withdrawn = "preemption ro5 withdraw: #2 was rolled back in staging";
    // The rollback in staging has made release 1 stable again.
    assert_eq!(stage.promoted(4, 1), ["Promoted", withdrawn]);
    let said = stage.ends(4, RolloutOutcome::RolledBack, 1);
    assert_eq!(said, ["RolloutEnded"], "once");
    stage.ends(5, RolloutOutcome::RolledBack, 1);
    assert_eq!(
        stage.place("canary").hold,
        None,
        "the fix goes on by itself"
    );
    let blocked = &stage.place("canary").blocked_releases;
    assert!(blocked.contains_key(&ReleaseNumber(2)));
}

#[test]
fn a_rollback_of_a_person_withdraws_the_release_whether_its_rollout_is_watched_or_over() {
    for is_over in [false, true] {
        let mut stage = Stage::with_second_release_on_its_way();
        if is_over {
            stage.ends(4, RolloutOutcome::Promoted, 2);
        }
        let said = stage.say(roll_back("staging"));
        let withdrawn = "preemption ro5 withdraw: #2 was rolled back in staging".to_owned();
        assert!(said.contains(&withdrawn), "{said:?}");
        let again = stage.say(roll_back("staging"));
        assert!(!again.contains(&withdrawn), "{again:?}");
    }
}

#[test]
fn a_queued_promotion_is_dropped_and_what_a_person_deployed_or_an_environment_promoted_stays() {
    let mut stage = Stage::with_second_release_on_its_way();
    let release = stage.place("staging").stable.clone().unwrap();
    let deploy = |release| ServiceInput::Deploy {
        release,
        environment: Some(environment("production")),
        force: Override::No,
        why: "by hand".into(),
    };
    // Production is busy, so the promotion waits in its queue.
    let first = stage.place("production").stable.clone().unwrap();
    stage.say(deploy(first));
    let said = stage.promoted(5, 2);
    assert!(said.contains(&"#2 wants production".to_owned()), "{said:?}");
    let said = stage.say(roll_back("staging"));
    let dropped = "dropped #2: #2 was rolled back in staging".to_owned();
    assert!(said.contains(&dropped), "{said:?}");
    let in_canary = stage.place("canary").active.as_ref().unwrap();
    assert_eq!(in_canary.preemption, None, "promoted there: {said:?}");
    let said = stage.say(deploy(release));
    assert!(said.contains(&"#2 wants production".to_owned()), "{said:?}");
    let said = stage.ends(4, RolloutOutcome::RolledBack, 1);
    assert!(!said.contains(&dropped), "{said:?}");
}

#[test]
fn green_tests_of_a_release_that_was_rolled_back_meanwhile_promote_nothing() {
    let mut stage = Stage::new();
    stage.push(1, FILE, 1);
    stage.deliver(1, 1, 1);
    stage.push(2, FILE, 1);
    stage.run_ends(3, true, &["shop"]);
    assert_eq!(stage.promoted(3, 2), ["Promoted", "run r4 e2e.yml"]);
    stage.say(roll_back("staging"));
    assert_eq!(
        stage.run_ends(4, true, &[]),
        ["RunEnded", "held: #2 was rolled back in staging"]
    );
    assert!(stage.place("production").active.is_none());
}

#[test]
fn a_rollout_that_is_superseded_withdraws_its_release_from_nowhere() {
    for (outcome, is_withdrawn) in [
        (RolloutOutcome::Superseded, false),
        (RolloutOutcome::Aborted, true),
    ] {
        let mut stage = Stage::new();
        stage.push(1, THREE, 1);
        stage.run_ends(1, true, &["shop"]);
        for rollout in 1..=2 {
            stage.promoted(rollout, 1);
            stage.ends(rollout, RolloutOutcome::Promoted, 1);
        }
        // Release 1 is on its way in production (rollout 3) while staging has release 2 and gets release 1 once more (rollout 6).
        let first = stage.place("staging").stable.clone().unwrap();
        stage.push(2, THREE, 1);
        stage.run_ends(2, true, &["shop"]);
        stage.promoted(4, 2);
        stage.ends(4, RolloutOutcome::Promoted, 2);
        stage.say(ServiceInput::Deploy {
            release: first,
            environment: Some(environment("staging")),
            force: Override::No,
            why: "compare".into(),
        });
        stage.ends(6, outcome, 2);
        let in_production = stage.place("production").active.as_ref().unwrap();
        assert_eq!(in_production.preemption.is_some(), is_withdrawn);
    }
}

#[test]
fn an_aborted_repetition_of_the_stable_release_withdraws_nothing() {
    let mut stage = Stage::with_second_release_on_its_way();
    stage.ends(4, RolloutOutcome::Promoted, 2);
    let release = stage.place("staging").stable.clone().unwrap();
    stage.say(ServiceInput::Deploy {
        release,
        environment: Some(environment("staging")),
        force: Override::No,
        why: "once more".into(),
    });
    let said = stage.ends(6, RolloutOutcome::Aborted, 2);
    assert!(!said.iter().any(|it| it.contains("withdraw")), "{said:?}");
    assert_eq!(
        stage.place("canary").active.as_ref().unwrap().preemption,
        None
    );
}
