//! Steps as written in workflows: their contexts, variables and effects.

mod support;

use shipway_workflow::job::{Conclusion::*, JournalBody, NETWORK};
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

#[test]
fn outputs_variables_and_paths_reach_later_steps() {
    let outcome = Bench::job(
        r#"    env: { A: job, B: job }
    outputs:
      word: ${{ steps.first.outputs.word }}
      lines: ${{ steps.first.outputs.lines }}
    steps:
      - id: first
        env: { B: step }
        run: |
          echo "$A $B"
          echo "word=one=1" >> "$GITHUB_OUTPUT"
          printf 'lines<<E\na\nb\nE\n' >> "$GITHUB_OUTPUT"
          echo "C=from file" >> "$GITHUB_ENV"
          mkdir -p bin && printf '#!/bin/sh\necho mine\n' > bin/tool && chmod +x bin/tool
          echo "$PWD/bin" >> "$GITHUB_PATH"
          echo '# Fine' >> "$GITHUB_STEP_SUMMARY"
      - id: second
        run: |
          echo "$A $B $C ${{ steps.first.outputs.word }} ${{ env.C }} $(tool)"
          echo "::set-output name=old::way"
      - id: third
        shell: python
        run: print('${{ steps.second.outputs.old }}', ${{ 1 + 1 == 2 }})
"#
        .replace("${{ 1 + 1 == 2 }}", "${{ 2 == 2 && 'True' }}")
        .as_str(),
    )
    .run();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}");
    assert_eq!(outcome.printed("first"), "job step");
    assert_eq!(
        outcome.printed("second"),
        "job job from file one=1 from file mine"
    );
    assert_eq!(outcome.printed("third"), "way True");
    let expected = [("word", "one=1"), ("lines", "a\nb")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(outcome.outputs, expected);
}

