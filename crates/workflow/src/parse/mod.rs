//! Parses a workflow file into the [`model`](crate::model). Supports the whole format: it accepts what GitHub accepts and
//! refuses the rest, with the position and the expected value. Never stops at the first mistake, and never panics.
//!
//! ```
//! use shipway_syntax::SourceFile;
//! let source = SourceFile::new("ci.yml", "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{ run: 'echo ${{ gihub.sha }}' }]\n");
//! let parsed = shipway_workflow::parse(&source);
//! assert!(parsed.workflow.is_none());
//! assert_eq!(parsed.diagnostics[0].one_line(&source), "ci.yml:5:30: error: unknown name `gihub`; did you mean `github`?");
//! ```

use shipway_syntax::{
    Diagnostic, MappingFields, SourceFile, YamlNode, YamlValue as Yaml, limit_diagnostics,
};

use crate::{
    expr::{ExprSite, Template},
    model::{ConcurrencyRule, Permissions, QueueMode, RunDefaults, Workflow},
};

mod action;
mod activity;
mod background;
#[cfg(test)]
mod compatibility_tests;
mod events;
mod inputs;
mod job;
mod keys;
mod needs;
pub(crate) mod reader;
mod references;
mod schedule;
mod steps;
mod strategy;
#[cfg(test)]
mod tests;

pub use action::{ParsedAction, parse_action};
use reader::WorkflowReader;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct ParsedWorkflow {
    /// What it says; none when something is wrong.
    pub workflow: Option<Workflow>,
    /// Problems and probable mistakes, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a workflow file.
#[must_use]
pub fn parse(source: &SourceFile) -> ParsedWorkflow {
    let tree = match shipway_syntax::parse(source) {
        Ok(tree) => tree,
        Err(diagnostics) => {
            return ParsedWorkflow {
                workflow: None,
                diagnostics,
            };
        }
    };
    let mut reader = WorkflowReader::new(source);
    let workflow = workflow(&mut reader, &tree);
    let diagnostics = in_order(reader.problems);
    let workflow = workflow.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
    ParsedWorkflow {
        workflow,
        diagnostics: limit_diagnostics(diagnostics),
    }
}

/// In the order of the file without duplicates: the content of an anchor is parsed for every alias.
pub(crate) fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told = std::collections::BTreeSet::new();
    diagnostics.retain(|problem| {
        let span = problem.span.map(|span| (span.start, span.end));
        told.insert((span, problem.code, problem.message.clone()))
    });
    diagnostics.sort_by_key(|problem| problem.span.map_or(0, |span| span.start));
    diagnostics
}

const KEYS: [&str; 9] = [
    "name",
    "description",
    "run-name",
    "on",
    "permissions",
    "env",
    "defaults",
    "concurrency",
    "jobs",
];

fn workflow(reader: &mut WorkflowReader<'_>, tree: &YamlNode) -> Option<Workflow> {
    keys::check(reader, tree);
    keys::filled(
        reader,
        tree,
        &[
            "name",
            "description",
            "run-name",
            "on",
            "concurrency",
            "jobs",
        ],
    );
    let fields = MappingFields::read(tree, "the workflow", &KEYS, &mut reader.problems)?;
    let on = fields
        .require("on", &mut reader.problems)
        .map(|node| events::triggers(reader, node));
    let jobs = fields
        .require("jobs", &mut reader.problems)
        .map(|node| job::jobs(reader, node));
    let workflow = Workflow {
        name: fields
            .get("name")
            .and_then(|node| reader.plain(node, "name")),
        run_name: fields
            .get("run-name")
            .and_then(|node| reader.template(node, "run-name", ExprSite::RunName)),
        on: on.unwrap_or_default(),
        env: fields
            .get("env")
            .map(|node| reader.table(node, "env", ExprSite::Env))
            .unwrap_or_default(),
        defaults: defaults(reader, &fields, ExprSite::Nowhere),
        concurrency: fields
            .get("concurrency")
            .and_then(|node| concurrency(reader, node, ExprSite::Concurrency)),
        permissions: fields
            .get("permissions")
            .and_then(|node| permissions(reader, node)),
        jobs: jobs.unwrap_or_default(),
    };
    needs::check(reader, &workflow.jobs, fields.get("jobs"));
    references::check(reader, &workflow, fields.get("jobs"));
    Some(workflow)
}

