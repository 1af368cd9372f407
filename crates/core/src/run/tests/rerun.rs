//! Jobs that begin anew: by themselves, and because somebody asks.

use super::*;

const RETRIES: &str = "on: push
jobs:
  a: { runs-on: x, retry: { max: 1, when: worker-lost }, steps: [{ run: a }] }
  b: { runs-on: x, retry: 2, steps: [{ run: a }] }
  c: { needs: [a, b], runs-on: x, steps: [{ run: a }] }
";

fn lost(log: &mut Log, key: &str) {
    let why = "worker lost".to_owned();
    log.say(RunInput::WorkerLost { key: job(key), why })
        .unwrap();
}

fn again(log: &mut Log, again: RerunSelection) -> Result<usize, RunRejection> {
    log.say(RunInput::Rerun { again, from: None })
}

#[test]
fn a_lost_worker_is_followed_by_another_attempt_as_often_as_the_job_says() {
    let mut log = Log::open(spec(RETRIES));
    assert_eq!(log.pending(), ["job-a", "job-b"]);
    log.start("a");
    lost(&mut log, "a");
    assert_eq!(log.pending(), ["job-a@2", "job-b"]);
    let view = log.view();
    assert_eq!(view.jobs[0].earlier[0].why.as_deref(), Some("worker lost"));
    log.start("a");
    log.end("a", Conclusion::Failure);
    assert_eq!(log.pending(), ["job-b"]);
    log.end("b", Conclusion::Failure);
    lost(&mut log, "b");
    log.end("b", Conclusion::Success);
    assert_eq!(log.jobs(), "a failure, b success, c skipped");
    assert_eq!(log.view().jobs[1].earlier.len(), 2);
    let mut log = Log::open(spec(RETRIES));
    lost(&mut log, "a");
    lost(&mut log, "a");
    assert_eq!(log.pending(), ["job-b"]);
    // Who is told to stop doesn't begin anew.
    log.say(RunInput::Cancel {
        reason: "enough".to_owned(),
    })
    .unwrap();
    log.end("b", Conclusion::Failure);
    assert!(log.view().conclusion.is_some());
    is_the_same_from_every_length(&log);
}

#[test]
fn failed_jobs_run_again_and_green_ones_keep_what_they_gave() {
    let mut log = driven(&BTreeSet::from(["test.2"]), None);
    assert_eq!(log.view().status, RunStatus::Failure);
    again(&mut log, RerunSelection::Failed).unwrap();
    assert_eq!(
        log.jobs(),
        "build success, test.1 queued, test.2 queued, test.3 success, docs skipped, report waiting"
    );
    assert_eq!(log.pending(), ["job-test.1@2", "job-test.2@2"]);
    let spec = job_spec(&log.state, &job("test.2"), around()).unwrap();
    assert_eq!(&*spec.contexts.github.get("run_attempt").to_text(), "2");
    let needs = serde_json::to_string(&spec.contexts.needs).unwrap();
    assert!(needs.contains(r#""version":"7""#), "{needs}");
    log.end("test.2", Conclusion::Success);
    log.end("test.1", Conclusion::Success);
    assert_eq!(log.pending(), ["job-report@2"]);
    log.end("report", Conclusion::Success);
    assert_eq!(
        (log.view().status, log.view().attempt),
        (RunStatus::Success, 2)
    );
    assert_eq!(log.pending(), ["tell-service"]);
    log.say(RunInput::ServiceNotified).unwrap();
    let refused = again(&mut log, RerunSelection::Failed).unwrap_err();
    assert!(refused.to_string().contains("no job of shop/r12 failed"));
    is_the_same_from_every_length(&log);
}

#[test]
fn one_job_runs_again_with_those_after_it() {
    let mut log = driven(&BTreeSet::new(), None);
    again(&mut log, RerunSelection::Job(job("test.2"))).unwrap();
    assert_eq!(log.pending(), ["job-test.2@2"]);
    assert!(matches!(
        again(&mut log, RerunSelection::All),
        Err(RunRejection::UnderWay(_))
    ));
    log.end("test.2", Conclusion::Success);
    assert_eq!(log.pending(), ["job-report@2"]);
    log.end("report", Conclusion::Success);
    log.say(RunInput::ServiceNotified).unwrap();
    again(&mut log, RerunSelection::Job(job("test"))).unwrap();
    assert_eq!(
        log.pending(),
        ["job-test.1@2", "job-test.2@3", "job-test.3@2"]
    );
    for key in ["test.1", "test.2", "test.3", "report"] {
        log.end(key, Conclusion::Success);
    }
    log.say(RunInput::ServiceNotified).unwrap();
    again(&mut log, RerunSelection::All).unwrap();
    assert_eq!(log.pending(), ["job-build@2"]);
    assert!(again(&mut Log::open(spec(WORKFLOW)), RerunSelection::All).is_err());
    let mut log = driven(&BTreeSet::new(), None);
    for unknown in ["nope", "test.9", "build~x"] {
        assert!(
            again(&mut log, RerunSelection::Job(job(unknown))).is_err(),
            "{unknown}"
        );
    }
    is_the_same_from_every_length(&log);
}

#[test]
fn jobs_of_calls_run_again_and_their_callers_wait_for_them() {
    let failing = BTreeSet::from(["release.2~upload"]);
    let mut log = driven_of(super::calls::called(), &failing, None);
    assert_eq!(log.view().status, RunStatus::Failure);
    again(&mut log, RerunSelection::Failed).unwrap();
    assert_eq!(log.pending(), ["job-release.2~upload@2"]);
    log.end("release.2~upload", Conclusion::Success);
    log.end("report", Conclusion::Success);
    assert_eq!(log.view().status, RunStatus::Success);
    log.say(RunInput::ServiceNotified).unwrap();
    again(&mut log, RerunSelection::Job(job("release.1~sign"))).unwrap();
    assert_eq!(log.pending(), ["job-release.1~sign~key@2"]);
    log.end("release.1~sign~key", Conclusion::Success);
    assert_eq!(log.pending(), ["job-release.1~upload@2"]);
    log.end("release.1~upload", Conclusion::Success);
    log.end("report", Conclusion::Success);
    log.say(RunInput::ServiceNotified).unwrap();
    again(&mut log, RerunSelection::Job(job("release.2"))).unwrap();
    assert_eq!(log.pending(), ["job-release.2~sign~key@2"]);
    is_the_same_from_every_length(&log);
}

#[test]
fn a_cancelled_run_goes_on_where_it_was_stopped() {
    let mut log = driven(&BTreeSet::new(), Some(1));
    assert_eq!(log.view().status, RunStatus::Cancelled);
    again(&mut log, RerunSelection::Failed).unwrap();
    assert!(log.state.0.as_deref().unwrap().progress.cancelled.is_none());
    for _ in 0..20 {
        let Some((_, RunEffect::RunJob { key, .. })) =
            RunAggregate::pending(&log.state, at(0)).effects.pop()
        else {
            break;
        };
        log.end(key.as_str(), Conclusion::Success);
    }
    assert_eq!(log.view().status, RunStatus::Success);
    is_the_same_from_every_length(&log);
}
