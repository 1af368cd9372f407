//! Background steps, and steps that wait for them or cancel them: `background`, `wait`, `wait-all`, `cancel`, and
//! `parallel`, which is steps in the background and a wait for them.

use std::collections::BTreeSet;

use shipway_syntax::{YamlNode, YamlValue as Yaml};

use super::reader::WorkflowReader;
use crate::{
    expr::{ExprSite, IfCondition},
    model::{DeferredSetting, StepAction, WorkflowStep},
};

/// What makes a step one that only waits or ends.
const CONTROLS: [&str; 3] = ["wait", "wait-all", "cancel"];
const KEYS: [&str; 6] = [
    "id",
    "name",
    "wait",
    "wait-all",
    "cancel",
    "continue-on-error",
];

/// Whether the step only waits for others, or ends one.
pub(super) fn is_control(node: &YamlNode) -> bool {
    has(node, &CONTROLS)
}

/// The steps of a group that run at once.
pub(super) fn parallel<'n>(
    reader: &mut WorkflowReader<'_>,
    node: &'n YamlNode,
) -> Option<&'n [YamlNode]> {
    if !has(node, &["parallel"]) {
        return None;
    }
    let fields = reader.fields(node, "the group", &["parallel"]);
    let group = fields.and_then(|fields| fields.get("parallel"))?;
    let steps = group.as_sequence().filter(|steps| !steps.is_empty());
    if steps.is_none() {
        reader.wrong_type(group, "parallel", "a list of steps");
    }
    for step in steps.unwrap_or_default() {
        if has(step, &["parallel"]) || is_control(step) {
            let help = "each step of the group has `run` or `uses`";
            reader.error_with_help("conflict", step.span, "this can't be used in a group", help);
        }
    }
    steps
}

/// `background:`
pub(super) fn background(reader: &mut WorkflowReader<'_>, node: Option<&YamlNode>) -> bool {
    match node.map(|node| (node, &node.value)) {
        None => false,
        Some((_, Yaml::Bool(value))) => *value,
        Some((node, _)) => {
            reader.wrong_type(node, "background", "true or false");
            false
        }
    }
}

/// A step that waits for those in the background, `known` by their ids in lower case, or ends one.
pub(super) fn control(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    known: &BTreeSet<String>,
) -> Option<WorkflowStep> {
    if let Some(condition) = node.get("if") {
        let help = "it always runs; remove `if`";
        reader.error_with_help(
            "conflict",
            condition.span,
            "a step that waits for or cancels other steps can't have `if`",
            help,
        );
        return None;
    }
    let fields = reader.fields(node, "the step", &KEYS)?;
    let which: Vec<&str> = CONTROLS
        .into_iter()
        .filter(|key| has(node, &[key]))
        .collect();
    if let [_, more, ..] = which.as_slice() {
        let message = format!("a step can't have both `{}` and `{more}`", which[0]);
        reader.error("conflict", node.span, message);
        return None;
    }
    let action = match (fields.get("wait"), fields.get("cancel")) {
        (Some(node), _) => StepAction::Wait {
            ids: ids(reader, node, "wait", known),
        },
        (None, Some(node)) => {
            let mut ids = ids(reader, node, "cancel", known);
            if ids.len() > 1 {
                reader.wrong_type(node, "cancel", "the id of one step");
            }
            StepAction::Cancel { id: ids.pop()? }
        }
        (None, None) => StepAction::WaitAll,
    };
    if let Some(node) = fields.get("wait-all")
        && !matches!(node.value, Yaml::Null | Yaml::Bool(true))
    {
        reader.wrong_type(node, "wait-all", "empty");
    }
    let text = |key: &str| fields.get(key).and_then(YamlNode::as_scalar_text);
    let continue_on_error = fields.get("continue-on-error");
    Some(WorkflowStep {
        id: text("id").unwrap_or_default().to_owned(),
        at: reader.position(node.span),
        name: fields
            .get("name")
            .and_then(|node| reader.template(node, "name", ExprSite::Step)),
        continue_on_error: continue_on_error.map_or_else(DeferredSetting::default, |node| {
            reader.truth(node, "continue-on-error", ExprSite::Step)
        }),
        ..waiting(action)
    })
}

