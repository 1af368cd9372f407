//! From the YAML tree to the configuration, with every mistake named at its place.

use std::time::Duration;

use shipway_syntax::{
    Diagnostic, MappingFields, SourceFile, YamlNode, limit_diagnostics, parse_cores,
};

use super::{
    ArtifactSource, RunConfig, ServiceConfig, checks, environments::environments, paths, reports,
    targets,
};
use crate::{
    field_values::{Problems, env, later, path_in_repository},
    ids::ServiceName,
    target::{AvailableTargets, ResourceLimits, StopSignal},
};

/// Keys of the whole file.
pub(super) const FILE_KEYS: &[&str] = &[
    "service",
    "branch",
    "repository",
    "workflow",
    "artifact",
    "run",
    "reports",
    "paths",
    "environments",
    "target",
    "router",
];
/// Keys of `run`.
pub(super) const RUN_KEYS: &[&str] =
    &["command", "env", "health", "limits", "grace", "stop_signal"];

/// A configuration with its warnings, or the errors.
pub type ParsedConfig = Result<(ServiceConfig, Vec<Diagnostic>), Vec<Diagnostic>>;

/// Parses a `shipway.yaml`, whatever targets and routers it names.
pub fn parse(source: &SourceFile) -> ParsedConfig {
    let tree = shipway_syntax::parse(source)?;
    let mut problems = Vec::new();
    let config = file(&tree, &mut problems);
    finish(config, problems)
}

/// Parses a `shipway.yaml` that is deployed with the targets and routers that are available.
pub fn parse_for(source: &SourceFile, available: &AvailableTargets) -> ParsedConfig {
    let tree = shipway_syntax::parse(source)?;
    let mut problems = Vec::new();
    let config = file(&tree, &mut problems);
    if let Some(config) = &config
        && !problems.iter().any(Diagnostic::is_error)
    {
        targets::refuse_missing(&tree, config, available, &mut problems);
    }
    finish(config, problems)
}

fn finish(config: Option<ServiceConfig>, mut problems: Problems) -> ParsedConfig {
    problems.sort_by_key(|problem| problem.span.map(|span| span.start));
    match config {
        Some(config) if !problems.iter().any(Diagnostic::is_error) => {
            Ok((config, limit_diagnostics(problems)))
        }
        _ => Err(limit_diagnostics(problems)),
    }
}

/// The name of the service in a `shipway.yaml` whose other keys may have mistakes.
pub fn parse_service_name(source: &SourceFile) -> Result<ServiceName, Vec<Diagnostic>> {
    let tree = shipway_syntax::parse(source)?;
    let mut problems = Vec::new();
    let service = match tree.get("service") {
        Some(node) => parsed(node, &mut problems),
        None => {
            let message = "`service` is missing";
            problems.push(Diagnostic::error("missing-key", tree.span, message));
            None
        }
    };
    service.ok_or(problems)
}

fn file(tree: &YamlNode, problems: &mut Problems) -> Option<ServiceConfig> {
    let fields = MappingFields::read(tree, "shipway.yaml", FILE_KEYS, problems)?;
    let service = fields
        .require("service", problems)
        .and_then(|node| parsed(node, problems));
    let branch = fields
        .string("branch", problems)
        .map_or_else(|| "main".to_owned(), |branch| branch.value);
    let repository = fields
        .get("repository")
        .and_then(|node| parsed(node, problems));
    let workflows = fields
        .strings("workflow", problems)
        .into_iter()
        .filter_map(|path| path_in_repository(path, problems))
        .collect();
    let artifact = artifact(&fields, problems);
    let run = fields
        .require("run", problems)
        .and_then(|node| run(node, problems));
    let environments = environments(&fields, problems);
    Some(ServiceConfig {
        service: service?,
        branch,
        repository,
        workflows,
        artifact,
        run: run?,
        reports: reports::reports_config(&fields, problems),
        paths: paths::path_patterns(&fields, problems),
        environments: environments?,
    })
}

/// A value that knows how to read itself from a text.
fn parsed<T: std::str::FromStr>(node: &YamlNode, problems: &mut Problems) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    let text = node.as_scalar_text().unwrap_or_default();
    text.parse()
        .map_err(|error: T::Err| {
            problems.push(Diagnostic::error("bad-value", node.span, error.to_string()))
        })
        .ok()
}

fn artifact(fields: &MappingFields<'_>, problems: &mut Problems) -> ArtifactSource {
    let Some(node) = fields.get("artifact") else {
        return ArtifactSource::Run { name: None };
    };
    if let Some(name) = node.as_scalar_text() {
        return ArtifactSource::Run {
            name: Some(name.to_owned()),
        };
    }
    let Some(inner) = MappingFields::read(node, "artifact", &["source", "image"], problems) else {
        return ArtifactSource::Run { name: None };
    };
    if let Some(image) = inner.string("image", problems) {
        problems.push(later(image.span, "container images as artifacts"));
        return ArtifactSource::Image { name: image.value };
    }
    if let Some(source) = inner.string("source", problems)
        && !matches!(source.value.as_str(), "." | "./")
    {
        problems.push(
            Diagnostic::error(
                "bad-value",
                source.span,
                "only the whole tree can be the artifact",
            )
            .help("write `artifact: { source: . }`"),
        );
    }
    ArtifactSource::Source
}

fn run(node: &YamlNode, problems: &mut Problems) -> Option<RunConfig> {
    let fields = MappingFields::read(node, "run", RUN_KEYS, problems)?;
    fields.require("command", problems);
    let command = fields.string("command", problems)?;
    if command.value.trim().is_empty() {
        problems.push(Diagnostic::error(
            "bad-value",
            command.span,
            "the command is empty",
        ));
    }
    let limits = fields
        .get("limits")
        .and_then(|node| limits(node, problems))
        .unwrap_or_default();
    Some(RunConfig {
        command: command.value,
        env: env(&fields, problems),
        health: fields
            .get("health")
            .and_then(|node| checks::health(node, problems))
            .unwrap_or_default(),
        limits,
        grace: fields
            .duration("grace", problems)
            .unwrap_or(Duration::from_secs(10)),
        stop_signal: stop_signal(&fields, problems).unwrap_or_default(),
    })
}

fn stop_signal(fields: &MappingFields<'_>, problems: &mut Problems) -> Option<StopSignal> {
    let name = fields.string("stop_signal", problems)?;
    let signal = StopSignal::from_name(&name.value);
    if signal.is_none() {
        let message = format!("`stop_signal` can't be `{}`", name.value);
        let names = StopSignal::ALL.map(StopSignal::name).join(", ");
        problems.push(
            Diagnostic::error("bad-value", name.span, message).help(format!("use one of {names}")),
        );
    }
    signal
}

fn limits(node: &YamlNode, problems: &mut Problems) -> Option<ResourceLimits> {
    let fields = MappingFields::read(node, "limits", &["memory", "cpu", "processes"], problems)?;
    let cpu_millis = fields.string("cpu", problems).and_then(|text| {
        let millis = parse_cores(&text.value);
        if millis.is_none() {
            problems.push(Diagnostic::error(
                "wrong-type",
                text.span,
                format!(
                    "`cpu` must be a number of cores, such as 0.5 or 500m, but this is `{}`",
                    text.value
                ),
            ));
        }
        millis
    });
    Some(ResourceLimits {
        memory_bytes: fields.bytes("memory", problems),
        cpu_millis,
        processes: fields.integer("processes", 1, u32::MAX, problems),
    })
}
