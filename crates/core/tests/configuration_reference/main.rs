//! docs/configuration.md is generated from the schema of `shipway.yaml`, and its examples are read by the parser.
//!
//! `UPDATE_DOCS=1 cargo test -p shipway-core --test configuration_reference` writes the page.

#![allow(
    clippy::disallowed_methods,
    reason = "the test compares a file of the repository"
)]

use std::{fmt::Write, fs, path::Path};

use serde_json::Value;
use shipway_core::config::{parse, schema};
use shipway_syntax::SourceFile;

mod sections;

use sections::{SECTIONS, Section};

/// Keys of the schema that the parser refuses as not supported yet.
const NOT_SUPPORTED: &[&str] = &["image"];

const HEAD: &str = "# Configuration reference

Generated from the JSON Schema of `shipway.yaml` (`shipway schema`, `/schema/shipway.json`) by a test
(`UPDATE_DOCS=1 cargo test -p shipway-core --test configuration_reference`), which also reads every example. `shipway check` reports errors in a file.

Durations are written `250ms`, `2s`, `5m`, `1h30m`; shares `5%`; memory `512MiB`. `$NAME` is a [secret](secrets.md).
";

fn file_with(section: &Section, example: &str) -> String {
    let mut text = section.around.replace('@', example);
    for (key, line) in [
        ("service:", "service: shop"),
        ("run:", "run: { command: ./shop }"),
        ("environments:", "environments: { production: {} }"),
    ] {
        if !text.lines().any(|it| it.starts_with(key)) {
            text = format!("{text}\n{line}");
        }
    }
    text
}

fn default_text(key: &Value) -> String {
    match (&key["default"], &key["x-default"]) {
        (Value::Null, Value::String(text)) => text.replace('|', "\\|"),
        (Value::Null, _) => String::new(),
        (Value::String(text), _) => format!("`{text}`"),
        (value, _) => format!("`{value}`"),
    }
}

fn row(section: &Section, schema: &Value, name: &str, key: &Value) -> String {
    let resolved = key["$ref"]
        .as_str()
        .and_then(|it| schema.pointer(it.trim_start_matches('#')));
    let description = key["description"]
        .as_str()
        .or_else(|| resolved.and_then(|it| it["description"].as_str()))
        .unwrap_or_else(|| panic!("{} {name} has no description", section.title));
    let example = section.examples.iter().find(|(key, _)| *key == name);
    let (_, example) = example.unwrap_or_else(|| panic!("{} {name} has no example", section.title));
    let words: Vec<_> = key["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let words = match words[..] {
        [] => String::new(),
        _ => format!(" One of `{}`.", words.join("`, `")),
    };
    format!(
        "| `{name}` | {}{words} | {} | `{}` |\n",
        description.replace('|', "\\|"),
        default_text(key),
        example.replace('|', "\\|")
    )
}

fn reference() -> String {
    let schema = schema();
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(page, "\n## {}\n\n", section.title);
        if !section.intro.is_empty() {
            let _ = write!(page, "{}\n\n", section.intro);
        }
        page += "| key | meaning | default | example |\n|---|---|---|---|\n";
        let mapping = schema
            .pointer(section.pointer)
            .unwrap_or_else(|| panic!("{}", section.pointer));
        let keys = mapping["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{}", section.pointer));
        for (name, _) in section.examples {
            let key = keys
                .get(*name)
                .unwrap_or_else(|| panic!("{} has no key {name}", section.title));
            page += &row(section, &schema, name, key);
        }
        let missing = keys
            .keys()
            .filter(|key| !NOT_SUPPORTED.contains(&key.as_str()));
        for name in missing {
            assert!(
                section.examples.iter().any(|(key, _)| key == name),
                "{} {name} is not on the page: add an example",
                section.title
            );
        }
    }
    page
}

#[test]
fn the_page_has_every_key_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == expected,
        "docs/configuration.md is stale: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn every_example_is_read_without_a_problem() {
    let mut refused = Vec::new();
    for section in SECTIONS {
        for (key, example) in section.examples {
            assert!(
                example.contains(key),
                "{} {key}: the example doesn't use it",
                section.title
            );
            let source = SourceFile::new("shipway.yaml", file_with(section, example));
            let problems = match parse(&source) {
                Ok((_, warnings)) => warnings,
                Err(errors) => errors,
            };
            for problem in problems {
                refused.push(format!(
                    "{} {key}: {example}: {}",
                    section.title, problem.message
                ));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Every mapping of the schema with a fixed set of keys has a section, or is described by one of its parent's examples.
#[test]
fn no_mapping_of_the_schema_is_forgotten() {
    let schema = schema();
    let mut pointers = Vec::new();
    collect_mappings(&schema, String::new(), &mut pointers);
    // A strategy by its word, and the conditions of `match`, are explained in the introductions of their sections.
    let explained = [
        "/strategy/oneOf/1",
        "/additionalProperties/oneOf/1",
        "/match/oneOf/1/items",
        "/match/oneOf/0/properties",
    ];
    pointers.retain(|it| {
        !explained.iter().any(|end| it.ends_with(end)) && !it.contains("/target/oneOf/1")
    });
    let missing: Vec<_> = pointers
        .iter()
        .filter(|pointer| !SECTIONS.iter().any(|section| section.pointer == **pointer))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn collect_mappings(node: &Value, at: String, found: &mut Vec<String>) {
    match node {
        Value::Object(keys) => {
            if keys.get("properties").is_some_and(Value::is_object)
                && keys.get("additionalProperties") == Some(&Value::Bool(false))
            {
                found.push(at.clone());
            }
            for (key, value) in keys {
                collect_mappings(value, format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect_mappings(value, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}
