//! References of a workflow or an action to its own repository, checked against the files: called workflows with their inputs,
//! secrets and outputs, and local actions with their inputs and outputs.
//!
//! What a run would refuse is an error (`local-call`); the rest are warnings (`local-action`, `action-input`, `action-output`),
//! as GitHub runs such steps.

use shipway_syntax::{Diagnostic, SourceFile, Span, YamlNode, nearest};

use super::{LintSubject, without_allowed};
use crate::{
    expr::join_with_and,
    graph::{CallMistake, WorkflowLocation, call_mistakes},
    model::{ActionFile, ActionRuns, Workflow, own_repository_path},
    parse::{in_order, reader::WorkflowReader},
};

const CALL: &str = "local-call";
const ACTION: &str = "local-action";
const INPUT: &str = "action-input";
const OUTPUT: &str = "action-output";

/// The text of a file of the repository, by its path from the root; none when there is no such file.
pub type ReadFile<'r> = &'r dyn Fn(&str) -> Option<String>;

/// Problems in the calls and local actions of a workflow or an action.
#[must_use]
pub fn check_local(source: &SourceFile, read: ReadFile<'_>) -> Vec<Diagnostic> {
    let Ok(tree) = shipway_syntax::parse(source) else {
        return Vec::new();
    };
    let subject = LintSubject {
        tree: &tree,
        reader: WorkflowReader::new(source),
    };
    let workflow = crate::parse(source).workflow;
    let mut found = Vec::new();
    for (key, job) in subject.jobs() {
        if let Some(workflow) = &workflow {
            check_call(&subject, workflow, (&key.text, job), read, &mut found);
        }
        check_steps(&subject, job, read, &mut found);
    }
    if let Some(runs) = tree.get("runs") {
        check_steps(&subject, runs, read, &mut found);
    }
    in_order(without_allowed(source, found))
}

/// The action in a folder of the repository.
#[derive(Debug)]
pub(super) enum LocalAction {
    /// Its file.
    File(Box<ActionFile>),
    /// A container without a description, or a file with mistakes that are reported separately.
    Undescribed,
    /// There is none.
    Missing,
}

/// The action that `uses: ./path` means; none for other actions, and where the path leaves the repository.
pub(super) fn local_action(uses: &str, read: ReadFile<'_>) -> Option<LocalAction> {
    let path = own_repository_path(uses)?.trim_matches('/');
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let file = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    };
    for name in ["action.yml", "action.yaml"] {
        if let Some(text) = read(&file(name)) {
            let parsed = crate::parse_action(&SourceFile::new(file(name), text));
            return Some(match parsed.action {
                Some(action) => LocalAction::File(Box::new(action)),
                None => LocalAction::Undescribed,
            });
        }
    }
    Some(match read(&file("Dockerfile")) {
        Some(_) => LocalAction::Undescribed,
        None => LocalAction::Missing,
    })
}

/// A job that calls a workflow of this repository, and the outputs that other jobs use.
fn check_call(
    subject: &LintSubject<'_>,
    workflow: &Workflow,
    (id, node): (&str, &YamlNode),
    read: ReadFile<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(job) = workflow.job(id) else { return };
    let (Some(call), Some(uses)) = (&job.calls, node.get("uses")) else {
        return;
    };
    let Some(path) = own_repository_path(&call.workflow) else {
        return;
    };
    let mut error =
        |span: Span, message: String| found.push(Diagnostic::error(CALL, span, message));
    if let Err(why) = WorkflowLocation::parse(path) {
        return error(uses.span, format!("{path} can't be called: {why}"));
    }
    let Some(text) = read(path) else {
        return error(uses.span, format!("no such file: {path}"));
    };
    // Its own mistakes are reported separately.
    let Some(called) = crate::parse(&SourceFile::new(path, text)).workflow else {
        return;
    };
    let Some(asked) = &called.on.workflow_call else {
        let message = format!("{path} can't be called: add `workflow_call` to its `on`");
        return error(uses.span, message);
    };
    for CallMistake { key, message } in call_mistakes(job, call, path, asked) {
        let key = key.and_then(|(section, name)| key_span(node.get(section)?, &name));
        error(key.unwrap_or(uses.span), message);
    }
    let outputs: Vec<&str> = asked
        .outputs
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for (scalar, expr) in subject.exprs(subject.tree) {
        for used in expr.paths() {
            let [context, job, part, output, ..] = used.names.as_slice() else {
                continue;
            };
            let is_it = matches!(context.as_str(), "needs" | "jobs")
                && job.eq_ignore_ascii_case(id)
                && part == "outputs"
                && output != "*";
            if is_it && !contains(&outputs, output) {
                let message = format!("{path}, which `{id}` calls, has no output `{output}`");
                let span = subject.span_within(scalar, used.at.clone());
                let help = suggestion(output, &outputs);
                found.push(Diagnostic::warning(CALL, span, message).help(help));
            }
        }
    }
}

