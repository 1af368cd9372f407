//! `unknown-output`: an output of a job that it doesn't have, so that its value is always empty. Only where the file says
//! all: not of jobs that call a workflow, nor of steps, which may write any.

use shipway_syntax::{YamlNode, nearest};

use super::{LintFinding, LintSubject};
use crate::expr::join_with_and;

pub(super) const CODE: &str = "unknown-output";

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let mut found = Vec::new();
    for (scalar, expr) in subject.exprs(subject.tree) {
        for path in expr.paths() {
            let [context, job, part, output, ..] = path.names.as_slice() else {
                continue;
            };
            if !matches!(context.as_str(), "needs" | "jobs") || part != "outputs" || output == "*" {
                continue;
            }
            if let Some(help) = missing(subject, job, output) {
                found.push(LintFinding::new(
                    subject.span_within(scalar, path.at.clone()),
                    format!("the job `{job}` has no output `{output}`"),
                    help,
                ));
            }
        }
    }
    found
}

/// What to do, when the job is there and the output isn't.
fn missing(subject: &LintSubject<'_>, job: &str, output: &str) -> Option<String> {
    let (_, node) = subject
        .jobs()
        .iter()
        .find(|(key, _)| key.text.eq_ignore_ascii_case(job))?;
    if node.get("uses").is_some() {
        return None;
    }
    let outputs = match node.get("outputs") {
        None => &[],
        Some(node) => YamlNode::as_mapping(node)?,
    };
    if outputs
        .iter()
        .any(|(key, _)| key.text.eq_ignore_ascii_case(output))
    {
        return None;
    }
    Some(
        match nearest(output, outputs.iter().map(|(key, _)| key.text.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None if outputs.is_empty() => {
                format!("give it `outputs: {{ {output}: ${{{{ steps.<id>.outputs.{output} }}}} }}`")
            }
            None => format!(
                "its outputs are {}",
                join_with_and(outputs.iter().map(|(key, _)| key.text.as_str()))
            ),
        },
    )
}
