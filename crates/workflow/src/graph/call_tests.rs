//! Workflows that call workflows: what fits together, what follows when jobs end, and what is refused where.

use std::collections::BTreeMap;

use shipway_syntax::SourceFile;

use super::*;
use crate::expr::Contexts;

const ROOT: &str = ".github/workflows/ci.yml";

/// A run in memory, of files by their names.
struct Run {
    workflow: Workflow,
    graph: JobGraph,
    progress: WorkflowProgress,
    ground: RunContexts,
}

type Files<'a> = &'a [(&'a str, &'a str)];

fn linked(root: &str, files: Files<'_>) -> Result<(Workflow, JobGraph), String> {
    let source = SourceFile::new(ROOT, root);
    let parsed = crate::parse(&source);
    let told: Vec<String> = (parsed.diagnostics.iter())
        .map(|it| it.one_line(&source))
        .collect();
    let workflow = parsed.workflow.unwrap_or_else(|| panic!("{told:#?}"));
    let called: Vec<CalledText<'_>> = files
        .iter()
        .map(|(name, text)| CalledText {
            name,
            text: if text.is_empty() {
                Err("it is not in the commit")
            } else {
                Ok(text)
            },
        })
        .collect();
    let graph = link_calls(ROOT, &workflow, &called).map_err(|error| error.to_string())?;
    Ok((workflow, graph))
}

impl Run {
    fn of(root: &str, files: Files<'_>) -> Self {
        let (workflow, graph) = linked(root, files).unwrap();
        let github = ExprValue::object([("ref_name", ExprValue::from("main"))]);
        Self {
            progress: WorkflowProgress::new(workflow.jobs.len()),
            workflow,
            graph,
            ground: RunContexts {
                github,
                ..RunContexts::default()
            },
        }
    }

    /// What follows, a line each: `+` what may run, `~` what is told to stop, `=` what has ended.
    fn next(&mut self) -> Vec<String> {
        let before = self.active();
        let because = |why: Option<String>| why.map(|why| format!(": {why}")).unwrap_or_default();
        let decisions = (self.graph).next(&self.workflow, &mut self.progress, &self.ground);
        let mut lines = Vec::new();
        for decision in decisions {
            lines.extend(match decision {
                GraphDecision::Expand { .. } => None,
                GraphDecision::End { job, result, why } => {
                    Some(format!("= {job} {result}{}", because(why)))
                }
                GraphDecision::EndCell { .. } => None,
                GraphDecision::Stop { key, why } => Some(format!("~ {key}: {why}")),
            });
        }
        let now = self.active();
        lines
            .extend((now.iter().filter(|key| !before.contains(key))).map(|key| format!("+ {key}")));
        lines
    }

    fn active(&self) -> Vec<String> {
        let active = self.progress.active();
        active.iter().map(|cell| cell.key.to_string()).collect()
    }

    fn end(&mut self, key: &str, outcome: Conclusion, outputs: &[(&str, &str)]) -> Vec<String> {
        let outputs: Vec<_> = (outputs.iter())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let key = key.parse::<JobKey>().unwrap();
        let (_, progress, job) = self.graph.find_mut(&mut self.progress, &key).unwrap();
        assert!(
            progress
                .cell(job, &key)
                .is_some_and(|cell| cell.outcome.is_none())
        );
        let why = (outcome != Conclusion::Success).then_some("exit code 1");
        progress.end_cell(job, &key, outcome, &outputs, why);
        self.next()
    }

    fn names(&self) -> Vec<String> {
        let active = self.progress.active();
        active.iter().map(|cell| cell.name.clone()).collect()
    }
}

use Conclusion::{Cancelled, Failure, Success};

const CALLER: &str = "on: push
env: { OUTER: 1 }
jobs:
  version: { runs-on: x, outputs: { v: '${{ steps.s.outputs.v }}' }, steps: [{ id: s, run: a }] }
  release:
    needs: version
    uses: ./.github/workflows/release.yml
    with: { version: '${{ needs.version.outputs.v }}', dry: true }
    secrets: inherit
  after: { needs: release, runs-on: x, if: needs.release.outputs.url == 'http://1.2', steps: [{ run: a }] }
