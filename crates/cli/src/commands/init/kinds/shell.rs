//! Shell: a script that starts the service.

use super::super::{
    project::{BuildStep, DetectedProject, port_comment, quote_for_shell},
    repository::RepositoryFacts,
    start_command::{dockerfile_command, procfile_command},
};

/// Names of scripts that start a service.
const SCRIPTS: [&str; 12] = [
    "start.sh",
    "serve.sh",
    "server.sh",
    "run.sh",
    "app.sh",
    "main.sh",
    "scripts/start.sh",
    "scripts/serve.sh",
    "scripts/run.sh",
    "script/start.sh",
    "script/server",
    "start",
];

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let script = facts
        .first(&SCRIPTS)
        .map(str::to_owned)
        .or_else(|| only_script(facts));
    let (command, comments) = if let Some(start) = procfile_command(facts) {
        (start.command, vec![start.comment])
    } else if let Some(script) = &script {
        let comment = port_comment(script, facts.text(script));
        (script_command(facts, script), comment.into_iter().collect())
    } else {
        let start = dockerfile_command(facts)?;
        (start.command, vec![start.comment])
    };
    let steps = make_steps(facts);
    Some(DetectedProject {
        description: match &script {
            Some(script) => format!("the script {script}"),
            None => "a command that starts it".to_owned(),
        },
        command,
        command_comments: comments,
        is_source_runnable: steps.is_empty(),
        steps,
        artifact_paths: vec![".".to_owned()],
        ..DetectedProject::default()
    })
}

/// The only script of the root that isn't a test or a build.
fn only_script(facts: &RepositoryFacts) -> Option<String> {
    let is_service = |path: &&str| {
        let name = path.trim_end_matches(".sh");
        !path.contains('/') && !["test", "tests", "check", "build", "install"].contains(&name)
    };
    let mut scripts = facts.sources("sh").map(|(path, _)| path).filter(is_service);
    let first = scripts.next()?;
    scripts.next().is_none().then(|| first.to_owned())
}

fn script_command(facts: &RepositoryFacts, script: &str) -> String {
    let word = quote_for_shell(script);
    if facts.executables.contains(script) {
        return format!("./{word}");
    }
    let is_bash = facts.text(script).is_some_and(|text| {
        text.lines()
            .next()
            .is_some_and(|line| line.contains("bash"))
    });
    format!("{} {word}", if is_bash { "bash" } else { "sh" })
}

/// Targets of the Makefile, or scripts, that build and test.
fn make_steps(facts: &RepositoryFacts) -> Vec<BuildStep> {
    let targets: Vec<&str> = facts
        .text("Makefile")
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, rest)| !name.starts_with(['\t', '.', '#']) && !rest.starts_with('='))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    let command = |name: &str| {
        if targets.contains(&name) {
            return Some(format!("make {name}"));
        }
        let script = format!("{name}.sh");
        facts.has(&script).then(|| script_command(facts, &script))
    };
    let build = command("build").map(|line| BuildStep::build("Build", vec![line]));
    let test = command("test").map(|line| BuildStep::test(vec![line]));
    build.into_iter().chain(test).collect()
}
