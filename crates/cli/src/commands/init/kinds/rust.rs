//! Rust: a package, or a workspace with one, that has a binary.

use super::super::{
    project::{BuildStep, DetectedProject, find_routes, port_comment, quote_for_shell},
    repository::RepositoryFacts,
};

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let binaries = find_binaries(facts);
    let first = binaries.first()?;
    let locked = if facts.has("Cargo.lock") {
        " --locked"
    } else {
        ""
    };
    let mut comments = Vec::new();
    if binaries.len() > 1 {
        let names: Vec<&str> = binaries.iter().map(|it| it.name.as_str()).collect();
        comments.push(format!(
            "A guess: the first of the binaries {}.",
            names.join(", ")
        ));
    }
    comments.extend(port_comment(&first.path, facts.text(&first.path)));
    let mut build = BuildStep::build(
        "Build",
        vec![format!(
            "cargo build --release{locked} --bin {}",
            first.name
        )],
    );
    if locked.is_empty() {
        build = build.with_comment(
            "Commit Cargo.lock and add --locked: each build then uses the same versions.",
        );
    }
    let (health_path, smoke_path) = find_routes(facts.sources("rs").map(|(_, text)| text));
    Some(DetectedProject {
        description: "a Rust program".to_owned(),
        command: format!("./{}", quote_for_shell(&first.name)),
        command_comments: comments,
        steps: vec![
            BuildStep::test(vec![format!("cargo test --release{locked}")]),
            build,
        ],
        artifact_paths: vec![format!("target/release/{}", first.name)],
        health_path,
        smoke_path,
        ..DetectedProject::default()
    })
}

/// A binary target.
struct BinaryTarget {
    name: String,
    path: String,
}

/// The binaries of the package at the root, else of the members of the workspace.
fn find_binaries(facts: &RepositoryFacts) -> Vec<BinaryTarget> {
    let own = package_binaries(facts, "");
    if !own.is_empty() || !facts.has("Cargo.toml") {
        return own;
    }
    let manifests = facts.files.iter();
    let members = manifests.filter_map(|path| path.strip_suffix("Cargo.toml"));
    members
        .flat_map(|folder| package_binaries(facts, folder))
        .collect()
}

/// The binaries of the package in a folder (`""` or `crates/server/`), `default-run` first.
fn package_binaries(facts: &RepositoryFacts, folder: &str) -> Vec<BinaryTarget> {
    let manifest = facts.toml(&format!("{folder}Cargo.toml"));
    let Some(package) = manifest.as_ref().and_then(|it| it.get("package")) else {
        return Vec::new();
    };
    let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
    let mut binaries = Vec::new();
    let targets = manifest.as_ref().and_then(|it| it.get("bin"));
    for target in targets
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let field = |key: &str| target.get(key).and_then(toml::Value::as_str);
        if let Some(name) = field("name") {
            let path = field("path").unwrap_or("src/main.rs");
            binaries.push(BinaryTarget {
                name: name.to_owned(),
                path: format!("{folder}{path}"),
            });
        }
    }
    let main = format!("{folder}src/main.rs");
    if facts.has(&main) && binaries.iter().all(|it| it.path != main) {
        let name = text("name").unwrap_or_default().to_owned();
        binaries.push(BinaryTarget { name, path: main });
    }
    let prefix = format!("{folder}src/bin/");
    for path in &facts.files {
        let name = path
            .strip_prefix(&prefix)
            .and_then(|it| it.strip_suffix(".rs"));
        if let Some(name) = name.filter(|name| !name.contains('/'))
            && binaries.iter().all(|it| it.path != *path)
        {
            let (name, path) = (name.to_owned(), path.clone());
            binaries.push(BinaryTarget { name, path });
        }
    }
    binaries.sort_by_key(|it| Some(it.name.as_str()) != text("default-run"));
    binaries
}
