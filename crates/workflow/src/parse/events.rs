//! `on:`

use shipway_syntax::{Fields, Node, Span, Value as Yaml};

use super::{
    activity::{ANY, EVENTS, Event},
    inputs::{call, dispatch},
    keys,
    reader::Reader,
    schedule,
};
use crate::model::{
    Dispatch, Filter, OtherEvent, PathFilter, Pattern, PushTrigger, RefFilter, Triggers,
    WorkflowCall,
};

const OURS: [&str; 4] = ["push", "workflow_dispatch", "workflow_call", "schedule"];

/// A name, a list of names, or a mapping of names to what is asked of them.
pub(super) fn triggers(reader: &mut Reader<'_>, node: &Node) -> Triggers {
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
    reader: &mut Reader<'_>,
    triggers: &mut Triggers,
    name: &str,
    span: Span,
    node: Option<&Node>,
) {
    match name {
        "push" => {
            triggers.push = Some(node.map_or_else(PushTrigger::default, |node| push(reader, node)))
        }
        "workflow_dispatch" => {
            triggers.workflow_dispatch =
                Some(node.map_or_else(Dispatch::default, |node| dispatch(reader, node)))
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

fn push(reader: &mut Reader<'_>, node: &Node) -> PushTrigger {
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

fn other(reader: &mut Reader<'_>, known: &Event, node: Option<&Node>) -> OtherEvent {
    let mut event = OtherEvent {
        name: known.name.to_owned(),
        types: Vec::new(),
        branches: None,
        paths: None,
        workflows: Vec::new(),
    };
    let Some(node) = node else { return event };
    let keys = known.known_keys();
    if keys.is_empty() {
        reader.error_with_help(
            "wrong-type",
            node.span,
            format!("`{}` takes no filters", known.name),
            format!("write `{}:` and nothing behind it", known.name),
        );
        return event;
    }
    keys::filled(reader, node, &[]);
    let Some(fields) = Fields::of(node, known.name, &keys, &mut reader.problems) else {
        return event;
    };
    if let Some(node) = fields.get("types") {
        event.types = types(reader, known, node);
    }
    if let Some(node) = fields.get("workflows") {
        let words = reader.words(node, "workflows");
        event.workflows = words.into_iter().map(|(_, word)| word).collect();
    }
    event.branches = filter(reader, &fields, "branches", "branches-ignore");
    event.paths = filter(reader, &fields, "paths", "paths-ignore").map(PathFilter);
    event
}

/// The activity types, each one that the event has.
fn types(reader: &mut Reader<'_>, known: &Event, node: &Node) -> Vec<String> {
    let mut types = Vec::new();
    for (node, word) in reader.words(node, "types") {
        if known.types == ANY || known.types.contains(&word.as_str()) {
            types.push(word);
        } else {
            let what = format!("activity type of `{}`:", known.name);
            reader.unknown_word(node, &what, &word, known.types);
        }
    }
    types
}

/// `branches` or `branches-ignore`, and so on; not both.
fn filter(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    only: &str,
    ignore: &str,
) -> Option<Filter> {
    match (fields.get(only), fields.get(ignore)) {
        (None, None) => None,
        (Some(_), Some(both)) => {
            let help = format!(
                "use `{only}` alone: a pattern with `!` before it takes back what those before it took"
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
                let help = "put a pattern without `!` before them, such as '**'";
                reader.warn(
                    "never-matches",
                    node.span,
                    format!("only patterns with `!` in `{only}`: they take nothing"),
                    help,
                );
            }
            Some(Filter::Only(patterns))
        }
        (None, Some(node)) => Some(Filter::Ignore(patterns(reader, node, ignore))),
    }
}

fn patterns(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (node, word) in reader.words(node, what) {
        match word.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => reader.error("pattern", node.span, format!("in `{what}`: {error}")),
        }
    }
    patterns
}
