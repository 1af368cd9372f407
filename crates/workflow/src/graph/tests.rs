//! A workflow and how its jobs end, in; what the scheduler says, out.

use shipway_syntax::SourceFile;

use super::*;
use crate::{expr::Template, model::WorkflowJob};

fn workflow(jobs: &str) -> Workflow {
    let source = SourceFile::new("ci.yml", format!("on: push\njobs:\n{jobs}"));
    let parsed = crate::parse(&source);
    let told: Vec<String> = parsed
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.one_line(&source))
        .collect();
    parsed.workflow.unwrap_or_else(|| panic!("{told:#?}"))
}

/// A run in memory.
struct Run {
    workflow: Workflow,
    graph: JobGraph,
    progress: WorkflowProgress,
    ground: RunContexts,
}

impl Run {
    fn of(jobs: &str) -> Self {
        let workflow = workflow(jobs);
        let progress = WorkflowProgress::new(workflow.jobs.len());
        let github = ExprValue::object([("ref_name", ExprValue::from("main"))]);
        Self {
            graph: JobGraph::new(&workflow),
            workflow,
            progress,
            ground: RunContexts {
                github,
                ..RunContexts::default()
            },
        }
    }

    /// What follows, a line each: `+` what may run, `~` what is told to stop, `=` what has ended.
    fn next(&mut self) -> Vec<String> {
        let before: Vec<String> = self.active();
        let decisions = self
            .graph
            .next(&self.workflow, &mut self.progress, &self.ground);
        let mut lines = Vec::new();
        for decision in decisions {
            match decision {
                GraphDecision::Expand { .. } => {}
                GraphDecision::End { job, result, why } => {
                    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                    lines.push(format!("= {job} {result}{why}"));
                }
                GraphDecision::EndCell {
                    key, outcome, why, ..
                } => {
                    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                    lines.push(format!("= {key} {outcome}{why}"));
                }
                GraphDecision::Stop { key, why } => lines.push(format!("~ {key}: {why}")),
            }
        }
        lines.extend(
            self.active()
                .into_iter()
                .filter(|key| !before.contains(key))
                .map(|key| format!("+ {key}")),
        );
        lines
    }

    fn active(&self) -> Vec<String> {
        self.progress
            .jobs
            .iter()
            .flat_map(JobProgress::active)
            .map(|cell| cell.key.to_string())
            .collect()
    }

    fn end(&mut self, key: &str, outcome: Conclusion) -> Vec<String> {
        self.end_with(key, outcome, &[])
    }

    fn end_with(
        &mut self,
        key: &str,
        outcome: Conclusion,
        outputs: &[(&str, &str)],
    ) -> Vec<String> {
        let outputs: Vec<_> = outputs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let was = self.active();
        let key = key.parse::<JobKey>().unwrap();
        let job = self.graph.job_index(key.job_id()).unwrap();
        assert!(
            self.progress
                .cell(job, &key)
                .is_some_and(|cell| cell.outcome.is_none()),
            "{key} runs"
        );
        self.progress
            .end_cell(job, &key, outcome, &outputs, Some("exit code 1"));
        let made_room = self
            .active()
            .into_iter()
            .filter(|key| !was.contains(key))
            .map(|key| format!("+ {key}"))
            .collect::<Vec<_>>();
        made_room.into_iter().chain(self.next()).collect()
    }

    fn cancel(&mut self) -> Vec<String> {
        self.progress.cancel("enough");
        self.next()
    }

    fn names(&self) -> Vec<&str> {
        self.progress
            .jobs
            .iter()
            .flat_map(|job| &job.cells)
            .map(|cell| cell.name.as_str())
            .collect()
    }
}

use Conclusion::{Cancelled, Failure, Incomplete, Skipped, Success};

const CHAIN: &str = "  a: { runs-on: x, steps: [{ run: a }] }
  b: { runs-on: x, needs: a, steps: [{ run: a }] }
  c: { runs-on: x, needs: b, steps: [{ run: a }] }
  last: { runs-on: x, needs: [c], if: always(), steps: [{ run: a }] }
  after: { runs-on: x, needs: last, steps: [{ run: a }] }
  rescue: { runs-on: x, needs: b, if: failure(), steps: [{ run: a }] }
";

