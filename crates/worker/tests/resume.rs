//! Jobs resumed at the failed step, in the workspace of the previous attempt.

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use shipway_worker::{
    RESUME_STATE_FILE, ResumeError, SecretAccess, build_debug_shell_context, read_attempt_progress,
};
use shipway_workflow::job::{Conclusion::*, JournalBody, ResumePoint};
use support::{Bench, Forge, until};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// The next attempt at a job, which resumes the last one.
fn next(mut bench: Bench, step: &str) -> Bench {
    let attempt = bench.spec.resume.as_ref().map_or(1, |it| it.attempt + 1);
    bench.spec.resume = Some(ResumePoint {
        attempt,
        step: step.to_owned(),
    });
    bench.spec.mounts.resumed = Some(bench.spec.mounts.folder.clone());
    bench.spec.mounts.folder = bench.root.path().join(format!("job@{}", attempt + 1));
    fs::create_dir(&bench.spec.mounts.folder).unwrap();
    bench
}

/// Steps that were completed before, each with its attempt.
fn done(entries: &[shipway_workflow::job::JournalEntry]) -> Vec<(String, u32)> {
    let done = entries.iter().filter_map(|entry| match &entry.body {
        JournalBody::StepFinished { id, earlier, .. } => Some((id.clone(), (*earlier)?.attempt)),
        _ => None,
    });
    done.collect()
}

const STEPS: &str = r#"- id: first
  run: |
    echo first >> $RUNNER_TEMP/../ran
    echo "made=yes" >> $GITHUB_OUTPUT
    echo "token=$TOKEN" >> $GITHUB_OUTPUT
    echo "LATER=of first" >> $GITHUB_ENV
    echo "HIDDEN=$TOKEN!" >> $GITHUB_ENV
    mkdir -p $HOME/tools/bin && printf '#!/bin/sh\necho "> tool runs"\n' > $HOME/tools/bin/tool && chmod +x $HOME/tools/bin/tool
    echo "$HOME/tools/bin" >> $GITHUB_PATH
    echo "::add-mask::quiet word"
    echo built > product
  env: { TOKEN: "${{ secrets.TOKEN }}" }
- { id: passed-over, if: false, run: exit 1 }
- { id: may-fail, continue-on-error: true, run: exit 9 }
- id: outside
  run: |
    echo outside >> $RUNNER_TEMP/../ran
    echo "LEFT=by the failed one" >> $GITHUB_ENV
    test -e ../up
- id: last
  run: |
    echo "> $LATER, $LEFT, $HIDDEN, ${{ steps.first.outputs.made }} ${{ steps.first.outputs.token }} $(cat product)"
    echo "> a quiet word"
    echo "> ${{ steps.passed-over.outcome }} ${{ steps.may-fail.outcome }} ${{ steps.may-fail.conclusion }}"
    tool
- { id: saddened, if: failure(), run: exit 1 }"#;

fn bench() -> Bench {
    Bench::steps(STEPS).secrets(&[("TOKEN", "hunter2")])
}

#[test]
fn a_job_goes_on_at_its_failed_step_with_what_the_steps_before_have_left() {
    let bench = bench();
    assert_eq!(bench.run().conclusion, Failure);
    let kept = bench.folder().join(RESUME_STATE_FILE);
    let mode = fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let standing = read_attempt_progress(bench.folder(), &bench.spec.steps).unwrap();
    assert_eq!(standing.failed.as_deref(), Some("outside"));
    assert_eq!(
        standing.steps,
        ["first", "passed-over", "may-fail", "outside"]
    );
    let ran = bench.root.path().join("job/ran");
    // Fails again; then the external cause is fixed.
    let bench = next(bench, "outside");
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    fs::write(bench.root.path().join("job/up"), "").unwrap();
    let bench = next(bench, "outside");
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        fs::read_to_string(ran).unwrap(),
        "first\noutside\noutside\noutside\n"
    );
    assert_eq!(
        outcome.told(),
        [
            "of first, by the failed one, ***!, yes *** built",
            "a ***",
            "skipped failure success",
            "tool runs",
        ]
    );
    let before = ["first", "passed-over", "may-fail"].map(|id| (id.to_owned(), 1));
    assert_eq!(done(&outcome.entries), before);
    assert_eq!(outcome.step("saddened").0, Skipped);
    assert!(
        !outcome.journal().contains("hunter2"),
        "{}",
        outcome.journal()
    );
    assert!(
        outcome.log.contains(": success in attempt 1"),
        "{}",
        outcome.log
    );
}

