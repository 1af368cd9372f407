//! Flaky tests, quarantine and what it excuses.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::ids::{CommitId, RunNumber};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn days(days: i64) -> Timestamp {
    at(0) + SignedDuration::from_hours(24 * days)
}

fn commit(number: u8) -> CommitId {
    format!("{number:040x}").parse().unwrap()
}

fn id(name: &str) -> TestId {
    TestId::new("", "tests.test_shop", name)
}

fn case(name: &str, outcome: TestOutcome) -> TestCase {
    TestCase {
        id: id(name),
        outcome,
        took_ms: 1,
        steadiness: TestStability::Steady,
        message: outcome.is_bad().then(|| "1 != 2".to_owned()),
        file: None,
        line: None,
    }
}

/// `a+ b- c~ d?`: passed, failed, passed on a rerun, skipped.
fn report(tests: &str) -> TestReport {
    let one = |word: &str| {
        let (name, how) = word.split_at(word.len() - 1);
        let mut case = case(
            name,
            match how {
                "-" => TestOutcome::Failed,
                "?" => TestOutcome::Skipped,
                _ => TestOutcome::Passed,
            },
        );
        if how == "~" {
            case.steadiness = TestStability::PassedOnRerun;
        }
        case
    };
    TestReport {
        cases: tests.split_whitespace().map(one).collect(),
        ..TestReport::default()
    }
}

fn request(name: &str) -> QuarantineTerms {
    QuarantineTerms {
        test: id(name),
        owner: "ann".to_owned(),
        reason: "the clock".to_owned(),
        until: days(14),
        clean_runs: 3,
        touched_by: None,
    }
}

fn quarantine(names: &[&str]) -> TestingState {
    let mut testing = TestingState::default();
    for name in names {
        let fact = testing.quarantine(request(name), at(0)).unwrap();
        testing.apply(&fact, "bob", at(0));
    }
    testing
}

#[test]
fn a_test_is_flaky_that_passed_and_failed_on_one_commit() {
    let seen = |tried: &[(u32, &str, &str)]| -> Vec<String> {
        let reports: Vec<TestReport> = tried.iter().map(|(_, _, tests)| report(tests)).collect();
        let tried: Vec<TestedAttempt<'_>> = tried
            .iter()
            .zip(&reports)
            .map(|((run, job, _), report)| TestedAttempt {
                run: RunNumber(*run),
                job,
                report,
            })
            .collect();
        let told = |it: FlakySighting| format!("{}: {}", it.test.name, it.evidence);
        sightings(&tried).into_iter().map(told).collect()
    };
    assert_eq!(seen(&[(1, "test", "a+ b- c?")]), Vec::<String>::new());
    assert_eq!(
        seen(&[(1, "test", "a+ b~")]),
        ["b: failed and passed when test of r1 tried it again"]
    );
    assert_eq!(
        seen(&[(1, "test", "a+ b-"), (2, "test", "a+ b+")]),
        ["b: passed in r2 and failed in r1, both in test"]
    );
    assert_eq!(
        seen(&[(1, "test", "a+ b-"), (1, "test", "a+ b+")]),
        ["b: passed and failed in test of r1, run twice"]
    );
    assert_eq!(
        seen(&[(1, "test.1", "a- b+"), (1, "test.2", "a+ b+")]),
        ["a: passed in test.2 of r1 and failed in test.1 of r1; it may depend on the job"]
    );
    // All red, then all green: it was not the tests.
    assert_eq!(
        seen(&[(1, "test", "a- b- c- d- e-"), (2, "test", "a+ b+ c+ d+ e+")]),
        Vec::<String>::new()
    );
}

