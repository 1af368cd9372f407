//! `on:`

use shipway_syntax::{Fields, Key, Node, Span, Value as Yaml};

use super::reader::Reader;
use crate::{
    expr::{Place, Template, Value},
    job::is_identifier,
    model::{
        CallInput, Dispatch, Filter, Input, InputType, OtherEvent, PathFilter, Pattern,
        PushTrigger, RefFilter, Schedule, Triggers, WorkflowCall,
    },
};

/// The events that Shipway keeps and doesn't raise, with the keys that each may have.
const OTHERS: [(&str, &[&str]); 32] = [
    ("branch_protection_rule", &["types"]),
    ("check_run", &["types"]),
    ("check_suite", &["types"]),
    ("create", &[]),
    ("delete", &[]),
    ("deployment", &[]),
    ("deployment_status", &[]),
    ("discussion", &["types"]),
    ("discussion_comment", &["types"]),
    ("fork", &[]),
    ("gollum", &[]),
    ("image_version", &["types", "names", "versions"]),
    ("issue_comment", &["types"]),
    ("issues", &["types"]),
    ("label", &["types"]),
    ("merge_group", &["types", "branches", "branches-ignore"]),
    ("milestone", &["types"]),
    ("page_build", &[]),
    ("project", &["types"]),
    ("project_card", &["types"]),
    ("project_column", &["types"]),
    ("public", &[]),
    (
        "pull_request",
        &[
            "types",
            "branches",
            "branches-ignore",
            "paths",
            "paths-ignore",
        ],
    ),
    ("pull_request_review", &["types"]),
    ("pull_request_review_comment", &["types"]),
    (
        "pull_request_target",
        &[
            "types",
            "branches",
            "branches-ignore",
            "paths",
            "paths-ignore",
        ],
    ),
    ("registry_package", &["types"]),
    ("release", &["types"]),
    ("repository_dispatch", &["types"]),
    ("status", &[]),
    ("watch", &["types"]),
    (
        "workflow_run",
        &["types", "workflows", "branches", "branches-ignore"],
    ),
];

const OURS: [&str; 4] = ["push", "workflow_dispatch", "workflow_call", "schedule"];

/// A name, a list of names, or a mapping of names to what is asked of them.
pub(super) fn triggers(reader: &mut Reader<'_>, node: &Node) -> Triggers {
    let mut triggers = Triggers::default();
    match &node.value {
        Yaml::Mapping(entries) => {
            for (key, node) in entries {
                event(
                    reader,
                    &mut triggers,
                    &key.text,
                    key.span,
                    Some(node).filter(|node| !node.is_null()),
                );
            }
        }
        Yaml::Sequence(items) => {
            for item in items {
                if let Some(name) = reader.plain(item, "on") {
                    event(reader, &mut triggers, &name, item.span, None);
                }
            }
        }
        _ => {
            if let Some(name) = reader.plain(node, "on") {
                event(reader, &mut triggers, &name, node.span, None);
            }
        }
    }
    triggers
}

fn event(
    reader: &mut Reader<'_>,
    triggers: &mut Triggers,
    name: &str,
    span: Span,
    node: Option<&Node>,
) {
    match name {
        "push" => {
            triggers.push = Some(node.map_or_else(PushTrigger::default, |node| push(reader, node)))
        }
        "workflow_dispatch" => {
            triggers.workflow_dispatch =
                Some(node.map_or_else(Dispatch::default, |node| dispatch(reader, node)))
        }
        "workflow_call" => {
            triggers.workflow_call =
                Some(node.map_or_else(WorkflowCall::default, |node| call(reader, node)))
        }
        "schedule" => match node {
            Some(node) => triggers.schedule = schedule(reader, node),
            None => reader.error_with_help(
                "missing-key",
                span,
                "`schedule` has no times",
                "write `schedule: [{ cron: '30 5 * * 1-5' }]`",
            ),
        },
        _ => match OTHERS.iter().find(|(known, _)| *known == name) {
            Some((name, keys)) => triggers.others.push(other(reader, name, keys, node)),
            None => {
                let known = OURS
                    .iter()
                    .copied()
                    .chain(OTHERS.iter().map(|(name, _)| *name));
                let help = match shipway_syntax::nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "the usual ones are `push`, `pull_request`, `workflow_dispatch` and `schedule`".to_owned(),
                };
                reader.error_with_help(
                    "unknown-event",
                    span,
                    format!("unknown event `{name}`"),
                    help,
                );
            }
        },
    }
}

fn push(reader: &mut Reader<'_>, node: &Node) -> PushTrigger {
    let keys = [
        "branches",
        "branches-ignore",
        "tags",
        "tags-ignore",
        "paths",
        "paths-ignore",
    ];
    let Some(fields) = reader.fields(node, "push", &keys) else {
        return PushTrigger::default();
    };
    PushTrigger {
        refs: RefFilter {
            branches: filter(reader, &fields, "branches", "branches-ignore"),
            tags: filter(reader, &fields, "tags", "tags-ignore"),
        },
        paths: filter(reader, &fields, "paths", "paths-ignore").map(PathFilter),
    }
}

