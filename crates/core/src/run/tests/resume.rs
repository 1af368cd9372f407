//! Runs whose failed jobs go on in the workspace of the attempt before, at a step of it.

use super::*;
use crate::access::Principal;

/// What is left of failed jobs: each failed at its step `b`.
fn left(keys: &[&str]) -> BTreeMap<JobKey, LeftoverState> {
    let left = || LeftoverState::Workspace {
        failed: Some("b".to_owned()),
        steps: vec!["a".to_owned(), "b".to_owned()],
    };
    keys.iter().map(|key| (job(key), left())).collect()
}

fn go_on(
    log: &mut Log,
    again: RerunSelection,
    step: Option<&str>,
    left: BTreeMap<JobKey, LeftoverState>,
) -> Result<usize, RunRejection> {
    let step = step.map(str::to_owned);
    let from = Some(FromStep { step, left });
    log.say(RunInput::Rerun { again, from })
}

fn resume_of(log: &Log, key: &str) -> Option<(u32, String)> {
    let resume = job_spec(&log.state, &job(key), around()).unwrap().resume?;
    Some((resume.attempt, resume.step))
}

fn keys(log: &Log, again: &RerunSelection) -> Vec<String> {
    let run = log.state.0.as_deref().unwrap();
    let keys = run.may_go_on(again).into_iter();
    keys.map(|(key, attempt)| format!("{key}@{attempt}"))
        .collect()
}

#[test]
fn failed_jobs_go_on_at_their_failed_steps_and_those_after_them_begin_anew() {
    let mut log = driven(&BTreeSet::from(["test.2", "report"]), None);
    // What comes after them sees something else, so it can't go on.
    assert_eq!(
        keys(&log, &RerunSelection::Failed),
        ["test.1@1", "test.2@1"]
    );
    let left = left(&["test.1", "test.2"]);
    go_on(&mut log, RerunSelection::Failed, None, left.clone()).unwrap();
    assert_eq!(log.pending(), ["job-test.1@2", "job-test.2@2"]);
    let expected = (1, "b".to_owned());
    assert_eq!(resume_of(&log, "test.2"), Some(expected));
    let story: Vec<String> = log
        .events
        .iter()
        .flat_map(|it| story_lines(&it.body))
        .collect();
    assert!(
        story.contains(&"  test.2 resumes at its step b".to_owned()),
        "{story:?}"
    );
    // The step before was done in the first attempt; it isn't shown as its own.
    log.start("test.2");
    let step = StepLine {
        index: 0,
        name: "a".to_owned(),
        conclusion: Conclusion::Success,
        outcome: None,
        took_ms: 1,
        in_attempt: Some(1),
    };
    let key = job("test.2");
    log.say(RunInput::StepFinished { key, step }).unwrap();
    let view = log.view();
    let shown = view.jobs.iter().find(|job| job.key == "test.2").unwrap();
    assert_eq!((shown.attempt(), shown.steps[0].in_attempt), (2, Some(1)));
    log.end("test.2", Conclusion::Success);
    log.end("test.1", Conclusion::Success);
    assert_eq!(resume_of(&log, "report"), None);
    log.end("report", Conclusion::Success);
    assert_eq!(log.view().status, RunStatus::Success);
    log.say(RunInput::ServiceNotified).unwrap();
    // Anew, from its first step: what it went on from is forgotten.
    log.say(RunInput::Rerun {
        again: RerunSelection::Job(job("test.2")),
        from: None,
    })
    .unwrap();
    assert_eq!(resume_of(&log, "test.2"), None);
    is_the_same_from_every_length(&log);
}

