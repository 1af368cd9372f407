//! `unpinned-action`: a third party's action or workflow by a name that its owner can move to other code. Those of GitHub
//! itself and Shipway's own are trusted as their owners are.

use shipway_syntax::YamlNode;

use super::{LintFinding, LintSubject};
use crate::model::own_repository_path;

pub(super) const CODE: &str = "unpinned-action";

const TRUSTED: [&str; 3] = ["actions", "github", "shipway"];

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let jobs = subject.jobs().iter().map(|(_, job)| job);
    jobs.chain(subject.steps())
        .filter_map(|node| unpinned(node.get("uses")?))
        .collect()
}

fn unpinned(node: &YamlNode) -> Option<LintFinding> {
    let uses = node.as_str()?;
    if own_repository_path(uses).is_some() || uses.starts_with("docker://") {
        return None;
    }
    let (path, reference) = uses.split_once('@')?;
    let owner = path.split('/').next().unwrap_or_default();
    let pinned = reference.len() == 40 && reference.bytes().all(|b| b.is_ascii_hexdigit());
    if pinned || TRUSTED.contains(&owner) {
        return None;
    }
    Some(LintFinding::new(
        node.span,
        format!(
            "`{reference}` of `{path}` is a mutable tag or branch: {owner} can change the code behind it"
        ),
        format!("pin the commit, and keep the name as a comment: {path}@<40 digits> # {reference}"),
    ))
}
