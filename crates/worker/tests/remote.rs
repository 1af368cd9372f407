//! Actions of repositories, from a forge that is a local folder.

mod support;

use std::{fs, path::Path};

use shipway_workflow::job::Conclusion::*;
use support::{Bench, Forge, git};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

fn says(what: &str) -> String {
    format!(
        "runs:\n  using: composite\n  steps:\n    - shell: sh\n      env: {{ REPO: '${{{{ github.action_repository }}}} ${{{{ github.action_ref }}}}' }}\n      run: |\n        echo \"> {what} $REPO [$GITHUB_ACTION_REPOSITORY] $(basename $(dirname \"$GITHUB_ACTION_PATH/x\"))\"\n"
    )
}

#[test]
fn an_action_is_fetched_at_its_ref_and_pinned_to_a_commit() {
    let forge = Forge::new();
    let first = forge.commit(
        "acme/tools",
        "v1",
        &[("sub/say/action.yml", &says("one")), ("data", "1")],
    );
    let second = forge.commit("acme/tools", "v2", &[("sub/say/action.yml", &says("two"))]);
    let outcome = Bench::steps(&format!(
        "- {{ id: a, uses: acme/tools/sub/say@v1 }}\n- {{ uses: acme/tools/sub/say@main }}\n- {{ uses: Acme/Tools/sub/say@{first} }}\n- {{ run: 'echo \"> [$GITHUB_ACTION_PATH] [${{{{ github.action_repository }}}}]\"' }}"
    ))
    .forge(&forge)
    .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        outcome.told(),
        [
            "one acme/tools v1 [] say".to_owned(),
            "two acme/tools main [] say".to_owned(),
            format!("one Acme/Tools {first} [] say"),
            "[] []".to_owned(),
        ]
    );
    let mut lines = outcome.log.lines();
    assert_eq!(
        lines.next(),
        Some(format!("acme/tools/sub/say@v1 ({first})").as_str())
    );
    assert_eq!(
        lines.next(),
        Some(format!("acme/tools/sub/say@main ({second})").as_str())
    );
}

#[test]
fn without_its_forge_an_action_fetched_before_is_used() {
    let forge = Forge::new();
    forge.commit("acme/say", "v1", &[("action.yml", &says("said"))]);
    let bench = || Bench::steps("- { uses: acme/say@v1 }").forge(&forge);
    assert_eq!(bench().run().told().len(), 1);
    fs::rename(
        forge.root.path().join("acme/say.git"),
        forge.root.path().join("gone"),
    )
    .unwrap();
    fs::create_dir(forge.root.path().join("acme/say.git")).unwrap();
    let outcome = bench().run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(
        outcome.log.contains("using the last fetched copy of"),
        "{}",
        outcome.log
    );
    assert_eq!(outcome.told().len(), 1);
}

#[test]
fn many_workers_fetch_it_once_and_change_only_their_own() {
    let forge = Forge::new();
    let action = "runs:\n  using: composite\n  steps: [{ shell: sh, run: 'cd $GITHUB_ACTION_PATH; cat x; echo more >> x; git rev-parse --show-prefix 2>&1 || true' }]\n";
    let commit = forge.commit("acme/x", "v1", &[("action.yml", action), ("x", "> was\n")]);
    let benches: Vec<Bench> = (0..6)
        .map(|_| Bench::steps("- { uses: acme/x@v1 }").forge(&forge))
        .collect();
    let mut workers: Vec<_> = benches.iter().map(Bench::start).collect();
    workers.iter_mut().for_each(support::wait);
    for bench in &benches {
        let outcome = bench.outcome();
        assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
        assert_eq!(outcome.told(), ["was"]);
    }
    let kept = fs::read_dir(forge.root.path().join("cache")).unwrap();
    let kept = kept
        .map(|it| it.unwrap().path().join("acme/x"))
        .next()
        .unwrap();
    let mut names: Vec<String> = fs::read_dir(&kept)
        .unwrap()
        .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected = vec![commit.clone(), "lock".to_owned(), "refs".to_owned()];
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(
        fs::read_to_string(kept.join(commit).join("x")).unwrap(),
        "> was\n"
    );
}

const PARTS: &str = "name: Parts\ninputs: { n: { default: none } }\nruns: { using: node20, pre: p.js, main: m.js, post: q.js, pre-if: \"runner.os == 'Linux'\" }\n";

fn parts() -> [(&'static str, &'static str); 4] {
    [
        ("action.yml", PARTS),
        (
            "p.js",
            "console.log(`> pre ${process.env.INPUT_N} ${process.env.OWN}`); console.log('::save-state name=s::from pre')",
        ),
        (
            "m.js",
            "console.log(`> main ${process.env.INPUT_N} ${process.env.STATE_s}`)",
        ),
        (
            "q.js",
            "console.log(`> post ${process.env.INPUT_N} ${process.env.STATE_s}`)",
        ),
    ]
}

