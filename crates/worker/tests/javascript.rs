//! JavaScript actions, with a real Node.js.

mod support;

use shipway_workflow::job::Conclusion::*;
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

const ACTION: &str = r#"
name: Two parts
inputs:
  who: { default: "${{ github.job }}" }
  a name-with both: { default: x }
  none: { description: nothing }
runs: { using: node20, main: dist/main.js, post: dist/post.js }
"#;

const MAIN: &str = r#"
const fs = require('fs');
const env = process.env;
console.log(`> main ${env['INPUT_WHO']} ${env['INPUT_A_NAME-WITH_BOTH']} [${env.INPUT_NONE}] ${env.OWN} ${env.GITHUB_ACTION} ${env.STATE_file}`);
fs.appendFileSync(env.GITHUB_STATE, `file=from file ${env.INPUT_WHO}\n`);
console.log(`::save-state name=said::from command`);
fs.appendFileSync(env.GITHUB_OUTPUT, `out=made\n`);
fs.appendFileSync(env.GITHUB_ENV, `LATER=later\n`);
console.log('::add-mask::hunter2');
console.log(`> ${process.cwd() === env.GITHUB_WORKSPACE} hunter2`);
if (env.INPUT_WHO === 'fails') process.exit(3);
"#;

const POST: &str = r#"
const env = process.env;
console.log(`> post ${env.INPUT_WHO} ${env.STATE_file} ${env.STATE_said} ${env.LATER} ${env.OWN} hunter2`);
"#;

fn bench(steps: &str) -> Option<Bench> {
    let node = std::process::Command::new("node").arg("--version").output();
    if !node.is_ok_and(|it| it.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "there is no node");
        println!("skipped, because there is no node on this machine");
        return None;
    }
    let bench = Bench::steps(steps)
        .file("js/action.yml", ACTION)
        .file("js/dist/main.js", MAIN)
        .file("js/dist/post.js", POST);
    Some(bench)
}

#[test]
fn posts_run_last_first_with_their_state_and_although_the_job_failed() {
    let Some(bench) = bench(
        r#"- { id: one, uses: ./js, env: { OWN: own }, with: { who: one } }
- { id: two, uses: ./js, with: { who: two } }
- { run: 'echo "> ${{ steps.one.outputs.out }} $LATER"' }
- { id: three, name: Third, uses: ./js, with: { who: fails } }
- { id: never, uses: ./js, with: { who: never } }"#,
    ) else {
        return;
    };
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure);
    assert_eq!(
        outcome.told(),
        [
            "main one x [] own one undefined",
            "true ***",
            "main two x [] undefined two undefined",
            "true ***",
            "made later",
            "main fails x [] undefined three undefined",
            "true ***",
            "post fails from file fails from command later undefined ***",
            "post two from file two from command later undefined ***",
            "post one from file one from command later own ***",
        ],
        "{}",
        outcome.log
    );
    assert_eq!(
        outcome.names()[4..],
        ["Run ./js", "Post Third", "Post Run ./js", "Post Run ./js"]
    );
    assert_eq!(outcome.step("three").2.as_deref(), Some("exit code 3"));
    assert_eq!(outcome.step("one.post").0, Success);
    assert_eq!(outcome.why.as_deref(), Some("step \"Third\": exit code 3"));
}

#[test]
fn posts_of_actions_within_run_within_the_post_of_the_action() {
    let Some(bench) = bench(
        r#"- { id: js, uses: ./js, with: { who: first } }
- { id: made, uses: ./made, env: { OWN: outer } }
- { run: 'echo "> last step"' }"#,
    ) else {
        return;
    };
    let outcome = bench
        .file(
            "made/action.yml",
            r#"
inputs: { x: { default: x } }
runs:
  using: composite
  steps:
    - { id: a, uses: ./js, with: { who: "a ${{ inputs.x }}" } }
    - { uses: ./js, with: { who: "b ${{ steps.a.outputs.out }}" } }
    - { shell: sh, if: "false", run: exit 1 }
    - { if: "false", uses: ./js }
"#,
        )
        .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let told: Vec<&str> = outcome
        .told()
        .into_iter()
        .filter(|line| !line.starts_with("true"))
        .collect();
    assert_eq!(
        told,
        [
            "main first x [] undefined js undefined",
            "main a x x [] outer made undefined",
            "main b made x [] outer made undefined",
            "last step",
            "post b made from file b made from command later outer ***",
            "post a x from file a x from command later outer ***",
            "post first from file first from command later undefined ***",
        ]
    );
    assert_eq!(outcome.names()[3..], ["Post Run ./made", "Post Run ./js"]);
}

#[test]
fn a_post_runs_only_when_its_condition_holds() {
    let Some(bench) = bench("- { id: a, uses: ./cond }\n- { run: exit 1 }") else {
        return;
    };
    let outcome = bench
        .file(
            "cond/action.yml",
            "runs: { using: node20, main: m.js, post: p.js, post-if: success() }",
        )
        .file("cond/m.js", "")
        .file("cond/p.js", "console.log('> never')")
        .run();
    assert_eq!(outcome.step("a.post").0, Skipped, "{}", outcome.log);
    assert!(outcome.told().is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let Some(bench) = bench(
        "- { id: a, continue-on-error: true, uses: ./gone }\n- { id: b, continue-on-error: true, uses: ./new }",
    ) else {
        return;
    };
    let outcome = bench
        .file(
            "gone/action.yml",
            "runs: { using: node20, main: dist/index.js }",
        )
        .file("new/action.yml", "runs: { using: node99, main: m.js }")
        .file("new/m.js", "process.exit(4)")
        .run();
    let why = outcome.step("a").2.unwrap();
    assert!(why.contains("no file dist/index.js"), "{why}");
    let why = outcome.step("b").2.unwrap();
    assert!(
        why.starts_with("exit code 4 (the action asks for node 99, but ran with node "),
        "{why}"
    );
}
