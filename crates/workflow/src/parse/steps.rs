//! `steps:`

use std::collections::{BTreeMap, BTreeSet};

use shipway_syntax::{MappingFields, YamlNode};

use super::{background, keys, reader::WorkflowReader};
use crate::{
    expr::{ExprSite, Template},
    job::is_identifier,
    model::{StepAction, WorkflowStep, own_repository_path},
};

/// Those of actions first.
const KEYS: [&str; 16] = [
    "id",
    "if",
    "name",
    "uses",
    "run",
    "working-directory",
    "shell",
    "with",
    "env",
    "continue-on-error",
    "timeout-minutes",
    "background",
    "wait",
    "wait-all",
    "cancel",
    "parallel",
];

/// Steps of a job or an action, with those in groups. The state of each is part of the state of a run.
pub const STEPS_MAX: usize = 1_000;

/// How many of them the steps of an action have.
const ACTION_KEYS: usize = 10;

/// Whose steps are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StepsOwner {
    /// A job's.
    Job,
    /// A composite action's: they see less, and say which shell they want.
    Action,
}

impl StepsOwner {
    const fn site(self) -> ExprSite {
        match self {
            Self::Job => ExprSite::Step,
            Self::Action => ExprSite::ActionStep,
        }
    }

    const fn condition_site(self) -> ExprSite {
        match self {
            Self::Job => ExprSite::StepIf,
            Self::Action => ExprSite::ActionStepIf,
        }
    }

    /// Those of an action have no time limit of their own, and don't run in the background.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Job => &KEYS,
            Self::Action => &KEYS[..ACTION_KEYS],
        }
    }
}

pub(super) fn steps(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    owner: StepsOwner,
) -> Vec<WorkflowStep> {
    let Some(items) = node.as_sequence() else {
        reader.wrong_type(node, "steps", "a list of steps");
        return Vec::new();
    };
    if items.is_empty() && owner == StepsOwner::Job {
        reader.error("empty", node.span, "the job has no steps");
    }
    if count(items) > STEPS_MAX {
        let message = format!(
            "there are {} steps, but at most {STEPS_MAX} are allowed",
            count(items)
        );
        let help = "combine steps into a script or an action";
        reader.error_with_help("too-many-steps", node.span, message, help);
        return Vec::new();
    }
    let groups: Vec<Option<&[YamlNode]>> = items
        .iter()
        .map(|item| (owner == StepsOwner::Job).then(|| background::parallel(reader, item))?)
        .collect();
    let mut ids = StepIds::new(written_ids(reader, items, &groups));
    let (mut steps, mut beside) = (Vec::new(), BTreeSet::new());
    for (item, group) in items.iter().zip(groups) {
        if let Some(group) = group {
            let mut waited = Vec::new();
            for item in group {
                if let Some(mut step) = step(reader, item, owner) {
                    step.background = true;
                    waited.push(add(&mut steps, step, &mut ids));
                }
            }
            beside.extend(waited.iter().map(|id| id.to_ascii_lowercase()));
            add(
                &mut steps,
                background::wait_for(reader, item, waited),
                &mut ids,
            );
            continue;
        }
        let read = if owner == StepsOwner::Job && background::is_control(item) {
            background::control(reader, item, &beside)
        } else {
            step(reader, item, owner)
        };
        if let Some(step) = read {
            let is_beside = step.background;
            let id = add(&mut steps, step, &mut ids);
            if is_beside {
                beside.insert(id.to_ascii_lowercase());
            }
        }
    }
    steps
}

/// How many steps there are, with those in groups.
fn count(items: &[YamlNode]) -> usize {
    let in_groups = items.iter().filter_map(|item| item.get("parallel"));
    let in_groups = in_groups
        .filter_map(YamlNode::as_sequence)
        .map(<[YamlNode]>::len);
    items.len() + in_groups.sum::<usize>()
}

/// Adds a step, with an id when it has none; that id.
fn add(steps: &mut Vec<WorkflowStep>, mut step: WorkflowStep, ids: &mut StepIds) -> String {
    if step.id.is_empty() {
        step.id = ids.take_default(&step.action);
    }
    let id = step.id.clone();
    steps.push(step);
    id
}

/// The ids that the file gives, checked, in lower case.
fn written_ids(
    reader: &mut WorkflowReader<'_>,
    items: &[YamlNode],
    groups: &[Option<&[YamlNode]>],
) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let inner = groups.iter().flatten().copied().flatten();
    for node in items
        .iter()
        .chain(inner)
        .filter_map(|item| item.get("id"))
        .filter(|node| !node.is_null())
    {
        let Some(id) = reader.plain(node, "id") else {
            continue;
        };
        if !is_identifier(&id) || id.starts_with("__") {
            let help = "ids start with a letter or a single _, consist of letters, digits, - and _, and have at most 100 characters";
            reader.error_with_help(
                "name",
                node.span,
                format!("`{id}` is not a valid step id"),
                help,
            );
        } else if !ids.insert(id.to_ascii_lowercase()) {
            reader.error(
                "duplicate-id",
                node.span,
                format!("duplicate step id `{id}`"),
            );
        }
    }
    ids
}

/// `owner/repo` of `owner/repo/path@ref`.
fn repository(action: &str) -> &str {
    let path = action.split('@').next().unwrap_or_default();
    let end = path.match_indices('/').nth(1).map_or(path.len(), |it| it.0);
    &path[..end]
}

/// The ids of a list of steps, in lower case.
struct StepIds {
    taken: BTreeSet<String>,
    /// For each default id the number to try next: all below it are taken.
    next_number: BTreeMap<String, u32>,
}

