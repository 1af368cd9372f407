//! `untrusted-input`: text that strangers write (titles, comments, branch names) pasted into a script, where it becomes code.

use super::{LintFinding, LintSubject};

pub(super) const CODE: &str = "untrusted-input";

/// Context values that anyone who may open an issue or a pull request controls. `*` matches any name.
const STRANGERS: [&str; 27] = [
    "github.head_ref",
    "github.event.issue.title",
    "github.event.issue.body",
    "github.event.pull_request.title",
    "github.event.pull_request.body",
    "github.event.pull_request.head.ref",
    "github.event.pull_request.head.label",
    "github.event.pull_request.head.repo.default_branch",
    "github.event.pull_request.head.repo.description",
    "github.event.pull_request.head.repo.homepage",
    "github.event.comment.body",
    "github.event.review.body",
    "github.event.review_comment.body",
    "github.event.discussion.title",
    "github.event.discussion.body",
    "github.event.pages.*.page_name",
    "github.event.commits.*.message",
    "github.event.commits.*.author.email",
    "github.event.commits.*.author.name",
    "github.event.head_commit.message",
    "github.event.head_commit.author.email",
    "github.event.head_commit.author.name",
    "github.event.workflow_run.head_branch",
    "github.event.workflow_run.display_title",
    "github.event.workflow_run.head_commit.message",
    "github.event.workflow_run.head_commit.author.email",
    "github.event.workflow_run.head_commit.author.name",
];

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let mut found = Vec::new();
    for script in subject.scripts() {
        for (scalar, expr) in subject.exprs(script) {
            for path in expr.paths() {
                let name = path.joined();
                if path.flows && is_untrusted(&name) {
                    found.push(LintFinding::new(
                        subject.span_within(scalar, path.at),
                        format!(
                            "`{name}` is controlled by outsiders and is inserted into this script as code"
                        ),
                        fix(&name),
                    ));
                }
            }
        }
    }
    found
}

pub(super) fn is_untrusted(name: &str) -> bool {
    STRANGERS.contains(&name)
}

/// By the environment it stays text.
fn fix(name: &str) -> String {
    let variable: String = name
        .rsplit('.')
        .find(|part| *part != "*")
        .unwrap_or("VALUE")
        .to_uppercase();
    format!(
        "pass it through the environment, `env: {{ {variable}: ${{{{ {name} }}}} }}`, and use \"${variable}\" in the script"
    )
}
