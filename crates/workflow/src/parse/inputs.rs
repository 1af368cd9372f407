//! `on.workflow_dispatch` and `on.workflow_call`: inputs, secrets and outputs.

use shipway_syntax::{MappingFields, YamlKey, YamlNode, YamlValue as Yaml};

use super::{keys, reader::WorkflowReader};
use crate::{
    expr::{ExprSite, ExprValue, Template},
    job::is_identifier,
    model::{CallInput, DispatchInput, DispatchTrigger, InputType, WorkflowCall},
};

/// GitHub asks for no more.
const INPUTS_MAX: usize = 25;

pub(super) fn dispatch(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> DispatchTrigger {
    let fields = keys::ignore_others(reader, node, "workflow_dispatch", &["inputs"]);
    let Some(fields) = fields else {
        return DispatchTrigger::default();
    };
    let entries = named(reader, fields.get("inputs"), "inputs");
    if let Some((key, _)) = entries.get(INPUTS_MAX) {
        reader.error(
            "too-many",
            key.span,
            format!(
                "a workflow may have at most {INPUTS_MAX} inputs, but this has {}",
                entries.len()
            ),
        );
    }
    let inputs = entries
        .into_iter()
        .filter_map(|(key, node)| Some((key.text.clone(), input(reader, key, node)?)))
        .collect();
    DispatchTrigger { inputs }
}

fn input(reader: &mut WorkflowReader<'_>, key: &YamlKey, node: &YamlNode) -> Option<DispatchInput> {
    // A name alone is a text that may be left out.
    if node.is_null() {
        return Some(DispatchInput {
            description: None,
            kind: InputType::String,
            required: false,
            default: None,
            options: Vec::new(),
        });
    }
    let what = format!("the input `{}`", key.text);
    let keys = [
        "description",
        "type",
        "required",
        "default",
        "options",
        "deprecationMessage",
    ];
    let fields = MappingFields::read(node, &what, &keys, &mut reader.problems)?;
    let kinds = [
        ("string", InputType::String),
        ("boolean", InputType::Boolean),
        ("number", InputType::Number),
        ("choice", InputType::Choice),
        ("environment", InputType::Environment),
    ];
    let kind = input_type(reader, fields.get("type"), &kinds);
    let options = options(reader, fields.get("options"));
    if kind == InputType::Choice && options.is_empty() {
        reader.error_with_help(
            "missing-key",
            key.span,
            format!("{what} is a choice without `options`"),
            "list them under `options:`",
        );
    }
    Some(DispatchInput {
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
    })
}

fn options(reader: &mut WorkflowReader<'_>, node: Option<&YamlNode>) -> Vec<String> {
    let Some(node) = node else { return Vec::new() };
    let Some(items) = node.as_sequence() else {
        reader.wrong_type(node, "options", "a list of strings");
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| reader.plain(item, "options"))
        .collect()
}

fn default(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    kind: InputType,
    options: &[String],
) -> Option<ExprValue> {
    let text = reader.plain(node, "default")?;
    match (kind, &node.value) {
        (InputType::Boolean, Yaml::Bool(value)) => Some(ExprValue::Bool(*value)),
        (InputType::Boolean, _) if text == "true" || text == "false" => {
            Some(ExprValue::Bool(text == "true"))
        }
        (InputType::Boolean, _) => {
            reader.wrong_type(node, "default", "true or false");
            None
        }
        (InputType::Number, Yaml::Number { number, .. }) => Some(ExprValue::Number(*number)),
        (InputType::Number, _) => {
            reader.wrong_type(node, "default", "a number");
            None
        }
        (InputType::Choice, _) if !options.contains(&text) => {
            let known: Vec<&str> = options.iter().map(String::as_str).collect();
            reader.unknown_value(node, "default", &text, &known);
            None
        }
        (InputType::String | InputType::Choice | InputType::Environment, _) => {
            Some(ExprValue::from(text))
        }
    }
}

fn input_type(
    reader: &mut WorkflowReader<'_>,
    node: Option<&YamlNode>,
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
            reader.unknown_value(node, "type", &word, &known);
            InputType::String
        })
}

