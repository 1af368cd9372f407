//! Test reports: what a real worker finds, stores and records.

mod support;

use std::io::Read;

use shipway_workflow::{
    job::{Conclusion, JournalBody},
    report::{StoredReport, TestReport},
};
use support::{Bench, Outcome, be_the_worker};

#[test]
#[ignore = "the worker that the other tests start"]
fn as_the_worker() {
    be_the_worker();
}

fn stored(outcome: &Outcome) -> Option<StoredReport> {
    let mut stored = outcome
        .entries
        .iter()
        .filter_map(|entry| match &entry.body {
            JournalBody::Reports(stored) => Some((**stored).clone()),
            _ => None,
        });
    let first = stored.next();
    assert!(stored.next().is_none());
    first
}

fn unpacked(stored: &StoredReport) -> TestReport {
    let mut text = String::new();
    let file = std::fs::File::open(&stored.path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), stored.size);
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_failed_jobs_tests_are_stored_and_noted_without_secrets() {
    let bench = Bench::steps(
        "- run: echo fine
- id: tests
  run: |
    mkdir -p out
    echo \"<testsuite><testcase classname='shop' name='adds'/><testcase classname='shop' name='pays'><failure message='till hunter2 is shut'/></testcase></testsuite>\" > out/TEST-shop.xml
    printf 'SF:shop.py\\nDA:1,1\\nDA:2,0\\nend_of_record\\n' > lcov.info
    exit 1
- run: echo after
  if: always()",
    )
    .secrets(&[("TILL", "hunter2")]);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Conclusion::Failure);
    let stored = stored(&outcome).unwrap();
    let summary = &stored.summary;
    assert_eq!((summary.totals.tests, summary.totals.failed), (2, 1));
    assert_eq!(summary.failing[0].id.to_string(), "shop/pays");
    assert_eq!(
        summary.failing[0].message.as_deref(),
        Some("till *** is shut")
    );
    assert_eq!(summary.explains, Some(1));
    assert_eq!(summary.coverage.unwrap().lines.basis_points(), Some(5_000));
    let report = unpacked(&stored);
    assert_eq!(report.cases.len(), 2);
    assert!(!serde_json::to_string(&report).unwrap().contains("hunter2"));
    assert!(!outcome.journal().contains("hunter2"));
}

#[test]
fn a_job_without_reports_notes_none_and_a_hostile_one_is_only_warned_of() {
    let outcome = Bench::steps("- run: echo fine").run();
    assert_eq!(stored(&outcome), None);
    let outcome = Bench::steps(
        "- run: |
    mkfifo TEST-fifo.xml
    ln -s /etc/passwd TEST-link.xml
    mkdir TEST-folder.xml
    head -c 34000000 /dev/zero > TEST-large.xml
    echo '<testsuite><testcase name=\"a\"/>' > TEST-torn.xml
    head -c 1000 /dev/urandom > TEST-noise.xml",
    )
    .run();
    assert_eq!(outcome.conclusion, Conclusion::Success);
    let stored = stored(&outcome).unwrap();
    let warnings = stored.summary.warnings.join("\n");
    assert_eq!(stored.summary.warnings.len(), 3, "{warnings}");
    for warning in [
        "TEST-large.xml: it is larger than 32 MiB",
        "TEST-torn.xml: it is incomplete",
        "TEST-noise.xml: it",
    ] {
        assert!(warnings.contains(warning), "{warnings}");
    }
    assert_eq!(stored.summary.totals.tests, 1);
}
