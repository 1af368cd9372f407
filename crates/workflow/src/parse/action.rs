//! Reads an action file, `action.yml`. What GitHub ignores there is ignored: authors write much that is for the marketplace.

use shipway_syntax::{
    Diagnostic, MappingFields, SourceFile, YamlKey, YamlNode, YamlValue as Yaml, limit_diagnostics,
};

use super::{
    reader::WorkflowReader,
    steps::{StepsOwner, steps},
};
use crate::{
    expr::{ExprSite, IfCondition, Template},
    model::{ActionFile, ActionHook, ActionInput, ActionOutput, ActionRuns, TemplateTable},
};

/// An action file that was read.
#[derive(Clone, Debug)]
pub struct ParsedAction {
    /// What it says; none when something is wrong.
    pub action: Option<ActionFile>,
    /// Problems and probable mistakes, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads an action file.
///
/// ```
/// use shipway_syntax::SourceFile;
/// let source = SourceFile::new("action.yml", "runs:\n  using: composite\n  steps: [{ run: echo }]\n");
/// let parsed = shipway_workflow::parse_action(&source);
/// assert_eq!(
///     parsed.diagnostics[0].one_line(&source),
///     "action.yml:3:11: error: a step with `run` in an action also needs `shell`; add `shell: bash`",
/// );
/// ```
#[must_use]
pub fn parse_action(source: &SourceFile) -> ParsedAction {
    let tree = match shipway_syntax::parse(source) {
        Ok(tree) => tree,
        Err(diagnostics) => {
            return ParsedAction {
                action: None,
                diagnostics,
            };
        }
    };
    let mut reader = WorkflowReader::new(source);
    let action = action(&mut reader, &tree);
    let mut diagnostics = reader.problems;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.map_or(0, |span| span.start));
    let action = action.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
    ParsedAction {
        action,
        diagnostics: limit_diagnostics(diagnostics),
    }
}

fn action(reader: &mut WorkflowReader<'_>, tree: &YamlNode) -> Option<ActionFile> {
    if tree.as_mapping().is_none() {
        reader.wrong_type(tree, "the action", "a mapping");
        return None;
    }
    let inputs = entries(reader, tree, "inputs")
        .iter()
        .map(|(key, node)| input(reader, key, node))
        .collect();
    let outputs = entries(reader, tree, "outputs")
        .iter()
        .map(|(key, node)| output(reader, key, node))
        .collect();
    let Some(node) = tree.get("runs") else {
        reader.error_with_help(
            "missing-key",
            tree.span,
            "the action has no `runs`",
            "add `runs:` with `using: composite` and `steps:`, or `using: node20` and `main:`",
        );
        return None;
    };
    Some(ActionFile {
        name: tree
            .get("name")
            .and_then(YamlNode::as_scalar_text)
            .map(str::to_owned),
        inputs,
        outputs,
        runs: runs(reader, node)?,
    })
}

/// The entries of a mapping that may be missing.
fn entries<'n>(
    reader: &mut WorkflowReader<'_>,
    tree: &'n YamlNode,
    key: &str,
) -> &'n [(YamlKey, YamlNode)] {
    let Some(node) = tree.get(key).filter(|node| !node.is_null()) else {
        return &[];
    };
    if node.as_mapping().is_none() {
        reader.wrong_type(node, key, "a mapping");
    }
    node.as_mapping().unwrap_or_default()
}

fn input(reader: &mut WorkflowReader<'_>, key: &YamlKey, node: &YamlNode) -> ActionInput {
    if !node.is_null() && node.as_mapping().is_none() {
        reader.wrong_type(node, &key.text, "a mapping");
    }
    let text = |key: &str| node.get(key).and_then(YamlNode::as_scalar_text);
    let default = node.get("default").filter(|node| !node.is_null());
    ActionInput {
        name: key.text.clone(),
        default: default.and_then(|node| reader.template(node, "default", ExprSite::ActionInput)),
        required: text("required").is_some_and(|it| it.eq_ignore_ascii_case("true")),
        deprecation: text("deprecationMessage").map(str::to_owned),
    }
}

fn output(reader: &mut WorkflowReader<'_>, key: &YamlKey, node: &YamlNode) -> ActionOutput {
    if !node.is_null() && node.as_mapping().is_none() {
        reader.wrong_type(node, &key.text, "a mapping with `description` and `value`");
    }
    let value = node.get("value").filter(|node| !node.is_null());
    ActionOutput {
        name: key.text.clone(),
        value: value.and_then(|node| reader.template(node, "value", ExprSite::ActionOutput)),
    }
}

const JAVASCRIPT_KEYS: [&str; 6] = ["using", "main", "pre", "pre-if", "post", "post-if"];
const DOCKER_KEYS: [&str; 9] = [
    "using",
    "image",
    "entrypoint",
    "args",
    "env",
    "pre-entrypoint",
    "pre-if",
    "post-entrypoint",
    "post-if",
];

