//! The context paths that an expression reads: `github.event.issue.title`, `needs.build.outputs.x`. Used by lints.

use std::ops::Range;

use super::{
    Expr, ExprValue,
    ast::{BuiltinFunction, ExprKind, ExprNode},
};

/// A context and the properties read from it, as far as they are literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextPath {
    /// In lower case; `*` for a filter, and for an index that isn't a literal.
    pub names: Vec<String>,
    /// Its byte range in the file.
    pub at: Range<usize>,
    /// Whether its text may become part of what the expression comes to, and isn't only compared or asked about.
    pub flows: bool,
}

impl ContextPath {
    /// `github.event.commits.*.message`
    #[must_use]
    pub fn joined(&self) -> String {
        self.names.join(".")
    }
}

impl Expr {
    /// All context paths of the expression, each as long as possible.
    #[must_use]
    pub fn paths(&self) -> Vec<ContextPath> {
        let mut paths = Vec::new();
        collect(&self.root, ValueUse::Result, &mut paths);
        paths
    }

    /// Whether its value never changes: it reads no context, no status and no files.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        let mut constant = true;
        self.root.walk(&mut |node| {
            constant &= match &node.kind {
                ExprKind::Context(_) => false,
                ExprKind::Call(function, _) => {
                    !function.is_status() && *function != BuiltinFunction::HashFiles
                }
                _ => true,
            }
        });
        constant
    }
}

/// How the value of a node is used in its expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueUse {
    /// It may become part of the result.
    Result,
    /// It is only compared or tested.
    Tested,
}

fn collect(node: &ExprNode, value_use: ValueUse, paths: &mut Vec<ContextPath>) {
    match &node.kind {
        ExprKind::Literal(_) => {}
        ExprKind::Context(_) | ExprKind::Index(_) | ExprKind::Filter(_) => {
            if let Some(names) = names(node, paths) {
                paths.push(ContextPath {
                    names,
                    at: node.at.clone(),
                    flows: value_use == ValueUse::Result,
                });
            }
        }
        ExprKind::Not(inner) => collect(inner, ValueUse::Tested, paths),
        ExprKind::Compare(_, pair) => pair
            .iter()
            .for_each(|node| collect(node, ValueUse::Tested, paths)),
        // The last of `&&` is its value when the others hold; when one of them doesn't, its value is empty or false.
        ExprKind::And(nodes) => {
            for (at, node) in nodes.iter().enumerate() {
                let is_last = at + 1 == nodes.len();
                let used = if is_last { value_use } else { ValueUse::Tested };
                collect(node, used, paths);
            }
        }
        ExprKind::Or(nodes) => nodes
            .iter()
            .for_each(|node| collect(node, value_use, paths)),
        ExprKind::Call(function, values) => {
            for (at, node) in values.iter().enumerate() {
                let used = if passes_on(*function, at, values.len()) {
                    value_use
                } else {
                    ValueUse::Tested
                };
                collect(node, used, paths);
            }
        }
    }
}

/// Whether the text of a function's value may be in its answer.
const fn passes_on(function: BuiltinFunction, at: usize, count: usize) -> bool {
    match function {
        BuiltinFunction::Format
        | BuiltinFunction::Join
        | BuiltinFunction::ToJson
        | BuiltinFunction::FromJson => true,
        BuiltinFunction::Case => at % 2 == 1 || at + 1 == count,
        BuiltinFunction::Contains
        | BuiltinFunction::StartsWith
        | BuiltinFunction::EndsWith
        | BuiltinFunction::HashFiles
        | BuiltinFunction::Success
        | BuiltinFunction::Failure
        | BuiltinFunction::Always
        | BuiltinFunction::Cancelled => false,
    }
}

/// The names from a context down to `node`. Paths inside brackets are added to `paths`.
fn names(node: &ExprNode, paths: &mut Vec<ContextPath>) -> Option<Vec<String>> {
    match &node.kind {
        ExprKind::Context(name) => Some(vec![name.to_string()]),
        ExprKind::Filter(inner) => {
            let mut names = names(inner, paths)?;
            names.push("*".to_owned());
            Some(names)
        }
        ExprKind::Index(pair) => {
            let index = match &pair[1].kind {
                ExprKind::Literal(ExprValue::String(name)) => name.to_lowercase(),
                // An item of a list is like any of them.
                ExprKind::Literal(_) => "*".to_owned(),
                _ => {
                    collect(&pair[1], ValueUse::Tested, paths);
                    "*".to_owned()
                }
            };
            let mut names = names(&pair[0], paths)?;
            names.push(index);
            Some(names)
        }
        _ => {
            collect(node, ValueUse::Result, paths);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(String, bool)> {
        let paths = Expr::parse(text, 0).unwrap().paths();
        paths
            .iter()
            .map(|path| (path.joined(), path.flows))
            .collect()
    }

    #[test]
    fn what_is_looked_at_is_known_and_whether_it_flows_on() {
        for (text, expected) in [
            (
                "github.Event['issue'].title",
                vec![("github.event.issue.title", true)],
            ),
            (
                "github.event.commits.*.message",
                vec![("github.event.commits.*.message", true)],
            ),
            (
                "github.event.commits[0].message",
                vec![("github.event.commits.*.message", true)],
            ),
            (
                "a.b == 'x' && c.d || e",
                vec![("a.b", false), ("c.d", true), ("e", true)],
            ),
            ("format('{0}', a.b)", vec![("a.b", true)]),
            ("contains(a.b, 'x')", vec![("a.b", false)]),
            (
                "case(a == 1, b, c)",
                vec![("a", false), ("b", true), ("c", true)],
            ),
            ("a[b.c].d", vec![("b.c", false), ("a.*.d", true)]),
            ("fromJSON(a).b", vec![("a", true)]),
            ("!a", vec![("a", false)]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, flows)| ((*name).to_owned(), *flows))
                .collect();
            assert_eq!(paths(text), expected, "{text}");
        }
        assert!(
            Expr::parse("1 == 2 || contains('a', 'b')", 0)
                .unwrap()
                .is_constant()
        );
        assert!(!Expr::parse("always()", 0).unwrap().is_constant());
        assert!(!Expr::parse("env.A", 0).unwrap().is_constant());
    }
}
