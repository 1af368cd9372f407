//! Output of steps, including hostile output, in the log and the journal.

mod support;

use shipway_workflow::job::{AnnotationLevel, Conclusion::*, JournalBody};
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

fn annotations(outcome: &support::Outcome) -> Vec<JournalBody> {
    let bodies = outcome.entries.iter().map(|entry| entry.body.clone());
    bodies
        .filter(|body| matches!(body, JournalBody::Annotation { .. }))
        .collect()
}

#[test]
fn annotations_say_where_and_hold_no_secrets() {
    let bench = Bench::steps(
        r###"- { run: 'touch a.rs; echo "::error file=$PWD/a.rs,line=1,endLine=1,col=2,endColumn=9,title=Ha hunter2::bad%0Ahunter2%25"' }
- { run: 'echo "12:00 ##[warning file=b.rs;line=7]older]"; echo "::notice::plain"; echo "##[group]x"; echo "##[endgroup]"; echo "##[command]git"' }"###,
    );
    let outcome = bench.secrets(&[("PASSWORD", "hunter2")]).run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let [first, second, third] = annotations(&outcome).try_into().unwrap();
    let expected = JournalBody::Annotation {
        level: AnnotationLevel::Error,
        message: "bad\n***%".to_owned(),
        file: Some("a.rs".to_owned()),
        line: Some(1),
        end_line: Some(1),
        column: Some(2),
        end_column: Some(9),
        title: Some("Ha ***".to_owned()),
    };
    assert_eq!(first, expected);
    assert!(matches!(
        second,
        JournalBody::Annotation {
            level: AnnotationLevel::Warning,
            line: Some(7),
            ..
        }
    ));
    assert!(matches!(
        third,
        JournalBody::Annotation {
            level: AnnotationLevel::Notice,
            file: None,
            ..
        }
    ));
    for line in [
        "##[error]bad",
        "##[warning]older]",
        "##[group]x",
        "##[endgroup]",
        "##[command]git",
    ] {
        assert!(
            outcome.log.lines().any(|it| it == line),
            "{line}: {}",
            outcome.log
        );
    }
    assert!(!outcome.journal().contains("hunter2") && !outcome.log.contains("hunter2"));
}

#[test]
fn debug_is_shown_to_those_who_asked_for_it() {
    let steps = r#"- { run: 'echo "::debug::why%0Anot"; echo "> [$RUNNER_DEBUG] [${{ runner.debug }}] true"' }"#;
    let quiet = Bench::steps(steps).run();
    assert_eq!(quiet.told(), ["[] [] true"]);
    assert!(!quiet.log.contains("##[debug]"), "{}", quiet.log);
    let loud = Bench::steps(steps)
        .secrets(&[("ACTIONS_STEP_DEBUG", "true")])
        .run();
    assert_eq!(loud.told(), ["[1] [1] true"], "{}", loud.log);
    assert!(
        loud.log.contains("##[debug]why\n##[debug]not"),
        "{}",
        loud.log
    );
}

#[test]
fn a_matcher_counts_for_the_steps_after_it() {
    let bench = Bench::steps(
        r#"- { run: 'echo "::add-matcher::m.json"' }
- { id: a, run: 'echo "a.c:3: no"; echo "::stop-commands::w0rd"; echo "::remove-matcher owner=cc::"; echo "a.c:4: no"; echo "::w0rd::"' }
- { run: 'echo "::remove-matcher owner=cc::"; echo "a.c:5: no"' }
- { id: bad, continue-on-error: true, run: 'echo "::add-matcher::bad.json"' }"#,
    )
    .file("a.c", "")
    .file("m.json", r#"{"problemMatcher": [{"owner": "cc", "pattern": [{"regexp": "^(.+):(\\d+): (.*)$", "file": 1, "line": 2, "message": 3}]}]}"#)
    .file("bad.json", r#"{"problemMatcher": [{"owner": "bad", "pattern": [{"regexp": "(?=x)(x)", "message": 1}]}]}"#);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let lines: Vec<u32> = annotations(&outcome)
        .iter()
        .filter_map(|it| match it {
            JournalBody::Annotation { line, .. } => *line,
            _ => None,
        })
        .collect();
    assert_eq!(lines, [3, 4], "{}", outcome.log);
    let why = outcome.step("bad").2.unwrap();
    assert!(
        why.contains("look-around") && why.contains("bad.json"),
        "{why}"
    );
}

#[test]
fn a_secret_that_comes_in_two_writes_is_not_seen() {
    let bench = Bench::steps(
        r#"- { id: a, run: 'printf hun; sleep 0.2; printf "ter2\n"; printf hunt >&2; sleep 0.1; printf "er2" >&2' }
- { id: b, run: 'head -c 2000000 /dev/zero | tr "\0" x; printf hunt; sleep 0.1; echo er2' }"#,
    );
    let outcome = bench.secrets(&[("PASSWORD", "hunter2")]).run();
    assert_eq!(outcome.conclusion, Success);
    assert_eq!(outcome.printed("a"), "***\n***");
    // Long lines are written in pieces.
    let long = outcome.printed("b").replace('\n', "");
    assert!(long == "x".repeat(2_000_000) + "***", "{}", long.len());
}

#[test]
fn hostile_output_harms_nobody() {
    let bench = Bench::steps(
        r#"- { id: binary, run: 'head -c 300000 /dev/urandom; echo; printf "a\0b\n"' }
- { id: named, run: 'for name in PATH IFS LD_PRELOAD BASH_ENV _ 1 a-b; do echo "$name=/nowhere" >> "$GITHUB_OUTPUT"; done' }
- { id: after, run: 'ls / > /dev/null && echo "> ${{ steps.named.outputs.PATH }} ${{ steps.named.outputs.a-b }}"' }
- { id: endless, continue-on-error: true, run: 'printf "A=1\nB<<END\nnever\n" >> "$GITHUB_OUTPUT"' }
- { id: env, continue-on-error: true, run: 'printf "A<<END\nnever\n" >> "$GITHUB_ENV"' }
- { id: node, continue-on-error: true, run: 'echo "NODE_OPTIONS=--require=/tmp/x" >> "$GITHUB_ENV"' }
- { run: 'echo "> [$A] [$NODE_OPTIONS]"' }"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success);
    assert_eq!(outcome.told(), ["/nowhere /nowhere", "[] []"]);
    assert_eq!(outcome.step("binary").0, Success);
    for (step, why) in [("endless", "END"), ("env", "END"), ("node", "NODE_OPTIONS")] {
        let (went, _, said) = outcome.step(step);
        assert_eq!(went, Failure);
        assert!(said.clone().unwrap().contains(why), "{step}: {said:?}");
    }
}