/// The steps of a job, or of a composite action.
fn check_steps(
    subject: &LintSubject<'_>,
    scope: &YamlNode,
    read: ReadFile<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let steps = scope.get("steps").and_then(YamlNode::as_sequence);
    let mut brings_files = false;
    for step in steps.unwrap_or_default() {
        let Some(uses) = step.get("uses") else {
            continue;
        };
        let name = uses.as_str().unwrap_or_default();
        brings_files |= checks_out_elsewhere(step, name);
        match local_action(name, read) {
            // Another repository that was checked out may hold it.
            Some(LocalAction::Missing) if !brings_files => {
                let message = format!("there is no action in {name}");
                let help = "an action is a folder with an action.yml or a Dockerfile";
                found.push(Diagnostic::warning(ACTION, uses.span, message).help(help));
            }
            Some(LocalAction::File(action)) => {
                check_inputs(step, uses, &action, found);
                if let Some(id) = step.get("id").and_then(YamlNode::as_str) {
                    check_outputs(subject, scope, (id, name), &action, found);
                }
            }
            Some(LocalAction::Missing | LocalAction::Undescribed) | None => {}
        }
    }
}

/// Whether a step checks out another repository, or into another folder.
fn checks_out_elsewhere(step: &YamlNode, uses: &str) -> bool {
    let with = step.get("with");
    let has = |key: &str| with.is_some_and(|with| with.get(key).is_some());
    uses.to_ascii_lowercase().starts_with("actions/checkout@") && (has("path") || has("repository"))
}

fn check_inputs(
    step: &YamlNode,
    uses: &YamlNode,
    action: &ActionFile,
    found: &mut Vec<Diagnostic>,
) {
    let name = uses.as_str().unwrap_or_default();
    let with = step.get("with");
    let given = match with {
        None => &[],
        Some(node) => match node.as_mapping() {
            Some(entries) => entries,
            // An expression gives them.
            None => return,
        },
    };
    let known: Vec<&str> = action.inputs.iter().map(|it| it.name.as_str()).collect();
    let is_docker = matches!(action.runs, ActionRuns::Docker { .. });
    for (key, _) in given {
        let is_own = is_docker && matches!(key.text.as_str(), "entrypoint" | "args");
        if !is_own && !contains(&known, &key.text) {
            let message = format!("the action {name} has no input `{}`", key.text);
            let help = suggestion(&key.text, &known);
            found.push(Diagnostic::warning(INPUT, key.span, message).help(help));
        }
    }
    for input in &action.inputs {
        let is_given = given
            .iter()
            .any(|(key, _)| key.text.eq_ignore_ascii_case(&input.name));
        if input.required && input.default.is_none() && !is_given {
            let input = &input.name;
            let message = format!("the action {name} requires the input `{input}`");
            let help = format!("add it: with: {{ {input}: … }}");
            found.push(Diagnostic::warning(INPUT, uses.span, message).help(help));
        }
    }
}

/// Outputs of a step that its action does not have. Only composite actions name all that they have.
fn check_outputs(
    subject: &LintSubject<'_>,
    scope: &YamlNode,
    (id, name): (&str, &str),
    action: &ActionFile,
    found: &mut Vec<Diagnostic>,
) {
    if !matches!(action.runs, ActionRuns::Composite { .. }) {
        return;
    }
    let known: Vec<&str> = action.outputs.iter().map(|it| it.name.as_str()).collect();
    for (scalar, expr) in subject.exprs(scope) {
        for used in expr.paths() {
            let [context, step, part, output, ..] = used.names.as_slice() else {
                continue;
            };
            let is_it = context == "steps"
                && step.eq_ignore_ascii_case(id)
                && part == "outputs"
                && output != "*";
            if is_it && !contains(&known, output) {
                let message = format!("the action {name} has no output `{output}`");
                let span = subject.span_within(scalar, used.at.clone());
                let help = suggestion(output, &known);
                found.push(Diagnostic::warning(OUTPUT, span, message).help(help));
            }
        }
    }
}

