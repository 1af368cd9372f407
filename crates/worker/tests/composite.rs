//! Composite actions of the workspace.

mod support;

use std::time::Duration;

use shipway_workflow::job::{Conclusion::*, JournalBody};
use support::{Bench, is_alive};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

const GREET: &str = r##"
name: Greet
inputs:
  who: { description: whom, default: "${{ github.job }}" }
  how: { description: how, required: true, deprecationMessage: say nothing }
outputs:
  said: { description: what, value: "${{ steps.a.outputs.said }} in ${{ inputs.how }}" }
runs:
  using: composite
  steps:
    - id: a
      shell: bash
      env: { OWN: own }
      run: |
        echo "> ${{ inputs.who }} $OUTER $OWN ${{ env.OUTER }} [${INPUT_WHO-none}] ${GITHUB_ACTION} $(basename "$GITHUB_ACTION_PATH")"
        echo "said=hello ${{ inputs.WHO }}" >> "$GITHUB_OUTPUT"
        echo "LATER=from within" >> "$GITHUB_ENV"
        echo "$GITHUB_ACTION_PATH" >> "$GITHUB_PATH"
        echo "# Greeted" >> "$GITHUB_STEP_SUMMARY"
        echo "::add-mask::hunter2"
        echo "::warning::look here"
    - { shell: bash, run: 'echo "> $LATER ${{ steps.a.outputs.said }} hunter2"; echo more >> "$GITHUB_STEP_SUMMARY"' }
    - { if: "inputs.who == 'nobody'", shell: bash, run: 'echo "> never"' }
"##;