#[test]
fn the_environment_is_clean_and_github_cannot_be_overwritten() {
    let outcome = Bench::steps(
        r#"- env: { GITHUB_REPOSITORY: theirs, RUNNER_OS: theirs, MINE: 1 }
  id: a
  run: |
    echo "GITHUB_SHA=theirs" >> "$GITHUB_ENV"
    env | sort | cut -d= -f1 | grep -v '^_$' | tr '\n' ' '
    echo; echo "$GITHUB_REPOSITORY $RUNNER_OS $CI $GITHUB_JOB $GITHUB_ACTION"
    [ "$HOME" != "${{ github.workspace }}" ] && [ "$PWD" = "$GITHUB_WORKSPACE" ] && echo apart
- id: b
  run: echo "$GITHUB_SHA""#,
    )
    .run();
    let printed = outcome.printed("a");
    let mut lines = printed.lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let known = [
        "CI",
        "HOME",
        "LANG",
        "MINE",
        "PATH",
        "PWD",
        "SHLVL",
        "TMPDIR",
        "CARGO_HOME",
        "CARGO_INSTALL_ROOT",
        "GEM_HOME",
        "NPM_CONFIG_GLOBALCONFIG",
        "RUSTUP_HOME",
        "SHIPWAY",
    ];
    let strange: Vec<_> = names
        .iter()
        .filter(|name| {
            let is_ours = name.starts_with("GITHUB_") || name.starts_with("RUNNER_");
            !known.contains(name) && !NETWORK.contains(name) && !is_ours
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(lines.next(), Some("shipway/shop Linux true a a"));
    assert_eq!(lines.next(), Some("apart"));
    assert_eq!(outcome.printed("b"), "0".repeat(40));
}

#[test]
fn conditions_see_how_the_steps_before_went() {
    let outcome = Bench::steps(
        r#"- { id: soft, run: exit 3, continue-on-error: true }
- { id: after_soft, run: 'echo "${{ steps.soft.outcome }} ${{ steps.soft.conclusion }}"' }
- { id: hard, run: exit 4 }
- { id: skipped, run: echo no }
- { id: cleanup, if: always(), run: 'echo "${{ job.status }}"' }
- { id: on_failure, if: "failure() && steps.hard.outcome == 'failure'", run: echo yes }
- { id: never, if: cancelled(), run: echo no }"#,
    )
    .run();
    assert_eq!(outcome.conclusion, Failure);
    assert_eq!(
        outcome.why.as_deref(),
        Some("step \"Run exit 4\": exit code 4")
    );
    assert_eq!(
        outcome.step("soft"),
        (Failure, Success, Some("exit code 3".to_owned()))
    );
    assert_eq!(outcome.printed("after_soft"), "failure success");
    assert_eq!(outcome.step("hard").1, Failure);
    assert_eq!(outcome.step("skipped").1, Skipped);
    assert_eq!(outcome.step("cleanup").1, Success);
    assert!(outcome.log.contains("\nfailure\n"), "{}", outcome.log);
    assert_eq!(outcome.step("on_failure").1, Success);
    assert_eq!(outcome.step("never").1, Skipped);
}

#[test]
fn a_step_that_writes_its_files_badly_fails_with_the_line() {
    for (run, why) in [
        (
            "printf 'a=1\\nnonsense\\n' >> $GITHUB_OUTPUT",
            "GITHUB_OUTPUT: line 2",
        ),
        (
            "printf 'a<<E\\nnever\\n' >> $GITHUB_OUTPUT",
            "\"E\" is missing",
        ),
        ("echo NODE_OPTIONS=x >> $GITHUB_ENV", "NODE_OPTIONS"),
        ("echo '::set-env name=A::1'", "GITHUB_ENV"),
        ("exit 1", "exit code 1"),
        ("kill -9 $$", "signal 9"),
    ] {
        let outcome = Bench::steps(&format!("- id: a\n  run: |\n    {run}")).run();
        let (result, _, said) = outcome.step("a");
        assert_eq!(result, Failure, "{run}");
        assert!(
            said.as_deref().unwrap_or_default().contains(why),
            "{run}: {said:?}"
        );
        assert!(outcome.log.contains("##[error]"), "{}", outcome.log);
    }
}

#[test]
fn shells_and_folders_are_those_that_were_asked_for() {
    let outcome = Bench::job(
        r#"    defaults: { run: { shell: sh, working-directory: sub } }
    steps:
      - { id: make, working-directory: ., run: mkdir sub other }
      - { id: a, run: 'basename $PWD; echo "${BASH_VERSION:-none}"' }
      - { id: b, shell: bash, working-directory: other, run: 'basename $PWD; false | true; echo no' }
      - { id: c, if: always(), shell: "bash -c \"echo custom; cat {0}\"", run: text }
      - { id: d, if: always(), working-directory: nowhere, run: true }
      - { id: e, if: always(), shell: fish, run: true }"#,
    )
    .run();
    assert_eq!(outcome.printed("a"), "sub\nnone");
    assert_eq!(outcome.printed("b"), "other\n##[error]exit code 1");
    assert_eq!(outcome.printed("c"), "custom\ntext");
    assert!(outcome.step("d").2.unwrap().contains("does not exist"));
    assert!(outcome.step("e").2.unwrap().contains("fish"));
}

#[test]
fn a_secret_is_nowhere_to_be_read() {
    let bench = Bench::job(
        r#"    outputs: { plain: "${{ steps.a.outputs.plain }}", secret: "${{ steps.a.outputs.secret }}" }
    steps:
      - id: a
        name: Use ${{ secrets.TOKEN }}
        env: { TOKEN: "${{ secrets.TOKEN }}", LATE: late-secret-value }
        run: |
          echo "plain=1" >> "$GITHUB_OUTPUT"
          echo "secret=x${TOKEN}x" >> "$GITHUB_OUTPUT"
          echo "direct $TOKEN"; printf "user:$TOKEN" | base64; printf 'hun'; sleep 0.05; echo 'ter2-hunter2'
          echo "::error file=a.rs::$TOKEN is wrong"
          echo "::add-mask::$LATE"; echo "then $LATE"
          echo "see $TOKEN and $LATE" >> "$GITHUB_STEP_SUMMARY"
      - run: 'echo "still known: ${#X}"; exit 1'
        id: b
        env: { X: "${{ steps.a.outputs.secret }}" }"#,
    )
    .secrets(&[("TOKEN", "hunter2-hunter2")]);
    let outcome = bench.run();
    let summary = std::fs::read_to_string(bench.folder().join("summaries/0.md")).unwrap();
    assert_eq!(summary, "see *** and ***\n");
    for text in [&outcome.log, &outcome.journal(), &summary] {
        assert!(!text.contains("hunter2-hunter2"), "{text}");
        assert!(!text.contains("then late"), "{text}");
        assert!(!text.contains("aHVudGVyMi1odW50ZXIy"), "{text}");
    }
    assert!(outcome.log.contains("direct ***"), "{}", outcome.log);
    assert!(outcome.log.contains("still known: 17"), "{}", outcome.log);
    assert!(
        outcome.log.contains("the output secret is dropped"),
        "{}",
        outcome.log
    );
    assert_eq!(outcome.outputs, [("plain".to_owned(), "1".to_owned())]);
    assert!(!bench.folder().join("job.json").exists());
    let annotated = outcome.entries.iter().any(|entry| {
        matches!(&entry.body, JournalBody::Annotation { message, file: Some(file), .. } if message == "*** is wrong" && file == "a.rs")
    });
    assert!(annotated, "{:#?}", outcome.entries);
}

#[test]
fn offsets_in_the_journal_are_those_of_the_log() {
    let bench = Bench::steps("- { id: a, run: 'echo one' }\n- { id: b, run: 'echo two' }");
    let outcome = bench.run();
    let log = std::fs::read(bench.folder().join("log")).unwrap();
    let mut from = 0;
    for entry in &outcome.entries {
        match &entry.body {
            JournalBody::StepStarted { log_offset, .. } => from = *log_offset as usize,
            JournalBody::StepFinished { log_offset, id, .. } => {
                let part = String::from_utf8_lossy(&log[from..*log_offset as usize]);
                let expected = if id == "a" { "one" } else { "two" };
                assert!(part.trim_end().ends_with(expected), "{id}: {part}");
                assert!(part.contains("##[group]Run echo"), "{id}: {part}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_runs_in_the_background_lives_on_between_steps_and_ends_with_the_job() {
    let bench = Bench::steps(
        r#"- id: start
  run: |
    (while true; do echo tick; sleep 0.02; done) &
    echo $! > pid
- id: look
  run: kill -0 "$(cat pid)" && sleep 0.1 && echo alive
- id: hide
  run: |
    setsid sh -c 'trap "" TERM INT; echo $$ > hidden; sleep 1000' >/dev/null 2>&1 &
    while [ ! -s hidden ]; do sleep 0.01; done"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{outcome:#?}");
    assert!(outcome.log.contains("alive"), "{}", outcome.log);
    assert!(outcome.printed("look").contains("tick"), "{}", outcome.log);
    assert!(
        outcome.log.contains("left running: sleep"),
        "{}",
        outcome.log
    );
    for file in ["pid", "hidden"] {
        assert!(
            !support::is_alive(&bench.folder().join("workspace").join(file)),
            "{file}"
        );
    }
}

#[test]
fn an_expression_without_a_value_fails_its_step_and_no_other() {
    let outcome = Bench::steps(
        "- { id: a, run: \"echo ${{ fromJSON('nonsense') }}\" }\n- { id: b, if: always(), run: echo yes }",
    )
    .run();
    assert!(outcome.step("a").2.unwrap().contains("fromJSON"));
    assert_eq!(outcome.step("b").1, Success);
    let outcome = Bench::job(
        "    env: { A: \"${{ fromJSON('nonsense') }}\" }\n    steps: [{ run: echo no }]",
    )
    .run();
    assert_eq!(outcome.conclusion, Failure);
    assert!(outcome.why.unwrap().contains("env: fromJSON"));
}
