//! How far a rollback goes back at once.

use super::*;
use crate::{release::Release, rollout::RolloutPace};

const FILE: &str = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production: { rollback_window: { releases: 2 } }\n";

impl Stage {
    /// Releases 1 to `last`, each promoted an hour after the one before.
    pub(super) fn promoted_hourly(file: &str, last: u32) -> Self {
        let mut stage = Self::new();
        for number in 1..=last {
            stage.push(number, file, 1);
            stage.run_ends(number, true, &["shop"]);
            stage.promoted(number, number);
            stage.ends(number, RolloutOutcome::Promoted, number);
            stage.now += jiff::SignedDuration::from_hours(1);
        }
        stage
    }

    fn back_to(
        &mut self,
        release: &Arc<Release>,
        force: Override,
    ) -> Result<(RolloutPace, String), ServiceRejection> {
        self.try_say(ServiceInput::Rollback {
            environment: "production".parse().unwrap(),
            to: Some(release.clone()),
            force,
            why: "customers call".into(),
        })?;
        let spec = self
            .place("production")
            .active
            .as_ref()
            .unwrap()
            .spec
            .clone();
        Ok((spec.pace, spec.why.clone()))
    }

    pub(super) fn former(&self, number: u32) -> Arc<Release> {
        let place = self.place("production");
        let mut known = place.former.iter().chain(&place.stable);
        known.find(|it| it.number.0 == number).unwrap().clone()
    }
}

#[test]
fn a_release_of_the_last_few_comes_back_at_once_and_an_older_one_by_the_strategy() {
    let inside = |number| {
        let mut stage = Stage::promoted_hourly(FILE, 5);
        let release = stage.former(number);
        stage.back_to(&release, Override::No).unwrap()
    };
    assert_eq!(
        inside(4),
        (RolloutPace::Direct, "customers call".to_owned())
    );
    assert_eq!(inside(3).0, RolloutPace::Direct);
    let (pace, why) = inside(2);
    assert_eq!(pace, RolloutPace::ByStrategy);
    assert_eq!(
        why,
        "customers call; #2 is outside the rollback window (the last 2 releases), so it is deployed by its strategy"
    );
}

#[test]
fn a_window_of_time_begins_when_the_release_stopped_to_serve() {
    let file = FILE.replace("releases: 2", "within: 150m");
    let inside = |number| {
        let mut stage = Stage::promoted_hourly(&file, 5);
        let release = stage.former(number);
        stage.back_to(&release, Override::No).unwrap().0
    };
    // #5 took over from #4 an hour ago, #4 from #3 two, #3 from #2 three.
    assert_eq!(
        [4, 3, 2].map(inside),
        [
            RolloutPace::Direct,
            RolloutPace::Direct,
            RolloutPace::ByStrategy
        ]
    );
}

#[test]
fn without_a_window_all_that_are_remembered_come_back_at_once_and_what_never_served_does_not() {
    let mut stage = Stage::promoted_hourly(
        &FILE.replace("{ rollback_window: { releases: 2 } }", "{}"),
        5,
    );
    let mut never = (*stage.former(5)).clone();
    never.number = ReleaseNumber(99);
    let first = stage.former(1);
    assert_eq!(
        stage.clone_of().back_to(&first, Override::No).unwrap().0,
        RolloutPace::Direct
    );
    let (pace, why) = stage.back_to(&Arc::new(never), Override::No).unwrap();
    assert_eq!(pace, RolloutPace::ByStrategy);
    assert!(why.contains("#99 was not stable here recently"), "{why}");
}

#[test]
fn what_was_rolled_back_there_needs_force() {
    let mut stage = Stage::promoted_hourly(FILE, 2);
    let bad = stage.former(2);
    let good = stage.former(1);
    stage.back_to(&good, Override::No).unwrap();
    stage.promoted(3, 1);
    stage.ends(3, RolloutOutcome::Promoted, 1);
    let refused = stage.back_to(&bad, Override::No).unwrap_err();
    assert!(refused.to_string().contains("use --force"), "{refused}");
    let (pace, why) = stage.back_to(&bad, Override::Yes).unwrap();
    assert_eq!(pace, RolloutPace::ByStrategy, "{why}");
}

impl Stage {
    fn clone_of(&self) -> Self {
        Self {
            state: self.state.clone(),
            log: Vec::new(),
            rows: self.rows.clone(),
            now: self.now,
        }
    }
}
