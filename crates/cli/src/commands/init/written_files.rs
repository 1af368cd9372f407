//! The texts of the files that `shipway init` writes.

use std::fmt::Write as _;

use super::{
    InitPlan, ReleaseSource,
    project::{BuildStep, DetectedProject},
};

/// A mapping in one line.
fn flow_mapping(entries: &[(&'static str, String)]) -> String {
    let entries = entries.iter();
    let entries = entries.map(|(name, value)| format!("{name}: {}", yaml_scalar(value)));
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

/// A text as a scalar that a block or a flow mapping can hold, quoted where needed.
fn yaml_scalar(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || " -_./$=+~()%;'\"".contains(c);
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "./$_".contains(c));
    let is_colon_safe = !text.contains(": ") && !text.ends_with(':');
    let is_plain = text.chars().all(|c| is_safe(c) || c == ':');
    let is_number = text.parse::<f64>().is_ok();
    let is_constant = ["true", "false", "null", "yes", "no", "on", "off"]
        .contains(&text.to_ascii_lowercase().as_str());
    if starts_plain
        && is_colon_safe
        && is_plain
        && !is_number
        && !is_constant
        && !text.ends_with(' ')
    {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// `shipway.yaml`.
pub(super) fn config_text(plan: &InitPlan) -> String {
    let project = &plan.project;
    let mut text = format!(
        "# How {service} is released. `shipway check` explains errors, `shipway schema` prints the JSON Schema for editors.\nservice: {service}\n",
        service = plan.service
    );
    let branch = &plan.branch;
    let _ = writeln!(
        text,
        "branch: {}   # its commits are released when their workflows succeed",
        yaml_scalar(branch)
    );
    if plan.nested.is_some() {
        text.push_str("# paths: [libs/**]   # what it uses of other folders: a change there is released too\n");
    }
    text.push_str(&workflow_lines(plan));
    text.push_str(&artifact_lines(plan));
    text.push_str("\nrun:\n");
    let comments = project
        .command_comments
        .iter()
        .chain(&plan.artifact_comments);
    for comment in comments {
        let _ = writeln!(text, "  # {comment}");
    }
    let _ = writeln!(text, "  command: {}", yaml_scalar(&project.command));
    if !project.env.is_empty() {
        let _ = writeln!(text, "  env: {}", flow_mapping(&project.env));
    }
    match &project.health_path {
        Some(path) => {
            let _ = writeln!(text, "  health: {{ http: {} }}   # an instance gets traffic while this answers below 400", yaml_scalar(path));
        }
        None => text.push_str(
            "  health: { tcp: true }   # better, if it has one: a path that answers when it can serve, { http: /health }\n",
        ),
    }
    text.push_str(&environment_lines(project));
    text
}

fn workflow_lines(plan: &InitPlan) -> String {
    let excluded = &plan.existing.excluded;
    let own = plan.workflow_path();
    let has_any = own.is_some() || !plan.existing.usable.is_empty();
    if excluded.is_empty() && (plan.nested.is_none() || !has_any) {
        return String::new();
    }
    let mut text = match excluded.is_empty() {
        true => "workflow:   # a change of these files is released too\n".to_owned(),
        false => "workflow:   # all others are not run here:\n".to_owned(),
    };
    for (path, reason) in excluded {
        let _ = writeln!(text, "  # {path}: {reason}");
    }
    for path in plan.existing.usable.iter().map(String::as_str).chain(own) {
        let _ = writeln!(text, "  - {}", yaml_scalar(path));
    }
    text
}

fn artifact_lines(plan: &InitPlan) -> String {
    match &plan.source {
        ReleaseSource::OwnWorkflow { path } => format!(
            "artifact: {}   # {path} uploads it\n",
            yaml_scalar(&plan.service)
        ),
        ReleaseSource::Uploaded { artifact } if plan.existing.is_artifact_guessed => format!(
            "artifact: {}   # a guess: one of the artifacts that the workflows upload\n",
            yaml_scalar(artifact)
        ),
        ReleaseSource::Uploaded { artifact } => {
            format!(
                "artifact: {}   # the workflows upload it\n",
                yaml_scalar(artifact)
            )
        }
        ReleaseSource::CommitTree => {
            "artifact: { source: . }   # the files of the commit, as they are\n".to_owned()
        }
    }
}

fn environment_lines(project: &DetectedProject) -> String {
    let smoke = match &project.smoke_path {
        Some(path) => format!("    smoke: [{{ get: {} }}]   # must answer below 400 before users get there\n", yaml_scalar(path)),
        None => "    # smoke: [{ get: / }]   # requests that must answer below 400 before users get there\n".to_owned(),
    };
    format!(
        "
environments:   # in order of promotion
  staging:
    strategy: recreate
{smoke}
  production:
    instances: 1
    strategy:
      canary:   # the shares of users that get a new release, and for how long; then all do
        steps: [{{ weight: 10%, hold: 30s }}, {{ weight: 50%, hold: 30s }}]
{smoke}    # Without `analysis` the default rules judge a release: more errors, slow answers or restarts than the stable release
    # roll it back at once, also in the 30 minutes after its promotion. A quiet service is promoted when nothing bad was
    # seen in the time: the rollout then says how little traffic there was. `required: true` on a rule waits for traffic.
    # approvals: {{ count: 1 }}   # people who must approve before a rollout starts
"
    )
}

/// The workflow that builds the artifact.
pub(super) fn workflow_text(plan: &InitPlan) -> String {
    let branch = yaml_scalar(&plan.branch);
    let nested = nested_lines(plan);
    let mut text = format!(
        "name: {}
on:
  push:
    branches: [{branch}]
{nested}jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
",
        plan.workflow_name()
    );
    let has_own_tests = plan.existing.usable.is_empty();
    let steps = plan.project.steps.iter();
    for step in steps.filter(|step| has_own_tests || !step.is_test()) {
        text.push_str(&step_text(step, &plan.project.env));
    }
    if has_own_tests && !plan.project.steps.iter().any(BuildStep::is_test) {
        text.push_str("      # No tests were found: a step here that fails keeps a commit from being released.\n");
    }
    let _ = writeln!(
        text,
        "      - uses: actions/upload-artifact@v4
        with:
          name: {}",
        yaml_scalar(&plan.service)
    );
    match plan.project.artifact_paths.as_slice() {
        [path] => {
            let path = artifact_path(plan, path);
            let _ = writeln!(text, "          path: {}", yaml_scalar(&path));
        }
        paths => {
            text.push_str("          path: |\n");
            for path in paths {
                let _ = writeln!(text, "            {}", artifact_path(plan, path));
            }
        }
    }
    text.push_str("          if-no-files-found: error\n");
    text
}

/// Where the workflow of one of several services starts, and in which folder.
fn nested_lines(plan: &InitPlan) -> String {
    let Some(nested) = &plan.nested else {
        return String::new();
    };
    let folder = &nested.path;
    let own = plan.workflow_path().unwrap_or_default();
    format!(
        "    # With `paths` in shipway.yaml: the same paths here.
    paths: [{}, {own}]
defaults:
  run:
    working-directory: {}
",
        yaml_scalar(&format!("{folder}/**")),
        yaml_scalar(folder)
    )
}

/// A pattern of the artifact, from the root of the repository.
fn artifact_path(plan: &InitPlan, path: &str) -> String {
    match (path.strip_prefix('!'), &plan.nested) {
        (None, Some(nested)) if path == "." => nested.path.clone(),
        (Some(path), _) => format!("!{}", plan.path_in_repository(path)),
        (None, _) => plan.path_in_repository(path),
    }
}

fn step_text(step: &BuildStep, env: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    let (BuildStep::Action { comments, .. } | BuildStep::Script { comments, .. }) = step;
    for comment in comments {
        let _ = writeln!(text, "      # {comment}");
    }
    match step {
        BuildStep::Action { uses, .. } => {
            let _ = writeln!(text, "      - uses: {uses}");
        }
        BuildStep::Script { name, lines, .. } => {
            let _ = writeln!(text, "      - name: {name}");
            if step.is_test() && !env.is_empty() {
                let _ = writeln!(text, "        env: {}", flow_mapping(env));
            }
            text.push_str("        run: |\n");
            for line in lines {
                let _ = writeln!(text, "          {line}");
            }
        }
    }
    text
}
