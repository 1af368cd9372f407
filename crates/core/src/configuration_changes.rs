//! The difference of two configurations, key by key.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{EnvironmentConfig, RunConfig, ServiceConfig},
    duration_text::DurationText,
};

/// A key of `shipway.yaml` whose value differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigurationChange {
    /// `environments.production.instances`
    pub path: String,
    /// As JSON; none where the key is new.
    pub before: Option<String>,
    /// As JSON; none where the key is gone.
    pub after: Option<String>,
}

/// The keys that differ, in order.
#[must_use]
pub fn compare_configurations(
    before: &ServiceConfig,
    after: &ServiceConfig,
) -> Vec<ConfigurationChange> {
    let (before, after) = (leaves(before), leaves(after));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let differing = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path));
    differing
        .map(|path| ConfigurationChange {
            path: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect()
}

/// A key of `shipway.yaml` with its value, which may be a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredValue {
    /// `run.command`
    pub path: String,
    /// As JSON; durations as people read them.
    pub value: String,
}

/// The values that hold in an environment, in order of their keys.
#[must_use]
pub fn configured_values(run: &RunConfig, environment: &EnvironmentConfig) -> Vec<ConfiguredValue> {
    let mut found = BTreeMap::new();
    let run = serde_json::to_value(run).expect("a configuration is plain data");
    let environment = serde_json::to_value(environment).expect("a configuration is plain data");
    add_leaves("run".to_owned(), &with_duration_texts(run), &mut found);
    add_leaves(String::new(), &with_duration_texts(environment), &mut found);
    let values = found.into_iter();
    values
        .map(|(path, value)| ConfiguredValue { path, value })
        .collect()
}

/// The same with durations as text.
fn with_duration_texts(value: Value) -> Value {
    match value {
        Value::Object(fields) => match serde_json::from_value::<Duration>(fields.clone().into()) {
            Ok(duration) if fields.len() == 2 => DurationText(duration).to_string().into(),
            _ => {
                let fields = fields.into_iter();
                fields
                    .map(|(key, value)| (key, with_duration_texts(value)))
                    .collect()
            }
        },
        Value::Array(items) => items.into_iter().map(with_duration_texts).collect(),
        other => other,
    }
}

/// The values below a configuration by their path.
fn leaves(config: &ServiceConfig) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let document = serde_json::to_value(config).expect("a configuration is plain data");
    add_leaves(String::new(), &document, &mut found);
    found
}

fn add_leaves(path: String, value: &Value, found: &mut BTreeMap<String, String>) {
    let below = |key: &str| match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                add_leaves(below(key), value, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                // An environment that moves to another place in the list is still the same.
                let name = item.get("name").and_then(Value::as_str).map(str::to_owned);
                add_leaves(
                    below(&name.unwrap_or_else(|| index.to_string())),
                    item,
                    found,
                );
            }
        }
        Value::Null => {}
        _ => drop(found.insert(path, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use super::*;
    use crate::config;

    fn parse(text: &str) -> ServiceConfig {
        let parsed = config::parse(&SourceFile::new("shipway.yaml", text));
        parsed.unwrap().0
    }

    #[test]
    fn a_change_names_its_key_with_both_values_and_equal_keys_are_left_out() {
        let text = "service: shop\nrun: { command: ./shop }\nenvironments: { staging: {}, production: { instances: 2 } }\n";
        let before = parse(text);
        assert_eq!(compare_configurations(&before, &before), []);
        let after = parse(
            &text
                .replace("instances: 2", "instances: 3")
                .replace("./shop", "./shop2"),
        );
        let changes = compare_configurations(&before, &after);
        let instances = changes
            .iter()
            .find(|change| change.path == "environments.production.instances")
            .unwrap();
        assert_eq!(instances.before.as_deref(), Some("2"));
        assert_eq!(instances.after.as_deref(), Some("3"));
        assert!(
            changes
                .iter()
                .all(|change| !change.path.contains("staging")),
            "{changes:?}"
        );
    }

    #[test]
    fn the_values_of_an_environment_are_listed_with_defaults_and_durations_as_text() {
        let config = parse(
            "service: shop\nrun: { command: ./shop }\nenvironments: { production: { instances: 2, drain: 90s } }\n",
        );
        let values = configured_values(&config.run, &config.environments[0]);
        for (path, value) in [
            ("instances", "2"),
            ("drain", "\"1 min 30 s\""),
            ("run.command", "\"./shop\""),
            ("when_busy", "\"supersede\""),
        ] {
            let known = values.iter().find(|it| it.path == path);
            assert_eq!(known.map(|it| it.value.as_str()), Some(value), "{path}");
        }
    }

    #[test]
    fn an_environment_that_is_added_has_no_value_before() {
        let before =
            parse("service: shop\nrun: { command: ./shop }\nenvironments: { production: {} }\n");
        let after = parse(
            "service: shop\nrun: { command: ./shop }\nenvironments: { staging: {}, production: {} }\n",
        );
        let changes = compare_configurations(&before, &after);
        assert!(!changes.is_empty());
        for change in changes {
            assert!(
                change.path.starts_with("environments.staging."),
                "{change:?}"
            );
            assert_eq!(change.before, None);
        }
    }
}
