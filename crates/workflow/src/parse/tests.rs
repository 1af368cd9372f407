//! Files in, diagnostics out.

use proptest::prelude::*;
use shipway_syntax::SourceFile;

use super::*;
use crate::{
    expr::{Contexts, ExprValue},
    model::{DeferredSetting, JobMatrix, PushEvent, StepAction},
};

fn read(text: &str) -> (Option<Workflow>, Vec<String>) {
    let source = SourceFile::new("ci.yml", text);
    let parsed = parse(&source);
    (
        parsed.workflow,
        parsed
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.one_line(&source))
            .collect(),
    )
}

fn good(text: &str) -> Workflow {
    let (workflow, diagnostics) = read(text);
    assert_eq!(diagnostics, Vec::<String>::new());
    workflow.unwrap()
}

/// A file with one job `a` of these lines, each indented as a job's key.
fn job(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("on: push\njobs:\n  a:\n    runs-on: x\n{lines}")
}

fn complaints(text: &str) -> Vec<String> {
    read(text).1
}

const LARGE: &str = r#"
name: CI
run-name: Build ${{ github.ref_name }}
on:
  push:
    branches: [main, 'releases/**', '!releases/**-alpha']
    tags: v*
    paths-ignore: ['docs/**']
  pull_request: { types: [opened] }
  workflow_dispatch:
    inputs:
      level: { type: choice, options: [low, high], default: low, required: true }
      dry: { type: boolean }
  schedule: [{ cron: '30 5 * * 1-5', timezone: Europe/Berlin }]
permissions: { contents: read }
env: { A: 1, B: '${{ vars.B }}' }
defaults: { run: { shell: bash } }
concurrency: { group: 'ci-${{ github.ref }}', cancel-in-progress: true }
jobs:
  build:
    name: Build it
    runs-on: ubuntu-latest
    timeout-minutes: 5
    outputs: { version: '${{ steps.v.outputs.version }}' }
    steps:
      - uses: actions/checkout@v4
      - id: v
        run: |
          echo "version=1" >> "$GITHUB_OUTPUT"
      - run: make
        working-directory: src
        continue-on-error: ${{ github.ref_name != 'main' }}
      - run: make again
  test:
    needs: build
    if: ${{ needs.build.outputs.version != '' }}
    runs-on: [self-hosted, '${{ matrix.os }}']
    continue-on-error: true
    strategy:
      fail-fast: false
      max-parallel: 2
      matrix:
        os: [a, b]
        python: ['3.10', 3.9]
        include: [{ os: a, extra: true }]
        exclude: [{ os: b, python: 3.9 }]
    steps:
      - name: Say ${{ matrix.os }}
        env: { VERSION: '${{ needs.build.outputs.version }}' }
        run: echo "$VERSION"
  call:
    needs: [build, test]
    uses: ./.github/workflows/deploy.yml
    with: { level: 1 }
    secrets: inherit
"#;

#[test]
fn a_file_with_everything_is_understood() {
    let workflow = good(LARGE);
    assert_eq!(workflow.name.as_deref(), Some("CI"));
    let dispatch = workflow.on.workflow_dispatch.as_ref().unwrap();
    assert_eq!(
        dispatch.inputs([("LEVEL", "high")]).unwrap(),
        ExprValue::object([
            ("level", ExprValue::from("high")),
            ("dry", ExprValue::Bool(false))
        ])
    );
    assert_eq!(
        dispatch.inputs([("level", "x")]).unwrap_err().to_string(),
        "the input `level` must be one of `low` and `high`, but is 'x'"
    );
    assert_eq!(
        dispatch.inputs([("lvl", "x")]).unwrap_err().to_string(),
        "this workflow has no input `lvl`; it has `level` and `dry`"
    );
    let [build, test, call] = workflow.jobs.as_slice() else {
        panic!("three jobs")
    };
    let ids: Vec<&str> = build.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["__actions_checkout", "v", "__run", "__run_2"]);
    assert_eq!(
        (build.at.line, build.at.column, build.steps[1].at.line),
        (20, 3, 27)
    );
    assert!(
        matches!(&build.steps[2].continue_on_error, DeferredSetting::Expr(template) if template.line() == 32)
    );
    assert!(
        matches!(&test.strategy.as_ref().unwrap().matrix, Some(JobMatrix::Written { axes, .. }) if axes.len() == 2)
    );
    assert_eq!(test.needs, ["build"]);
    assert_eq!(call.calls.as_ref().unwrap().at.line, 53);
    assert_eq!(
        build.steps[1].title(),
        r#"Run echo "version=1" >> "$GITHUB_OUTPUT""#
    );
    let StepAction::Run { script, .. } = &build.steps[1].action else {
        panic!("a script")
    };
    assert_eq!(
        script.resolve_text(&Contexts::new()).unwrap(),
        "echo \"version=1\" >> \"$GITHUB_OUTPUT\"\n"
    );
}