fn other(reader: &mut Reader<'_>, name: &str, keys: &[&str], node: Option<&Node>) -> OtherEvent {
    let mut event = OtherEvent {
        name: name.to_owned(),
        types: Vec::new(),
        branches: None,
        paths: None,
        workflows: Vec::new(),
    };
    let Some(fields) = node.and_then(|node| Fields::of(node, name, keys, &mut reader.problems))
    else {
        return event;
    };
    let words = |reader: &mut Reader<'_>, key: &str| match fields.get(key) {
        Some(node) => reader
            .words(node, key)
            .into_iter()
            .map(|(_, word)| word)
            .collect(),
        None => Vec::new(),
    };
    event.types = words(reader, "types");
    event.workflows = words(reader, "workflows");
    event.branches = filter(reader, &fields, "branches", "branches-ignore");
    event.paths = filter(reader, &fields, "paths", "paths-ignore").map(PathFilter);
    event
}

/// `branches` or `branches-ignore`, and so on; not both.
fn filter(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    only: &str,
    ignore: &str,
) -> Option<Filter> {
    match (fields.get(only), fields.get(ignore)) {
        (None, None) => None,
        (Some(_), Some(both)) => {
            let help = format!(
                "use `{only}` alone: a pattern with `!` before it takes back what those before it took"
            );
            reader.error_with_help(
                "conflict",
                both.span,
                format!("`{only}` and `{ignore}` can't be used together"),
                help,
            );
            None
        }
        (Some(node), None) => {
            let patterns = patterns(reader, node, only);
            if !patterns.is_empty() && patterns.iter().all(|pattern| pattern.negated) {
                let help = "put a pattern without `!` before them, such as '**'";
                reader.warn(
                    "never-matches",
                    node.span,
                    format!("only patterns with `!` in `{only}`: they take nothing"),
                    help,
                );
            }
            Some(Filter::Only(patterns))
        }
        (None, Some(node)) => Some(Filter::Ignore(patterns(reader, node, ignore))),
    }
}

fn patterns(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (node, word) in reader.words(node, what) {
        match word.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => reader.error("pattern", node.span, format!("in `{what}`: {error}")),
        }
    }
    patterns
}

fn schedule(reader: &mut Reader<'_>, node: &Node) -> Vec<Schedule> {
    let Some(items) = node.as_sequence() else {
        reader.wrong_type(node, "schedule", "a list of `cron` lines");
        return Vec::new();
    };
    let mut lines = Vec::new();
    for item in items {
        let Some(fields) = reader.fields(item, "schedule", &["cron", "timezone"]) else {
            continue;
        };
        let Some(node) = fields.require("cron", &mut reader.problems) else {
            continue;
        };
        let Some(cron) = reader.plain(node, "cron") else {
            continue;
        };
        if cron.split_whitespace().count() != 5 {
            let help = "minute, hour, day of the month, month, day of the week: '30 5 * * 1-5'";
            reader.error_with_help(
                "cron",
                node.span,
                format!("`{cron}` has not five fields"),
                help,
            );
            continue;
        }
        let timezone = fields
            .get("timezone")
            .and_then(|node| reader.plain(node, "timezone"));
        lines.push(Schedule { cron, timezone });
    }
    lines
}

fn dispatch(reader: &mut Reader<'_>, node: &Node) -> Dispatch {
    let Some(fields) = reader.fields(node, "workflow_dispatch", &["inputs"]) else {
        return Dispatch::default();
    };
    let mut inputs = Vec::new();
    for (key, node) in named(reader, fields.get("inputs"), "inputs") {
        let what = format!("the input `{}`", key.text);
        let Some(fields) = Fields::of(
            node,
            &what,
            &[
                "description",
                "type",
                "required",
                "default",
                "options",
                "deprecationMessage",
            ],
            &mut reader.problems,
        ) else {
            continue;
        };
        let kinds = [
            ("string", InputType::String),
            ("boolean", InputType::Boolean),
            ("number", InputType::Number),
            ("choice", InputType::Choice),
            ("environment", InputType::Environment),
        ];
        let kind = input_type(reader, fields.get("type"), &kinds);
        let options = fields
            .strings("options", &mut reader.problems)
            .into_iter()
            .map(|option| option.value)
            .collect::<Vec<_>>();
        if kind == InputType::Choice && options.is_empty() {
            reader.error_with_help(
                "missing-key",
                key.span,
                format!("{what} is a choice without `options`"),
                "list them under `options:`",
            );
        }
        let input = Input {
            description: fields
                .get("description")
                .and_then(|node| reader.plain(node, "description")),
            kind,
            required: fields
                .bool("required", &mut reader.problems)
                .unwrap_or_default(),
            default: fields
                .get("default")
                .and_then(|node| default(reader, node, kind, &options)),
            options,
        };
        inputs.push((key.text.clone(), input));
    }
    Dispatch { inputs }
}