#[test]
fn what_the_failed_step_had_left_is_not_there() {
    let bench = Bench::steps(
        r#"- { id: a, run: 'true' }
- { id: b, run: 'echo "X=of b" >> $GITHUB_ENV; echo "::add-mask::shy"; echo "o=1" >> $GITHUB_OUTPUT; test -e ../up' }
- { id: c, if: always(), run: 'echo "X=of c" >> $GITHUB_ENV' }"#,
    );
    assert_eq!(bench.run().conclusion, Failure);
    // When b runs again, it sees no changes of its own first run or of later steps.
    fs::write(bench.folder().join("up"), "").unwrap();
    let mut bench = next(bench, "b");
    let again = Bench::steps(
        r#"- { id: a, run: 'true' }
- { id: b, run: 'echo "> [$X] [${{ steps.b.outputs.o }}] shy"' }
- { id: c, run: 'true' }"#,
    );
    bench.spec.steps = again.spec.steps.clone();
    let outcome = bench.run();
    assert_eq!(outcome.told(), ["[] [] ***"]);
    assert_eq!(outcome.conclusion, Success);
}

#[test]
fn what_cannot_be_gone_on_from_is_refused_with_what_to_do() {
    for (spoil, why) in [
        ("workspace", "its workspace was deleted"),
        ("kept", "the state that its steps left"),
        ("steps", "its steps have changed"),
        ("later", "no step \"last\" to start at"),
    ] {
        let bench = bench();
        bench.run();
        let mut bench = next(bench, if spoil == "later" { "last" } else { "outside" });
        match spoil {
            "workspace" => fs::remove_dir_all(bench.root.path().join("job/workspace")).unwrap(),
            "kept" => {
                fs::remove_file(bench.root.path().join("job").join(RESUME_STATE_FILE)).unwrap()
            }
            "steps" => {
                bench.spec.steps.remove(1);
            }
            _ => {}
        }
        let outcome = bench.run();
        assert_eq!(outcome.conclusion, Failure, "{spoil}");
        let said = outcome.why.clone().unwrap();
        assert!(said.contains(why), "{spoil}: {said}");
        assert!(said.contains("shipway retry r12 --job a"), "{said}");
        assert!(outcome.names().is_empty(), "{spoil}");
    }
}

#[test]
fn a_job_whose_worker_was_lost_goes_on_at_the_step_that_ran() {
    let bench = Bench::steps(
        r#"- { id: a, run: 'echo a >> ../ran; echo "X=kept" >> $GITHUB_ENV' }
- { id: b, run: 'echo "> $X"; touch ../here; test -e ../up || sleep 600' }"#,
    );
    let mut worker = bench.start();
    let here = bench.folder().join("here");
    until("the second step", || here.exists());
    worker.kill().unwrap();
    worker.wait().unwrap();
    let standing = read_attempt_progress(bench.folder(), &bench.spec.steps).unwrap();
    assert_eq!(standing.failed.as_deref(), Some("b"));
    fs::write(bench.folder().join("up"), "").unwrap();
    let ran = bench.folder().join("ran");
    let bench = next(bench, "b");
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told(), ["kept"]);
    assert_eq!(fs::read_to_string(ran).unwrap(), "a\n");
}