#[test]
fn the_model_survives_serde() {
    let workflow = good(LARGE);
    let json = serde_json::to_string(&workflow).unwrap();
    assert_eq!(serde_json::from_str::<Workflow>(&json).unwrap(), workflow);
}

#[test]
fn the_examples_of_this_repository_are_understood() {
    for text in [
        include_str!("../../../../examples/shop-python/.github/workflows/cd.yml"),
        include_str!("../../../../examples/shop-rust/.github/workflows/cd.yml"),
        include_str!("../../../../examples/tiny/.github/workflows/cd.yml"),
    ] {
        let workflow = good(text);
        assert!(workflow.on.matches_push(&PushEvent {
            reference: "refs/heads/main".to_owned(),
            changed_paths: None
        }));
    }
}

#[test]
fn pushes_are_filtered_as_github_filters_them() {
    let on = |filters: &str| {
        good(&format!(
            "on:\n  push: {filters}\njobs: {{ a: {{ runs-on: x, steps: [{{ run: a }}] }} }}\n"
        ))
        .on
    };
    let paths: Vec<String> = ["docs/a.md", "src/b.rs"].map(str::to_owned).to_vec();
    for (filters, reference, changed, expected) in [
        ("", "refs/heads/any", 2, true),
        ("", "refs/tags/v1", 2, true),
        ("", "refs/notes/x", 2, false),
        ("{ branches: main }", "refs/heads/main", 2, true),
        ("{ branches: main }", "refs/heads/Main", 2, false),
        ("{ branches: main }", "refs/tags/main", 2, false),
        ("{ tags: 'v*' }", "refs/heads/main", 2, false),
        ("{ branches: main, tags: 'v*' }", "refs/tags/v1", 2, true),
        (
            "{ branches: ['releases/**', '!releases/**-alpha'] }",
            "refs/heads/releases/1-alpha",
            2,
            false,
        ),
        (
            "{ branches: ['releases/**', '!releases/**-alpha', releases/9-alpha] }",
            "refs/heads/releases/9-alpha",
            2,
            true,
        ),
        (
            "{ branches-ignore: ['wip/**'] }",
            "refs/heads/wip/a",
            2,
            false,
        ),
        (
            "{ branches-ignore: ['wip/**'] }",
            "refs/heads/main",
            2,
            true,
        ),
        ("{ paths: ['src/**'] }", "refs/heads/main", 2, true),
        ("{ paths: ['src/**'] }", "refs/heads/main", 1, false),
        ("{ paths: ['**', '!docs/**'] }", "refs/heads/main", 1, false),
        ("{ paths-ignore: ['docs/**'] }", "refs/heads/main", 1, false),
        ("{ paths-ignore: ['docs/**'] }", "refs/heads/main", 2, true),
        ("{ paths: ['never'] }", "refs/tags/v1", 2, true),
        (
            "{ branches: main, paths: ['src/**'] }",
            "refs/heads/other",
            2,
            false,
        ),
    ] {
        let push = PushEvent {
            reference: reference.to_owned(),
            changed_paths: Some(paths[..changed].to_vec()),
        };
        assert_eq!(
            on(filters).matches_push(&push),
            expected,
            "{filters} {reference} {changed}"
        );
    }
    let unknown = PushEvent {
        reference: "refs/heads/main".to_owned(),
        changed_paths: None,
    };
    assert!(on("{ paths: ['src/**'] }").matches_push(&unknown));
}

