//! Lints of `shipway check`: what is legal in a workflow or an action and yet hardly meant, or dangerous. Each lint is a file
//! that looks at the tree and says what it saw, and a line in [`LINTS`]. A comment `# shipway: allow(code)` on the line or
//! the one above silences a warning.
//!
//! Never refuses anything: warnings only. A file with mistakes is looked at too, as far as it is a tree.
//!
//! ```
//! use shipway_syntax::Source;
//! let source = Source::new("ci.yml", "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{ uses: some/one@v1 }]\n");
//! let told = shipway_workflow::lint::check_workflow(&source);
//! assert_eq!(told[0].code, "unpinned-action");
//! ```

use std::ops::Range;

use shipway_syntax::{Diagnostic, Key, Node, Source, Span, limit_diagnostics};

use crate::{
    expr::{Condition, Expr, Template},
    parse::{in_order, reader::Reader},
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
pub use uploads::Uploads;

/// All lints, by their codes.
const LINTS: [Lint; 8] = [
    Lint {
        code: checkout::CODE,
        look: checkout::look,
    },
    Lint {
        code: commands::CODE,
        look: commands::look,
    },
    Lint {
        code: conditions::CODE,
        look: conditions::look,
    },
    Lint {
        code: inputs::CODE,
        look: inputs::look,
    },
    Lint {
        code: outputs::CODE,
        look: outputs::look,
    },
    Lint {
        code: pinned::CODE,
        look: pinned::look,
    },
    Lint {
        code: shells::CODE,
        look: shells::look,
    },
    Lint {
        code: untrusted::CODE,
        look: untrusted::look,
    },
];

struct Lint {
    code: &'static str,
    look: fn(&Subject<'_>) -> Vec<Found>,
}

/// What a lint saw.
struct Found {
    span: Span,
    message: String,
    help: String,
}

impl Found {
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
pub fn check_workflow(source: &Source) -> Vec<Diagnostic> {
    looked_at(source, crate::parse(source).diagnostics)
}

/// The same of an `action.yml`.
#[must_use]
pub fn check_action(source: &Source) -> Vec<Diagnostic> {
    looked_at(source, crate::parse_action(source).diagnostics)
}

fn looked_at(source: &Source, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    if let Ok(tree) = shipway_syntax::parse(source) {
        let subject = Subject {
            tree: &tree,
            reader: Reader::new(source),
        };
        for lint in &LINTS {
            diagnostics.extend((lint.look)(&subject).into_iter().map(|found| {
                Diagnostic::warning(lint.code, found.span, found.message).help(found.help)
            }));
        }
    }
    limit_diagnostics(in_order(without_allowed(source, diagnostics)))
}

/// Without the warnings that a comment allows.
fn without_allowed(source: &Source, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.retain(|problem| problem.is_error() || !is_allowed(source, problem));
    diagnostics
}

/// Whether a comment on the line of a problem or the one above allows it.
fn is_allowed(source: &Source, problem: &Diagnostic) -> bool {
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
struct Subject<'s> {
    tree: &'s Node,
    reader: Reader<'s>,
}

impl<'s> Subject<'s> {
    /// The jobs of a workflow.
    fn jobs(&self) -> &'s [(Key, Node)] {
        self.tree
            .get("jobs")
            .and_then(Node::as_mapping)
            .unwrap_or_default()
    }

    /// What a workflow is started by: the events and what is asked of them.
    fn events(&self) -> Vec<(&'s str, Option<&'s Node>)> {
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
    fn steps(&self) -> impl Iterator<Item = &'s Node> {
        let of_jobs = self.jobs().iter().filter_map(|(_, job)| job.get("steps"));
        let of_action = self.tree.get("runs").and_then(|runs| runs.get("steps"));
        of_jobs
            .chain(of_action)
            .flat_map(|steps| steps.as_sequence().unwrap_or_default())
    }

    /// Texts with a script in them: `run`, and what `actions/github-script` is given.
    fn scripts(&self) -> impl Iterator<Item = &'s Node> {
        self.steps().filter_map(|step| {
            let uses = step.get("uses").and_then(Node::as_str).unwrap_or_default();
            if uses.starts_with("actions/github-script@") {
                return step.get("with")?.get("script");
            }
            step.get("run")
        })
    }

    /// The `if` of jobs and steps.
    fn conditions(&self) -> impl Iterator<Item = &'s Node> {
        let jobs = self.jobs().iter().map(|(_, job)| job);
        jobs.chain(self.steps()).filter_map(|node| node.get("if"))
    }

    /// All expressions below a node, each with the scalar it stands in.
    fn exprs(&self, node: &'s Node) -> Vec<(&'s Node, Expr)> {
        let mut found = Vec::new();
        walk(node, None, &mut |key, scalar| {
            let Some(text) = scalar.as_str() else { return };
            if key == Some("if") {
                let condition = Condition::parse(text, 0).ok();
                found.extend(
                    condition
                        .iter()
                        .flat_map(Condition::exprs)
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
    fn place(&self, scalar: &Node, at: Range<usize>) -> Span {
        self.reader.within(scalar, at)
    }
}

/// Calls `visit` on every scalar below a node, with the key it stands behind.
fn walk<'n>(
    node: &'n Node,
    key: Option<&'n str>,
    visit: &mut impl FnMut(Option<&'n str>, &'n Node),
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