#[test]
fn only_tests_in_quarantine_excuse_a_job() {
    let judged = |tests: &str, explains: Option<usize>, changed: Option<&[&str]>, now| {
        let report = report(tests);
        let changed: Option<Vec<String>> =
            changed.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        let summary = TestSummary::from_report(&report, explains);
        excuse(
            &report,
            &summary,
            &quarantine(&["a", "b"]),
            changed.as_deref(),
            now,
        )
    };
    let fine = judged("a- b- c+", Some(3), Some(&["shop.py"]), at(0));
    assert_eq!((fine.step, fine.quarantined.len()), (Some(3), 2));
    assert!(judged("a+ b+ c+", None, Some(&[]), at(0)).is_nothing());
    assert!(judged("a+ b+ c-", Some(3), Some(&[]), at(0)).is_nothing());
    for (tests, explains, changed, now, why) in [
        (
            "a- c- d+",
            Some(3),
            Some(&["x"][..]),
            at(0),
            "test_shop/c fails too",
        ),
        (
            "a- c+",
            None,
            Some(&["x"]),
            at(0),
            "has other failures than its tests",
        ),
        (
            "a- c+",
            Some(3),
            Some(&["tests/test_shop.py"]),
            at(0),
            "this change touches it",
        ),
        ("a- c+", Some(3), None, at(0), "could not be determined"),
        (
            "a- b- c- d- e-",
            Some(3),
            Some(&["x"]),
            at(0),
            "5 of 5 tests fail",
        ),
    ] {
        let excuse = judged(tests, explains, changed, now);
        assert_eq!(excuse.step, None, "{tests}");
        let said = excuse.why_not.unwrap_or_default();
        assert!(said.contains(why), "{tests}: {said}");
    }
    assert!(judged("a- c+", Some(3), Some(&[]), days(14)).is_nothing());
    let mut broken = report("a- c+");
    broken.warnings.push("TEST-b.xml: it breaks off".to_owned());
    let summary = TestSummary::from_report(&broken, Some(3));
    assert_eq!(summary.explains, None);
    // Twice in one report, once failed: what came last doesn't excuse it.
    let mut mixed = report("a- c+");
    mixed.cases[1].steadiness = TestStability::Mixed;
    let summary = TestSummary::from_report(&mixed, Some(3));
    assert_eq!(
        excuse(&mixed, &summary, &quarantine(&["a"]), Some(&[]), at(0)).step,
        None
    );
}

#[test]
fn a_change_touches_the_tests_of_its_files() {
    let touched = |class: &str, name: &str, file: Option<&str>, path: &str| {
        let mut case = case(name, TestOutcome::Failed);
        case.id = TestId::new("", class, name);
        case.file = file.map(str::to_owned);
        is_touched(&case, &[path.to_owned()])
    };
    for (class, name, file, path) in [
        ("tests.test_shop.TestCart", "a", None, "tests/test_shop.py"),
        (
            "com.example.CartTest",
            "a",
            None,
            "src/test/java/com/example/CartTest.java",
        ),
        (
            "com.example.CartTest$Inner",
            "a",
            None,
            "src/test/java/com/example/CartTest.java",
        ),
        ("example.com/shop/cart", "TestA", None, "cart/cart_test.go"),
        ("shop", "cart::tests::adds", None, "crates/shop/src/cart.rs"),
        (
            "shop::serving",
            "lasting::a",
            None,
            "tests/serving/lasting.rs",
        ),
        ("shop", "cart::tests::adds", None, "src/cart/mod.rs"),
        ("", "adds", Some("/w/src/cart.test.js"), "src/cart.test.js"),
        ("", "adds", Some("src/cart.test.js"), "web/src/cart.test.js"),
        ("Tests.CartTest", "a", None, "tests/CartTest.php"),
        ("cart adds", "cart adds", None, "src/basket.spec.js"),
    ] {
        assert!(touched(class, name, file, path), "{class} {name} {path}");
    }
    for (class, name, path) in [
        ("tests.test_shop.TestCart", "a", "shop.py"),
        ("tests.test_shop.TestCart", "a", "README.md"),
        (
            "com.example.CartTest",
            "a",
            "src/main/java/com/example/Cart.java",
        ),
        ("example.com/shop/cart", "TestA", "till/till.go"),
        ("shop::serving", "lasting::a", "src/till.rs"),
        ("cart adds", "cart adds", "src/cart.js"),
    ] {
        assert!(!touched(class, name, None, path), "{class} {name} {path}");
    }
}

