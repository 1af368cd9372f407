//! What holds for the keys of every mapping: GitHub takes two that differ only in case for one said twice, and a key
//! without a value is a mistake wherever a text wouldn't do.

use std::collections::BTreeMap;

use shipway_syntax::{MappingFields, YamlNode, YamlValue as Yaml};

use super::reader::WorkflowReader;

/// Reports keys that differ only in case. Names that are expressions are compared when they are evaluated.
pub(super) fn check(reader: &mut WorkflowReader<'_>, node: &YamlNode) {
    match &node.value {
        Yaml::Sequence(items) => items.iter().for_each(|item| check(reader, item)),
        Yaml::Mapping(entries) => {
            let mut seen = BTreeMap::new();
            for (key, node) in entries {
                if key.text.contains("${{") {
                    check(reader, node);
                    continue;
                }
                if let Some(other) = seen.insert(key.text.to_uppercase(), &key.text) {
                    reader.error(
                        "duplicate-key",
                        key.span,
                        format!(
                            "`{}` is already defined, as `{other}`: case doesn't matter here",
                            key.text
                        ),
                    );
                }
                check(reader, node);
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Number { .. } | Yaml::String { .. } => {}
    }
}

/// Reports the keys of a mapping that have no value. Keys in `texts` may be empty, or are reported by their own parser.
pub(super) fn filled(reader: &mut WorkflowReader<'_>, node: &YamlNode, texts: &[&str]) {
    for (key, value) in node.as_mapping().unwrap_or_default() {
        if value.is_null() && !texts.contains(&key.text.as_str()) {
            reader.error_with_help(
                "empty",
                key.span,
                format!("`{}` has no value", key.text),
                "set one, or remove the key",
            );
        }
    }
}

/// The keys of an event of which GitHub ignores all but `known`; warns about those.
pub(super) fn ignore_others<'n>(
    reader: &mut WorkflowReader<'_>,
    node: &'n YamlNode,
    event: &'n str,
    known: &[&str],
) -> Option<MappingFields<'n>> {
    let entries = node.as_mapping().unwrap_or_default().iter();
    let ignored = entries.filter(|(key, _)| !known.contains(&key.text.as_str()));
    let ignored: Vec<_> = ignored.map(|(key, _)| key).collect();
    for key in &ignored {
        let help = match known {
            [] => format!("`{event}` has no filters: remove it"),
            known => format!("the keys here are {}", known.join(", ")),
        };
        let message = format!("`{}` has no effect on `{event}`, as at GitHub", key.text);
        reader.warn("ignored-key", key.span, message, help);
    }
    let ignored: Vec<&str> = ignored.into_iter().map(|key| key.text.as_str()).collect();
    let all = [known, &ignored].concat();
    MappingFields::read(node, event, &all, &mut reader.problems)
}