";

const RELEASE: &str = "on:
  workflow_call:
    inputs:
      version: { type: string, required: true }
      dry: { type: boolean }
      times: { type: number, default: 3 }
      note: { type: string, default: 'of ${{ github.ref_name }}' }
    secrets: { TOKEN: { required: true }, OTHER: }
    outputs: { url: { value: 'http://${{ jobs.publish.outputs.url }}' } }
jobs:
  build:
    name: build ${{ inputs.version }}
    runs-on: x
    strategy: { matrix: { n: [1, 2] } }
    steps: [{ run: a }]
  publish: { needs: build, if: inputs.dry, runs-on: x, outputs: { url: '${{ steps.s.outputs.v }}' }, steps: [{ id: s, run: a }] }
";

const RELEASE_YML: &str = ".github/workflows/release.yml";

#[test]
fn a_called_workflow_runs_with_its_inputs_and_gives_back_its_outputs() {
    let mut run = Run::of(CALLER, &[(RELEASE_YML, RELEASE)]);
    assert_eq!(run.next(), ["+ version"]);
    assert_eq!(
        run.end("version", Success, &[("v", "1.2")]),
        [
            "= version success",
            "+ release~build.1",
            "+ release~build.2"
        ]
    );
    assert_eq!(run.names(), ["release / build 1.2", "release / build 1.2"]);
    let key: JobKey = "release~build.1".parse().unwrap();
    let found = run.graph.find(&run.workflow, &run.progress, &key).unwrap();
    assert_eq!(
        serde_json::to_string(&found.called.unwrap().inputs).unwrap(),
        r#"{"version":"1.2","dry":true,"times":3,"note":"of main"}"#
    );
    assert!(found.workflow.env.is_empty());
    run.end("release~build.1", Success, &[]);
    assert_eq!(
        run.end("release~build.2", Success, &[]),
        ["= release~build success", "+ release~publish"]
    );
    assert_eq!(
        run.end("release~publish", Success, &[("url", "1.2")]),
        ["= release~publish success", "= release success", "+ after"]
    );
    run.end("after", Success, &[]);
    assert_eq!(run.progress.conclusion(), Success);
}

#[test]
fn what_fails_in_a_call_fails_the_call_and_says_which_job_it_was() {
    let mut run = Run::of(CALLER, &[(RELEASE_YML, RELEASE)]);
    run.next();
    run.end("version", Success, &[("v", "1")]);
    assert_eq!(
        run.end("release~build.2", Failure, &[]),
        ["~ release~build.1: `release / build 1` failed, and the matrix is fail-fast"]
    );
    assert_eq!(
        run.end("release~build.1", Cancelled, &[]),
        [
            "= release~build failure: exit code 1",
            "= release~publish skipped: `build`, which it needs, failed",
            "= release failure: `build`: exit code 1",
            "= after skipped: `release`, which it needs, failed",
        ]
    );
    assert_eq!(run.progress.blamed(), Some((1, "`build`: exit code 1")));
}

#[test]
fn cancelling_reaches_called_jobs_and_spares_what_asks_to_go_on() {
    let called = "on: workflow_call\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n  b: { needs: a, runs-on: x, steps: [{ run: a }] }\n  clean: { needs: b, if: always(), runs-on: x, steps: [{ run: a }] }\n";
    let root = "on: push\njobs:\n  c: { uses: ./.github/workflows/x.yml }\n  d: { uses: ./.github/workflows/x.yml, if: always() }\n";
    let mut run = Run::of(root, &[(".github/workflows/x.yml", called)]);
    assert_eq!(run.next(), ["+ c~a", "+ d~a"]);
    run.progress.cancel("enough");
    let why = "the run was cancelled: enough";
    assert_eq!(run.next(), [format!("~ c: {why}"), format!("~ c~a: {why}")]);
    assert_eq!(
        run.end("c~a", Cancelled, &[]),
        [
            "= c~a cancelled: exit code 1".to_owned(),
            format!("= c~b cancelled: {why}"),
            "+ c~clean".to_owned()
        ]
    );
    assert_eq!(
        run.end("c~clean", Success, &[]),
        ["= c~clean success", "= c cancelled: `a`: exit code 1"]
    );
    assert_eq!(run.end("d~a", Success, &[]), ["= d~a success", "+ d~b"]);
}