#[test]
fn jobs_start_when_what_they_need_has_succeeded() {
    let mut run = Run::of(CHAIN);
    assert_eq!(run.next(), ["+ a"]);
    assert_eq!(run.next(), Vec::<String>::new());
    assert_eq!(run.end("a", Success), ["= a success", "+ b"]);
    assert_eq!(
        run.end("b", Success),
        [
            "= b success",
            "= rescue skipped: its condition is false: `failure()`",
            "+ c"
        ]
    );
    assert_eq!(run.end("c", Success), ["= c success", "+ last"]);
    assert_eq!(run.end("last", Success), ["= last success", "+ after"]);
    assert_eq!(run.end("after", Success), ["= after success"]);
    assert!(run.progress.is_over());
    assert_eq!(run.progress.conclusion(), Success);
}

#[test]
fn a_failure_skips_all_that_follows_but_what_asks_for_it() {
    let mut run = Run::of(CHAIN);
    run.next();
    assert_eq!(
        run.end("a", Failure),
        [
            "= a failure: exit code 1",
            "= b skipped: `a`, which it needs, failed",
            "= c skipped: `b`, which it needs, was skipped",
            "+ last",
            "+ rescue"
        ]
    );
    // The job before succeeded, but one before that did not: GitHub skips, and the page says what would help.
    assert_eq!(
        run.end("last", Success),
        [
            "= last success",
            "= after skipped: a job before `last`, which it needs, did not succeed; `if: always() && …` would let it run"
        ]
    );
    assert_eq!(run.end("rescue", Success), ["= rescue success"]);
    assert_eq!(run.progress.conclusion(), Failure);
}

#[test]
fn a_failure_that_may_be_counts_as_success() {
    let mut run = Run::of(
        "  a: { runs-on: x, continue-on-error: true, steps: [{ run: a }] }\n  b: { runs-on: x, needs: a, steps: [{ run: a }] }\n",
    );
    run.next();
    assert_eq!(run.end("a", Failure), ["= a success", "+ b"]);
    run.end("b", Success);
    assert_eq!(run.progress.conclusion(), Success);
}

#[test]
fn what_needs_a_job_that_was_left_out_is_skipped_and_the_run_is_incomplete() {
    let mut run = Run::of(
        "  t: { runs-on: '${{ matrix.os }}', strategy: { matrix: { os: [linux, windows-latest] } }, steps: [{ run: a }] }
  deploy: { runs-on: x, needs: t, steps: [{ run: a }] }
  report: { runs-on: x, needs: t, if: always() && needs.t.result == 'skipped', steps: [{ run: a }] }
",
    );
    run.next();
    let asked: Vec<&str> = run.progress.jobs[0]
        .cells
        .iter()
        .map(|cell| cell.runs_on.labels[0].as_str())
        .collect();
    assert_eq!(asked, ["linux", "windows-latest"]);
    // No cell stops the others by being left out.
    assert!(run.end("t.2", Incomplete).is_empty());
    assert_eq!(
        run.end("t.1", Success),
        [
            "= t incomplete: exit code 1",
            "= deploy skipped: `t`, which it needs, could not be run completely on this machine",
            "+ report",
        ]
    );
    run.end("report", Success);
    assert_eq!(run.progress.conclusion(), Incomplete);
}

#[test]
fn a_runner_that_an_expression_does_not_name_fails_the_job() {
    let mut run = Run::of("  a: { runs-on: '${{ matrix.os }}', steps: [{ run: a }] }\n");
    let told = run.next();
    assert!(
        told[0].starts_with(
            "= a failure: the `runs-on` of the job `a` (line 3) has no value: it names no runner"
        ),
        "{told:?}"
    );
}

#[test]
fn a_matrix_none_of_whose_cells_ran_is_skipped() {
    let mut run = Run::of(
        "  t: { runs-on: x, strategy: { matrix: { n: [1, 2] } }, steps: [{ run: a }] }\n  u: { runs-on: x, needs: t, steps: [{ run: a }] }\n",
    );
    run.next();
    run.end("t.1", Skipped);
    assert_eq!(
        run.end("t.2", Skipped),
        [
            "= t skipped: all jobs of its matrix were skipped",
            "= u skipped: `t`, which it needs, was skipped",
        ]
    );
}