fn contains(known: &[&str], name: &str) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "it has none".to_owned(),
        None => format!("it has {}", join_with_and(known.iter().copied())),
    }
}

fn key_span(mapping: &YamlNode, name: &str) -> Option<Span> {
    let mut entries = mapping.as_mapping()?.iter();
    let (key, _) = entries.find(|(key, _)| key.text.eq_ignore_ascii_case(name))?;
    Some(key.span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 4] = [
        (
            ".github/workflows/build.yml",
            "on: { workflow_call: { inputs: { target: { type: string, required: true } }, secrets: { KEY: { required: true } }, outputs: { url: { value: x } } } }\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n",
        ),
        (
            ".github/workflows/plain.yml",
            "on: push\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n",
        ),
        (
            "tools/pack/action.yml",
            "name: pack\ndescription: x\ninputs: { folder: { required: true }, level: { required: true, default: '3' } }\noutputs: { file: { value: x } }\nruns: { using: composite, steps: [{ shell: sh, run: a }] }\n",
        ),
        ("tools/image/Dockerfile", "FROM scratch\n"),
    ];

    fn told(text: &str) -> Vec<String> {
        let source = SourceFile::new("w.yml", text);
        let read = |path: &str| {
            let mut files = FILES.iter();
            let found = files.find(|(known, _)| *known == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        let found = check_local(&source, &read);
        let line = |it: &Diagnostic| format!("[{}] {}", it.code, it.one_line(&source));
        found.iter().map(line).collect()
    }

    #[test]
    fn calls_are_compared_with_what_they_call() {
        let told = told(
            "on: push
jobs:
  good: { uses: ./.github/workflows/build.yml, with: { target: x }, secrets: inherit }
  bad: { uses: ./.github/workflows/build.yml, with: { targte: x } }
  plain: { uses: ./.github/workflows/plain.yml }
  gone: { uses: ./.github/workflows/gone.yml }
  away: { uses: o/r/.github/workflows/x.yml@v1, with: { any: 1 } }
  use:
    needs: [good]
    runs-on: x
    steps: [{ run: 'echo ${{ needs.good.outputs.url }} ${{ needs.good.outputs.uri }}' }]
",
        );
        assert_eq!(
            told,
            [
                "[local-call] w.yml:4:16: error: the job `bad` must give the input `target`, which .github/workflows/build.yml requires; add it to `with`",
                "[local-call] w.yml:4:16: error: the job `bad` must give the secret `KEY`, which .github/workflows/build.yml requires; add it to `secrets`, or write `secrets: inherit`",
                "[local-call] w.yml:4:55: error: .github/workflows/build.yml has no input `targte`; did you mean `target`?",
                "[local-call] w.yml:5:18: error: .github/workflows/plain.yml can't be called: add `workflow_call` to its `on`",
                "[local-call] w.yml:6:17: error: no such file: .github/workflows/gone.yml",
                "[local-call] w.yml:11:60: warning: .github/workflows/build.yml, which `good` calls, has no output `uri`; did you mean `url`?",
            ]
        );
    }

    #[test]
    fn local_actions_are_compared_with_their_steps() {
        let told = told(
            "on: push
jobs:
  a:
    runs-on: x
    steps:
      - { id: good, uses: ./tools/pack, with: { folder: x } }
      - { id: bad, uses: ./tools/pack/, with: { foldre: x } }
      - { uses: ./tools/image, with: { args: x } }
      - { uses: ./tools/gone }
      - run: echo ${{ steps.good.outputs.file }} ${{ steps.bad.outputs.fiel }}
  b:
    runs-on: x
    steps:
      - { uses: actions/checkout@v4, with: { repository: o/r, path: tools } }
      - { uses: ./tools/gone }
",
        );
        assert_eq!(
            told,
            [
                "[action-input] w.yml:7:26: warning: the action ./tools/pack/ requires the input `folder`; add it: with: { folder: … }",
                "[action-input] w.yml:7:49: warning: the action ./tools/pack/ has no input `foldre`; did you mean `folder`?",
                "[local-action] w.yml:9:17: warning: there is no action in ./tools/gone; an action is a folder with an action.yml or a Dockerfile",
                "[action-output] w.yml:10:54: warning: the action ./tools/pack/ has no output `fiel`; did you mean `file`?",
            ]
        );
    }
}