#[test]
fn its_steps_see_its_inputs_and_the_job_sees_its_outputs() {
    let outcome = Bench::steps(
        r#"- id: greet
  uses: ./greet
  env: { OUTER: outer }
  with: { who: Ada, how: English, typo: 1 }
- run: 'echo "> $LATER ${{ steps.greet.outputs.said }} [${{ steps.a.outputs.said }}] hunter2 ${OUTER-gone}"; tool'
- { uses: ./greet, with: { how: French } }"#,
    )
    .file("greet/action.yml", GREET)
    .file("greet/tool", "#!/bin/sh\necho '> tool'\n")
    .run_with(|bench| {
        let tool = bench.folder().join("workspace/greet/tool");
        std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        outcome.told(),
        [
            "Ada outer own outer [none] greet greet",
            "from within hello Ada ***",
            "from within hello Ada in English [] *** gone",
            "tool",
            "a  own  [none] __self greet",
            "from within hello a ***",
        ]
    );
    assert!(!outcome.journal().contains("hunter2"));
    assert!(
        outcome
            .log
            .contains("no input typo; the known ones are who, how"),
        "{}",
        outcome.log
    );
    assert!(outcome.log.contains("how is deprecated: say nothing"));
    let annotations = outcome.entries.iter().filter(
        |entry| matches!(&entry.body, JournalBody::Annotation { message, .. } if message == "look here"),
    );
    assert_eq!(annotations.count(), 2);
    // Steps of the action are not in the journal.
    assert_eq!(outcome.names().len(), 3);
}

#[test]
fn a_failure_within_is_asked_after_within_and_fails_the_step() {
    let outcome = Bench::steps(
        r#"- { id: one, continue-on-error: true, uses: ./x }
- { run: 'echo "> ${{ steps.one.outcome }} ${{ steps.one.outputs.late }} ${{ job.status }}"' }
- { run: exit 1 }
- { id: two, if: always(), uses: ./x, with: { code: 0 } }"#,
    )
    .file(
        "x/action.yaml",
        r#"
inputs: { code: { default: 3 } }
outputs: { late: { value: "${{ steps.late.outputs.x }}" } }
runs:
  using: composite
  steps:
    - { shell: sh, continue-on-error: true, id: soft, run: exit 9 }
    - { shell: sh, id: hard, run: "echo '> ${{ steps.soft.outcome }} ${{ steps.soft.conclusion }}'; exit ${{ inputs.code }}" }
    - { shell: sh, run: echo '> all well' }
    - { shell: sh, if: failure(), run: "echo '> failed ${{ steps.hard.outcome }} ${{ job.status }}'" }
    - { shell: sh, id: late, if: always(), run: 'echo x=late >> "$GITHUB_OUTPUT"' }
"#,
    )
    .run();
    assert_eq!(outcome.conclusion, Failure);
    assert_eq!(
        outcome.told(),
        [
            "failure success",
            "failed failure success",
            "failure late success",
            // The job has failed, but `success()` in the action refers to the action's own steps.
            "failure success",
            "all well",
        ]
    );
    let (_, conclusion, why) = outcome.step("one");
    let why = why.unwrap();
    assert_eq!(conclusion, Success);
    assert!(
        why.starts_with("its step \"Run echo ") && why.ends_with("\": exit code 3"),
        "{why}"
    );
    assert_eq!(outcome.step("two").0, Success, "{}", outcome.log);
}

fn nested(inner: &str) -> String {
    format!(
        "inputs: {{ n: {{ default: none }} }}\noutputs: {{ o: {{ value: '${{{{ steps.s.outputs.o }}}}' }} }}\nruns:\n  using: composite\n  steps:\n{inner}"
    )
}

#[test]
fn actions_use_actions_each_with_its_own_names() {
    let outer = nested(
        r#"    - { id: s, uses: ./inner, env: { A: outer }, with: { n: "${{ inputs.n }}+1" } }
    - { shell: sh, run: "echo '> outer ${{ inputs.n }} ${{ steps.s.outputs.o }} ${{ env.A }}'" }
"#,
    );
    let inner = nested(
        r#"    - { id: s, shell: sh, run: "echo \"> inner ${{ inputs.n }} $A $B $GITHUB_ACTION $GITHUB_ACTION_PATH\"; echo o=deep >> $GITHUB_OUTPUT" }
    - { uses: actions/checkout@v4, with: { path: c } }
    - { shell: sh, working-directory: c, run: 'echo "> $(ls)"' }
"#,
    );
    let outcome = Bench::steps(
        r#"- { id: top, uses: ./outer, env: { B: top }, with: { n: "1" } }
- { run: 'echo "> ${{ steps.top.outputs.o }} [${{ steps.s.outputs.o }}]"' }"#,
    )
    .file("outer/action.yml", &outer)
    .file("inner/action.yml", &inner)
    .run_with(|bench| std::fs::write(bench.source().join("checked-out"), "").unwrap());
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let told = outcome.told();
    assert!(
        told[0].starts_with("inner 1+1 outer top top /") && told[0].ends_with("/inner"),
        "{told:?}"
    );
    assert_eq!(told[1..], ["checked-out", "outer 1 deep ", "deep []"]);
}

#[test]
fn an_action_that_uses_itself_comes_to_an_end() {
    let outcome = Bench::steps("- { id: a, uses: ./x }")
        .file("x/action.yml", &nested("    - { uses: ./x }\n"))
        .run();
    assert_eq!(outcome.conclusion, Failure);
    let why = outcome.step("a").2.unwrap();
    assert!(why.contains("more than 9 deep"), "{why}");
}

#[test]
fn what_is_wrong_with_an_action_is_told_with_its_place() {
    let outcome = Bench::steps(
        r#"- { id: none, continue-on-error: true, uses: ./nowhere }
- { id: empty, continue-on-error: true, uses: ./.github }
- { id: bad, continue-on-error: true, uses: ./bad }
- { id: docker, continue-on-error: true, uses: "docker://alpine:3" }"#,
    )
    .file(".github/x", "")
    .file(
        "bad/action.yml",
        "runs:\n  using: composite\n  steps:\n    - run: echo\n",
    )
    .run();
    let why = |id: &str| outcome.step(id).2.unwrap();
    assert!(why("none").contains("actions/checkout"), "{}", why("none"));
    assert!(why("empty").contains("action.yml"), "{}", why("empty"));
    assert!(
        why("bad").starts_with("./bad/action.yml:4:7: error:"),
        "{}",
        why("bad")
    );
    assert!(why("docker").contains("alpine:3"), "{}", why("docker"));
}

#[test]
fn its_time_is_over_when_that_of_its_step_is() {
    let outcome = Bench::steps("- { id: a, timeout-minutes: 0.01, uses: ./x }\n- { if: always(), run: 'echo \"> after\"' }")
        .file(
            "x/action.yml",
            &nested("    - { shell: bash, run: 'trap \"exit 1\" INT; sleep 60 & wait' }\n    - { shell: bash, if: always(), run: echo '> never' }\n"),
        )
        .run();
    let (how, _, why) = outcome.step("a");
    assert_eq!(how, Failure);
    assert_eq!(why.as_deref(), Some("the step took longer than 0.01 min"));
    assert_eq!(outcome.told(), ["after"]);
}

#[test]
fn cancelled_it_ends_and_nothing_more_of_it_begins() {
    let bench = Bench::steps("- { id: a, uses: ./x }\n- { if: always(), run: 'echo \"> after\"' }")
        .timeout(Duration::from_secs(60))
        .file(
            "x/action.yml",
            &nested("    - { shell: bash, run: 'echo $$ > pid; echo up; trap \"exit 1\" INT; sleep 60 & wait' }\n    - { shell: bash, if: always(), run: echo '> never' }\n"),
        );
    let outcome = bench.cancelled_at("up");
    assert_eq!(outcome.step("a").0, Cancelled);
    assert_eq!(outcome.told(), ["after"]);
    assert!(!is_alive(&bench.folder().join("workspace/pid")));
}