#[test]
fn conditions_see_results_and_outputs() {
    let mut run = Run::of(
        "  a: { runs-on: x, outputs: { v: '${{ steps.s.outputs.v }}' }, steps: [{ id: s, run: a }] }
  yes: { runs-on: x, needs: a, if: needs.a.outputs.v == '2' && github.ref_name == 'main', steps: [{ run: a }] }
  no: { runs-on: x, needs: a, if: '${{ needs.a.outputs.v != 2 }}', steps: [{ run: a }] }
  bad: { runs-on: x, needs: a, if: 'fromJSON(''{'')', steps: [{ run: a }] }
",
    );
    run.next();
    assert_eq!(
        run.end_with("a", Success, &[("v", "2")]),
        [
            "= a success",
            "= no skipped: its condition is false: `${{ needs.a.outputs.v != 2 }}`",
            "= bad failure: the `if` of the job `bad` (line 6) has no value: fromJSON: '{' is not JSON: EOF while parsing an object at line 1 column 1 in `fromJSON('{')`",
            "+ yes",
        ]
    );
}

#[test]
fn a_failed_cell_stops_its_sisters() {
    let matrix = "  t:\n    runs-on: x\n    strategy: { max-parallel: 2, matrix: { n: [1, 2, 3, 4] } }\n    steps: [{ run: a }]\n  u: { runs-on: x, needs: t, steps: [{ run: a }] }\n";
    let mut run = Run::of(matrix);
    assert_eq!(run.next(), ["+ t.1", "+ t.2"]);
    assert_eq!(run.end("t.2", Success), ["+ t.3"]);
    let why = "`t (1)` failed, and the matrix is fail-fast";
    assert_eq!(
        run.end("t.1", Failure),
        [
            "+ t.4".to_owned(),
            format!("~ t.3: {why}"),
            format!("~ t.4: {why}")
        ]
    );
    assert_eq!(run.end("t.4", Cancelled), Vec::<String>::new());
    assert_eq!(
        run.end("t.3", Cancelled),
        [
            "= t failure: exit code 1",
            "= u skipped: `t`, which it needs, failed"
        ]
    );

    let mut run = Run::of(&matrix.replace("max-parallel: 2", "max-parallel: 1"));
    run.next();
    let mut lines = run.end("t.1", Failure);
    assert_eq!(lines.remove(0), "+ t.2");
    assert_eq!(
        lines,
        [
            format!("= t.4 cancelled: {why}"),
            format!("= t.3 cancelled: {why}"),
            format!("~ t.2: {why}")
        ]
    );
    assert_eq!(
        run.end("t.2", Cancelled),
        [
            "= t failure: exit code 1",
            "= u skipped: `t`, which it needs, failed"
        ]
    );
}

#[test]
fn without_fail_fast_every_cell_comes_to_its_end() {
    let mut run = Run::of(
        "  t:\n    runs-on: x\n    continue-on-error: ${{ matrix.n == 1 }}\n    strategy: { fail-fast: false, matrix: { n: [1, 2, 3] } }\n    steps: [{ run: a }]\n",
    );
    assert_eq!(run.next(), ["+ t.1", "+ t.2", "+ t.3"]);
    assert_eq!(run.end("t.1", Failure), Vec::<String>::new());
    assert_eq!(run.end("t.2", Failure), Vec::<String>::new());
    assert_eq!(run.end("t.3", Success), ["= t failure: exit code 1"]);
}

#[test]
fn cancelling_spares_what_asks_to_go_on() {
    let mut run = Run::of(&format!(
        "{CHAIN}  clean: {{ runs-on: x, if: always(), steps: [{{ run: a }}] }}\n"
    ));
    assert_eq!(run.next(), ["+ a", "+ clean"]);
    assert_eq!(run.cancel(), ["~ a: the run was cancelled: enough"]);
    assert_eq!(
        run.end("a", Cancelled),
        [
            "= a cancelled: exit code 1",
            "= b cancelled: the run was cancelled: enough",
            "= c cancelled: the run was cancelled: enough",
            "= rescue cancelled: the run was cancelled: enough",
            "+ last"
        ]
    );
    run.end("clean", Success);
    assert_eq!(
        run.end("last", Success),
        [
            "= last success",
            "= after cancelled: the run was cancelled: enough"
        ]
    );
    assert_eq!(run.progress.conclusion(), Cancelled);
}

