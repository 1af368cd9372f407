//! The output of a run: the lines of its steps, a mark at the end of each step, and a summary.

use std::io::IsTerminal;

use jiff::Timestamp;
use serde_json::json;
use shipway_core::run::{JobView, RunStatus, RunView, StepLine, in_short};
use shipway_workflow::job::{Conclusion, JobKey, JournalEntry};

use crate::print::{self, Output};

/// How a run is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    output: Output,
    jobs: JobCount,
    colours: bool,
}

/// How many jobs a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobCount {
    One,
    /// Each line is prefixed with its job.
    Several,
}

/// How to see more of a run that failed.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    /// The workflow, as it was named.
    pub(super) workflow: String,
    /// Whether the jobs' folders are kept anyway.
    pub(super) kept: bool,
}

impl Hint {
    fn rerun_command(&self, key: &str) -> String {
        let job = key.split(['.', '~']).next().unwrap_or(key);
        let workflow = &self.workflow;
        let alone = format!("shipway run {workflow} --job {job}");
        if self.kept {
            format!("To re-run only this job: {alone}")
        } else {
            format!("To re-run only this job and keep its workspace and log: {alone} --keep")
        }
    }
}

/// Colours, as terminals number them.
#[derive(Clone, Copy)]
enum TextColor {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
    Grey = 90,
}

