//! Runs whose tests report: quarantine, coverage, and the three lines of one that failed.

use super::*;
use crate::run::{JobTests, RunSite, three_lines};

/// What two tests said, of which the second failed; in quarantine it is excused in step `excused`.
fn reported(excused: Option<usize>, covered: u64) -> Box<JobTests> {
    use crate::testing::*;
    let test = |name: &str, outcome| TestCase {
        id: TestId::new("", "shop", name),
        outcome,
        took_ms: 1,
        steadiness: TestStability::Steady,
        message: outcome.is_bad().then(|| "1 != 2".to_owned()),
        file: None,
        line: None,
    };
    let lines = CoverageCount {
        covered,
        total: 100,
    };
    let report = TestReport {
        cases: vec![
            test("adds", TestOutcome::Passed),
            test("pays", TestOutcome::Failed),
        ],
        coverage: Some(Coverage {
            lines,
            ..Coverage::default()
        }),
        ..TestReport::default()
    };
    Box::new(JobTests {
        digest: crate::ids::Digest::compute(b"a report"),
        size: 8,
        summary: TestSummary::from_report(&report, Some(1)),
        excuse: FailureExcuse {
            step: excused,
            quarantined: vec![TestId::new("", "shop", "pays")],
            why_not: excused
                .is_none()
                .then(|| "this change touches it".to_owned()),
        },
        attempt: 0,
    })
}

/// A job whose steps with these places failed, after its tests had reported.
fn failed_after_tests(steps: &[usize], excused: Option<usize>) -> Log {
    let mut log = Log::open(spec(
        "on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n",
    ));
    let key = job("a");
    log.start("a");
    for index in steps {
        let step = StepLine {
            index: *index,
            name: "make test".to_owned(),
            conclusion: Conclusion::Failure,
            outcome: None,
            took_ms: 1,
            in_attempt: None,
        };
        log.say(RunInput::StepFinished {
            key: key.clone(),
            step,
        })
        .unwrap();
    }
    for _ in 0..2 {
        log.say(RunInput::TestsReported {
            key: key.clone(),
            tests: reported(excused, 50),
        })
        .unwrap();
    }
    let why = Some("step \"make test\": exit code 1".to_owned());
    let ended = RunInput::JobEnded {
        key,
        conclusion: Conclusion::Failure,
        outputs: Vec::new(),
        why,
    };
    log.say(ended).unwrap();
    log
}

#[test]
fn a_job_that_failed_of_quarantined_tests_only_counts_as_green() {
    let view = failed_after_tests(&[1], Some(1)).view();
    assert_eq!(
        (view.status, view.jobs[0].status),
        (RunStatus::Success, RunStatus::Success)
    );
    let why = view.jobs[0].why.as_deref().unwrap();
    assert_eq!(
        why,
        "counts as success: all failed tests are in quarantine (shop/pays)"
    );
    let tests = view.tests.unwrap();
    assert_eq!(
        (tests.jobs.len(), tests.totals.tests, tests.totals.failed),
        (1, 2, 1)
    );
    for (steps, excused) in [
        (&[1, 2][..], Some(1)),
        (&[2], Some(1)),
        (&[], Some(1)),
        (&[1], None),
    ] {
        let view = failed_after_tests(steps, excused).view();
        assert_eq!(view.status, RunStatus::Failure, "{steps:?} {excused:?}");
    }
    let view = failed_after_tests(&[1], None).view();
    assert_eq!(
        view.jobs[0].why.as_deref(),
        Some("step \"make test\": exit code 1; not excused by quarantine: this change touches it")
    );
}

#[test]
fn lines_that_several_jobs_ran_are_covered_once() {
    use crate::testing::{Coverage, TestReport, TestSummary};
    let tests = |lines: &[(u32, bool)]| {
        let mut report = TestReport::default();
        report
            .lines
            .add("a.rs", lines.iter().copied(), Coverage::default());
        report.coverage = Some(report.lines.coverage());
        let mut tests = reported(None, 0);
        tests.digest = crate::ids::Digest::compute(format!("{lines:?}").as_bytes());
        tests.summary = TestSummary::from_report(&report, None);
        tests
    };
    let mut log = Log::open(RunSpec {
        coverage_min: Some(7_500),
        ..spec(
            "on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n  b: { runs-on: x, steps: [{ run: a }] }\n",
        )
    });
    for (key, lines) in [
        ("a", [(1, true), (2, true), (3, false), (4, false)]),
        ("b", [(1, true), (2, false), (3, true), (4, false)]),
    ] {
        let (key, tests) = (job(key), tests(&lines));
        log.say(RunInput::TestsReported { key, tests }).unwrap();
    }
    log.end("a", Conclusion::Success);
    log.end("b", Conclusion::Success);
    let view = log.view();
    assert_eq!(view.status, RunStatus::Success, "{:?}", view.why);
    let lines = view.tests.unwrap().coverage.unwrap().lines;
    assert_eq!((lines.covered, lines.total), (3, 4));
}

