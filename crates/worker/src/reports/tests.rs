//! Reports of real tools (`samples/`), and malformed ones.

use std::time::{Duration, SystemTime};

use shipway_workflow::report::{Coverage, CoverageCount, TestReport};

use super::{
    StepSpan, aggregate::ReportAggregate, coverage, junit, read_reports, report_finder,
    report_patterns,
};
use crate::mask::Masker;

fn nobody() -> Masker {
    Masker::new([])
}

fn tests(text: &str) -> (TestReport, Result<(), String>) {
    let masker = nobody();
    let mut aggregate = ReportAggregate::new(&masker);
    let done = junit::read_junit(text, &mut aggregate);
    let done = done.map_err(|error| error.to_string());
    (aggregate.into_report(), done)
}

/// One line per test.
fn told(text: &str) -> Vec<String> {
    let (report, done) = tests(text);
    assert_eq!(done, Ok(()));
    let line = |case: &shipway_workflow::report::TestCase| {
        let message = case.message.as_ref().map(|text| format!(": {text}"));
        let steadiness = if case.is_flaky() {
            format!(" {:?}", case.steadiness)
        } else {
            String::new()
        };
        format!(
            "{} {:?}{steadiness} {} ms{}",
            case.id,
            case.outcome,
            case.took_ms,
            message.unwrap_or_default()
        )
    };
    report.cases.iter().map(line).collect()
}

#[test]
fn pytest() {
    assert_eq!(
        told(include_str!("samples/pytest.xml")),
        [
            "tests.test_shop/test_needs_database Errored 1 ms: failed on setup with \"RuntimeError: no database\"",
            "tests.test_shop/test_odd[1] Passed 1 ms",
            "tests.test_shop/test_odd[<&>] Passed 5 ms",
            "tests.test_shop/test_odd[a/b \\xfc] Passed 1 ms",
            "tests.test_shop.TestCart/test_adds Passed 1 ms",
            "tests.test_shop.TestCart/test_discount Failed 2 ms: AssertionError: nine cost eight",
            "tests.test_shop.TestCart/test_later Skipped 1 ms",
        ]
    );
}

#[test]
fn unittest_and_node() {
    assert_eq!(
        told(include_str!("samples/unittest-xml-reporting.xml")),
        ["T/test_a Passed 9 ms", "T/test_b Failed 1 ms: 1 != 2"]
    );
    assert_eq!(
        told(include_str!("samples/node.xml")),
        [
            "adds Passed 1 ms",
            "cart/breaks Failed 1 ms: 1 == 2",
            "cart/later Skipped 0 ms",
            "cart/sums Passed 0 ms",
        ]
    );
}

#[test]
fn nextest_and_surefire_say_what_they_ran_again() {
    assert_eq!(
        told(include_str!("samples/nextest.xml")),
        [
            "nx/tests::adds Passed 12 ms",
            "nx/tests::breaks Failed 289 ms: assertion `left == right` failed: sums are off",
            "nx/tests::flaky Passed PassedOnRerun 9 ms: first time",
        ]
    );
    assert_eq!(
        told(include_str!("samples/surefire.xml")),
        [
            "com.example.CartTest/adds Passed 11 ms",
            "com.example.CartTest/later Skipped 0 ms",
            "com.example.CartTest/pays Failed 20 ms: java.lang.IllegalStateException: no till",
            "com.example.CartTest/waits Passed PassedOnRerun 500 ms: expected: <1> but was: <2>",
        ]
    );
}

#[test]
fn gotestsum_jest_phpunit_and_googletest() {
    assert_eq!(
        told(include_str!("samples/gotestsum.xml")),
        [
            "example.com/shop/cart/TestAdds Passed 0 ms",
            "example.com/shop/cart/TestPrices/no_stock Failed 0 ms: cart_test.go:14: price = 3, want 8",
            "example.com/shop/cart/TestWaits Passed Mixed 12 ms: cart_test.go:20: too late",
        ]
    );
    assert_eq!(
        told(include_str!("samples/jest-junit.xml")),
        [
            "cart/cart adds Passed 3 ms",
            "cart/cart discounts Failed 4 ms: Error: expect(received).toBe(expected) // Object.is equality",
        ]
    );
    assert_eq!(
        told(include_str!("samples/phpunit.xml")),
        [
            "Tests.CartTest/testAdds Passed 3 ms",
            "Tests.CartTest/testDiscount with data set \"nine\" Failed 1 ms: Failed asserting that 3 matches expected 8.",
        ]
    );
    assert_eq!(
        told(include_str!("samples/googletest.xml")),
        [
            "Cart/DISABLED_Later Skipped 0 ms",
            "Cart/Discounts Failed 0 ms: cart_test.cc:13",
        ]
    );
}