/// The step after a group, which waits for all in it.
pub(super) fn wait_for(
    reader: &WorkflowReader<'_>,
    node: &YamlNode,
    ids: Vec<String>,
) -> WorkflowStep {
    WorkflowStep {
        at: reader.position(node.span),
        ..waiting(StepAction::Wait { ids })
    }
}

fn waiting(action: StepAction) -> WorkflowStep {
    WorkflowStep {
        id: String::new(),
        at: crate::model::FilePosition::default(),
        name: None,
        if_: IfCondition::parse("always()", 0).unwrap_or_default(),
        action,
        env: crate::model::TemplateTable::default(),
        continue_on_error: DeferredSetting::default(),
        timeout_minutes: None,
        background: false,
    }
}

fn ids(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    what: &str,
    known: &BTreeSet<String>,
) -> Vec<String> {
    let mut ids = Vec::new();
    for (node, id) in reader.plain_list(node, what) {
        if known.contains(&id.to_ascii_lowercase()) {
            ids.push(id);
        } else {
            let help = "give a step before this one `background: true` and this id";
            reader.error_with_help(
                "unknown-step",
                node.span,
                format!("no step `{id}` runs in the background here"),
                help,
            );
        }
    }
    ids
}

fn has(node: &YamlNode, keys: &[&str]) -> bool {
    let entries = node.as_mapping().unwrap_or_default().iter();
    entries
        .map(|(key, _)| key.text.as_str())
        .any(|key| keys.contains(&key))
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use crate::{ParsedWorkflow, model::StepAction, parse};

    fn steps(steps: &str) -> (ParsedWorkflow, Vec<String>) {
        let text = format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}");
        let source = SourceFile::new("w.yml", text);
        let parsed = parse(&source);
        let lines = parsed.diagnostics.iter().map(|it| it.one_line(&source));
        let lines = lines.collect();
        (parsed, lines)
    }

    #[test]
    fn steps_run_beside_others_and_are_waited_for() {
        let (parsed, problems) = steps(
            "      - { id: s, run: serve, background: true }\n      - parallel:\n          - { run: a }\n          - { id: b, uses: ./b }\n      - { name: N, wait: [s, B] }\n      - { cancel: s }\n      - wait-all:\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let steps = &parsed.workflow.unwrap().jobs[0].steps;
        let ids: Vec<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "s",
                "__run",
                "b",
                "__wait",
                "__wait_2",
                "__cancel",
                "__wait-all"
            ]
        );
        assert!(steps[..3].iter().all(|step| step.background));
        let StepAction::Wait { ids } = &steps[3].action else {
            panic!("{:?}", steps[3]);
        };
        assert_eq!(ids, &["__run", "b"]);
        assert_eq!(steps[3].title(), "Wait for __run, b");
        assert_eq!(steps[6].title(), "Wait for all background steps");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, expected) in [
            (
                "      - { wait: x }",
                "no step `x` runs in the background here",
            ),
            (
                "      - { id: x, run: a }\n      - { cancel: x }",
                "no step `x` runs in the background here",
            ),
            (
                "      - { id: x, run: a, background: true }\n      - { cancel: x, if: always() }",
                "can't have `if`",
            ),
            ("      - { wait-all: 3 }", "`wait-all` must be empty"),
            ("      - { wait-all: , run: x }", "run"),
            (
                "      - { run: a, background: yes please }",
                "true or false",
            ),
            (
                "      - { parallel: [{ wait-all: }] }",
                "can't be used in a group",
            ),
            ("      - { parallel: [] }", "a list of steps"),
        ] {
            let (parsed, problems) = steps(text);
            assert!(parsed.workflow.is_none(), "{text}");
            assert!(
                problems.iter().any(|it| it.contains(expected)),
                "{text}: {problems:?}"
            );
        }
    }
}