#[test]
fn what_is_new_is_what_did_not_fail_before() {
    let now = [report("a- b- c- d+ e+"), report("f- d+")];
    let base = [report("a- b+ d- e+ f?")];
    let compared = against(&now, &base);
    let new: Vec<_> = compared
        .new_failures
        .iter()
        .map(|it| (it.test.name.as_str(), it.was))
        .collect();
    assert_eq!(
        new,
        [
            ("b", EarlierResult::Passing),
            ("c", EarlierResult::Absent),
            ("f", EarlierResult::Skipped)
        ]
    );
    assert_eq!(compared.still_failing, [id("a")]);
    assert_eq!(compared.fixed, [id("d")]);
    let covered = |covered| {
        let lines = CoverageCount {
            covered,
            total: 100,
        };
        let coverage = Some(Coverage {
            lines,
            ..Coverage::default()
        });
        [TestReport {
            coverage,
            ..TestReport::default()
        }]
    };
    assert_eq!(
        against(&covered(80), &covered(85)).coverage_change,
        Some(-500)
    );
    assert_eq!(against(&covered(80), &[]).coverage_change, None);
}

#[test]
fn a_quarantine_has_an_owner_a_reason_and_an_end() {
    let testing = quarantine(&["a"]);
    let refused = |change: &dyn Fn(&mut QuarantineTerms)| {
        let mut request = request("b");
        change(&mut request);
        testing.quarantine(request, at(0)).unwrap_err().to_string()
    };
    for (change, why) in [
        (
            &(|it: &mut QuarantineTerms| it.owner.clear()) as &dyn Fn(&mut QuarantineTerms),
            "needs an owner",
        ),
        (
            &|it: &mut QuarantineTerms| it.reason = "  ".to_owned(),
            "needs a reason",
        ),
        (
            &|it: &mut QuarantineTerms| it.until = at(0),
            "must end within",
        ),
        (
            &|it: &mut QuarantineTerms| it.until = days(365),
            "must end within",
        ),
        (&|it: &mut QuarantineTerms| it.clean_runs = 0, "not 0"),
        (
            &|it: &mut QuarantineTerms| it.touched_by = Some(RunNumber(7)),
            "the change of r7 touches it",
        ),
    ] {
        let said = refused(change);
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(
        testing.release(id("b"), "ann"),
        Err(QuarantineRejection::Free(id("b")))
    );
    let mut testing = testing;
    let fact = testing.release(id("a"), "ann").unwrap();
    testing.apply(&fact, "ann", at(1));
    assert!(testing.quarantine.is_empty());
}

fn seen(run: u32, clean: &[&str], failed: &[&str]) -> TestResults {
    TestResults {
        run: RunNumber(run),
        reports: 1,
        commit: commit(run as u8),
        flaky: Vec::new(),
        clean: clean.iter().map(|name| id(name)).collect(),
        failed: failed.iter().map(|name| id(name)).collect(),
    }
}

#[test]
fn clean_runs_in_a_row_let_a_test_go_and_a_failure_begins_again() {
    let mut testing = quarantine(&["a"]);
    let mut hear = |seen: TestResults| -> Vec<TestingEvent> {
        if let Some(fact) = testing.record_results(seen) {
            testing.apply(&fact, "shipway", at(1));
        }
        testing.leaving(at(1))
    };
    assert_eq!(hear(seen(1, &["a"], &[])), []);
    assert_eq!(hear(seen(2, &["a"], &[])), []);
    assert_eq!(hear(seen(3, &[], &["a"])), []);
    assert_eq!(hear(seen(4, &["a"], &[])), []);
    // Said again, it counts once; run again, it was clean once.
    assert_eq!(hear(seen(4, &["a"], &[])), []);
    assert_eq!(
        hear(TestResults {
            reports: 2,
            ..seen(4, &["a"], &[])
        }),
        []
    );
    assert_eq!(hear(seen(5, &["a"], &[])), []);
    let [TestingEvent::Left { test, why }] = &hear(seen(6, &["a"], &[]))[..] else {
        panic!("it stays");
    };
    assert_eq!((test, why.as_str()), (&id("a"), "3 clean runs in a row"));
    assert_eq!(quarantine(&["a"]).next_end(), Some(days(14)));
    assert_eq!(quarantine(&["a"]).leaving(days(14)).len(), 1);
}

#[test]
fn a_flaky_test_is_remembered_by_commit() {
    let mut testing = TestingState::default();
    for (run, on) in [(1, 1), (2, 1), (3, 2)] {
        let sighting = FlakySighting {
            test: id("a"),
            evidence: FlakyEvidence::Rerun {
                run: RunNumber(run),
                job: "test".to_owned(),
            },
            message: None,
        };
        let seen = TestResults {
            commit: commit(on),
            flaky: vec![sighting],
            ..seen(run, &[], &[])
        };
        let fact = testing.record_results(seen).unwrap();
        testing.apply(&fact, "shipway", at(run.into()));
    }
    let [flaky] = &testing.flaky[..] else {
        panic!("{testing:?}")
    };
    assert_eq!(
        (flaky.commits, flaky.first_at, flaky.last_at),
        (2, at(1), at(3))
    );
}

/// What may happen to a quarantine.
#[derive(Clone, Debug)]
enum Step {
    Quarantine(u8, i64, u32),
    Release(u8),
    Run {
        run: u32,
        reports: u32,
        passed: u8,
        failed: u8,
    },
    Later(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, -1..10i64, 0..4u32)
            .prop_map(|(test, days, clean)| Step::Quarantine(test, days, clean)),
        (0..4u8).prop_map(Step::Release),
        (0..9u32, 1..3u32, 0..16u8, 0..16u8).prop_map(|(run, reports, passed, failed)| Step::Run {
            run,
            reports,
            passed,
            failed
        }),
        (0..4i64).prop_map(Step::Later),
    ]
}