#[test]
fn a_broken_report_gives_what_it_had() {
    let whole = include_str!("samples/pytest.xml");
    let (report, done) = tests(&whole[..whole.len() / 2]);
    assert!(done.is_err());
    assert!(!report.cases.is_empty() && report.cases.len() < 7);
    for (text, expected) in [
        ("", "no <testsuite>"),
        ("not XML at all", "no <testsuite>"),
        ("<html><body/></html>", "no <testsuite>"),
        (
            "<testsuite><testcase name='a'></testsuite>",
            "broken at byte",
        ),
        (&"<a>".repeat(1_000), "elements deep"),
    ] {
        let why = tests(text).1.unwrap_err();
        assert!(why.contains(expected), "{text:.40}: {why}");
    }
}

#[test]
fn entities_of_a_document_are_never_expanded() {
    let bomb = "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY x SYSTEM 'file:///etc/passwd'>]>\
        <testsuite><testcase name='&b;' classname='c'><failure>&b;&x;text</failure></testcase></testsuite>";
    let (report, done) = tests(bomb);
    assert_eq!(done, Ok(()));
    assert_eq!(report.cases[0].id.to_string(), "c/&b;");
    assert_eq!(report.cases[0].message.as_deref(), Some("text"));
}

#[test]
fn a_hundred_thousand_tests_are_read_and_more_than_enough_are_counted() {
    let cases: String = (0..100_000)
        .map(|at| format!("<testcase classname='c' name='t{at}' time='0.001'/>"))
        .collect();
    let (report, _) = tests(&format!("<testsuite>{cases}</testsuite>"));
    assert_eq!(report.cases.len(), 100_000);
    let masker = nobody();
    let mut aggregate = ReportAggregate::new(&masker);
    for case in report.cases {
        for part in 0..3 {
            let mut case = case.clone();
            case.id.class = format!("c{part}");
            aggregate.add_case(case);
        }
    }
    let report = aggregate.into_report();
    assert_eq!(report.cases.len(), 200_000);
    assert_eq!(
        report.warnings,
        ["100000 tests beyond the first 200000 are left out"]
    );
}

#[test]
fn secrets_are_masked_before_anything_is_cut() {
    let masker = Masker::new(["hunter2".to_owned()]);
    let mut aggregate = ReportAggregate::new(&masker);
    let name = format!("{}hunter2", "x".repeat(297));
    let text = format!(
        "<testsuite><testcase classname='hunter2' name='{name}'><failure message='{}hunter2'/></testcase></testsuite>",
        "y".repeat(995)
    );
    junit::read_junit(&text, &mut aggregate).unwrap();
    aggregate.add_warning("hunter2.xml: broken".to_owned());
    let shown = serde_json::to_string(&aggregate.into_report()).unwrap();
    assert!(
        !shown.contains("hunter") && !shown.contains("yhu") && !shown.contains("xhu"),
        "{shown}"
    );
}

fn covered(texts: &[&str]) -> Option<Coverage> {
    let masker = nobody();
    let mut aggregate = ReportAggregate::new(&masker).with_workspace(std::path::Path::new("/work"));
    for text in texts {
        coverage::read_coverage(text, &mut aggregate).unwrap();
    }
    aggregate.into_report().coverage
}

