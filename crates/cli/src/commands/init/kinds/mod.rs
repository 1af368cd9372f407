//! The kinds of projects that `shipway init` recognises: a file and a line in [`KINDS`] each.

use super::{project::DetectedProject, repository::RepositoryFacts};

mod go;
mod node;
mod python;
mod rust;
mod shell;
mod static_site;

/// The kinds; the first that recognises a repository decides.
const KINDS: [fn(&RepositoryFacts) -> Option<DetectedProject>; 6] = [
    rust::detect,
    go::detect,
    node::detect,
    python::detect,
    static_site::detect,
    shell::detect,
];

/// Recognises the project; none where no kind does.
pub(super) fn detect_project(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let mut project = KINDS.iter().find_map(|detect| detect(facts))?;
    if facts.has("Dockerfile") {
        let note = "The Dockerfile is not used: an instance is a process of the server's machine.";
        project.command_comments.push(note.to_owned());
    }
    Some(project)
}