/// The entries of a mapping whose keys are identifiers.
fn named<'n>(
    reader: &mut WorkflowReader<'_>,
    node: Option<&'n YamlNode>,
    what: &str,
) -> Vec<(&'n YamlKey, &'n YamlNode)> {
    let Some(node) = node else { return Vec::new() };
    let Some(entries) = node.as_mapping() else {
        reader.wrong_type(node, what, "a mapping by name");
        return Vec::new();
    };
    for (key, _) in entries.iter().filter(|(key, _)| !is_identifier(&key.text)) {
        reader.error_with_help(
            "name",
            key.span,
            format!("`{}` is not a valid name in `{what}`", key.text),
            "names start with a letter or _ and consist of letters, digits, - and _",
        );
    }
    entries.iter().map(|(key, node)| (key, node)).collect()
}

pub(super) fn call(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> WorkflowCall {
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

fn call_inputs(
    reader: &mut WorkflowReader<'_>,
    node: Option<&YamlNode>,
) -> Vec<(String, CallInput)> {
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
        let Some(fields) = MappingFields::read(node, &what, &keys, &mut reader.problems) else {
            continue;
        };
        fields.require("type", &mut reader.problems);
        let kind = input_type(reader, fields.get("type"), &kinds);
        let default = fields.get("default");
        let default = default.filter(|node| call_default(reader, node, kind));
        let input = CallInput {
            kind,
            required: fields
                .bool("required", &mut reader.problems)
                .unwrap_or_default(),
            default: default.and_then(|node| reader.template(node, "default", ExprSite::CallInput)),
        };
        inputs.push((key.text.clone(), input));
    }
    inputs
}

/// Whether a default can be what the input holds; an expression may be anything.
fn call_default(reader: &mut WorkflowReader<'_>, node: &YamlNode, kind: InputType) -> bool {
    let computed = node.as_str().is_some_and(|text| text.contains("${{"));
    let (fits, expected) = match kind {
        InputType::Boolean => (
            matches!(node.value, Yaml::Bool(_)),
            "true, false or an expression",
        ),
        InputType::Number => (
            matches!(node.value, Yaml::Number { .. }),
            "a number or an expression",
        ),
        InputType::String | InputType::Choice | InputType::Environment => {
            (node.as_scalar_text().is_some(), "a string")
        }
    };
    if !fits && !computed {
        reader.wrong_type(node, "default", expected);
    }
    fits || computed
}

fn call_secrets(reader: &mut WorkflowReader<'_>, node: Option<&YamlNode>) -> Vec<(String, bool)> {
    let mut secrets = Vec::new();
    for (key, node) in named(reader, node, "secrets") {
        let what = format!("the secret `{}`", key.text);
        let keys = ["description", "required"];
        let fields = Some(node)
            .filter(|node| !node.is_null())
            .and_then(|node| MappingFields::read(node, &what, &keys, &mut reader.problems));
        let required = fields.and_then(|fields| fields.bool("required", &mut reader.problems));
        secrets.push((key.text.clone(), required.unwrap_or_default()));
    }
    secrets
}

fn call_outputs(
    reader: &mut WorkflowReader<'_>,
    node: Option<&YamlNode>,
) -> Vec<(String, Template)> {
    let mut outputs = Vec::new();
    for (key, node) in named(reader, node, "outputs") {
        let what = format!("the output `{}`", key.text);
        let Some(fields) =
            MappingFields::read(node, &what, &["description", "value"], &mut reader.problems)
        else {
            continue;
        };
        let value = fields.require("value", &mut reader.problems);
        let value = value.and_then(|node| reader.template(node, "value", ExprSite::CallOutput));
        outputs.extend(value.map(|value| (key.text.clone(), value)));
    }
    outputs
}
