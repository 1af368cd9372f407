//! What both test files observe.

use jiff::Timestamp;
use shipway_analysis::{
    Judge, Judgement, Observation, ReleaseSample, Sample, ThresholdLimit,
    threshold::MeasurementState,
};

/// An observation of #3 against #2, `millis` after the hold began.
pub(crate) fn seen(millis: i64, canary: Option<Sample>) -> Observation {
    Observation {
        at: Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap(),
        canary: ReleaseSample {
            release: "#3".into(),
            sample: canary,
        },
        stable: Some(ReleaseSample {
            release: "#2".into(),
            sample: Some(counts(10 * u64::try_from(millis).unwrap(), 0)),
        }),
    }
}

pub(crate) fn counts(requests: u64, errors: u64) -> Sample {
    Sample {
        requests,
        errors,
        restarts: Some(0),
        ..Sample::default()
    }
}

/// Judges all of `observations` in turn; the state afterwards and what was said each time.
pub(crate) fn judge(
    threshold: &ThresholdLimit,
    observations: &[Observation],
) -> (MeasurementState, Vec<Judgement>) {
    let mut state = MeasurementState::default();
    let said = observations
        .iter()
        .map(|seen| threshold.observe(&mut state, seen))
        .collect();
    (state, said)
}
