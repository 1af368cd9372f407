//! Little traffic, no stable, and doubts: neither a pass nor a fail, and told apart.

use jiff::Timestamp;
use shipway_analysis::{
    Judge, Judgement, Metric, Observation, ReleaseSample, Sample, SequentialComparison, Verdict,
    evidence::Alpha, sequential::SequentialState,
};

fn judge() -> SequentialComparison {
    let alpha = |value| Alpha::new(value).unwrap();
    let compared =
        SequentialComparison::new(Metric::ErrorRate, alpha(0.005), alpha(0.05), 1.0, 2.0);
    SequentialComparison {
        max_without_stable: Some(0.05),
        ..compared.unwrap()
    }
}

fn observe(
    state: &mut SequentialState,
    second: i64,
    canary: (u64, u64),
    stable: Option<(u64, u64)>,
) -> Judgement {
    let side = |release: &str, (requests, errors)| ReleaseSample {
        release: release.to_owned(),
        sample: Some(Sample {
            requests,
            errors,
            ..Sample::default()
        }),
    };
    let seen = Observation {
        at: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        canary: side("#3", canary),
        stable: stable.map(|stable| side("#2", stable)),
    };
    judge().observe(state, &seen)
}

/// What is said after so many requests and errors on each side.
fn said(canary: (u64, u64), stable: Option<(u64, u64)>) -> Verdict {
    let mut state = SequentialState::default();
    observe(&mut state, 0, (0, 0), stable.map(|_| (0, 0)));
    observe(&mut state, 9, canary, stable).verdict
}

#[test]
fn too_little_traffic_is_counted_and_no_pass() {
    for stable in [None, Some((0, 0)), Some((900, 1))] {
        let verdict = said((12, 0), stable);
        assert_eq!(
            verdict,
            Verdict::NoData {
                why: "too little traffic to judge the error rate of #3: 12 of the 100 requests needed".to_owned(),
                seen: 12,
                needed: 100,
                required: false,
            },
            "{stable:?}"
        );
    }
}

#[test]
fn without_stable_or_with_one_that_had_no_requests_the_limit_holds() {
    for stable in [None, Some((0, 0))] {
        let bad = said((6, 6), stable);
        assert!(bad.is_fail(), "{stable:?}: {bad}");
        assert!(
            bad.why()
                .contains("limit 5%, no stable traffic to compare with"),
            "{bad}"
        );
        let fine = said((2_000, 20), stable);
        assert!(fine.is_pass(), "{stable:?}: {fine}");
        assert!(said((2_000, 300), stable).is_fail());
    }
}

#[test]
fn odds_above_ten_to_one_are_no_pass_however_few_requests_they_are_from() {
    let doubtful = |canary, stable| {
        let verdict = said(canary, stable);
        assert!(
            matches!(verdict, Verdict::Inconclusive { .. }),
            "{canary:?} {stable:?}: {verdict}"
        );
    };
    doubtful((60, 2), Some((2_000, 3)));
    doubtful((2, 2), None);
    doubtful((400, 6), Some((3_600, 9)));
    assert!(said((400, 1), Some((3_600, 9))).is_pass());
}
