//! Looks are many, records are few, and nothing that was counted is lost between them.

use super::{compared::compared, *};

fn both(at: Timestamp, canary: (u64, u64), stable: (u64, u64)) -> Observation {
    let side = |release: &str, (requests, errors)| ReleaseSample {
        release: release.into(),
        sample: Some(Sample {
            requests,
            errors,
            ..Sample::default()
        }),
    };
    Observation {
        at,
        canary: side("#4", canary),
        stable: Some(side("#3", stable)),
    }
}

impl RolloutHarness {
    /// A look a second later, as the driver takes it; whether it was recorded.
    fn evaluation(
        &mut self,
        live: &mut RolloutEvidence,
        canary: (u64, u64),
        stable: (u64, u64),
    ) -> bool {
        self.now += jiff::SignedDuration::from_secs(1);
        let exposure = self.rollout().exposure;
        let evaluation = self.rollout().observe(live, both(self.now, canary, stable));
        evaluation.is_some_and(|evaluation| {
            let evaluation = Box::new(evaluation);
            self.say(RolloutInput::Evaluated {
                exposure,
                evaluation,
            })
            .unwrap()
                > 0
        })
    }
}

#[test]
fn after_a_crash_the_evidence_resumes_from_what_was_recorded_and_no_request_is_lost() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    let mut live = stage.rollout().evidence.clone();
    let mut recorded = 0;
    for second in 0..50 {
        let (canary, stable) = ((20 * second, second / 10), (180 * second, second));
        recorded += u32::from(stage.evaluation(&mut live, canary, stable));
    }
    assert!((10..30).contains(&recorded), "{recorded}");
    let mut resumed = stage.rollout().evidence.clone();
    let seen = both(stage.now, (1_000, 5), (9_000, 50));
    for evidence in [&mut live, &mut resumed] {
        let seen = Observation {
            at: seen.at + Duration::from_secs(1),
            ..seen.clone()
        };
        let _ = stage.rollout().observe(evidence, seen);
        let verdict = &evidence.judgement().unwrap().verdict;
        assert!(
            verdict.is_pass() && verdict.why().contains(" of 1,000 requests"),
            "{verdict}"
        );
    }
}

#[test]
fn a_fail_is_recorded_at_once_however_long_ago_the_last_record_was() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    let mut live = stage.rollout().evidence.clone();
    for second in 0..50 {
        stage.evaluation(&mut live, (20 * second, 0), (180 * second, 0));
    }
    let is_recorded = stage.evaluation(&mut live, (1_020, 20), (9_180, 0));
    assert!(is_recorded, "{:#?}", stage.story);
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
}

#[test]
fn the_verdict_that_a_hold_ends_with_is_fresh() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    let mut live = stage.rollout().evidence.clone();
    for second in 0..60 {
        stage.evaluation(&mut live, (20 * second, 0), (180 * second, 0));
    }
    let last = stage.rollout().evidence.last().unwrap().at;
    let due = stage.rollout().hold_due().unwrap();
    assert!(due.duration_since(last).as_secs() <= 1, "{last} {due}");
}
