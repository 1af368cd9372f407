//! Lints of `shipway check`: parts of a workflow or an action that are legal, but probably a mistake or dangerous. Each lint is a file
//! that reads the tree and returns diagnostics, and a line in [`LINTS`]. A comment `# shipway: allow(code)` on the line or
//! the one above silences a warning.
//!
//! Never refuses anything: warnings only. A file with mistakes is looked at too, as far as it is a tree.
//!
//! ```
//! use shipway_syntax::SourceFile;
//! let source = SourceFile::new("ci.yml", "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{ uses: some/one@v1 }]\n");
//! let told = shipway_workflow::lint::check_workflow(&source);
//! assert_eq!(told[0].code, "unpinned-action");
//! ```

use std::ops::Range;

use shipway_syntax::{Diagnostic, SourceFile, Span, YamlKey, YamlNode, limit_diagnostics};

use crate::{
    expr::{Expr, IfCondition, Template},
    parse::{in_order, reader::WorkflowReader},
};

mod checkout;
mod commands;
mod conditions;
mod inputs;
mod local;
mod mentions;
mod outputs;
mod pinned;
mod runners;
mod shells;
#[cfg(test)]
mod tests;
mod untrusted;
mod uploads;

pub use local::{ReadFile, check_local};
pub use mentions::mentions;
pub use runners::check_runners;
pub use uploads::UploadedArtifacts;

/// All lints, by their codes.
const LINTS: [LintRule; 8] = [
    LintRule {
        code: checkout::CODE,
        check: checkout::check,
    },
    LintRule {
        code: commands::CODE,
        check: commands::check,
    },
    LintRule {
        code: conditions::CODE,
        check: conditions::check,
    },
    LintRule {
        code: inputs::CODE,
        check: inputs::check,
    },
    LintRule {
        code: outputs::CODE,
        check: outputs::check,
    },
    LintRule {
        code: pinned::CODE,
        check: pinned::check,
    },
    LintRule {
        code: shells::CODE,
        check: shells::check,
    },
    LintRule {
        code: untrusted::CODE,
        check: untrusted::check,
    },
];

struct LintRule {
    code: &'static str,
    check: fn(&LintSubject<'_>) -> Vec<LintFinding>,
}

/// What a lint saw.
struct LintFinding {
    span: Span,
    message: String,
    help: String,
}

impl LintFinding {
    fn new(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// All that is wrong with a workflow file or hardly meant, in the order of the file.
#[must_use]
pub fn check_workflow(source: &SourceFile) -> Vec<Diagnostic> {
    with_lints(source, crate::parse(source).diagnostics)
}

/// The same of an `action.yml`.
#[must_use]
pub fn check_action(source: &SourceFile) -> Vec<Diagnostic> {
    with_lints(source, crate::parse_action(source).diagnostics)
}

fn with_lints(source: &SourceFile, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    if let Ok(tree) = shipway_syntax::parse(source) {
        let subject = LintSubject {
            tree: &tree,
            reader: WorkflowReader::new(source),
        };
        for lint in &LINTS {
            diagnostics.extend((lint.check)(&subject).into_iter().map(|found| {
                Diagnostic::warning(lint.code, found.span, found.message).help(found.help)
            }));
        }
    }
    limit_diagnostics(in_order(without_allowed(source, diagnostics)))
}

/// Without the warnings that a comment allows.
fn without_allowed(source: &SourceFile, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.retain(|problem| problem.is_error() || !is_allowed(source, problem));
    diagnostics
}

/// Whether a comment on the line of a problem or the one above allows it.
fn is_allowed(source: &SourceFile, problem: &Diagnostic) -> bool {
    let Some(span) = problem.span else {
        return false;
    };
    let (before, after) = source.text.split_at(span.start.min(source.text.len()));
    let mut above = before.lines().rev();
    let begun = if before.ends_with('\n') {
        ""
    } else {
        above.next().unwrap_or_default()
    };
    let here = format!("{begun}{}", after.lines().next().unwrap_or_default());
    let comment_above = above
        .next()
        .filter(|line| line.trim_start().starts_with('#'));
    [Some(&*here), comment_above]
        .into_iter()
        .flatten()
        .any(|line| allowed_by(line).any(|code| code == problem.code))
}

/// The codes in `# shipway: allow(a, b)`.
fn allowed_by(line: &str) -> impl Iterator<Item = &str> {
    let codes = line
        .split_once("# shipway: allow(")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("", |(codes, _)| codes);
    codes.split(',').map(str::trim)
}

/// A workflow or an action, as lints look at it.
struct LintSubject<'s> {
    tree: &'s YamlNode,
    reader: WorkflowReader<'s>,
}

impl<'s> LintSubject<'s> {
    /// The jobs of a workflow.
    fn jobs(&self) -> &'s [(YamlKey, YamlNode)] {
        self.tree
            .get("jobs")
            .and_then(YamlNode::as_mapping)
            .unwrap_or_default()
    }