#[test]
fn a_matrix_of_calls_keeps_to_its_limits() {
    let called = "on: { workflow_call: { inputs: { os: { type: string } } } }\njobs:\n  t: { name: 'on ${{ inputs.os }}', runs-on: x, steps: [{ run: a }] }\n";
    let root = "on: push\njobs:\n  all:\n    strategy: { max-parallel: 1, matrix: { os: [linux, mac, bsd] } }\n    uses: ./.github/workflows/x.yml\n    with: { os: '${{ matrix.os }}' }\n";
    let mut run = Run::of(root, &[(".github/workflows/x.yml", called)]);
    assert_eq!(run.next(), ["+ all.1~t"]);
    assert_eq!(run.names(), ["all (linux) / on linux"]);
    assert_eq!(
        run.end("all.1~t", Success, &[]),
        ["= all.1~t success", "+ all.2~t"]
    );
    assert_eq!(
        run.end("all.2~t", Failure, &[]),
        [
            "= all.2~t failure: exit code 1",
            "~ all.3: `all (mac)` failed, and the matrix is fail-fast",
            "= all.3~t cancelled: `all (mac)` failed, and the matrix is fail-fast",
            "= all failure: `t`: exit code 1"
        ]
    );
    let states: Vec<_> = (run.progress.jobs[0].cells.iter())
        .map(|cell| cell.outcome)
        .collect();
    assert_eq!(states, [Some(Success), Some(Failure), Some(Cancelled)]);
}

/// GitHub makes a text of what isn't one, and nothing else of a text.
#[test]
fn what_is_given_must_have_the_type_that_is_asked_for() {
    let called = "on: { workflow_call: { inputs: { b: { type: boolean }, n: { type: number }, s: { type: string }, r: { type: string, required: true, default: d } } } }\njobs:\n  a: { runs-on: x, steps: [{ run: a }] }\n";
    let given = |with: &str| {
        let root = format!(
            "on: push\njobs:\n  c: {{ uses: ./.github/workflows/x.yml, with: {{ {with} }} }}\n"
        );
        let files = [(".github/workflows/x.yml", called)];
        linked(&root, &files)?;
        let mut run = Run::of(&root, &files);
        run.next();
        let cell = &run.progress.jobs[0].cells[0];
        let inputs = &cell.called.as_ref().unwrap().inputs;
        Ok::<_, String>(serde_json::to_string(inputs).unwrap())
    };
    for (with, expected) in [
        (
            "r: x, b: true, n: 0x10, s: plain",
            r#"{"b":true,"n":16,"s":"plain","r":"x"}"#,
        ),
        (
            "r: x, s: true, n: 1.5",
            r#"{"b":false,"n":1.5,"s":"true","r":"x"}"#,
        ),
        (
            "r: 7, B: \"${{ 1 == 1 }}\", n: \"${{ fromJSON('2') }}\"",
            r#"{"b":true,"n":2,"s":"","r":"7"}"#,
        ),
    ] {
        assert_eq!(given(with).as_deref(), Ok(expected), "{with}");
    }
    for (with, expected) in [
        (
            "r: x, b: 'true'",
            "the input `b` must be true or false, but is 'true'",
        ),
        (
            "r: x, b: yes",
            "the input `b` must be true or false, but is 'yes'",
        ),
        ("r: x, n: '5'", "the input `n` must be a number, but is '5'"),
        (
            "r: x, n: five",
            "the input `n` must be a number, but is 'five'",
        ),
        // GitHub asks for what is required even where there is a default.
        ("b: true", "must give the input `r`"),
    ] {
        let why = given(with).unwrap_err();
        assert!(why.contains(expected), "{with}: {why}");
    }
}

