//! A file of a job that can't be stored for now: the job waits for it, and says so.

use super::*;

const ONE_JOB: &str = "on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n";

fn delayed(reason: Option<&str>) -> RunInput {
    RunInput::StorageDelayed {
        key: job("a"),
        reason: reason.map(str::to_owned),
    }
}

#[test]
fn a_job_whose_artifact_is_not_stored_waits_and_says_for_what() {
    let mut log = Log::open(spec(ONE_JOB));
    log.start("a");
    let waits = |log: &Log| log.view().jobs[0].waits_for.clone();
    assert_eq!(log.say(delayed(None)), Ok(0), "nothing was delayed");
    assert_eq!(log.say(delayed(Some("the disk is full"))), Ok(1));
    assert_eq!(log.say(delayed(Some("the disk is full, 1 s later"))), Ok(0));
    assert_eq!(waits(&log).as_deref(), Some("the disk is full"));
    assert_eq!(log.jobs(), "a running");
    assert_eq!(log.say(delayed(None)), Ok(1));
    assert_eq!(waits(&log), None);
    log.say(delayed(Some("the disk is full"))).unwrap();
    // Read again at each length of the log, as by a server that comes back.
    for length in 0..=log.events.len() {
        let mut state = RunState::default();
        fold::<RunAggregate>(&mut state, &log.events[..length]);
        let text = serde_json::to_string(&state).unwrap();
        let again: RunState = serde_json::from_str(&text).unwrap();
        assert_eq!(
            RunAggregate::pending(&again, at(0)),
            RunAggregate::pending(&state, at(0))
        );
    }
    log.end("a", Conclusion::Failure);
    assert_eq!(waits(&log), None, "it has ended");
    assert_eq!(log.say(delayed(Some("too late"))), Ok(0));
}
