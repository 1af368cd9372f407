//! Node: a `package.json` with something to start.

use serde_json::Value;

use super::super::{
    project::{BuildStep, DetectedProject, find_routes, port_comment, quote_for_shell},
    repository::RepositoryFacts,
    start_command::{StartCommand, dockerfile_command, procfile_command},
};

/// Files that start a service where `package.json` names none.
const MAIN_FILES: [&str; 9] = [
    "server.js",
    "index.js",
    "app.js",
    "main.js",
    "server.mjs",
    "index.mjs",
    "src/server.js",
    "src/index.js",
    "src/main.js",
];

/// A lock file, with the command that installs what it locks.
const LOCK_FILES: [(&str, &str); 6] = [
    ("package-lock.json", "npm ci"),
    ("npm-shrinkwrap.json", "npm ci"),
    ("pnpm-lock.yaml", "npx --yes pnpm install --frozen-lockfile"),
    ("yarn.lock", "npx --yes yarn@1 install --frozen-lockfile"),
    ("bun.lock", "npx --yes bun install --frozen-lockfile"),
    ("bun.lockb", "npx --yes bun install --frozen-lockfile"),
];

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let package = facts.json("package.json")?;
    let (command, comments) = start_command(facts, &package)?;
    let mut steps = Vec::new();
    let has_packages = ["dependencies", "devDependencies", "optionalDependencies"]
        .iter()
        .any(|key| package[key].as_object().is_some_and(|it| !it.is_empty()));
    if has_packages {
        steps.push(install_step(facts));
    }
    let script = |name: &str| package["scripts"][name].as_str();
    if script("build").is_some() {
        steps.push(BuildStep::build("Build", vec!["npm run build".to_owned()]));
    }
    // `npm init` writes a test that fails and says this.
    if script("test").is_some_and(|test| !test.contains("no test specified")) {
        steps.push(BuildStep::test(vec!["npm test".to_owned()]));
    }
    let sources = ["js", "mjs", "cjs", "ts"]
        .into_iter()
        .flat_map(|extension| facts.sources(extension));
    let texts: Vec<&str> = sources.map(|(_, text)| text).collect();
    let (health_path, smoke_path) = find_routes(texts.iter().copied());
    Some(DetectedProject {
        description: match (has_packages, find_lock_file(facts)) {
            (false, _) => "a Node program without dependencies".to_owned(),
            (true, Some((file, _))) => format!("a Node program with {file}"),
            (true, None) => "a Node program without a lock file".to_owned(),
        },
        command,
        command_comments: comments,
        is_source_runnable: !has_packages && script("build").is_none(),
        steps,
        artifact_paths: vec![".".to_owned()],
        health_path,
        smoke_path,
        ..DetectedProject::default()
    })
}

fn find_lock_file(facts: &RepositoryFacts) -> Option<(&'static str, &'static str)> {
    LOCK_FILES.into_iter().find(|(file, _)| facts.has(file))
}

fn install_step(facts: &RepositoryFacts) -> BuildStep {
    let version = facts.text(".nvmrc").and_then(|text| text.lines().next());
    let step = match find_lock_file(facts) {
        Some((_, command)) => BuildStep::build("Install dependencies", vec![command.to_owned()]),
        None => BuildStep::build("Install dependencies", vec!["npm install".to_owned()])
            .with_comment("There is no lock file. Commit package-lock.json and use `npm ci`: each build then has the same versions."),
    };
    match version {
        Some(version) => step.with_comment(format!(
            "The Node of the machine is used. .nvmrc says {}: it must be installed where the service runs.",
            version.trim()
        )),
        None => step,
    }
}

/// How it is started, with comments: `scripts.start`, the Procfile, `main`, a usual file, the Dockerfile.
fn start_command(facts: &RepositoryFacts, package: &Value) -> Option<(String, Vec<String>)> {
    let start = procfile_command(facts);
    let is_npm = |start: &StartCommand| start.command.starts_with("npm ");
    if let Some(start) = start.filter(|start| !is_npm(start)) {
        return Some((start.command, vec![start.comment]));
    }
    let scripts = &package["scripts"];
    if let Some(script) = scripts["start"].as_str() {
        return Some(command_for_script(facts, scripts, script));
    }
    let main = package["main"]
        .as_str()
        .map(|it| it.trim_start_matches("./"));
    let main = main.filter(|main| facts.has(main));
    let Some(file) = main.or_else(|| facts.first(&MAIN_FILES)) else {
        let start = dockerfile_command(facts)?;
        return Some((start.command, vec![start.comment]));
    };
    let comments = port_comment(file, facts.text(file)).into_iter().collect();
    Some((format!("node {}", quote_for_shell(file)), comments))
}

/// `scripts.start` without npm between Shipway and the service, which would not pass each signal on.
fn command_for_script(
    facts: &RepositoryFacts,
    scripts: &Value,
    script: &str,
) -> (String, Vec<String>) {
    let mut comments = vec!["As scripts.start of package.json says.".to_owned()];
    let mut words = script.split_whitespace();
    let program = words.next().unwrap_or_default();
    let has_hooks = scripts["prestart"].is_string() || scripts["poststart"].is_string();
    if has_hooks || script.contains(['&', '|', ';']) {
        return ("npm start".to_owned(), comments);
    }
    if program != "node" {
        return (
            format!("PATH=./node_modules/.bin:$PATH; {script}"),
            comments,
        );
    }
    let file = words
        .find(|word| !word.starts_with('-'))
        .unwrap_or_default();
    let file = file.trim_start_matches("./");
    if facts.has(file) {
        comments.extend(port_comment(file, facts.text(file)));
    }
    (script.to_owned(), comments)
}