#[test]
fn a_call_whose_jobs_are_all_skipped_is_skipped() {
    let called = "on: workflow_call\njobs:\n  a: { if: false, runs-on: x, steps: [{ run: a }] }\n";
    let root = "on: push\njobs:\n  c: { uses: ./.github/workflows/x.yml }\n  d: { needs: c, runs-on: x, steps: [{ run: a }] }\n";
    let mut run = Run::of(root, &[(".github/workflows/x.yml", called)]);
    assert_eq!(
        run.next(),
        [
            "= c~a skipped: its condition is false: `false`",
            "= c skipped: all jobs of the workflow it calls were skipped",
            "= d skipped: `c`, which it needs, was skipped",
        ]
    );
}

fn refused(root: &str, files: Files<'_>) -> String {
    linked(root, files).expect_err("it is refused")
}

#[test]
fn what_does_not_fit_is_refused_where_it_stands() {
    let call = |with: &str| {
        format!("on: push\njobs:\n  r:\n    uses: ./.github/workflows/release.yml\n{with}")
    };
    let mistakes = |with: &str| refused(&call(with), &[(RELEASE_YML, RELEASE)]);
    assert_eq!(
        mistakes("    with: { versoin: 1, dry: maybe }\n    secrets: { TOKN: a }\n"),
        "\
.github/workflows/ci.yml:4:11: error: .github/workflows/release.yml has no input `versoin`; did you mean `version`?
.github/workflows/ci.yml:4:11: error: the job `r` must give the input `version`, which .github/workflows/release.yml requires; add it to `with`
.github/workflows/ci.yml:4:11: error: the job `r`: the input `dry` must be true or false, but is 'maybe'; convert a string with `fromJSON(…)`
.github/workflows/ci.yml:4:11: error: .github/workflows/release.yml has no secret `TOKN`; did you mean `TOKEN`?
.github/workflows/ci.yml:4:11: error: the job `r` must give the secret `TOKEN`, which .github/workflows/release.yml requires; add it to `secrets`, or write `secrets: inherit`"
    );
    let fine = call("    with: { version: 1 }\n    secrets: inherit\n");
    assert_eq!(
        refused(&fine, &[(RELEASE_YML, "")]),
        ".github/workflows/ci.yml:4:11: error: .github/workflows/release.yml can't be called: it is not in the commit"
    );
    assert_eq!(
        refused(&fine, &[]),
        ".github/workflows/ci.yml:4:11: error: .github/workflows/release.yml was not read when the run was created"
    );
    assert_eq!(
        refused(
            &fine,
            &[(
                RELEASE_YML,
                "on: push\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n"
            )]
        ),
        ".github/workflows/ci.yml:4:11: error: .github/workflows/release.yml can't be called: add `workflow_call` to its `on`"
    );
    assert_eq!(
        refused(
            &fine,
            &[(
                RELEASE_YML,
                "on: workflow_call\njobs: { a: { runs-on: x, steps: [{ rnu: a }] } }\n"
            )]
        )
        .lines()
        .next()
        .unwrap(),
        ".github/workflows/release.yml:2:34: error: the step does nothing; add `run` or `uses`"
    );
}

#[test]
fn inputs_that_turn_out_wrong_fail_the_call() {
    let root = "on: push\njobs:\n  r:\n    uses: ./.github/workflows/x.yml\n    with: { flag: '${{ github.ref_name }}' }\n";
    let called = "on: { workflow_call: { inputs: { flag: { type: boolean } } } }\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n";
    let mut run = Run::of(root, &[(".github/workflows/x.yml", called)]);
    assert_eq!(
        run.next(),
        [
            "= r failure: the job `r` (line 3) can't call .github/workflows/x.yml: the input `flag` must be true or false, but is 'main'; convert a string with `fromJSON(…)`"
        ]
    );
}

