//! What holds for the keys of every mapping: GitHub takes two that differ only in case for one said twice, and a key
//! without a value is a mistake wherever a text wouldn't do.

use std::collections::BTreeMap;

use shipway_syntax::{YamlNode, YamlValue as Yaml};

use super::reader::WorkflowReader;

/// Reports keys that differ only in case, and names that are expressions.
pub(super) fn check(reader: &mut WorkflowReader<'_>, node: &YamlNode) {
    match &node.value {
        Yaml::Sequence(items) => items.iter().for_each(|item| check(reader, item)),
        Yaml::Mapping(entries) => {
            let mut seen = BTreeMap::new();
            for (key, node) in entries {
                if key.text.contains("${{") {
                    reader.error_with_help(
                        "unsupported",
                        key.span,
                        format!("the name `{}` is an expression, which Shipway can't read", key.text),
                        "write the names out, or give the whole mapping as one expression: ${{ fromJSON(…) }}",
                    );
                } else if let Some(other) = seen.insert(key.text.to_uppercase(), &key.text) {
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
