//! Background steps.

mod support;

use std::time::Duration;

use shipway_workflow::job::{Conclusion::*, JournalBody};
use support::{Bench, Outcome, is_alive};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// Lines with `> `, except those of logged scripts.
fn told(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.log.lines();
    lines
        .filter(|line| line.starts_with("> ") || (line.starts_with('[') && line.contains("] > ")))
        .collect()
}

const AWAIT: &str =
    "await() { for i in $(seq 200); do [ -e $1 ] && return; sleep 0.02; done; exit 7; }";

#[test]
fn a_step_in_the_background_runs_beside_the_next_and_is_known_after_the_wait() {
    let outcome = Bench::steps(&format!(
        r#"- id: server
  background: true
  run: |
    {AWAIT}
    touch up; await asked
    echo "> a"
    echo answer=42 >> "$GITHUB_OUTPUT"; echo LATER=later >> "$GITHUB_ENV"
    echo "::add-mask::hunter2"; echo "::warning::from beside"; printf '> no newline'
    sleep 0.1; touch answered; await last
- run: |
    {AWAIT}
    await up; touch asked; await answered; trap 'touch last' EXIT
    echo "> b ${{{{ steps.server.outputs.answer }}}} [$LATER] hunter2"
- {{ id: w, name: Waiting, wait: server }}
- {{ run: 'echo "> c ${{{{ steps.server.outputs.answer }}}} $LATER ${{{{ steps.server.outcome }}}}"' }}"#
    ))
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        told(&outcome),
        [
            "[server] > a",
            "> b  [] ***",
            "[server] > no newline",
            "> c 42 later success"
        ]
    );
    assert_eq!(outcome.step("w").0, Success);
    assert!(outcome.entries.iter().any(
        |entry| matches!(&entry.body, JournalBody::Annotation { message, .. } if message == "from beside")
    ));
}

#[test]
fn a_failure_beside_fails_the_job_when_it_is_waited_for() {
    let outcome = Bench::steps(
        r#"- { id: bad, run: exit 3, background: true }
- { id: soft, run: exit 4, background: true, continue-on-error: true }
- { run: "sleep 0.2; echo '> still fine'" }
- { id: one, wait: [soft] }
- { id: two, wait: [bad] }
- { run: "echo '> never'" }
- { if: always(), run: "echo '> ${{ job.status }} ${{ steps.bad.conclusion }} ${{ steps.soft.outcome }}'" }"#,
    )
    .run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    assert_eq!(
        told(&outcome),
        ["> still fine", "> failure failure failure"]
    );
    assert_eq!(outcome.step("one").0, Success);
    assert_eq!(
        outcome.step("two"),
        (Failure, Failure, Some("bad: exit code 3".to_owned()))
    );
    assert_eq!(
        outcome.why.as_deref(),
        Some("step \"Wait for bad\": bad: exit code 3")
    );
    // `continue-on-error` applies to a waiting step, too.
    let outcome = Bench::steps(
        "- { run: exit 3, background: true }\n- { wait-all: , continue-on-error: true }\n- { run: \"echo '> on'\" }",
    )
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(told(&outcome), ["> on"]);
}

#[test]
fn what_nobody_waits_for_is_waited_for_at_the_end() {
    let outcome = Bench::steps("- { id: slow, run: 'sleep 0.3; exit 5', background: true }").run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    assert_eq!(
        outcome.names(),
        ["Run sleep 0.3; exit 5", "Wait for all background steps"]
    );
    assert_eq!(outcome.step("slow").2.as_deref(), Some("exit code 5"));
}

#[test]
fn a_step_that_is_cancelled_ends_and_the_job_goes_on() {
    let outcome = Bench::steps(&format!(
        r#"- id: monitor
  background: true
  if: always()
  run: |
    echo $$ > pid; trap 'echo "> ended"; exit 0' INT; touch up
    while :; do sleep 0.05; done
- run: |
    {AWAIT}
    await up
- {{ id: end, cancel: monitor }}
- {{ run: "echo '> on ${{{{ steps.monitor.outcome }}}}'" }}"#
    ))
    .run_keeping(|bench, outcome| {
        assert!(!is_alive(&bench.folder().join("workspace/pid")));
        outcome
    });
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(told(&outcome), ["[monitor] > ended", "> on cancelled"]);
    assert_eq!(outcome.step("end").0, Success);
    assert_eq!(outcome.step("monitor").0, Cancelled);
}