#[test]
fn workflows_that_call_themselves_or_go_too_deep_are_refused() {
    let calls = |name: &str| {
        format!(
            "on: {{ workflow_call: , push: }}\njobs: {{ a: {{ uses: ./.github/workflows/{name} }} }}\n"
        )
    };
    let (a, b) = (calls("b.yml"), calls("a.yml"));
    assert_eq!(
        refused(
            &calls("a.yml"),
            &[
                (".github/workflows/a.yml", &a),
                (".github/workflows/b.yml", &b)
            ]
        ),
        ".github/workflows/b.yml:2:20: error: workflows can't call themselves: .github/workflows/a.yml calls .github/workflows/b.yml calls .github/workflows/a.yml"
    );
    assert!(refused(&calls("ci.yml"), &[]).contains("workflows can't call themselves"));
    // A chain of ten is fine; one more isn't.
    let names: Vec<String> = (0..12).map(|n| format!("w{n}.yml")).collect();
    let chain = |length: usize| {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for n in 0..length {
            let text = if n + 1 == length {
                "on: workflow_call\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n".to_owned()
            } else {
                calls(&names[n + 1])
            };
            files.insert(format!(".github/workflows/{}", names[n]), text);
        }
        let files: Vec<(&str, &str)> = (files.iter())
            .map(|(name, text)| (&**name, &**text))
            .collect();
        linked(&calls("w0.yml"), &files)
    };
    assert!(chain(9).is_ok());
    assert!(
        chain(10)
            .unwrap_err()
            .contains("calls go more than 10 levels deep")
    );
}

#[test]
fn hostile_calls_are_refused_before_they_take_memory() {
    // Each level would make 256 times as many jobs.
    let matrix: Vec<String> = (0..256).map(|n| n.to_string()).collect();
    let calls = |name: &str| {
        format!(
            "on: {{ workflow_call: , push: }}\njobs:\n  a:\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    uses: ./.github/workflows/{name}\n",
            matrix.join(", ")
        )
    };
    let last = "on: workflow_call\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n";
    let (b, c) = (calls("b.yml"), calls("c.yml"));
    let files: Files<'_> = &[
        (".github/workflows/a.yml", &b),
        (".github/workflows/b.yml", &c),
        (".github/workflows/c.yml", last),
    ];
    let mut run = Run::of(&calls("a.yml"), files);
    let told = run.next();
    assert!(run.progress.size() <= JOBS_MAX);
    let failed = |line: &&String| line.contains("would have more than 20000 jobs");
    assert!(told.iter().any(|line| failed(&line)));
}

#[test]
fn what_another_repository_calls_is_its_own() {
    let remote = "acme/ci/.github/workflows/x.yml@v1";
    assert_eq!(resolve_call_name(ROOT, remote), remote);
    assert_eq!(
        resolve_call_name(remote, "./.github/workflows/y.yml"),
        "acme/ci/.github/workflows/y.yml@v1"
    );
    assert_eq!(
        WorkflowLocation::parse(remote),
        Ok(WorkflowLocation::Elsewhere {
            repository: "acme/ci",
            path: ".github/workflows/x.yml",
            reference: "v1"
        })
    );
    for bad in [
        "x.yml",
        ".github/workflows/a/x.yml",
        "../.github/workflows/x.yml",
        "acme/ci/x.yml@v1",
    ] {
        assert!(WorkflowLocation::parse(bad).is_err(), "{bad}");
    }
    let text = format!("on: push\njobs:\n  a: {{ uses: {remote} }}\n  b: {{ uses: {remote} }}\n");
    assert_eq!(find_called_workflows(ROOT, &text), [remote]);
}

#[test]
fn secrets_are_what_the_call_hands_on() {
    let secrets = ExprValue::object([
        ("A", ExprValue::from("1")),
        ("B", ExprValue::from("2")),
        ("GITHUB_TOKEN", ExprValue::from("t")),
    ]);
    let contexts = Contexts::new().with("secrets", secrets.clone());
    let of = |text: &str| {
        let text = format!("on: push\njobs:\n  a:\n    uses: ./.github/workflows/x.yml\n{text}");
        let workflow = crate::parse(&SourceFile::new(ROOT, text)).workflow.unwrap();
        let call = workflow.jobs[0].calls.clone().unwrap();
        serde_json::to_string(&call.secrets(&contexts).unwrap()).unwrap()
    };
    assert_eq!(
        of("    secrets: inherit\n"),
        serde_json::to_string(&secrets).unwrap()
    );
    assert_eq!(
        of("    secrets: { X: 'is ${{ secrets.a }}' }\n"),
        r#"{"GITHUB_TOKEN":"t","X":"is 1"}"#
    );
    assert_eq!(of(""), r#"{"GITHUB_TOKEN":"t"}"#);
}
