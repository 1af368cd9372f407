//! `unknown-input` and names in `matrix`: a value that nothing gives, and that is therefore always empty.

use std::collections::BTreeSet;

use shipway_syntax::{YamlNode, nearest};

use super::{LintFinding, LintSubject};

pub(super) const CODE: &str = "unknown-name";

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let mut found = Vec::new();
    // An action's inputs may be given without being declared.
    if subject.tree.get("jobs").is_some() {
        unknown(
            subject,
            subject.tree,
            "inputs",
            &inputs(subject),
            "it is never used",
            &mut found,
        );
    }
    for (_, job) in subject.jobs() {
        if let Some(names) = matrix(job) {
            unknown(
                subject,
                job,
                "matrix",
                &names,
                "it isn't in the matrix of this job",
                &mut found,
            );
        }
    }
    found
}

/// What `workflow_dispatch` and `workflow_call` ask for.
fn inputs(subject: &LintSubject<'_>) -> BTreeSet<String> {
    let events = subject.events();
    let asked = events
        .iter()
        .filter(|(name, _)| matches!(*name, "workflow_dispatch" | "workflow_call"));
    asked
        .filter_map(|(_, node)| node.as_ref()?.get("inputs")?.as_mapping())
        .flatten()
        .map(|(key, _)| key.text.to_lowercase())
        .collect()
}

/// The names of a matrix; none when some come from an expression.
fn matrix(job: &YamlNode) -> Option<BTreeSet<String>> {
    let Some(strategy) = job.get("strategy") else {
        return Some(BTreeSet::new());
    };
    let Some(matrix) = strategy.get("matrix") else {
        return strategy.as_mapping().map(|_| BTreeSet::new());
    };
    let mut names = BTreeSet::new();
    for (key, node) in matrix.as_mapping()? {
        match key.text.as_str() {
            "exclude" => {}
            "include" => {
                for item in node.as_sequence()? {
                    names.extend(
                        item.as_mapping()?
                            .iter()
                            .map(|(key, _)| key.text.to_lowercase()),
                    );
                }
            }
            name => {
                names.insert(name.to_lowercase());
            }
        }
    }
    Some(names)
}

fn unknown<'s>(
    subject: &LintSubject<'s>,
    node: &'s YamlNode,
    context: &str,
    known: &BTreeSet<String>,
    why: &str,
    found: &mut Vec<LintFinding>,
) {
    for (scalar, expr) in subject.exprs(node) {
        for path in expr.paths() {
            let [of, name, ..] = path.names.as_slice() else {
                continue;
            };
            if of != context || name == "*" || known.contains(name) {
                continue;
            }
            let help = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{context}.{near}`?"),
                None => "its value is always empty".to_owned(),
            };
            found.push(LintFinding::new(
                subject.span_within(scalar, path.at.clone()),
                format!("`{context}.{name}`: {why}"),
                help,
            ));
        }
    }
}