#[test]
fn unknown_words_come_with_the_nearest_known() {
    assert_eq!(
        complaints(
            "on: pull_requst\nenvs: {}\njobs:\n  a:\n    runs_on: x\n    steps:\n      - rnu: echo\n"
        ),
        [
            "ci.yml:1:5: error: unknown event `pull_requst`; did you mean `pull_request`?",
            "ci.yml:2:1: error: unknown key `envs` in the workflow; did you mean `env`?",
            "ci.yml:5:5: error: unknown key `runs_on` in the job `a`; did you mean `runs-on`?",
            "ci.yml:5:5: error: `runs-on` is missing in the job `a`",
            "ci.yml:7:9: error: unknown key `rnu` in the step; did you mean `run`?",
            "ci.yml:7:9: error: the step does nothing; add `run` or `uses`",
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        complaints(""),
        [
            "ci.yml:1:1: error: the workflow must be a mapping, but this is empty; its keys are name, description, run-name, on, permissions, env, defaults, concurrency, jobs"
        ]
    );
    assert_eq!(
        complaints("name: x\n"),
        [
            "ci.yml:1:1: error: `on` is missing in the workflow",
            "ci.yml:1:1: error: `jobs` is missing in the workflow"
        ]
    );
    assert_eq!(
        complaints("on: push\njobs: {}\n"),
        ["ci.yml:2:7: error: there are no jobs"]
    );
    assert_eq!(complaints("on: [push\n").len(), 1);
}

#[test]
fn places_are_found_in_quotes_and_blocks_too() {
    let text = job(
        "steps:\n  - run: |\n      echo one\n      echo ${{ gihub.sha }}\n  - run: \"say ${{ secret.A }}\"\n    if: >-\n      github.ref == 'x'\n      && contians(github.ref, 'y')\n  - run: 'it''s ${{ nope }}'\n",
    );
    assert_eq!(
        complaints(&text),
        [
            "ci.yml:8:20: error: unknown name `gihub`; did you mean `github`?",
            "ci.yml:9:23: error: unknown name `secret`; did you mean `secrets`?",
            "ci.yml:12:14: error: unknown function `contians`; did you mean `contains`?",
            "ci.yml:13:25: error: unknown name `nope`; the known ones are `github`, `inputs`, `vars`, `needs`, `strategy`, `matrix`, `secrets`, `steps`, `job`, `runner` and `env`",
        ]
    );
}

#[test]
fn contexts_are_refused_where_they_are_not_there() {
    let text = "on: push\nrun-name: ${{ secrets.A }}\nenv: { A: '${{ matrix.x }}' }\njobs:\n  a:\n    runs-on: ${{ env.X }}\n    if: steps.x.outcome == 'failure'\n    steps:\n      - run: a\n        if: secrets.A != ''\n        shell: ${{ matrix.shell }}\n";
    assert_eq!(
        complaints(text),
        [
            "ci.yml:2:15: error: `secrets` can't be used here; available here: `github`, `inputs` and `vars`",
            "ci.yml:3:16: error: `matrix` can't be used here; available here: `github`, `inputs`, `vars` and `secrets`",
            "ci.yml:6:18: error: `env` can't be used here; available here: `github`, `inputs`, `vars`, `needs`, `strategy` and `matrix`",
            "ci.yml:7:9: error: `steps` can't be used here; available here: `github`, `inputs`, `vars` and `needs`",
            "ci.yml:10:13: error: `secrets` can't be used here; available here: `github`, `inputs`, `vars`, `needs`, `strategy`, `matrix`, `steps`, `job`, `runner` and `env`; give the job `env: { TOKEN: ${{ secrets.… }} }` and test `env.TOKEN != ''`",
            "ci.yml:11:16: error: `shell` can't hold expressions",
        ]
    );
}

#[test]
fn needs_must_exist_and_come_to_an_end() {
    let jobs = |jobs: &[(&str, &str)]| {
        let jobs: String = jobs
            .iter()
            .map(|(id, needs)| {
                format!("  {id}: {{ runs-on: x, needs: {needs}, steps: [{{ run: a }}] }}\n")
            })
            .collect();
        complaints(&format!("on: push\njobs:\n{jobs}"))
    };
    assert_eq!(
        jobs(&[("build", "[]"), ("test", "biuld")]),
        [
            "ci.yml:4:30: error: the job `test` needs `biuld`, which doesn't exist; did you mean `build`?"
        ]
    );
    assert_eq!(
        jobs(&[("a", "[c]"), ("b", "[a]"), ("c", "[x, b]"), ("x", "[]")]),
        [
            "ci.yml:3:28: error: these jobs wait for each other and can never start: a needs c needs b needs a; remove one of these `needs`"
        ]
    );
    assert_eq!(jobs(&[("a", "a")]).len(), 1);
    assert_eq!(jobs(&[("a", "B"), ("b", "[]")]), Vec::<String>::new());
}

#[test]
fn names_must_be_names_and_unique() {
    let text = "on: push\njobs:\n  a b: { runs-on: x, steps: [{ run: a }] }\n  c: { runs-on: x, steps: [{ run: a, id: s }, { run: a, id: S }, { run: a, id: __x }] }\n  C: { runs-on: x, steps: [{ run: a }] }\n";
    assert_eq!(
        complaints(text),
        [
            "ci.yml:3:3: error: `a b` is not a valid job id; ids start with a letter or a single _, consist of letters, digits, - and _, and have at most 100 characters",
            "ci.yml:4:61: error: duplicate step id `S`",
            "ci.yml:4:80: error: `__x` is not a valid step id; ids start with a letter or a single _, consist of letters, digits, - and _, and have at most 100 characters",
            "ci.yml:5:3: error: `C` is already defined, as `c`: case doesn't matter here",
        ]
    );
}

#[test]
fn what_can_not_go_together_is_refused() {
    let text = job(
        "steps:\n  - { run: a, uses: b/c@1 }\n  - { run: a, with: { x: 1 } }\n  - { uses: b/c@1, shell: sh }\n  - { uses: checkout }\n  - { run: a }\nstrategy: { matrix: { a: 1 } }\ntimeout-minutes: 0\ncontinue-on-error: maybe",
    );
    assert_eq!(
        complaints(&text),
        [
            "ci.yml:6:25: error: a step must have either `run` or `uses`, not both; split it into two steps",
            "ci.yml:7:25: error: `with` can't be used in a step with `run`",
            "ci.yml:8:31: error: `shell` can't be used in a step with `uses`",
            "ci.yml:9:17: error: `checkout` is not an action; write owner/repo@ref, ./path or docker://image",
            "ci.yml:11:30: error: `a` must be a list, or an expression, but this is `1`",
            "ci.yml:12:22: error: `timeout-minutes` must be a number above 0, or an expression, but this is `0`",
            "ci.yml:13:24: error: `continue-on-error` must be true, false or an expression, but this is `maybe`",
        ]
    );
    let text = "on:\n  push: { branches: a, branches-ignore: b, tags: ['!a'], paths: ['a['] }\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n";
    assert_eq!(
        complaints(text),
        [
            "ci.yml:2:41: error: `branches` and `branches-ignore` can't be used together; use `branches` alone: a pattern that starts with `!` excludes what earlier patterns matched",
            "ci.yml:2:50: warning: `tags` has only patterns with `!`, so nothing matches; add a pattern without `!` before them, such as '**'",
            "ci.yml:2:66: error: in `paths`: `[` without `]` (write `\\[` for the character itself)",
        ]
    );
}

#[test]
fn what_is_legal_but_hardly_meant_is_a_warning() {
    let text = "on: push\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n  b:\n    runs-on: x\n    needs: a\n    if: ${{ false }} && true\n    steps:\n      - { run: 'echo ${{ needs.b.result }} ${{ steps.late.outputs.x }}' }\n      - { run: b, id: late, if: steps.late.outcome == 'x' }\n";
    let (workflow, diagnostics) = read(text);
    assert!(workflow.is_some());
    assert_eq!(
        diagnostics,
        [
            "ci.yml:7:9: warning: text around `${{ }}` turns this condition into a string, which is always true; put the whole condition inside `${{ }}`, or remove them",
            "ci.yml:9:32: warning: `needs.b` isn't among the `needs` of this job; did you mean `a`?",
            "ci.yml:9:54: warning: `steps.late` isn't a step before this one; its value is always empty",
            "ci.yml:10:39: warning: `steps.late` isn't a step before this one; its value is always empty",
        ]
    );
}

#[test]
fn a_number_without_quotes_is_a_number() {
    let (workflow, told) = read(&job(
        "env: { A: 3.10, B: 1e3, C: '3.10', D: True, E: 5 }\nsteps: [{ run: a }]\nstrategy: { matrix: { v: [3.10] } }",
    ));
    assert_eq!(
        told,
        [
            "ci.yml:5:15: warning: `3.10` is the number 3.1 here; quote it to mean a string: '3.10'",
            "ci.yml:5:24: warning: `1e3` is the number 1000 here; quote it to mean a string: '1e3'",
            "ci.yml:7:31: warning: `3.10` is the number 3.1 here; quote it to mean a string: '3.10'",
        ]
    );
    let env = workflow.unwrap().jobs[0]
        .env
        .resolve(&Contexts::new())
        .unwrap();
    let values: Vec<&str> = env.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["3.1", "1000", "3.10", "true", "5"]);
}

