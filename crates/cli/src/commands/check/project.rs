//! Files compared with others of the same repository: calls with what they call, steps with local actions, `shipway.yaml` with
//! what workflows upload.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shipway_core::config::ServiceConfig;
use shipway_syntax::{Diagnostic, SourceFile};
use shipway_workflow::{lint::check_local, model::PushEvent};

use super::{
    artifacts::{ArtifactComparison, foreign_content, key_span, missing_program},
    holds_workflows,
    service_files::ConfigLocation,
};

/// Where workflows are kept.
const WORKFLOWS: &str = ".github/workflows";

/// Mismatches between a workflow or an action and the files of its repository.
pub(super) fn local_problems(path: &Path, source: &SourceFile) -> Vec<Diagnostic> {
    match repository_root(path) {
        Some(root) => check_local(source, &|file| read(&root, file)),
        None => Vec::new(),
    }
}

/// Compares `shipway.yaml` with the workflows of its repository.
pub(super) fn config_problems(
    path: &Path,
    source: &SourceFile,
    config: &ServiceConfig,
) -> Vec<Diagnostic> {
    let root = &workflows_root(path);
    let found = workflows_in(root).unwrap_or_default();
    let location = ConfigLocation::find(path);
    let nested = location.as_ref().filter(|location| location.is_nested());
    let mut problems = Vec::new();
    if let Some(location) = &location {
        problems.extend(location.problems(source, config));
    }
    let mut comparison = ArtifactComparison::new(source, config);
    let push = PushEvent {
        reference: format!("refs/heads/{}", config.branch),
        // Filters of workflows see only the changes that concern the service.
        changed_paths: (location.as_ref()).and_then(|location| location.changed_paths(config)),
    };
    let named = &config.workflows;
    for file in if named.is_empty() { &found } else { named } {
        let Some(text) = read(root, file) else {
            let message = format!("the workflow {file} is not in the repository");
            let names = found.iter().map(String::as_str);
            let help = format!(
                "{WORKFLOWS} has {}",
                shipway_workflow::expr::join_with_and(names)
            );
            let span = key_span(source, "workflow");
            problems.push(Diagnostic::error("missing-workflow", span, message).help(help));
            continue;
        };
        match shipway_workflow::parse(&SourceFile::new(file.as_str(), text)).workflow {
            Some(workflow) if workflow.on.matches_push(&push) => {
                comparison
                    .uploads
                    .add_workflow(&workflow, &|file| read(root, file));
            }
            Some(workflow) => comparison
                .idle
                .add_workflow(&workflow, &|file| read(root, file)),
            // Its mistakes are reported separately; its uploads are unknown.
            None => comparison.uploads.has_unknown = true,
        }
    }
    comparison.has_workflows = !found.is_empty();
    problems.extend(comparison.missing_artifact());
    let folder = nested.and_then(|_| path.parent()).unwrap_or(root);
    problems.extend(missing_program(folder, source, config));
    problems.extend(foreign_content(root, source, config));
    problems
}

/// The paths of the workflows of a repository, from its root; none where it has no folder for them.
fn workflows_in(root: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(root.join(WORKFLOWS)).ok()?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yml") || name.ends_with(".yaml"))
        .map(|name| format!("{WORKFLOWS}/{name}"))
        .collect();
    names.sort();
    Some(names)
}

/// The folder whose workflows a push of this `shipway.yaml` runs: its own, or one above in the same repository.
fn workflows_root(config: &Path) -> PathBuf {
    let folder = match config.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let absolute = folder.canonicalize().unwrap_or_default();
    let repository = absolute.ancestors().find(|it| it.join(".git").exists());
    let mut above = absolute.ancestors();
    let holds_workflows = |it: &&Path| {
        it.join(WORKFLOWS).is_dir() && repository.is_some_and(|root| it.starts_with(root))
    };
    above.find(holds_workflows).unwrap_or(folder).to_owned()
}

/// The root of the repository that a workflow or an action is in.
fn repository_root(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    if holds_workflows(folder) {
        return folder.parent()?.parent().map(Path::to_owned);
    }
    let mut folders = folder.ancestors();
    let root = folders.find(|it| it.join(".github").is_dir() || it.join(".git").exists());
    root.map(Path::to_owned)
}

fn read(root: &Path, file: &str) -> Option<String> {
    fs::read_to_string(root.join(file)).ok()
}