const MAIN: &str = r#"
const fs = require('fs');
const env = process.env;
fs.appendFileSync('../ran', `main ${env.INPUT_WHO} ${env.STATE_pre}\n`);
fs.appendFileSync(env.GITHUB_STATE, `main=by ${env.INPUT_WHO}\n`);
if (env.INPUT_WHO === 'fails' && !fs.existsSync('../up')) process.exit(3);
"#;
const PRE: &str = r#"
const fs = require('fs');
fs.appendFileSync('../ran', `pre ${process.env.INPUT_WHO}\n`);
fs.appendFileSync(process.env.GITHUB_STATE, `pre=ready\n`);
"#;
const POST: &str = r#"
const env = process.env;
console.log(`> post ${env.INPUT_WHO} ${env.STATE_pre} ${env.STATE_main}`);
"#;

#[test]
fn actions_whose_main_part_ran_before_clean_up_and_what_runs_first_is_not_run_again() {
    let node = std::process::Command::new("node").arg("--version").output();
    if !node.is_ok_and(|it| it.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "there is no node");
        println!("skipped, because there is no node on this machine");
        return;
    }
    let forge = Forge::new();
    let action =
        "inputs: { who: {} }\nruns: { using: node20, pre: pre.js, main: main.js, post: post.js }\n";
    let composite = "inputs: { who: {} }\nruns: { using: composite, steps: [{ uses: 'acme/js@v1', with: { who: 'inner ${{ inputs.who }}' } }] }\n";
    forge.commit(
        "acme/js",
        "v1",
        &[
            ("action.yml", action),
            ("pre.js", PRE),
            ("main.js", MAIN),
            ("post.js", POST),
        ],
    );
    forge.commit("acme/both", "v1", &[("action.yml", composite)]);
    let bench = Bench::steps(
        r#"- { id: one, uses: acme/js@v1, with: { who: one } }
- { id: two, uses: acme/both@v1, with: { who: two } }
- { id: three, uses: acme/js@v1, with: { who: fails } }
- { id: four, uses: acme/js@v1, with: { who: four } }"#,
    )
    .forge(&forge);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    fs::write(bench.folder().join("up"), "").unwrap();
    let ran = bench.folder().join("ran");
    let before = fs::read_to_string(&ran).unwrap();
    let bench = next(bench, "three");
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let after = fs::read_to_string(&ran).unwrap();
    assert_eq!(
        after.strip_prefix(&before).unwrap(),
        "main fails ready\nmain four ready\n"
    );
    assert_eq!(
        outcome.told(),
        [
            "post four ready by four",
            "post fails ready by fails",
            "post inner two ready by inner two",
            "post one ready by one",
        ]
    );
}

#[test]
fn a_shell_stands_where_the_failed_step_stood_and_has_secrets_only_when_they_are_given() {
    let mut bench = bench();
    bench.run();
    let resume = ResumePoint {
        attempt: 1,
        step: "outside".to_owned(),
    };
    let of = |name: &str, env: &[(String, String)]| {
        let found = env.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let given = build_debug_shell_context(&bench.spec, &resume, SecretAccess::Granted).unwrap();
    assert_eq!(of("LATER", &given.env).as_deref(), Some("of first"));
    assert_eq!(of("HIDDEN", &given.env).as_deref(), Some("hunter2!"));
    assert_eq!(of("LEFT", &given.env), None);
    assert!(of("PATH", &given.env).unwrap().contains("tools/bin"));
    assert_eq!(given.folder, bench.folder().join("workspace"));
    assert!(given.command.contains("test -e ../up"), "{}", given.command);
    bench = bench.secrets(&[]);
    let withheld = build_debug_shell_context(&bench.spec, &resume, SecretAccess::Withheld).unwrap();
    assert_eq!(of("LATER", &withheld.env).as_deref(), Some("of first"));
    assert_eq!(withheld.left_out, ["HIDDEN"]);
    assert!(!format!("{withheld:?}").contains("hunter2"));
    bench.spec.mounts.folder = bench.root.path().join("nowhere");
    let lost = build_debug_shell_context(&bench.spec, &resume, SecretAccess::Withheld).unwrap_err();
    assert_eq!(lost, ResumeError::WorkspaceGone);
}