fn runs(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<ActionRuns> {
    let Some(written) = node.get("using") else {
        reader.error_with_help(
            "missing-key",
            node.span,
            "`runs` has no `using`",
            "add `using: composite`, `using: node20` or `using: docker`",
        );
        return None;
    };
    let using = reader.plain(written, "using")?.to_ascii_lowercase();
    let node_version = using
        .strip_prefix("node")
        .and_then(|version| version.parse::<u32>().ok());
    match (using.as_str(), node_version) {
        ("composite", _) => {
            let fields = reader.fields(node, "runs", &["using", "steps"])?;
            let list = fields.require("steps", &mut reader.problems)?;
            Some(ActionRuns::Composite {
                steps: steps(reader, list, StepsOwner::Action),
            })
        }
        ("docker", _) => docker(reader, node),
        (_, Some(version)) => {
            let fields = reader.fields(node, "runs", &JAVASCRIPT_KEYS)?;
            let main = fields.require("main", &mut reader.problems)?;
            Some(ActionRuns::JavaScript {
                node: version,
                main: path(reader, main, "main")?,
                pre: part(reader, &fields, "pre", "pre-if"),
                post: part(reader, &fields, "post", "post-if"),
            })
        }
        _ => {
            let known = ["composite", "docker", "node20", "node24"];
            reader.unknown_value(written, "kind of action", &using, &known);
            None
        }
    }
}

fn docker(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<ActionRuns> {
    let fields = reader.fields(node, "runs", &DOCKER_KEYS)?;
    let image = fields.require("image", &mut reader.problems)?;
    Some(ActionRuns::Docker {
        image: path(reader, image, "image")?,
        entrypoint: fields
            .get("entrypoint")
            .and_then(|node| path(reader, node, "entrypoint")),
        pre: part(reader, &fields, "pre-entrypoint", "pre-if"),
        post: part(reader, &fields, "post-entrypoint", "post-if"),
        args: args(reader, fields.get("args")),
        env: fields
            .get("env")
            .map_or_else(TemplateTable::default, |node| {
                reader.table(node, "env", ExprSite::ActionArgs)
            }),
    })
}

fn args(reader: &mut WorkflowReader<'_>, node: Option<&YamlNode>) -> Vec<Template> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Vec::new();
    };
    let Some(items) = node.as_sequence() else {
        reader.wrong_type(node, "args", "a list of strings");
        return Vec::new();
    };
    let items = items.iter();
    items
        .filter_map(|item| reader.template(item, "args", ExprSite::ActionArgs))
        .collect()
}

fn part(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    entry: &'static str,
    condition: &'static str,
) -> Option<ActionHook> {
    let condition = match fields.get(condition) {
        Some(node) if !matches!(node.value, Yaml::Null) => {
            reader.condition(Some(node), ExprSite::ActionIf)
        }
        _ => always(),
    };
    let entry = path(reader, fields.get(entry)?, entry)?;
    Some(ActionHook { entry, condition })
}

fn always() -> IfCondition {
    IfCondition::parse("always()", 0).unwrap_or_default()
}

/// A text that says something.
fn path(reader: &mut WorkflowReader<'_>, node: &YamlNode, what: &str) -> Option<String> {
    let path = reader.plain(node, what)?;
    if path.trim().is_empty() {
        reader.error("empty", node.span, format!("`{what}` is empty"));
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<ActionFile>, Vec<String>) {
        let source = SourceFile::new("action.yml", text);
        let parsed = parse_action(&source);
        let lines = parsed.diagnostics.iter().map(|it| it.one_line(&source));
        (parsed.action, lines.collect())
    }

    #[test]
    fn what_is_for_the_marketplace_is_ignored() {
        let (action, problems) = read(
            "name: X\nauthor: a\nbranding: { icon: x }\nenv: { A: 1 }\ninputs:\n  who: { description: d, required: true, default: '${{ github.actor }}', type: string }\n  old:\n    deprecationMessage: use who\noutputs: { y: { description: d } }\nruns: { using: Node20, main: dist/index.js, post: dist/post.js, post-if: success() }\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let action = action.unwrap();
        let who = action.input("WHO").unwrap();
        assert!(who.required);
        assert_eq!(
            who.default.as_ref().map(Template::text),
            Some("${{ github.actor }}")
        );
        assert_eq!(action.inputs[1].deprecation.as_deref(), Some("use who"));
        let ActionRuns::JavaScript {
            node: 20,
            pre: None,
            post: Some(post),
            ..
        } = action.runs
        else {
            panic!("{:?}", action.runs);
        };
        assert_eq!(post.condition.text(), "success()");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, expected) in [
            ("[]", "`the action` must be a mapping, but this is"),
            ("name: x", "has no `runs`"),
            ("runs: { main: x }", "`runs` has no `using`"),
            ("runs: { using: noed20, main: x }", "unknown kind of action"),
            ("runs: { using: node20 }", "main"),
            (
                "runs: { using: node20, main: x, pots: y }",
                "did you mean `post`?",
            ),
            (
                "runs: { using: composite, steps: [{ run: x, shell: sh, timeout-minutes: 3 }] }",
                "timeout-minutes",
            ),
            (
                "runs:\n  using: composite\n  steps: [{ shell: sh, run: 'echo ${{ secrets.A }}' }]",
                "action.yml:3:39: error: `secrets` can't be used here",
            ),
            (
                "inputs: { a: { default: '${{ inputs.b }}' } }\nruns: { using: docker, image: x }",
                "`inputs` can't be used here",
            ),
        ] {
            let (action, problems) = read(text);
            assert!(action.is_none(), "{text}");
            assert!(
                problems.iter().any(|it| it.contains(expected)),
                "{text}: {problems:?}"
            );
        }
    }

    #[test]
    fn a_container_has_arguments_that_see_inputs() {
        let (action, problems) = read(
            "runs:\n  using: docker\n  image: Dockerfile\n  args: ['${{ inputs.a }}', b]\n  env: { A: '${{ inputs.a }}' }\n  pre-entrypoint: /setup\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let ActionRuns::Docker { args, pre, .. } = action.unwrap().runs else {
            panic!("no container");
        };
        assert_eq!(args.len(), 2);
        assert_eq!(pre.unwrap().condition.text(), "always()");
    }
}
