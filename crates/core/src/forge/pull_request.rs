//! A pull request, and the comment on it.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    change::PullRequestChange,
    report::{CommitStatusReport, DeploymentReport, ReportedProgress},
};
use crate::ids::{CommitId, ReleaseNumber, ServiceName};

/// Lines of a table in a comment at most.
const LINES_MAX: usize = 100;

/// The state of a pull request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestRecord {
    /// When the forge changed it last.
    pub updated_at: Option<Timestamp>,
    /// The commit that the runs are for.
    pub head: Option<CommitId>,
    /// The commit on the base branch, after it was merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_as: Option<CommitId>,
    /// The forge's id of the comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<u64>,
    /// The runs for its head, by the name of their check.
    pub runs: BTreeMap<String, CommentLine>,
    /// Where its commits are deployed, by service and environment.
    pub deployments: BTreeMap<String, DeployedLine>,
}

/// A line of a comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentLine {
    pub progress: ReportedProgress,
    pub description: String,
    pub url: String,
}

/// A line about an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedLine {
    pub release: ReleaseNumber,
    pub line: CommentLine,
}

impl PullRequestRecord {
    pub(super) fn update(&mut self, change: &PullRequestChange) {
        self.updated_at = change.updated_at.or(self.updated_at);
        if let Some(merged) = &change.merged_as {
            self.merged_as = Some(merged.clone());
        }
    }

    pub(super) fn show_run(&mut self, status: &CommitStatusReport) {
        if self.head.as_ref() != Some(&status.commit) {
            // The end of a run for an earlier head is not shown.
            if self.head.is_some() && status.progress != ReportedProgress::Queued {
                return;
            }
            self.head = Some(status.commit.clone());
            self.runs.clear();
        }
        if self.runs.len() < LINES_MAX || self.runs.contains_key(&status.context) {
            let line = CommentLine {
                progress: status.progress,
                description: status.description.clone(),
                url: status.url.clone(),
            };
            self.runs.insert(status.context.clone(), line);
        }
    }

    pub(super) fn show_deployment(&mut self, deployment: &DeploymentReport) {
        let key = format!("{} {}", deployment.service, deployment.environment);
        let known = self.deployments.get(&key);
        let is_older = known.is_some_and(|known| known.release > deployment.release);
        if is_older || (known.is_none() && self.deployments.len() >= LINES_MAX) {
            return;
        }
        let line = CommentLine {
            progress: deployment.progress,
            description: deployment.description.clone(),
            url: deployment.url.clone(),
        };
        let release = deployment.release;
        self.deployments.insert(key, DeployedLine { release, line });
    }

    /// The text of its comment, in Markdown.
    #[must_use]
    pub fn comment(&self, repository: &ServiceName) -> String {
        let mut text = format!("{}\n**Shipway**", comment_marker(repository));
        if let Some(head) = &self.head {
            let _ = write!(text, " · {}", head.short());
        }
        if !self.runs.is_empty() {
            text.push_str("\n\n| run | result |\n|---|---|\n");
            for (context, line) in &self.runs {
                let _ = writeln!(
                    text,
                    "| [{}]({}) | {} {} |",
                    escape(context),
                    line.url,
                    symbol(line.progress),
                    escape(&line.description)
                );
            }
        }
        if !self.deployments.is_empty() {
            text.push_str("\n\n| environment | release | state |\n|---|---|---|\n");
            for (place, DeployedLine { release, line }) in &self.deployments {
                let _ = writeln!(
                    text,
                    "| {} | [{release}]({}) | {} {} |",
                    escape(place),
                    line.url,
                    symbol(line.progress),
                    escape(&line.description)
                );
            }
        }
        text
    }
}

/// By which a comment of an earlier attempt is recognised.
#[must_use]
pub fn comment_marker(repository: &ServiceName) -> String {
    format!("<!-- shipway:{repository} -->")
}

const fn symbol(progress: ReportedProgress) -> &'static str {
    match progress {
        ReportedProgress::Queued | ReportedProgress::Running => "⏳",
        ReportedProgress::Success => "✅",
        ReportedProgress::Failure => "❌",
        ReportedProgress::Stopped => "⚪",
    }
}

/// Foreign text as one cell of a table: no markup, no mentions.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars().filter(|c| !c.is_control()).take(300) {
        match c {
            '@' => escaped.push_str("&#64;"),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '[' | ']' | '`' | '*' | '_' | '\\' | '!' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}