fn has_node() -> bool {
    let node = std::process::Command::new("node").arg("--version").output();
    let has = node.is_ok_and(|it| it.status.success());
    if !has {
        assert!(std::env::var_os("CI").is_none(), "there is no node");
        println!("skipped, because there is no node on this machine");
    }
    has
}

#[test]
fn what_runs_before_and_after_the_job_is_a_step_of_its_own() {
    if !has_node() {
        return;
    }
    let forge = Forge::new();
    forge.commit("acme/parts", "v1", &parts());
    let made = "inputs: { k: { default: d } }\nruns:\n  using: composite\n  steps:\n    - { uses: acme/parts@v1, with: { n: 'within ${{ inputs.k }}' } }\n    - { shell: sh, run: 'echo \"> between\"' }\n    - { uses: acme/parts@main, with: { n: last } }\n";
    forge.commit("acme/made", "v1", &[("action.yml", made)]);
    let outcome = Bench::steps(
        r#"- run: echo '> first'
- { id: a, name: A, uses: acme/parts@v1, env: { OWN: own }, with: { n: "${{ github.job }}" } }
- { id: b, uses: acme/made@v1 }
- { run: exit 1 }
- { id: c, uses: acme/parts@v1, with: { n: skipped } }"#,
    )
    .forge(&forge)
    .run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    assert_eq!(
        outcome.told(),
        [
            "pre a own",
            "pre within d undefined",
            "pre last undefined",
            "pre skipped undefined",
            "first",
            "main a from pre",
            "main within d from pre",
            "between",
            "main last from pre",
            // The post step is registered before the main step runs.
            "post skipped from pre",
            "post last from pre",
            "post within d from pre",
            "post a from pre",
        ]
    );
    assert_eq!(
        outcome.names(),
        [
            "Pre A",
            "Pre Run acme/made@v1",
            "Pre Run acme/parts@v1",
            "Run echo '> first'",
            "A",
            "Run acme/made@v1",
            "Run exit 1",
            "Run acme/parts@v1",
            "Post Run acme/parts@v1",
            "Post Run acme/made@v1",
            "Post A",
        ]
    );
    assert_eq!(outcome.step("c").0, Skipped);
}

#[test]
fn an_action_of_the_workspace_may_use_those_of_repositories() {
    let forge = Forge::new();
    forge.commit("acme/say", "v1", &[("action.yml", &says("said"))]);
    let outcome = Bench::steps("- { uses: ./mine }")
        .forge(&forge)
        .file(
            "mine/action.yml",
            "runs:\n  using: composite\n  steps: [{ uses: acme/say@v1 }]\n",
        )
        .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told().len(), 1);
}

#[test]
fn what_can_not_be_fetched_fails_the_job_before_its_first_step() {
    let forge = Forge::new();
    forge.commit("acme/say", "v1", &[("README", "")]);
    for (uses, expected) in [
        ("acme/nothing@v1", "no repository at /"),
        ("acme/say@v9", "no branch or tag v9"),
        (
            "acme/say@0123456789012345678901234567890123456789",
            "has no commit 0123",
        ),
        ("acme/say@v1", "no action.yml"),
        ("acme/say/../other@v1", "leaves the repository"),
    ] {
        let outcome = Bench::steps(&format!(
            "- run: echo '> ran'\n- {{ if: false, uses: {uses} }}"
        ))
        .forge(&forge)
        .run();
        assert_eq!(outcome.conclusion, Failure);
        let why = outcome.why.unwrap();
        assert!(why.contains(expected), "{uses}: {why}");
        assert!(!outcome.log.contains("> ran"));
    }
    // Nothing listens at this address.
    let mut bench = Bench::steps("- { uses: acme/say@v1 }");
    bench.spec.actions.forge = "http://me:hunter2@127.0.0.1:9".to_owned();
    let why = bench.run().why.unwrap();
    assert!(
        why.contains("can't be fetched from http://127.0.0.1:9"),
        "{why}"
    );
    assert!(
        why.contains("SHIPWAY_FORGE") && !why.contains("hunter2"),
        "{why}"
    );
}

#[test]
fn built_in_actions_can_be_fetched_instead() {
    let forge = Forge::new();
    forge.commit("actions/checkout", "v4", &[("action.yml", &says("theirs"))]);
    let mut bench = Bench::steps("- { uses: actions/checkout@v4 }").forge(&forge);
    bench.spec.actions.built_in = false;
    assert_eq!(bench.run().told().len(), 1);
    let fresh: &Path = forge.root.path();
    assert!(git(&fresh.join("actions/checkout.git"), &["tag"]).contains("v4"));
}
