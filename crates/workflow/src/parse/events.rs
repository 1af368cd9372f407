//! `on:`

use shipway_syntax::{MappingFields, Span, YamlNode, YamlValue as Yaml};

use super::{
    activity::{ANY, EVENTS, EventActivity},
    inputs::{call, dispatch},
    keys,
    reader::WorkflowReader,
    schedule,
};
use crate::model::{
    DispatchTrigger, FilterPattern, OtherEvent, PathFilter, PatternFilter, PushTrigger, RefFilter,
    Triggers, WorkflowCall,
};

const OURS: [&str; 4] = ["push", "workflow_dispatch", "workflow_call", "schedule"];

/// A name, a list of names, or a mapping of names to their filters.
pub(super) fn triggers(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Triggers {
    let mut triggers = Triggers::default();
    match &node.value {
        Yaml::Mapping(entries) => {
            for (key, node) in entries {
                event(
                    reader,
                    &mut triggers,
                    &key.text,
                    key.span,
                    Some(node).filter(|node| !node.is_null()),
                );
            }
        }
        Yaml::Sequence(items) => {
            for item in items {
                if let Some(name) = reader.plain(item, "on") {
                    event(reader, &mut triggers, &name, item.span, None);
                }
            }
        }
        _ => {
            if let Some(name) = reader.plain(node, "on") {
                event(reader, &mut triggers, &name, node.span, None);
            }
        }
    }
    triggers
}

fn event(
    reader: &mut WorkflowReader<'_>,
    triggers: &mut Triggers,
    name: &str,
    span: Span,
    node: Option<&YamlNode>,
) {
    match name {
        "push" => {
            triggers.push = Some(node.map_or_else(PushTrigger::default, |node| push(reader, node)))
        }
        "workflow_dispatch" => {
            triggers.workflow_dispatch =
                Some(node.map_or_else(DispatchTrigger::default, |node| dispatch(reader, node)))
        }
        "workflow_call" => {
            triggers.workflow_call =
                Some(node.map_or_else(WorkflowCall::default, |node| call(reader, node)))
        }
        "schedule" => match node {
            Some(node) => triggers.schedule = schedule::schedule(reader, node),
            None => reader.error_with_help(
                "missing-key",
                span,
                "`schedule` has no times",
                "write `schedule: [{ cron: '30 5 * * 1-5' }]`",
            ),
        },
        _ => match EVENTS.iter().find(|known| known.name == name) {
            Some(known) => triggers.others.push(other(reader, known, node)),
            None => {
                let known = OURS
                    .iter()
                    .copied()
                    .chain(EVENTS.iter().map(|event| event.name));
                let help = match shipway_syntax::nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "the usual ones are `push`, `pull_request`, `workflow_dispatch` and `schedule`".to_owned(),
                };
                reader.error_with_help(
                    "unknown-event",
                    span,
                    format!("unknown event `{name}`"),
                    help,
                );
            }
        },
    }
}

fn push(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> PushTrigger {
    let keys = [
        "branches",
        "branches-ignore",
        "tags",
        "tags-ignore",
        "paths",
        "paths-ignore",
    ];
    keys::filled(reader, node, &[]);
    let Some(fields) = reader.fields(node, "push", &keys) else {
        return PushTrigger::default();
    };
    PushTrigger {
        refs: RefFilter {
            branches: filter(reader, &fields, "branches", "branches-ignore"),
            tags: filter(reader, &fields, "tags", "tags-ignore"),
        },
        paths: filter(reader, &fields, "paths", "paths-ignore").map(PathFilter),
    }
}

fn other(
    reader: &mut WorkflowReader<'_>,
    known: &EventActivity,
    node: Option<&YamlNode>,
) -> OtherEvent {
    let mut event = OtherEvent {
        name: known.name.to_owned(),
        types: Vec::new(),
        branches: None,
        paths: None,
        workflows: Vec::new(),
    };
    let Some(node) = node else { return event };
    let keys = known.allowed_keys();
    if keys.is_empty() && node.as_mapping().is_none() {
        reader.error_with_help(
            "wrong-type",
            node.span,
            format!("`{}` takes no filters", known.name),
            format!("write `{}:` without a value", known.name),
        );
        return event;
    }
    let fields = if known.is_strict() {
        keys::filled(reader, node, &[]);
        MappingFields::read(node, known.name, &keys, &mut reader.problems)
    } else {
        let entries = node.as_mapping().unwrap_or_default().iter();
        let ignored = entries.map(|(key, _)| key.text.as_str());
        let ignored: Vec<&str> = ignored.filter(|key| !keys.contains(key)).collect();
        keys::filled(reader, node, &ignored);
        keys::ignore_others(reader, node, known.name, &keys)
    };
    let Some(fields) = fields else { return event };
    if let Some(node) = fields.get("types").filter(|_| !known.types.is_empty()) {
        event.types = types(reader, known, node);
    }
    if let Some(node) = fields.get("workflows") {
        let words = reader.plain_list(node, "workflows");
        event.workflows = words.into_iter().map(|(_, word)| word).collect();
    }
    event.branches = filter(reader, &fields, "branches", "branches-ignore");
    event.paths = filter(reader, &fields, "paths", "paths-ignore").map(PathFilter);
    event
}

/// The activity types, each one that the event has.
fn types(reader: &mut WorkflowReader<'_>, known: &EventActivity, node: &YamlNode) -> Vec<String> {
    let mut types = Vec::new();
    for (node, word) in reader.plain_list(node, "types") {
        if known.types == ANY || known.types.contains(&word.as_str()) {
            types.push(word);
        } else {
            let what = format!("activity type of `{}`:", known.name);
            reader.unknown_value(node, &what, &word, known.types);
        }
    }
    types
}

/// `branches` or `branches-ignore`, and so on; not both.
fn filter(
    reader: &mut WorkflowReader<'_>,
    fields: &MappingFields<'_>,
    only: &str,
    ignore: &str,
) -> Option<PatternFilter> {
    match (fields.get(only), fields.get(ignore)) {
        (None, None) => None,
        (Some(_), Some(both)) => {
            let help = format!(
                "use `{only}` alone: a pattern that starts with `!` excludes what earlier patterns matched"
            );
            reader.error_with_help(
                "conflict",
                both.span,
                format!("`{only}` and `{ignore}` can't be used together"),
                help,
            );
            None
        }
        (Some(node), None) => {
            let patterns = patterns(reader, node, only);
            if !patterns.is_empty() && patterns.iter().all(|pattern| pattern.negated) {
                let help = "add a pattern without `!` before them, such as '**'";
                reader.warn(
                    "never-matches",
                    node.span,
                    format!("`{only}` has only patterns with `!`, so nothing matches"),
                    help,
                );
            }
            Some(PatternFilter::Only(patterns))
        }
        (None, Some(node)) => Some(PatternFilter::Ignore(patterns(reader, node, ignore))),
    }
}

fn patterns(reader: &mut WorkflowReader<'_>, node: &YamlNode, what: &str) -> Vec<FilterPattern> {
    let mut patterns = Vec::new();
    for (node, word) in reader.plain_list(node, what) {
        match word.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => reader.error("pattern", node.span, format!("in `{what}`: {error}")),
        }
    }
    patterns
}
