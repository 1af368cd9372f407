//! The target and the router of an environment: `target` and `router`, for the whole file or for one environment.

use serde_json::{Value, json};
use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, YamlNode};

use super::{EnvironmentConfig, ServiceConfig};
use crate::{
    field_values::{Problems, one_of, unknown_choice},
    target::{AvailableTargets, RouterKind, TargetKind},
};

/// Keys below the name of a target.
const TARGET_PARAMETERS: [&str; 1] = ["router"];

/// The target and router that are named at one place of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NamedTarget {
    target: Option<TargetKind>,
    router: Option<RouterKind>,
}

impl NamedTarget {
    /// Reads `target` and `router` of the file or of an environment.
    pub(super) fn read(fields: &MappingFields<'_>, problems: &mut Problems) -> Self {
        let mut named = fields
            .get("target")
            .map(|node| read_target(node, problems))
            .unwrap_or_default();
        if let Some(node) = fields.get("router") {
            if named.router.is_some() {
                let message = "`router` is named twice, here and below `target`";
                let problem = Diagnostic::error("misplaced-key", node.span, message);
                problems.push(problem.help("remove one of them"));
            }
            named.router = read_router(fields, problems);
        }
        named
    }

    /// What an environment has: what it names itself, or else what the file names.
    pub(super) fn or_file(self, file: Self) -> (TargetKind, RouterKind) {
        (
            self.target.or(file.target).unwrap_or_default(),
            self.router.or(file.router).unwrap_or_default(),
        )
    }
}

/// `process`, or `{ kubernetes: { router: istio } }`.
fn read_target(node: &YamlNode, problems: &mut Problems) -> NamedTarget {
    let (name, parameters) = match (node.as_scalar_text(), node.as_mapping()) {
        (Some(text), _) => (spanned(text, node.span), None),
        (None, Some([(key, parameters)])) => (
            spanned(&key.text, key.span),
            Some(parameters).filter(|it| !it.is_null()),
        ),
        _ => {
            let message = "`target` must be one word, or one word with its parameters";
            let problem = Diagnostic::error("wrong-type", node.span, message);
            problems.push(problem.help("for example `target: process`"));
            return NamedTarget::default();
        }
    };
    let target = TargetKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name.value);
    if target.is_none() {
        let known = TargetKind::ALL.map(TargetKind::name);
        problems.push(unknown_choice(&name, "`target`", &known));
    }
    let what = format!("target {}", name.value);
    let parameters =
        parameters.and_then(|node| MappingFields::read(node, &what, &TARGET_PARAMETERS, problems));
    NamedTarget {
        target,
        router: parameters.and_then(|fields| read_router(&fields, problems)),
    }
}

fn read_router(fields: &MappingFields<'_>, problems: &mut Problems) -> Option<RouterKind> {
    let words = RouterKind::ALL.map(|kind| (kind.name(), kind));
    one_of(fields, "router", &words, problems)
}

fn spanned(text: &str, span: Span) -> Spanned<String> {
    Spanned {
        value: text.to_owned(),
        span,
    }
}

/// Refuses environments whose target or router is not available, each where it is named.
pub(super) fn refuse_missing(
    tree: &YamlNode,
    config: &ServiceConfig,
    available: &AvailableTargets,
    problems: &mut Problems,
) {
    for environment in &config.environments {
        if let Err(missing) = available.require_target(environment.target) {
            let span = span_of(tree, environment, "target");
            problems.push(Diagnostic::error(
                "target-missing",
                span,
                missing.to_string(),
            ));
        }
        if let Err(missing) = available.require_router(environment.router) {
            let span = span_of(tree, environment, "router");
            problems.push(Diagnostic::error(
                "router-missing",
                span,
                missing.to_string(),
            ));
        }
    }
}

/// Where the target or router of an environment is named, from the innermost place outwards.
fn span_of(tree: &YamlNode, environment: &EnvironmentConfig, key: &str) -> Span {
    let environments = tree.get("environments");
    let named = environments.and_then(|it| it.get(environment.name.as_str()));
    let named_at = |node: &YamlNode| {
        node.get(key)
            .or_else(|| node.get("target"))
            .map(|it| it.span)
    };
    named
        .and_then(named_at)
        .or_else(|| named_at(tree))
        .or_else(|| environments.map(|it| it.span))
        .unwrap_or(tree.span)
}