#[test]
fn one_job_goes_on_at_the_step_that_is_named() {
    let mut log = driven(&BTreeSet::from(["test.2"]), None);
    let only = RerunSelection::Job(job("test.2"));
    go_on(&mut log, only, Some("a"), left(&["test.2"])).unwrap();
    let expected = (1, "a".to_owned());
    assert_eq!(resume_of(&log, "test.2"), Some(expected));
    // It fails again: the next attempt goes on from the one before it.
    log.start("test.2");
    log.end("test.2", Conclusion::Failure);
    for _ in 0..2 {
        for (_, effect) in RunAggregate::pending(&log.state, at(0)).effects {
            match effect {
                RunEffect::RunJob { key, .. } => log.end(key.as_str(), Conclusion::Success),
                RunEffect::NotifyService { .. } => drop(log.say(RunInput::ServiceNotified)),
                RunEffect::Gate(_) => {}
            }
        }
    }
    assert_eq!(
        keys(&log, &RerunSelection::Job(job("test"))),
        ["test.1@1", "test.2@2"]
    );
    let only = RerunSelection::Job(job("test.2"));
    go_on(&mut log, only, None, left(&["test.2"])).unwrap();
    let expected = (2, "b".to_owned());
    assert_eq!(resume_of(&log, "test.2"), Some(expected));
    is_the_same_from_every_length(&log);
}

#[test]
fn what_nobody_can_go_on_from_is_refused_and_it_is_said_what_can_be_done() {
    let mut log = driven(&BTreeSet::from(["test.2"]), None);
    let test = || RerunSelection::Job(job("test.2"));
    let gone =
        |why: &str| BTreeMap::from([(job("test.2"), LeftoverState::Nothing(why.to_owned()))]);
    let whole = LeftoverState::Workspace {
        failed: None,
        steps: vec!["a".to_owned()],
    };
    let whole = BTreeMap::from([(job("test.2"), whole)]);
    let both = left(&["test.1", "test.2"]);
    for (again, step, left, why) in [
        (
            test(),
            None,
            gone("its workspace was deleted"),
            "its workspace was deleted; re-run it from its first step: shipway retry shop/r12 --job test.2",
        ),
        (
            test(),
            None,
            BTreeMap::new(),
            "nothing is known of its workspace",
        ),
        (test(), None, whole, "no step of test.2 of shop/r12 failed"),
        (
            test(),
            Some("c"),
            both.clone(),
            "its steps up to the failed one are `a` and `b`",
        ),
        (
            RerunSelection::Failed,
            Some("b"),
            both.clone(),
            "name the one with the step",
        ),
        (
            RerunSelection::Job(job("build")),
            None,
            both.clone(),
            "no job of shop/r12 failed in a step",
        ),
        (
            RerunSelection::All,
            None,
            both,
            "no job of shop/r12 failed in a step",
        ),
        (
            RerunSelection::Job(job("nope")),
            None,
            BTreeMap::new(),
            "has no job nope",
        ),
    ] {
        let refused = go_on(&mut log, again.clone(), step, left)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(why), "{again:?} {step:?}: {refused}");
    }
    // Nothing of it is on record.
    assert_eq!(log.view().attempt, 1);
    let mut running = Log::open(spec(WORKFLOW));
    let refused = go_on(&mut running, RerunSelection::Failed, None, BTreeMap::new());
    assert!(matches!(refused, Err(RunRejection::UnderWay(_))));
}

#[test]
fn a_shell_with_secrets_goes_on_record_and_changes_nothing() {
    let mut log = driven(&BTreeSet::from(["test.2"]), None);
    let ask = |key: &str| RunInput::ShowSecrets {
        key: job(key),
        step: "b".to_owned(),
    };
    let before = (log.pending(), log.jobs());
    assert_eq!(log.say(ask("test.2")), Ok(1));
    assert_eq!((log.pending(), log.jobs()), before);
    let last = log.events.last().unwrap();
    assert!(matches!(&last.body, RunEvent::SecretsShown { key, .. } if *key == job("test.2")));
    assert_eq!(last.by, Principal::person("ada").pusher().actor("someone"));
    assert!(matches!(
        log.say(ask("nope")),
        Err(RunRejection::UnknownJob { .. })
    ));
    let mut running = Log::open(spec(WORKFLOW));
    assert!(matches!(
        running.say(ask("build")),
        Err(RunRejection::JobUnderWay { .. })
    ));
    is_the_same_from_every_length(&log);
}