#[test]
fn coverage_is_of_lines_each_counted_once() {
    let lines = |covered, total| {
        Some(Coverage {
            lines: CoverageCount { covered, total },
            ..Coverage::default()
        })
    };
    assert_eq!(
        covered(&[include_str!("samples/cobertura.xml")]),
        lines(4, 4)
    );
    let lcov = "TN:\nSF:a.js\nDA:1,1\nDA:2,0\nDA:2,3\nDA:3,0\nLF:9\nLH:9\nBRF:4\nBRH:1\nend_of_record\nSF:b.js\nLF:10\nLH:4\nend_of_record\n";
    assert_eq!(
        covered(&[lcov, lcov]),
        Some(Coverage {
            lines: CoverageCount {
                covered: 6,
                total: 13
            },
            branches: CoverageCount {
                covered: 1,
                total: 4
            },
        })
    );
    let methods = "<coverage line-rate='0.5' lines-valid='2' lines-covered='1'><packages><package><classes><class filename='a.py'>\
        <methods><method><lines><line number='1' hits='1'/></lines></method></methods>\
        <lines><line number='1' hits='1' branch='true' condition-coverage='50% (1/2)'/><line number='2' hits='0'/></lines></class></classes></package></packages></coverage>";
    assert_eq!(
        covered(&[methods]).unwrap().lines,
        CoverageCount {
            covered: 1,
            total: 2
        }
    );
    let totals_only = "<coverage line-rate='0.9' lines-valid='10' lines-covered='9'/>";
    assert_eq!(covered(&[totals_only]), lines(9, 10));
    let liar = "SF:a\nLF:1\nLH:18446744073709551615\nend_of_record";
    assert_eq!(covered(&[liar]), lines(1, 1));
    // Several reports of one file are merged, whatever the path prefix.
    let one = "SF:/work/a.js\nDA:1,1\nDA:2,0\nend_of_record\n";
    let other = "SF:./a.js\nDA:2,4\nDA:3,0\nend_of_record\n";
    let inside = "SF:/__w/shop/shop/a.js\nDA:4,1\nend_of_record\n";
    assert_eq!(covered(&[one, other, inside]), lines(3, 4));
    for other in [
        "<coverage clover='4'><project/></coverage>",
        "<report name='jacoco'/>",
        "just text",
    ] {
        assert_eq!(covered(&[other]), None, "{other}");
    }
}

#[test]
fn caches_and_packages_are_left_out_unless_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for path in [
        "a/TEST-1.xml",
        "node_modules/x/TEST-2.xml",
        ".git/TEST-3.xml",
        "target/surefire-reports/TEST-4.xml",
        "cargo/TEST-5.xml",
        "TEST-6.txt",
    ] {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), "x").unwrap();
    }
    std::fs::write(at("cargo/CACHEDIR.TAG"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("TEST-7.xml")).unwrap();
    std::os::unix::fs::symlink(folder.path(), at("loop")).unwrap();
    let names = |patterns: &[&str]| {
        let paths = shipway_workflow::report::ReportPaths {
            junit: patterns
                .iter()
                .map(|pattern| (*pattern).to_owned())
                .collect(),
            ..Default::default()
        };
        let (found, trouble) =
            report_finder::find_reports(folder.path(), &report_patterns(&paths).unwrap());
        assert_eq!(trouble, None);
        found
            .into_iter()
            .map(|found| found.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[]),
        ["a/TEST-1.xml", "target/surefire-reports/TEST-4.xml"]
    );
    assert_eq!(names(&["./cargo/*.xml"]), ["cargo/TEST-5.xml"]);
    assert_eq!(
        names(&["node_modules/**/*.xml", "a/*"]),
        ["a/TEST-1.xml", "node_modules/x/TEST-2.xml"]
    );
}

/// A report with a failed test, written between steps 0 and 1, of which step 1 failed.
fn explained(written: SystemTime, began: SystemTime, more: &str) -> (TestReport, Option<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("TEST-a.xml");
    std::fs::write(
        &path,
        format!("<testsuite><testcase name='a'><failure/></testcase></testsuite>{more}"),
    )
    .unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(written).unwrap();
    let step = |index, from: u64, to: u64, why: Option<&str>| StepSpan {
        index,
        began: began + Duration::from_secs(from),
        ended: began + Duration::from_secs(to),
        fetches: index == 0,
        conclusion: if why.is_some() {
            super::Conclusion::Failure
        } else {
            super::Conclusion::Success
        },
        why: why.map(str::to_owned),
        earlier: false,
    };
    let spans = [
        step(0, 0, 10, None),
        step(1, 10, 20, None),
        step(2, 20, 30, Some("exit code 1")),
    ];
    let masker = nobody();
    read_reports(&Default::default(), folder.path(), began, &spans, &masker)
}

#[test]
fn only_what_the_failed_step_wrote_explains_it() {
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let at = |seconds| began + Duration::from_secs(seconds);
    let (report, explains) = explained(at(25), began, "");
    assert_eq!((report.cases.len(), explains), (1, Some(2)));
    let (report, explains) = explained(at(15), began, "");
    assert_eq!((report.cases.len(), explains), (1, None));
    // Checked out, or older than the job.
    assert_eq!(explained(at(5), began, "").0, TestReport::default());
    assert_eq!(
        explained(began - Duration::from_secs(60), began, "").0,
        TestReport::default()
    );
    let (report, _) = explained(at(25), began, "<broken");
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
}
