//! `jobs:`

use shipway_syntax::{MappingFields, YamlKey, YamlNode, YamlValue as Yaml};

use super::{
    concurrency, defaults, keys, permissions,
    reader::WorkflowReader,
    steps::{StepsOwner, steps},
    strategy::strategy,
};
use crate::{
    expr::{ExprSite, Template},
    job::is_identifier,
    model::{
        CallSecrets, ContainerDefinition, DeferredSetting, JobEnvironment, JobRetry, JobServices,
        RetryWhen, ReusableCall, RunsOn, TemplateTable, WorkflowJob, own_repository_path,
    },
};

const KEYS: [&str; 22] = [
    "name",
    "needs",
    "if",
    "runs-on",
    "permissions",
    "environment",
    "concurrency",
    "outputs",
    "env",
    "defaults",
    "steps",
    "timeout-minutes",
    "cancel-timeout-minutes",
    "strategy",
    "continue-on-error",
    "container",
    "services",
    "uses",
    "with",
    "secrets",
    "snapshot",
    "retry",
];

/// What a job that calls a workflow may have.
const CALL_KEYS: [&str; 9] = [
    "name",
    "uses",
    "with",
    "secrets",
    "needs",
    "if",
    "permissions",
    "concurrency",
    "strategy",
];

pub(super) fn jobs(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Vec<WorkflowJob> {
    let Some(entries) = node.as_mapping() else {
        reader.wrong_type(node, "jobs", "a mapping of ids to jobs");
        return Vec::new();
    };
    if entries.is_empty() {
        reader.error("empty", node.span, "there are no jobs");
    }
    let mut jobs = Vec::new();
    for (key, node) in entries {
        if !is_identifier(&key.text) || key.text.starts_with("__") {
            let help = "ids start with a letter or a single _, consist of letters, digits, - and _, and have at most 100 characters";
            reader.error_with_help(
                "name",
                key.span,
                format!("`{}` is not a valid job id", key.text),
                help,
            );
        }
        jobs.extend(job(reader, key, node));
    }
    jobs
}

fn job(reader: &mut WorkflowReader<'_>, key: &YamlKey, node: &YamlNode) -> Option<WorkflowJob> {
    let what = format!("the job `{}`", key.text);
    keys::filled(
        reader,
        node,
        &["name", "if", "environment", "container", "runs-on"],
    );
    let fields = MappingFields::read(node, &what, &KEYS, &mut reader.problems)?;
    let calls = call(reader, &fields, node);
    if fields.get("uses").is_none() {
        check_runs(reader, &fields);
    }
    Some(WorkflowJob {
        id: key.text.clone(),
        at: reader.position(key.span),
        name: fields
            .get("name")
            .and_then(|node| reader.template(node, "name", ExprSite::Job)),
        needs: fields
            .get("needs")
            .map(|node| needs(reader, node))
            .unwrap_or_default(),
        if_: reader.condition(fields.get("if"), ExprSite::JobIf),
        runs_on: fields.get("runs-on").and_then(|node| runs_on(reader, node)),
        env: table(reader, &fields, "env", ExprSite::JobEnv),
        outputs: table(reader, &fields, "outputs", ExprSite::JobOutputs),
        strategy: fields
            .get("strategy")
            .and_then(|node| strategy(reader, node)),
        continue_on_error: fields
            .get("continue-on-error")
            .map(|node| reader.truth(node, "continue-on-error", ExprSite::Job))
            .unwrap_or_default(),
        timeout_minutes: fields
            .get("timeout-minutes")
            .and_then(|node| reader.number(node, "timeout-minutes", ExprSite::Job)),
        defaults: defaults(reader, &fields, ExprSite::JobDefaults),
        steps: fields
            .get("steps")
            .map(|node| steps(reader, node, StepsOwner::Job))
            .unwrap_or_default(),
        environment: fields
            .get("environment")
            .and_then(|node| environment(reader, node)),
        concurrency: fields
            .get("concurrency")
            .and_then(|node| concurrency(reader, node, ExprSite::Job)),
        permissions: fields
            .get("permissions")
            .and_then(|node| permissions(reader, node)),
        container: fields
            .get("container")
            .and_then(|node| container(reader, node, "container", &CONTAINER_KEYS)),
        services: services(reader, fields.get("services")),
        calls,
        retry: fields.get("retry").and_then(|node| retry(reader, node)),
    })
}

fn table(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    key: &str,
    site: ExprSite,
) -> TemplateTable {
    fields
        .get(key)
        .map(|node| reader.table(node, key, site))
        .unwrap_or_default()
}

/// The maximum number of automatic retries; more would hide the problem.
const RETRIES_MAX: f64 = 10.0;

/// `retry: 2`, or `retry: { max: 2, when: worker-lost }`
fn retry(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<JobRetry> {
    let (max, when) = match node.as_mapping() {
        None => (Some(node), None),
        Some(_) => {
            let fields = reader.fields(node, "retry", &["max", "when"])?;
            (fields.get("max"), fields.get("when"))
        }
    };
    let max = match max {
        None => 1.0,
        Some(node) => match reader.number(node, "retry", ExprSite::Nowhere)? {
            DeferredSetting::Value(max)
                if (0.0..=RETRIES_MAX).contains(&max) && max.fract() == 0.0 =>
            {
                max
            }
            _ => {
                reader.wrong_type(node, "retry", "a whole number from 0 to 10");
                return None;
            }
        },
    };
    let when = match when {
        None => RetryWhen::Any,
        Some(node) => match reader.plain(node, "when")?.as_str() {
            "any" => RetryWhen::Any,
            "worker-lost" => RetryWhen::WorkerLost,
            other => {
                reader.unknown_value(node, "when", other, &["worker-lost", "any"]);
                return None;
            }
        },
    };
    Some(JobRetry {
        max: max as u32,
        when,
    })
}

/// What a job must and can't have that doesn't call a workflow.
fn check_runs(reader: &mut WorkflowReader<'_>, fields: &MappingFields<'_>) {
    fields.require("runs-on", &mut reader.problems);
    for key in ["with", "secrets"] {
        if let Some(node) = fields.get(key) {
            reader.error(
                "conflict",
                node.span,
                format!("`{key}` is for jobs that call a workflow with `uses`"),
            );
        }
    }
    if let Some(node) = fields.get("cancel-timeout-minutes") {
        reader.number(node, "cancel-timeout-minutes", ExprSite::Job);
    }
    if let Some(node) = fields.get("snapshot") {
        snapshot(reader, node);
    }
}

/// `snapshot:`, which asks GitHub to keep the machine's image; checked, and without effect here.
fn snapshot(reader: &mut WorkflowReader<'_>, node: &YamlNode) {
    if node.as_mapping().is_none() {
        reader.plain_list(node, "snapshot");
        return;
    }
    keys::filled(reader, node, &["if"]);
    let Some(fields) = reader.fields(node, "snapshot", &["image-name", "if", "version"]) else {
        return;
    };
    if let Some(node) = fields.require("image-name", &mut reader.problems) {
        reader.plain_list(node, "image-name");
    }
    reader.condition(fields.get("if"), ExprSite::SnapshotIf);
    if let Some(node) = fields.get("version")
        && let Some(version) = reader.plain(node, "version")
    {
        let major = version.strip_suffix(".*").unwrap_or_default();
        if major.is_empty() || !major.bytes().all(|b| b.is_ascii_digit()) {
            reader.wrong_type(node, "version", "a major version such as '1.*'");
        }
    }
}

fn needs(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Vec<String> {
    reader
        .plain_list(node, "needs")
        .into_iter()
        .map(|(_, word)| word)
        .collect()
}

fn call(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    node: &YamlNode,
) -> Option<ReusableCall> {
    let uses = fields.get("uses")?;
    for (key, _) in node.as_mapping().unwrap_or_default() {
        if KEYS.contains(&key.text.as_str()) && !CALL_KEYS.contains(&key.text.as_str()) {
            reader.error(
                "conflict",
                key.span,
                format!(
                    "a job that calls a workflow with `uses` can't have `{}`",
                    key.text
                ),
            );
        }
    }
    let workflow = reader.plain(uses, "uses")?;
    let local = own_repository_path(&workflow).is_some_and(|path| !path.contains('@'));
    let remote = workflow
        .split_once('@')
        .is_some_and(|(path, at)| path.split('/').count() >= 4 && !at.is_empty());
    if !local && !remote {
        let help =
            "write ./.github/workflows/file.yml, or owner/repo/.github/workflows/file.yml@ref";
        reader.error_with_help(
            "uses",
            uses.span,
            format!("`{workflow}` is not a workflow file"),
            help,
        );
        return None;
    }
    let secrets = match fields.get("secrets") {
        None => CallSecrets::Named(TemplateTable::default()),
        Some(node) if node.as_str() == Some("inherit") => CallSecrets::Inherit,
        Some(node) => CallSecrets::Named(reader.table(node, "secrets", ExprSite::JobSecrets)),
    };
    let given = fields.get("with");
    let with = given
        .map(|node| reader.table(node, "with", ExprSite::Job))
        .unwrap_or_default();
    let entries = given.and_then(|node| node.as_mapping()).unwrap_or_default();
    let texts = entries.iter().filter(|(_, node)| {
        let text = node.as_str();
        text.is_some_and(|text| !text.contains("${{"))
    });
    Some(ReusableCall {
        workflow,
        at: reader.position(uses.span),
        with,
        texts: texts.map(|(key, _)| key.text.clone()).collect(),
        secrets,
    })
}

fn runs_on(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<RunsOn> {
    if node.as_mapping().is_none() {
        return Some(RunsOn {
            labels: reader.templates(node, "runs-on", ExprSite::Job),
            group: None,
        });
    }
    keys::filled(reader, node, &[]);
    let fields = reader.fields(node, "runs-on", &["group", "labels"])?;
    Some(RunsOn {
        labels: fields
            .get("labels")
            .map(|node| reader.templates(node, "labels", ExprSite::Job))
            .unwrap_or_default(),
        group: fields.get("group").and_then(|node| group(reader, node)),
    })
}

/// The name of a group of runners, or one with `organization/` or `enterprise/` before it.
fn group(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<Template> {
    const OWNERS: [&str; 4] = ["org", "organization", "ent", "enterprise"];
    let group = reader.filled(node, "group", ExprSite::Job)?;
    let fine = group
        .as_literal()
        .is_none_or(|name| match name.split_once('/') {
            None => true,
            Some((owner, name)) => {
                OWNERS.contains(&owner) && !name.is_empty() && !name.contains('/')
            }
        });
    if !fine {
        reader.wrong_type(
            node,
            "group",
            "a name, optionally with `organization/` or `enterprise/` in front",
        );
    }
    Some(group)
}

fn environment(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<JobEnvironment> {
    if node.as_mapping().is_none() {
        // An empty name is no environment, as at GitHub.
        return reader
            .template(node, "environment", ExprSite::Job)
            .filter(|name| !name.text().is_empty())
            .map(|name| JobEnvironment { name, url: None });
    }
    keys::filled(reader, node, &["name", "url"]);
    let fields = reader.fields(node, "environment", &["name", "url", "deployment"])?;
    let name = fields.require("name", &mut reader.problems)?;
    if let Some(node) = fields.get("deployment") {
        reader.truth(node, "deployment", ExprSite::Job);
    }
    Some(JobEnvironment {
        name: reader.template(name, "name", ExprSite::Job)?,
        url: fields
            .get("url")
            .and_then(|node| reader.template(node, "url", ExprSite::EnvironmentUrl)),
    })
}

const CONTAINER_KEYS: [&str; 6] = ["image", "options", "env", "ports", "volumes", "credentials"];
const SERVICE_KEYS: [&str; 8] = [
    "image",
    "options",
    "env",
    "ports",
    "volumes",
    "credentials",
    "command",
    "entrypoint",
];

/// An empty image is no container, as at GitHub; a service must have one.
fn container(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    what: &str,
    keys: &[&str],
) -> Option<ContainerDefinition> {
    let image = if node.as_mapping().is_none() {
        Some(node)
    } else {
        keys::filled(reader, node, &["image", "options"]);
        node.get("image").filter(|node| !node.is_null())
    };
    check_image(reader, node, image, what, keys)?;
    if node.as_mapping().is_none() {
        let image = reader.filled(node, what, ExprSite::Job)?;
        return Some(ContainerDefinition::from_image(image));
    }
    let fields = MappingFields::read(node, what, keys, &mut reader.problems)?;
    let image = fields.require("image", &mut reader.problems)?;
    let templates = |reader: &mut WorkflowReader<'_>, key: &str| match fields.get(key) {
        Some(node) if node.as_sequence().is_some() || is_expression(node) => {
            reader.templates(node, key, ExprSite::Job)
        }
        Some(node) => {
            reader.wrong_type(node, key, "a list");
            Vec::new()
        }
        None => Vec::new(),
    };
    let template = |reader: &mut WorkflowReader<'_>, key: &str| {
        fields
            .get(key)
            .and_then(|node| reader.template(node, key, ExprSite::Job))
    };
    let credentials = fields.get("credentials").and_then(|node| {
        if node.as_mapping().is_some() {
            let keys = ["username", "password"];
            MappingFields::read(node, "credentials", &keys, &mut reader.problems)?;
        }
        Some(reader.table(node, "credentials", ExprSite::Credentials))
    });
    Some(ContainerDefinition {
        image: reader.filled(image, "image", ExprSite::Job)?,
        env: fields
            .get("env")
            .map(|node| reader.table(node, "env", ExprSite::ContainerEnv))
            .unwrap_or_default(),
        ports: templates(reader, "ports"),
        volumes: templates(reader, "volumes"),
        options: template(reader, "options"),
        credentials: credentials.unwrap_or_default(),
        command: template(reader, "command"),
        entrypoint: template(reader, "entrypoint"),
    })
}

/// `None` without an image. That is an error for a service, and for `docker://` alone.
fn check_image(
    reader: &mut WorkflowReader<'_>,
    container: &YamlNode,
    image: Option<&YamlNode>,
    what: &str,
    keys: &[&str],
) -> Option<()> {
    let missing = image.is_none_or(|node| {
        matches!(node.as_scalar_text(), Some("" | "docker://")) || node.is_null()
    });
    let prefixed = image.and_then(YamlNode::as_scalar_text) == Some("docker://");
    if missing && (prefixed || keys.len() == SERVICE_KEYS.len()) {
        reader.error_with_help(
            "empty",
            image.unwrap_or(container).span,
            format!("{what} has no image"),
            "set one, such as `postgres:17`",
        );
    }
    (!missing).then_some(())
}

fn services(reader: &mut WorkflowReader<'_>, node: Option<&YamlNode>) -> JobServices {
    let Some(node) = node else {
        return JobServices::default();
    };
    let entries = match &node.value {
        Yaml::Mapping(entries) => entries,
        _ if is_expression(node) => {
            let template = reader.template(node, "services", ExprSite::Job);
            return template.map_or_else(JobServices::default, JobServices::Computed);
        }
        _ => {
            let expected = "a mapping of names to containers, or an expression";
            reader.wrong_type(node, "services", expected);
            return JobServices::default();
        }
    };
    let mut services = Vec::new();
    for (key, node) in entries {
        let what = format!("the service `{}`", key.text);
        services.extend(
            container(reader, node, &what, &SERVICE_KEYS)
                .map(|container| (key.text.clone(), container)),
        );
    }
    JobServices::Written(services)
}

/// Whether a scalar begins with an expression, which may give any type.
fn is_expression(node: &YamlNode) -> bool {
    let text = node.as_str().unwrap_or_default();
    text.trim_start().starts_with("${{")
}