/// `defaults: { run: … }`
fn defaults(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    place: ExprSite,
) -> RunDefaults {
    let Some(node) = fields.get("defaults") else {
        return RunDefaults::default();
    };
    keys::filled(reader, node, &[]);
    let Some(outer) = MappingFields::read(node, "defaults", &["run"], &mut reader.problems) else {
        return RunDefaults::default();
    };
    let Some(run) = outer.get("run") else {
        return RunDefaults::default();
    };
    keys::filled(reader, run, &[]);
    let Some(inner) = MappingFields::read(
        run,
        "defaults.run",
        &["shell", "working-directory"],
        &mut reader.problems,
    ) else {
        return RunDefaults::default();
    };
    RunDefaults {
        shell: inner
            .get("shell")
            .and_then(|node| reader.filled(node, "shell", place)),
        working_directory: inner
            .get("working-directory")
            .and_then(|node| reader.filled(node, "working-directory", place)),
    }
}

fn concurrency(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    place: ExprSite,
) -> Option<ConcurrencyRule> {
    if node.as_mapping().is_none() {
        let group = group(reader, node, place)?;
        return Some(ConcurrencyRule {
            group,
            cancel_in_progress: false.into(),
            queue: QueueMode::Single,
        });
    }
    keys::filled(reader, node, &["group"]);
    let fields = MappingFields::read(
        node,
        "concurrency",
        &["group", "cancel-in-progress", "queue"],
        &mut reader.problems,
    )?;
    let name = fields.require("group", &mut reader.problems);
    let cancel = fields.get("cancel-in-progress");
    let cancel_in_progress = cancel.map(|node| reader.truth(node, "cancel-in-progress", place));
    let queue = fields.get("queue").map(|node| queue(reader, node));
    Some(ConcurrencyRule {
        group: group(reader, name?, place)?,
        cancel_in_progress: cancel_in_progress.unwrap_or_default(),
        queue: queue.unwrap_or_default(),
    })
}

fn queue(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> QueueMode {
    match reader.plain(node, "queue").as_deref() {
        Some("max") => QueueMode::Max,
        Some("single") | None => QueueMode::Single,
        Some(other) => {
            reader.unknown_value(node, "queue", other, &["single", "max"]);
            QueueMode::Single
        }
    }
}

/// Characters in the name of a concurrency group.
const GROUP_LENGTH_MAX: usize = 400;

fn group(reader: &mut WorkflowReader<'_>, node: &YamlNode, place: ExprSite) -> Option<Template> {
    let group = reader.filled(node, "group", place)?;
    let length = group
        .as_literal()
        .map_or(0, |text| text.encode_utf16().count());
    if length > GROUP_LENGTH_MAX {
        reader.error(
            "too-long",
            node.span,
            format!("the name of a concurrency group has at most {GROUP_LENGTH_MAX} characters, not {length}"),
        );
    }
    Some(group)
}

/// Scopes that can't be read, only written.
const WRITTEN: [&str; 2] = ["copilot-requests", "id-token"];
/// Scopes that can't be written, only read.
const READ: [&str; 2] = ["models", "vulnerability-alerts"];

const SCOPES: [&str; 20] = [
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "code-quality",
    "contents",
    "copilot-requests",
    "deployments",
    "discussions",
    "drives",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "security-events",
    "statuses",
    "vulnerability-alerts",
];

fn permissions(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<Permissions> {
    if let Yaml::String { text, .. } = &node.value {
        return match text.as_str() {
            "read-all" => Some(Permissions::ReadAll),
            "write-all" => Some(Permissions::WriteAll),
            other => {
                reader.unknown_value(node, "permissions", other, &["read-all", "write-all"]);
                None
            }
        };
    }
    MappingFields::read(node, "permissions", &SCOPES, &mut reader.problems)?;
    let mut scopes = Vec::new();
    for (key, node) in node.as_mapping().unwrap_or_default() {
        let Some(level) = reader.plain(node, &key.text) else {
            continue;
        };
        if !matches!(level.as_str(), "read" | "write" | "none") {
            let what = format!("level of `{}`:", key.text);
            reader.unknown_value(node, &what, &level, &["read", "write", "none"]);
            continue;
        }
        let only = match (key.text.as_str(), level.as_str()) {
            (scope, "read") if WRITTEN.contains(&scope) => Some("write"),
            (scope, "write") if READ.contains(&scope) => Some("read"),
            _ => None,
        };
        if let Some(only) = only {
            reader.warn(
                "permission-level",
                node.span,
                format!("`{}` has no level `{level}`", key.text),
                format!("it can be `{only}` or `none`"),
            );
        }
        scopes.push((key.text.clone(), level));
    }
    Some(Permissions::Scopes(scopes))
}