#[test]
fn a_run_that_covers_too_little_is_red() {
    for (minimum, status) in [(5_000, RunStatus::Success), (5_001, RunStatus::Failure)] {
        let mut log = Log::open(RunSpec {
            coverage_min: Some(minimum),
            ..spec("on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n")
        });
        log.say(RunInput::TestsReported {
            key: job("a"),
            tests: reported(None, 50),
        })
        .unwrap();
        log.end("a", Conclusion::Success);
        let view = log.view();
        assert_eq!(view.status, status);
        if status == RunStatus::Failure {
            assert_eq!(
                view.why.as_deref(),
                Some(
                    "50% of the lines are covered, but shipway.yaml requires 50.01% (reports.minimum)"
                )
            );
        }
    }
}

#[test]
fn a_failed_run_opens_with_three_lines() {
    let view = failed_after_tests(&[1], None).view();
    let lines = three_lines(&view, "", RunSite::Server).unwrap();
    assert_eq!(
        lines,
        [
            "✗ a: step \"make test\": exit code 1; not excused by quarantine: this change touches it",
            "shop/pays: 1 != 2",
            "re-run: shipway retry shop/r12 --from-failed-step; open a shell: shipway shell shop/r12 a; log: shipway logs shop/r12 --job a",
        ]
    );
    let mut log = Log::open(spec(WORKFLOW));
    let ended = RunInput::JobEnded {
        key: job("build"),
        conclusion: Conclusion::Failure,
        outputs: Vec::new(),
        why: Some("step \"make\": exit code 2".to_owned()),
    };
    log.say(ended).unwrap();
    log.end("report", Conclusion::Success);
    let text =
        "cc shop.c\nshop.c:3:1: error: no till\nmake: *** [shop] Error 1\n##[error]exit code 2\n";
    let place = RunSite::Here {
        log: Some("/tmp/log"),
    };
    let lines = three_lines(&log.view(), text, place).unwrap();
    assert_eq!(
        lines,
        [
            "✗ build: step \"make\": exit code 2",
            "shop.c:3:1: error: no till",
            "log: /tmp/log; re-run: shipway run --job build",
        ]
    );
    let wrong = Log::open(spec(
        "on: push\njobs:\n  a: { runs-on: x, needs: b, steps: [{ run: a }] }\n",
    ));
    let lines = three_lines(&wrong.view(), "", RunSite::Server).unwrap();
    assert!(
        lines[0].contains("needs `b`, which doesn't exist"),
        "{lines:?}"
    );
    let green = driven(&BTreeSet::new(), None);
    assert_eq!(three_lines(&green.view(), "", RunSite::Server), None);
}

#[test]
fn of_a_job_that_runs_again_only_its_last_time_counts() {
    let mut log = failed_after_tests(&[2], None);
    log.say(RunInput::ServiceNotified).unwrap();
    let again = RerunSelection::Job(job("a"));
    log.say(RunInput::Rerun { again, from: None }).unwrap();
    // It hasn't reported yet: what it said before is history.
    let tests = log.view().tests.unwrap();
    assert_eq!((tests.totals.tests, tests.coverage), (0, None));
    assert_eq!((tests.jobs.len(), tests.latest().count()), (1, 0));
    // The same report word by word is a new one.
    log.start("a");
    let say = RunInput::TestsReported {
        key: job("a"),
        tests: reported(None, 50),
    };
    assert_eq!(log.say(say.clone()), Ok(1));
    assert_eq!(log.say(say), Ok(0));
    let tests = log.view().tests.unwrap();
    assert_eq!((tests.totals.tests, tests.jobs.len()), (2, 2));
    let latest: Vec<u32> = tests.latest().map(|it| it.tests.attempt).collect();
    assert_eq!(latest, [2]);
    is_the_same_from_every_length(&log);
}