impl Show {
    pub(super) fn new(output: Output, jobs: JobCount) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            output,
            jobs,
            colours,
        }
    }

    /// Whether the output of steps is shown.
    pub(super) const fn shows_output(self) -> bool {
        !self.output.json && !self.output.quiet
    }

    fn ink(self, ink: TextColor, text: &str) -> String {
        if self.colours {
            format!("\x1b[{}m{text}\x1b[0m", ink as u8)
        } else {
            text.to_owned()
        }
    }

    /// The prefix of each line of a job.
    pub(super) fn prefix(self, key: &JobKey) -> String {
        if self.jobs == JobCount::Several {
            self.ink(TextColor::Grey, &format!("{key} │ "))
        } else {
            String::new()
        }
    }

    /// A line that a step printed, into `out`. Groups are shown by their names, and not folded.
    pub(super) fn line(self, prefix: &str, text: &str, out: &mut String) {
        let shown = match text
            .strip_prefix("##[")
            .and_then(|rest| rest.split_once(']'))
        {
            Some(("endgroup", _)) => return,
            Some(("group", name)) => self.ink(TextColor::Cyan, &format!("┌ {name}")),
            Some(("error", text)) => self.ink(TextColor::Red, &format!("error: {text}")),
            Some(("warning", text)) => self.ink(TextColor::Yellow, &format!("warning: {text}")),
            Some(("notice", text)) => format!("notice: {text}"),
            Some(("debug", _)) => return,
            _ => {
                for part in [prefix, "  ", text, "\n"] {
                    out.push_str(part);
                }
                return;
            }
        };
        for part in [prefix, "  ", &shown, "\n"] {
            out.push_str(part);
        }
    }

    /// A step begins.
    pub(super) fn step_started(self, prefix: &str, name: &str, out: &mut String) {
        if self.shows_output() {
            out.push_str(&format!(
                "{prefix}{} {name}\n",
                self.ink(TextColor::Cyan, "▸")
            ));
        }
    }

    /// A step has finished.
    pub(super) fn step_finished(
        self,
        prefix: &str,
        step: &StepLine,
        why: Option<&str>,
        out: &mut String,
    ) {
        if !self.shows_output() {
            return;
        }
        let how = step.outcome.unwrap_or(step.conclusion);
        let mut text = format!("{prefix}{} {}", self.mark(how), step.name);
        if how != Conclusion::Skipped {
            text.push_str(&self.ink(TextColor::Grey, &format!(" ({})", duration(step.took_ms))));
        }
        if let Some(why) = why.and_then(|why| why.lines().next()) {
            text.push_str(&format!(": {why}"));
        }
        if how == Conclusion::Failure && step.conclusion == Conclusion::Success {
            text.push_str(" (continue-on-error)");
        }
        out.push_str(&text);
        out.push('\n');
    }

    /// An entry of a journal, for programs.
    pub(super) fn entry(self, key: &JobKey, entry: &JournalEntry, out: &mut String) {
        if self.output.json {
            out.push_str(&json!({ "job": key, "entry": entry }).to_string());
            out.push('\n');
        }
    }

    fn mark(self, conclusion: Conclusion) -> String {
        match conclusion {
            Conclusion::Success => self.ink(TextColor::Green, "✓"),
            Conclusion::Failure => self.ink(TextColor::Red, "✗"),
            Conclusion::Incomplete => self.ink(TextColor::Yellow, "!"),
            Conclusion::Cancelled | Conclusion::Skipped => self.ink(TextColor::Grey, "–"),
        }
    }

    /// The end: each job with how it went and why, the last words of what failed, and the result.
    pub(super) fn sum_up(
        self,
        run: &RunView,
        conclusion: Conclusion,
        lines: Option<&[String; 3]>,
        last_words: &[(JobKey, Vec<String>)],
        hint: &Hint,
    ) {
        if self.output.json {
            let run = json!({ "conclusion": conclusion, "title": run.title, "why": run.why, "jobs": run.jobs });
            return print::text(&format!("{}\n", json!({ "run": run })));
        }
        let mut text = String::new();
        if let Some([first, rest @ ..]) = lines {
            text.push_str(&format!("\n{}\n", self.ink(TextColor::Red, first)));
            rest.iter()
                .for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        for (key, lines) in last_words.iter().filter(|(_, lines)| !lines.is_empty()) {
            text.push_str(&format!(
                "\n{}\n",
                self.ink(TextColor::Red, &format!("The last lines of {key}:"))
            ));
            for line in lines {
                self.line("", line, &mut text);
            }
        }
        if self.jobs == JobCount::Several {
            text.push('\n');
            for job in &run.jobs {
                text.push_str(&self.job(job));
            }
        }
        if let Some(tests) = &run.tests {
            let short = in_short(&tests.totals, tests.coverage.as_ref());
            text.push_str(&format!("{short}\n"));
        }
        let took = run
            .finished_at
            .unwrap_or_else(Timestamp::now)
            .duration_since(run.created_at);
        let took = duration(u64::try_from(took.as_millis()).unwrap_or(0));
        let why = run
            .why
            .as_deref()
            .filter(|_| conclusion != Conclusion::Success);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let word = match conclusion {
            Conclusion::Success => self.ink(TextColor::Green, "success"),
            Conclusion::Failure => self.ink(TextColor::Red, "failure"),
            Conclusion::Incomplete => self.ink(TextColor::Yellow, "incomplete"),
            Conclusion::Cancelled | Conclusion::Skipped => conclusion.to_string(),
        };
        text.push_str(&format!(
            "{} {}: {word} in {took}{why}\n",
            self.mark(conclusion),
            self.called(run)
        ));
        let failed = run.jobs.iter().find(|job| job.status == RunStatus::Failure);
        if let Some(job) = failed.filter(|_| conclusion == Conclusion::Failure) {
            let hint = hint.rerun_command(&job.key);
            text.push_str(&format!("  {}\n", self.ink(TextColor::Grey, &hint)));
        }
        print::text(&text);
    }

    /// `cd · Ship v1`, without the commit's message.
    fn called(self, run: &RunView) -> String {
        if run.title.is_empty() || run.title == run.subject || run.title == run.name {
            return run.name.clone();
        }
        format!("{} · {}", run.name, run.title)
    }

    fn job(self, job: &JobView) -> String {
        let conclusion = match job.status {
            RunStatus::Success => Conclusion::Success,
            RunStatus::Failure => Conclusion::Failure,
            RunStatus::Skipped => Conclusion::Skipped,
            RunStatus::Incomplete => Conclusion::Incomplete,
            RunStatus::Cancelled | RunStatus::Waiting | RunStatus::Queued | RunStatus::Running => {
                Conclusion::Cancelled
            }
        };
        let mut text = format!("{} {}", self.mark(conclusion), job.name);
        if let (Some(started), Some(finished)) = (job.started_at, job.finished_at) {
            let took = finished.duration_since(started).as_millis();
            let took = duration(u64::try_from(took).unwrap_or(0));
            text.push_str(&self.ink(TextColor::Grey, &format!(" ({took})")));
        }
        let why = job
            .why
            .as_deref()
            .filter(|_| conclusion != Conclusion::Success);
        if let Some(why) = why.and_then(|why| why.lines().next()) {
            text.push_str(&format!(": {why}"));
        }
        text.push('\n');
        text
    }
}

/// `12 ms`, `3.4 s`, `2 min 5 s`
fn duration(ms: u64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let shown = [7, 3_450, 125_000].map(duration);
        assert_eq!(shown, ["7 ms", "3.4 s", "2 min 5 s"]);
    }

    #[test]
    fn commands_are_shown_as_people_read_them() {
        let show = Show {
            output: Output {
                json: false,
                quiet: false,
            },
            jobs: JobCount::Several,
            colours: false,
        };
        let prefix = show.prefix(&JobKey::new("test", Some(2)));
        let mut out = String::new();
        for line in [
            "plain",
            "##[group]Build",
            "##[error]broken",
            "##[endgroup]",
            "##[debug]x",
            "##[strange]x",
        ] {
            show.line(&prefix, line, &mut out);
        }
        let expected = ["plain", "┌ Build", "error: broken", "##[strange]x"];
        let expected: String = expected
            .iter()
            .map(|line| format!("test.3 │   {line}\n"))
            .collect();
        assert_eq!(out, expected);
    }
}
