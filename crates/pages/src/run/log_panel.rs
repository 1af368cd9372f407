//! The log of a job, a window of it at a time: lines with numbers and permalinks, folded by step and group, coloured, searched by the
//! server. Readable and searchable without a script; `log_view.js` loads earlier and later lines as the panel is scrolled, and
//! follows a running job.

use maud::{Markup, html};
use shipway_api::{LogLine, LogMatches, LogStep, LogWindow};
use shipway_core::run::{RunStatus, RunView};

use crate::{
    ansi_text::ansi_text,
    foreign_text::foreign_text,
    format::{duration_text, enum_text, status_badge},
};

/// The log that a page shows.
#[derive(Clone, Debug)]
pub enum ShownLog {
    /// The run has no job that can have a log.
    NoJob,
    /// The job has no log: it has not started, or the retention rule has removed it.
    Missing {
        job: String,
        attempt: u32,
        reason: String,
    },
    Lines(LogWindow),
}

impl ShownLog {
    /// The key of the job.
    pub(super) fn job(&self) -> Option<&str> {
        match self {
            Self::NoJob => None,
            Self::Missing { job, .. } => Some(job),
            Self::Lines(window) => Some(&window.job),
        }
    }

    /// The steps of a job, if its log is shown.
    pub(super) fn steps_of(&self, job: &str) -> &[LogStep] {
        match self {
            Self::Lines(window) if window.job == job => &window.steps,
            Self::NoJob | Self::Missing { .. } | Self::Lines(_) => &[],
        }
    }
}

/// The results of a search.
#[derive(Clone, Debug)]
pub struct LogSearchResults {
    pub text: String,
    pub outcome: LogSearchOutcome,
}

#[derive(Clone, Debug)]
pub enum LogSearchOutcome {
    Found(LogMatches),
    /// Why the text can't be looked for, or not in this log.
    Refused(String),
}

/// The panel with its tools.
pub(super) fn log_panel(
    run: &RunView,
    log: &ShownLog,
    search: Option<&LogSearchResults>,
) -> Markup {
    let base = format!("/runs/{}/{}", run.id.service, run.id.number.0);
    html! {
        section.card.log-panel id="log" data-keep data-base=(base) aria-label="Log" {
            @match log {
                ShownLog::NoJob => p.dim { "No job of this run has a log: none has started." },
                ShownLog::Missing { job, attempt, reason } => {
                    (toolbar(&base, job, *attempt, search, FailingLine::Absent))
                    div.log-lines tabindex="0" data-job=(job) data-attempt=(attempt) data-total="0" { p.dim { (foreign_text(reason)) } }
                },
                ShownLog::Lines(window) => {
                    (toolbar(&base, &window.job, window.attempt, search, FailingLine::from_job(run, window)))
                    (log_fragment(window))
                    (neighbours(&base, window))
                },
            }
        }
    }
}

/// Whether a log may have a line that tells why its job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailingLine {
    Possible,
    Absent,
}

impl FailingLine {
    /// A job that succeeded has none; an attempt before its last one failed.
    fn from_job(run: &RunView, window: &LogWindow) -> Self {
        let succeeded = run.jobs.iter().any(|job| {
            job.key == window.job
                && job.attempt() == window.attempt
                && job.status == RunStatus::Success
        });
        match succeeded {
            true => Self::Absent,
            false => Self::Possible,
        }
    }
}

fn toolbar(
    base: &str,
    job: &str,
    attempt: u32,
    search: Option<&LogSearchResults>,
    failing_line: FailingLine,
) -> Markup {
    let link = format!("{base}?job={job}&attempt={attempt}");
    let raw = base.replacen("/runs/", "/api/v1/runs/", 1);
    let asked = search.map(|search| search.text.as_str());
    html! {
        header.log-tools {
            h2 { "Log of " code { (job) } @if attempt > 1 { span.dim { " attempt " (attempt) } } }
            form method="get" action=(base) role="search" aria-label="Search this log" {
                input type="hidden" name="job" value=(job);
                input type="hidden" name="attempt" value=(attempt);
                label { span.visually-hidden { "Search this log" } input type="search" name="search" maxlength="200" placeholder="Search this log" value=[asked]; }
                button.act type="submit" { "Search" }
            }
            p.log-links {
                a href={ (link) "&from=1" } data-log-link { "Start" } " "
                @if failing_line == FailingLine::Possible { a href={ (link) "&at=failure" } data-log-link { "Failing line" } " " }
                a href={ (link) "&at=end" } data-log-link { "End" } " "
                a href={ (raw) "/jobs/" (job) "/log?attempt=" (attempt) } download={ (job) ".log" } { "Download raw" }
            }
        }
        div.log-results aria-live="polite" { @if let Some(search) = search { (results(&link, search)) } }
    }
}