/// The schemas of `target` and `router`.
pub(super) fn schemas() -> (Value, Value) {
    let router = json!({ "enum": RouterKind::ALL.map(RouterKind::name), "default": RouterKind::default().name(), "description": "What splits traffic between releases; a server refuses one that it does not have." });
    let parameters = json!({ "type": ["object", "null"], "additionalProperties": false, "properties": { "router": router } });
    let targets = TargetKind::ALL.map(|kind| (kind.name().to_owned(), parameters.clone()));
    let targets: serde_json::Map<String, Value> = targets.into_iter().collect();
    let target = json!({
        "description": "What runs instances; a server refuses one that it does not have.", "default": TargetKind::default().name(),
        "oneOf": [
            { "enum": TargetKind::ALL.map(TargetKind::name) },
            { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": targets }
        ]
    });
    (target, router)
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use super::*;
    use crate::{
        config::{parse, parse_for},
        target::TargetsOwner,
    };

    fn file(top: &str, production: &str) -> SourceFile {
        let text = format!(
            "service: shop\n{top}run: {{ command: ./shop }}\nenvironments:\n  staging:\n  production: {{ instances: 2{production} }}\n"
        );
        SourceFile::new("shipway.yaml", text)
    }

    /// The target and router of each environment.
    fn named(top: &str, production: &str) -> Vec<String> {
        let (config, _) = parse(&file(top, production)).unwrap();
        let environments = config.environments.iter();
        environments
            .map(|it| format!("{}: {} {}", it.name, it.target, it.router))
            .collect()
    }

    fn problems(production: &str, available: &AvailableTargets) -> Vec<String> {
        let source = file("", production);
        let problems = parse_for(&source, available).unwrap_err();
        problems.iter().map(|it| it.one_line(&source)).collect()
    }

    fn server(targets: &[TargetKind]) -> AvailableTargets {
        AvailableTargets {
            owner: TargetsOwner::Server,
            targets: targets.iter().copied().collect(),
            routers: [RouterKind::Proxy].into(),
        }
    }

    #[test]
    fn an_environment_names_its_target_and_router_and_the_file_names_the_others() {
        assert_eq!(
            named("", ""),
            ["staging: process proxy", "production: process proxy"]
        );
        assert_eq!(
            named("target: docker\n", ", router: service"),
            ["staging: docker proxy", "production: docker service"]
        );
        assert_eq!(
            named("", ", target: { kubernetes: { router: istio } }"),
            ["staging: process proxy", "production: kubernetes istio"]
        );
        assert_eq!(
            named(
                "target: { kubernetes: { router: gateway-api } }\n",
                ", target: process, router: proxy"
            ),
            [
                "staging: kubernetes gateway-api",
                "production: process proxy"
            ]
        );
    }

    #[test]
    fn a_target_that_the_server_does_not_have_is_refused_with_a_list() {
        let only_processes = server(&[TargetKind::Process]);
        assert_eq!(
            problems(", target: docker", &only_processes),
            ["shipway.yaml:5:39: error: this server has no target `docker`; it has process"]
        );
        assert_eq!(
            problems(
                ", target: { kubernetes: { router: istio } }",
                &server(&[TargetKind::Process, TargetKind::Kubernetes])
            ),
            ["shipway.yaml:5:39: error: this server has no router `istio`; it has proxy"]
        );
        assert!(parse_for(&file("", ", target: process"), &only_processes).is_ok());
        // The default is a name like any other.
        let source = file("", "");
        let without_processes = server(&[TargetKind::Docker]);
        let problems = parse_for(&source, &without_processes).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn unknown_words_and_double_names_are_errors() {
        let all = server(&TargetKind::ALL);
        assert_eq!(
            problems(", target: kubernets", &all),
            [
                "shipway.yaml:5:39: error: `target` must be one of process, docker, kubernetes, but this is `kubernets`; did you mean `kubernetes`?"
            ]
        );
        assert_eq!(
            problems(
                ", target: { process: { router: proxy } }, router: proxy",
                &all
            ),
            [
                "shipway.yaml:5:79: error: `router` is named twice, here and below `target`; remove one of them"
            ]
        );
        assert_eq!(
            problems(", target: { process: { context: prod } }", &all).len(),
            1
        );
        assert_eq!(problems(", target: [process]", &all).len(), 1);
    }
}
