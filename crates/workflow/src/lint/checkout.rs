//! `untrusted-checkout`: a stranger's code is checked out in a job with secrets. `pull_request_target` and `workflow_run` have the
//! rights of the repository, but they would build the pull request's code.

use shipway_syntax::YamlNode;

use super::{LintFinding, LintSubject};

pub(super) const CODE: &str = "untrusted-checkout";

const PRIVILEGED: [&str; 2] = ["pull_request_target", "workflow_run"];

/// What leads to the head of a pull request.
const HEADS: [&str; 3] = [
    "github.head_ref",
    "github.event.pull_request.head",
    "github.event.workflow_run.head",
];

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let events = subject.events();
    let Some((event, _)) = events.iter().find(|(name, _)| PRIVILEGED.contains(name)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for step in subject.steps() {
        let uses = step
            .get("uses")
            .and_then(YamlNode::as_str)
            .unwrap_or_default();
        let Some(reference) = step.get("with").and_then(|with| with.get("ref")) else {
            continue;
        };
        if !uses.starts_with("actions/checkout@") {
            continue;
        }
        let exprs = subject.exprs(reference);
        let untrusted = exprs.iter().any(|(_, expr)| {
            expr.paths()
                .iter()
                .any(|path| HEADS.iter().any(|head| path.joined().starts_with(head)))
        });
        if untrusted {
            found.push(LintFinding::new(
                reference.span,
                format!("this checks out untrusted code, and `{event}` runs it with this repository's secrets"),
                "build it in a workflow on `pull_request`, which has no secrets",
            ));
        }
    }
    found
}