/// The results of a search, alone.
#[must_use]
pub fn log_search_fragment(
    base: &str,
    job: &str,
    attempt: u32,
    search: &LogSearchResults,
) -> String {
    results(&format!("{base}?job={job}&attempt={attempt}"), search).into_string()
}

fn results(link: &str, search: &LogSearchResults) -> Markup {
    html! { @match &search.outcome {
        LogSearchOutcome::Refused(reason) => p.trouble { (reason) },
        LogSearchOutcome::Found(matches) if matches.count == 0 => p { "No line contains “" (foreign_text(&search.text)) "”. Capital and small letters are the same to this search." },
        LogSearchOutcome::Found(matches) => {
            p { strong { (matches.count) } @if matches.count == 1 { " line contains “" } @else { " lines contain “" } (foreign_text(&search.text)) "”"
                @if matches.count > matches.lines.len() as u64 { span.dim { ", the first " (matches.lines.len()) " are listed" } } }
            ol.log-matches { @for line in &matches.lines { li {
                a href={ (link) "&line=" (line.number) "#" (matches.job) "::" (line.number) } data-log-link { (line.number) }
                " " span.log-text { (ansi_text(&line.text)) @if line.omitted_bytes > 0 { span.dim { " …" } } }
            } } }
        },
    } }
}

/// The lines of a window in their steps and groups, alone: what the script puts into the panel.
#[must_use]
pub fn log_fragment(window: &LogWindow) -> Markup {
    let first = window.lines.first().map_or(1, |line| line.number);
    let last = window.lines.last().map_or(0, |line| line.number);
    html! {
        div.log-lines tabindex="0" role="region" aria-label={ "Log of " (window.job) } data-job=(window.job) data-attempt=(window.attempt) data-first=(first) data-last=(last) data-total=(window.total)
            data-focus=[window.focus] {
            @if window.total == 0 { p.dim { "The job has not printed anything yet." } }
            @for (step, lines) in by_step(window) { (step_section(window, step, lines)) }
        }
        // The heads of all steps, for those that the panel shows and that have ended meanwhile.
        template.log-heads { @for step in &window.steps { div data-step=(step.index) { (step_head(step)) } } }
    }
}

/// Links to the lines before and after, for readers without a script.
fn neighbours(base: &str, window: &LogWindow) -> Markup {
    let link = format!("{base}?job={}&attempt={}", window.job, window.attempt);
    let first = window.lines.first().map_or(1, |line| line.number);
    let last = window.lines.last().map_or(0, |line| line.number);
    html! { p.log-neighbours.dim {
        @if first > 1 { a href={ (link) "&from=" (first.saturating_sub(500).max(1)) } data-log-link { "Earlier lines" } " · " }
        "lines " (first) " to " (last) " of " (window.total)
        @if last < window.total { " · " a href={ (link) "&from=" (last + 1) } data-log-link { "Later lines" } }
    } }
}

/// Consecutive lines of one step, or of none.
fn by_step(window: &LogWindow) -> Vec<(Option<&LogStep>, &[LogLine])> {
    let step_of = |line: &LogLine| {
        window.steps.iter().rfind(|step| {
            step.first <= line.number && step.last.is_none_or(|last| line.number <= last)
        })
    };
    let mut parts: Vec<(Option<&LogStep>, &[LogLine])> = Vec::new();
    let mut begin = 0;
    while begin < window.lines.len() {
        let step = step_of(&window.lines[begin]);
        let length = window.lines[begin..]
            .iter()
            .take_while(|line| step_of(line).map(|it| it.index) == step.map(|it| it.index))
            .count();
        parts.push((step, &window.lines[begin..begin + length]));
        begin += length;
    }
    parts
}

fn step_section(window: &LogWindow, step: Option<&LogStep>, lines: &[LogLine]) -> Markup {
    let anchor = |line: &LogLine| match step {
        Some(step) => format!("{}:{}:{}", window.job, step.index, line.number),
        None => format!("{}::{}", window.job, line.number),
    };
    let shown = |lines: &[LogLine]| html! { @for line in lines { (log_line(window, &anchor(line), line)) } };
    let Some(step) = step else {
        return html! { div.log-step data-step="" { (shown(lines)) } };
    };
    html! {
        details.log-step data-step=(step.index) open {
            summary { (step_head(step)) }
            @for part in by_group(lines) {
                @match part {
                    FoldedLines::Plain(lines) => (shown(lines)),
                    FoldedLines::Group(head, lines) => {
                        @let is_open = lines.iter().any(|line| Some(line.number) == window.focus || line.text.starts_with("##[error]"));
                        details.log-group open[is_open] { summary { (group_head(window, &anchor(head), head)) } (shown(lines)) }
                    },
                }
            }
        }
    }
}

fn step_head(step: &LogStep) -> Markup {
    html! {
        (status_badge(&enum_text(&step.status))) " " (foreign_text(&step.name))
        @if let Some(took) = step.took_ms { span.dim.number { " " (duration_text(took)) } }
    }
}

