//! What an expression looks at: `github.event.issue.title`, `needs.build.outputs.x`; for those who read files with care.

use std::ops::Range;

use super::{
    Expr, Value,
    ast::{Function, Kind, Node},
};

/// A name and what is looked up in it, as far as it is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// In lower case; `*` for a filter, and for an index that isn't a literal.
    pub names: Vec<String>,
    /// Its bytes, counted as the parser was told to.
    pub at: Range<usize>,
    /// Whether its text may become part of what the expression comes to, and isn't only compared or asked about.
    pub flows: bool,
}

impl Path {
    /// `github.event.commits.*.message`
    #[must_use]
    pub fn joined(&self) -> String {
        self.names.join(".")
    }
}

impl Expr {
    /// All that is looked at, each as far as it goes.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        collect(&self.root, true, &mut paths);
        paths
    }

    /// Whether it comes to the same always: it looks at nothing, and asks neither how things went nor for files.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        let mut constant = true;
        self.root.walk(&mut |node| {
            constant &= match &node.kind {
                Kind::Context(_) => false,
                Kind::Call(function, _) => {
                    !function.is_status() && *function != Function::HashFiles
                }
                _ => true,
            }
        });
        constant
    }
}

fn collect(node: &Node, flows: bool, paths: &mut Vec<Path>) {
    match &node.kind {
        Kind::Literal(_) => {}
        Kind::Context(_) | Kind::Index(_) | Kind::Filter(_) => {
            if let Some(names) = names(node, paths) {
                paths.push(Path {
                    names,
                    at: node.at.clone(),
                    flows,
                });
            }
        }
        Kind::Not(inner) => collect(inner, false, paths),
        Kind::Compare(_, pair) => pair.iter().for_each(|node| collect(node, false, paths)),
        // The last of `&&` is its value when the others hold; when one of them doesn't, its value is empty or false.
        Kind::And(nodes) => {
            for (at, node) in nodes.iter().enumerate() {
                collect(node, flows && at + 1 == nodes.len(), paths);
            }
        }
        Kind::Or(nodes) => nodes.iter().for_each(|node| collect(node, flows, paths)),
        Kind::Call(function, values) => {
            for (at, node) in values.iter().enumerate() {
                collect(node, flows && passes_on(*function, at, values.len()), paths);
            }
        }
    }
}

/// Whether the text of a function's value may be in its answer.
const fn passes_on(function: Function, at: usize, count: usize) -> bool {
    match function {
        Function::Format | Function::Join | Function::ToJson | Function::FromJson => true,
        Function::Case => at % 2 == 1 || at + 1 == count,
        Function::Contains
        | Function::StartsWith
        | Function::EndsWith
        | Function::HashFiles
        | Function::Success
        | Function::Failure
        | Function::Always
        | Function::Cancelled => false,
    }
}

/// The names from a context down to `node`; what is looked at inside brackets on the way goes to `paths`.
fn names(node: &Node, paths: &mut Vec<Path>) -> Option<Vec<String>> {
    match &node.kind {
        Kind::Context(name) => Some(vec![name.to_string()]),
        Kind::Filter(inner) => {
            let mut names = names(inner, paths)?;
            names.push("*".to_owned());
            Some(names)
        }
        Kind::Index(pair) => {
            let index = match &pair[1].kind {
                Kind::Literal(Value::String(name)) => name.to_lowercase(),
                // An item of a list is like any of them.
                Kind::Literal(_) => "*".to_owned(),
                _ => {
                    collect(&pair[1], false, paths);
                    "*".to_owned()
                }
            };
            let mut names = names(&pair[0], paths)?;
            names.push(index);
            Some(names)
        }
        _ => {
            collect(node, true, paths);
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