    /// The trigger events of a workflow, each with its filters.
    fn events(&self) -> Vec<(&'s str, Option<&'s YamlNode>)> {
        let Some(on) = self.tree.get("on") else {
            return Vec::new();
        };
        if let Some(entries) = on.as_mapping() {
            return entries
                .iter()
                .map(|(key, node)| (key.text.as_str(), Some(node)))
                .collect();
        }
        let names = on.as_sequence().unwrap_or(std::slice::from_ref(on));
        names
            .iter()
            .filter_map(|name| Some((name.as_str()?, None)))
            .collect()
    }

    /// All steps, of the jobs of a workflow or of a composite action.
    fn steps(&self) -> impl Iterator<Item = &'s YamlNode> {
        let of_jobs = self.jobs().iter().filter_map(|(_, job)| job.get("steps"));
        let of_action = self.tree.get("runs").and_then(|runs| runs.get("steps"));
        of_jobs
            .chain(of_action)
            .flat_map(|steps| steps.as_sequence().unwrap_or_default())
    }

    /// Texts with a script in them: `run`, and what `actions/github-script` is given.
    fn scripts(&self) -> impl Iterator<Item = &'s YamlNode> {
        self.steps().filter_map(|step| {
            let uses = step
                .get("uses")
                .and_then(YamlNode::as_str)
                .unwrap_or_default();
            if uses.starts_with("actions/github-script@") {
                return step.get("with")?.get("script");
            }
            step.get("run")
        })
    }

    /// The `if` of jobs and steps.
    fn conditions(&self) -> impl Iterator<Item = &'s YamlNode> {
        let jobs = self.jobs().iter().map(|(_, job)| job);
        jobs.chain(self.steps()).filter_map(|node| node.get("if"))
    }

    /// All expressions below a node, each with its scalar.
    fn exprs(&self, node: &'s YamlNode) -> Vec<(&'s YamlNode, Expr)> {
        let mut found = Vec::new();
        walk(node, None, &mut |key, scalar| {
            let Some(text) = scalar.as_str() else { return };
            if key == Some("if") {
                let condition = IfCondition::parse(text, 0).ok();
                found.extend(
                    condition
                        .iter()
                        .flat_map(IfCondition::exprs)
                        .map(|expr| (scalar, expr.clone())),
                );
            } else if text.contains("${{") {
                let template = Template::parse(text, 0).ok();
                found.extend(
                    template
                        .iter()
                        .flat_map(Template::exprs)
                        .map(|expr| (scalar, expr.clone())),
                );
            }
        });
        found
    }

    /// Where a part of a scalar's text stands.
    fn span_within(&self, scalar: &YamlNode, at: Range<usize>) -> Span {
        self.reader.within(scalar, at)
    }
}

/// Calls `visit` on every scalar below a node, with the key it stands behind.
fn walk<'n>(
    node: &'n YamlNode,
    key: Option<&'n str>,
    visit: &mut impl FnMut(Option<&'n str>, &'n YamlNode),
) {
    if let Some(entries) = node.as_mapping() {
        entries
            .iter()
            .for_each(|(key, node)| walk(node, Some(&key.text), visit));
    } else if let Some(items) = node.as_sequence() {
        items.iter().for_each(|item| walk(item, key, visit));
    } else {
        visit(key, node);
    }
}
