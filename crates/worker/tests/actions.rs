//! The built-in actions, on real repositories and files.

mod support;

use std::{fs, path::Path};

use shipway_workflow::job::{Conclusion::*, JournalBody, SourceTree};
use support::{Bench, git};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn a_checkout_is_a_work_tree_with_its_history() {
    let mut bench = Bench::steps(
        r#"- { uses: actions/checkout@v4 }
- { id: a, run: "cat file; git log --format=%s; git status --short; git rev-parse --abbrev-ref HEAD; git tag; git branch -r" }
- { uses: actions/checkout@v5, with: { ref: topic, path: other } }
- { id: b, run: 'cat other/file; git -C other rev-parse --abbrev-ref HEAD' }
- { id: c, continue-on-error: true, uses: actions/checkout@v4, with: { ref: nowhere } }
- { id: d, continue-on-error: true, uses: actions/checkout@v4, with: { path: ../out } }"#,
    );
    let source = bench.source();
    git(&source, &["init", "--quiet"]);
    for text in ["one", "two"] {
        write(&source.join("file"), text);
        git(&source, &["add", "."]);
        git(&source, &["commit", "--quiet", "-m", text]);
    }
    git(&source, &["tag", "v1"]);
    let commit = git(&source, &["rev-parse", "HEAD"]);
    git(&source, &["checkout", "--quiet", "-b", "topic", "HEAD~1"]);
    bench.spec.mounts.source = source.join(".git");
    bench.spec.source = SourceTree::Git {
        repository: "shop".to_owned(),
        commit,
        reference: "refs/heads/main".to_owned(),
    };
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        outcome.printed("a"),
        "twotwo\none\nmain\nv1\n  origin/main\n  origin/topic"
    );
    assert_eq!(outcome.printed("b"), "onetopic");
    assert!(
        outcome
            .step("c")
            .2
            .unwrap()
            .contains("no branch, tag or commit nowhere")
    );
    assert!(
        outcome
            .step("d")
            .2
            .unwrap()
            .contains("leaves the workspace")
    );
}