#[test]
fn a_group_runs_at_once_and_is_waited_for() {
    let steps: String = (0..3)
        .map(|n| {
            let others: String = (0..3).map(|m| format!("await {m}; ")).collect();
            format!("    - {{ id: s{n}, run: '{AWAIT}; touch {n}; {others} echo \"> {n}\"' }}\n")
        })
        .collect();
    let outcome = Bench::steps(&format!(
        "- parallel:\n{steps}- {{ run: \"echo '> after'\" }}"
    ))
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let mut told = told(&outcome);
    assert_eq!(told.pop(), Some("> after"));
    told.sort_unstable();
    assert_eq!(told, ["[s0] > 0", "[s1] > 1", "[s2] > 2"]);
}

#[test]
fn at_most_ten_run_at_once() {
    let steps: String = (0..14)
        .map(|n| {
            format!(
                "- {{ background: true, run: 'mkdir -p on; touch on/{n}; ls on | wc -l >> most; sleep 0.3; rm on/{n}' }}\n"
            )
        })
        .collect();
    let outcome = Bench::steps(&format!(
        "{steps}- wait-all:\n- {{ run: 'echo \"> $(sort -n most | tail -1)\"' }}"
    ))
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let most: u32 = told(&outcome)[0][2..].parse().unwrap();
    assert!((2..=10).contains(&most), "{most}");
}

#[test]
fn an_action_may_run_beside_and_leaves_its_posts_to_the_end() {
    let node = std::process::Command::new("node").arg("--version").output();
    if !node.is_ok_and(|it| it.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "there is no node");
        println!("skipped, because there is no node on this machine");
        return;
    }
    let outcome = Bench::steps(
        "- { id: made, uses: ./made, background: true }\n- { wait: made }\n- { run: \"echo '> ${{ steps.made.outputs.o }}'\" }",
    )
    .file(
        "made/action.yml",
        "outputs: { o: { value: '${{ steps.s.outputs.o }}' } }\nruns:\n  using: composite\n  steps:\n    - { id: s, shell: sh, run: 'echo o=made >> $GITHUB_OUTPUT' }\n    - { uses: ./js }\n",
    )
    .file("js/action.yml", "runs: { using: node20, main: m.js, post: p.js }")
    .file("js/m.js", "console.log('::save-state name=s::state')")
    .file("js/p.js", "console.log(`> post ${process.env.STATE_s}`)")
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(told(&outcome), ["> made", "> post state"]);
}

#[test]
fn a_step_in_the_background_that_always_runs_goes_on_when_the_job_is_cancelled() {
    let bench = Bench::steps(
        r#"- { id: b, background: true, if: always(), run: "touch up; while [ ! -e go ]; do sleep 0.02; done; echo '> cleaned'" }
- { run: 'while [ ! -e up ]; do sleep 0.02; done; echo up; trap "exit 1" INT; sleep 60 & wait' }
- { if: always(), run: touch go }"#,
    )
    .timeout(Duration::from_secs(60));
    let outcome = bench.cancelled_at("up");
    assert_eq!(outcome.step("b").0, Success, "{}", outcome.log);
    assert_eq!(told(&outcome), ["[b] > cleaned"]);
}

#[test]
fn a_cancelled_job_ends_its_steps_in_the_background_too() {
    let bench = Bench::steps(
        "- { id: b, background: true, run: 'echo $$ > pid; trap \"exit 1\" INT; sleep 60 & wait' }\n- { run: 'while [ ! -e pid ]; do sleep 0.02; done; echo up; trap \"exit 1\" INT; sleep 60 & wait' }",
    )
    .timeout(Duration::from_secs(60));
    let outcome = bench.cancelled_at("up");
    assert_eq!(outcome.step("b").0, Cancelled);
    assert!(!is_alive(&bench.folder().join("workspace/pid")));
}
