//! Go: a module with a `package main`.

use super::super::{
    project::{BuildStep, DetectedProject, find_routes, port_comment, quote_for_shell},
    repository::RepositoryFacts,
};

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    facts.text("go.mod")?;
    let mains = main_packages(facts);
    let (folder, path) = mains.first()?;
    let module = module_name(facts);
    let name = folder.rsplit('/').next().filter(|name| !name.is_empty());
    let name = name.or(module.as_deref()).unwrap_or("service").to_owned();
    let package = if folder.is_empty() {
        ".".to_owned()
    } else {
        format!("./{}", quote_for_shell(folder))
    };
    let mut comments = Vec::new();
    if mains.len() > 1 {
        comments.push(format!(
            "A guess: the first of {} programs, {path}.",
            mains.len()
        ));
    }
    let sources = facts.sources("go").map(|(_, text)| text);
    if !sources.clone().any(|text| text.contains("PORT")) {
        comments.extend(port_comment(path, None));
    }
    let binary = format!("out/{}", quote_for_shell(&name));
    let (health_path, smoke_path) = find_routes(sources);
    Some(DetectedProject {
        description: "a Go program".to_owned(),
        command: format!("./{}", quote_for_shell(&name)),
        command_comments: comments,
        steps: vec![
            BuildStep::test(vec!["go test ./...".to_owned()]),
            BuildStep::build("Build", vec![format!("go build -o {binary} {package}")]),
        ],
        artifact_paths: vec!["out".to_owned()],
        health_path,
        smoke_path,
        ..DetectedProject::default()
    })
}

/// Folders with a `package main`, each with the file that has `func main`; the root first.
fn main_packages(facts: &RepositoryFacts) -> Vec<(String, String)> {
    let mut mains: Vec<(String, String)> = Vec::new();
    for (path, text) in facts.sources("go") {
        let mut lines = text.lines();
        let is_main = lines.any(|line| line.trim_end() == "package main");
        if is_main && text.contains("func main(") && !path.ends_with("_test.go") {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if mains.iter().all(|(known, _)| known != folder) {
                mains.push((folder.to_owned(), path.to_owned()));
            }
        }
    }
    mains.sort_by_key(|(folder, _)| folder.matches('/').count() + usize::from(!folder.is_empty()));
    mains
}

/// The last part of the module's path.
fn module_name(facts: &RepositoryFacts) -> Option<String> {
    let mut lines = facts.text("go.mod")?.lines();
    let path = lines.find_map(|line| line.trim().strip_prefix("module "))?;
    let name = path.trim().trim_matches('"').rsplit('/').next()?;
    Some(name.to_owned())
}