#[test]
fn what_many_expressions_make_together_is_bounded() {
    let many = "'${{ vars.LONG }}', ".repeat(20);
    let env: String = (0..20)
        .map(|n| format!("E{n}: '${{{{ vars.LONG }}}}', "))
        .collect();
    let workflow = good(&job(&format!(
        "env: {{ {env} }}\nsteps: [{{ run: a }}]\nstrategy: {{ matrix: {{ v: [{many}] }} }}"
    )));
    let contexts = |bytes: usize| {
        let long = ExprValue::from("x".repeat(bytes));
        Contexts::new().with("vars", ExprValue::object([("LONG", long)]))
    };
    let job = &workflow.jobs[0];
    let Some(JobMatrix::Written { axes, .. }) = &job.strategy.as_ref().unwrap().matrix else {
        panic!("a matrix")
    };
    let said = "these values together are larger than 10 MiB";
    assert!(job.env.resolve(&contexts(1 << 18)).is_ok());
    assert_eq!(
        job.env.resolve(&contexts(1 << 20)).unwrap_err().message,
        said
    );
    assert!(axes[0].1.resolve(&contexts(1 << 18)).is_ok());
    assert_eq!(
        axes[0].1.resolve(&contexts(1 << 20)).unwrap_err().message,
        said
    );
}

