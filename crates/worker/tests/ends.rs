//! Jobs that are cancelled, time out, are killed, are started twice, or run on a full disk.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use shipway_worker::{JOURNAL_FILE, read_journal};
use shipway_workflow::job::{Conclusion::*, JournalBody};
use support::{Bench, is_alive, signal, until, wait};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

#[test]
fn cancelled_a_step_is_interrupted_and_what_always_runs_runs() {
    let bench = Bench::steps(
        r#"- { id: a, run: 'trap "echo interrupted; exit 7" INT; echo ready; while true; do sleep 0.05; done' }
- { id: b, run: echo no }
- { id: c, if: always(), run: 'echo cleaned up' }
- { id: d, if: cancelled(), run: 'echo ${{ job.status }}' }
- { id: e, if: failure(), run: echo no }"#,
    );
    let mut worker = bench.start();
    bench.await_log("ready");
    let begun = Instant::now();
    signal(&worker, Signal::TERM);
    wait(&mut worker);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let outcome = bench.outcome();
    assert_eq!(
        (outcome.conclusion, outcome.why.as_deref()),
        (Cancelled, Some("cancelled"))
    );
    assert_eq!(outcome.step("a").0, Cancelled);
    assert!(
        outcome.printed("a").contains("interrupted"),
        "{}",
        outcome.log
    );
    let rest = ["b", "c", "d", "e"].map(|id| outcome.step(id).1);
    assert_eq!(rest, [Skipped, Success, Success, Skipped]);
    assert!(
        outcome.log.contains("cleaned up") && outcome.log.ends_with("cancelled"),
        "{}",
        outcome.log
    );
}

#[test]
fn a_step_that_always_runs_goes_on_when_cancelled_and_ends_when_asked_again() {
    let bench = Bench::steps(
        r#"- { id: a, if: always(), run: 'echo ready; while [ ! -e go ]; do sleep 0.01; done; echo went on; sleep 1000' }
- { id: b, if: always(), run: echo no }"#,
    );
    let mut worker = bench.start();
    bench.await_log("ready");
    signal(&worker, Signal::TERM);
    fs::write(bench.folder().join("workspace/go"), "").unwrap();
    bench.await_log("went on");
    signal(&worker, Signal::TERM);
    wait(&mut worker);
    let outcome = bench.outcome();
    assert_eq!(outcome.conclusion, Cancelled);
    assert_eq!(
        (outcome.step("a").0, outcome.step("b").1),
        (Cancelled, Skipped)
    );
}

#[test]
fn what_ignores_every_signal_is_killed_with_its_group() {
    let bench = Bench::steps(
        r#"- id: a
  run: |
    trap '' INT TERM
    sh -c 'trap "" INT TERM; echo $$ > child; sleep 1000' &
    echo $$ > shell
    while [ ! -s child ]; do sleep 0.01; done
    echo ready
    while true; do sleep 1; done"#,
    );
    let mut worker = bench.start();
    bench.await_log("ready");
    let begun = Instant::now();
    signal(&worker, Signal::TERM);
    wait(&mut worker);
    // SIGTERM is sent 7.5 s after SIGINT, SIGKILL 2.5 s later.
    let took = begun.elapsed().as_secs_f64();
    assert!((9.5..14.0).contains(&took), "{took}");
    assert_eq!(bench.outcome().step("a").0, Cancelled);
    for file in ["shell", "child"] {
        assert!(
            !is_alive(&bench.folder().join("workspace").join(file)),
            "{file}"
        );
    }
}

#[test]
fn a_step_out_of_time_fails_and_a_job_out_of_time_is_cancelled() {
    let outcome = Bench::steps("- { id: a, timeout-minutes: 0.005, run: sleep 1000 }\n- { id: b, if: failure(), run: echo yes }").run();
    assert_eq!(outcome.conclusion, Failure);
    assert_eq!(
        outcome.step("a").2.as_deref(),
        Some("the step took longer than 0.005 min")
    );
    assert_eq!(outcome.step("b").1, Success);

    let outcome =
        Bench::steps("- { id: a, run: sleep 1000 }\n- { id: b, if: always(), run: echo yes }")
            .timeout(Duration::from_millis(300))
            .run();
    assert_eq!(outcome.conclusion, Cancelled);
    assert_eq!(
        outcome.why.as_deref(),
        Some("the job took longer than 0.005 min")
    );
    assert_eq!(
        (outcome.step("a").0, outcome.step("b").1),
        (Cancelled, Success)
    );
}

#[test]
fn a_killed_worker_leaves_a_readable_journal_and_its_job_is_not_run_again() {
    let bench = Bench::steps("- { id: a, run: 'echo $$ > pid; echo ready; exec sleep 1000' }");
    let mut worker = bench.start();
    bench.await_log("ready");
    signal(&worker, Signal::KILL);
    wait(&mut worker);
    let entries = read_journal(&bench.folder().join(JOURNAL_FILE)).unwrap();
    assert!(matches!(
        entries.last().unwrap().body,
        JournalBody::StepStarted { .. }
    ));
    // A second worker runs nothing and removes the spec with its secrets.
    let mut second = bench.start();
    wait(&mut second);
    assert_eq!(
        read_journal(&bench.folder().join(JOURNAL_FILE)).unwrap(),
        entries
    );
    assert!(!bench.folder().join("job.json").exists());
    let pid = fs::read_to_string(bench.folder().join("workspace/pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn of_two_workers_one_runs_the_job() {
    let bench =
        Bench::steps("- { id: a, run: 'echo once; while [ ! -e go ]; do sleep 0.01; done' }");
    let mut first = bench.start();
    bench.await_log("once");
    let mut second = bench.start();
    fs::write(bench.folder().join("workspace/go"), "").unwrap();
    wait(&mut first);
    wait(&mut second);
    let outcome = bench.outcome();
    assert_eq!(outcome.conclusion, Success);
    assert_eq!(outcome.log.matches("\nonce").count(), 1, "{}", outcome.log);
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_not_the_job() {
    let bench = Bench::steps(
        r#"- { id: a, run: 'seq 1 300000; echo done > "$GITHUB_WORKSPACE/../ran"' }
- { id: b, run: echo after }"#,
    );
    // A file system of 1 MiB; without permission to mount, the log is `/dev/full`.
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "shipway-test"])
        .arg(bench.folder())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        std::os::unix::fs::symlink("/dev/full", bench.folder().join("log")).unwrap();
    }
    let mut worker = bench.start();
    wait(&mut worker);
    let entries = read_journal(&bench.folder().join(JOURNAL_FILE));
    if mounted {
        until("the file system let go", || {
            let gone = std::process::Command::new("umount")
                .arg(bench.folder())
                .output();
            gone.is_ok_and(|output| output.status.success())
        });
    }
    let entries = entries.unwrap();
    let Some(JournalBody::Finished { why: Some(why), .. }) =
        entries.last().map(|entry| &entry.body)
    else {
        panic!("{entries:#?}");
    };
    assert!(
        why.contains("lines of the log were lost because the disk was full"),
        "{why}"
    );
}
