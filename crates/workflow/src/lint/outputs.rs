//! `unknown-output`: an output of a job that it doesn't have, so that its value is always empty. Only where the file says
//! all: not of jobs that call a workflow, nor of steps, which may write any.

use shipway_syntax::{Node, nearest};

use super::{Found, Subject};
use crate::expr::listed;

pub(super) const CODE: &str = "unknown-output";

pub(super) fn look(subject: &Subject<'_>) -> Vec<Found> {
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
                found.push(Found::new(
                    subject.place(scalar, path.at.clone()),
                    format!("the job `{job}` has no output `{output}`"),
                    help,
                ));
            }
        }
    }
    found
}

/// What to do, when the job is there and the output isn't.
fn missing(subject: &Subject<'_>, job: &str, output: &str) -> Option<String> {
    let (_, node) = subject
        .jobs()
        .iter()
        .find(|(key, _)| key.text.eq_ignore_ascii_case(job))?;
    if node.get("uses").is_some() {
        return None;
    }
    let outputs = match node.get("outputs") {
        None => &[],
        Some(node) => Node::as_mapping(node)?,
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
                listed(outputs.iter().map(|(key, _)| key.text.as_str()))
            ),
        },
    )
}
