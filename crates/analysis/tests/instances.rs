//! Restarts and availability: what a release's instances do counts, whatever its requests say.

use jiff::Timestamp;
use shipway_analysis::{
    Analysis, AnalysisState, InstanceTime, Metric, Observation, ReleaseSample, Sample,
    ThresholdLimit, Verdict, threshold::MetricBound,
};

fn rules() -> Analysis {
    let forgiving = |metric, bound| ThresholdLimit {
        worse_than_stable: true,
        ..ThresholdLimit::new(metric, bound).unwrap()
    };
    Analysis::new(vec![
        forgiving(Metric::Restarts, MetricBound::Max(0.0)),
        forgiving(Metric::Availability, MetricBound::Min(0.95)),
    ])
}

/// Instances, seconds each was down so far, and restarts so far.
type Instances = (u64, f64, u64);

fn side(release: &str, second: i64, (instances, down, restarts): Instances) -> ReleaseSample {
    ReleaseSample {
        release: release.to_owned(),
        sample: Some(Sample {
            // Its load falls back to stable: it looks healthy by its requests.
            requests: 100,
            restarts: Some(7 + restarts),
            instance_time: Some(InstanceTime {
                observed_ms: instances * second.unsigned_abs() * 1_000,
                unavailable_ms: (1_000.0 * down * instances as f64) as u64,
            }),
            ..Sample::default()
        }),
    }
}

fn observe(
    state: &mut AnalysisState,
    second: i64,
    canary: Instances,
    stable: Option<Instances>,
) -> Verdict {
    let seen = Observation {
        at: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        canary: side("#3", second, canary),
        stable: stable.map(|stable| side("#2", second, stable)),
    };
    rules().observe(state, &seen).verdict
}

#[test]
fn a_healthy_release_passes_from_the_first_look_on() {
    let mut state = rules().initial_state();
    for second in 1..=200 {
        let verdict = observe(&mut state, second, (2, 0.0, 0), Some((10, 0.0, 0)));
        assert!(verdict.is_pass(), "{second}: {verdict}");
    }
}

#[test]
fn the_first_restart_fails_also_in_a_later_hold_and_without_stable() {
    for stable in [Some((10, 0.0, 0)), None] {
        let mut state = rules().initial_state();
        assert!(observe(&mut state, 1, (2, 0.0, 0), stable).is_pass());
        let crashed = observe(&mut state, 6, (2, 0.2, 1), stable);
        assert!(crashed.is_fail(), "{crashed}");
        assert!(
            crashed
                .why()
                .starts_with("restart count of #3 is over the limit: 1, limit 0"),
            "{crashed}"
        );
    }
    // Nothing is judged between two holds.
    let mut state = rules().initial_state();
    observe(&mut state, 1, (2, 0.0, 0), None);
    state.start_hold();
    assert!(observe(&mut state, 20, (2, 0.2, 1), None).is_fail());
}

#[test]
fn what_brings_stable_down_too_is_not_the_new_releases_fault() {
    let mut state = rules().initial_state();
    observe(&mut state, 1, (1, 0.0, 0), Some((1, 0.0, 0)));
    let both = observe(&mut state, 20, (1, 6.0, 2), Some((1, 5.0, 2)));
    assert!(both.is_pass(), "{both}");
    // One of ten that restarts is a tenth of what one of one is.
    let mut state = rules().initial_state();
    observe(&mut state, 1, (1, 0.0, 0), Some((10, 0.0, 0)));
    let mostly_the_new_one = observe(&mut state, 20, (1, 0.0, 1), Some((10, 0.0, 1)));
    assert!(mostly_the_new_one.is_fail(), "{mostly_the_new_one}");
}

#[test]
fn instances_that_come_and_go_fail_once_they_were_down_for_more_than_a_minute_allows() {
    let mut state = rules().initial_state();
    observe(&mut state, 1, (1, 0.0, 0), Some((1, 0.0, 0)));
    // Down for one second of ten.
    let failed = (2..200).find(|second| {
        let down = (second / 10) as f64;
        observe(&mut state, *second, (1, down, 0), Some((1, 0.0, 0))).is_fail()
    });
    assert_eq!(failed, Some(40));
    let mut state = rules().initial_state();
    observe(&mut state, 1, (1, 0.0, 0), Some((1, 0.0, 0)));
    let failed = (2..2_000).find(|second| {
        let down = (second / 60) as f64;
        observe(&mut state, *second, (1, down, 0), Some((1, 0.0, 0))).is_fail()
    });
    assert_eq!(failed, None, "one second of sixty is within the limit");
}

#[test]
fn a_target_that_does_not_say_is_inconclusive() {
    let mut state = rules().initial_state();
    let seen = Observation {
        at: Timestamp::from_second(1_800_000_000).unwrap(),
        canary: ReleaseSample {
            release: "#3".to_owned(),
            sample: Some(Sample::default()),
        },
        stable: None,
    };
    let verdict = rules().observe(&mut state, &seen).verdict;
    assert!(matches!(verdict, Verdict::Inconclusive { .. }), "{verdict}");
}
