//! `runner-label`: a job that asks for a machine that isn't this one, as far as that is known before it runs.

use shipway_syntax::{Diagnostic, SourceFile};

use super::{LintSubject, without_allowed};
use crate::{
    expr::Contexts,
    graph::expand_matrix,
    model::{RunsOn, WorkflowJob},
    parse::reader::WorkflowReader,
    runner::RunnerLabels,
};

const CODE: &str = "runner-label";

/// Warns of the jobs that a machine with these labels can't run.
#[must_use]
pub fn check_runners(source: &SourceFile, labels: &RunnerLabels) -> Vec<Diagnostic> {
    let (Some(workflow), Ok(tree)) = (crate::parse(source).workflow, shipway_syntax::parse(source))
    else {
        return Vec::new();
    };
    let subject = LintSubject {
        tree: &tree,
        reader: WorkflowReader::new(source),
    };
    let mut found = Vec::new();
    for job in &workflow.jobs {
        let Some(runs_on) = &job.runs_on else {
            continue;
        };
        let mut nodes = subject.jobs().iter();
        let node = nodes.find(|(key, _)| key.text == job.id);
        let Some(span) = node.and_then(|(_, node)| Some(node.get("runs-on")?.span)) else {
            continue;
        };
        for (name, mismatch) in mismatches(job, runs_on, labels) {
            let help = "`shipway run` skips the job, on a server it fails";
            let message = format!("`{name}` can't run on this machine: {mismatch}");
            found.push(Diagnostic::warning(CODE, span, message).help(help));
        }
    }
    without_allowed(source, found)
}

/// The job, or each of its cells, with why it can't run. What depends on more than the matrix is not known yet.
fn mismatches(job: &WorkflowJob, runs_on: &RunsOn, labels: &RunnerLabels) -> Vec<(String, String)> {
    let mismatch = |contexts: &Contexts<'_>| {
        let request = runs_on.resolve(contexts).ok()?;
        labels.check(&request).err().map(|why| why.to_string())
    };
    let matrix = job.strategy.as_ref().and_then(|it| it.matrix.as_ref());
    let Some(matrix) = matrix else {
        let why = mismatch(&Contexts::new());
        return why.map(|why| (job.id.clone(), why)).into_iter().collect();
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for cell in expand_matrix(matrix, &Contexts::new()).unwrap_or_default() {
        let why = mismatch(&Contexts::new().with("matrix", cell.values));
        // Cells that differ only in other values are reported once.
        if let Some(why) = why.filter(|why| found.iter().all(|(_, told)| told != why)) {
            found.push((format!("{} ({})", job.id, cell.label), why));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(jobs: &str) -> Vec<String> {
        let source = SourceFile::new("w.yml", format!("on: push\njobs:\n{jobs}"));
        let machine = RunnerLabels::for_linux("x86_64", &[]);
        let found = check_runners(&source, &machine);
        found.iter().map(|it| it.one_line(&source)).collect()
    }

    #[test]
    fn jobs_for_other_machines_are_told_of() {
        let told = told(
            "  a: { runs-on: macos-14, steps: [{ run: a }] }
  b:
    strategy: { matrix: { os: [ubuntu-latest, windows-latest], n: [1, 2] } }
    runs-on: ${{ matrix.os }}
    steps: [{ run: a }]
  c: { runs-on: '${{ vars.RUNNER }}', steps: [{ run: a }] }
  # shipway: allow(runner-label)
  d: { runs-on: windows-latest, steps: [{ run: a }] }
",
        );
        assert_eq!(
            told,
            [
                "w.yml:3:17: warning: `a` can't run on this machine: no runner here has the label `macos-14`: this machine runs Linux; `shipway run` skips the job, on a server it fails",
                "w.yml:6:14: warning: `b (windows-latest, 1)` can't run on this machine: no runner here has the label `windows-latest`: this machine runs Linux; `shipway run` skips the job, on a server it fails",
            ]
        );
    }
}