fn named(bits: u8) -> Vec<TestId> {
    (0..4)
        .filter(|bit| bits & 1 << bit != 0)
        .map(|bit| id(&bit.to_string()))
        .collect()
}

proptest! {
    /// Against a model that knows of each test only its end and its clean runs.
    #[test]
    fn a_quarantine_keeps_to_its_terms(steps in proptest::collection::vec(step(), 0..60)) {
        let mut testing = TestingState::default();
        let mut model: BTreeMap<TestId, (Timestamp, u32, u32)> = BTreeMap::new();
        let (mut heard, mut runs) = (Vec::new(), Vec::new());
        let mut day = 0;
        for step in steps {
            let now = days(day);
            let fact = match step {
                Step::Quarantine(test, more, clean_runs) => {
                    let until = days(day + more);
                    let request = QuarantineTerms { until, clean_runs, ..request(&test.to_string()) };
                    let fact = testing.quarantine(request, now);
                    prop_assert_eq!(fact.is_ok(), more > 0 && clean_runs > 0);
                    if fact.is_ok() {
                        model.insert(id(&test.to_string()), (until, clean_runs, 0));
                    }
                    fact.ok()
                }
                Step::Release(test) => {
                    let test = id(&test.to_string());
                    let fact = testing.release(test.clone(), "ann");
                    prop_assert_eq!(fact.is_ok(), model.remove(&test).is_some());
                    fact.ok()
                }
                Step::Run { run, reports, passed, failed } => {
                    let (clean, failed) = (named(passed & !failed), named(failed));
                    let says = !clean.is_empty() || !failed.is_empty();
                    let fact = testing.record_results(TestResults { reports, clean: clean.clone(), failed: failed.clone(), ..seen(run, &[], &[]) });
                    let is_new = says && !heard.contains(&(run, reports));
                    prop_assert_eq!(fact.is_some(), is_new);
                    if is_new {
                        for (test, (_, _, count)) in &mut model {
                            if failed.contains(test) {
                                *count = 0;
                            } else if clean.contains(test) && !runs.contains(&run) {
                                *count += 1;
                            }
                        }
                        heard.push((run, reports));
                        runs.push(run);
                    }
                    fact
                }
                Step::Later(more) => { day += more; None }
            };
            let now = days(day);
            if let Some(fact) = fact {
                testing.apply(&fact, "ann", now);
            }
            for fact in testing.leaving(now) {
                testing.apply(&fact, "shipway", now);
            }
            model.retain(|_, (until, needed, count)| *until > now && *count < *needed);
            prop_assert!(testing.leaving(now).is_empty());
            let held: Vec<&TestId> = testing.held(now).into_iter().collect();
            prop_assert_eq!(held, model.keys().collect::<Vec<_>>());
            // What a snapshot gives back goes on the same.
            let text = serde_json::to_string(&testing).unwrap();
            prop_assert_eq!(serde_json::from_str::<TestingState>(&text).unwrap(), testing.clone());
        }
    }
}
