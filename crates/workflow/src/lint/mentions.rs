//! What a workflow asks of a context by name: which secrets, which variables. No lint; for those who give them.

use std::collections::BTreeSet;

use shipway_syntax::SourceFile;

use super::LintSubject;
use crate::parse::reader::WorkflowReader;

/// Names that are read from a context, in upper case (contexts ignore case): `secrets` → `DEPLOY_KEY`. Names that
/// are known only at run time (`secrets[matrix.key]`) and names in called workflows are not included.
///
/// ```
/// let source = shipway_syntax::SourceFile::new("ci.yml", "env: { KEY: '${{ secrets.deploy_key }}' }\n");
/// assert!(shipway_workflow::lint::mentions(&source, "secrets").contains("DEPLOY_KEY"));
/// ```
#[must_use]
pub fn mentions(source: &SourceFile, context: &str) -> BTreeSet<String> {
    let Ok(tree) = shipway_syntax::parse(source) else {
        return BTreeSet::new();
    };
    let subject = LintSubject {
        tree: &tree,
        reader: WorkflowReader::new(source),
    };
    let exprs = subject.exprs(&tree);
    let paths = exprs.iter().flat_map(|(_, expr)| expr.paths());
    paths
        .filter_map(|path| match path.names.as_slice() {
            [first, name, ..] if first == context && name != "*" => Some(name.to_uppercase()),
            _ => None,
        })
        .collect()
}