#[test]
fn anchors_and_every_form_of_on_are_read() {
    let text = "on: [push, workflow_dispatch]\njobs:\n  a: { runs-on: x, steps: &steps [{ run: a }], env: &env { A: 1 } }\n  b: { runs-on: x, steps: *steps, env: *env }\n";
    let workflow = good(text);
    assert_eq!(
        workflow.jobs[1].steps[0].action,
        workflow.jobs[0].steps[0].action
    );
    assert!(workflow.on.takes_dispatch());
    assert!(
        good("on:\n  push:\n  workflow_call:\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n")
            .on
            .push
            .is_some()
    );
}

#[test]
fn a_large_file_is_read_in_linear_time() {
    let jobs: String = (0..3_000).map(|n| format!("  j{n}:\n    runs-on: x\n    needs: [{}]\n    steps: [{{ run: 'echo ${{{{ github.sha }}}}' }}]\n", if n == 0 { String::new() } else { format!("j{}", n - 1) })).collect();
    let workflow = good(&format!("on: push\njobs:\n{jobs}"));
    assert_eq!(workflow.jobs.len(), 3_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n]{0,200}") {
        let _ = parse(&SourceFile::new("x", text));
    }

    /// A good file with a piece taken out and another put in.
    #[test]
    fn no_damage_makes_it_panic(from in 0..LARGE.len(), length in 0..40usize, instead in r"[a-z\[\]{}:'${ \n-]{0,12}") {
        let to = (from + length).min(LARGE.len());
        if let (Some(before), Some(after)) = (LARGE.get(..from), LARGE.get(to..)) {
            let source = SourceFile::new("x", format!("{before}{instead}{after}"));
            let parsed = parse(&source);
            prop_assert!(parsed.workflow.is_some() || !parsed.diagnostics.is_empty());
            for diagnostic in &parsed.diagnostics {
                let span = diagnostic.span.unwrap_or_default();
                prop_assert!(span.start <= span.end && span.end <= source.text.len(), "{diagnostic:?}");
            }
        }
    }
}

#[test]
fn a_job_says_when_it_begins_anew() {
    let retry = |text: &str| {
        let text = format!(
            "on: push\njobs:\n  a: {{ runs-on: x, retry: {text}, steps: [{{ run: a }}] }}\n"
        );
        let source = SourceFile::new("ci.yml", text);
        let parsed = crate::parse(&source);
        let told = parsed
            .diagnostics
            .first()
            .map(|first| first.one_line(&source));
        (
            parsed.workflow.and_then(|it| it.jobs[0].retry),
            told.unwrap_or_default(),
        )
    };
    let is = |max, when| Some(crate::model::JobRetry { max, when });
    assert_eq!(retry("2").0, is(2, crate::model::RetryWhen::Any));
    assert_eq!(
        retry("{ max: 3, when: worker-lost }").0,
        is(3, crate::model::RetryWhen::WorkerLost)
    );
    for bad in ["11", "-1", "1.5", "{ when: never }", "often"] {
        assert_ne!(retry(bad).1, "", "{bad}");
    }
}
