//! Files compared with others of the same repository: calls with what they call, steps with local actions, `shipway.yaml` with
//! what workflows upload.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shipway_core::config::{ArtifactSource, ServiceConfig};
use shipway_syntax::{Diagnostic, SourceFile, Span};
use shipway_workflow::lint::{UploadedArtifacts, check_local};

use super::holds_workflows;

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
    let root = path.parent().unwrap_or(Path::new(""));
    // Without workflows this is not the `shipway.yaml` at the root of a repository.
    let Some(found) = workflows_in(root) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let mut uploads = UploadedArtifacts::default();
    let named = &config.workflows;
    for file in if named.is_empty() { &found } else { named } {
        let Some(text) = read(root, file) else {
            let message = format!("the workflow {file} is not in the repository");
            let help = format!("{WORKFLOWS} has {}", listed(&found));
            let span = key_span(source, "workflow");
            problems.push(Diagnostic::error("missing-workflow", span, message).help(help));
            continue;
        };
        match shipway_workflow::parse(&SourceFile::new(file.as_str(), text)).workflow {
            Some(workflow) => uploads.add_workflow(&workflow, &|file| read(root, file)),
            // Its mistakes are reported separately; its uploads are unknown.
            None => uploads.has_unknown = true,
        }
    }
    problems.extend(missing_artifact(source, config, &uploads));
    problems
}

/// Without the artifact that `shipway.yaml` names a push releases nothing.
fn missing_artifact(
    source: &SourceFile,
    config: &ServiceConfig,
    uploads: &UploadedArtifacts,
) -> Option<Diagnostic> {
    let ArtifactSource::Run { name } = &config.artifact else {
        return None;
    };
    let is_there = match name {
        Some(name) => uploads.names.contains(name),
        None => !uploads.names.is_empty(),
    };
    if is_there || uploads.has_unknown {
        return None;
    }
    let message = match name {
        Some(name) => {
            format!("no workflow uploads the artifact `{name}`, so a push releases nothing")
        }
        None => "no workflow uploads an artifact, so a push releases nothing".to_owned(),
    };
    let name = name.as_deref().unwrap_or(config.service.as_str());
    let step = format!("uses: actions/upload-artifact@v4 with: {{ name: {name}, path: … }}");
    let names: Vec<String> = uploads.names.iter().cloned().collect();
    let help = if names.is_empty() {
        format!("add a step to the job that builds it: {step}")
    } else {
        let names = listed(&names);
        format!("the workflows upload {names}: name one of them, or add a step: {step}")
    };
    let span = key_span(source, "artifact");
    Some(Diagnostic::warning("missing-artifact", span, message).help(help))
}

fn listed(names: &[String]) -> String {
    shipway_workflow::expr::join_with_and(names.iter().map(String::as_str))
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

/// Where a key of the file stands; its first line when it has none.
fn key_span(source: &SourceFile, name: &str) -> Span {
    let tree = shipway_syntax::parse(source).ok();
    let mut entries = tree
        .iter()
        .flat_map(|it| it.as_mapping().unwrap_or_default());
    let first = tree.as_ref().map(|it| it.span).unwrap_or_default();
    let key = entries.find(|(key, _)| key.text == name);
    key.map_or(first, |(key, _)| key.span)
}
