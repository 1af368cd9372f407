//! `strategy:`

use shipway_syntax::{YamlNode, YamlValue as Yaml};

use super::{
    keys,
    reader::{WorkflowReader, has_dynamic_key},
};
use crate::{
    expr::ExprSite,
    model::{DeferredSetting, JobMatrix, JobStrategy, TemplateTree},
};

pub(super) fn strategy(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<JobStrategy> {
    if node.as_str().is_some_and(|text| text.contains("${{")) {
        reader.error_with_help(
            "unsupported",
            node.span,
            "Shipway can't read a whole `strategy` from an expression",
            "write `strategy: { matrix: ${{ … }} }`",
        );
        return None;
    }
    keys::filled(reader, node, &[]);
    let fields = reader.fields(node, "strategy", &["matrix", "fail-fast", "max-parallel"])?;
    Some(JobStrategy {
        matrix: fields.get("matrix").and_then(|node| matrix(reader, node)),
        fail_fast: fields
            .get("fail-fast")
            .map_or(DeferredSetting::Value(true), |node| {
                reader.truth(node, "fail-fast", ExprSite::Strategy)
            }),
        max_parallel: fields
            .get("max-parallel")
            // 0 is no limit, as at GitHub.
            .filter(|node| !matches!(node.value, Yaml::Number { number: 0.0, .. }))
            .and_then(|node| reader.number(node, "max-parallel", ExprSite::Strategy)),
    })
}

fn matrix(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<JobMatrix> {
    let entries = match &node.value {
        Yaml::Mapping(entries) if has_dynamic_key(entries) => {
            return reader
                .tree(node, "matrix", ExprSite::Strategy)
                .map(JobMatrix::Dynamic);
        }
        Yaml::Mapping(entries) => entries,
        Yaml::String { text, .. } if text.contains("${{") => {
            return reader
                .template(node, "matrix", ExprSite::Strategy)
                .map(JobMatrix::Computed);
        }
        _ => {
            reader.wrong_type(
                node,
                "matrix",
                "a mapping of names to lists, or an expression",
            );
            return None;
        }
    };
    let (mut axes, mut include, mut exclude) = (Vec::new(), None, None);
    for (key, node) in entries {
        let Some(tree) = list(reader, node, &key.text) else {
            continue;
        };
        match key.text.as_str() {
            "include" => include = Some(tree),
            "exclude" => exclude = Some(tree),
            _ => {
                if node.as_sequence().is_some_and(<[YamlNode]>::is_empty) {
                    reader.error(
                        "empty",
                        node.span,
                        format!("`{}` in the matrix has no values", key.text),
                    );
                }
                axes.push((key.text.clone(), tree));
            }
        }
    }
    if entries.iter().all(|(key, _)| key.text == "exclude") {
        reader.error(
            "empty",
            node.span,
            "the matrix has neither lists nor `include`",
        );
    }
    Some(JobMatrix::Written {
        axes,
        include,
        exclude,
    })
}

fn list(reader: &mut WorkflowReader<'_>, node: &YamlNode, what: &str) -> Option<TemplateTree> {
    let items = match &node.value {
        Yaml::Sequence(items) => items,
        Yaml::String { text, .. } if text.contains("${{") => {
            return reader.tree(node, what, ExprSite::Strategy);
        }
        _ => {
            reader.wrong_type(node, what, "a list, or an expression");
            return None;
        }
    };
    if matches!(what, "include" | "exclude") {
        for item in items {
            let fine = item.as_mapping().is_some()
                || item.as_str().is_some_and(|text| text.contains("${{"));
            if !fine {
                reader.wrong_type(item, what, "a list of mappings");
            }
        }
    }
    reader.tree(node, what, ExprSite::Strategy)
}