impl StepIds {
    const fn new(taken: BTreeSet<String>) -> Self {
        Self {
            taken,
            next_number: BTreeMap::new(),
        }
    }

    /// A free id for a step without one, as GitHub numbers them: `__run`, `__run_2`. Amortized O(log n): no number is tried twice.
    fn take_default(&mut self, action: &StepAction) -> String {
        let id = default_id(action);
        let number = self.next_number.entry(id.to_ascii_lowercase()).or_insert(1);
        loop {
            let numbered = match *number {
                1 => id.clone(),
                number => format!("{id}_{number}"),
            };
            *number += 1;
            if self.taken.insert(numbered.to_ascii_lowercase()) {
                return numbered;
            }
        }
    }
}

/// GitHub's default id before numbering: `__run`, `__actions_checkout`, `__self` for an action in the workspace.
fn default_id(action: &StepAction) -> String {
    let base = match action {
        StepAction::Run { .. } => "run",
        StepAction::Wait { .. } => "wait",
        StepAction::WaitAll => "wait-all",
        StepAction::Cancel { .. } => "cancel",
        StepAction::Uses { action, .. } if own_repository_path(action).is_some() => "self",
        StepAction::Uses { action, .. } => match action.strip_prefix("docker://") {
            Some(image) => image,
            None => repository(action),
        },
    };
    let legal: String = base
        .chars()
        .take(80)
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("__{legal}")
}

fn step(
    reader: &mut WorkflowReader<'_>,
    node: &YamlNode,
    owner: StepsOwner,
) -> Option<WorkflowStep> {
    keys::filled(
        reader,
        node,
        &["name", "if", "run", "uses", "working-directory", "wait-all"],
    );
    let fields = reader.fields(node, "the step", owner.keys())?;
    let place = owner.site();
    let action = action(reader, &fields, node, owner);
    let id = fields
        .get("id")
        .and_then(|node| node.as_scalar_text())
        .unwrap_or_default()
        .to_owned();
    let name = fields
        .get("name")
        .and_then(|node| reader.template(node, "name", place));
    let if_ = reader.condition(fields.get("if"), owner.condition_site());
    let env = fields
        .get("env")
        .map(|node| reader.table(node, "env", place))
        .unwrap_or_default();
    let continue_on_error = fields
        .get("continue-on-error")
        .map(|node| reader.truth(node, "continue-on-error", place))
        .unwrap_or_default();
    let timeout_minutes = fields
        .get("timeout-minutes")
        .and_then(|node| reader.number(node, "timeout-minutes", place));
    Some(WorkflowStep {
        id,
        at: reader.position(node.span),
        name,
        if_,
        action: action?,
        env,
        continue_on_error,
        timeout_minutes,
        background: background::background(reader, fields.get("background")),
    })
}

fn action(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    node: &YamlNode,
    owner: StepsOwner,
) -> Option<StepAction> {
    // A script without anything in it is one, as at GitHub.
    match (node.get("run"), fields.get("uses")) {
        (Some(script), None) => run(reader, fields, script, node, owner),
        (None, Some(node)) => uses(reader, fields, node, owner),
        (Some(_), Some(node)) => {
            reader.error_with_help(
                "conflict",
                node.span,
                "a step must have either `run` or `uses`, not both",
                "split it into two steps",
            );
            None
        }
        (None, None) => {
            reader.error_with_help(
                "missing-key",
                node.span,
                "the step does nothing",
                "add `run` or `uses`",
            );
            None
        }
    }
}

fn run(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    script: &YamlNode,
    node: &YamlNode,
    owner: StepsOwner,
) -> Option<StepAction> {
    forbid(reader, fields, &["with"], "run");
    if owner == StepsOwner::Action && fields.get("shell").is_none() {
        reader.error_with_help(
            "missing-key",
            node.span,
            "a step with `run` in an action also needs `shell`",
            "add `shell: bash`",
        );
    }
    let directory = fields.get("working-directory");
    let script = if script.is_null() {
        Template::literal("")
    } else {
        reader.template(script, "run", owner.site())?
    };
    Some(StepAction::Run {
        script,
        shell: fields
            .get("shell")
            .and_then(|node| reader.plain(node, "shell")),
        working_directory: directory
            .and_then(|node| reader.template(node, "working-directory", owner.site())),
    })
}

fn uses(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    node: &YamlNode,
    owner: StepsOwner,
) -> Option<StepAction> {
    forbid(reader, fields, &["shell", "working-directory"], "uses");
    let action = reader.plain(node, "uses")?;
    let local = own_repository_path(&action).is_some() || action.starts_with("docker://");
    let versioned = |(path, at): (&str, &str)| {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.count() >= 2 && !path.starts_with('/') && !at.is_empty() && !at.contains('@')
    };
    // Shipway's own need no version: they come with it.
    if !local && !action.starts_with("shipway/") && !action.split_once('@').is_some_and(versioned) {
        let help = "write owner/repo@ref, ./path or docker://image";
        reader.error_with_help(
            "uses",
            node.span,
            format!("`{action}` is not an action"),
            help,
        );
        return None;
    }
    let with = fields
        .get("with")
        .map(|node| reader.table(node, "with", owner.site()));
    Some(StepAction::Uses {
        action,
        with: with.unwrap_or_default(),
    })
}

fn forbid(reader: &mut WorkflowReader<'_>, fields: &MappingFields<'_>, keys: &[&str], with: &str) {
    for key in keys {
        if let Some(node) = fields.get(key) {
            reader.error(
                "conflict",
                node.span,
                format!("`{key}` can't be used in a step with `{with}`"),
            );
        }
    }
}