#[test]
fn a_matrix_can_come_from_an_earlier_job() {
    let mut run = Run::of(
        "  a: { runs-on: x, outputs: { m: '${{ steps.s.outputs.m }}' }, steps: [{ id: s, run: a }] }
  t:
    needs: a
    runs-on: x
    strategy: { matrix: '${{ fromJSON(needs.a.outputs.m) }}' }
    steps: [{ run: a }]
",
    );
    run.next();
    assert_eq!(
        run.end_with(
            "a",
            Success,
            &[("m", r#"{"v": ["1.10", 2], "include": [{"v": 3}]}"#)]
        ),
        ["= a success", "+ t.1", "+ t.2", "+ t.3"]
    );
    assert_eq!(run.names(), ["a", "t (1.10)", "t (2)", "t (3)"]);
    let mut run = Run {
        progress: WorkflowProgress::new(2),
        ..run
    };
    run.next();
    assert_eq!(
        run.end_with("a", Success, &[("m", "[]")]),
        [
            "= a success",
            "= t failure: the matrix of the job `t` (line 4): the matrix must be an object of lists, not array"
        ]
    );
}

fn cells(matrix: &str) -> Result<Vec<String>, String> {
    let run = workflow(&format!(
        "  t:\n    runs-on: x\n    strategy:\n      matrix: {matrix}\n    steps: [{{ run: a }}]\n"
    ));
    let matrix = run.jobs[0]
        .strategy
        .as_ref()
        .and_then(|strategy| strategy.matrix.clone())
        .unwrap();
    let made = expand_matrix(&matrix, &Contexts::new().with("github", ExprValue::Null))
        .map_err(|error| error.to_string())?;
    Ok(made
        .into_iter()
        .map(|cell| {
            format!(
                "{} {}",
                cell.label,
                serde_json::to_string(&cell.values).unwrap()
            )
        })
        .collect())
}

/// The examples of GitHub's documentation.
#[test]
fn matrices_are_made_as_github_makes_them() {
    assert_eq!(
        cells("{ version: [10, 12], os: [ubuntu, windows] }").unwrap(),
        [
            r#"10, ubuntu {"version":10,"os":"ubuntu"}"#,
            r#"10, windows {"version":10,"os":"windows"}"#,
            r#"12, ubuntu {"version":12,"os":"ubuntu"}"#,
            r#"12, windows {"version":12,"os":"windows"}"#,
        ]
    );
    assert_eq!(
        cells("{ fruit: [apple, pear], animal: [cat, dog], include: [{ color: green }, { color: pink, animal: cat }, { fruit: apple, shape: circle }, { fruit: banana }, { fruit: banana, animal: cat }] }").unwrap(),
        [
            r#"apple, cat {"fruit":"apple","animal":"cat","color":"pink","shape":"circle"}"#,
            r#"apple, dog {"fruit":"apple","animal":"dog","color":"green","shape":"circle"}"#,
            r#"pear, cat {"fruit":"pear","animal":"cat","color":"pink"}"#,
            r#"pear, dog {"fruit":"pear","animal":"dog","color":"green"}"#,
            r#"banana {"fruit":"banana"}"#,
            r#"banana, cat {"fruit":"banana","animal":"cat"}"#,
        ]
    );
    assert_eq!(
        cells("{ os: [macos, windows], version: [12, 14, 16], environment: [staging, production], exclude: [{ os: macos, version: 12, environment: production }, { os: Windows, version: '16' }] }").unwrap().len(),
        9
    );
    assert_eq!(
        cells("{ include: [{ site: production, datacenter: a }, { site: staging }] }").unwrap(),
        [
            r#"production, a {"site":"production","datacenter":"a"}"#,
            r#"staging {"site":"staging"}"#
        ]
    );
    assert_eq!(
        cells(
            "{ node: [{ version: 14 }, { version: 20, env: x }], exclude: [{ node: { env: x } }] }"
        )
        .unwrap(),
        [r#"14 {"node":{"version":14}}"#]
    );
}

#[test]
fn a_matrix_that_makes_no_sense_says_so() {
    let numbers = |count: u32| {
        (0..count)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        cells(&format!("{{ a: [{}] }}", numbers(256)))
            .unwrap()
            .len(),
        256
    );
    assert_eq!(
        cells(&format!("{{ a: [{}] }}", numbers(257))).unwrap_err(),
        "the matrix produces more than 256 jobs"
    );
    let million = format!("{{ a: [{0}], b: [{0}], c: [{0}] }}", numbers(100));
    assert_eq!(
        cells(&million).unwrap_err(),
        "the matrix produces more than 256 jobs"
    );
    assert_eq!(
        cells("{ a: [1], exclude: [{ a: 1 }] }").unwrap_err(),
        "the matrix produces no jobs: everything is excluded"
    );
    assert_eq!(
        cells("{ a: [1], exclude: [{ b: 1 }] }").unwrap_err(),
        "`exclude` names `b`, which isn't in the matrix"
    );
    assert_eq!(
        cells("{ a: \"${{ github.x }}\" }").unwrap_err(),
        "the matrix must be lists: `a` one too, not null"
    );
}

#[test]
fn names_and_times_are_resolved_for_each_cell() {
    let mut run = Run::of(
        "  a: { runs-on: x, name: 'Build ${{ matrix.v }}', timeout-minutes: '${{ matrix.v }}', strategy: { matrix: { v: [1, 2] } }, steps: [{ run: a }] }
  b: { runs-on: x, name: Plain, strategy: { matrix: { v: [1] } }, steps: [{ run: a }] }
  c: { runs-on: x, strategy: { matrix: { v: [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa] } }, steps: [{ run: a }] }
",
    );
    run.next();
    assert_eq!(run.names()[..3], ["Build 1", "Build 2", "Plain (1)"]);
    assert_eq!(
        (run.names()[3].len(), run.names()[3].ends_with("...")),
        (100, true)
    );
    let times: Vec<u64> = run
        .progress
        .jobs
        .iter()
        .flat_map(|job| &job.cells)
        .map(|cell| cell.timeout_ms)
        .collect();
    assert_eq!(times[..3], [60_000, 120_000, 21_600_000]);
}

#[test]
fn what_can_not_run_yet_fails_with_a_reason() {
    let mut run = Run::of("  a: { uses: ./.github/workflows/b.yml }\n");
    assert_eq!(
        run.next(),
        ["= a failure: the workflow it calls was not read",]
    );
}

/// Ten thousand jobs, each needing up to ten before it.
#[test]
fn ten_thousand_jobs_are_planned_at_once() {
    let step = workflow("  a: { runs-on: x, steps: [{ run: a }] }\n")
        .jobs
        .remove(0);
    let jobs = (0..10_000_usize).map(|n| {
        let needs = if n % 100 == 0 {
            Vec::new()
        } else {
            (n.saturating_sub(10).max(n - n % 100)..n)
                .map(|need| format!("j{need}"))
                .collect()
        };
        WorkflowJob {
            id: format!("j{n}"),
            needs,
            ..step.clone()
        }
    });
    let mut large = workflow("  a: { runs-on: x, steps: [{ run: a }] }\n");
    large.jobs = jobs.collect();
    // How long it takes is measured by bench/workflows; a walk that isn't one never ends here.
    let graph = JobGraph::new(&large);
    let mut progress = WorkflowProgress::new(large.jobs.len());
    let first = graph.next(&large, &mut progress, &RunContexts::default());
    assert_eq!(first.len(), 100);
    // The first job of a chain fails: the other ninety-nine are skipped in one walk.
    progress.end_cell(0, &"j0".parse().unwrap(), Failure, &[], None);
    assert_eq!(
        graph
            .next(&large, &mut progress, &RunContexts::default())
            .len(),
        100
    );
}

#[test]
fn the_needs_context_holds_what_the_job_needs_itself() {
    let mut run = Run::of(CHAIN);
    run.next();
    run.end_with("a", Success, &[("v", "1")]);
    let context = run.graph.needs_context(&run.workflow, &run.progress, 1);
    assert_eq!(
        serde_json::to_string(&context).unwrap(),
        r#"{"a":{"result":"success","outputs":{"v":"1"}}}"#
    );
    let template = Template::parse("${{ needs.a.result }} ${{ needs.A.outputs.v }}", 0).unwrap();
    assert_eq!(
        template
            .resolve_text(&Contexts::new().with("needs", context))
            .unwrap(),
        "success 1"
    );
}