fn default(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: InputType,
    options: &[String],
) -> Option<Value> {
    let text = reader.plain(node, "default")?;
    match (kind, &node.value) {
        (InputType::Boolean, Yaml::Bool(value)) => Some(Value::Bool(*value)),
        (InputType::Boolean, _) if text == "true" || text == "false" => {
            Some(Value::Bool(text == "true"))
        }
        (InputType::Boolean, _) => {
            reader.wrong_type(node, "default", "true or false");
            None
        }
        (InputType::Number, Yaml::Number { number, .. }) => Some(Value::Number(*number)),
        (InputType::Number, _) => {
            reader.wrong_type(node, "default", "a number");
            None
        }
        (InputType::Choice, _) if !options.contains(&text) => {
            let known: Vec<&str> = options.iter().map(String::as_str).collect();
            reader.unknown_word(node, "default", &text, &known);
            None
        }
        (InputType::String | InputType::Choice | InputType::Environment, _) => {
            Some(Value::from(text))
        }
    }
}

fn input_type(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    kinds: &[(&str, InputType)],
) -> InputType {
    let Some(node) = node else {
        return InputType::String;
    };
    let Some(word) = reader.plain(node, "type") else {
        return InputType::String;
    };
    kinds
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, kind)| *kind)
        .unwrap_or_else(|| {
            let known: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
            reader.unknown_word(node, "type", &word, &known);
            InputType::String
        })
}

/// The entries of a mapping whose keys are identifiers.
fn named<'n>(
    reader: &mut Reader<'_>,
    node: Option<&'n Node>,
    what: &str,
) -> Vec<(&'n Key, &'n Node)> {
    let Some(node) = node else { return Vec::new() };
    let Some(entries) = node.as_mapping() else {
        reader.wrong_type(node, what, "a mapping by name");
        return Vec::new();
    };
    for (key, _) in entries.iter().filter(|(key, _)| !is_identifier(&key.text)) {
        reader.error_with_help(
            "name",
            key.span,
            format!("`{}` can't be a name in `{what}`", key.text),
            "names begin with a letter or _ and hold letters, digits, - and _",
        );
    }
    entries.iter().map(|(key, node)| (key, node)).collect()
}

fn call(reader: &mut Reader<'_>, node: &Node) -> WorkflowCall {
    let Some(fields) = reader.fields(node, "workflow_call", &["inputs", "secrets", "outputs"])
    else {
        return WorkflowCall::default();
    };
    WorkflowCall {
        inputs: call_inputs(reader, fields.get("inputs")),
        secrets: call_secrets(reader, fields.get("secrets")),
        outputs: call_outputs(reader, fields.get("outputs")),
    }
}

fn call_inputs(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<(String, CallInput)> {
    let kinds = [
        ("string", InputType::String),
        ("boolean", InputType::Boolean),
        ("number", InputType::Number),
    ];
    let keys = [
        "description",
        "type",
        "required",
        "default",
        "deprecationMessage",
    ];
    let mut inputs = Vec::new();
    for (key, node) in named(reader, node, "inputs") {
        let what = format!("the input `{}`", key.text);
        let Some(fields) = Fields::of(node, &what, &keys, &mut reader.problems) else {
            continue;
        };
        fields.require("type", &mut reader.problems);
        let default = fields.get("default");
        let input = CallInput {
            kind: input_type(reader, fields.get("type"), &kinds),
            required: fields
                .bool("required", &mut reader.problems)
                .unwrap_or_default(),
            default: default.and_then(|node| reader.template(node, "default", Place::CallInput)),
        };
        inputs.push((key.text.clone(), input));
    }
    inputs
}

fn call_secrets(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<(String, bool)> {
    let mut secrets = Vec::new();
    for (key, node) in named(reader, node, "secrets") {
        let what = format!("the secret `{}`", key.text);
        let keys = ["description", "required"];
        let fields = Some(node)
            .filter(|node| !node.is_null())
            .and_then(|node| Fields::of(node, &what, &keys, &mut reader.problems));
        let required = fields.and_then(|fields| fields.bool("required", &mut reader.problems));
        secrets.push((key.text.clone(), required.unwrap_or_default()));
    }
    secrets
}

fn call_outputs(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<(String, Template)> {
    let mut outputs = Vec::new();
    for (key, node) in named(reader, node, "outputs") {
        let what = format!("the output `{}`", key.text);
        let Some(fields) = Fields::of(node, &what, &["description", "value"], &mut reader.problems)
        else {
            continue;
        };
        let value = fields.require("value", &mut reader.problems);
        let value = value.and_then(|node| reader.template(node, "value", Place::CallOutput));
        outputs.extend(value.map(|value| (key.text.clone(), value)));
    }
    outputs
}