/// Lines of a step: those of a closed group, and others.
enum FoldedLines<'w> {
    Plain(&'w [LogLine]),
    Group(&'w LogLine, &'w [LogLine]),
}

/// Groups that begin and end within the lines; a group without its end is not folded, so that nothing is hidden by mistake.
fn by_group(lines: &[LogLine]) -> Vec<FoldedLines<'_>> {
    let begins = |line: &LogLine| line.text.starts_with("##[group]");
    let mut parts = Vec::new();
    let mut rest = lines;
    while let Some(begin) = rest.iter().position(begins) {
        let inside = &rest[begin + 1..];
        let end = inside
            .iter()
            .position(|line| begins(line) || line.text.starts_with("##[endgroup]"));
        let end = end.filter(|end| !begins(&inside[*end]));
        let plain = if end.is_some() { begin } else { begin + 1 };
        if plain > 0 {
            parts.push(FoldedLines::Plain(&rest[..plain]));
        }
        rest = match end {
            Some(end) => {
                parts.push(FoldedLines::Group(&rest[begin], &inside[..end]));
                &inside[end + 1..]
            }
            None => inside,
        };
    }
    if !rest.is_empty() {
        parts.push(FoldedLines::Plain(rest));
    }
    parts
}

/// How a line is marked by its first word, and the text after that.
fn marked(text: &str) -> (&'static str, &'static str, &str) {
    let marks = [
        ("##[error]", "log-line marked-error", "Error: "),
        ("##[warning]", "log-line marked-warning", "Warning: "),
        ("##[notice]", "log-line marked-notice", "Notice: "),
        ("##[debug]", "log-line marked-debug", "Debug: "),
        ("##[group]", "log-line marked-group", ""),
        ("##[command]", "log-line marked-command", ""),
    ];
    let mut found = marks
        .into_iter()
        .filter_map(|(mark, class, word)| Some((class, word, text.strip_prefix(mark)?)));
    found.next().unwrap_or(("log-line", "", text))
}

/// The first line of a group: without a link, because a `summary` may not contain one.
fn group_head(window: &LogWindow, anchor: &str, line: &LogLine) -> Markup {
    let (class, _, text) = marked(&line.text);
    let is_focus = window.focus == Some(line.number);
    html! {
        span class={ (class) @if is_focus { " focus" } } id=(anchor) data-line=(line.number) {
            span.line-number { (line.number) }
            span.log-text { (ansi_text(text)) }
        }
    }
}

fn log_line(window: &LogWindow, anchor: &str, line: &LogLine) -> Markup {
    let (class, word, text) = marked(&line.text);
    let is_focus = window.focus == Some(line.number);
    html! {
        div class={ (class) @if is_focus { " focus" } } id=(anchor) data-line=(line.number) aria-current=[is_focus.then_some("location")] {
            a.line-number href={ "?job=" (window.job) "&attempt=" (window.attempt) "&line=" (line.number) "#" (anchor) } title=[line.at] tabindex="-1" { (line.number) }
            span.log-text { @if !word.is_empty() { strong { (word) } } (ansi_text(text)) @if line.omitted_bytes > 0 { span.dim { " … " (line.omitted_bytes) " more bytes are in the raw log" } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn window(texts: &[&str]) -> LogWindow {
        let lines = texts.iter().zip(1..).map(|(text, number)| LogLine {
            number,
            at: None,
            text: (*text).to_owned(),
            omitted_bytes: 0,
        });
        LogWindow {
            job: "build".to_owned(),
            attempt: 1,
            total: texts.len() as u64,
            bytes: 0,
            focus: Some(3),
            lines: lines.collect(),
            steps: vec![LogStep {
                index: 2,
                name: "<script>alert(1)</script>".to_owned(),
                status: RunStatus::Failure,
                started_at: jiff::Timestamp::UNIX_EPOCH,
                took_ms: Some(7),
                first: 2,
                last: Some(9),
            }],
        }
    }

    #[test]
    fn lines_are_escaped_numbered_and_folded_and_the_failing_one_is_marked() {
        let html = log_fragment(&window(&[
            "before <b>",
            "##[group]Run make",
            "make \x1b[31mred\x1b[0m",
            "##[endgroup]",
            "##[error]exit code 2 <img src=x onerror=alert(1)>",
            "##[group]never closed",
            "seen",
        ]))
        .into_string();
        for part in [
            "id=\"build::1\"",
            "id=\"build:2:3\"",
            "before &lt;b&gt;",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "<span class=\"fg1\">red</span>",
            "<details class=\"log-group\" open>",
            "class=\"log-line focus\"",
            "<strong>Error: </strong>exit code 2 &lt;img",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
        // An open group hides nothing, and its end is not a line.
        assert_eq!(html.matches("<details class=\"log-group\"").count(), 1);
        assert!(!html.contains("endgroup") && !html.contains("<script"));
    }
}