#[test]
fn a_folder_is_copied_as_git_would_see_it() {
    let bench = Bench::steps(
        "- { uses: actions/checkout@v4 }\n- { id: a, run: 'find . -type f -o -type l | sort; ./run' }",
    );
    let source = bench.source();
    git(&source, &["init", "--quiet"]);
    write(&source.join(".gitignore"), "ignored\n");
    for name in ["tracked", "sub/untracked", "ignored", "deleted"] {
        write(&source.join(name), name);
    }
    git(&source, &["add", "tracked", "deleted", ".gitignore"]);
    fs::remove_file(source.join("deleted")).unwrap();
    write(&source.join("run"), "#!/bin/sh\necho ran\n");
    fs::set_permissions(
        source.join("run"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::os::unix::fs::symlink("tracked", source.join("link")).unwrap();
    let outcome = bench.run();
    assert_eq!(
        outcome.printed("a"),
        "./.gitignore\n./link\n./run\n./sub/untracked\n./tracked\nran",
        "{}",
        outcome.log
    );
}

#[test]
fn an_artifact_comes_out_as_it_went_in() {
    let upload = Bench::steps(
        r#"- run: |
    mkdir -p dist/sub && echo a > dist/a && echo b > dist/sub/b && chmod +x dist/a && echo no > dist/skip.log && echo h > dist/.hidden
- { id: up, uses: actions/upload-artifact@v4, with: { name: shop, path: "dist\n!dist/*.log" } }
- { id: none, uses: actions/upload-artifact@v4, with: { name: other, path: nothing } }
- { id: must, continue-on-error: true, uses: actions/upload-artifact@v4, with: { path: nothing, if-no-files-found: error } }
- { id: out, continue-on-error: true, uses: actions/upload-artifact@v4, with: { path: /etc/passwd } }
- { id: link, run: 'ln -s /etc/passwd evil' }
- { id: linked, continue-on-error: true, uses: actions/upload-artifact@v4, with: { name: x, path: evil } }"#,
    );
    let outcome = upload.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(
        outcome
            .step("must")
            .2
            .unwrap()
            .contains("no files were found for nothing")
    );
    assert!(
        outcome
            .step("out")
            .2
            .unwrap()
            .contains("is outside the workspace")
    );
    assert!(
        outcome
            .step("linked")
            .2
            .unwrap()
            .contains("points outside the artifact")
    );
    assert!(
        outcome.log.contains("##[warning]no files were found"),
        "{}",
        outcome.log
    );

    let mut download = Bench::steps(
        r#"- { uses: actions/download-artifact@v4, with: { name: shop, path: got } }
- { uses: actions/download-artifact@v4 }
- { id: look, run: 'cd got; find . -type f | sort; [ -x a ] && cat sub/b; cat ../shop/a' }
- { id: missing, continue-on-error: true, uses: actions/download-artifact@v4, with: { name: nope } }"#,
    );
    assert_eq!(download.with_saved_artifacts(&outcome.entries), ["shop"]);
    let outcome = download.run();
    assert_eq!(
        outcome.printed("look"),
        "./a\n./sub/b\nb\na",
        "{}",
        outcome.log
    );
    assert!(
        outcome
            .step("missing")
            .2
            .unwrap()
            .contains("its artifacts are: shop")
    );

    let mut damaged =
        Bench::steps("- { id: a, uses: actions/download-artifact@v4, with: { name: shop } }");
    damaged.spec.artifacts = download.spec.artifacts.clone();
    let (digest, intact) = (download.spec.mounts.artifacts.iter().next()).unwrap();
    let mut bytes = fs::read(intact).unwrap();
    bytes[600] ^= 1;
    let path = damaged.root.path().join("damaged.tar");
    fs::write(&path, bytes).unwrap();
    (damaged.spec.mounts.artifacts).insert(digest.clone(), path);
    assert!(
        damaged
            .run()
            .step("a")
            .2
            .unwrap()
            .contains("its bytes are sha256:")
    );
}

#[test]
fn artifacts_are_found_by_number_name_and_pattern() {
    let bench = Bench::steps(
        r#"- run: 'mkdir -p a b "$RUNNER_TEMP/c" && echo 1 > a/x && echo 2 > b/y && echo 3 > "$RUNNER_TEMP/c/z" && echo 4 > a/.env'
- { id: a, uses: actions/upload-artifact@v4, with: { name: one-a, path: a, retention-days: 5, compression-level: 0, include-hidden-files: true } }
- { id: b, uses: actions/upload-artifact@v4, with: { name: one-b, path: b } }
- { id: c, uses: actions/upload-artifact@v4, with: { name: two, path: '${{ runner.temp }}/c' } }
- { id: again, continue-on-error: true, uses: actions/upload-artifact@v4, with: { name: two, path: b } }
- { id: over, uses: actions/upload-artifact@v4, with: { name: two, path: b, overwrite: true } }
- { id: level, continue-on-error: true, uses: actions/upload-artifact@v4, with: { name: bad, path: b, compression-level: 12 } }
- { uses: actions/download-artifact@v4, with: { pattern: one-*, path: p } }
- { uses: actions/download-artifact@v4, with: { pattern: one-*, path: m, merge-multiple: true } }
- { uses: actions/download-artifact@v4, with: { artifact-ids: '${{ steps.b.outputs.artifact-id }}', path: i } }
- { uses: actions/download-artifact@v5, with: { artifact-ids: '${{ steps.b.outputs.artifact-id }}', path: five } }
- { id: n, uses: actions/download-artifact@v4, with: { name: two, path: n } }
- { id: look, run: 'find p m i five n -type f | sort; echo ${{ steps.n.outputs.download-path }}; echo ${{ steps.a.outputs.artifact-digest }} ${{ steps.c.outputs.artifact-url }}' }
- { id: both, continue-on-error: true, uses: actions/download-artifact@v4, with: { name: two, artifact-ids: '1' } }
- { id: gone, continue-on-error: true, uses: actions/download-artifact@v4, with: { artifact-ids: '1' } }
- { id: other, continue-on-error: true, uses: actions/download-artifact@v4, with: { name: two, run-id: 99 } }"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let printed = outcome.printed("look");
    let (files, rest) = printed.split_once("\n/").unwrap();
    let expected = "five/y\ni/one-b/y\nm/.env\nm/x\nm/y\nn/y\np/one-a/.env\np/one-a/x\np/one-b/y";
    assert_eq!(files, expected, "{}", outcome.log);
    let (path, digest) = rest.split_once('\n').unwrap();
    assert!(path.ends_with("workspace/n"), "{rest}");
    assert_eq!(digest.trim().len(), 64, "{rest}");
    for (step, why) in [
        ("again", "overwrite: true"),
        ("level", "0 to 9"),
        ("both", "together"),
        ("gone", "its artifacts are: one-a, one-b, two"),
        ("other", "need a server"),
    ] {
        let said = outcome.step(step).2.unwrap();
        assert!(said.contains(why), "{step}: {said}");
    }
    let saved = |entry: &&shipway_workflow::job::JournalEntry| matches!(&entry.body, JournalBody::ArtifactSaved { name, .. } if name == "two");
    let saved: Vec<_> = outcome.entries.iter().filter(saved).collect();
    assert_eq!(saved.len(), 2, "the second instead of the first");
}

#[test]
fn what_is_not_built_in_is_refused_by_name() {
    let outcome = Bench::steps(
        r#"- { id: other, continue-on-error: true, uses: shipway/thing }
- { id: cache, uses: actions/cache@v4, with: { path: x, key: y } }
- { id: python, uses: actions/setup-python@v5, with: { python-version: '3' } }
- { id: deploy, uses: shipway/deploy@v1, with: { environment: production } }"#,
    )
    .run();
    assert_eq!(outcome.conclusion, Incomplete, "{}", outcome.log);
    let why = outcome.step("other").2.unwrap();
    assert!(
        why.contains("shipway/thing is not a built-in action"),
        "{why}"
    );
    assert!(outcome.log.contains("python3 3."), "{}", outcome.log);
    assert!(
        outcome
            .log
            .contains("skipped: the deploy to production needs a server"),
        "{}",
        outcome.log
    );
}
